"""Whether the engine can generate a token now: known from the last one, else tried.

One try at a time runs on a thread of its own, because an engine that hangs never answers; who asks is answered from
another one, within the patience. In the single form only one request may be in flight, so the try takes its turn.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from postprocessing.events import Event, Status
from preprocessing.generation import prepare
from preprocessing.model import Model
from preprocessing.tensors import Submission, submissions
from transports import Transport

Teller = Callable[[bool], None]
ENDED_WELL = (Status.END_ID, Status.STOP_WORDS, Status.LENGTH)


class Probe:
    """The sink of a generation of one token.

    Attributes:
        over: set once it is known what became of it.
        good: a token came.
    """

    traceparent = ""

    id = "health"

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.over = threading.Event()
        self.good = False

    def accepted(self) -> None:
        """Says nothing yet: the token is what counts."""

    def push(self, event: Event) -> bool:
        if (event.tokens and event.status is not Status.PROMPT) or event.status in ENDED_WELL:
            self.good = True
        if self.good or event.status > Status.RUNNING:
            self.over.set()
        return not self.over.is_set()

    def alive(self) -> bool:
        return not self.over.is_set()

    look = alive


class Quorum:
    """Tells whether all of so many work, once it is known.

    Args:
        count: how many will be heard; none work together.
    """

    def __init__(self, count: int, tell: Teller) -> None:
        self._open = count
        self._tell = tell
        self._lock = threading.Lock()
        if not count:
            tell(True)

    def hear(self, works: bool) -> None:
        """The first that does not work decides."""
        with self._lock:
            before = self._open
            self._open = max(0, before - 1) if works else 0
        if before and not self._open:
            self._tell(works)


class Health:
    """Tells whether the engine works.

    Args:
        patience: seconds for which a token proves that the engine works, and in which a try has to bring one.
    """

    def __init__(self, transport: Transport, model: Model, patience: float) -> None:
        self._transport = transport
        self._patience = patience
        self._submissions = one_token(model)
        self._probe: Probe | None = None
        self._asked: queue.SimpleQueue[Teller | None] = queue.SimpleQueue()
        if transport.concurrent:
            start(self._loop)

    def ask(self, tell: Teller) -> None:
        """Tells at once, or from another thread if the transport allows that."""
        if self._transport.concurrent:
            self._asked.put(tell)
        else:
            tell(self._works())

    def close(self) -> None:
        self._asked.put(None)

    def _loop(self) -> None:
        while (tell := self._asked.get()) is not None:
            tell(self._works())

    def _works(self) -> bool:
        if not self._transport.ready:
            return False
        if time.monotonic() - self._transport.heard_at <= self._patience:
            return True
        if self._probe is None or self._probe.over.is_set():
            self._probe = Probe()
            self._begin(self._probe)
        # One that hangs already since long keeps nobody waiting.
        self._probe.over.wait(max(0.0, self._probe.since + self._patience - time.monotonic()))
        return self._probe.good

    def _begin(self, probe: Probe) -> None:
        if self._transport.concurrent:
            start(lambda: self._try(probe))
        else:
            self._try(probe)

    def _try(self, probe: Probe) -> None:
        try:
            self._transport.submit(self._submissions, probe)
        except Exception:
            probe.over.set()  # whatever it is, it is no token


def one_token(model: Model) -> Sequence[Submission]:
    """The smallest generation there is."""
    body = {"model": model.name, "prompt": [0], "max_tokens": 1, "temperature": 0}
    return submissions(prepare("completions", body, model, seed=0), model.tokenizer.vocab_size)


def start(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="health", daemon=True).start()
