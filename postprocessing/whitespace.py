"""Whitespace around a text in pieces: held back until it is known what comes next to it."""

from __future__ import annotations


class Trimmer:
    """Takes the whitespace around a text away.

    >>> trimmer = Trimmer()
    >>> [trimmer.push(piece) for piece in (" ", " a ", " b", " ")]
    ['', 'a', '  b', '']
    """

    def __init__(self) -> None:
        self._held: list[str] = []
        self._begun = False

    def push(self, text: str) -> str:
        """The text up to its last character that is no whitespace."""
        body = text.rstrip()
        if not body:
            self._held.append(text)
            return ""
        shown = "".join((*self._held, body)) if self._begun else body.lstrip()
        self._held = [text[len(body) :]]
        self._begun = True
        return shown


class Seam:
    """Keeps the whitespace before a call only if it belongs to other text.

    Text passes through as it comes; whitespace at the beginning and behind a call waits for text that it belongs to.
    """

    def __init__(self) -> None:
        self._held: list[str] = []
        self._waiting = True
        self._called = False

    def push(self, text: str) -> str:
        """What of the text can be shown, with the whitespace that waited for it."""
        if not self._waiting:
            return text
        self._held.append(text)
        if not text.strip():
            return ""
        self._waiting = False
        return self._taken()

    def call(self) -> None:
        """A call stands here: the whitespace before it goes, and so does what follows if nothing else does."""
        self._held.clear()
        self._waiting = self._called = True

    def finish(self) -> str:
        """The whitespace that is all there was."""
        held = self._taken()
        return "" if self._called else held

    def _taken(self) -> str:
        held = "".join(self._held)
        self._held.clear()
        return held
