"""In-flight batching: which sequences take part in the next forward, and what becomes of its logits.

In: sequences (`submit`), cancellations (`cancel`), time. Out: a list of Progress per `step`.
Between two steps sequences join and leave freely. Any thread may submit and cancel; one thread steps. The lock is never
held during a forward. It does not know who reads the news, or how.

A prompt is always cut at the same places, and the numpy runner computes each row alike in any company: so the batch
around a sequence does not change its tokens.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from .errors import RequestError
from .runner import Runner, Segment
from .sampler import log_softmax
from .sequence import Progress, Sequence, Status

TOKENS_PER_BLOCK = 64
"""Unit in which cache use is reported; the caches themselves are contiguous."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stats:
    """One look at the scheduler, for the gauges of the contract."""

    active: int  # running and waiting
    scheduled: int  # in the last forward
    context: int  # of these, reading their prompt
    used_blocks: int
    iterations: int


class Scheduler:
    """Runs up to `max_batch_size` sequences at the same time, `max_queue_size` more may wait (0 = any number)."""

    def __init__(self, runner: Runner, max_batch_size: int, max_queue_size: int, prefill_chunk: int,
                 clock_ns: Callable[[], int] = time.monotonic_ns):
        self._runner = runner
        self._max_batch_size = max_batch_size
        self._max_queue_size = max_queue_size
        self._prefill_chunk = prefill_chunk
        self._clock_ns = clock_ns
        self._changed = threading.Condition()
        self._waiting: deque[Sequence] = deque()
        self._cancelled: list[Sequence] = []
        self._running: list[Sequence] = []
        self._scheduled = self._context = self._iterations = 0
        self._closed = False

    def submit(self, sequences: list[Sequence]) -> None:
        """All of them or none: raises RequestError if the queue has no room."""
        with self._changed:
            room = self._max_queue_size + max(0, self._max_batch_size - len(self._running)) - len(self._waiting)
            if self._max_queue_size and len(sequences) > room:
                raise RequestError(
                    f"Maximum queue size of {self._max_queue_size} has been reached, please try again later")
            self._waiting.extend(sequences)
            self._changed.notify_all()

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Ends them at the next step; those that have ended already are left alone."""
        with self._changed:
            self._cancelled.extend(sequences)
            self._changed.notify_all()

    def wait(self) -> bool:
        """Blocks until a step has something to do; False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_work())
            return not self._closed

    def close(self) -> None:
        """Makes `wait` return False, now and always."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stats(self) -> Stats:
        """Consistent when called by the stepping thread."""
        used = sum(blocks(sequence.computed) for sequence in self._running)
        active = len(self._running) + len(self._waiting)
        return Stats(active, self._scheduled, self._context, used, self._iterations)

    def step(self) -> list[Progress]:
        """One forward over everything that runs. Never raises because of a model or a request."""
        news = self._drop_cancelled()
        self._admit()
        batch = self._plan()
        self._scheduled, self._context = len(batch), sum(sequence.in_prompt for sequence in batch)
        if not batch:
            return news
        self._iterations += 1
        try:
            segments = [self._segment(sequence) for sequence in batch]
            logits = self._runner.forward(segments)
        except Exception as error:
            _log.exception("forward failed")
            message = f"Encountered an error in forwardSync function: {_short(error)}"
            return news + self._fail(list(self._running), message)
        return news + self._advance(batch, segments, logits)

    def abort(self, message: str) -> list[Progress]:
        """Ends everything with an error; for the stepping thread, or after it has ended."""
        with self._changed:
            waiting = list(self._waiting)
        return self._fail(self._running + waiting, message)

    def _has_work(self) -> bool:
        return bool(self._running or self._waiting or self._cancelled)

    def _drop_cancelled(self) -> list[Progress]:
        with self._changed:
            dropped = [s for s in dict.fromkeys(self._cancelled) if s.status is Status.RUNNING]
            self._cancelled.clear()
            gone = set(dropped)
            if gone:
                self._waiting = deque(s for s in self._waiting if s not in gone)
        return self._end(dropped, Status.CANCELLED)

    def _admit(self) -> None:
        with self._changed:
            while self._waiting and len(self._running) < self._max_batch_size:
                self._running.append(self._waiting.popleft())

    def _plan(self) -> list[Sequence]:
        """Every answer that grows, and prompts in the order they came while their chunks fit; at least one chunk."""
        batch, room = [], self._prefill_chunk
        for sequence in self._running:
            if not sequence.in_prompt:
                batch.append(sequence)
                continue
            size = min(self._prefill_chunk, len(sequence.request.prompt) - sequence.computed)
            if size <= room:
                batch.append(sequence)
            room -= size  # below zero stays below: nobody overtakes a long prompt
        return batch

    def _segment(self, sequence: Sequence) -> Segment:
        if sequence.cache is None:
            sequence.cache = self._runner.new_cache()
            sequence.times.first_scheduled = self._clock_ns()
        tokens = sequence.ids[sequence.computed: sequence.computed + self._prefill_chunk]
        last = sequence.computed + len(tokens) == len(sequence.ids)
        whole = sequence.in_prompt and sequence.request.context_logits
        return Segment(sequence.cache, tokens, len(tokens) if whole else int(last))

    def _advance(self, batch: list[Sequence], segments: list[Segment], logits: np.ndarray) -> list[Progress]:
        ready, places, row = [], [], 0
        for sequence, segment in zip(batch, segments, strict=True):
            if sequence.in_prompt and sequence.request.context_logits:
                sequence.context_logits.append(logits[row: row + segment.rows])
            row += segment.rows
            sequence.computed += len(segment.tokens)
            if sequence.computed == len(sequence.ids):
                ready.append(sequence)
                places.append(row - 1)
        return self._sample(ready, logits if len(places) == len(logits) else logits[places]) if ready else []

    def _sample(self, ready: list[Sequence], logits: np.ndarray) -> list[Progress]:
        """`logits` has one row per sequence. The largest one is found for the whole batch in one call."""
        plain = [sequence.sampler.is_argmax(sequence.generated) for sequence in ready]
        largest = logits.argmax(-1).tolist() if any(plain) else []
        now, news = self._clock_ns(), []
        for place, sequence in enumerate(ready):
            if sequence.status is not Status.RUNNING:
                continue  # it failed along with another sequence of its request
            try:
                token = largest[place] if plain[place] else sequence.sampler.choose(
                    logits[place], sequence.ids, sequence.generated)
                if not math.isfinite(logits[place, token]):
                    raise ValueError("the model returned logits that are not finite")
                news.append(_accept(sequence, token, logits[place], now))
            except Exception as error:
                _log.exception("sampling failed")
                news += self._fail([s for s in self._running if s.owner is sequence.owner], _sampling_error(error))
        self._remove_ended()
        return news

    def _fail(self, sequences: list[Sequence], message: str) -> list[Progress]:
        """Ends them and all others of the same requests that still wait."""
        owners = {id(sequence.owner) for sequence in sequences}
        with self._changed:
            waiting = [s for s in self._waiting if id(s.owner) in owners]
            self._waiting = deque(s for s in self._waiting if id(s.owner) not in owners)
        alive = [s for s in dict.fromkeys(sequences + waiting) if s.status is Status.RUNNING]
        return self._end(alive, Status.ERROR, message)

    def _end(self, sequences: list[Sequence], status: Status, message: str = "") -> list[Progress]:
        for sequence in sequences:
            sequence.finish(status)
        self._remove_ended()
        return [Progress(s, status, cum_log_prob=s.cum_log_prob, error=message) for s in sequences]

    def _remove_ended(self) -> None:
        self._running = [sequence for sequence in self._running if sequence.status is Status.RUNNING]


def blocks(tokens: int) -> int:
    """Cache blocks that so many positions take."""
    return -(-tokens // TOKENS_PER_BLOCK)


def _accept(sequence: Sequence, token: int, logits: np.ndarray, now_ns: int) -> Progress:
    request = sequence.request
    log_prob = float(log_softmax(logits)[token]) if request.log_probs else 0.0
    before = len(sequence.ids)
    status = sequence.accept(token, log_prob, now_ns)
    progress = Progress(sequence, status, tokens=sequence.ids[before:], cum_log_prob=sequence.cum_log_prob)
    if request.log_probs and progress.tokens:
        progress.log_probs = [log_prob]
    if request.generation_logits and progress.tokens:
        progress.generation_logits = [logits.copy()]
    if sequence.context_logits:
        progress.context_logits = np.concatenate(sequence.context_logits)
        sequence.context_logits = []
    if status is not Status.RUNNING:
        sequence.finish(status)
    return progress


def _sampling_error(error: Exception) -> str:
    return f"Encountered an error while sampling: {_short(error)}"


def _short(error: Exception) -> str:
    """The first line of a message, for callers: no traceback."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
