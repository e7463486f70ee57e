"""Calls that are JSON objects, `{"name": "f", "arguments": {…}}`, alone or in an array, marked or not.

Where nothing marks a call, answers have JSON of other kinds, too: lists of the tools themselves, for one. There an
object counts if nothing is before it in its line, and as soon as both the name of a known function and arguments were
seen; one that has any other key before that is text.

Sources, all public: the chat templates of Llama 3.1 to 3.3, Qwen 2.5 and 3, Hermes 2 Pro and 3, Granite 3.x and 4,
Phi-4-mini, Nemotron and Mistral, and the pages on function calling of these models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from postprocessing.markers import Scanner
from postprocessing.reader import Tools
from postprocessing.tool_calls.cursor import Broken, CallReader, Steps

NAME = ("name", "function")
ARGUMENTS = ("arguments", "parameters")
KEYS = (*NAME, *ARGUMENTS, "type", "id")
INNER_KEYS = ("name", *ARGUMENTS)
"""The keys of calls, and of the function in one. Any other before the name of a known function rules a call out."""

FUNCTION = re.compile(r"[\w.:/-]+")

ARGUMENTS_BEGIN = '{"n'
"""An object, a string that holds one, null. A list is one of parameters, in a description of the function."""

BARE = {"{": "", "[": ""}


class Form(NamedTuple):
    """How a family writes its calls.

    Attributes:
        openers: markers of calls → what stands behind the calls then, if it is there. An object or array without a
            marker is its own. What ends so is a fence, which may be around any JSON: it does not mark a call.
        closers: markers that may come once after a call.
        separators: characters of which one may be between two calls.
        whole: the answer is a call, or an array of calls, or has none at all.
    """

    openers: Mapping[str, str]
    closers: tuple[str, ...] = ()
    separators: str = ""
    whole: bool = False

    @property
    def bare(self) -> bool:
        """Whether objects without a marker may be calls; only those of known functions are."""
        return "{" in self.openers

    def marks(self, opener: str) -> bool:
        """Whether the opener says that what follows is a call."""
        return opener not in BARE and not self.openers[opener]


class Objects(CallReader):
    """Reads calls that are JSON objects."""

    def __init__(self, form: Form, tools: Tools) -> None:
        self._form = form
        self._names = tuple(tools) if form.bare else None
        self.value_end = "".join(f"\n{closer}" for closer in form.closers[:1])
        # What is before the cursor: nothing visible since the beginning or the last call; a line break.
        self._blank = True
        self._line_begins = False
        # The call being read: whether a marker says that it is one, its name, and whether it has arguments.
        self._marked = False
        self._name = ""
        self._given = False
        super().__init__(tuple(form.openers), form.closers)

    def _content(self, text: str) -> None:
        self._blank = self._blank and not text.strip()
        self._line_begins = text.endswith("\n") if text else self._line_begins
        super()._content(text)

    def _close(self) -> None:
        self._blank = True
        super()._close()

    def _announces(self, opener: str) -> bool:
        return self._form.marks(opener)

    def _calls(self, opener: str) -> Steps[None]:
        if self._form.whole:
            self._scanner = Scanner(())  # whatever comes of this one, it was the only one
        self._marked = self._form.marks(opener)
        if opener in BARE:
            if not self._blank and (self._form.whole or not self._line_begins):
                raise Broken
            self._unread(opener)
        yield from self._group()
        while self._form.bare and not self._form.whole and (yield from self._another()):
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
        self._name, self._given = "", False
        yield from self._members(KEYS)
        if not self._open:
            raise Broken
        self._close()

    def _members(self, keys: tuple[str, ...]) -> Steps[None]:
        """The members of a call, or of the function in it, to the end of the object."""
        while (char := (yield from self._visible())) != "}":
            yield from self._literal('"')
            key = yield from self._label() if self._open or self._names is None else self._word(keys)
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
            if not self._marked and char not in ARGUMENTS_BEGIN:
                raise Broken
            self._given = True
            if self._name and not self._open:
                self._opened(self._name)
            yield from self._arguments()
        elif key == "function" and char == "{" and keys is KEYS:
            self._at += 1
            yield from self._members(INNER_KEYS)
        elif key in NAME and key in keys and not self._name:
            yield from self._literal('"')
            self._name = yield from self._label() if self._names is None else self._word(self._names)
            if not FUNCTION.fullmatch(self._name):
                raise Broken  # its quotes do not match, or are not all there
            if self._marked or self._given:
                self._opened(self._name)
        else:
            yield from self._skip()
