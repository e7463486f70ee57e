"""In-flight batching: which sequences take part in the next forward, and what becomes of its logits.

In: sequences (`submit`), cancellations (`cancel`), time. Out: a list of Progress per `step`.
Between two steps sequences join and leave freely. Any thread may submit and cancel; one thread steps. The lock is never
held during a forward. It does not know who reads the news, or how.

A prompt is always cut at the same places, and the numpy runner computes each row alike in any company: so neither the
batch around a sequence nor what it found in the prefix cache changes its tokens. With such a runner the places are the
ends of blocks; how many of these pieces one forward takes makes no difference.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .errors import RequestError
from .prefix_cache import TOKENS_PER_BLOCK, PrefixCache, blocks
from .runner import Runner, Segment
from .sampler import likeliest, log_softmax
from .sequence import Progress, Sequence, Status

Work = tuple[Sequence, Segment]
"""A piece of one forward and whose it is. A prompt may have several, one behind the other."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stats:
    """One look at the scheduler, for the gauges of the contract."""

    active: int  # running and waiting
    scheduled: int  # in the last forward
    context: int  # of these, reading their prompt
    used_blocks: int
    iterations: int
    reused_blocks: int = 0  # since the start
    context_tokens: int = 0  # of prompts, in the last forward
    more: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Family and label of a gauge -> value, from an engine that counts by itself."""


class Scheduler:
    """Runs up to `max_batch_size` sequences at the same time, `max_queue_size` more may wait (0 = any number)."""

    def __init__(self, runner: Runner, max_batch_size: int, max_queue_size: int, prefill_chunk: int,
                 reuse_tokens: int = 0, clock_ns: Callable[[], int] = time.monotonic_ns):
        self._runner = runner
        self._max_batch_size = max_batch_size
        self._max_queue_size = max_queue_size
        self._prefill_chunk = prefill_chunk
        self._grid = TOKENS_PER_BLOCK if runner.reusable else prefill_chunk
        self._prefixes = PrefixCache(reuse_tokens if runner.reusable else 0)
        self._clock_ns = clock_ns
        self._changed = threading.Condition()
        self._waiting: deque[Sequence] = deque()
        self._cancelled: list[Sequence] = []
        self._running: list[Sequence] = []
        self._scheduled = self._context = self._context_tokens = self._iterations = self._reused_blocks = 0
        self._closed = False

    def submit(self, sequences: list[Sequence]) -> None:
        """All of them or none: raises RequestError if the queue has no room."""
        with self._changed:
            self.check_room(len(sequences))
            self._waiting.extend(sequences)
            self._changed.notify_all()

    def check_room(self, count: int) -> None:
        """Raises RequestError if the queue has no room for so many sequences now."""
        room = self._max_queue_size + max(0, self._max_batch_size - len(self._running)) - len(self._waiting)
        if self._max_queue_size and count > room:
            raise RequestError(f"Maximum queue size of {self._max_queue_size} has been reached, please try again later")

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
        return Stats(active, self._scheduled, self._context, used, self._iterations, self._reused_blocks,
                     self._context_tokens)

    def step(self) -> list[Progress]:
        """One forward over everything that runs. Never raises because of a model or a request."""
        news = self._drop_cancelled()
        self._admit()
        try:
            batch = self._plan(news)
            self._scheduled = len({sequence for sequence, _ in batch})
            self._context = len({sequence for sequence, _ in batch if sequence.in_prompt})
            self._context_tokens = sum(len(segment.tokens) for sequence, segment in batch if sequence.in_prompt)
            if not batch:
                return news
            self._iterations += 1
            logits = self._runner.forward([segment for _, segment in batch])
            ready, places = self._advance(batch, logits)
        except Exception as error:
            _log.exception("forward failed")
            message = f"Encountered an error in forwardSync function: {_short(error)}"
            return news + self._fail(list(self._running), message)
        if not ready:
            return news
        return news + self._sample(ready, logits if len(places) == len(logits) else logits[places])

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
                sequence = self._waiting.popleft()
                if sequence.status is Status.RUNNING:  # else it was cancelled before it came here
                    self._running.append(sequence)

    def _plan(self, news: list[Progress]) -> list[Work]:
        """Every answer that grows, and prompts in the order they came, as many pieces as fit.

        `news` gets what those that start have found in the prefix cache.
        """
        batch: list[Work] = []
        room = self._prefill_chunk
        for sequence in self._running:
            if not sequence.in_prompt:
                batch.append((sequence, _segment(sequence, sequence.computed, len(sequence.ids), 1)))
                continue
            if room <= 0:
                continue
            if sequence.cache is None:
                self._start(sequence, news)
                room -= sequence.reused_blocks  # copying a block takes less time than computing a token
            pieces = self._pieces(sequence, room)
            batch += pieces
            read = sum(len(segment.tokens) for _, segment in pieces)
            # A prompt that is not read to its end leaves no room: nobody overtakes it.
            room = room - read if sequence.computed + read == len(sequence.request.prompt) else 0
        return batch

    def _start(self, sequence: Sequence, news: list[Progress]) -> None:
        """Gives it a cache, filled with what is known of its prompt."""
        request = sequence.request
        all_logits = request.context_logits or request.prompt_log_probs
        chain = [] if all_logits else self._prefixes.find(request.prompt, _root(sequence))
        cache = self._runner.new_cache()
        if chain:
            cache.restore([block.saved for block in chain])
        sequence.start(cache, chain, self._clock_ns())
        self._reused_blocks += len(chain)
        if sequence.prompt_news and not sequence.request.prompt_log_probs:
            news.append(Progress(sequence, prompt=sequence.prompt_news))
            sequence.prompt_news = None

    def _pieces(self, sequence: Sequence, room: int) -> list[Work]:
        """The next whole pieces of its prompt that fit."""
        pieces: list[Work] = []
        place, end = sequence.computed, len(sequence.request.prompt)
        whole = sequence.request.context_logits or sequence.wants_prompt_scores
        while place < end and (stop := self._cut(place, end)) - place <= room:
            rows = stop - place if whole else int(stop == end)
            pieces.append((sequence, _segment(sequence, place, stop, rows)))
            room -= stop - place
            place = stop
        return pieces

    def _cut(self, place: int, end: int) -> int:
        """Where the piece ends that begins at `place`: at the end of a block, or earlier if a step takes less."""
        first = place // self._grid * self._grid
        size = min(self._prefill_chunk, self._grid)
        return min(place - (place - first) % size + size, first + self._grid, end)

    def _advance(self, batch: list[Work], logits: np.ndarray) -> tuple[list[Sequence], list[int]]:
        """The sequences that have a next token, and the rows of logits it comes from."""
        ready, places, row = [], [], 0
        for sequence, segment in batch:
            if sequence.in_prompt:
                self._read(sequence, segment, logits[row: row + segment.rows])
            row += segment.rows
            sequence.computed += len(segment.tokens)
            if sequence.computed == len(sequence.ids):
                ready.append(sequence)
                places.append(row - 1)
        return ready, places

    def _read(self, sequence: Sequence, segment: Segment, logits: np.ndarray) -> None:
        """Keeps what is wanted of a piece of a prompt."""
        request, computed = sequence.request, sequence.computed + len(segment.tokens)
        if request.context_logits:
            sequence.context_logits.append(logits)
        if sequence.wants_prompt_scores:
            _score_prompt(sequence, request.prompt[sequence.computed + 1: computed + 1], logits)
        if self._runner.reusable:
            self._prefixes.store(sequence.chain, request.prompt, computed, sequence.cache.save, _root(sequence))
        if computed == len(request.prompt):
            sequence.chain = []

    def _sample(self, ready: list[Sequence], logits: np.ndarray) -> list[Progress]:
        """`logits` has one row per sequence. The largest one is found for the whole batch in one call."""
        plain = [sequence.is_argmax() for sequence in ready]
        largest = logits.argmax(-1).tolist() if any(plain) else []
        now, news = self._clock_ns(), []
        for place, sequence in enumerate(ready):
            if sequence.status is not Status.RUNNING:
                continue  # it failed along with another sequence of its request
            try:
                token = largest[place] if plain[place] else sequence.choose(logits[place])
                if not math.isfinite(logits[place, token]):
                    raise ValueError("the model returned logits that are not finite")
                news.append(_accept(sequence, token, logits[place], now))
            except RequestError as error:
                news += self._fail([s for s in self._running if s.owner is sequence.owner], str(error))
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


def _segment(sequence: Sequence, start: int, end: int, rows: int) -> Segment:
    adapter = None if sequence.adapter is None else sequence.adapter.weights
    return Segment(sequence.cache, sequence.ids[start:end], rows, adapter)


def _root(sequence: Sequence) -> int:
    """What keys and values depend on besides tokens."""
    return 0 if sequence.adapter is None else -sequence.adapter.number


def _accept(sequence: Sequence, token: int, logits: np.ndarray, now_ns: int) -> Progress:
    request = sequence.request
    scored = request.log_probs or request.top_log_probs > 0
    log_probs = log_softmax(logits) if scored else logits
    log_prob = float(log_probs[token]) if scored else 0.0
    before = len(sequence.ids)
    status = sequence.accept(token, log_prob, now_ns)
    progress = Progress(sequence, status, tokens=sequence.ids[before:], cum_log_prob=sequence.cum_log_prob)
    if progress.tokens:
        if request.log_probs:
            progress.log_probs = [log_prob]
        if request.top_log_probs:
            progress.top = [likeliest(log_probs, request.top_log_probs)]
        if request.generation_logits:
            progress.generation_logits = [logits.copy()]
    if sequence.context_logits:
        progress.context_logits = np.concatenate(sequence.context_logits)
        sequence.context_logits = []
    progress.prompt, sequence.prompt_news = sequence.prompt_news, None
    if status is not Status.RUNNING:
        sequence.finish(status)
    return progress


def _score_prompt(sequence: Sequence, following: list[int], logits: np.ndarray) -> None:
    """Adds the log probs of the tokens that follow; behind the prompt's last row none does yet."""
    news, count = sequence.prompt_news, len(following)
    if news is None or not count:
        return
    log_probs = log_softmax(logits[:count])
    news.log_probs += log_probs[np.arange(count), following].tolist()
    if sequence.request.top_log_probs:
        news.top.append(likeliest(log_probs, sequence.request.top_log_probs))


def _sampling_error(error: Exception) -> str:
    return f"Encountered an error while sampling: {_short(error)}"


def _short(error: Exception) -> str:
    """The first line of a message, for callers: no traceback."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
