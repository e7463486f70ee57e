from __future__ import annotations

from pathlib import Path

import pytest

from launcher import gateway, processes, triton
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
    stack = Stack(settings(tmp_path))
    stack._triton = server
    with pytest.raises(LaunchError, match=r"Triton ended by itself \(exit code 1\); its log is"):
        stack.check_alive()
    stack.stop()
