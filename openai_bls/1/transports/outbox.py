"""The way of one prompt's news to the sink, when the engine may write faster than Triton takes answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from postprocessing.events import Event, joined_events
from transports import PACE

AT_ONCE = 0.0005  # seconds; news for which nobody had to wait longer had been there already


class Outbox:
    """Passes news on: at once as long as the engine is the slower one, else from a thread, and what has come in the
    meantime as one.

    Args:
        pass_on: gives an event to the sink; False: no more are wanted.

    Attributes:
        wanted: what `pass_on` said last.
    """

    def __init__(self, pass_on: Callable[[Event], bool]) -> None:
        self._pass_on = pass_on
        self._waiting: list[Event] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None
        self._free_since = float("-inf")
        self.wanted = True

    def put(self, event: Event) -> None:
        """From one thread only, which goes for the next news after this."""
        if self._thread is None and time.monotonic() - self._free_since > AT_ONCE:
            self._deliver(event)
        else:
            self._put_aside(event)
        self._free_since = time.monotonic()

    def close(self) -> None:
        """Returns when all has been passed on."""
        if self._thread is not None:
            with self._changed:
                self._ended = True
                self._changed.notify()
            self._thread.join()

    def _put_aside(self, event: Event) -> None:
        with self._changed:
            self._waiting.append(event)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while events := self._next():
            for event in merged_events(events):
                self._deliver(event)
            with self._changed:
                self._changed.wait_for(lambda: self._ended, timeout=PACE)

    def _next(self) -> list[Event]:
        """Waits for news; empty when no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            found, self._waiting = self._waiting, []
        return found

    def _deliver(self, event: Event) -> None:
        self.wanted = self.wanted and self._pass_on(event)


def merged_events(events: list[Event]) -> list[Event]:
    """One event for all new tokens of a sequence, if several have piled up."""
    if len(events) < 2:
        return events
    piles: dict[tuple[int, int], list[Event]] = {}
    for event in events:
        piles.setdefault((event.sequence, event.status), []).append(event)
    return [joined_events(pile) for pile in piles.values()]
