from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from launcher import processes

PARENT_OF_SLEEPERS = "sleep 300 & sleep 300 & echo started; wait"
STUBBORN = "trap '' TERM; echo started; while true; do sleep 1; done"


def start(script: str, log: Path) -> processes.Child:
    child = processes.start("child", ["/bin/bash", "-c", script], processes.child_environment(), log, log.parent)
    wait_for(lambda: child.log_lines() == ["started"])
    return child


def wait_for(condition: object, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("script", [PARENT_OF_SLEEPERS, STUBBORN])
def test_stop_leaves_nothing_of_the_group(script: str, tmp_path: Path) -> None:
    child = start(script, tmp_path / "log")
    child.stop(patience_s=0.2)
    assert child.exit_code is not None
    assert group_is_gone(child.pid)


def test_stopping_twice_or_after_the_end_is_fine(tmp_path: Path) -> None:
    child = start("echo started; exit 3", tmp_path / "log")
    wait_for(lambda: child.exit_code == 3)
    child.stop(1)
    child.stop(1)


@pytest.mark.parametrize("script", [STUBBORN, "(trap '' TERM; while :; do sleep 0.1; done) & sleep 300; :"])
def test_nothing_outlives_a_killed_launcher(script: str, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from launcher import processes\n"
        "log = Path(sys.argv[1])\n"
        "command = ['/bin/bash', '-c', sys.argv[2]]\n"
        "leftovers = [log.parent / 'shm_', log.parent / f'kept.{processes.PID}.for_all']\n"
        "child = processes.start('c', command, {'PATH': '/usr/bin:/bin'}, log, log.parent, leftovers)\n"
        "(log.parent / f'kept.{child.pid}.for_all').touch()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    (tmp_path / "shm_1").touch()
    command = [sys.executable, "-c", program, tmp_path / "log", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        group = int(launcher.stdout.readline())
        launcher.send_signal(signal.SIGKILL)
    wait_for(lambda: group_is_gone(group), 15)  # init may take its time to reap
    wait_for(lambda: [file.name for file in tmp_path.iterdir()] == ["log"])


def test_a_launcher_that_is_init_reaps_what_it_kills(tmp_path: Path) -> None:
    program = (
        "import ctypes, sys, time; from pathlib import Path; from launcher import processes\n"
        "ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER\n"
        "log = Path(sys.argv[1])\n"
        "command = ['/bin/bash', '-c', 'sleep 300 & echo started; wait']\n"
        "child = processes.start('c', command, {'PATH': '/usr/bin:/bin'}, log, log.parent)\n"
        "while child.log_lines() != ['started']: time.sleep(0.01)\n"
        "started = time.monotonic(); child.stop(0); print(time.monotonic() - started)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "log"], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2


def test_started_again_it_keeps_the_old_log(tmp_path: Path) -> None:
    child = start("echo started; exec sleep 300", tmp_path / "log")
    first = child.pid
    child.stop(5)
    assert child.death == "child ended by itself (killed by signal 15)"
    child.log.write_text("the cause")
    child.start_again()
    wait_for(lambda: child.log_lines() == ["started"])
    assert child.old_log.read_text() == "the cause"
    assert child.pid != first
    assert child.death is None
    child.stop(5)


def test_a_stop_requested_while_a_child_starts_leaves_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class StopRequested(BaseException):
        pass

    def request_stop(number: int, frame: object) -> None:
        raise StopRequested

    made: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        made.append(popen(*arguments, **options))
        # To the main thread, which is the only one that a launcher has; libraries of other tests have more.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        return made[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = signal.signal(signal.SIGTERM, request_stop)
    try:
        with pytest.raises(StopRequested):
            processes.start("child", ["/bin/sleep", "300"], {}, tmp_path / "log", tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [group_is_gone(process.pid) for process in made] == [True, True]


def test_a_child_does_not_see_the_launchers_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BLS_API_KEY", "secret")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("HOME", "/somewhere")
    environment = processes.child_environment({"A": "b"})
    assert "secret" not in environment.values()
    assert "PYTHONSAFEPATH" not in environment
    assert (environment["HOME"], environment["A"]) == ("/somewhere", "b")
