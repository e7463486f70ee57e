"""Which reader an answer's text gets: a plain one, one for its model's calls, one for its thoughts, or both."""

from __future__ import annotations

from typing import NamedTuple

from postprocessing.reader import Reader, Tools
from postprocessing.reasoning import Style
from postprocessing.tool_calls.families import Family
from postprocessing.tool_calls.forced import Arguments
from postprocessing.tool_calls.plain import Plain


class Reading(NamedTuple):
    """How an answer's text is read.

    Attributes:
        family: how calls look; None if there are none to look for.
        tools: those that may be called.
        forced: the one function whose arguments are all that is written.
        only_first: the answer ends with its first call.
        style: how thoughts look; None if there are none to look for.
        opened: the prompt ends within a thought.
        show_reasoning: thoughts are part of the answer.
        names: what they are called there.
        call_id: the style of ids that the model's chat template takes.
    """

    family: Family | None = None
    tools: Tools = {}
    forced: str | None = None
    only_first: bool = False
    style: Style | None = None
    opened: bool = False
    show_reasoning: bool = True
    names: tuple[str, ...] = ("reasoning_content",)
    call_id: str = "openai"

    @property
    def holds(self) -> bool:
        """Whether text may be held back until it is known what it is."""
        return self.family is not None or self.style is not None

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that the reader has to see even if they are special tokens of the vocabulary."""
        return (self.family.markers if self.family else ()) + (self.style.markers if self.style else ())

    def reader(self) -> Reader:
        """A reader for one sequence."""
        inner: Reader = Plain()
        if self.forced is not None:
            inner = Arguments(self.forced)
        elif self.family is not None:
            inner = self.family.reader(self.tools)
        return self.style.reader(inner, self.opened) if self.style else inner


PLAIN = Reading()
