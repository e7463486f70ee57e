"""Limits of the model: how many requests at a time, how long each may take, who has left, and what is told of it.

The engine is slow here (50 ms a step) and runs one sequence at a time, so that whoever comes second waits.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Server, eventually, far_front, serve
from tests.e2e.test_serve import ENGINE_STUB, Launched
from tests.ports import free_port

ENGINE = {"step_interval_ms": "50", "prefill_chunk": "16", "max_batch_size": "1"}
MOST_REQUESTS = 5
SINGLE_QUEUE = 3
# A prompt of some 1500 tokens: its prefill takes 5 seconds.
LONG_PROMPT = " ".join(str(number) for number in range(380))


def served(form: str, factory: pytest.TempPathFactory, checkpoint: Path, **front: str) -> Iterator[Server]:
    yield from serve(form, factory.mktemp(form), checkpoint, {"tensorrt_llm": ENGINE, "openai_bls": front})


@pytest.fixture(scope="module")
def slow_session(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    limits = {"max_requests": str(MOST_REQUESTS), "keep_alive_seconds": "0.5"}
    yield from served("session", tmp_path_factory, checkpoint, **limits)


@pytest.fixture(scope="module")
def slow_single(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    yield from served("single", tmp_path_factory, checkpoint, keep_alive_seconds="0.5")


@pytest.fixture(scope="module")
def slow_http(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, slow_single: Server) -> Iterator[Server]:
    engine, run = slow_single.stack, tmp_path_factory.mktemp("slow-http")
    with far_front(run, checkpoint, engine.triton_url, keep_alive_seconds="0.5") as stack:
        yield Server(stack, "http", slow_single.model, engine)


@pytest.fixture(params=["session", "http"])
def concurrent(request: pytest.FixtureRequest) -> Server:
    """The forms in which a client that leaves is noticed before its first token."""
    found: Server = request.getfixturevalue(f"slow_{request.param}")
    return found


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    yield from served("session", tmp_path_factory, checkpoint, max_queue_seconds="2", max_request_seconds="4")


@pytest.fixture(scope="module")
def hasty_single(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    limits = {"max_requests": str(SINGLE_QUEUE), "max_queue_seconds": "2", "max_request_seconds": "4"}
    yield from served("single", tmp_path_factory, checkpoint, **limits)


@pytest.fixture(params=["session", "single", "http"])
def slow(request: pytest.FixtureRequest) -> Iterator[Server]:
    found: Server = request.getfixturevalue(f"slow_{request.param}")
    yield found
    assert eventually(lambda: found.active() == 0, seconds=60)


def body(server: Server, **options: Any) -> dict[str, Any]:
    usual = {"model": server.model, "prompt": "x", "max_tokens": 1500, "ignore_eos": True, "stream": True}
    return usual | options


@contextmanager
def asking(server: Server, **options: Any) -> Iterator[socket.socket]:
    """A request whose answer nobody reads; leaving the block closes the connection."""
    payload = json.dumps(body(server, **options)).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.stack.settings.port)) as connection:
        connection.sendall(head.encode() + payload)
        yield connection


def running(server: Server, count: int) -> bool:
    return eventually(lambda: server.active() == count)


def until_active(server: Server, count: int, at_most_s: float) -> float:
    left = time.monotonic()
    assert eventually(lambda: server.active() <= count, seconds=at_most_s)
    return time.monotonic() - left


def ready(server: Server) -> int:
    return requests.get(server.url + "/health/ready", timeout=10).status_code


def until_ready(server: Server, status: int, at_most_s: float) -> None:
    assert eventually(lambda: ready(server) == status, seconds=at_most_s)


def stub(server: Server, model: str) -> int:
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in server.processes()}
    return next(pid for pid, command in commands.items() if b"stub\0" in command and f"{model}/".encode() in command)


def test_one_request_too_many_is_refused_at_once(slow_session: Server) -> None:
    with ExitStack() as clients:
        for _ in range(MOST_REQUESTS):
            clients.enter_context(asking(slow_session))
        assert running(slow_session, MOST_REQUESTS)
        refused = slow_session.post("/v1/completions", body(slow_session))
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.elapsed.total_seconds() < 2
    # Those that left are not counted any more.
    assert running(slow_session, 0)
    assert slow_session.complete("x", max_tokens=1)


def test_the_usual_limits_hold_256_requests(session_server: Server) -> None:
    with ExitStack() as clients:
        for _ in range(256):
            clients.enter_context(asking(session_server, max_tokens=400))
        assert running(session_server, 256)
    assert eventually(lambda: session_server.active() == 0, seconds=60)


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_the_queue_frees_the_place(concurrent: Server, stream: bool) -> None:
    with asking(concurrent):
        assert running(concurrent, 1)
        with asking(concurrent, stream=stream):
            assert running(concurrent, 2)
        assert until_active(concurrent, 1, at_most_s=5) < 2
        assert concurrent.active() == 1
    assert running(concurrent, 0)


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_during_prefill_frees_the_place(concurrent: Server, stream: bool) -> None:
    with asking(concurrent, prompt=LONG_PROMPT + str(stream), stream=stream, max_tokens=400):
        assert running(concurrent, 1)
    assert until_active(concurrent, 0, at_most_s=5) < 2


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_in_the_single_form_is_dropped_with_the_engines_next_token(
    slow_single: Server, stream: bool
) -> None:
    with ExitStack() as clients:
        for number in range(6):  # four instances, so two of them wait in Triton
            prompt = f"{number} {stream} {LONG_PROMPT}"
            clients.enter_context(asking(slow_single, prompt=prompt, stream=stream, max_tokens=400))
        assert running(slow_single, 4)
    # Six prefills, one after the other, but none of the 2400 tokens, which would take two minutes.
    assert eventually(lambda: slow_single.active() == 0, seconds=60)
    assert slow_single.complete("x", max_tokens=1)


def test_keep_alive_comments_come_before_the_first_token(slow: Server) -> None:
    with asking(slow):
        assert running(slow, 1)
        options = {"prompt": LONG_PROMPT + "k", "max_tokens": 2}
        with requests.post(slow.completions_url, json=body(slow, **options), stream=True, timeout=60) as answer:
            lines = answer.iter_lines(decode_unicode=True)
            assert next(lines) == ": keep-alive"
            assert next(lines) == ""
            assert next(lines) == ": keep-alive"


def test_no_comments_in_a_whole_answer(slow_session: Server) -> None:
    answer = slow_session.post("/v1/completions", body(slow_session, max_tokens=30, prompt=LONG_PROMPT, stream=False))
    assert answer.text.startswith("{")
    assert answer.json()["usage"]["completion_tokens"] == 30


def test_an_engine_that_is_away(tmp_path: Path, checkpoint: Path) -> None:
    port = free_port()
    with far_front(tmp_path, checkpoint, f"http://me:secret@127.0.0.1:{port}", served_model_name="m") as stack:
        for _ in range(2):
            refused = requests.post(stack.url + "/v1/completions", json={"model": "m", "prompt": "x"}, timeout=30)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
            assert refused.json()["error"]["code"] == "service_unavailable"
        assert requests.get(stack.url + "/health/ready", timeout=30).status_code == 503
    log = (tmp_path / "triton.log").read_text()
    assert f"no answer from http://127.0.0.1:{port}" in log and "secret" not in log


def test_too_long_in_the_queue(hasty: Server) -> None:
    with asking(hasty, max_tokens=70):  # 3.5 seconds
        assert running(hasty, 1)
        told = hasty.post("/v1/completions", body(hasty))
        assert '"code":"queue_timeout"' in told.text
        assert "[DONE]" not in told.text
    assert running(hasty, 0)


def test_tritons_queue_is_bounded_in_the_single_form(hasty_single: Server) -> None:
    """Four run and three wait; more are refused at once, and who waits for too long in time, with a true status."""
    with ThreadPoolExecutor(12) as clients:
        asked = [clients.submit(hasty_single.post, "/v1/completions", body(hasty_single)) for _ in range(12)]
        answers = [each.result() for each in asked]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {503}
    assert {answer.headers["Retry-After"] for answer in refused} == {"2"}
    at_once = [answer for answer in refused if answer.elapsed.total_seconds() < 1.5]
    assert at_once
    assert running(hasty_single, 0)


@pytest.mark.parametrize("server", ["hasty", "hasty_single"])
def test_too_long_in_all(server: str, request: pytest.FixtureRequest) -> None:
    hurried: Server = request.getfixturevalue(server)
    told = hurried.post("/v1/completions", body(hurried, max_tokens=400))
    assert '"text"' in told.text
    assert '"code":"request_timeout"' in told.text
    assert "[DONE]" not in told.text
    assert until_active(hurried, 0, at_most_s=5) < 2
    with pytest.raises(requests.exceptions.RequestException):  # clients see a broken connection and try again
        hurried.post("/v1/completions", body(hurried, max_tokens=400, stream=False))
    assert running(hurried, 0)


def test_a_stopped_engine_is_not_ready(tmp_path: Path) -> None:
    """Triton 2.51 aborts when a process that was stopped for long goes on; then the launcher starts it anew."""
    launched = Launched(tmp_path / "run")

    def status() -> int:
        return requests.get(launched.url + "/v1/health/ready", timeout=10).status_code

    try:
        launched.wait_until("Ctrl-C stops the server.")
        assert eventually(lambda: status() == 200, seconds=30)
        engine = launched.pid_of(ENGINE_STUB)
        os.kill(engine, signal.SIGSTOP)
        stopped = time.monotonic()
        assert eventually(lambda: status() == 503, seconds=10)
        assert time.monotonic() - stopped < 5
        refused = requests.get(launched.url + "/health", timeout=10)
        assert refused.headers["Retry-After"] == "2"
        assert refused.json()["error"]["type"] == "server_error"
        os.kill(engine, signal.SIGCONT)
        assert eventually(lambda: status() == 200, seconds=90)
    finally:
        launched.process.send_signal(signal.SIGINT)
        launched.process.wait(60)


def test_all_names_of_health(slow_session: Server) -> None:
    until_ready(slow_session, 200, at_most_s=30)
    for path in ("/health", "/health/ready", "/v1/health", "/v1/health/ready", "/health/live", "/v1/health/live"):
        assert requests.get(slow_session.url + path, timeout=10).json()["status"] in ("ready", "live")
    assert requests.get(slow_session.url + "/health/startup", timeout=10).status_code == 200


def test_a_busy_engine_is_ready(slow_session: Server) -> None:
    with asking(slow_session), asking(slow_session):
        assert running(slow_session, 2)
        until_ready(slow_session, 200, at_most_s=10)
    assert running(slow_session, 0)


@pytest.mark.parametrize("victim", ["tensorrt_llm", "openai_bls"])
def test_a_killed_process_is_not_ready(victim: str, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> None:
    """Here nobody restarts Triton: the launcher does (tests/e2e/test_serve.py)."""
    for server in served("session", tmp_path_factory, checkpoint):
        until_ready(server, 200, at_most_s=30)
        os.kill(stub(server, victim), signal.SIGKILL)
        killed = time.monotonic()
        until_ready(server, 503, at_most_s=10)
        assert time.monotonic() - killed < 5


def test_a_reloaded_model_ends_its_streams(tmp_path: Path, checkpoint: Path) -> None:
    explicit = ["--model-control-mode=explicit", "--load-model=*"]
    for server in serve("session", tmp_path, checkpoint, triton_arguments=explicit):
        with requests.post(server.completions_url, json=body(server), stream=True, timeout=60) as answer:
            pieces = answer.iter_content(None)
            assert b'"text"' in next(pieces)
            unload = f"{server.stack.triton_url}/v2/repository/models/tensorrt_llm/unload"
            assert requests.post(unload, timeout=30).status_code == 200
            rest = b"".join(pieces)
            assert b'"error"' in rest or rest.endswith(b"data: [DONE]\n\n")
        until_ready(server, 503, at_most_s=10)
        load = f"{server.stack.triton_url}/v2/repository/models/tensorrt_llm/load"
        assert requests.post(load, timeout=60).status_code == 200
        until_ready(server, 200, at_most_s=30)
        with requests.post(server.completions_url, json=body(server), stream=True, timeout=60) as answer:
            pieces = answer.iter_content(None)
            assert b'"text"' in next(pieces)
            again = f"{server.stack.triton_url}/v2/repository/models/openai_bls/load"
            assert requests.post(again, timeout=60).status_code == 200
            rest = b"".join(pieces)
            assert b'"error"' in rest or rest.endswith(b"data: [DONE]\n\n")
