"""The standard contract: one request in flight per instance, one response per engine step.

For engines that do not know sessions. Concurrency is the number of instances; further requests wait in Triton's queue.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from postprocessing.ending import Endings
from postprocessing.events import Alternatives, Event, Status
from preprocessing.tensors import Submission
from transports import Inputs, Sink
from transports.bls import Engine, EngineError, output

OUTPUTS = ["output_ids", "sequence_length"]
WATCH_INTERVAL = 0.25  # most seconds between looks whether the client is still there
FIRST_WATCH_INTERVAL = 0.005


class SingleTransport:
    """One generation at a time over decoupled BLS."""

    concurrent = False
    ready = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.heard_at = float("-inf")

    def submit(self, submissions: Sequence[Submission], sink: Sink) -> None:
        """Runs a request to its end, one prompt after the other; see `Transport.submit`."""
        run = Run(self._engine, sink)
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

    def __init__(self, engine: Engine, sink: Sink) -> None:
        self._engine = engine
        self._sink = sink
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
        # Requests are stopped by id, and an id in use again would make the older request unstoppable.
        request_id = uuid.uuid4().hex
        endings = Endings(submission.sequences, submission.max_tokens)
        wanted = True
        try:
            for event in self._events(prompt, submission, request_id):
                self._accept()
                endings.see(event)
                if wanted and not self._pass_on(event):
                    wanted = False
                    self._stop(request_id)  # what is still on its way is drained
        except EngineError as error:
            if not self._accepted:
                raise
            self._sink.push(Event((), Status.ERROR, prompt, error=str(error)))
            return False
        if not self._accepted:
            raise EngineError("the engine ended the request without a response")
        for index, status in endings.statuses():
            if wanted:
                self._sink.push(Event((), status, prompt, index))
        return True

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

    def _events(self, prompt: int, submission: Submission, request_id: str) -> Iterator[Event]:
        """The engine's responses as events.

        Raises:
            EngineError: also for a response that cannot be read, once the engine has ended the request: a second one
                must not run beside it.
        """
        inputs, outputs = log_prob_tensors(submission)
        told, unreadable = False, ""
        for response in self._engine.stream(submission.tensors | inputs, OUTPUTS + outputs, request_id):
            if unreadable:
                continue
            try:
                logits = output(response, "context_logits")
                if logits is not None and not told:  # with several sequences each of them brings the same
                    told = True
                    yield prompt_event(prompt, submission, logits)
                yield token_event(prompt, submission, response)
            except (ValueError, IndexError, TypeError) as error:
                unreadable = repr(error)
                self._stop(request_id)
        if unreadable:
            raise EngineError(f"a response of the engine cannot be read: {unreadable}")

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


def log_prob_tensors(submission: Submission) -> tuple[Inputs, list[str]]:
    """How this transport asks for log probs: the contract has those of the chosen tokens, and logits for all others."""
    wanted = submission.log_probs
    names = [] if submission.sequences == 1 else ["sequence_index"]
    if wanted is None:
        return {}, names
    flags = {"return_log_probs": ["output_log_probs"]}
    if wanted.top:
        flags["return_generation_logits"] = ["generation_logits"]
    if wanted.prompt:
        flags["return_context_logits"] = ["context_logits"]
    inputs: Inputs = {flag: np.array([[True]]) for flag in flags}
    return inputs, names + [name for outputs in flags.values() for name in outputs]


def token_event(prompt: int, submission: Submission, response: Any) -> Event:
    """A response of the engine as an event."""
    ids, length = output(response, "output_ids"), output(response, "sequence_length")
    tokens = [] if ids is None else ids[: int(length[0])].tolist()
    index = output(response, "sequence_index")
    return Event(
        tokens,
        prompt=prompt,
        sequence=0 if index is None else int(index[0]),
        log_probs=new_log_probs(output(response, "output_log_probs"), len(tokens)),
        top=alternatives(output(response, "generation_logits"), len(tokens), submission),
    )


def new_log_probs(so_far: Any, count: int) -> list[float]:
    """The engine repeats the log probs of all tokens so far; the last ones are those of the new tokens."""
    return [] if so_far is None or not count else so_far[-count:].tolist()


def alternatives(logits: Any, count: int, submission: Submission) -> list[Alternatives]:
    """The likeliest tokens at each of `count` places, from logits (flat, count times the vocabulary)."""
    wanted = submission.log_probs
    if logits is None or not count or wanted is None or not wanted.top:
        return []
    rows = log_softmax(logits.reshape(count, -1))
    best = np.argpartition(-rows, wanted.top, axis=1)[:, : wanted.top]
    return [
        sorted(zip(ids.tolist(), row[ids].tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
        for ids, row in zip(best, rows, strict=True)
    ]


def prompt_event(prompt: int, submission: Submission, logits: Any) -> Event:
    """Log probs of a prompt's second to last tokens, from the logits at all of its places."""
    ids = submission.tensors["input_ids"][0, 1:]
    rows = logits.reshape(submission.prompt_len, -1)[:-1]
    chosen = log_softmax(rows)[np.arange(len(ids)), ids].tolist()
    return Event((), Status.PROMPT, prompt, 0, chosen, alternatives(rows, len(ids), submission))


def log_softmax(logits: Any) -> Any:
    """Log probs of logits, [rows, vocabulary], FP32."""
    shifted = logits.astype(np.float32) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
