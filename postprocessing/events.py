"""What an engine transport tells about a generation: the vocabulary between transports and answers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple


class Status(IntEnum):
    """State of a sequence after an event; the values are those of docs/session_contract.md."""

    RUNNING = 0
    END_ID = 1
    STOP_WORDS = 2
    LENGTH = 3
    CANCELLED = 4
    ERROR = 5


class Event(NamedTuple):
    """New tokens of one sequence. A status above RUNNING makes it the last one.

    Attributes:
        tokens: new token ids only; empty is allowed.
        error: the engine's message, with Status.ERROR. It is not fit for clients as it stands.
    """

    tokens: Sequence[int]
    status: Status = Status.RUNNING
    error: str = ""
