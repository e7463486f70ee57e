"""JSON in pieces: where a value ends, and what the text in a string says. Nothing is looked at twice."""

from __future__ import annotations

import json
import re

_IN_STRING = re.compile(r'["\\]')
_IN_STRING_OR_LINE = re.compile(r'["\\\n]')
_STRUCTURE = re.compile(r'["{}\[\]<]')

_HEX = "[0-9a-fA-F]"
_HIGH = f"u[dD][89abAB]{_HEX}{{2}}"
_ESCAPE = re.compile(rf"\\(?:{_HIGH}\\u[dD][c-fC-F]{_HEX}{{2}}|u{_HEX}{{4}}|[^u])", re.DOTALL)
_OPEN_ESCAPE = re.compile(rf"\\(?:u{_HEX}{{0,3}}|{_HIGH}(?:\\(?:u(?:[dD](?:[c-fC-F]{_HEX}?)?)?)?)?)?")
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "/": "/", "\\": "\\"}


class Value:
    """Finds the end of an object, an array or a string. It counts brackets and does not validate.

    Args:
        string: the opening quote was read already.
        end: a text that begins with its only line break. Where a string has it, its quotes do not match: JSON would
            have escaped the line break.

    Attributes:
        done: the value has ended.
        broken: it ended at `end`, or at a `<` outside of strings. No JSON has one; a model's closing marker does.
        pending: how much of what was read last is `end`, as far as it goes.
    """

    def __init__(self, *, string: bool = False, end: str = "") -> None:
        self.pending = 0
        self._end = end
        self._inside = _IN_STRING_OR_LINE if end else _IN_STRING
        self._depth = 0
        self._string = string
        self._escaped = False
        self.done = False
        self.broken = False

    def read(self, text: str, at: int) -> int:
        """How far the value goes in `text`, which goes on from `at`."""
        while at < len(text) and not self.done:
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            if self.pending:
                if text[at] == self._end[self.pending]:
                    self.pending += 1
                    at += 1
                    self.done = self.broken = self.pending == len(self._end)
                    continue
                self.pending = 0
            match = (self._inside if self._string else _STRUCTURE).search(text, at)
            if match is None:
                return len(text)
            at = match.end()
            self._turn(match.group())
        return at - 1 if self.broken and not self.pending else at

    def _turn(self, char: str) -> None:
        """Takes a character that means something where it stands."""
        if char == "\n":
            self.pending = 1
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._string = not self._string
        elif char == "<":
            self.broken = True
        else:
            self._depth += 1 if char in "{[" else -1
        self.done = self.broken or (self._depth <= 0 and not self._string)


class Unescaped:
    """The text that the inside of a JSON string stands for.

    An escape that JSON does not have stays as it is; half of a surrogate pair becomes U+FFFD.

    >>> inside = Unescaped()
    >>> inside.push(r'{\\"a\\": 1, \\u00'), inside.push("e9")
    ('{"a": 1, ', 'é')
    """

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """What is certain of it."""
        text, self._held = self._held + text, ""
        parts = []
        at = 0
        while (start := text.find("\\", at)) >= 0:
            parts.append(text[at:start])
            if _OPEN_ESCAPE.fullmatch(text, start):
                self._held = text[start:]
                return "".join(parts)
            match = _ESCAPE.match(text, start)
            parts.append(_character(match.group()) if match else "\\")
            at = match.end() if match else start + 1
        parts.append(text[at:])
        return "".join(parts)

    def finish(self) -> str:
        """The rest: an escape that was cut off, as it is, or half of a pair."""
        held, self._held = self._held, ""
        return _ESCAPE.sub(lambda match: _character(match.group()), held)


def unescaped(text: str) -> str:
    """The same for a whole string's inside."""
    inside = Unescaped()
    return inside.push(text) + inside.finish()


def escaped(text: str) -> str:
    """The text as it stands inside a JSON string. Half of a surrogate pair must not get into text, its escape may."""
    return json.dumps(text, ensure_ascii="\ud800" <= text[:1] <= "\udfff")[1:-1]


def _character(escape: str) -> str:
    if escape[1] != "u":
        return _SHORT.get(escape[1], escape)
    if len(escape) > 6:
        return bytes.fromhex(escape[2:6] + escape[8:]).decode("utf-16-be")
    code = int(escape[2:], 16)
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
