"""The standard contract: one request in flight per instance, one response per engine step.

For engines that do not know sessions. Concurrency is the number of instances; further requests wait in Triton's queue.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import numpy as np

from postprocessing.ending import infer
from postprocessing.events import Event, Status
from transports import Inputs, Sink
from transports.bls import Engine, EngineError, output

OUTPUTS = ("output_ids", "sequence_length")
WATCH_INTERVAL = 0.25  # seconds between looks whether the client is still there


class SingleTransport:
    """One generation at a time over decoupled BLS."""

    concurrent = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(self, inputs: Inputs, max_tokens: int, sink: Sink) -> None:
        """Runs a generation to its end; see `Transport.submit`."""
        # Requests are stopped by id, and an id in use again would make the older request unstoppable: always a fresh
        # one.
        request_id = uuid.uuid4().hex
        accepted = False
        wanted, looked_at = True, time.monotonic()
        generated, last = 0, 0
        try:
            for tokens in self._tokens(inputs, request_id):
                if not accepted:
                    accepted = True
                    sink.accepted()
                generated, last = generated + len(tokens), len(tokens)
                now = time.monotonic()
                if not wanted:
                    continue  # stopped: what is still on its way is drained
                wanted = sink.push(Event(tokens))
                if wanted and now - looked_at > WATCH_INTERVAL:
                    looked_at, wanted = now, sink.alive()
                if not wanted:
                    self._stop(request_id)
        except EngineError as error:
            if not accepted:
                raise
            sink.push(Event((), Status.ERROR, str(error)))
            return
        if not accepted:
            raise EngineError("the engine ended the request without a response")
        if wanted:
            sink.push(Event((), infer(generated, max_tokens, last)))

    def close(self) -> None:
        """Nothing runs between submissions."""

    def _tokens(self, inputs: Inputs, request_id: str) -> Iterator[list[int]]:
        for response in self._engine.stream(inputs, OUTPUTS, request_id):
            ids, length = output(response, "output_ids"), output(response, "sequence_length")
            yield [] if ids is None else ids[: int(length[0])].tolist()

    def _stop(self, request_id: str) -> None:
        """The contract's stop request: the required inputs are dummies."""
        dummy = np.zeros((1, 1), np.int32)
        names = ("input_ids", "input_lengths", "request_output_len")
        inputs: Inputs = dict.fromkeys(names, dummy) | {"stop": np.ones((1, 1), np.bool_)}
        try:
            for _ in self._engine.stream(inputs, OUTPUTS, request_id):
                pass
        except EngineError:
            pass  # it has just ended by itself
