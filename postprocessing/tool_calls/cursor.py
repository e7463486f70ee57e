"""A reader as one function that runs through the text and pauses where the text so far ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from postprocessing.markers import Scanner, pieces
from postprocessing.reader import CallArguments, CallOpened, Content, Delta
from postprocessing.tool_calls.value import Unescaped, Value, unescaped
from postprocessing.whitespace import Seam

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A part of the reading that gives a T; it yields to wait for more text."""

SPACE = " \t\r\n"
_SPACES = re.compile(f"[{SPACE}]*")
_SCALAR = re.compile(rf"[^{SPACE},\]}}<`]*")
# Inside a key or a name, up to what ends it; none has a tag or a line break.
_LABEL = re.compile(r'[^"\\<\n]*')
# What models write too much of between a call and its closer.
_LEFT_OVER = SPACE + "}]"


class Broken(Exception):
    """The character at the cursor cannot stand there: this is no call, or no longer one."""


class Ended(Exception):
    """The text ended in the middle of something."""


class CallReader:
    """Finds calls behind markers; families say how a call goes on from there (`_calls`).

    From a marker until the call's name is known the text is kept. If the reading breaks there, the kept text comes out
    as content and the search for markers goes on at the cursor.

    Args:
        openers: markers behind which calls are.
        closers: markers that may come once after a call and mean nothing. Behind other text they are text, too.
    """

    reasoning = False
    value_end = ""
    """A line break and a closer: the end of any value, even within a string, as JSON has no line breaks in strings."""

    def __init__(self, openers: tuple[str, ...], closers: tuple[str, ...] = ()) -> None:
        self.calls = self.failures = 0
        self._closers = closers
        self._scanner = Scanner(openers + closers)
        self._due: tuple[str, ...] = ()
        self._out: list[Delta] = []
        # The cursor. Of the text before this piece only what is kept is known.
        self._text = ""
        self._at = 0
        self._ended = False
        self._kept: list[str] | None = None
        self._kept_from = 0
        self._seam = Seam()
        # The call being read.
        self._number = -1
        self._open = False
        self._wrote = False
        self._early: list[str] = []
        self._run = self._read()
        next(self._run)

    def push(self, text: str) -> list[Delta]:
        for piece in pieces(text):
            self._text, self._at = piece, 0
            next(self._run)
        return self._taken()

    def finish(self) -> list[Delta]:
        self._ended = True
        next(self._run, None)
        if blank := self._seam.finish():
            self._out.append(Content(blank))
        return self._taken()

    def _taken(self) -> list[Delta]:
        out, self._out = self._out, []
        return out

    def _calls(self, opener: str) -> Steps[None]:
        """Reads what an opener announces, the cursor being behind it."""
        raise NotImplementedError

    def _announces(self, opener: str) -> bool:
        """Whether the opener says that a call follows, rather than that one may."""
        return True

    def _read(self) -> Steps[None]:
        while (marker := (yield from self._marker())) is not None:
            if marker in self._due:
                self._due = tuple(closer for closer in self._due if closer != marker)
                self._seam.call()
                continue
            if marker in self._closers:
                self._content(marker)
                continue
            self._keep(marker)
            read = self.calls
            try:
                yield from self._calls(marker)
                self._release()
            except Broken:
                self.failures += self._open or self.calls == read and self._announces(marker)
                if self._open:
                    self._close()
                self._release()
            except Ended:
                self._release()

    # What comes out

    def _content(self, text: str) -> None:
        if self._due and text.strip(_LEFT_OVER):
            self._due = ()
        if shown := self._seam.push(text):
            self._out.append(Content(shown))

    def _begin(self) -> None:
        """A call may begin: nothing is known of it."""
        self._wrote = False
        self._early.clear()

    def _opened(self, name: str) -> None:
        """The name is known, so this is a call; arguments that came before it follow."""
        if not name:
            raise Broken
        self._drop()
        self._seam.call()
        self._open = True
        self._number += 1
        self._out.append(CallOpened(self._number, name))
        self._argue("".join(self._early))

    def _argue(self, text: str) -> None:
        """Gives text of the arguments, or sets it aside until the name is known."""
        if not self._open:
            self._early.append(text)
        elif text:
            self._wrote = True
            self._out.append(CallArguments(self._number, text))

    def _close(self) -> None:
        """The call is over."""
        if not self._wrote:
            self._argue("{}")
        self._open = False
        self.calls += 1
        self._due = self._closers

    # What is kept

    def _keep(self, opener: str = "") -> None:
        """Keeps what is read from here on, until it is known what it is."""
        self._kept = [opener]
        self._kept_from = self._at

    def _release(self) -> None:
        """What was kept is content."""
        if self._kept is not None:
            self._content("".join(self._kept) + self._text[self._kept_from : self._at])
            self._kept = None

    def _drop(self) -> None:
        """What was kept means nothing."""
        self._kept = None

    def _unread(self, text: str) -> None:
        """Puts back what was passed last, in whatever pieces it came."""
        if self._kept is not None:
            kept = "".join(self._kept) + self._text[self._kept_from : self._at]
            self._kept = [kept[: len(kept) - len(text)]]
        self._text, self._at, self._kept_from = text + self._text[self._at :], 0, 0

    # What is read

    def _more(self) -> Steps[None]:
        """Waits for the next piece."""
        if self._kept is not None:
            self._kept.append(self._text[self._kept_from :])
        self._text, self._at, self._kept_from = "", 0, 0
        if not self._ended:
            yield
        if self._ended:
            raise Ended

    def _marker(self) -> Steps[str | None]:
        """The next marker; what is before it is content. None at the end of the text."""
        while True:
            while self._at == len(self._text) and not self._ended:
                yield
            left = self._text[self._at :]
            found = self._scanner.push(left) if left else self._scanner.finish()
            self._text, self._at = found.rest, 0
            if found.before:
                self._content(found.before)
            if found.marker or not left:
                return found.marker

    def _next(self) -> Steps[str]:
        """The character at the cursor."""
        if self._at == len(self._text):
            yield from self._more()
        return self._text[self._at]

    def _visible(self) -> Steps[str]:
        """The character at the cursor, once whitespace is skipped."""
        yield from self._while(_SPACES)
        return self._text[self._at]

    def _while(self, pattern: re.Pattern[str], take: Callable[[str], object] = lambda text: None) -> Steps[None]:
        """Passes all that `pattern` (some characters, any number of times) matches. There is text at the cursor then.

        At the end of the text it raises like all the others, when `take` has seen everything.
        """
        while True:
            if match := pattern.match(self._text, self._at):
                take(match.group())
                self._at = match.end()
            if self._at < len(self._text):
                return
            yield from self._more()

    def _literal(self, text: str) -> Steps[None]:
        """Passes exactly this text."""
        yield from self._one_of((text,))

    def _one_of(self, texts: Sequence[str]) -> Steps[str]:
        """Passes one of some texts, none of which begins with another.

        What it has of one when it breaks is put back, as a marker may begin there. That is less than the longest of
        them, and happens once for each marker, so the work stays proportional to the text.
        """
        read = ""
        while read not in texts:
            read += yield from self._next()
            if not any(text.startswith(read) for text in texts):
                self._unread(read[:-1])
                raise Broken
            self._at += 1
        return read

    def _word(self, allowed: Sequence[str]) -> Steps[str]:
        """One of the allowed texts up to the quote that ends it; broken at the first character that rules them out."""
        word = ""
        while (char := (yield from self._next())) != '"':
            if not any(each.startswith(word + char) for each in allowed):
                raise Broken
            word += char
            self._at += 1
        if word not in allowed:
            raise Broken
        self._at += 1
        return word

    def _value(self, value: Value, take: Callable[[str], object] = lambda text: None) -> Steps[None]:
        """Passes an object, an array or a string, of which `value` has seen what is before the cursor."""
        held = ""  # may be `value_end`
        while True:
            end = value.read(self._text, self._at)
            passed = held + self._text[self._at : end]
            certain = len(passed) - value.pending
            take(passed[:certain])
            held, self._at = passed[certain:], end
            if value.broken:
                self._unread(held)
                raise Broken
            if value.done:
                return
            try:
                yield from self._more()
            except Ended:
                take(held)
                raise

    def _label(self) -> Steps[str]:
        """A key or a name, the cursor being behind its opening quote. One that is not closed ends before a marker."""
        parts: list[str] = []
        while True:
            yield from self._while(_LABEL, parts.append)
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return unescaped("".join(parts))
            if char != "\\":
                raise Broken
            self._at += 1
            parts.append(char + (yield from self._next()))
            self._at += 1

    def _skip(self) -> Steps[None]:
        """Passes any value."""
        if (yield from self._visible()) in '"{[':
            yield from self._value(Value(end=self.value_end))
        else:
            yield from self._while(_SCALAR)

    def _arguments(self) -> Steps[None]:
        """Passes a value that is the arguments: an object, or a string that holds one. null and nothing mean none."""
        char = yield from self._visible()
        if char == '"':
            self._at += 1
            yield from self._encoded()
        elif char in "{[":
            yield from self._value(Value(end=self.value_end), self._argue)
        else:
            yield from self._scalar()

    def _encoded(self) -> Steps[None]:
        """A string that holds JSON, the cursor being behind its opening quote."""
        inside = Unescaped()
        value = Value(string=True, end=self.value_end)

        def take(text: str) -> None:
            self._argue(inside.push(text[:-1] if value.done and not value.broken else text))

        try:
            yield from self._value(value, take)
        finally:
            self._argue(inside.finish())

    def _scalar(self) -> Steps[None]:
        """Anything else that models write for arguments, as it is, but for null."""
        parts: list[str] = []
        try:
            yield from self._while(_SCALAR, parts.append)
        finally:
            text = "".join(parts)
            self._argue("" if text == "null" else text)
