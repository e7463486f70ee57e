"""One child process in a session of its own, its output in a log file.

In: a command, an environment, a log file. Out: a `Child` that can be asked whether it lives and told to stop together
with everything it started. It knows nothing about Triton or nginx.

Nothing is left behind, however the launcher ends: `stop` covers the orderly ways, and the kernel sends the child
SIGTERM when the launcher dies without a word (SIGKILL, out of memory).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

_OWN_VARIABLES = ("PYTHONSAFEPATH", "PYTHONUNBUFFERED")
"""Set by serve.sh for the launcher itself; a child must not see them."""


def child_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The launcher's environment without its options (the API key is one of them), plus `changes`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_BLS_") and k not in _OWN_VARIABLES}
    return {**kept, **(changes or {})}


class Child:
    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def log_lines(self, last: int = 200) -> list[str]:
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-last:]

    def stop(self, patience_s: float, ask: signal.Signals = signal.SIGTERM) -> None:
        """Asks the process, waits for at most `patience_s`, then kills what is left of its group."""
        if self.exit_code is None:
            self._process.send_signal(ask)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                pass
        self._kill_group()
        self._process.wait()
        _wait_for_group_to_vanish(self.pid)

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def start(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> Child:
    log.parent.mkdir(parents=True, exist_ok=True)
    launcher = os.getpid()

    def die_with_launcher() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher:  # it died before prctl took effect
            os._exit(1)

    log.unlink(missing_ok=True)
    with log.open("ab") as output:  # appending, because nginx writes its own lines into the same file
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal reaches the launcher alone, which stops in order
            preexec_fn=die_with_launcher,
        )
    return Child(name, process, log)


def _wait_for_group_to_vanish(group: int, patience_s: float = 5.0) -> None:
    """Killed grandchildren are reaped by init; until then a look at the process table would still show them."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.02)
