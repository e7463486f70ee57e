"""A request's line in the access log, and its id wherever something is written about it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from launcher.serve import ACCESS_LOG
from launcher.stack import Stack
from tests.e2e.conftest import Server, eventually
from tests.e2e.test_serve import ROOT
from tests.ports import free_port

PROMPT = "words that no log may have"


def lines(server: Server, request_id: str) -> list[dict[str, Any]]:
    log = server.stack.settings.run_dir / ACCESS_LOG
    found = [json.loads(line) for line in log.read_text(encoding="ascii").splitlines()]
    return [line for line in found if line["request_id"] == request_id]


def line_of(server: Server, request_id: str) -> dict[str, Any]:
    assert eventually(lambda: bool(lines(server, request_id)))
    found = lines(server, request_id)
    assert len(found) == 1
    return found[0]


@contextmanager
def verbose(stack: Stack) -> Iterator[None]:
    """While Triton tells everything."""

    def tell(level: int) -> None:
        changed = requests.post(f"{stack.triton_url}/v2/logging", json={"log_verbose_level": level}, timeout=30)
        changed.raise_for_status()

    tell(1)
    try:
        yield
    finally:
        tell(0)


def triton_lines(stack: Stack, request_id: str, model: str) -> list[str]:
    """What Triton wrote about the request to a model."""
    log = stack.settings.run_dir / "triton.log"
    marked = re.compile(rf"request id: {re.escape(request_id)}\b.*model: {model}\b")
    return [line for line in log.read_text(errors="replace").splitlines() if marked.search(line)]


@pytest.mark.parametrize("stream", [True, False])
def test_one_id_in_the_answer_the_access_log_and_tritons_log(server: Server, stream: bool) -> None:
    request_id = f"id-{server.form}-{stream}"
    body = {"model": server.model, "prompt": PROMPT, "max_tokens": 5, "ignore_eos": True, "stream": stream}
    with verbose(server.stack), verbose(server.engine):
        answer = requests.post(
            server.completions_url + "?key=secret", json=body, headers={"X-Request-ID": request_id}, timeout=60
        )
        line = line_of(server, request_id)
    assert answer.headers["X-Request-ID"] == request_id
    assert triton_lines(server.stack, request_id, "openai_bls")
    assert triton_lines(server.engine, request_id, "tensorrt_llm")
    prompt_tokens = len(server.post("/v1/tokenize", {"model": server.model, "prompt": PROMPT}).json()["tokens"])
    expected = {
        "key_id": None, "client": "127.0.0.1", "method": "POST", "path": "/v1/completions", "endpoint": "completions",
        "status": 200, "error": None, "cancelled": False, "stream": stream, "model": server.model,
        "prompt_tokens": prompt_tokens, "completion_tokens": 5, "reasoning_tokens": None, "finish_reasons": ["length"],
        "upstream": f"127.0.0.1:{server.stack.settings.triton_http_port}",
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert f'"id":"{line["response_id"]}"' in answer.text
    assert 0 < line["ttft_ms"] <= line["duration_ms"] + 1
    # Only the embedded engine's sessions tell these two.
    assert (line["queue_ms"] is None) == (line["cached_tokens"] is None) == (server.form != "session")
    for folder in {server.stack.settings.run_dir, server.engine.settings.run_dir}:
        logs = [file.read_text(errors="replace") for file in folder.rglob("*.log")]
        assert logs and not [text for text in logs if PROMPT in text]


def test_several_choices_and_prompts(session_server: Server) -> None:
    server = session_server
    body = {"model": server.model, "prompt": ["a", "b c"], "n": 2, "max_tokens": 3, "ignore_eos": True}
    headers = {"X-Request-ID": "several"}
    answer = requests.post(server.completions_url, json=body, headers=headers, timeout=60).json()
    line = line_of(server, "several")
    assert line["finish_reasons"] == ["length"] * 4
    assert (line["prompt_tokens"], line["completion_tokens"]) == (answer["usage"]["prompt_tokens"], 12)


REFUSED = [
    ({"model": 'no"\n\u001b[2J\u202e"such' + "x" * 200}, 404, "model_not_found"),
    ({"max_tokens": -1}, 400, "invalid_request_error"),
    ({"max_tokens": 10**6}, 400, "context_length_exceeded"),
    ({"prompt": 1.5}, 400, "invalid_request_error"),
]


@pytest.mark.parametrize(("changes", "status", "error"), REFUSED)
def test_what_the_model_refuses(session_server: Server, changes: dict[str, Any], status: int, error: str) -> None:
    server = session_server
    body = {"model": server.model, "prompt": "a"} | changes
    answer = server.post("/v1/completions", body)
    assert answer.status_code == status, answer.text
    line = line_of(server, answer.headers["X-Request-ID"])
    assert (line["status"], line["error"]) == (status, error)
    assert (line["model"], line["completion_tokens"], line["finish_reasons"]) == (body["model"][:128], None, None)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/tokenize"])
def test_what_generates_nothing(session_server: Server, path: str) -> None:
    answer = session_server.post(path, {"model": session_server.model, "prompt": "a"})
    line = line_of(session_server, answer.headers["X-Request-ID"])
    assert (line["status"], line["endpoint"]) == (200, path.removeprefix("/v1/"))
    assert (line["completion_tokens"], line["ttft_ms"]) == (None, None)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves(server: Server, stream: bool) -> None:
    """What it got until then is known, up to a second before."""
    request_id = f"left-{server.form}-{stream}"
    body = {"model": server.model, "prompt": "a", "max_tokens": 1500, "ignore_eos": True, "stream": stream}
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nX-Request-ID: {request_id}\r\nContent-Length: {len(content)}"
    with socket.create_connection(("127.0.0.1", server.stack.settings.port), timeout=60) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + content)
        assert eventually(lambda: server.active() == 1)
        assert not stream or connection.recv(4096)
        time.sleep(1.5)
    line = line_of(server, request_id)
    assert (line["cancelled"], line["error"], line["finish_reasons"]) == (True, None, None)
    assert (line["status"], line["model"]) == (200 if stream else 499, server.model)
    assert 0 < line["completion_tokens"] < 1500
    assert eventually(lambda: server.active() == 0)


def test_lines_on_standard_output(session_server: Server, tmp_path: Path) -> None:
    """Of a gateway alone; what is for people goes to standard error."""
    port, triton = free_port(), session_server.stack.settings.triton_http_port
    command = [sys.executable, "-m", "launcher.serve", "--gateway-only", "--upstream", f"127.0.0.1:{triton}"]
    command += ["--port", str(port), "--run-dir", str(tmp_path / "run"), "--access-log", "-", "--log-prompts", "1k"]
    output, told = tmp_path / "output", tmp_path / "told"
    with output.open("wb") as stdout, told.open("wb") as stderr:
        launched = subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=stderr)
    try:
        assert eventually(lambda: "Ctrl-C stops the server." in told.read_text(), seconds=60), told.read_text()
        body = {"model": session_server.model, "prompt": PROMPT, "max_tokens": 2, "ignore_eos": True}
        requests.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=60).raise_for_status()
        assert eventually(lambda: PROMPT in output.read_text())
    finally:
        launched.terminate()
        assert launched.wait(60) == 0
    shown = output.read_text()
    assert shown == (tmp_path / "run" / ACCESS_LOG).read_text()
    last = json.loads(shown.splitlines()[-1])
    assert (last["completion_tokens"], json.loads(last["request"])) == (2, body)
