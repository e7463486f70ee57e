"""Calls written as a Python list of function calls: `[get_weather(city='Paris', days=3), now()]`.

Llama 3.2 and Llama 4 write them so, the latter perhaps between `<|python_start|>` and `<|python_end|>`. Public sources:
the prompt formats in Meta's documentation (https://www.llama.com/docs/model-cards-and-prompt-formats/) and the chat
templates for pythonic tool calls that inference engines publish for these models.

A list counts if it begins a line and its first call is of a known function, with keyword arguments or none at all. The
arguments become JSON as they come. A value that is no Python literal becomes a string.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from postprocessing.reader import Tools
from postprocessing.tool_calls.cursor import SPACE, Broken, CallReader, Ended, Steps
from postprocessing.tool_calls.value import escaped

START, END = "<|python_start|>", "<|python_end|>"

IDENTIFIER = re.compile(r"\w*")
STRING = {quote: re.compile(rf"[^\\{quote}]*") for quote in "'\""}
BARE = re.compile(r"[^,()\[\]{}]*")
BARE_KEY = re.compile(r"[^,()\[\]{}:]*")

ESCAPES = {
    "\n": "",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
HEX, OCTAL = "0123456789abcdefABCDEF", "01234567"

WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class Bracket(NamedTuple):
    """A collection in Python, and what stands around it in JSON."""

    close: str
    json_open: str
    json_close: str


BRACKETS = {"[": Bracket("]", "[", "]"), "(": Bracket(")", "[", "]"), "{": Bracket("}", "{", "}")}


class Pythonic(CallReader):
    """Reads such lists.

    Args:
        tools: the functions that may be called.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tuple(tools)
        self._line_begins = True
        super().__init__((START, "["), (END,))

    def _content(self, text: str) -> None:
        line = text.rpartition("\n")
        self._line_begins = not line[2].strip() and (bool(line[1]) or self._line_begins)
        super()._content(text)

    def _close(self) -> None:
        self._line_begins = True
        super()._close()

    def _announces(self, opener: str) -> bool:
        return opener == START

    def _calls(self, opener: str) -> Steps[None]:
        if opener == START:
            yield from self._visible()
            yield from self._literal("[")
        elif not self._line_begins:
            raise Broken
        while True:
            self._begin()
            yield from self._call()
            self._keep()
            if not (yield from self._goes_on("]")):
                self._drop()
                return

    def _goes_on(self, close: str) -> Steps[bool]:
        """Whether more follows behind a comma; if not, it passes the bracket that ends all."""
        char = yield from self._visible()
        if char == ",":
            self._at += 1
            char = yield from self._visible()
        elif char != close:
            raise Broken
        self._at += char == close
        return char != close

    def _call(self) -> Steps[None]:
        yield from self._visible()
        name = yield from self._name()
        yield from self._visible()
        yield from self._literal("(")
        key = yield from self._key()
        if not key:
            self._at += 1
            if (yield from self._visible()) not in ",]":
                raise Broken
        self._opened(name)
        if key:
            yield from self._keywords(key)
        self._close()

    def _name(self) -> Steps[str]:
        """The name of a known function."""
        name = ""
        while (char := (yield from self._next())) not in "(" + SPACE:
            name += char
            if not any(tool.startswith(name) for tool in self._tools):
                raise Broken
            self._at += 1
        if name not in self._tools:
            raise Broken
        return name

    def _key(self) -> Steps[str]:
        """An argument's name, and the sign behind it; empty before the bracket that ends the call."""
        if (yield from self._visible()) == ")":
            return ""
        parts: list[str] = []
        yield from self._while(IDENTIFIER, parts.append)
        yield from self._visible()
        yield from self._literal("=")
        key = "".join(parts)
        if not key.isidentifier():
            raise Broken
        return key

    def _keywords(self, key: str) -> Steps[None]:
        """All arguments, from the first one's value on."""
        before = "{"
        while key:
            self._argue(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            yield from self._python()
            before = ", "
            key = yield from self._next_key()
        self._argue("}")

    def _next_key(self) -> Steps[str]:
        self._keep()
        try:
            key = (yield from self._key()) if (yield from self._goes_on(")")) else ""
        except Ended:
            self._drop()  # part of an argument, which is no text
            raise
        self._drop()
        return key

    def _python(self) -> Steps[None]:
        """One value. What is open is on a stack, as models may nest as deep as they please."""
        stack: list[Bracket] = []
        while True:
            bracket = BRACKETS.get((yield from self._visible()))
            if bracket is None:
                yield from self._scalar_value(BARE)
            else:
                self._at += 1
                stack.append(bracket)
                self._argue(bracket.json_open)
            if not (yield from self._next_place(stack, first=bracket is not None)):
                return

    def _next_place(self, stack: list[Bracket], *, first: bool) -> Steps[bool]:
        """Goes to where the next value stands, through all that ends before it; false if that is everything."""
        while stack:
            close = stack[-1].close
            more = (yield from self._visible()) != close if first else (yield from self._goes_on(close))
            if more:
                self._argue("" if first else ", ")
                if close == "}":
                    yield from self._dict_key()
                return True
            self._at += first
            self._argue(stack.pop().json_close)
            first = False
        return False

    def _dict_key(self) -> Steps[None]:
        yield from self._scalar_value(BARE_KEY)
        yield from self._visible()
        yield from self._literal(":")
        self._argue(": ")

    def _scalar_value(self, bare: re.Pattern[str]) -> Steps[None]:
        """A string, or something that ends where the next comma or bracket is."""
        char = yield from self._visible()
        if char in STRING:
            self._at += 1
            yield from self._quoted(char)
        else:
            yield from self._bare(bare)

    def _quoted(self, quote: str) -> Steps[None]:
        """A string behind its opening quote."""
        self._argue('"')
        while True:
            yield from self._while(STRING[quote], lambda text: self._argue(escaped(text)))
            self._at += 1
            if self._text[self._at - 1] == quote:
                break
            self._argue(escaped((yield from self._escape())))
        self._argue('"')

    def _escape(self) -> Steps[str]:
        """What an escape stands for, the cursor being behind its backslash. An unknown one stands for itself."""
        char = yield from self._next()
        if char in OCTAL:
            return chr(int((yield from self._digits(OCTAL, 3)), 8))
        self._at += 1
        if char not in HEX_DIGITS:
            return ESCAPES.get(char, "\\" + char)
        digits = yield from self._digits(HEX, HEX_DIGITS[char])
        whole = len(digits) == HEX_DIGITS[char] and int(digits, 16) < 0x110000
        return chr(int(digits, 16)) if whole else f"\\{char}{digits}"

    def _digits(self, allowed: str, most: int) -> Steps[str]:
        digits = ""
        while len(digits) < most and (char := (yield from self._next())) in allowed:
            digits += char
            self._at += 1
        return digits

    def _bare(self, pattern: re.Pattern[str]) -> Steps[None]:
        """A number, a name, or whatever it is, with the brackets that belong to it."""
        parts: list[str] = []
        depth = 0
        try:
            while True:
                yield from self._while(pattern, parts.append)
                char = self._text[self._at]
                depth += char in BRACKETS
                if depth == 0:
                    break
                depth -= char in ")]}"
                parts.append(char)
                self._at += 1
        finally:
            text = "".join(parts).strip()
            value = scalar(text) if text else ""
            is_key = pattern is BARE_KEY and not value.startswith('"')
            self._argue(f'"{value}"' if is_key and text else value)
        if not text:
            raise Broken


def scalar(text: str) -> str:
    """A Python value that is no string and no collection, as JSON."""
    if text in WORDS:
        return WORDS[text]
    if NUMBER.fullmatch(text):
        return text
    for number in (lambda: int(text, 0), lambda: float(text)):
        try:
            return json.dumps(number(), allow_nan=False)
        except ValueError:
            continue
    return json.dumps(text, ensure_ascii=False)
