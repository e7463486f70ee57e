"""Real servers for the tests: Triton and nginx, on free ports, one for each form of the engine transport."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from engine import tiny_checkpoint
from launcher.gateway import Rules
from launcher.serve import ACCESS_LOG
from launcher.stack import Settings, Stack
from tests.ports import free_port

# Milliseconds per step: slow enough that an answer of a thousand tokens is still running when a test looks.
PACE = "5"
SINGLE_INSTANCES = 4
Parameters = Mapping[str, Mapping[str, str]]


@dataclass
class Server:
    """A running server and what tests ask of it.

    Attributes:
        engine: the stack whose Triton has the engine.
    """

    stack: Stack
    form: str
    model: str
    engine: Stack

    @property
    def url(self) -> str:
        return self.stack.url

    @property
    def chat_url(self) -> str:
        return self.url + "/v1/chat/completions"

    @property
    def completions_url(self) -> str:
        return self.url + "/v1/completions"

    def post(self, path: str, body: Any) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=60)

    def complete(self, prompt: str, **options: Any) -> Any:
        answer = self.post("/v1/completions", {"model": self.model, "prompt": prompt} | options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def active(self) -> int:
        """Requests that the engine has, running or waiting."""
        metrics = requests.get(self.engine.metrics_url, timeout=10).text
        found = re.search(r'nv_trt_llm_request_metrics\{[^}]*request_type="active"[^}]*\} (\S+)', metrics)
        assert found is not None
        return int(float(found[1]))

    def processes(self) -> set[int]:
        """Triton, its stubs and nginx."""
        return {pid for child in self.stack.children for pid in family(child.pid)}


def family(pid: int) -> set[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pid}.union(*(family(int(child)) for child in children))


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The small random checkpoint: what it writes varies, and goes on for long."""
    return tiny_checkpoint.ensure()


def started(run: Path, form: str, checkpoint: Path, changes: Parameters | None = None, **settings: Any) -> Stack:
    """`changes` are to the models' parameters, `settings` further ones of the stack."""
    usual = {"step_interval_ms": PACE, "checkpoint": str(checkpoint)}
    changes = changes or {}
    parameters = {model: dict(values) for model, values in ({"openai_bls": {}} | dict(changes)).items()}
    parameters["tensorrt_llm"] = {**usual, **changes.get("tensorrt_llm", {})}
    if form == "single":
        # An engine that does not know sessions cannot say where its tokenizer is.
        parameters["openai_bls"]["tokenizer_dir"] = str(checkpoint)
    return Stack(
        Settings(
            run_dir=run,
            port=free_port(),
            triton_http_port=free_port(),
            triton_metrics_port=free_port(),
            sessions=form == "session",
            parameters=parameters,
            access_log=run / ACCESS_LOG,
            **{"instances": 1 if form == "session" else SINGLE_INSTANCES, **settings},
        )
    )


def serve(
    form: str, run: Path, checkpoint: Path, changes: Parameters | None = None, **settings: Any
) -> Iterator[Server]:
    with started(run, form, checkpoint, changes, **settings) as stack:
        yield Server(stack, form, first_model(stack.url), stack)


def first_model(url: str) -> str:
    """The id of the model; with little patience the first questions may have no answer yet."""
    listed: list[Any] = []

    def told() -> bool:
        listed[:] = requests.get(url + "/v1/models", timeout=60).json().get("data", [])
        return bool(listed)

    assert eventually(told, seconds=60)
    return str(listed[0]["id"])


def far_front(run: Path, checkpoint: Path, engine_url: str, **front: str) -> Stack:
    """openai_bls and gateway whose engine is in another Triton."""
    return Stack(
        Settings(
            run_dir=run,
            port=free_port(),
            triton_http_port=free_port(),
            triton_metrics_port=free_port(),
            parameters={"openai_bls": {"tokenizer_dir": str(checkpoint), "engine_url": engine_url, **front}},
            engines={},
            access_log=run / ACCESS_LOG,
        )
    )


@pytest.fixture(scope="session")
def session_server(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    yield from serve("session", tmp_path_factory.mktemp("session"), checkpoint)


@pytest.fixture(scope="session")
def single_server(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    yield from serve("single", tmp_path_factory.mktemp("single"), checkpoint)


@pytest.fixture(scope="session")
def http_server(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, single_server: Server
) -> Iterator[Server]:
    """Its engine is the single form's: in a second Triton, without sessions."""
    with far_front(tmp_path_factory.mktemp("http"), checkpoint, single_server.stack.triton_url) as stack:
        yield Server(stack, "http", single_server.model, single_server.stack)


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The server as a newcomer starts it, with its metrics in sight."""
    settings = Settings(
        run_dir=tmp_path_factory.mktemp("tiny-chat"),
        port=free_port(),
        triton_http_port=free_port(),
        triton_metrics_port=free_port(),
        rules=Rules(metrics="open"),
    )
    with Stack(settings) as stack:
        requests.get(f"{stack.base_url}/models", timeout=300).raise_for_status()
        yield stack


@pytest.fixture(params=["session", "single", "http"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each test with this fixture runs over all forms of the transport."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found
