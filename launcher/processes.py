"""One child process in a session of its own, its output in a log file.

In: a command, an environment, a log file. Out: a `Child` that can be asked whether it lives, told to stop together with
everything it started, and restarted. It knows nothing about Triton or nginx.

Nothing is left behind, however the launcher ends. `stop` covers the orderly ways. When it dies without a word (SIGKILL,
out of memory) the kernel kills the child, and a guard, a small shell beside the child, kills its group and removes its
files: at once, because the next launcher wants the ports. The kernel goes by the thread that forked the child: start
and restart from the main thread, which lives as long as the launcher.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from launcher import logs

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

_OWN_VARIABLES = ("PYTHONSAFEPATH", "PYTHONUNBUFFERED")
"""Set by serve.sh for the launcher itself; a child must not see them."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NAME_LENGTH = 15
"""The kernel keeps this much of a program's name."""
PID = "{pid}"
"""Stands for the child's pid in the paths of its leftovers."""
_GUARD = """
read -r end_of_launcher
kill -s KILL -- "-$1"
shift
for path; do rm -f -- "$path"*; done
"""
"""Its input ends with the launcher. $1 is the child; the others are what the paths of its leftovers begin with."""


def child_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The launcher's environment without its options (the API key is one of them), plus `changes`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_BLS_") and k not in _OWN_VARIABLES}
    return {**kept, **(changes or {})}


_Guarded: TypeAlias = "tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]"
"""A process and its guard."""


@dataclass(frozen=True)
class Process:
    """A process that somebody else started, such as a child's child."""

    pid: int
    started: int
    """In clock ticks since boot: tells it from a later process with the same pid."""
    command: tuple[str, ...]
    """Empty if it had ended already."""

    @property
    def is_running(self) -> bool:
        now = _status(self.pid)
        return now is not None and now.started == self.started and now.state not in "ZX"


class Child:
    def __init__(self, name: str, log: Path, spawn: Callable[[], _Guarded]) -> None:
        self.name = name
        self.log = log
        self._spawn = spawn
        self._process, self._guard = spawn()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def death(self) -> str | None:
        """How it ended, in words; None while it runs."""
        code = self.exit_code
        if code is None:
            return None
        ending = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        return f"{self.name} ended by itself ({ending})"

    def group(self, program: str) -> list[Process]:
        """The processes of this child's group that run `program`, zombies included."""
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        known = [(pid, status) for pid in pids if (status := _status(pid)) is not None]
        return [
            Process(pid, status.started, _command(pid))
            for pid, status in known
            if status.group == self.pid and status.name == program[:_NAME_LENGTH]
        ]

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
        _dismiss(self._guard)

    def start_again(self) -> None:
        """The same command, after `stop`; the log so far becomes `old_log`."""
        self._process, self._guard = self._spawn()

    @property
    def old_log(self) -> Path:
        return logs.old(self.log)

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def start(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    folder: Path,
    leftovers: Sequence[Path] = (),
) -> Child:
    """The log starts empty; one that is there already is kept beside it, so that the cause of a death is not lost.

    Files whose path begins with one of `leftovers` are removed if the launcher dies.
    """
    log.parent.mkdir(parents=True, exist_ok=True)

    def spawn() -> _Guarded:
        with logs.begin(log) as output:  # appending, because nginx writes its own lines into the same file
            return _spawn(command, environment, output, folder, leftovers)

    return Child(name, log, spawn)


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes], folder: Path, leftovers: Sequence[Path]
) -> _Guarded:
    launcher = os.getpid()
    # A stop requested between fork and the return of Popen would leave a child that nobody knows.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:  # it died before prctl took effect
            os._exit(1)

    try:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal reaches the launcher alone, which stops in order
            preexec_fn=prepare,
        )
        paths = [str(path).replace(PID, str(process.pid)) for path in leftovers]
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(process.pid), *paths],
            env={"PATH": os.defpath},  # no secret of ours stays in a process that needs none
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # here a stop that was requested meanwhile is raised
    except BaseException:
        process.kill()
        process.wait()
        _dismiss(guard)
        raise
    return process, guard


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    guard.kill()  # before its input ends, or it would do its work
    guard.wait()
    if guard.stdin is not None:
        guard.stdin.close()


@dataclass(frozen=True)
class _Status:
    name: str
    state: str
    group: int
    started: int


def _status(pid: int) -> _Status | None:
    """What the kernel says about a process; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name stands in parentheses and may contain some; the fields behind it are those of proc(5) from the third on.
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    return _Status(name=head.partition("(")[2], state=fields[0], group=int(fields[2]), started=int(fields[19]))


def _command(pid: int) -> tuple[str, ...]:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(text.rstrip("\0").split("\0")) if text else ()


def _wait_for_group_to_vanish(group: int, patience_s: float = 5.0) -> None:
    """Killed grandchildren are reaped by init; until then a look at the process table would still show them."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            os.waitpid(-group, os.WNOHANG)  # in a container the launcher may be init
        except ChildProcessError:
            pass
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.02)
