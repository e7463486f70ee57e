"""The session extension (docs/session_contract.md): hundreds of generations share one poll, at a cost per engine step.

Three kinds of threads: the callers of `submit`, one that polls and delivers, one that cancels. Every exchange is
answered by exactly one response, which makes BLS safe from several threads. If the engine's process dies, Triton
answers what was under way never: hence `sweep` looks for clients that have gone, and for an engine that has.
"""

from __future__ import annotations

import itertools
import json
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np

from postprocessing.events import Alternatives, Event, Status
from preprocessing.tensors import Submission
from transports import PACE, Inputs, Sink
from transports.adapters import Lender
from transports.bls import Engine, EngineError, output

VERSION = 1
HEADER = 6  # integers before the tokens of an event record
LAST_ID = 2**31 - 1  # sequence ids are INT32; after the last comes 1 again
POLLED = ("session_events", "session_log_probs", "session_top_ids", "session_top_log_probs", "session_texts")
UNDECLARED = "unexpected inference"  # Triton's words for an input or output that a model does not declare
SILENT = "the engine is not ready: it has stopped answering"
# Seconds after which an engine that has not answered is given up. It answers at once, or after its poll_wait_ms.
PATIENCE = 15.0
RETRY_DELAY = 0.1  # seconds after a poll that failed


class Command(IntEnum):
    HELLO = 0
    SUBMIT = 1
    POLL = 2
    CANCEL = 3


@dataclass(slots=True)
class Live:
    """A submission that the engine has or is about to get.

    Attributes:
        prompt: its number in the request.
        open: how many of its sequences have not ended.
        since: when it was sent (seconds, monotonic).
    """

    sink: Sink
    prompt: int
    open: int
    since: float
    accepted: bool = False


def hello(engine: Engine) -> dict[str, Any] | None:
    """What the engine says of itself; None if it does not know sessions.

    Raises:
        EngineError: it cannot answer now.
    """
    try:
        answer = engine.ask(command(Command.HELLO, 0), ["session_texts"])
    except EngineError as error:
        if UNDECLARED in str(error):
            return None
        raise
    found: dict[str, Any] = json.loads(output(answer, "session_texts")[0])
    return found if found.get("version") == VERSION else None


def command(kind: Command, session_id: int, sequence_ids: Sequence[int] = ()) -> Inputs:
    """Tensors of a command; the inputs that the standard contract requires are zeros."""
    zero = np.zeros((1, 1), np.int32)
    inputs: Inputs = {"input_lengths": zero, "request_output_len": zero}
    inputs["session_command"] = np.array([[kind]], np.int32)
    inputs["session_id"] = np.array([[session_id]], np.uint64)
    if sequence_ids:
        inputs["session_sequence_ids"] = np.array([sequence_ids], np.int32)
    return inputs


def log_prob_inputs(submission: Submission) -> Inputs:
    """How this transport asks for log probs."""
    wanted = submission.log_probs
    if wanted is None:
        return {}
    inputs: Inputs = {"return_log_probs": np.array([[True]])}
    if wanted.top:
        inputs["session_top_log_probs"] = np.array([[wanted.top]], np.int32)
    if wanted.prompt:
        inputs["session_prompt_log_probs"] = np.array([[True]])
    return inputs


def records(response: Any) -> Iterator[tuple[int, Event]]:
    """The events in the answer to a poll, with their sequence ids; the prompts' numbers are not known here."""
    numbers = as_list(output(response, "session_events"))
    log_probs = iter(as_list(output(response, "session_log_probs")))
    alternatives = zip(
        as_list(output(response, "session_top_ids")),
        as_list(output(response, "session_top_log_probs")),
        strict=True,
    )
    texts = iter(as_list(output(response, "session_texts")))
    at = 0
    while at < len(numbers):
        sequence_id, index, status, count, log_prob_count, top_count = numbers[at : at + HEADER]
        at += HEADER + count
        values = list(itertools.islice(log_probs, log_prob_count))
        top = grouped(list(itertools.islice(alternatives, top_count)), log_prob_count)
        error = next(texts, b"").decode(errors="replace") if status == Status.ERROR else ""
        yield sequence_id, Event(numbers[at - count : at], Status(status), 0, index, values, top, error)


def as_list(array: Any) -> list[Any]:
    return [] if array is None else array.tolist()


def grouped(pairs: list[tuple[int, float]], tokens: int) -> list[Alternatives]:
    """All alternatives of a record, by token."""
    if not pairs:
        return []
    size = len(pairs) // tokens
    return [pairs[at : at + size] for at in range(0, len(pairs), size)]


def accepted(live: Live) -> bool:
    return live.accepted


class SessionTransport:
    """Many generations at a time through one session."""

    form = "sessions"
    concurrent = True
    silent_until_token = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session_id = secrets.randbits(63)
        self._ids = itertools.count()
        self._live: dict[int, Live] = {}
        self._adapters = Lender()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        # The poll under way, and since when. Another number means that the thread that began it was given up.
        self._poll_number = 0
        self._polling_since: float | None = None
        self._silent = threading.Event()
        self._cancelled: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
        self.heard_at = float("-inf")
        for loop in (self._poll_loop, self._cancel_loop):
            self._start(loop)

    @property
    def ready(self) -> bool:
        return not self._silent.is_set()

    def submit(self, submissions: Sequence[Submission], sink: Sink) -> None:
        """Hands a request to the engine and returns at once; see `Transport.submit`."""
        taken: list[int] = []
        try:
            for prompt, submission in enumerate(submissions):
                sequence_id = next(self._ids) % LAST_ID + 1
                taken.append(sequence_id)
                self._live[sequence_id] = Live(sink, prompt, submission.sequences, time.monotonic())
                inputs = command(Command.SUBMIT, self._session_id, [sequence_id])
                inputs |= submission.tensors | log_prob_inputs(submission)
                self._adapters.send(submission.adapter, partial(self._submit, inputs, sink.id))
        except BaseException:
            self._forget(taken)
            self._cancel(taken)
            raise
        sink.accepted()
        with self._changed:
            for sequence_id in taken:
                if live := self._live.get(sequence_id):
                    live.accepted = True
            self._changed.notify()

    def _submit(self, inputs: Inputs, request_id: str, weights: Inputs) -> None:
        self._engine.ask(inputs | weights, ["session_events"], request_id)

    def sweep(self) -> None:
        """Looks for an engine that has gone silent and for sequences that nobody waits for."""
        self._watch_engine(time.monotonic() - PATIENCE)
        self._cancel_abandoned()

    def close(self) -> None:
        self._closed.set()
        self._cancelled.put([])
        with self._changed:
            self._changed.notify()

    def _start(self, loop: Callable[[], None]) -> None:
        threading.Thread(target=loop, name=loop.__name__, daemon=True).start()

    def _poll_loop(self) -> None:
        number = self._poll_number
        while self._wait_for_work():
            began = self._polling_since = time.monotonic()
            reason, events = self._poll()
            if number == self._poll_number:
                self._polling_since = None
            if any(event.tokens and event.status is not Status.PROMPT for _, event in events):
                self.heard_at = time.monotonic()
            for sequence_id, event in events:
                if not self._deliver(sequence_id, event):
                    self._cancel([sequence_id])
            if number != self._poll_number:
                return  # given up meanwhile: another thread polls now
            if reason:
                self._lose(reason, accepted)
                self._closed.wait(RETRY_DELAY)
            time.sleep(max(0.0, began + PACE - time.monotonic()))

    def _poll(self) -> tuple[str, list[tuple[int, Event]]]:
        """What has happened, or why nobody knows. Whatever goes wrong with one poll, there will be a next one."""
        try:
            return "", list(records(self._engine.ask(command(Command.POLL, self._session_id), POLLED)))
        except Exception as error:
            return str(error) or repr(error), []

    def _wait_for_work(self) -> bool:
        """Blocks until the engine has something of ours. False: the transport is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or any(map(accepted, list(self._live.values()))))
        return not self._closed.is_set()

    def _deliver(self, sequence_id: int, event: Event) -> bool:
        """Passes an event on. False: nobody wants the rest of this submission."""
        live = self._live.get(sequence_id)
        if live is None:  # cancelled already, or given up while the engine was silent
            return event.status > Status.RUNNING
        wanted = live.sink.push(event._replace(prompt=live.prompt) if live.prompt else event)
        live.open -= event.status > Status.RUNNING
        ended = live.open == 0 or event.status is Status.ERROR
        if ended or not wanted:
            self._live.pop(sequence_id, None)
        return wanted or ended

    def _forget(self, sequence_ids: Sequence[int]) -> None:
        for sequence_id in sequence_ids:
            self._live.pop(sequence_id, None)

    def _lose(self, reason: str, lost: Callable[[Live], bool]) -> None:
        """The engine is gone, and with it these submissions; should it come back, it need not go on with them."""
        gone = [(sequence_id, live) for sequence_id, live in list(self._live.items()) if lost(live)]
        self._forget([sequence_id for sequence_id, _ in gone])
        for _, live in gone:
            live.sink.push(Event((), Status.ERROR, live.prompt, error=reason))
        self._cancel([sequence_id for sequence_id, _ in gone])

    def _watch_engine(self, limit: float) -> None:
        """Gives up an engine that has not answered since `limit`: tells those who wait, and polls on another thread."""
        since = self._polling_since
        if since is not None and since < limit:
            self._poll_number += 1
            self._polling_since = None
            self._lose(SILENT, accepted)
            self._start(self._poll_loop)
            self._mistrust()
        if any(not live.accepted and live.since < limit for live in list(self._live.values())):
            self._lose(SILENT, lambda live: not live.accepted and live.since < limit)
            self._mistrust()

    def _mistrust(self) -> None:
        """Refuses requests at once until the engine answers again."""
        if not self._silent.is_set():
            self._silent.set()
            self._start(self._await_answer)

    def _await_answer(self) -> None:
        while not self._closed.is_set():
            try:
                hello(self._engine)
            except EngineError:
                self._closed.wait(RETRY_DELAY)
            else:
                self._silent.clear()
                return

    def _cancel_abandoned(self) -> None:
        gone = [number for number, live in list(self._live.items()) if live.accepted and not live.sink.alive()]
        # A sequence may have ended by itself meanwhile; cancelling it again does no harm.
        self._forget(gone)
        self._cancel(gone)

    def _cancel(self, sequence_ids: Sequence[int]) -> None:
        """Leaves it to a thread of its own: an engine that hangs must hang neither polls nor watches."""
        if sequence_ids:
            self._cancelled.put(list(sequence_ids))

    def _cancel_loop(self) -> None:
        while True:
            sequence_ids = self._cancelled.get()
            while not self._cancelled.empty():
                sequence_ids += self._cancelled.get()
            if self._closed.is_set():
                return
            try:
                self._engine.ask(command(Command.CANCEL, self._session_id, sequence_ids), ["session_events"])
            except EngineError:
                pass  # an engine that is gone has nothing to cancel; the next poll says so to everybody
