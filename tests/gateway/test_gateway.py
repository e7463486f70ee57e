"""The real nginx before an upstream that cuts its answers anywhere: wrapping, unwrapping, statuses, routes, keys."""

from __future__ import annotations

import json

import pytest
import requests

from tests.gateway.upstream import Upstream, event
from tests.gateway.wire import CHAT, TIMEOUT, error_of, exactly, post, raw


def test_a_body_travels_as_one_string(url: str, upstream: Upstream) -> None:
    upstream.events('{"ok":1}')
    body = '{"a": "é 🎉 \\n \\u0000 \\" \\\\", "b": [[{}]]}'.encode()
    assert post(url, body, headers={"X-Request-ID": "abc-1"}).json() == {"ok": 1}
    assert upstream.received[0][0] == "POST /v2/models/openai_bls/generate_stream HTTP/1.1"
    ticket = upstream.body.pop("ticket")
    assert len(ticket) == 32
    sent = {"id": "abc-1", "endpoint": "chat/completions", "ticket": ticket, "report": "1", "request": body.decode()}
    assert upstream.body == sent


def test_nothing_of_the_clients_headers_reaches_triton(url: str, upstream: Upstream) -> None:
    upstream.events("{}")
    post(url, headers={"Cookie": "a=b", "X-Evil": "1", "Authorization": "Bearer secret", "Content-Type": "text/evil"})
    sent = upstream.received[0][1]
    assert set(sent) <= {"host", "content-type", "content-length"}
    assert (sent["host"], sent["content-type"]) == ("triton", "application/json")


@pytest.mark.parametrize("cut", [1, 2, 7, 64])
def test_events_are_unwrapped_however_they_are_cut(url: str, upstream: Upstream, cut: int) -> None:
    upstream.events('data: {"n":1}\n\n', "", 'data: {"text":"\\u00e9"}\n\n', "data: [DONE]\n\n")
    wire = b"".join(upstream.pieces)
    upstream.pieces = [wire[at : at + cut] for at in range(0, len(wire), cut)]
    answer = post(url, b'{"stream": true}')
    assert answer.content == b'data: {"n":1}\n\ndata: {"text":"\\u00e9"}\n\ndata: [DONE]\n\n'


def test_a_long_answer_is_whole(url: str, upstream: Upstream) -> None:
    upstream.events(json.dumps({"text": "x" * 300_000}))
    assert post(url).json() == {"text": "x" * 300_000}


STREAMS = [
    (b'{"stream": true}', True),
    (b'{"stream" :\n true, "a": 1}', True),
    (b'{"stream": false}', False),
    (b'{"str\\u0065am": true}', True),
    (b'{"prefix": true}', False),
    (b'{"strict": true, "a": ' + b"[" * 60 + b"]" * 60 + b"}", False),
    (b'{"stream": true, "a": ' + b"[" * 60 + b"]" * 60 + b"}", True),
    (b'{"strict": true, "a": "' + b"x" * 2_000_000 + b'"}', False),
    (b'{"stream": true, "a": "' + b"x" * 2_000_000 + b'"}', True),
    (b'{"stream": "true"}', False),
    (b"{}", False),
    (b'{"stream": true, "stream": false}', False),
    (b'{"stream": false, "stream": true}', True),
    (b'{"metadata": {"stream": true}}', False),
    (b'{"metadata": {"stream": false}, "stream": true}', True),
    (b'{"messages": [{"content": "\\"stream\\": true"}]}', False),
]


@pytest.mark.parametrize(("body", "streams"), STREAMS)
def test_the_content_type_is_what_the_client_expects(url: str, upstream: Upstream, body: bytes, streams: bool) -> None:
    upstream.events("{}")
    answer = post(url, body)
    assert answer.headers["Content-Type"] == ("text/event-stream; charset=utf-8" if streams else "application/json")
    assert answer.headers["Cache-Control"] == "no-cache"


OWN = '{"error":{"message":"m","type":"t","param":"p","code":"c"}}'
STATUSES = [("404 Not Found", 404), ("503 Unavailable", 503), ("500 Internal", 500)]


@pytest.mark.parametrize(("line", "status"), STATUSES)
def test_the_models_errors_pass_with_their_status(url: str, upstream: Upstream, line: str, status: int) -> None:
    upstream.status = line
    upstream.pieces = [json.dumps({"error": OWN}).encode()]
    answer = post(url, b'{"stream": true}')
    assert (answer.status_code, answer.text) == (status, OWN)
    assert answer.headers["Content-Type"] == "application/json"
    assert ("Retry-After" in answer.headers) == (status == 503)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_on_400_the_true_error_is_asked_for(url: str, upstream: Upstream, status: int) -> None:
    """Triton 2.51 says 400 for every error of a model."""
    upstream.status, upstream.pieces = "400 Bad Request", [b'data: {"error":"whatever"}\n\n']
    upstream.refusal = json.dumps({"ticket": "t", "status": status, "body": OWN})
    answer = post(url, b'{"stream": true}')
    assert (answer.status_code, answer.text) == (status, OWN)
    assert answer.headers["Content-Type"] == "application/json"
    assert ("Retry-After" in answer.headers) == (status in (429, 503))
    assert upstream.body == {"endpoint": "refusal", "request": json.loads(upstream.received[0][2])["ticket"]}


def test_a_full_queue_is_429(url: str, upstream: Upstream) -> None:
    """Triton has no code for it; the model says 501."""
    upstream.status, upstream.pieces = "501 Not Implemented", [json.dumps({"error": OWN}).encode()]
    answer = post(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert 0 < int(answer.headers["Retry-After"]) <= 120


@pytest.mark.parametrize("line", ["400 Bad Request", "500 Internal", "503 Unavailable", "404 Not Found"])
@pytest.mark.parametrize("body", [b'{"error":"/dev/shm/region_1 at /opt/x.cc:5"}', b"<html>secret</html>", b""])
def test_tritons_own_errors_do_not_reach_the_client(url: str, upstream: Upstream, line: str, body: bytes) -> None:
    upstream.status, upstream.pieces = line, [body]
    answer = post(url)
    # A 400 for which openai_bls has no reason is Triton's: openai_bls itself is not there to answer.
    assert answer.status_code == (503 if line.startswith("400") else int(line[:3]))
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "shm" not in answer.text and "secret" not in answer.text


def test_a_late_error_of_triton_is_an_event_without_its_words(url: str, upstream: Upstream) -> None:
    upstream.pieces = [event('data: {"n":1}\n\n'), b'data: {"error":"shm region_7 lost"}\n\n']
    answer = post(url, b'{"stream": true}').text
    first, last = answer.strip().split("\n\n")
    assert first == 'data: {"n":1}'
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal_error"


def test_a_whole_answer_that_fails_after_its_status_is_cut_off(url: str, upstream: Upstream) -> None:
    upstream.events("", "\x18")
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        post(url)
    upstream.events('{"ok":1}')
    assert post(url).json() == {"ok": 1}


def test_triton_out_of_reach_is_503(url: str, upstream: Upstream) -> None:
    upstream.close()
    answer = post(url)
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
    assert answer.headers["Retry-After"]


ROUTES = [
    ("GET", CHAT, 405),
    ("PUT", "/v1/completions", 405),
    ("DELETE", "/v1/models", 405),
    ("GET", "/v1/models/a/load", 405),
    ("GET", "/models/org/a/unload", 405),
    ("GET", "/v1/tokenize", 405),
    ("POST", "/", 405),
    ("GET", "/page/page.html", 404),
    ("GET", "/v1", 404),
    ("POST", "/v1/chat/completions/", 404),
    ("GET", "/v2/health/ready", 404),
    ("POST", "/v2/repository/index", 404),
    ("POST", "/v2/models/openai_bls/generate", 404),
    ("GET", "/v2/systemsharedmemory/status", 404),
    ("GET", "/v1/../v2/health/ready", 404),
    ("GET", "/v1/%2e%2e/v2/health/ready", 404),
    ("GET", "/v2/cudasharedmemory/status", 404),
    ("POST", "/v2/systemsharedmemory/region/a/register", 404),
    ("POST", "/v2/repository/models/openai_bls/unload", 404),
    ("GET", "/v2/trace/setting", 404),
    ("POST", "/v2/logging", 404),
    ("GET", "/v2/models/stats", 404),
    ("GET", "/internal/error", 404),
    ("GET", "/internal/recall", 404),
    ("GET", "/metrics", 404),
    ("POST", "/health", 405),
    ("POST", "/openapi.json", 405),
    ("GET", "/v1/models/a%0ab", 404),
    ("GET", "/v1/models/a%22b", 404),
    ("GET", "/v1/models/" + "a" * 300, 404),
]


@pytest.mark.parametrize(("method", "path", "status"), ROUTES)
def test_only_listed_routes_exist(url: str, upstream: Upstream, method: str, path: str, status: int) -> None:
    answer = exactly(method, url, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert upstream.received == []


@pytest.mark.parametrize("body", [None, b"{}"])
@pytest.mark.parametrize("path", ["/internal/error", "/internal/refused", "/internal/recall", "/internal/again"])
def test_what_is_internal_looks_like_any_path_that_is_not_there(url: str, path: str, body: bytes | None) -> None:
    method = "GET" if body is None else "POST"
    found, nothing = (exactly(method, url, each, data=body) for each in (path, "/internal/nothing"))
    assert (found.status_code, found.content) == (nothing.status_code, nothing.content) == (404, nothing.content)
    own = {"X-Request-ID", "Date", "OpenAI-Processing-Ms"}
    assert {*found.headers.items()} - {*nothing.headers.items()} <= {(name, found.headers[name]) for name in own}
    assert list(found.headers) == list(nothing.headers)


ALIASES = [
    ("POST", "/v1/models", "models"),
    ("GET", "/models", "models"),
    ("GET", "/models/a", "models/a"),
    ("POST", "/v1/models/org%2Fa/load", "models/org/a/load"),
    ("POST", "/models/a/unload", "models/a/unload"),
    ("GET", "/v1/models/org%2Fa:b@c+d=e", "models/org/a:b@c+d=e"),
    ("POST", "/v1//chat/completions", "chat/completions"),
    ("POST", "/%761/chat%2fcompletions?api_key=x", "chat/completions"),
    ("POST", "/v2/../v1/./completions", "completions"),
    ("POST", "/chat/completions", "chat/completions"),
    ("POST", "/completions", "completions"),
    ("POST", "/tokenize", "tokenize"),
    ("POST", "/v1/embeddings", "embeddings"),
    ("POST", "/v1/detokenize", "detokenize"),
]


@pytest.mark.parametrize(("method", "path", "endpoint"), ALIASES)
def test_routes_have_aliases(url: str, upstream: Upstream, method: str, path: str, endpoint: str) -> None:
    upstream.events("{}")
    assert exactly(method, url, path).status_code == 200
    assert upstream.body["endpoint"] == endpoint
    assert upstream.received[-1][0] == "POST /v2/models/openai_bls/generate_stream HTTP/1.1"


@pytest.mark.parametrize("path", ["/health/ready", "/health", "/v1/health", "/v1/health/ready"])
def test_ready_is_what_openai_bls_says(url: str, upstream: Upstream, path: str) -> None:
    upstream.events("{}")
    assert requests.get(url + path, timeout=TIMEOUT).status_code == 200
    assert upstream.body["endpoint"] == "health"
    upstream.status = "400 Bad Request"  # what Triton 2.51 says instead of 503
    answer = requests.get(url + path, timeout=TIMEOUT)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "service_unavailable")


def test_startup_is_tritons(url: str, upstream: Upstream) -> None:
    assert requests.get(f"{url}/health/startup", timeout=TIMEOUT).status_code == 200
    assert upstream.received[-1][0] == "GET /v2/health/ready HTTP/1.1"
    upstream.status = "400 Bad Request"  # what Triton says when it is not ready
    assert requests.get(f"{url}/health/startup", timeout=TIMEOUT).status_code == 503


@pytest.mark.parametrize("path", ["/health/live", "/v1/health/live"])
def test_live_needs_no_triton(url: str, upstream: Upstream, path: str) -> None:
    upstream.close()
    assert requests.get(url + path, timeout=TIMEOUT).json() == {"status": "live"}


def test_models(url: str, upstream: Upstream) -> None:
    upstream.events('{"object":"list"}')
    assert requests.get(url + "/v1/models", timeout=TIMEOUT).json() == {"object": "list"}
    assert upstream.body["endpoint"] == "models"
    requests.get(url + "/v1/models/org/name-1.0", timeout=TIMEOUT)
    assert upstream.body["endpoint"] == "models/org/name-1.0"


def test_request_ids(url: str, upstream: Upstream) -> None:
    upstream.events("{}")
    assert post(url, headers={"X-Request-ID": "a.b-c_1"}).headers["X-Request-ID"] == "a.b-c_1"
    made = post(url, headers={"X-Request-ID": 'evil"id'}).headers["X-Request-ID"]
    assert len(made) == 32 and upstream.body["id"] == made


BROKEN = [
    (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400),
    (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n", 413),
    (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\nConnection: close\r\n\r\n", 431),
]


@pytest.mark.parametrize(("request_", "status"), BROKEN)
def test_broken_http_is_answered_in_openais_shape(url: str, request_: bytes, status: int) -> None:
    head, _, body = raw(url, request_).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"application/json" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", [b"/health/live", b"/openapi.json"])
@pytest.mark.parametrize("header", [b'If-Match: "x"', b"If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT"])
def test_a_precondition_is_answered_in_openais_shape(url: str, path: bytes, header: bytes) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%b\r\n\r\n" % (path, header)
    head, _, body = raw(url, request).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 412 ")
    assert json.loads(body)["error"]["code"] == "precondition_failed"


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        (b"TRACE /v1/models", b"GET, HEAD, POST"),
        (b"TRACE /nope", b"GET, HEAD, POST"),
        (b"PUT /v1/models", b"GET, POST"),
        (b"POST /health", b"GET, HEAD"),
        (b"OPTIONS /v1/completions", b"POST"),
    ],
)
def test_a_method_that_is_not_allowed_is_told_which_are(url: str, line: bytes, allowed: bytes) -> None:
    answer = raw(url, line + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: " + allowed + b"\r\n" in answer


def test_a_body_that_is_not_utf8_is_passed_as_one_that_is_no_json(url: str, upstream: Upstream) -> None:
    upstream.events("{}")
    post(url, b'{"a": "\xff\xfe"}')
    with pytest.raises(ValueError):
        json.loads(upstream.body["request"])
