"""Who may enter: API keys and restricted groups of routes, from options and files to the bodies of nginx maps.

In: texts. Out: names and SHA-256 digests; a secret itself is kept nowhere and appears in no error.

A file of keys has a key a line, `name:key` or `name:sha256:<64 hex digits>`. Limits count by name, so two keys with one
name share them: that is how a key is changed without a gap. A file of restrictions has a row a line, as NVIDIA's
`--openai-restricted-api` has them: `groups header value`, the groups separated by commas, the value perhaps `sha256:…`.
In both files empty lines and lines that begin with # are skipped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import LaunchError

GROUPS = ("inference", "embedding", "model-repository", "metrics", "health")
EVERYBODY = "-"
"""The name of a client where there are no keys; no key can be called so."""
_MARK = "sha256:"
_DIGEST = re.compile(_MARK + "([0-9a-fA-F]{64})")
_OF_NOTHING = hashlib.sha256(b"").hexdigest()
_NAMED_KEY = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}):([\x21-\x7e]+)")
_KEY = re.compile(r"[\x21-\x7e]+")
_RESTRICTION = re.compile(r"([a-z,-]+)\s+([A-Za-z0-9-]+)\s+([\x21-\x7e]+)")


@dataclass(frozen=True)
class Key:
    name: str
    digest: str


@dataclass(frozen=True)
class Restriction:
    """A group of routes is open to those who send `header` with a value of this digest."""

    group: str
    header: str
    digest: str


def digest_of(secret: str, place: str) -> str:
    """The SHA-256 of a secret, which may be given as `sha256:<digest>` already.

    Raises:
        LaunchError: it is meant to be a digest and is none, or is that of an empty text, which is what comes out where
            a variable was not set.
    """
    if not secret.startswith(_MARK):
        return hashlib.sha256(secret.encode()).hexdigest()
    found = _DIGEST.fullmatch(secret)
    if found is None:
        raise LaunchError(f"{place} has a SHA-256 that is not 64 hex digits.")
    if found[1].lower() == _OF_NOTHING:
        raise LaunchError(f"{place} has the SHA-256 of an empty text.")
    return found[1].lower()


def read_keys(given: Sequence[str], file: Path | None) -> list[Key]:
    """The keys of the option and of the file. A file without a key is an error: it must not open the server."""
    named = [(f"default_key_{number}", key, "an API key") for number, key in enumerate(given, 1)]
    for place, line in _lines_of(file):
        found = _NAMED_KEY.fullmatch(line)
        if found is None:
            raise LaunchError(f"{place} is not name:key or name:sha256:DIGEST.")
        named.append((found[1], found[2], place))
    if file is not None and len(named) == len(given):
        raise LaunchError(f"{file} holds no API key.")
    return list(_different(named))


def _different(named: Iterable[tuple[str, str, str]]) -> Iterator[Key]:
    seen: set[str] = set()
    for name, secret, place in named:
        if _KEY.fullmatch(secret) is None:
            raise LaunchError(f"{place} has characters that no HTTP header can carry.")
        digest = digest_of(secret, place)
        if digest in seen:
            raise LaunchError(f"{place} is there twice.")
        seen.add(digest)
        yield Key(name, digest)


def read_restrictions(given: str, file: Path | None) -> list[Restriction]:
    """The rows of the option, which are separated by semicolons, and of the file."""
    rows = [(f"restriction {number}", row) for number, row in enumerate(re.split(r"[;\n]", given), 1)]
    found: dict[str, Restriction] = {}
    for place, row in [*((place, row.strip()) for place, row in rows if row.strip()), *_lines_of(file)]:
        for restriction in _restrictions(place, row):
            if restriction.group in found:
                raise LaunchError(f"{place} restricts {restriction.group}, which is restricted already.")
            found[restriction.group] = restriction
    return list(found.values())


def _restrictions(place: str, row: str) -> list[Restriction]:
    parts = _RESTRICTION.fullmatch(row)
    if parts is None:
        raise LaunchError(f"{place} is not GROUPS HEADER VALUE.")
    groups = parts[1].split(",")
    if set(groups) - set(GROUPS):
        raise LaunchError(f"{place} names a group that is none of {', '.join(GROUPS)}.")
    return [Restriction(group, parts[2], digest_of(parts[3], place)) for group in groups]


def _lines_of(file: Path | None) -> list[tuple[str, str]]:
    """(where it stands, text) of each line that says something."""
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise LaunchError(f"{file} cannot be read.") from None
    told = ((f"{file} line {number}", line.strip()) for number, line in enumerate(lines, 1))
    return [(place, line) for place, line in told if line and not line.startswith("#")]


def keys_map(keys: Sequence[Key]) -> str:
    """SHA-256 of a key → its name. Whoever is not in it has no name."""
    if not keys:
        return f"default {EVERYBODY};\n"
    return 'default "";\n' + "".join(f"{key.digest} {key.name};\n" for key in keys)


def headers_map(restrictions: Sequence[Restriction]) -> str:
    """Group → the header it wants."""
    return "".join(f"{each.group} {each.header};\n" for each in restrictions)


def values_map(restrictions: Sequence[Restriction], pass_key: str) -> str:
    """Group and digest → may enter. `pass_key` opens all of them, alone and as a bearer's."""
    passes = [hashlib.sha256(text.encode()).hexdigest() for text in (pass_key, f"Bearer {pass_key}")]
    rows = [(each.group, digest) for each in restrictions for digest in {each.digest, *passes}]
    return "".join(f'"{group} {digest}" 1;\n' for group, digest in sorted(rows))
