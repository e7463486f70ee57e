"""Mistral's calls: `[TOOL_CALLS] [{"name": "f", "arguments": {…}}]`, and since its eleventh tokenizer
`[TOOL_CALLS]f[ARGS]{…}`, with a `[CALL_ID]` in between if it wants to.

Source: github.com/mistralai/mistral-common, the instruct tokenizers, and the chat templates of its models.
"""

from __future__ import annotations

import re

from postprocessing.reader import Tools
from postprocessing.tool_calls.cursor import Broken, Steps
from postprocessing.tool_calls.objects import BARE, Form, Objects

OPENER, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
MARKERS = (OPENER, ARGS, CALL_ID)
_WORD = re.compile(r"[\w.:/-]*", re.ASCII)


class Mistral(Objects):
    """Reads both forms."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(Form({OPENER: ""}), tools)

    def _calls(self, opener: str) -> Steps[None]:
        if (yield from self._visible()) in BARE:
            yield from super()._calls(opener)
            return
        self._begin()
        name: list[str] = []
        yield from self._while(_WORD, name.append)
        if not any(name):
            raise Broken
        if (yield from self._next()) != "{":
            yield from self._head()
        self._opened("".join(name))
        yield from self._arguments()
        self._close()

    def _head(self) -> Steps[None]:
        """What is between a name and its arguments."""
        if (yield from self._one_of((ARGS, CALL_ID))) == CALL_ID:
            yield from self._while(_WORD)
            yield from self._literal(ARGS)
