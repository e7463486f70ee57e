"""What an engine sends back, and the two ends of the way there: a Channel to send through, a Mailbox to send from.

It does not know who builds responses or which thread sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .sequence import Progress


@dataclass(frozen=True, slots=True)
class Response:
    """One Triton response: tensors by output name, or an error text. An error is always final."""

    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    final: bool = True
    error: str = ""


class Channel(Protocol):
    """The way back to the caller of one Triton request."""

    @property
    def request_id(self) -> str: ...

    @property
    def wanted(self) -> frozenset[str]:
        """Names of the requested outputs; empty = all."""

    def send(self, response: Response) -> None:
        """Leaves out outputs that are not wanted. Called by one thread."""

    def is_cancelled(self) -> bool:
        """Costs a round trip; False after the final response."""


Parcel = Callable[[], Iterable[tuple[Channel, Response]]]
"""Something taken from a mailbox that still has to be made into responses, without a lock."""


class Mailbox(Protocol):
    """Collects news until the courier comes. Every call but the parcel's own is made under the courier's lock."""

    def push(self, progress: Progress) -> None:
        """Takes news in."""

    def take(self, now: float) -> Parcel | None:
        """What can be sent now, if anything."""

    def deadline(self) -> float | None:
        """When to come even if there are no news; None = never."""
