"""Ways to the engine. All have one interface: `submit` a request's tensors, and the sink hears what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from postprocessing.events import Event
from preprocessing.tensors import Submission

# Seconds between two pieces of news of a request, at least, when they come faster than they can be passed on. What
# comes in the meantime goes out together: nobody could tell it apart, and Triton's HTTP server drops responses when too
# many wait for one of its threads (docs/decisions.md).
PACE = 0.002
Inputs = dict[str, npt.NDArray[Any]]


class Sink(Protocol):
    """Where a transport puts the news of one request. Safe to call from any thread; never raises."""

    # The request's id, for the engine's and Triton's logs: not the only one of its name; empty if it has none.
    id: str

    @property
    def traceparent(self) -> str:
        """W3C's, for engines that take part in traces; empty: there is none."""

    def accepted(self) -> None:
        """The engine has taken the request; `submit` will not raise any more."""

    def push(self, event: Event) -> bool:
        """Takes an event. False: no more of this prompt are wanted; the transport cancels what runs for it."""

    def alive(self) -> bool:
        """Whether the client still waits, as far as is known."""

    def look(self) -> bool:
        """Finds out whether the client still waits; for now and then."""


class Transport(Protocol):
    """A way to the engine."""

    # For the operator: how requests travel.
    form: str
    # Whether several threads may be inside `submit`. If not, it returns only when the request is over.
    concurrent: bool
    # Whether the engine's first news of a request is a token, or that it refuses it.
    silent_until_token: bool
    # When the engine last brought a token (seconds, monotonic).
    heard_at: float

    @property
    def ready(self) -> bool:
        """Whether there is any point in submitting."""

    def submit(self, submissions: Sequence[Submission], sink: Sink) -> None:
        """Sends a request to the engine: one submission for each of its prompts.

        A transport that does not wait for the engine tells the sink of a refusal: an error before `accepted`.

        Raises:
            EngineError: the engine refused it; the sink has heard nothing.
            OpenAIError: the same, where it is known what clients are to be told.
        """

    def sweep(self) -> None:
        """Cancels what nobody waits for any more; called now and then, after sinks have been looked at."""

    def close(self) -> None:
        """Stops the transport's threads."""
