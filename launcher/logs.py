"""Logs of other processes: nobody else reads them, and they do not grow without end.

In: files that processes append to. Out: the same files, emptied when they are long; what was in them is kept once,
beside them. They are copied and emptied instead of renamed, because Triton cannot be told to open its log anew, and
nginx's workers, who may run as another user, could not open one in a private folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import IO

PRIVATE = 0o600
PRIVATE_FOLDER = 0o700


def old(log: Path) -> Path:
    """Where the log before this one is kept."""
    return log.with_name(f"{log.name}.1")


def begin(log: Path) -> IO[bytes]:
    """A new log, to append to; one that is there already is kept."""
    if log.exists():
        log.replace(old(log))
    return _opened(log, os.O_APPEND)


def empty_if_longer(log: Path, most: int) -> None:
    """For a log that others are writing; lines that come in the moment between copying and emptying are lost.

    So is what cannot be copied: on a full disk its room is what is needed.
    """
    if not log.is_file() or log.stat().st_size <= most:
        return
    with contextlib.suppress(OSError), log.open("rb") as source, _opened(old(log), os.O_TRUNC) as target:
        shutil.copyfileobj(source, target, length=2**20)
    os.truncate(log, 0)


def _opened(file: Path, flag: int) -> IO[bytes]:
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | flag, PRIVATE), "ab" if flag == os.O_APPEND else "wb")
