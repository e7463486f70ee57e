"""Requests that nginx itself has to answer: paths, methods, headers, framing. None reaches Triton, none is a 5xx."""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import gateway
from tests.gateway.upstream import Upstream
from tests.gateway.wire import connect
from tests.hostile import fault_of

ROOT = Path(__file__).resolve().parents[2]

TRITONS_OWN = [
    "/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models/openai_bls", "/v2/models/openai_bls/infer",
    "/v2/models/openai_bls/generate", "/v2/models/openai_bls/generate_stream", "/v2/models/tensorrt_llm/infer",
    "/v2/models/stats", "/v2/models/openai_bls/versions/1/stats", "/v2/models/openai_bls/config",
    "/v2/models/openai_bls/trace/setting", "/v2/trace/setting", "/v2/logging", "/v2/repository/index",
    "/v2/repository/models/openai_bls/load", "/v2/repository/models/openai_bls/unload",
    "/v2/systemsharedmemory/status", "/v2/systemsharedmemory/region/x/register", "/v2/cudasharedmemory/status",
    "/v2/cudasharedmemory/region/x/unregister",
]  # fmt: skip
# Each of those in all these spellings.
SPELLINGS = [
    "{0}", "/{0}", "/v1/..{0}", "/v1/%2e%2e{0}", "/v1/%2E%2e/{0}", "/v1/models/..%2f..{0}", "/%76%32{1}", "/./{0}",
    "{0}?/v1/models", "{0}#/v1/models", "{0};/v1/models", "/V1{0}", "/v1{0}", "//{0}",
]  # fmt: skip
OTHER_PATHS = [
    "/", "/v1", "/v1/", "/v1/models/", "/v1/chat", "/v1/chat/completions/", "/v1/chat/completions/x", "/V1/models",
    "/v1/Models", "/v1/chat\\completions", "/v1/completions%00", "/v1/models/%00", "/v1/models/%0d%0aX-Evil:1",
    "/v1/models/%0a", "/v1/models/a%20b", "/v1/models/%22", "/v1/models/%27", "/v1/models/$%7bx%7d", "/v1/models/<x>",
    "/v1/models/%c0%af", "/v1/models/%ff", "/v1/models/%e2%80%ae", "/v1/models/" + "a" * 257, "/v1/models/%25%32%66",
    "/internal/error", "/internal/refused", "/internal/recall", "/v1/internal/recall", "/openapi.json/",
    "/openapi.yaml", "/metrics", "/metrics/", "/metrics/x", "/nginx.conf", "/keys.conf", "/source/gateway.js",
    "/gateway.js", "/.git/config", "/.env", "/server-status", "/stub_status", "/etc/passwd", "/../../etc/passwd",
    "/v1/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "/..%5c..%5cetc", "/%zz",
    "/%", "/%2", "/%u0041", "/v1/chat/completions%", "/v1%00/models", "/health/", "/health/live/", "/health/x",
    "/healthz", "/v1/health/../../v2/health/ready", "*", "http://", "http://evil/v2/health/ready",
    "//evil/v2/health/ready", "?", "/docs", "/v1/embeddings/x", "/favicon.ico", "/cgi-bin/x",
    "/v1/models/../../v2/models/stats",
]  # fmt: skip
METHODS = [
    "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "MKCOL", "PURGE", "FOO", "post",
    "Get", "G\0T", "G@T", "A" * 200, "", " ", "GET\t",
]  # fmt: skip
CONDITIONS = [
    "If-Match: *", 'If-Match: "x"', 'If-None-Match: "x"', "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT",
    "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT", "If-Range: x\r\nRange: bytes=0-1", "Range: bytes=5-1",
    "Content-Length: 1", "Transfer-Encoding: chunked", "Accept: text/html", "Accept-Encoding: gzip;q=x",
]  # fmt: skip
READ_ROUTES = ["/health/live", "/health/startup", "/health", "/openapi.json", "/v1/models"]
ROUTES = ["/v1/chat/completions", "/v1/completions", "/v1/tokenize", "/chat/completions"]

POST = "POST /v1/chat/completions HTTP/1.1\r\n"
BODY = "\r\n{}"
FRAMING = {
    "two lengths": "Host: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n",
    "two different lengths": "Host: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n",
    "length list": "Host: a\r\nContent-Length: 2, 2\r\n",
    "length and chunked": "Host: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    "chunked and length": "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n",
    "chunked twice": "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "chunked, identity": "Host: a\r\nTransfer-Encoding: chunked, identity\r\n",
    "identity, chunked": "Host: a\r\nTransfer-Encoding: identity, chunked\r\n",
    "gzip, chunked": "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n",
    "xchunked": "Host: a\r\nTransfer-Encoding: xchunked\r\n",
    "tab chunked": "Host: a\r\nTransfer-Encoding:\tchunked\x0b\r\n",
    "space before colon": "Host: a\r\nTransfer-Encoding : chunked\r\n",
    "negative length": "Host: a\r\nContent-Length: -1\r\n",
    "signed length": "Host: a\r\nContent-Length: +2\r\n",
    "hex length": "Host: a\r\nContent-Length: 0x2\r\n",
    "float length": "Host: a\r\nContent-Length: 2.0\r\n",
    "empty length": "Host: a\r\nContent-Length: \r\n",
    "spaces in length": "Host: a\r\nContent-Length: 2 2\r\n",
    "overflowing length": "Host: a\r\nContent-Length: 99999999999999999999999\r\n",
    "length of 2^63": "Host: a\r\nContent-Length: 9223372036854775808\r\n",
    "huge length": "Host: a\r\nContent-Length: 9223372036854775807\r\n",
    "folded header": "Host: a\r\nX: a\r\n b\r\nContent-Length: 2\r\n",
    "two hosts": "Host: a\r\nHost: b\r\nContent-Length: 2\r\n",
    "no host": "Content-Length: 2\r\n",
    "host with a path": "Host: a/../b\r\nContent-Length: 2\r\n",
    "host with a space": "Host: a b\r\nContent-Length: 2\r\n",
    "host with a NUL": "Host: a\0b\r\nContent-Length: 2\r\n",
    "header without name": "Host: a\r\n: x\r\nContent-Length: 2\r\n",
    "header with a NUL": "Host: a\r\nX: a\0b\r\nContent-Length: 2\r\n",
    "NUL in a name": "Host: a\r\nX\0Y: a\r\nContent-Length: 2\r\n",
    "lone CR": "Host: a\r\nX: a\rContent-Length: 9\r\nContent-Length: 2\r\n",
    "gzip": "Host: a\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n",
    "identity and gzip": "Host: a\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n",
    "two keys": "Host: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Length: 2\r\n",
    "two request ids": "Host: a\r\nX-Request-ID: a\r\nX-Request-ID: b\r\nContent-Length: 2\r\n",
    "no colon": "Host: a\r\nTransfer-Encoding chunked\r\nContent-Length: 2\r\n",
    "no colon, no space": "Host: a\r\nchunked\r\nContent-Length: 2\r\n",
    "underscore": "Host: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 2\r\n",
    "ESC in a name": "Host: a\r\nX\x1b: a\r\nContent-Length: 2\r\n",
    "ESC in a value": "Host: a\r\nX: \x1b[2J\r\nContent-Length: 2\r\n",
    "vertical tab": "Host: a\r\nTransfer-Encoding:\x0bchunked\r\nContent-Length: 2\r\n",
    "latin-1": "Host: a\r\nX-Request-ID: \xe9\r\nContent-Length: 2\r\n",
    "upgrade": "Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 2\r\n",
    "range": "Host: a\r\nRange: bytes=0-0,1-1,2-2\r\nContent-Length: 2\r\n",
    "trailer": "Host: a\r\nTE: trailers\r\nTrailer: Content-Length\r\nContent-Length: 2\r\n",
    "another URL": "Host: a\r\nX-Original-URL: /v2\r\nX-Rewrite-URL: /v2\r\nContent-Length: 2\r\n",
    "another method": "Host: a\r\nX-HTTP-Method-Override: DELETE\r\nX-Forwarded-Host: b\r\nContent-Length: 2\r\n",
    "gzip, identity": "Host: a\r\nContent-Encoding: gzip, identity\r\nContent-Length: 2\r\n",
    "huge header": "Host: a\r\nX: " + "a" * 20_000 + "\r\nContent-Length: 2\r\n",
    "many headers": "Host: a\r\n" + "".join(f"X-{n}: {'a' * 100}\r\n" for n in range(1000)) + "Content-Length: 2\r\n",
    "unknown expectation": "Host: a\r\nExpect: 200-maybe\r\nContent-Length: 99999999\r\n",
}
CHUNKS = ["zz\r\n{}\r\n0\r\n\r\n", "-1\r\n{}\r\n0\r\n\r\n", "0x2\r\n{}\r\n0\r\n\r\n", "2\r\n{}XX0\r\n\r\n",
          "ffffffffffffffffff\r\n{}", "2 2\r\n{}\r\n0\r\n\r\n", "7fffffffffffffff\r\n{}"]  # fmt: skip
LINES = [
    "GET\r\n\r\n", "GET /x\r\n\r\n", "GET / HTTP/9.9\r\nHost: a\r\n\r\n", "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", "GET / FTP/1.1\r\nHost: a\r\n\r\n",
    "GET /v1/models\0 HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "SSH-2.0-x\r\n\r\n", "\r\n\r\n\r\nNONSENSE\r\n\r\n",
    "GET /" + "a" * 20_000 + " HTTP/1.1\r\nHost: a\r\n\r\n", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", "GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /v1/models?x=\x01 HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.10000000000\r\nHost: a\r\n\r\n",
]  # fmt: skip


def requests_() -> Iterator[str]:
    """Everything above, spelled out."""
    paths = [spelling.format(path, path[3:]) for path, spelling in itertools.product(TRITONS_OWN, SPELLINGS)]
    for path in [*paths, *OTHER_PATHS]:
        yield f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    for path in [*TRITONS_OWN, *OTHER_PATHS]:
        yield f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    for method, route in itertools.product(METHODS, ROUTES):
        yield f"{method} {route} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    for condition, route in itertools.product(CONDITIONS, READ_ROUTES):
        yield f"GET {route} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{condition}\r\n\r\n0\r\n\r\n"
    for headers in FRAMING.values():
        yield POST + headers + BODY
    for chunks in CHUNKS:
        yield POST + "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    yield from LINES


def head_and_body(connection: socket.socket) -> tuple[int, bytes] | None:
    """Status and body of what comes back; None if the connection is closed without a word."""
    answer = b""
    while b"\r\n\r\n" not in answer and (piece := connection.recv(65536)):
        answer += piece
    if not answer:
        return None
    if not answer.startswith(b"HTTP/"):
        return 400, answer  # HTTP/0.9 has no head
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    while length is not None and len(body) < int(length[1]) and (piece := connection.recv(65536)):
        body += piece
    return int(head.split()[1]), body


def test_hostile_requests(tmp_path: Path, upstream: Upstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    upstream.events("{}")
    listen = gateway.Listen(port=port, upstreams=[f"127.0.0.1:{upstream.port}"])
    nginx = gateway.start(gateway.find_nginx(), ROOT / "gateway", tmp_path / "gateway", listen)
    nginx.wait_until_listening()
    table = list(requests_())
    assert len(table) >= 300
    faults = []
    try:
        for request in table:
            fault = fault_in_answer(f"http://127.0.0.1:{port}", request)
            if fault is not None:
                faults.append(f"{request[:120]!r}: {fault}")
        log = (tmp_path / "gateway" / gateway.LOG).read_text(errors="replace")
    finally:
        nginx.stop()
    assert not faults, "\n".join(faults)
    assert not re.search(r"\[(?:alert|crit|emerg)\]|signal|exited", log), log
    reached = {line for line, _, _ in upstream.received}
    assert reached <= {"POST /v2/models/openai_bls/generate_stream HTTP/1.1", "GET /v2/health/ready HTTP/1.1"}


def fault_in_answer(url: str, request: str) -> str | None:
    with connect(url) as connection:
        connection.sendall(request.encode("latin-1"))
        connection.settimeout(3)
        try:
            found = head_and_body(connection)
        except TimeoutError:
            return "no answer"
        except ConnectionResetError:
            return None
    if found is None:
        return None
    if request.startswith("HEAD") and found[0] < 500:
        return None
    return fault_of(*found, sent=request)


@pytest.mark.parametrize("path", TRITONS_OWN)
def test_what_is_tritons_own_stays_so(url: str, upstream: Upstream, path: str) -> None:
    for spelling in SPELLINGS:
        with connect(url) as connection:
            connection.sendall(f"GET {spelling.format(path, path[3:])} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            found = head_and_body(connection)
            assert found is not None and found[0] in (400, 404), spelling
    assert upstream.received == []
