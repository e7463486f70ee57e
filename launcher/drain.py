"""Asks openai_bls to take nothing new, and tells when nothing runs any more (openai_bls/1/admission.py: its side).

In: a file, named to the model by its parameter drain_file. Out: whether requests run. It knows no server.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

BUSY_SUFFIX = ".busy"
NOW = "now"


class Drain:
    """Args: file: while it exists, requests are refused and health is not ready."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._busy = file.with_name(file.name + BUSY_SUFFIX)

    def begin(self) -> None:
        self.file.touch()

    def cut_off(self) -> None:
        """What still runs ends with an error."""
        self.file.write_text(NOW, encoding="ascii")

    def end(self) -> None:
        self.file.unlink(missing_ok=True)

    def is_over(self) -> bool:
        """Whether no request runs: every instance that has one holds a shared lock."""
        with self._busy.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True
