"""Calls that are JSON objects, `{"name": "f", "arguments": {…}}`, alone or in an array, marked or not.

Sources, all public: the chat templates of Llama 3.1 to 3.3, Qwen 2.5 and 3, Hermes 2 Pro and 3, Granite 3.x and 4,
Phi-4-mini, Nemotron and Mistral, and the pages on function calling of these models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from postprocessing.reader import Tools
from postprocessing.tool_calls.cursor import Broken, CallReader, Steps

NAME = ("name", "function")
ARGUMENTS = ("arguments", "parameters")
KEYS = (*NAME, *ARGUMENTS, "type", "id")
INNER_KEYS = ("name", *ARGUMENTS, "description")
"""The keys of calls. Where nothing marks a call, any other key before the name says that there is none."""

BARE = {"{": "", "[": ""}


class Form(NamedTuple):
    """How a family writes its calls.

    Attributes:
        openers: markers of calls → what stands behind the calls then, if it is there. An object or array without a
            marker is its own.
        closers: markers that may come once after a call.
        separators: characters of which one may be between two calls.
    """

    openers: Mapping[str, str]
    closers: tuple[str, ...] = ()
    separators: str = ""

    @property
    def bare(self) -> bool:
        """Whether any object may be a call; only those of known functions are."""
        return "{" in self.openers


class Objects(CallReader):
    """Reads calls that are JSON objects."""

    def __init__(self, form: Form, tools: Tools) -> None:
        self._form = form
        self._names = tuple(tools) if form.bare else None
        self._given = False
        super().__init__(tuple(form.openers), form.closers)

    def _calls(self, opener: str) -> Steps[None]:
        if opener in BARE:
            self._unread(opener)
        yield from self._group()
        while self._form.bare and (yield from self._another()):
            yield from self._group()
        if behind := self._form.openers[opener]:
            yield from self._visible()
            yield from self._literal(behind)
            self._drop()

    def _another(self) -> Steps[bool]:
        """Whether another call follows at once; what is between them is kept until its name is known."""
        self._keep()
        char = yield from self._visible()
        if char in self._form.separators:
            self._at += 1
            char = yield from self._visible()
            if char not in BARE:
                raise Broken
        return char in BARE

    def _group(self) -> Steps[None]:
        """An object, or an array of objects."""
        char = yield from self._visible()
        if char not in BARE:
            raise Broken
        self._at += 1
        yield from self._object() if char == "{" else self._array()

    def _array(self) -> Steps[None]:
        """Objects, the cursor being behind the array's `[`."""
        while True:
            yield from self._visible()
            yield from self._literal("{")
            yield from self._object()
            self._keep()
            char = yield from self._visible()
            if char == "]":
                self._at += 1
                self._drop()
                return
            yield from self._literal(",")

    def _object(self) -> Steps[None]:
        """A call, the cursor being behind its `{`."""
        self._begin()
        self._given = False
        yield from self._members(KEYS)
        if not self._open:
            raise Broken
        self._close()

    def _members(self, keys: tuple[str, ...]) -> Steps[None]:
        """The members of a call, or of the function in it, to the end of the object."""
        while (char := (yield from self._visible())) != "}":
            yield from self._literal('"')
            key = yield from self._string() if self._open or self._names is None else self._word(keys)
            yield from self._visible()
            yield from self._literal(":")
            yield from self._member(key, keys)
            char = yield from self._visible()
            if char != "}":
                yield from self._literal(",")
        self._at += 1

    def _member(self, key: str, keys: tuple[str, ...]) -> Steps[None]:
        """A member's value."""
        char = yield from self._visible()
        if key in ARGUMENTS and not self._given:
            self._given = True
            yield from self._arguments()
        elif key == "function" and char == "{" and keys is KEYS:
            self._at += 1
            yield from self._members(INNER_KEYS)
        elif key in NAME and key in keys and not self._open:
            yield from self._literal('"')
            self._opened((yield from self._string() if self._names is None else self._word(self._names)))
        else:
            yield from self._skip()
