"""A requested stop, seen from the launcher: which signals wait, and for what."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from launcher import processes, serve, stack
from launcher.drain import Drain
from launcher.stack import Settings, Stack


@pytest.mark.parametrize(("number", "drains"), [(signal.SIGTERM, True), (signal.SIGINT, False), (signal.SIGHUP, False)])
def test_only_sigterm_drains(number: signal.Signals, drains: bool) -> None:
    with pytest.raises(serve.StopRequested) as stop:
        serve._request_stop(number, None)
    assert stop.value.may_drain == drains


class Part:
    """Triton or nginx: a process that sleeps; what is done to it is in `log`."""

    death = None

    def __init__(self, name: str, folder: Path, log: list[str]) -> None:
        self._name, self._log = name, log
        self.child = processes.start(name, ["sleep", "300"], processes.child_environment(), folder / name, folder)

    def refuse(self) -> None:
        self._log.append(f"{self._name} refuses")

    def is_idle(self) -> bool:
        return True

    def stop(self) -> None:
        self._log.append(self._name)
        self.child.stop(5)


def drained(tmp_path: Path, busy: object, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], str]:
    """What was stopped, and what the drain file said."""
    monkeypatch.setattr(stack, "CUT_OFF_PATIENCE_S", 0.1)
    monkeypatch.setattr(Drain, "is_over", busy)
    started = Stack(Settings(run_dir=tmp_path))
    log: list[str] = []
    started._triton, started._gateway = Part("triton", tmp_path, log), Part("nginx", tmp_path, log)  # type: ignore[assignment]
    started.drain(0.2)
    said = (tmp_path / "draining").read_text()
    assert started._gateway is not None and started._gateway.child.exit_code is not None
    started.stop()
    return log, said


def test_what_has_finished_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([False, True, True, True])
    assert drained(tmp_path, lambda self: next(looks), monkeypatch) == (["nginx refuses", "nginx", "triton"], "")


def test_what_does_not_finish_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drained(tmp_path, lambda self: False, monkeypatch)[1] == "now"


def test_nothing_to_drain_before_the_gateway_is_there(tmp_path: Path) -> None:
    Stack(Settings(run_dir=tmp_path)).drain(100)
    assert not (tmp_path / "draining").exists()
