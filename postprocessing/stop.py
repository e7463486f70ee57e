"""Stop strings in a stream of text: found wherever the pieces are cut, held back until certain, not passed on."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches one sequence's text.

    Args:
        stops: the strings to look for, none empty. With none, text passes straight through.
        include: pass the one that ended the text on, too.

    Attributes:
        matched: the stop string that ended the text, once one did; nothing may be pushed after that.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        self._stops = tuple(stops)
        self._include = include
        self._held = ""
        self.matched: str | None = None

    def push(self, piece: str) -> str:
        """The text that is certainly before any stop string."""
        if not self._stops or not piece:
            return piece
        text = self._held + piece
        start = self._find(text)
        if start is not None:
            self._held = ""
            return text[: start + len(self.matched or "")] if self._include else text[:start]
        keep = self._held_length(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The held-back text, which turned out not to be a stop string."""
        held, self._held = self._held, ""
        return held

    def _find(self, text: str) -> int | None:
        """Where the stop string begins that is complete first, whatever the cuts; of two at once, the longer one."""
        found = [(at + len(stop), -len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if not found:
            return None
        end, _, self.matched = min(found)
        return end - len(self.matched)

    def _held_length(self, text: str) -> int:
        """Length of the longest end of `text` that is the beginning of a stop string."""
        return max(open_length(text, stop) for stop in self._stops)


def open_length(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop` (shorter than it).

    >>> open_length("a <|im", "<|im_end|>")
    4
    """
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return len(text) - at
        at = text.find(stop[0], at + 1)
    return 0
