"""What an engine transport tells about a generation: the vocabulary between transports and answers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

Alternatives = Sequence[tuple[int, float]]
"""The likeliest tokens at one place, (id, log prob), likeliest first."""


class Status(IntEnum):
    """State of a sequence after an event; the values are those of docs/session_contract.md."""

    PROMPT = -1
    RUNNING = 0
    END_ID = 1
    STOP_WORDS = 2
    LENGTH = 3
    CANCELLED = 4
    ERROR = 5


class Event(NamedTuple):
    """News of one sequence. A status above RUNNING makes it the last.

    With Status.PROMPT it is about the prompt: `log_probs` and `top` are those of its second to last tokens. The numbers
    in `tokens`, as many as the engine knows, say how many of its tokens were found in the engine's cache, and for how
    many microseconds it waited in the engine's queue.

    Attributes:
        tokens: new token ids only; empty is allowed.
        prompt: number of the prompt in the request.
        sequence: number of the sequence among those of its prompt.
        log_probs: of each token, if they were asked for.
        top: of each token the likeliest alternatives, if they were asked for.
        error: the engine's message, with Status.ERROR. It is not fit for clients as it stands.
    """

    tokens: Sequence[int]
    status: Status = Status.RUNNING
    prompt: int = 0
    sequence: int = 0
    log_probs: Sequence[float] = ()
    top: Sequence[Alternatives] = ()
    error: str = ""


def joined_events(pile: Sequence[Event]) -> Event:
    """One event for all news of a sequence; the last says how it is."""
    if len(pile) == 1:
        return pile[0]
    return pile[-1]._replace(
        tokens=[token for event in pile for token in event.tokens],
        log_probs=[value for event in pile for value in event.log_probs],
        top=[each for event in pile for each in event.top],
    )
