"""The session extension (docs/session_contract.md): hundreds of generations share one poll, at a cost per engine step.

Three kinds of threads: the callers of `submit`, one that polls and delivers, one that watches for clients that have
gone and for an engine that has. Every exchange is answered by exactly one response, which makes BLS safe from several
threads. If the engine's process dies, Triton answers what was under way never: hence the second watch.
"""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from postprocessing.events import Event, Status
from transports import Inputs, Sink
from transports.bls import Engine, EngineError, output

VERSION = 1
HEADER = 5  # integers before the tokens of an event record
POLLED = ("session_events", "session_texts")
SILENT = "the engine is not ready: it has stopped answering"
WATCH_INTERVAL = 0.25  # seconds between looks whether clients are still there
UNDECLARED = "unexpected inference"  # Triton's words for an input or output that a model does not declare
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
    """A sequence that the engine has or is about to get, and since when (seconds, monotonic)."""

    sink: Sink
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


def records(response: Any) -> Iterator[tuple[int, Event]]:
    """The events in the answer to a poll, with their sequence ids."""
    flat = output(response, "session_events")
    if flat is None:
        return
    texts = output(response, "session_texts")
    errors = iter([] if texts is None else texts)
    numbers = flat.tolist()
    at = 0
    while at < len(numbers):
        sequence_id, _, status, count, _ = numbers[at : at + HEADER]
        at += HEADER + count
        error = next(errors, b"").decode(errors="replace") if status == Status.ERROR else ""
        yield sequence_id, Event(numbers[at - count : at], Status(status), error)


def accepted(sequence: Live) -> bool:
    return sequence.accepted


class SessionTransport:
    """Many generations at a time through one session."""

    concurrent = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session_id = secrets.randbits(63)
        self._ids = itertools.count(1)
        self._sequences: dict[int, Live] = {}
        self._changed = threading.Condition()
        self._closed = threading.Event()
        # The poll under way, and since when. Another number means that the thread that began it was given up.
        self._poll_number = 0
        self._polling_since: float | None = None
        self._start(self._poll_loop)
        self._start(self._watch_loop)

    def submit(self, inputs: Inputs, max_tokens: int, sink: Sink) -> None:
        """Hands a generation to the engine and returns at once; see `Transport.submit`."""
        sequence_id = next(self._ids)
        sequence = self._sequences[sequence_id] = Live(sink, time.monotonic())
        try:
            submission = command(Command.SUBMIT, self._session_id, [sequence_id]) | inputs
            self._engine.ask(submission, ["session_events"])
        except EngineError:
            self._sequences.pop(sequence_id, None)
            raise
        sink.accepted()
        with self._changed:
            sequence.accepted = True
            self._changed.notify()

    def close(self) -> None:
        self._closed.set()
        with self._changed:
            self._changed.notify()

    def _start(self, loop: Callable[[], None]) -> None:
        threading.Thread(target=loop, name=loop.__name__, daemon=True).start()

    def _poll_loop(self) -> None:
        number = self._poll_number
        while self._wait_for_work():
            self._polling_since = time.monotonic()
            try:
                answer = self._engine.ask(command(Command.POLL, self._session_id), POLLED)
            except EngineError as error:
                answer, reason = None, str(error)
            if number != self._poll_number:
                return  # given up meanwhile: another thread polls now
            self._polling_since = None
            if answer is None:
                self._lose(reason, accepted)
                self._closed.wait(RETRY_DELAY)
                continue
            self._cancel(
                [sequence_id for sequence_id, event in records(answer) if not self._deliver(sequence_id, event)]
            )

    def _wait_for_work(self) -> bool:
        """Blocks until the engine has something of ours. False: the transport is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or self._any_accepted())
        return not self._closed.is_set()

    def _any_accepted(self) -> bool:
        return any(map(accepted, list(self._sequences.values())))

    def _deliver(self, sequence_id: int, event: Event) -> bool:
        """Passes an event on. False: nobody wants the rest of this sequence."""
        sequence = self._sequences.get(sequence_id)
        if sequence is None:  # cancelled already, or given up while the engine was silent
            return event.status is not Status.RUNNING
        wanted = sequence.sink.push(event)
        if event.status is not Status.RUNNING or not wanted:
            self._sequences.pop(sequence_id, None)
        return wanted or event.status is not Status.RUNNING

    def _lose(self, reason: str, lost: Callable[[Live], bool]) -> None:
        """The engine is gone, and with it these sequences."""
        for sequence_id, sequence in list(self._sequences.items()):
            if lost(sequence):
                self._sequences.pop(sequence_id, None)
                sequence.sink.push(Event((), Status.ERROR, reason))

    def _watch_loop(self) -> None:
        while not self._closed.wait(WATCH_INTERVAL):
            self._watch_engine(time.monotonic() - PATIENCE)
            self._watch_clients()

    def _watch_engine(self, limit: float) -> None:
        """Gives up an engine that has not answered since `limit`: tells those who wait, and polls on another thread."""
        since = self._polling_since
        if since is not None and since < limit:
            self._poll_number += 1
            self._polling_since = None
            self._lose(SILENT, accepted)
            self._start(self._poll_loop)
        self._lose(SILENT, lambda sequence: not sequence.accepted and sequence.since < limit)

    def _watch_clients(self) -> None:
        gone = [
            sequence_id
            for sequence_id, sequence in list(self._sequences.items())
            if sequence.accepted and not sequence.sink.alive()
        ]
        # A sequence may have ended by itself meanwhile; cancelling it again does no harm.
        for sequence_id in gone:
            self._sequences.pop(sequence_id, None)
        self._cancel(gone)

    def _cancel(self, sequence_ids: Sequence[int]) -> None:
        if not sequence_ids:
            return
        try:
            self._engine.ask(command(Command.CANCEL, self._session_id, sequence_ids), ["session_events"])
        except EngineError:
            pass  # an engine that is gone has nothing to cancel; the next poll says so to everybody
