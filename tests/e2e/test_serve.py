"""The command behind ./serve.sh, from the first line it prints to the last process it leaves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SHARED_MEMORY = Path("/dev/shm")
READY_S = 120


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


class Launched:
    """`python -m launcher.serve` on free ports; its output is in a file, so that nothing ever blocks."""

    def __init__(self, run: Path, *arguments: str, ports: list[int] | None = None, **variables: str) -> None:
        self.run = run
        self.port, http, metrics = ports or free_ports(3)
        self._output = run.parent / "output"
        options = {"--port": self.port, "--triton-http-port": http, "--triton-metrics-port": metrics, "--run-dir": run}
        command = [sys.executable, "-m", "launcher.serve", *map(str, sum(options.items(), ())), *arguments]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
            )
        self._family = {self.process.pid}

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until(self, text: str, times: int = 1, within_s: float = READY_S) -> None:
        deadline = time.monotonic() + within_s
        while self.output.count(text) < times:
            assert self.process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def processes(self) -> dict[int, str]:
        """What runs of this server, pid -> command: what descends from the launcher or ever did, and Triton's kind."""
        command = ["ps", "-ww", "-eo", "pid=,ppid=,stat=,args="]
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
        rows = [line.split(None, 3) for line in listing.stdout.splitlines()]
        alive = {int(pid): (int(parent), args) for pid, parent, stat, args in rows if not stat.startswith("Z")}
        for pid, (parent, args) in sorted(alive.items()):
            if parent in self._family or self._region_prefix in args:
                self._family.add(pid)
        return {pid: alive[pid][1] for pid in self._family if pid in alive}

    def pid_of(self, part: str) -> int:
        """The process with `part` in its command."""
        return next(pid for pid, command in self.processes().items() if part in command)

    def wait_until_nothing_is_left(self) -> None:
        deadline = time.monotonic() + 30
        while self.processes() or self.regions():
            assert time.monotonic() < deadline, (self.processes(), self.regions())
            time.sleep(0.1)

    @property
    def _region_prefix(self) -> str:
        record = self.run / "triton.regions"
        return record.read_text() if record.exists() else "no server yet"

    def regions(self) -> list[Path]:
        return list(SHARED_MEMORY.glob(f"{self._region_prefix}*"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def launched(run: Path) -> Iterator[Launched]:
    made = Launched(run)
    made.wait_until("Ctrl-C stops the server.")
    yield made
    made.process.send_signal(signal.SIGTERM)
    made.process.wait(60)


def test_it_answers_and_says_how_to_ask(launched: Launched) -> None:
    model = requests.get(f"{launched.url}/v1/models", timeout=10).json()["data"][0]["id"]
    assert f"serves the model {model}" in launched.output
    curl = next(line for line in launched.output.splitlines() if line.startswith("curl "))
    answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True, timeout=60).stdout
    assert '"choices"' in answer
    python = launched.output.split("# from Python (pip install openai)\n")[1].split("\nCtrl-C")[0]
    subprocess.run([sys.executable, "-c", python], check=True, timeout=60)


# The three signals that ask for a stop are spread over the tests: SIGTERM here, SIGINT while the models load, SIGHUP
# during a restart.
def test_a_requested_stop_leaves_nothing(launched: Launched) -> None:
    assert len(launched.processes()) >= 5
    assert launched.regions()
    launched.process.send_signal(signal.SIGTERM)
    launched.process.send_signal(signal.SIGTERM)  # an impatient user
    assert launched.process.wait(60) == 0, launched.output
    assert launched.processes() == {}
    assert launched.regions() == []
    assert "Traceback" not in launched.output


def test_a_stop_while_the_models_load_leaves_nothing(run: Path) -> None:
    launched = Launched(run)
    launched.wait_until("starting Triton")
    time.sleep(0.3)
    assert launched.processes()
    launched.process.send_signal(signal.SIGINT)
    assert launched.process.wait(60) == 0, launched.output
    assert launched.processes() == {}
    assert launched.regions() == []


def test_a_killed_launcher_leaves_nothing_for_long(launched: Launched) -> None:
    assert len(launched.processes()) >= 5
    launched.process.kill()
    launched.process.wait(10)
    launched.wait_until_nothing_is_left()


TRITON, NGINX, ENGINE_STUB = "bin/tritonserver", "nginx: master", "stub model_repository/tensorrt_llm/"


def completes(url: str, model: str, **options: Any) -> requests.Response:
    body = {"model": model, "prompt": "Hello", "max_tokens": 4} | options
    return requests.post(f"{url}/v1/completions", json=body, timeout=30, stream=bool(options.get("stream")))


def rest_of(stream: requests.Response) -> str:
    """What still comes; it may be cut off."""
    pieces = []
    with suppress(requests.exceptions.ChunkedEncodingError):
        for piece in stream.iter_content(None):
            pieces.append(piece.decode())
    return "".join(pieces)


def test_what_dies_is_restarted_until_it_dies_too_often(launched: Launched) -> None:
    model = requests.get(f"{launched.url}/v1/models", timeout=10).json()["data"][0]["id"]
    nginx = launched.pid_of(NGINX)
    # A request in flight: Triton would wait for it, and sometimes aborts when the engine goes away under it.
    stream = completes(launched.url, model, stream=True, max_tokens=1500, ignore_eos=True)

    os.kill(launched.pid_of(ENGINE_STUB), signal.SIGKILL)
    launched.wait_until("; restarting Triton")
    refused = completes(launched.url, model)
    assert (refused.status_code, refused.headers.get("Retry-After")) == (503, "2")
    assert "[DONE]" not in rest_of(stream)
    launched.wait_until("Triton is ready again", times=1, within_s=30)
    assert completes(launched.url, model).status_code == 200
    assert launched.pid_of(NGINX) == nginx

    os.kill(launched.pid_of(TRITON), signal.SIGKILL)
    launched.wait_until("Triton ended by itself (killed by signal 9); restarting Triton")
    launched.wait_until("Triton is ready again", times=2, within_s=30)
    assert completes(launched.url, model).status_code == 200
    assert launched.pid_of(NGINX) == nginx
    assert (launched.run / "triton.log.1").exists()
    assert len({region.name.rsplit("_", 1)[0] for region in launched.regions()}) == 1

    os.kill(nginx, signal.SIGKILL)
    assert launched.process.wait(60) == 1
    last = launched.output.splitlines()[-1]
    assert last.startswith("error: nginx ended by itself (killed by signal 9) in spite of 2 restarts within 5 minutes;")
    assert last.endswith(f"its log is {launched.run / 'gateway' / 'error.log'}.")
    assert launched.processes() == {}
    assert launched.regions() == []
    assert "Traceback" not in launched.output


def kill_triton_and_wait_for_the_next(launched: Launched) -> None:
    """Returns while the models load again."""
    victim = launched.pid_of(TRITON)
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not any(TRITON in command and pid != victim for pid, command in launched.processes().items()):
        assert time.monotonic() < deadline, launched.output


def test_nginx_is_restarted_and_a_stop_during_a_restart_leaves_nothing(launched: Launched) -> None:
    triton = launched.pid_of(TRITON)
    os.kill(launched.pid_of(NGINX), signal.SIGKILL)
    launched.wait_until("nginx is ready again", within_s=30)
    assert requests.get(f"{launched.url}/v1/models", timeout=10).status_code == 200
    assert launched.pid_of(TRITON) == triton

    kill_triton_and_wait_for_the_next(launched)
    launched.process.send_signal(signal.SIGHUP)
    assert launched.process.wait(60) == 0, launched.output
    assert launched.processes() == {}
    assert launched.regions() == []


@pytest.mark.parametrize("loading_s", [0, 0.2])
def test_a_launcher_killed_during_a_restart_leaves_nothing_for_long(launched: Launched, loading_s: float) -> None:
    kill_triton_and_wait_for_the_next(launched)
    time.sleep(loading_s)
    launched.process.kill()
    launched.process.wait(10)
    launched.wait_until_nothing_is_left()


def test_a_key_is_required_and_shown_nowhere(run: Path) -> None:
    launched = Launched(run, "--api-key", "sk-very-secret")
    try:
        launched.wait_until("Ctrl-C stops the server.")
        assert requests.get(f"{launched.url}/v1/models", timeout=10).status_code == 401
        allowed = {"Authorization": "Bearer sk-very-secret"}
        assert requests.get(f"{launched.url}/v1/models", headers=allowed, timeout=10).status_code == 200
        listing = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True).stdout
        written = [file.read_bytes() for file in run.rglob("*") if file.is_file()]
        assert "sk-very-secret" not in listing + launched.output
        assert all(b"sk-very-secret" not in content for content in written)
        assert "$OPENAI_API_KEY" in launched.output
    finally:
        launched.process.send_signal(signal.SIGTERM)
        launched.process.wait(60)


@pytest.mark.parametrize(
    ("position", "option"), [(0, "--port"), (1, "--triton-http-port"), (2, "--triton-metrics-port")]
)
def test_a_port_in_use_is_one_sentence(run: Path, position: int, option: str) -> None:
    ports = free_ports(3)
    with socket.create_server(("127.0.0.1", ports[position])):
        launched = Launched(run, ports=ports)
        assert launched.process.wait(30) == 1
    assert launched.output == f"error: Port {ports[position]} is in use: choose another one with {option}.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "/no/such/folder"), "error: The model folder /no/such/folder does not exist.\n"),
        (("--set", "openai_bls.nonsense=1"), "error: Model openai_bls has no parameter nonsense"),
    ],
)
def test_a_wrong_request_is_one_sentence(run: Path, arguments: tuple[str, ...], message: str) -> None:
    launched = Launched(run, *arguments)
    assert launched.process.wait(30) == 1
    assert launched.output.startswith(message)
    assert launched.output.count("\n") == 1
