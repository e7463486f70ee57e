"""The one thread that sends: news from mailboxes and ready-made responses, in the order they came.

In: progress of a whole step at once, responses, polls. Out: calls of Channel.send.
The steps go on meanwhile; news that pile up are merged in the mailboxes, so a slow receiver costs no memory. Its lock
guards every mailbox. Without work and without an open poll it sleeps. It does not know what the responses say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from .response import Channel, Mailbox, Parcel, Response
from .sequence import Progress

_log = logging.getLogger(__name__)


class Courier:
    """`open_mailbox` finds the mailbox of the owner of a sequence."""

    def __init__(self, open_mailbox: Callable[[Progress], Mailbox], clock: Callable[[], float] = time.monotonic):
        self._open_mailbox = open_mailbox
        self._clock = clock
        self._changed = threading.Condition()
        self._ready: deque[Parcel] = deque()
        self._marked: dict[Mailbox, None] = {}  # may have something to take
        self._timed: dict[Mailbox, None] = {}  # have a deadline
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Sends what is ready, then ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    @contextmanager
    def lock(self) -> Iterator[float]:
        """Holds the lock of all mailboxes; gives the time."""
        with self._changed:
            yield self._clock()

    def send(self, channel: Channel, response: Response) -> None:
        """One response, as it is."""
        with self._changed:
            self._ready.append(lambda: [(channel, response)])
            self._changed.notify_all()

    def post(self, news: Iterable[Progress]) -> None:
        """The news of one step: all are in their mailboxes before the first is taken."""
        with self._changed:
            for progress in news:
                mailbox = self._open_mailbox(progress)
                mailbox.push(progress)
                self._marked[mailbox] = None
            self._changed.notify_all()

    def mark(self, mailbox: Mailbox) -> None:
        """Says that a mailbox may have something to send. The caller holds the lock."""
        self._marked[mailbox] = None
        self._changed.notify_all()

    def _run(self) -> None:
        while parcels := self._next():
            for parcel in parcels:
                self._deliver(parcel)

    def _next(self) -> list[Parcel]:
        """Waits for parcels; none = closed."""
        with self._changed:
            while True:
                now = self._clock()
                parcels = self._collect(now)
                if parcels or self._closed:
                    return parcels
                self._changed.wait(self._patience(now))

    def _collect(self, now: float) -> list[Parcel]:
        parcels = list(self._ready)
        self._ready.clear()
        for mailbox in self._marked | self._timed:
            parcel = mailbox.take(now)
            if parcel:
                parcels.append(parcel)
            if mailbox.deadline() is None:
                self._timed.pop(mailbox, None)
            else:
                self._timed[mailbox] = None
        self._marked.clear()
        return parcels

    def _patience(self, now: float) -> float | None:
        deadlines = [deadline for mailbox in self._timed if (deadline := mailbox.deadline()) is not None]
        return max(0.0, min(deadlines) - now) if deadlines else None

    def _deliver(self, parcel: Parcel) -> None:
        try:
            for channel, response in parcel():
                channel.send(response)
        except Exception:  # a caller that is gone must not stop the others
            _log.exception("a response could not be sent")
