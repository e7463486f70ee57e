"""DeepSeek's calls: V3 and R1 write the kind, the name and the arguments in a fence, V3.1 the name and the arguments.

Sources: the chat templates of DeepSeek-V3, DeepSeek-R1 and DeepSeek-V3.1 at huggingface.co/deepseek-ai.
"""

from __future__ import annotations

import re

from postprocessing.tool_calls.cursor import CallReader, Steps

LIST, CALL = "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"
LIST_END, CALL_END = "<｜tool▁calls▁end｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"
MARKERS = (LIST, CALL, SEPARATOR, CALL_END, LIST_END)
FENCE = "```"
_HEAD = re.compile(r"[^<\n]*")
_NAME = re.compile(r"[^\s<{`]*")
_LANGUAGE = re.compile(r"[a-z]*")


class DeepSeek(CallReader):
    """Reads both forms: behind the separator is either the arguments' brace or a name."""

    def __init__(self) -> None:
        super().__init__((LIST, CALL), (CALL_END, LIST_END))

    def _calls(self, opener: str) -> Steps[None]:
        if opener == LIST:
            yield from self._visible()
            yield from self._literal(CALL)
        self._begin()
        head: list[str] = []
        yield from self._while(_HEAD, head.append)
        yield from self._literal(SEPARATOR)
        if (yield from self._visible()) in "{<":
            self._opened("".join(head).strip())
            yield from self._arguments()
            self._close()
        else:
            yield from self._fenced()

    def _fenced(self) -> Steps[None]:
        """A name and arguments in a fence, which may be missing."""
        name: list[str] = []
        yield from self._while(_NAME, name.append)
        self._opened("".join(name))
        fenced = (yield from self._visible()) == FENCE[0]
        if fenced:
            yield from self._literal(FENCE)
            yield from self._while(_LANGUAGE)
        yield from self._arguments()
        self._close()
        if fenced:
            self._keep()
            yield from self._visible()
            yield from self._literal(FENCE)
            self._drop()
