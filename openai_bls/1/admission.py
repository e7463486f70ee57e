"""How many calls an instance takes, and whether it takes any: counted when a call comes and when it ends.

Two files tell the world outside (docs/limits.md). While the drain file is there, nothing new is taken; when it says
"now", what still runs ends. And as long as the instance has a call it holds a shared lock on the file beside it:
whoever gets that lock exclusively knows that nothing runs any more in any instance, also if one of them has died.
"""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path
from typing import IO

from call import Call
from preprocessing.errors import Kind, OpenAIError

BUSY_SUFFIX = ".busy"
NOW = "now"
FULL = OpenAIError(Kind.QUEUE_FULL, "The server has as many requests as it takes at a time. Try again later.")
DRAINING = OpenAIError(Kind.UNAVAILABLE, "The server is shutting down. Try again.")


class Admission:
    """The calls that an instance has taken and not answered to the end.

    Args:
        most: how many there may be at a time.
        drain_file: while it exists, no call is taken; None: calls are always taken.

    Raises:
        OSError: the drain file's folder cannot be written to.
    """

    def __init__(self, most: int, drain_file: Path | None) -> None:
        self._most = most
        self._drain_file = drain_file
        self._calls: set[Call] = set()
        self._lock = threading.Lock()
        self._busy: IO[bytes] | None = None
        if drain_file is not None:
            self._busy = drain_file.with_name(drain_file.name + BUSY_SUFFIX).open("ab")

    @property
    def draining(self) -> bool:
        return self._drain_file is not None and self._drain_file.exists()

    @property
    def cut_off(self) -> bool:
        """Whether what still runs has to end now."""
        try:
            return self._drain_file is not None and self._drain_file.read_text(encoding="ascii") == NOW
        except (OSError, ValueError):
            return False

    @property
    def calls(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def enter(self, call: Call) -> OpenAIError | None:
        """Takes a call, until `leave`; or says why not."""
        with self._lock:
            if len(self._calls) >= self._most:
                return FULL
            self._calls.add(call)
            if len(self._calls) == 1:
                self._mark(fcntl.LOCK_SH)
        # Asked after the lock is taken: either this call sees the file, or whoever made the file sees the lock.
        if self.draining:
            self.leave(call)
            return DRAINING
        return None

    def leave(self, call: Call) -> None:
        """The call has ended; one that was never taken may leave as well."""
        with self._lock:
            if call in self._calls:
                self._calls.remove(call)
                if not self._calls:
                    self._mark(fcntl.LOCK_UN)

    def close(self) -> None:
        if self._busy is not None:
            self._busy.close()

    def _mark(self, operation: int) -> None:
        if self._busy is not None and not self._busy.closed:
            fcntl.flock(self._busy, operation)
