"""Guided decoding: compiled guides, kept for others that ask for the same.

In: sequences whose requests have a guide (`prepare`). Out: the same with their matchers (matcher.py), or an error.
Guides are compiled by two threads while the sequences wait outside the queue; neither the threads that receive requests
nor the steps ever wait for it. What one guide costs is bounded: its text, the time to wait for a thread, the time to
compile it (guide_trial.py), and the time of its masks (matcher.py). One that was refused is not tried again for a
while. It does not know sampling or responses.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from .errors import RequestError
from .guide_trial import Stopped, Trial
from .guides import Guide, GuideError, available, compile_grammar, first_line, load_tokenizer
from .matcher import Compiled, invalid
from .sequence import Sequence

THREADS = 2
WAITING, WAITING_SECONDS = 256, 4.0
"""Guides that may wait for a thread, and how long: each takes some milliseconds, but hostile ones SECONDS of
guide_trial.py, and a second to compile it here. Together this stays below 10 s: the front takes an engine that has not
answered a submission after 15 s for dead."""
CACHED_GUIDES, CACHED_TEXT = 256, 4 << 20
"""What is kept: so many guides, so many characters of them. A compiled one takes several times its text."""

REFUSED, REFUSED_SECONDS = 1024, 60.0
"""Guides that are remembered to be wrong, and how long: some are only too much for a machine that is busy now."""

TOO_MANY = "Too many guides wait to be compiled, please try again later"

_log = logging.getLogger(__name__)


class Refusals:
    """Why guides were refused. Their texts are not kept: they may be long, and many."""

    def __init__(self) -> None:
        self._reasons: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def add(self, guide: Guide, reason: str) -> None:
        self._reasons[_digest(guide)] = reason, time.monotonic() + REFUSED_SECONDS
        while len(self._reasons) > REFUSED:
            self._reasons.popitem(last=False)

    def reason(self, guide: Guide) -> str:
        """Nothing if there is none, or no longer."""
        if not self._reasons:
            return ""
        reason, until = self._reasons.get(_digest(guide), ("", 0.0))
        return reason if time.monotonic() < until else ""


def _digest(guide: Guide) -> bytes:
    return hashlib.blake2b("\0".join(guide).encode(errors="surrogatepass"), digest_size=32).digest()


class Guided:
    """Everything about guides that an engine owns. `folder` is the checkpoint's, if it has one."""

    def __init__(self, folder: str | None):
        self.types = available(folder)
        self._folder = folder or ""
        self._pool = ThreadPoolExecutor(THREADS, "guides")  # starts no thread before it is needed
        self._lock = threading.Lock()
        self._cache: OrderedDict[Guide, Future[Compiled]] = OrderedDict()
        self._refused = Refusals()
        self._waiting = 0
        self._trials = [Trial(self._folder) for _ in range(THREADS)]
        self._idle = list(self._trials)
        self._tokenizer: Any = None
        self._loading = threading.Lock()
        self._ready = 0.0  # when the tokenizer was there: nobody waits too long before

    def prepare(self, sequences: list[Sequence], then: Callable[[Exception | None], None]) -> None:
        """Gives each its matcher, then calls `then`: at once if nothing is to be compiled, else from another thread."""
        guided = [sequence for sequence in sequences if sequence.request.guide]
        if not guided:
            return then(None)
        try:
            futures = [self._compiled(guide) for sequence in guided if (guide := sequence.request.guide)]
        except RequestError as error:
            return then(error)
        _when_done(list(dict.fromkeys(futures)), lambda: then(_equip(guided, futures)))

    def close(self) -> None:
        """Who still waits gets an error."""
        for trial in self._trials:
            trial.stop()
        self._pool.shutdown(cancel_futures=True)
        for trial in self._trials:
            trial.close()

    def _compiled(self, guide: Guide) -> Future[Compiled]:
        with self._lock:
            if found := self._cache.get(guide):
                self._cache.move_to_end(guide)
                return found
            if reason := self._refused.reason(guide):
                raise RequestError(invalid(reason))
            if self._waiting >= WAITING:
                raise RequestError(TOO_MANY)
            try:
                future = self._pool.submit(self._compile, guide, time.monotonic())
            except RuntimeError:
                raise RequestError("the engine is shutting down") from None
            self._cache[guide] = future
            self._waiting += 1
        future.add_done_callback(lambda done: self._settle(guide, done))
        return future

    def _settle(self, guide: Guide, future: Future[Compiled]) -> None:
        """Keeps what is known about the guide now, and of others as much as there is room for."""
        with self._lock:
            self._waiting -= 1
            error = CancelledError() if future.cancelled() else future.exception()
            if error:
                self._cache.pop(guide, None)
            if isinstance(error, GuideError) and not isinstance(error, Stopped):
                self._refused.add(guide, str(error))
            text = sum(len(known.text) for known in self._cache)
            for known in list(self._cache):
                if len(self._cache) <= CACHED_GUIDES and text <= CACHED_TEXT:
                    break
                if self._cache[known].done():
                    text -= len(known.text)
                    del self._cache[known]

    def _compile(self, guide: Guide, since: float) -> Compiled:
        if time.monotonic() > max(since, self._ready) + WAITING_SECONDS:
            raise RequestError(TOO_MANY)
        trial = self._idle.pop()  # there are as many as threads
        try:
            trial.start()  # reads the tokenizer, too, at the same time
            tokenizer = self._loaded()
            grammar = trial.grammar(guide)
        finally:
            self._idle.append(trial)
        return Compiled(compile_grammar(grammar, tokenizer), frozenset(tokenizer.eos_tokens), tokenizer.vocab_size)

    def _loaded(self) -> Any:
        with self._loading:
            if self._tokenizer is None:
                try:
                    self._tokenizer = load_tokenizer(self._folder)
                    self._ready = time.monotonic()
                except Exception as error:
                    _log.exception("llguidance cannot use the tokenizer")
                    raise RequestError(f"GuidedDecoder is not setup: {first_line(str(error))}") from error
            return self._tokenizer


def _when_done(futures: list[Future[Compiled]], then: Callable[[], None]) -> None:
    if not futures:
        return then()
    futures[0].add_done_callback(lambda _: _when_done(futures[1:], then))


def _equip(sequences: list[Sequence], futures: list[Future[Compiled]]) -> Exception | None:
    try:
        for sequence, future in zip(sequences, futures, strict=True):
            sequence.matcher = future.result().matcher()
    except GuideError as error:
        return RequestError(invalid(str(error)))
    except CancelledError:
        return RequestError("the engine is shutting down")
    except Exception as error:
        return error
    return None
