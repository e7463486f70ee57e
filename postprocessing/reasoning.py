"""How models write down their thoughts before they answer, and the reader that tells the two apart.

Sources, all public: the chat templates of DeepSeek-R1, Qwen3 and QwQ (`<think>`), of Granite 3.2 ("Here is my thought
process:") and 3.3 (`<think>` and `<response>`), of Magistral and Ministral (`[THINK]`), and the description of the
format of gpt-oss (postprocessing/harmony.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from postprocessing.harmony import MARKERS as HARMONY_MARKERS
from postprocessing.harmony import Harmony
from postprocessing.markers import Found, Scanner, pieces
from postprocessing.reader import Delta, Reader, Reasoning
from postprocessing.whitespace import Trimmer


class Tags(NamedTuple):
    """What stands around a thought.

    Attributes:
        opens: what it may begin with.
        closes: what then ends it.
        wrapper: what may stand around the answer behind it.
    """

    opens: tuple[str, ...]
    closes: tuple[str, ...]
    wrapper: tuple[str, str] | None = None


class Style(NamedTuple):
    """How a model writes its thoughts.

    Attributes:
        tags: alternatives.
        markers: texts that have to be seen even if they are special tokens.
        templates: how it shows in a chat template; alternatives, all of whose fragments occur.
        closing: appended to a prompt that opens a thought, it ends the thought.
        skipping: appended to a prompt that does not, it keeps the model from one. Empty where thoughts are only written
            if a system message asks for them.
        owns_calls: its reader reads tool calls itself.
    """

    name: str
    tags: tuple[Tags, ...]
    markers: tuple[str, ...]
    templates: tuple[tuple[str, ...], ...]
    closing: str
    skipping: str = ""
    owns_calls: bool = False

    def opened_by(self, prompt: str) -> bool:
        """Whether the prompt ends right within a thought."""
        return prompt.rstrip().endswith(tuple(tag for tags in self.tags for tag in tags.opens))

    def opened_within(self, text: str) -> bool:
        """Whether the beginning of an answer ends within its thought."""
        begun = text.lstrip()
        return any(
            begun.startswith(tags.opens) and not any(close in begun for close in tags.closes) for tags in self.tags
        )

    def thoughtless(self, prompt: str, template: str, *, opened: bool, fresh: bool) -> str:
        """The prompt, such that the answer proper begins with the very next token.

        Args:
            template: the source of the chat template. Models whose templates never write an empty thought have not
                learnt what one means; those of `owns_calls` always begin with a header.
            opened: the prompt ends within a thought.
            fresh: the prompt ends where an answer begins.
        """
        if opened:
            return prompt + self.closing
        closed = prompt.rstrip().endswith(tuple(tag for tags in self.tags for tag in tags.closes))
        known = self.owns_calls or self.skipping.replace("\n", "\\n") in template
        return prompt + self.skipping if fresh and known and not closed else prompt

    @property
    def fence(self) -> Tags | None:
        """The tags of a style that always has the same two."""
        return self.tags[0] if len(self.tags) == 1 and not self.owns_calls else None

    def reader(self, inner: Reader, opened: bool) -> Reader:
        """Reads thoughts, and what is behind them as `inner` does; `opened`: the text begins within a thought."""
        if self.owns_calls:
            if isinstance(inner, Harmony):
                return Harmony(opened=opened, names=inner.names)
            return Harmony(inner, opened=opened)  # it was asked to call functions in another way, in what it says
        return Thoughts(self.tags, inner, opened)


THINK = Tags(("<think>",), ("</think>",))

STYLES = {
    style.name: style
    for style in (
        Style(
            name="harmony",
            tags=(Tags(("<|channel|>analysis<|message|>",), ("<|channel|>final<|message|>",)),),
            markers=HARMONY_MARKERS,
            templates=(("<|channel|>", "<|message|>", "analysis"),),
            closing="<|end|><|start|>assistant<|channel|>final<|message|>",
            skipping="<|channel|>final<|message|>",
            owns_calls=True,
        ),
        Style(
            name="mistral",
            tags=(Tags(("[THINK]",), ("[/THINK]",)),),
            markers=("[THINK]", "[/THINK]"),
            templates=(("[THINK]", "[/THINK]"),),
            closing="[/THINK]",
        ),
        Style(
            name="granite",
            tags=(
                Tags(
                    ("Here is my thought process:", "Here's my thought process:"),
                    ("Here is my response:", "Here's my response:"),
                ),
                THINK._replace(wrapper=("<response>", "</response>")),
            ),
            markers=("<think>", "</think>", "<response>", "</response>"),
            templates=(("Here is my thought process:",), ("<think></think>", "<response></response>")),
            closing="",
        ),
        Style(
            name="think",
            tags=(THINK,),
            markers=("<think>", "</think>"),
            templates=(("</think>",),),
            closing="\n</think>\n\n",
            skipping="<think>\n\n</think>\n\n",
        ),
    )
}
"""By name, the special before the general."""


def recognise(template: str) -> Style | None:
    """The style that a chat template speaks of."""
    for style in STYLES.values():
        if any(all(fragment in template for fragment in fragments) for fragments in style.templates):
            return style
    return None


class Beginning(NamedTuple):
    """How a text begins: whitespace, then a tag perhaps, then the rest."""

    space: str
    tag: str | None
    rest: str


class Head:
    """Looks for one of some tags at the very start of a text."""

    def __init__(self, tags: tuple[str, ...]) -> None:
        self._tags = tags
        self._space: list[str] = []
        self._held = ""

    def push(self, text: str) -> Beginning | None:
        """Takes more text; None while it is open what this is."""
        if not self._held:
            text, whole = text.lstrip(), text
            self._space.append(whole[: len(whole) - len(text)])
        self._held += text
        tag = next((tag for tag in self._tags if self._held.startswith(tag)), None)
        if tag is None and any(tag.startswith(self._held) for tag in ("", *self._tags)):
            return None
        return self._beginning(tag)

    def finish(self) -> Beginning:
        """No more comes, so there is no tag."""
        return self._beginning(None)

    def _beginning(self, tag: str | None) -> Beginning:
        held, self._held = self._held, ""
        return Beginning("".join(self._space), tag, held[len(tag or "") :])


class Wrapped:
    """Takes a tag off the end of a text, with the whitespace around it."""

    def __init__(self, tag: str) -> None:
        self._scanner = Scanner((tag,))
        self._held: list[str] = []
        self._closed = False

    def push(self, text: str) -> str:
        """What is certainly before the tag."""
        return "".join(self._take(self._scanner.push(part)) for part in pieces(text))

    def finish(self) -> str:
        """What was held back, if the tag did not end the text."""
        shown = self._take(self._scanner.finish())
        return shown if self._closed else shown + "".join(self._held)

    def _take(self, found: Found) -> str:
        shown = []
        while True:
            body = found.before.rstrip()
            if body:
                shown += [*self._held, body]
                self._held, self._closed = [], False
            self._held.append(found.before[len(body) :])
            if found.marker is None:
                return "".join(shown)
            self._held.append(found.marker)
            self._closed = True
            found = self._scanner.push(found.rest)


class Thoughts:
    """Splits the thought off the beginning of an answer.

    An open tag that the prompt has and the answer repeats is no part of the thought.
    """

    def __init__(self, tags: tuple[Tags, ...], inner: Reader, opened: bool) -> None:
        self.reasoning = opened
        self.calls = self.failures = 0
        self._tags = tags
        self._inner = inner
        self._phase: Callable[[str], list[Delta]] = self._opening
        self._head = Head(tuple(tag for alternative in tags for tag in alternative.opens))
        self._scanner = Scanner(tuple(tag for alternative in tags for tag in alternative.closes))
        self._wrapper: tuple[str, str] | None = next((each.wrapper for each in tags if each.wrapper), None)
        self._trimmer = Trimmer()
        self._wrapped: Wrapped | None = None

    def push(self, text: str) -> list[Delta]:
        return self._phase(text)

    def finish(self) -> list[Delta]:
        deltas: list[Delta] = []
        if self._phase == self._opening:
            deltas += self._begin(self._head.finish())
        if self._phase == self._thought:
            deltas += self._think(self._scanner.finish())
        if self._phase == self._seam:
            deltas += self._answer(self._head.finish())
        if self._wrapped:
            deltas += self._read(self._wrapped.finish())
        deltas += self._inner.finish()
        self.calls, self.failures = self._inner.calls, self._inner.failures
        return deltas

    def _opening(self, text: str) -> list[Delta]:
        beginning = self._head.push(text)
        return [] if beginning is None else self._begin(beginning)

    def _begin(self, beginning: Beginning) -> list[Delta]:
        if beginning.tag is None and not self.reasoning:
            self._phase = self._read
            return self._read(beginning.space + beginning.rest)
        for tags in self._tags:
            if beginning.tag in tags.opens:
                self._scanner, self._wrapper = Scanner(tags.closes), tags.wrapper
        self.reasoning = True
        self._phase = self._thought
        return self._thought(beginning.rest)

    def _thought(self, text: str) -> list[Delta]:
        return self._think(self._scanner.push(text))

    def _think(self, found: Found) -> list[Delta]:
        thought = self._trimmer.push(found.before)
        deltas: list[Delta] = [Reasoning(thought)] if thought else []
        if found.marker is None:
            return deltas
        self.reasoning = False
        self._head = Head(self._wrapper[:1] if self._wrapper else ())
        self._phase = self._seam
        return deltas + self._seam(found.rest)

    def _seam(self, text: str) -> list[Delta]:
        beginning = self._head.push(text)
        return [] if beginning is None else self._answer(beginning)

    def _answer(self, beginning: Beginning) -> list[Delta]:
        if self._wrapper and beginning.tag:
            self._wrapped = Wrapped(self._wrapper[1])
            self._wrapper = None
            self._head = Head(())
            return self._seam(beginning.rest)  # more whitespace may follow
        self._phase = self._read if self._wrapped is None else self._unwrap
        return self._phase(beginning.rest)

    def _unwrap(self, text: str) -> list[Delta]:
        return self._read(self._wrapped.push(text) if self._wrapped else text)

    def _read(self, text: str) -> list[Delta]:
        deltas = self._inner.push(text) if text else []
        self.calls, self.failures = self._inner.calls, self._inner.failures
        return deltas
