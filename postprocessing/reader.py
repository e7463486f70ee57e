"""How an answer's text is read: what of it is content, what reasoning, what a tool call.

A reader takes the text of one sequence in pieces of any size and gives deltas in the order of the text. All readers
keep these rules (tests/core/test_readers.py holds every one of them to each):

1. Cuts do not matter: the merged deltas are the same however the text was cut.
2. Nothing is lost: what does not become a call or reasoning comes out as content, character for character. The
   exceptions are markers, and whitespace at the seams: around reasoning, before a first call if there was no content,
   between a call and the next call or the end.
3. An opening that turns out to be plain text comes out whole, and reading goes on behind it, never from its beginning:
   the work is proportional to the text.
4. Text is given as soon as it is certain. Only what may still become a marker, the head of a call up to its name, or
   whitespace at a seam is held back.
5. A call is told once by `CallOpened`, then its arguments in `CallArguments`, whose joined text is the arguments' JSON.
   Calls are numbered from 0. A call whose text was cut off keeps what there was of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple, Protocol

Tools = Mapping[str, Mapping[str, Any]]
"""The tools that a request offers: name → JSON schema of the arguments."""


class Content(NamedTuple):
    """Text for the user."""

    text: str


class Reasoning(NamedTuple):
    """Text of the model's thoughts."""

    text: str


class CallOpened(NamedTuple):
    """A tool call begins: its number in the answer, and the name of its function."""

    number: int
    name: str


class CallArguments(NamedTuple):
    """More of the JSON text of a call's arguments."""

    number: int
    text: str


Delta = Content | Reasoning | CallOpened | CallArguments


class Reader(Protocol):
    """Reads one sequence.

    Attributes:
        reasoning: whether the next character would be part of the reasoning.
        calls: how many calls are complete.
        failures: how many calls were announced by a marker, or had begun, and could not be read on.
    """

    reasoning: bool
    calls: int
    failures: int

    def push(self, text: str) -> list[Delta]:
        """Takes more text; neighbours of a kind need not be merged."""

    def finish(self) -> list[Delta]:
        """The text ends here: what was held back. Called once, after the last push."""


def merged(deltas: list[Delta]) -> list[Delta]:
    """The same deltas with neighbours of a kind joined and empty ones left out."""
    if len(deltas) == 1 and deltas[0][-1]:  # nearly always
        return deltas
    if all(type(delta) is Content for delta in deltas):
        text = "".join([delta[-1] for delta in deltas])
        return [Content(text)] if text else []
    found: list[Delta] = []
    for kind, run in groupby(deltas, key=lambda delta: delta[:-1] + (type(delta),)):
        if kind[-1] is CallOpened:
            found += run
            continue
        same = list(run)
        if text := "".join(delta[-1] for delta in same):
            found.append(same[0]._replace(text=text))  # type: ignore[call-arg]
    return found
