"""Ways to the engine. All have one interface: `submit` a request's tensors, and the sink hears what becomes of it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

from postprocessing.events import Event

Inputs = dict[str, npt.NDArray[Any]]


class Sink(Protocol):
    """Where a transport puts the news of one request. Safe to call from any thread; never raises."""

    def accepted(self) -> None:
        """The engine has taken the request; `submit` will not raise any more."""

    def push(self, event: Event) -> bool:
        """Takes an event. False: no more are wanted; the transport cancels the sequence."""

    def alive(self) -> bool:
        """Whether the client still waits; asked now and then. False as with `push`."""


class Transport(Protocol):
    """A way to the engine."""

    # Whether several threads may be inside `submit`. If not, it returns only when the request is over.
    concurrent: bool

    def submit(self, inputs: Inputs, max_tokens: int, sink: Sink) -> None:
        """Sends a request to the engine.

        Args:
            inputs: tensors of the `tensorrt_llm` contract.
            max_tokens: value of request_output_len, to tell why an answer ended.

        Raises:
            EngineError: the engine refused it; the sink has heard nothing.
        """

    def close(self) -> None:
        """Stops the transport's threads."""
