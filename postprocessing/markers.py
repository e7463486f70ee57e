"""Markers in a stream of text: found wherever the pieces are cut; only what may become one is held back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

PIECE = 1024
NOTHING = r"(?!)"


class Found(NamedTuple):
    """What a piece of text came to.

    Attributes:
        before: text that is certainly before any marker.
        marker: the marker behind it, or None if none is certain yet.
        rest: the text behind the marker, not looked at; for whoever reads on there.
    """

    before: str
    marker: str | None
    rest: str


class Scanner:
    """Finds the marker that begins first; of several that begin at one place, the longest.

    It starts afresh behind each marker, so one scanner serves for a whole text: push the `rest` again, or push it to
    another scanner.

    >>> scanner = Scanner(("<a>", "<b>"))
    >>> scanner.push("x <")
    Found(before='x ', marker=None, rest='')
    >>> scanner.push("b> y")
    Found(before='', marker='<b>', rest=' y')

    Args:
        markers: none of them empty. With none at all, text passes straight through.
    """

    def __init__(self, markers: tuple[str, ...]) -> None:
        self._longest = max(map(len, markers), default=0)
        self._marker, self._beginning = _patterns(markers)
        self._held = ""

    def push(self, text: str) -> Found:
        """Takes more text."""
        text, self._held = self._held + text, ""
        match = self._marker.search(text)
        if match and match.start() <= len(text) - self._longest:  # what the text leaves open begins behind it
            return Found(text[: match.start()], match.group(), text[match.end() :])
        beginning = self._beginning.search(text, max(0, len(text) - self._longest + 1))
        may_begin = beginning.start() if beginning else len(text)
        if match and match.start() < may_begin:
            return Found(text[: match.start()], match.group(), text[match.end() :])
        # Whatever is complete in the held end may yet be inside a marker that begins earlier, or be part of a longer.
        self._held = text[may_begin:]
        return Found(text[:may_begin], None, "")

    def finish(self) -> Found:
        """What was held back, now that no more comes. If it holds a marker, push the rest and finish again."""
        text, self._held = self._held, ""
        match = self._marker.search(text)
        if match:
            return Found(text[: match.start()], match.group(), text[match.end() :])
        return Found(text, None, "")


def pieces(text: str) -> Iterator[str]:
    """The text in pieces so short that copying the rest of one at each marker costs nothing that grows."""
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))


@lru_cache(maxsize=64)
def _patterns(markers: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What matches any of the markers, the longest first; what matches an end of text that is the beginning of one."""
    ordered = sorted(markers, key=len, reverse=True)
    beginnings = [_beginning(marker) for marker in markers if len(marker) > 1]
    return (
        re.compile("|".join(map(re.escape, ordered)) or NOTHING),
        re.compile(rf"(?:{'|'.join(beginnings) or NOTHING})\Z"),
    )


def _beginning(marker: str) -> str:
    """A pattern of the texts that a marker, not whole, begins with: `a(?:b)?` for abc."""
    pattern = ""
    for char in reversed(marker[:-1]):
        pattern = re.escape(char) + (f"(?:{pattern})?" if pattern else "")
    return pattern
