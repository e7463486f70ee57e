"""How much, how fast, how many: what is over a limit is refused or cut off, and others do not notice."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import openai
import pytest
import requests

from launcher import gateway
from tests.gateway.conftest import Start
from tests.gateway.upstream import Upstream, event
from tests.gateway.wire import TIMEOUT, connect, error_of, eventually, post, raw, rest_of

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(("size", "status"), [(2048, 200), (2049, 413)])
def test_the_size_of_a_body(start: Start, upstream: Upstream, size: int, status: int) -> None:
    upstream.events("{}")
    url = start(max_body="2k")
    assert post(url, b" " * size).status_code == status
    chunked = post(url, (piece for piece in [b" " * (size // 2), b" " * (size - size // 2)]))  # type: ignore[arg-type]
    assert chunked.status_code == status
    if status == 413:
        assert error_of(chunked)["code"] == "content_too_large"


@pytest.mark.parametrize(("piece", "whole"), [(16, True), (1, False)])
def test_a_body_in_small_chunks(start: Start, upstream: Upstream, piece: int, whole: bool) -> None:
    """Their framing may take as much room as the body; beyond that it counts as one that is no JSON."""
    upstream.events("{}")
    body = b'{"a":"' + b"x" * 2032 + b'"}'
    pieces = (body[at : at + piece] for at in range(0, len(body), piece))
    assert post(start(max_body="2k"), pieces).status_code == 200  # type: ignore[arg-type]
    assert (upstream.body["request"] == body.decode()) is whole


def test_the_size_of_a_header(start: Start, upstream: Upstream) -> None:
    upstream.events("{}")
    url = start(max_header="2k")
    assert post(url, headers={"X": "a" * 1500}).status_code == 200
    assert post(url, headers={"X": "a" * 2500}).status_code == 431


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "x"])
def test_compressed_bodies_are_refused(url: str, upstream: Upstream, encoding: str) -> None:
    answer = post(url, headers={"Content-Encoding": encoding})
    assert (answer.status_code, error_of(answer)["code"]) == (415, "unsupported_content_encoding")
    assert upstream.received == []


@pytest.mark.parametrize("first", [b"identity", b""])
def test_a_second_header_counts_as_well(url: str, upstream: Upstream, first: bytes) -> None:
    lines = b"Content-Encoding: %b\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    assert raw(url, HEAD + lines % first).startswith(b"HTTP/1.1 415 ")
    assert upstream.received == []


def test_a_body_that_is_not_compressed_may_say_so(url: str, upstream: Upstream) -> None:
    upstream.events("{}")
    assert post(url, headers={"Content-Encoding": "identity"}).status_code == 200


@pytest.mark.parametrize(
    ("rules", "sent"),
    [
        ({"header_timeout": 1}, [b"POST /v1", b"/chat", b"/completions", b" HTTP/1.1", b"\r\n", b"Host: a\r\n"]),
        ({"body_timeout": 1}, [HEAD + b"Content-Length: 100\r\n\r\n{"]),
        ({"header_timeout": 1}, []),
    ],
)
def test_a_request_that_does_not_arrive_is_cut_off(
    start: Start, rules: dict[str, int], sent: list[bytes], upstream: Upstream
) -> None:
    """All headers count together; a body must not pause."""
    url = start(**rules)
    with connect(url) as connection:
        begun = time.monotonic()
        for piece in sent:
            connection.sendall(piece)
            time.sleep(0.15)
        rest_of(connection)
        assert time.monotonic() - begun < 3
    assert upstream.received == []


@pytest.mark.parametrize(("line", "status"), [
    (b"POST /nope HTTP/1.1\r\n", 404),
    (b"PUT /v1/chat/completions HTTP/1.1\r\n", 405),
    (b"POST /v1/chat/completions HTTP/1.1\r\nx-api-key: wrong\r\n", 401),
    (b"POST /v1/chat/completions HTTP/1.1\r\nx-api-key: right\r\nContent-Encoding: gzip\r\n", 415),
])  # fmt: skip
def test_a_refusal_does_not_wait_for_the_body(start: Start, line: bytes, status: int) -> None:
    with connect(start(api_keys=["right"])) as connection:
        connection.sendall(line + b"Host: a\r\nContent-Length: 100000\r\n\r\n{")
        answer = b""
        while b"}}" not in answer:
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 %d " % status) and b'{"error":{' in answer


KEY = {"x-api-key": "k"}
TOO_LARGE = b" " * (24 * 2**20)
NOT_ALLOWED = b" " * (3 * 2**20)


@pytest.mark.parametrize(("body", "key", "status"), [(TOO_LARGE, "k", 413), (NOT_ALLOWED, "x", 401)])
def test_clients_that_read_when_they_have_sent_all_see_the_refusal(
    start: Start, body: bytes, key: str, status: int
) -> None:
    url = start(api_keys=["k"])
    pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))
    for sent in (body, pieces):
        assert post(url, sent, headers={"x-api-key": key}).status_code == status  # type: ignore[arg-type]
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    with pytest.raises(openai.APIStatusError) as refused:
        client.completions.create(model="m", prompt=body.decode())
    assert refused.value.status_code == status
    client.close()


def test_a_refused_client_may_not_go_on_for_long(url: str) -> None:
    begun = time.monotonic()
    with connect(url) as connection, pytest.raises(OSError):
        connection.sendall(b"POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        while time.monotonic() - begun < 15:
            connection.sendall(b"x")
            time.sleep(0.2)
    assert time.monotonic() - begun < 12


@pytest.mark.parametrize("path", ["/health/live", "/health/startup", "/health", "/metrics", "/openapi.json"])
@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_routes_without_a_body_wait_for_none(start: Start, upstream: Upstream, path: str, framing: bytes) -> None:
    with connect(start(metrics="open")) as connection:
        connection.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % (path.encode(), framing))
        answer = connection.recv(65536)
    waits = path not in ("/health/live", "/openapi.json")
    assert answer.startswith(b"HTTP/1.1 413 " if waits else b"HTTP/1.1 200 ")
    assert upstream.received == []


def test_whatever_waits_is_counted_and_health_by_itself(
    start: Start, upstream: Upstream, make_upstream: Callable[[], Upstream]
) -> None:
    url = start(max_connections_per_address=2, metrics="open", metrics_of=(other := make_upstream()))
    upstream.events("{}")
    upstream.go.clear()

    def status(path: str) -> int:
        return requests.get(url + path, timeout=TIMEOUT).status_code

    with ThreadPoolExecutor(80) as pool:
        held = [pool.submit(post, url) for _ in range(2)]
        assert eventually(lambda: len(upstream.received) == 2)
        assert [status(path) for path in ("/metrics", "/v1/models")] == [429, 429]
        assert [status(path) for path in ("/health/live", "/openapi.json")] == [200, 200]
        asked = [pool.submit(status, "/health") for _ in range(78)]
        assert {each.result() for each in asked} == {429, 503}  # 64 at a time; the upstream answers none
        upstream.go.set()
        assert [each.result().status_code for each in held] == [200, 200]
    assert other.received == []
    assert status("/metrics") == 200


BEGINNINGS = {
    "silent": b"",
    "refused": b"POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{",
    "idle": b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_connections_that_ask_nothing_do_not_lock_others_out(
    start: Start, upstream: Upstream, beginning: bytes
) -> None:
    """There are 2 × 8 + 256; nginx gives up the oldest of those that ask nothing."""
    upstream.events("{}")
    url = start(max_connections=8)
    with ExitStack() as clients:
        for _ in range(300):
            client = clients.enter_context(connect(url))
            with suppress(OSError):
                client.sendall(beginning)
        assert post(url).status_code == 200


def test_half_a_header_keeps_others_out_for_its_time_only(start: Start, upstream: Upstream) -> None:
    """nginx does not give up a connection that has begun to ask; it has --header-timeout to go on."""
    upstream.events("{}")
    url = start(max_connections=8, header_timeout=1)
    with ExitStack() as clients:
        for _ in range(300):
            client = clients.enter_context(connect(url))
            with suppress(OSError):
                client.sendall(b"GET /health/l")
        assert eventually(lambda: served(url))


def served(url: str) -> bool:
    try:
        return post(url).status_code == 200
    except requests.exceptions.ConnectionError:
        return False


def test_requests_per_second_by_key(start: Start, upstream: Upstream) -> None:
    upstream.events("{}")
    url = start(api_keys=["a", "b"], rate_limit="3/m", rate_burst=2)
    answers = [post(url, headers={"x-api-key": key}) for key in ("a", "a", "a", "a", "b")]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 200]
    assert error_of(answers[3])["code"] == "rate_limit_exceeded"
    assert answers[3].headers["Retry-After"] == "20"
    assert [post(url, headers={"x-api-key": "x"}).status_code for _ in range(5)] == [401] * 5


def test_requests_per_second_by_address(start: Start, upstream: Upstream) -> None:
    upstream.events("{}")
    url = start(rate_limit="1/s", rate_burst=1)
    assert [post(url).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        ({"concurrent_requests": 2}, True),
        ({"concurrent_requests": 2, "api_keys": ["a", "b"]}, False),
        ({"max_connections_per_address": 2}, True),
        ({"max_connections": 2}, True),
    ],
)
def test_requests_at_a_time(start: Start, upstream: Upstream, rules: dict[str, object], refused: bool) -> None:
    upstream.events("{}")
    url = start(**rules)
    upstream.go.clear()
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(post, url, headers={"x-api-key": "a"}) for _ in range(2)]
        assert eventually(lambda: len(upstream.received) == 2)
        answer = post(url, headers={"x-api-key": "a"})
        assert (answer.status_code, error_of(answer)["code"]) == (429, "too_many_concurrent_requests")
        assert 0 < int(answer.headers["Retry-After"]) <= 120
        threading.Timer(0.2, upstream.go.set).start()
        assert post(url, headers={"x-api-key": "b"}).status_code == (429 if refused else 200)
        assert [each.result().status_code for each in held] == [200, 200]
    assert post(url, headers={"x-api-key": "a"}).status_code == 200


def test_requests_per_connection(start: Start, upstream: Upstream) -> None:
    upstream.events("{}")
    request = HEAD + b"Content-Length: 2\r\n\r\n{}"
    assert raw(start(requests_per_connection=3), request * 5).count(b"HTTP/1.1 200") == 3


def test_processing_time_and_streams_are_told(url: str, upstream: Upstream) -> None:
    upstream.events("{}")
    upstream.go.clear()

    def answer_late() -> None:
        eventually(lambda: bool(upstream.received))
        time.sleep(0.2)
        upstream.go.set()

    threading.Thread(target=answer_late, daemon=True).start()
    headers = post(url, b'{"stream":true}').headers
    assert 150 <= int(headers["OpenAI-Processing-Ms"]) < 5000
    assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-cache", "no")
    assert int(requests.get(f"{url}/health/live", timeout=TIMEOUT).headers["OpenAI-Processing-Ms"]) < 150


def memory_of(child: int) -> int:
    """Resident bytes of nginx's workers."""
    listing = subprocess.run(["ps", "-o", "rss=", "--ppid", str(child)], capture_output=True, text=True, check=True)
    return sum(map(int, listing.stdout.split())) * 1024


PIECE = event("data: " + "x" * 1000 + "\n\n") * 16


@pytest.mark.parametrize("speed", [0, 50])
@pytest.mark.parametrize("pieces", [itertools.repeat(PIECE), [PIECE] * 30], ids=["endless", "half a megabyte"])
def test_a_client_that_hardly_reads_is_cut_off_and_holds_little(
    start: Start, upstream: Upstream, gateways: list[gateway.Gateway], speed: int, pieces: Iterable[bytes]
) -> None:
    """By max_backlog while the answer grows. After that by send_timeout, which alone would count from byte to byte."""
    upstream.pieces = pieces
    url = start(send_timeout=2, send_buffer="32k", max_backlog="1m")
    before = memory_of(gateways[0].child.pid)
    slow = [connect(url, receive_buffer=4096) for _ in range(5)]
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.1):
            for connection in slow:
                with_patience(lambda connection=connection: connection.recv(speed // 10))

    for connection in slow:
        connection.sendall(HEAD + b"Content-Length: 15\r\n\r\n" + b'{"stream":true}')
    reader = threading.Thread(target=trickle, daemon=True)
    if speed:
        reader.start()
    assert eventually(lambda: len(upstream.received) == 5)
    time.sleep(0.5)
    begun = time.monotonic()
    assert requests.get(f"{url}/health/live", timeout=TIMEOUT).status_code == 200
    assert time.monotonic() - begun < 3
    grown = memory_of(gateways[0].child.pid) - before
    assert grown < 5 * 6 * 2**20, grown
    assert eventually(lambda: connections_of(url) == 0), "cut off"
    assert upstream.open_connections == 0
    stop.set()
    if speed:
        reader.join()
    for connection in slow:
        connection.close()


def connections_of(url: str) -> int:
    """Those of clients that nginx has open."""
    port = url.rpartition(":")[2]
    command = ["ss", "-Htn", "state", "established", f"( sport = :{port} )"]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def with_patience(action: Callable[[], object]) -> None:
    try:
        action()
    except OSError:
        pass


def test_a_client_that_reads_slowly_but_steadily_is_kept(start: Start, upstream: Upstream) -> None:
    upstream.pieces = [event("data: " + "x" * 1000 + "\n\n") * 16] * 40
    url = start(send_timeout=2, send_buffer="32k")
    with connect(url, receive_buffer=16384) as connection:
        connection.sendall(HEAD + b"Content-Length: 15\r\nConnection: close\r\n\r\n" + b'{"stream":true}')
        got = 0
        while piece := connection.recv(8192):
            got += len(piece)
            time.sleep(0.05)
        assert got > 40 * 16 * 1000


def test_a_worker_may_open_as_many_files_as_its_connections_need(url: str, gateways: list[gateway.Gateway]) -> None:
    listing = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(gateways[0].child.pid)], capture_output=True, text=True, check=True
    )
    worker = int(listing.stdout.split()[0])
    limits = Path(f"/proc/{worker}/limits").read_text().splitlines()
    files = next(line for line in limits if line.startswith("Max open files"))
    assert int(files.split()[3]) >= 2 * gateway.Rules().max_connections
