from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from launcher import probe
from launcher.errors import LaunchError

MODELS = (200, {"object": "list", "data": [{"id": "m"}]})
OK = (200, {})
NO_TEMPLATE = (400, {"error": {"message": "no chat template"}})
NOT_YET = (503, {"error": {"message": "not ready"}})

Answers = dict[str, list[tuple[int, dict | str]]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], str]]:
    """A server that gives the listed answers path by path, the last one again and again."""
    servers = []

    def begin(answers: Answers) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                rest = answers[self.path]
                status, body = rest.pop(0) if len(rest) > 1 else rest[0]
                if self.headers["Authorization"] != "Bearer k":
                    status, body = 401, {"error": "key"}
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode() if isinstance(body, str) else json.dumps(body).encode())

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def wait(url: str, key: str | None = "k", timeout_s: float = 5) -> probe.Working:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return probe.wait_until_working(probe.Door(url, headers), timeout_s, lambda: None)


@pytest.mark.parametrize(("chat", "can_chat"), [(OK, True), (NO_TEMPLATE, False)])
def test_a_working_server(serve: Callable[[Answers], str], chat: tuple[int, dict], can_chat: bool) -> None:
    url = serve({"/v1/models": [NOT_YET, MODELS], "/v1/completions": [NOT_YET, OK], "/v1/chat/completions": [chat]})
    assert wait(url) == probe.Working("m", can_chat)


def test_a_refusal_ends_the_wait(serve: Callable[[Answers], str]) -> None:
    with pytest.raises(LaunchError, match="refuses a first completion: HTTP 401"):
        wait(serve({"/v1/models": [MODELS]}), key=None)


def test_a_server_that_never_gets_ready(serve: Callable[[Answers], str]) -> None:
    with pytest.raises(LaunchError, match="did not succeed in time: HTTP 503"):
        wait(serve({"/v1/models": [NOT_YET]}), timeout_s=0)


@pytest.mark.parametrize("page", ["<html>Squid</html>", "", "[]", "{}", '{"data": []}', '{"data": {"id": "m"}}', "[1]"])
def test_another_program_at_the_door(serve: Callable[[Answers], str], page: str) -> None:
    with pytest.raises(LaunchError, match="Another program answers at .*/v1, not this server: .* --port"):
        wait(serve({"/v1/models": [(200, page)]}))


def test_a_program_that_does_not_speak_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"

        def greet() -> None:
            with server.accept()[0] as client:
                client.recv(65536)
                client.sendall(b"220 mail.example.org ESMTP\r\n")

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(LaunchError, match="did not succeed in time: 220 mail"):
            wait(url, timeout_s=0)


def test_no_proxy_is_asked(serve: Callable[[Answers], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert wait(serve({"/v1/models": [MODELS], "/v1/completions": [OK], "/v1/chat/completions": [OK]})).chat


def test_a_part_that_dies_meanwhile_ends_the_wait() -> None:
    def died() -> None:
        raise LaunchError("nginx ended by itself.")

    with pytest.raises(LaunchError, match="nginx ended"):
        probe.wait_until_working(probe.Door("http://127.0.0.1:1/v1"), 60, died)
