"""The standard contract: one request in flight per instance, one response per engine step.

For engines that do not know sessions. Concurrency is the number of instances; further requests wait in Triton's queue.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

from postprocessing.events import Event, Status
from preprocessing.tensors import Submission
from transports import Inputs, Sink
from transports.adapters import Lender
from transports.bls import Engine, EngineError, output
from transports.contract import OUTPUTS, UNREADABLE, Answers, Output, log_prob_tensors, stop_inputs, unique_id
from transports.outbox import Outbox

WATCH_INTERVAL = 0.25  # most seconds between looks whether the client is still there
FIRST_WATCH_INTERVAL = 0.005


class SingleTransport:
    """One generation at a time over decoupled BLS."""

    form = "one request per instance"
    concurrent = False
    silent_until_token = True
    ready = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._adapters = Lender()
        self.heard_at = float("-inf")

    def submit(self, submissions: Sequence[Submission], sink: Sink) -> None:
        """Runs a request to its end, one prompt after the other; see `Transport.submit`."""
        run = Run(self._engine, sink, self._adapters)
        for prompt, submission in enumerate(submissions):
            if not run.generate(prompt, submission):
                return
            self.heard_at = time.monotonic()

    def sweep(self) -> None:
        """Nothing: the engine's news are the only moment at which a request can be stopped (docs/decisions.md)."""

    def close(self) -> None:
        """Nothing runs between submissions."""


class Run:
    """One request's way through the engine."""

    def __init__(self, engine: Engine, sink: Sink, adapters: Lender) -> None:
        self._engine = engine
        self._sink = sink
        self._adapters = adapters
        self._accepted = False
        # Clients that left while they were queued are noticed by the first writes, so the first looks come quickly.
        self._look_at, self._interval = time.monotonic(), FIRST_WATCH_INTERVAL

    def generate(self, prompt: int, submission: Submission) -> bool:
        """Generates for one prompt. False: the request is over.

        Raises:
            EngineError: the engine refused the request before anything was heard of it.
        """
        if self._accepted and not self._sink.look():
            return False
        request_id = unique_id(self._sink.id)
        answers = Answers(prompt, submission)
        outbox = Outbox(self._pass_on)
        failure = ""
        try:
            self._collect(self._events(answers, submission, request_id), outbox, request_id)
        except EngineError as error:
            if not self._accepted:
                raise
            failure = str(error)
        finally:
            outbox.close()
        if not self._accepted:
            raise EngineError("the engine ended the request without a response")
        if failure:
            self._sink.push(Event((), Status.ERROR, prompt, error=failure))
        for event in answers.ends() if outbox.wanted and not failure else ():
            self._sink.push(event)
        return not failure

    def _collect(self, events: Iterator[Event], outbox: Outbox, request_id: str) -> None:
        stopped = False
        for event in events:
            self._accept()
            outbox.put(event)
            if not outbox.wanted and not stopped:
                stopped = True
                self._stop(request_id)  # what is still on its way is drained

    def _accept(self) -> None:
        if not self._accepted:
            self._accepted = True
            self._sink.accepted()

    def _pass_on(self, event: Event) -> bool:
        wanted = self._sink.push(event)
        now = time.monotonic()
        if wanted and now >= self._look_at:
            self._interval = min(WATCH_INTERVAL, 2 * self._interval)
            self._look_at = now + self._interval
            wanted = self._sink.look()
        return wanted

    def _events(self, answers: Answers, submission: Submission, request_id: str) -> Iterator[Event]:
        """The engine's responses as events.

        Raises:
            EngineError: also for a response that cannot be read, once the engine has ended the request: a second one
                must not run beside it.
        """
        inputs, outputs = log_prob_tensors(submission)
        inputs = submission.tensors | inputs
        unreadable = ""

        def begin(weights: Inputs) -> Iterator[Any]:
            """A refusal is raised now, and not with the first look at the responses."""
            responses = self._engine.stream(inputs | weights, OUTPUTS + outputs, request_id)
            return chain(list(islice(responses, 1)), responses)

        for response in self._adapters.send(submission.adapter, begin):
            if unreadable:
                continue
            try:
                read = partial(output, response)
                yield from answers.events(new_tokens(read), read)
            except UNREADABLE as error:
                unreadable = repr(error)
                self._stop(request_id)
        if unreadable:
            raise EngineError(f"a response of the engine cannot be read: {unreadable}")

    def _stop(self, request_id: str) -> None:
        try:
            for _ in self._engine.stream(stop_inputs(), OUTPUTS, request_id):
                pass
        except EngineError:
            pass  # it has just ended by itself


def new_tokens(read: Output) -> list[int]:
    ids = read("output_ids")
    return [] if ids is None else ids[: int(read("sequence_length")[0])].tolist()
