"""A small model, and builds of it; for the engine flow with stand-ins for TensorRT-LLM's tools."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from builder.build import build
from builder.options import parse
from engine import tiny_checkpoint
from tests.ports import free_port

STANDIN = Path(__file__).parent / "standin"
ROOT = Path(__file__).resolve().parents[2]
Build = Callable[..., list[str]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_checkpoint.make(folder)
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def run(tiny: Path, output: Path) -> Build:
    """Builds the small model with some options; what was told, line by line."""

    def built(*options: str, model: Path = tiny) -> list[str]:
        told: list[str] = []
        build(parse([str(model), str(output), *options]), told.append)
        return told

    return built


@pytest.fixture
def tensorrt_llm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that has the engine flow: its tools take the real arguments and write empty results."""
    library = tmp_path / "triton" / "backends" / "tensorrtllm" / "libtriton_tensorrtllm.so"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setenv("TRITON_ROOT", str(tmp_path / "triton"))
    monkeypatch.setenv("PATH", f"{STANDIN / 'bin'}:{os.environ['PATH']}")


@contextmanager
def started(line: str, log: Path, ready: bool = True) -> Iterator[str]:
    """Runs the printed line, on other ports; the URL of Triton, or without `ready` its log once it has ended."""
    port = free_port()
    command = f"exec env {line} --http-port={port} --allow-metrics=false --allow-grpc=false --exit-timeout-secs=2"
    with log.open("w") as stream:
        child = subprocess.Popen(["bash", "-c", command], stdout=stream, stderr=stream, cwd=log.parent)
    try:
        if not ready:
            child.wait(60)
            yield log.read_text()
            return
        deadline = time.monotonic() + 60
        while not _is_ready(port):
            assert child.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait(30)


def _is_ready(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2).status_code == 200
    except requests.ConnectionError:
        return False


def triton_line(told: list[str]) -> str:
    """The first of the two lines."""
    return told[-2].strip()


def ask(url: str, endpoint: str, body: str) -> str:
    """What openai_bls answers, without a gateway."""
    answer = requests.post(f"{url}/v2/models/openai_bls/generate_stream", timeout=60, json={
        "id": "1", "endpoint": endpoint, "request": body})
    lines = [line[len("data: "):] for line in answer.text.splitlines() if line.startswith("data: ")]
    return "".join(requests.models.complexjson.loads(line).get("response", line) for line in lines)
