"""The session extension (docs/session_contract.md): many sequences of one caller, answered by one poll.

In: progress of the session's sequences, and polls. Out: one response per poll with everything since the last one.
A Sessions object is the table of all callers; a Session is the mailbox of one. All calls are made under the courier's
lock. It does not know the scheduler: sequences to cancel are returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import numpy as np

from .errors import RequestError
from .request import Request, Tensors, scalar
from .response import Channel, Parcel, Response
from .sequence import Progress, Sequence, Status, Top

VERSION = 1
LONGEST_WAIT_US = 2**31 - 1  # records are INT32
PROMPT = -1
"""Status of a record about the prompt."""


class Command(IntEnum):
    """Values of `session_command`."""

    HELLO = 0
    SUBMIT = 1
    POLL = 2
    CANCEL = 3


@dataclass(frozen=True, slots=True)
class Poll:
    """A request that waits for news."""

    channel: Channel
    deadline: float


class Member(NamedTuple):
    """The owner of the sequences of one submit: routes their news into the session's mailbox."""

    session: Session
    number: int


class Session:
    """Implements response.Mailbox for one caller."""

    def __init__(self, now: float):
        self.last_poll = now
        self.poll: Poll | None = None
        self.unanswered = 0  # submits; a caller need not poll while it waits for the answer to one
        self.live: dict[int, list[Sequence]] = {}  # by session_sequence_id; until all last records are polled
        self._open: dict[int, int] = {}  # sequence indices that have not ended, for each of these
        self._news: dict[Sequence, Progress] = {}
        self._superseded: list[Channel] = []

    def push(self, progress: Progress) -> None:
        number = progress.sequence.owner.number
        if not self._open.get(number):  # an error has ended the whole request, or the session has been dropped
            return
        ended = progress.status is not Status.RUNNING
        self._open[number] = 0 if progress.status is Status.ERROR else self._open[number] - ended
        known = self._news.get(progress.sequence)
        if known is None:
            self._news[progress.sequence] = progress
        else:
            known.merge(progress)

    def open_poll(self, channel: Channel, now: float, wait: float) -> None:
        """One poll is open at a time: an older one is answered with nothing."""
        if self.poll:
            self._superseded.append(self.poll.channel)
        self.poll, self.last_poll = Poll(channel, now + wait), now

    def take(self, now: float) -> Parcel | None:
        superseded, self._superseded = self._superseded, []
        answered, news = None, []
        if self.poll and (self._news or now >= self.poll.deadline):
            answered, self.poll, self.last_poll = self.poll.channel, None, now
            news, self._news = list(self._news.values()), {}
            self._forget_ended(news)
        return partial(_answers, superseded, answered, news) if superseded or answered else None

    def deadline(self) -> float | None:
        return self.poll.deadline if self.poll else None

    def add(self, number: int, sequences: list[Sequence]) -> None:
        """Enters what a submit is about to start."""
        self.unanswered += 1
        self.live[number], self._open[number] = sequences, len(sequences)

    def answer(self, number: int, accepted: bool, now: float) -> None:
        """The submit is answered now: from now on the caller has to poll."""
        self.unanswered -= 1
        self.last_poll = max(self.last_poll, now)
        if not accepted:
            self.drop(number)

    def drop(self, number: int) -> list[Sequence]:
        """Takes it out again, without a record."""
        self._open.pop(number, None)
        return self.live.pop(number, [])

    def _forget_ended(self, news: list[Progress]) -> None:
        for progress in news:
            number = progress.sequence.owner.number
            if not self._open.get(number):
                self.drop(number)


class Sessions:
    """All sessions by id, and how long they live without a poll (seconds)."""

    def __init__(self, timeout: float, poll_wait: float):
        self._timeout = timeout
        self._poll_wait = poll_wait
        self._by_id: dict[int, Session] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def member(self, tensors: Tensors, now: float) -> Member:
        """Checks a submit and makes the owner of its sequences. Raises RequestError."""
        numbers = sequence_ids(tensors)
        if len(numbers) != 1 or numbers[0] <= 0:
            raise RequestError(f"session_sequence_ids: submit needs exactly one id > 0, got {numbers}")
        session = self._session(tensors, now)
        if numbers[0] in session.live:
            raise RequestError(f"session_sequence_ids: {numbers[0]} is in use")
        return Member(session, numbers[0])

    def poll(self, tensors: Tensors, channel: Channel, now: float) -> Session:
        """Opens a poll; the session may have something to send at once. Raises RequestError for a session not known."""
        session = self._by_id.get(_session_id(tensors))
        if session is None:
            raise RequestError("unknown session: nothing was submitted to it, or it has been given up")
        session.open_poll(channel, now, self._poll_wait)
        return session

    def find(self, tensors: Tensors) -> list[Sequence]:
        """The live sequences that a cancel names."""
        session = self._by_id.get(_session_id(tensors))
        numbers = sequence_ids(tensors)
        return [sequence for number in numbers for sequence in session.live.get(number, [])] if session else []

    def expire(self, now: float) -> list[Sequence]:
        """Forgets the sessions that have not polled for too long; their sequences, to be cancelled."""
        dead = [key for key, s in self._by_id.items() if s.poll is None and not s.unanswered
                and now - s.last_poll > self._timeout]
        sequences: list[Sequence] = []
        for key in dead:
            session = self._by_id.pop(key)
            for number in list(session.live):
                sequences += session.drop(number)
        return sequences

    def _session(self, tensors: Tensors, now: float) -> Session:
        key = _session_id(tensors)
        if key not in self._by_id:
            self._by_id[key] = Session(now)
        return self._by_id[key]


_ABSENT = {
    "context_logits": "return_context_logits",
    "generation_logits": "return_generation_logits",
    "perf_metrics": "return_perf_metrics",
    "num_input_tokens": "return_num_input_tokens",
    "num_output_tokens": "return_num_output_tokens",
}
"""Flags of a request whose answers have no place in an event record -> their input tensors."""


def check(requests: list[Request]) -> None:
    """Raises RequestError for what an event record cannot carry."""
    if len(requests) > 1:
        raise RequestError(f"a session takes one prompt per submit, got {len(requests)}")
    for field, tensor in _ABSENT.items():
        if getattr(requests[0], field):
            raise RequestError(f"{tensor}: not available in a session")


def sequence_ids(tensors: Tensors) -> list[int]:
    """`session_sequence_ids` as a list, empty if absent."""
    array = tensors.get("session_sequence_ids")
    return [] if array is None else array.reshape(-1).tolist()


def command(tensors: Tensors) -> Command:
    """`session_command`. Raises RequestError for an unknown one."""
    value = scalar(tensors, "session_command")
    if value not in set(Command):
        raise RequestError(f"session_command: wanted one of {[int(c) for c in Command]}, got {value}")
    return Command(value)


def nothing() -> Response:
    """The answer that only says "taken"."""
    return Response({"session_events": np.empty((1, 0), np.int32)})


def encode(news: Iterable[Progress]) -> Response:
    """Event records with their log probs, alternatives and texts."""
    records = _Records()
    for progress in news:
        number, index = progress.sequence.owner.number, progress.sequence.index
        if prompt := progress.prompt:
            waited = [] if prompt.waited_us is None else [min(prompt.waited_us, LONGEST_WAIT_US)]
            records.add((number, index, PROMPT), [prompt.reused, *waited], prompt.log_probs, prompt.top)
            if progress.of_prompt_only:
                continue
        records.add((number, index, int(progress.status)), progress.tokens, progress.log_probs, progress.top)
        if progress.status is Status.ERROR:
            records.texts.append(progress.error.encode())
    return Response(records.outputs())


class _Records:
    """The values of the records written so far, one list per output."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.log_probs: list[float] = []
        self.top: list[Top] = []
        self.texts: list[bytes] = []

    def add(self, head: tuple[int, int, int], tokens: list[int], log_probs: list[float], top: list[Top]) -> None:
        top_count = sum(ids.size for ids, _ in top) if top else 0
        self.events += (*head, len(tokens), len(log_probs), top_count, *tokens)
        self.log_probs += log_probs
        self.top += top

    def outputs(self) -> dict[str, np.ndarray]:
        outputs: dict[str, np.ndarray] = {"session_events": np.array(self.events, np.int32).reshape(1, -1)}
        if self.log_probs:
            outputs["session_log_probs"] = np.array(self.log_probs, np.float32).reshape(1, -1)
        if self.top:
            for name, place, dtype in (("session_top_ids", 0, np.int32), ("session_top_log_probs", 1, np.float32)):
                values = np.concatenate([pair[place].reshape(-1) for pair in self.top])
                outputs[name] = values.astype(dtype).reshape(1, -1)
        if self.texts:
            outputs["session_texts"] = np.array([self.texts], object)
        return outputs


def _answers(superseded: list[Channel], answered: Channel | None,
             news: list[Progress]) -> Iterator[tuple[Channel, Response]]:
    for channel in superseded:
        yield channel, nothing()
    if answered:
        yield answered, encode(news)


def _session_id(tensors: Tensors) -> int:
    value = scalar(tensors, "session_id")
    if value is None:
        raise RequestError("session_id is missing")
    return value
