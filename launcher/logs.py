"""Logs of other processes: nobody else reads them, they do not grow without end, and one may be followed.

In: files that processes append to. Out: the same files, emptied when they are long; what was in them is kept once,
beside them. They are copied and emptied instead of renamed, because Triton cannot be told to open its log anew, and
nginx's workers, who may run as another user, could not open one in a private folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from pathlib import Path
from typing import IO

from launcher.errors import LaunchError

PRIVATE = 0o600
PRIVATE_FOLDER = 0o700
FOLLOWER_INTERVAL_S = 0.2
FOLLOWER_PATIENCE_S = 2


def old(log: Path) -> Path:
    """Where the log before this one is kept."""
    return log.with_name(f"{log.name}.1")


def begin(log: Path) -> IO[bytes]:
    """A new log, to append to; one that is there already is kept."""
    if log.exists():
        log.replace(old(log))
    return _opened(log, os.O_APPEND)


def make(log: Path) -> None:
    """A log of which the lines so far stay.

    Raises:
        LaunchError: nothing can be written there, or it is no file: nginx opens a pipe more than once, and waits for as
            long as nobody reads it.
    """
    try:
        if not log.exists():
            _opened(log, os.O_APPEND).close()
        elif not log.is_file() or not os.access(log, os.W_OK):
            raise PermissionError(errno.EACCES, "it is no file, or may not be written to")
    except OSError as error:
        raise LaunchError(f"The log {log} cannot be written ({error.strerror}).") from None


def empty_if_longer(log: Path, most: int) -> bool:
    """For a log that others are writing; lines that come in the moment between copying and emptying are lost.

    So is what cannot be copied: on a full disk its room is what is needed. True: it is empty now.
    """
    if not log.is_file() or log.stat().st_size <= most:
        return False
    with contextlib.suppress(OSError), log.open("rb") as source, _opened(old(log), os.O_TRUNC) as target:
        shutil.copyfileobj(source, target, length=2**20)
    os.truncate(log, 0)
    return True


class Follower:
    """Copies what is new in a log to a file descriptor, on a thread of its own: who does not read it holds up nobody.

    What the log has already is not copied.
    """

    def __init__(self, log: Path, descriptor: int) -> None:
        self._log = self._file = log
        self._at = log.stat().st_size if log.exists() else 0
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="access log", daemon=True)
        self._thread.start()

    def emptied(self) -> None:
        """Tells that the log was: what it had is beside it now. What was there before, and was not copied, is lost."""
        with self._lock:
            self._at = self._at if self._file == self._log else 0
            self._file = old(self._log)

    def stop(self) -> None:
        """Copies the rest, unless nobody reads it."""
        self._ended.set()
        self._thread.join(FOLLOWER_PATIENCE_S)

    def _follow(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more
            while not self._ended.wait(FOLLOWER_INTERVAL_S):
                self._copy()
            self._copy()

    def _copy(self) -> None:
        while piece := self._next_piece():
            while piece:
                piece = piece[os.write(self._descriptor, piece) :]

    def _next_piece(self) -> bytes:
        with self._lock:
            piece = _read(self._file, self._at)
            if not piece and self._file != self._log:
                self._file, self._at = self._log, 0
                piece = _read(self._file, self._at)
            self._at += len(piece)
            return piece


def _read(file: Path, at: int) -> bytes:
    """What stands there, or a part of it; nothing if the file has gone."""
    with contextlib.suppress(OSError), file.open("rb") as stream:
        stream.seek(at)
        return stream.read(2**16)
    return b""


def _opened(file: Path, flag: int) -> IO[bytes]:
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | flag, PRIVATE), "ab" if flag == os.O_APPEND else "wb")
