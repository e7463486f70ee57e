"""Readers of settings: what an operator wrote, as text → a value, or a ValueError that says what was wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Reader = Callable[[str], Any]

# What a gateway lets through as the id of a model (gateway/nginx.conf.template).
NAME = re.compile(r"[A-Za-z0-9._:@+=/-]{1,256}")
# An OpenTelemetry collector. A password would be seen by whoever lists processes, as Triton is given the address, too.
COLLECTOR = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[A-Za-z0-9._~/-]*)?")
TRACES = "/v1/traces"


class HiddenError(ValueError):
    """About a value that no log may show."""


def read(readers: Mapping[str, Reader], values: Mapping[str, str], place: str) -> dict[str, Any]:
    """The values that there are readers for.

    Args:
        place: what stands in front of a setting's name in an error.

    Raises:
        ValueError: `<place><name>: wanted …, found '…'`.
    """
    found: dict[str, Any] = {}
    for name, reader in readers.items():
        if name in values:
            try:
                found[name] = reader(values[name])
            except HiddenError as error:
                raise ValueError(f"{place}{name}: {error}") from None
            except ValueError as error:
                raise ValueError(f"{place}{name}: {error}, found '{values[name]}'") from None
    return found


def a_count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("wanted a positive whole number")
    return int(text)


def seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,3})?", text) or float(text) == 0:
        raise ValueError("wanted a number of seconds above 0")
    return float(text)


def a_share(text: str) -> float:
    if not re.fullmatch(r"0|1|[01]?\.\d{1,9}", text) or float(text) > 1:
        raise ValueError("wanted a number from 0 to 1")
    return float(text)


def a_collector(text: str) -> str:
    """Where OTLP is taken, over HTTP: with the path that it has there, which the text may lack. "off": nowhere."""
    if text == "off":
        return ""
    if not COLLECTOR.fullmatch(text):
        raise ValueError("wanted off, or an address such as http://127.0.0.1:4318, without user or password")
    return text if text.endswith(TRACES) else text.rstrip("/") + TRACES


def existing(is_one: Callable[[Path], bool], wanted: str) -> Reader:
    """A path of something that is there."""

    def find(text: str) -> Path:
        if not is_one(Path(text)):
            raise ValueError(f"wanted {wanted}")
        return Path(text)

    return find


a_folder = existing(Path.is_dir, "a folder")
a_file = existing(Path.is_file, "a file")
a_place = existing(Path.exists, "a file or a folder")


def a_separator(text: str) -> str:
    """Between two parts of a name."""
    if not NAME.fullmatch(text) or "/" in text:
        raise ValueError("wanted letters, digits and . _ : @ + = -")
    return text


def a_name(text: str) -> str:
    """Of a model, for clients. Two of its endings are routes."""
    if not NAME.fullmatch(text) or text.endswith(("/load", "/unload")):
        raise ValueError("wanted a name of letters, digits and . _ : @ + = / -")
    return text


def a_triton_model(text: str) -> str:
    """Its name, which is that of a folder in a model repository."""
    if not re.fullmatch(r"[\w.@+=-]{1,256}", text) or text.startswith("."):
        raise ValueError("wanted the name of a Triton model")
    return text


def several(reader: Reader) -> Reader:
    """Several of the same kind, separated by commas."""
    return lambda text: tuple(reader(part.strip()) for part in text.split(","))


def hidden(reader: Reader) -> Reader:
    """For what may hold a password."""

    def hide(text: str) -> Any:
        try:
            return reader(text)
        except ValueError as error:
            raise HiddenError(str(error)) from None

    return hide


def one_of(*known: str) -> Reader:
    def choice(text: str) -> str:
        if text not in known:
            raise ValueError(f"wanted one of {', '.join(known)}")
        return text

    return choice
