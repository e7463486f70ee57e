from __future__ import annotations

import errno
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import logs, processes
from launcher.stack import Settings, Stack
from tests.launcher.test_stack import wait_until


def test_a_log_is_private_and_the_one_before_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for text in (b"first", b"second"):
        with logs.begin(log) as stream:
            stream.write(text)
    assert (log.read_bytes(), logs.old(log).read_bytes()) == (b"second", b"first")
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(("size", "emptied"), [(100, False), (101, True)])
def test_a_log_is_emptied_when_it_is_longer(tmp_path: Path, size: int, emptied: bool) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * size)
    logs.empty_if_longer(log, 100)
    assert logs.old(log).exists() == emptied
    assert log.stat().st_size == (0 if emptied else size)


def test_a_log_that_cannot_be_kept_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*rest: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 101)
    logs.empty_if_longer(log, 100)
    assert log.stat().st_size == 0


def test_what_is_not_there_is_not_too_long(tmp_path: Path) -> None:
    logs.empty_if_longer(tmp_path / "a.log", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_process_goes_on_writing_at_the_beginning(tmp_path: Path) -> None:
    """It has no hole where the old lines were, as one would that was not opened for appending."""
    (tmp_path / "gateway").mkdir()
    log = tmp_path / "gateway" / "error.log"
    command = ["/bin/sh", "-c", "printf %0100d 0; read go < go; printf new; sleep 300"]
    subprocess.run(["mkfifo", tmp_path / "go"], check=True)
    child = processes.start("writer", command, processes.child_environment(), log, tmp_path)
    (others := tmp_path / "mine.log").write_bytes(b"x" * 100)
    stack = Stack(Settings(run_dir=tmp_path, max_log="50"))
    stack._gateway = SimpleNamespace(child=child)  # type: ignore[assignment]
    try:
        wait_until(lambda: log.stat().st_size == 100)
        stack._empty_long_logs()
        assert (log.stat().st_size, others.stat().st_size) == (0, 100)
        assert logs.old(log).read_bytes() == b"0" * 100
        (tmp_path / "go").write_text("x\n")
        wait_until(lambda: log.stat().st_size == 3)
        assert log.read_bytes() == b"new"
        assert stat.S_IMODE(logs.old(log).stat().st_mode) == 0o600
    finally:
        child.stop(1)
