from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def test_a_child_does_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from launcher import processes\n"
        "log = Path(sys.argv[1])\n"
        "print(processes.start('c', ['sleep', '300'], {'PATH': '/usr/bin:/bin'}, log, log.parent).pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "log"], stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        group = int(launcher.stdout.readline())
        launcher.send_signal(signal.SIGKILL)
    wait_for(lambda: group_is_gone(group))


def test_a_child_does_not_see_the_launchers_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BLS_API_KEY", "secret")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("HOME", "/somewhere")
    environment = processes.child_environment({"A": "b"})
    assert "secret" not in environment.values()
    assert "PYTHONSAFEPATH" not in environment
    assert (environment["HOME"], environment["A"]) == ("/somewhere", "b")
