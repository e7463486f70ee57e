from __future__ import annotations

import errno
import os
import select
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import logs, processes
from launcher.errors import LaunchError
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


def test_a_log_that_is_there_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    logs.make(log)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    log.write_text("line\n")
    logs.make(log)
    assert log.read_text() == "line\n"


@pytest.mark.parametrize("place", [".", "nowhere/a.log", "pipe"])
def test_a_log_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LaunchError, match="cannot be written"):
        logs.make(tmp_path / place)


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Copied]:
    (log := tmp_path / "a.log").write_text("before\n")
    made = Copied(log, tmp_path / "copy")
    yield made
    made.follower.stop()
    made.target.close()


class Copied:
    """A log that is followed, and where it is copied to."""

    def __init__(self, log: Path, copy: Path) -> None:
        self.log = log
        self.copy = copy
        self.target = copy.open("wb")
        self.follower = logs.Follower(log, self.target.fileno())

    def add(self, text: str) -> None:
        with self.log.open("a") as stream:
            stream.write(text)

    def empty(self) -> None:
        assert logs.empty_if_longer(self.log, 1)
        self.follower.emptied()


def test_new_lines_are_copied(copied: Copied) -> None:
    copied.add("one\n")
    wait_until(lambda: copied.copy.read_text() == "one\n")
    copied.add("two\n")
    copied.follower.stop()
    assert copied.copy.read_text() == "one\ntwo\n"


def test_no_line_is_lost_when_a_followed_log_is_emptied(copied: Copied) -> None:
    for number in range(20):
        copied.add(f"{number}\n")
        if number % 10 == 4:
            copied.empty()  # its last lines have not been copied yet, and more come
        if number % 10 == 9:
            wait_until(lambda number=number: copied.copy.read_text().endswith(f"{number}\n"))  # type: ignore[misc]
    assert copied.copy.read_text().split() == [str(number) for number in range(20)]


def test_who_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    (log := tmp_path / "a.log").touch()
    reading, writing = os.pipe()
    follower = logs.Follower(log, writing)
    try:
        log.write_bytes(b"x" * 2**20)  # more than a pipe holds
        wait_until(lambda: bool(select.select([reading], [], [], 0)[0]))
        telling = threading.Thread(target=follower.emptied, daemon=True)
        telling.start()
        telling.join(10)
        assert not telling.is_alive()
    finally:
        os.close(reading)
        follower.stop()
        os.close(writing)


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
