from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher import gateway, processes, stack, triton
from launcher.errors import LaunchError
from launcher.stack import Settings, Stack


def settings(tmp_path: Path, **changes: object) -> Settings:
    return Settings(run_dir=tmp_path, port=0, triton_http_port=1, triton_metrics_port=2, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "_check", lambda self: None)


def test_a_run_folder_serves_one_server(tmp_path: Path) -> None:
    first, second = Stack(settings(tmp_path)), Stack(settings(tmp_path))
    first._claim(tmp_path)
    with pytest.raises(LaunchError, match="Another server runs in"):
        second._claim(tmp_path)
    second.stop()
    first.stop()
    second._claim(tmp_path)
    second.stop()


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match="cannot be used .* see --run-dir"):
        Stack(settings(tmp_path))._claim(tmp_path / "file" / "run")


@pytest.mark.parametrize("name", stack.WRITTEN_ANEW)
def test_a_folder_of_others_is_no_run_folder(tmp_path: Path, name: str) -> None:
    """Such as the checkout itself, which would lose its sources."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_text("")
    with pytest.raises(LaunchError, match=f"/{name} is not of this server: choose another folder with --run-dir"):
        Stack(settings(tmp_path)).start()
    assert (tmp_path / name / "file").exists()
    assert not (tmp_path / stack.LOCK).exists()


def test_keys_that_cannot_be_written_do_not_end_the_server(tmp_path: Path) -> None:
    class FullDisk:
        def reload_if_changed(self) -> bool:
            raise OSError(errno.ENOSPC, "No space left on device")

    told: list[str] = []
    serving = Stack(settings(tmp_path), told.append)
    serving._gateway = FullDisk()  # type: ignore[assignment]
    for _ in range(3):
        serving._follow_files()
    assert len(told) == 1  # not each time that it is tried
    assert told[0].startswith("[Errno 28] No space left on device. The gateway goes on with the keys")


def test_when_nginx_does_not_start_triton_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = processes.start("Triton", ["sleep", "300"], processes.child_environment(), tmp_path / "log", tmp_path)
    monkeypatch.setattr(triton, "find", lambda *rest: triton.Installation(Path("x"), Path("y")))
    monkeypatch.setattr(triton, "start", lambda *rest, **more: triton.Triton(child, 1, "openai_bls_no_such_region"))
    monkeypatch.setattr(triton.Triton, "is_ready", lambda self: True)
    monkeypatch.setattr(gateway, "find_nginx", lambda: gateway.Nginx(Path("/bin/false"), Path("m")))
    with pytest.raises(LaunchError, match="nginx refuses"):
        Stack(settings(tmp_path)).start()
    assert child.exit_code is not None


def test_an_early_death_of_triton_is_told_with_its_reason(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo the reason; exit 1"]
    child = processes.start("Triton", command, processes.child_environment(), tmp_path / "log", tmp_path)
    server = triton.Triton(child, 1, "openai_bls_no_such_region")
    with pytest.raises(LaunchError, match="Triton did not start: the reason"):
        server.wait_until_ready(10, lambda step: None)
    started = Stack(settings(tmp_path))
    started._triton = server
    with pytest.raises(LaunchError, match=r"Triton ended by itself \(exit code 1\); its log is"):
        started.check_alive()
    started.stop()


REAPED = "wait; read < never"
A_ZOMBIE = "exec sleep 300"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class FakeTriton:
    """A stack on a Triton that is a shell with one stub; what it tells is in `told`."""

    def __init__(self, folder: Path, then: str = REAPED) -> None:
        os.mkfifo(folder / "never")  # to wait for without a process of its own
        model = folder / "engine" / "1" / "model.py"
        model.parent.mkdir(parents=True)
        model.write_text("read < never")
        stub = folder / triton.STUB
        shutil.copy("/bin/bash", stub)
        command = ["/bin/bash", "-c", f"test -e broken && echo out of order && exit 1; '{stub}' '{model}' & {then}"]
        child = processes.start("Triton", command, processes.child_environment(), folder / "log", folder)
        self.triton = triton.Triton(child, 1, "openai_bls_no_such_region")
        self.told: list[str] = []
        self.stack = Stack(settings(folder), self.told.append)
        self.stack._triton = self.triton
        self.triton.wait_until_ready(1, self.told.append)

    def kill_stub(self) -> None:
        os.kill(self.triton._stubs[0].pid, signal.SIGKILL)
        wait_until(lambda: self.triton.death is not None)


@pytest.fixture(autouse=True)
def readiness_of_a_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.Triton, "is_ready", lambda self: len(self.child.group(triton.STUB)) == 1)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeTriton]:
    made = FakeTriton(tmp_path)
    yield made
    made.stack.stop()


@pytest.mark.parametrize("then", [REAPED, A_ZOMBIE])
def test_a_dead_stub_is_noticed(then: str, tmp_path: Path) -> None:
    fake = FakeTriton(tmp_path, then)
    fake.stack.check_alive()
    fake.kill_stub()
    assert fake.triton.child.exit_code is None
    with pytest.raises(LaunchError, match="Triton's process for model engine ended; its log is"):
        fake.stack.check_alive()
    fake.stack.stop()


def test_another_process_with_the_pid_of_a_stub_is_not_the_stub() -> None:
    status = processes._status(os.getpid())
    assert status is not None
    assert processes.Process(os.getpid(), status.started, ()).is_running
    assert not processes.Process(os.getpid(), status.started - 1, ()).is_running


class Stopped(Exception):
    """Ends a watch from outside."""


def watch(fake: FakeTriton, monkeypatch: pytest.MonkeyPatch, deaths: int, every_s: float) -> None:
    """Kills the stub `deaths` times on a clock that advances by `every_s` from one look at it to the next."""
    left = iter(range(deaths))
    clock = iter(range(1_000_000))

    def sleep(seconds: float) -> None:
        if next(left, None) is None:
            raise Stopped
        fake.kill_stub()

    class Time:
        sleep: Callable[[float], None]
        monotonic: Callable[[], float]

    fake_time = Time()
    fake_time.sleep, fake_time.monotonic = sleep, lambda: next(clock) * every_s
    monkeypatch.setattr(stack, "time", fake_time)
    fake.stack.watch()


def test_what_dies_is_restarted_and_the_user_is_told(fake: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fake.triton.child.pid
    with pytest.raises(Stopped):
        watch(fake, monkeypatch, deaths=2, every_s=1)
    fake.stack.check_alive()
    assert fake.triton.child.pid != first
    assert [line.split(";")[0].split(" after")[0] for line in fake.told] == [
        "Triton's process for model engine ended",
        "Triton is ready again",
    ] * 2
    assert f"restarting Triton (the log so far: {fake.triton.child.log}.1)" in fake.told[0]


def test_too_many_deaths_in_a_short_time_are_the_end(fake: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaunchError, match=r"model engine ended in spite of 2 restarts within 5 minutes; its log is"):
        watch(fake, monkeypatch, deaths=9, every_s=1)
    assert sum("restarting" in line for line in fake.told) == 2


def test_rare_deaths_are_not_the_end(fake: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stopped):
        watch(fake, monkeypatch, deaths=5, every_s=stack.DEATHS_WITHIN_S)
    assert sum("restarting" in line for line in fake.told) == 5


def test_a_restart_that_fails_is_the_end(fake: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake.triton.child.log.parent / "broken").touch()
    with pytest.raises(LaunchError, match="Triton did not start: out of order"):
        watch(fake, monkeypatch, deaths=1, every_s=1)
