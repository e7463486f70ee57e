from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from launcher import access
from launcher.errors import LaunchError


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def written(folder: Path, text: str) -> Path:
    file = folder / "file"
    file.write_text(text)
    return file


def test_keys_are_kept_as_hashes_only(tmp_path: Path) -> None:
    file = written(tmp_path, f"# comment\n\nalice:third-secret\n  bob:sha256:{sha256('fourth-secret').upper()}\n")
    keys = access.read_keys(["first-secret", "second-secret"], file)
    assert "secret" not in repr(keys)
    names = ["default_key_1", "default_key_2", "alice", "bob"]
    secrets = [f"{number}-secret" for number in ("first", "second", "third", "fourth")]
    assert [(key.name, key.digest) for key in keys] == list(zip(names, map(sha256, secrets), strict=True))
    assert access.keys_map(keys).splitlines() == [
        'default "";',
        *(f"{sha256(secret)} {name};" for name, secret in zip(names, secrets, strict=True)),
    ]


def test_without_keys_everybody_has_a_name_that_no_key_can_have(tmp_path: Path) -> None:
    assert access.keys_map([]) == "default -;\n"
    with pytest.raises(LaunchError):
        access.read_keys([], written(tmp_path, "-:secret"))


BAD_KEYS = [
    ("alice", "line 1 is not name:key"),
    ("alice:", "line 1 is not name:key"),
    ("ok:a\nal ice:secret", "line 2 is not name:key"),
    ("alice;evil:secret", "line 1 is not name:key"),
    ("alice:sec ret", "line 1 is not name:key"),
    ("alice:s\u00e9cret", "line 1 is not name:key"),
    ("a:secret\nb:secret", "line 2 is there twice"),
    (f"a:secret\nb:sha256:{sha256('secret')}", "line 2 is there twice"),
    ("alice:sha256:", "line 1 has a SHA-256 that is not 64 hex digits"),
    ("alice:sha256:" + "5" * 63, "line 1 has a SHA-256 that is not 64 hex digits"),
    (f"alice:sha256:{sha256('')}", "line 1 has the SHA-256 of an empty text"),
    ("# nothing\n", "holds no API key"),
    ("", "holds no API key"),
]


@pytest.mark.parametrize(("text", "message"), BAD_KEYS)
def test_a_bad_file_of_keys_is_told_by_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=message) as raised:
        access.read_keys([], written(tmp_path, text))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(LaunchError, match="cannot be read"):
        access.read_keys([], tmp_path / "file")


def test_restrictions(tmp_path: Path) -> None:
    file = written(tmp_path, f"# ours\nhealth X-Live sha256:{sha256('c')}\n")
    found = access.read_restrictions("inference,embedding x-ask a; metrics\tX-See  b ;", file)
    told = [(each.group, each.header, each.digest) for each in found]
    asked = [
        ("inference", "x-ask", "a"),
        ("embedding", "x-ask", "a"),
        ("metrics", "X-See", "b"),
        ("health", "X-Live", "c"),
    ]
    assert told == [(group, header, sha256(value)) for group, header, value in asked]
    assert "metrics X-See;" in access.headers_map(found).splitlines()
    values = access.values_map(found, "pass")
    for value in ("b", "pass", "Bearer pass"):
        assert f'"metrics {sha256(value)}" 1;' in values.splitlines()


BAD_RESTRICTIONS = [
    ("inference", "restriction 1 is not GROUPS HEADER VALUE"),
    ("inference x-a", "is not GROUPS HEADER VALUE"),
    ("inference x-a b c", "is not GROUPS HEADER VALUE"),
    ("inference x{a b", "is not GROUPS HEADER VALUE"),
    ("chat x-a secret", "names a group that is none of inference,"),
    ("inference x-a secret; inference x-b secret", "restriction 2 restricts inference, which is restricted already"),
    ("inference,inference x-a secret", "restricted already"),
    ("inference x-a sha256:12", "restriction 1 has a SHA-256 that is not 64 hex digits"),
    (f"inference x-a sha256:{sha256('')}", "restriction 1 has the SHA-256 of an empty text"),
]


@pytest.mark.parametrize(("text", "message"), BAD_RESTRICTIONS)
def test_bad_restrictions(text: str, message: str) -> None:
    with pytest.raises(LaunchError, match=message) as raised:
        access.read_restrictions(text, None)
    assert "secret" not in str(raised.value)
