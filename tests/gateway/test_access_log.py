"""The access log: a line of JSON for whatever comes, with nothing in it that a client could have made up."""

from __future__ import annotations

import itertools
import json
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from launcher.errors import LaunchError
from tests.gateway.conftest import ROOT, Start
from tests.gateway.test_tls import make_certificate
from tests.gateway.upstream import Upstream, event
from tests.gateway.wire import CHAT, TIMEOUT, connect, error_of, eventually, post, raw

KEY = "sk-secret-1"
FIELDS = [
    "time", "request_id", "key_id", "client", "method", "path", "endpoint", "status", "error", "cancelled", "stream",
    "model", "response_id", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens",
    "finish_reasons", "queue_ms", "ttft_ms", "duration_ms", "bytes_in", "bytes_out", "upstream",
]  # fmt: skip
REPORT = {
    "model": "tiny", "response_id": "chatcmpl-1", "prompt_tokens": 3, "cached_tokens": 1, "completion_tokens": 4,
    "reasoning_tokens": 2, "finish_reasons": ["stop"], "error": None, "queue_ms": 1.5, "ttft_ms": 20.1,
}  # fmt: skip
OWN = '{"error":{"message":"m","type":"t","param":"p","code":"c"}}'


def report(*, final: bool = True, **changes: Any) -> str:
    """As openai_bls puts it behind an answer, or before its end."""
    told = json.dumps(REPORT | changes | {"final": final}, separators=(",", ":"))
    return f"\x1e{told}\x1e"


def test_the_page_has_the_fields() -> None:
    page = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    table = page.split("<!-- table -->")[1].split("<!-- end -->")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == FIELDS
    examples = [json.loads(line) for line in page.splitlines() if line.startswith("{")]
    assert [list(each) for each in examples] == [FIELDS] * 3


class Log:
    """The lines of an access log, read strictly."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def lines(self, count: int) -> list[dict[str, Any]]:
        """All of them, once there are so many."""
        assert eventually(lambda: self._text().count("\n") >= count), self._text()
        lines = self._text().splitlines()
        assert len(lines) == count
        assert [line for line in lines if not re.fullmatch(r"[\x20-\x7e]+", line)] == []
        return [json.loads(line) for line in lines]

    def line(self) -> dict[str, Any]:
        return self.lines(1)[0]

    def _text(self) -> str:
        return self.file.read_bytes().decode("latin-1")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "access.log")


@pytest.fixture
def url(start: Start, log: Log) -> str:
    return start(access_log=log.file)


@pytest.mark.parametrize("stream", [True, False])
def test_a_line_has_what_the_gateway_and_the_model_know(
    start: Start, upstream: Upstream, log: Log, tmp_path: Path, stream: bool
) -> None:
    (tmp_path / "keys").write_text(f"alice:{KEY}\n")
    url = start(access_log=log.file, api_keys_file=tmp_path / "keys")
    upstream.events("", 'data: {"n":1}\n\n', f"data: [DONE]\n\n{report()}")
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-ID": "abc-1"}
    body = json.dumps({"stream": stream, "secret": "words"})
    answer = requests.post(f"{url}{CHAT}?key={KEY}", data=body, headers=headers, timeout=TIMEOUT)
    assert answer.text == 'data: {"n":1}\n\ndata: [DONE]\n\n'
    line = log.line()
    assert list(line) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert 0 <= line["duration_ms"] < 10_000 and line["bytes_in"] > 100 < line["bytes_out"]
    told = {name: line[name] for name in FIELDS if name not in ("time", "duration_ms", "bytes_in", "bytes_out")}
    assert told == REPORT | {
        "request_id": "abc-1", "key_id": "alice", "client": "127.0.0.1", "method": "POST", "path": CHAT,
        "endpoint": "chat/completions", "status": 200, "cancelled": False, "stream": stream,
        "upstream": f"127.0.0.1:{upstream.port}",
    }  # fmt: skip
    assert KEY not in log.file.read_text() and "words" not in log.file.read_text()
    assert upstream.body["report"]


@pytest.mark.parametrize("end", ["data: 2\n\n", ""])
def test_a_stream_whose_end_was_lost_on_its_way_ends_with_an_error(
    end: str, url: str, upstream: Upstream, log: Log
) -> None:
    """Triton may lose responses: who reads the stream is not to take what has come for the whole."""
    upstream.events("data: 1\n\n" + report(final=False, finish_reasons=None), end)
    answer = post(url, BODY).text
    *begun, last = answer.removesuffix("\n\n").split("\n\n")
    assert "".join(part + "\n\n" for part in begun) == "data: 1\n\n" + end
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal_error"
    line = log.line()
    assert (line["status"], line["cancelled"], line["error"]) == (200, False, "internal_error")


def test_a_whole_answer_whose_end_was_lost_is_cut_off(url: str, upstream: Upstream, log: Log) -> None:
    upstream.events('{"choices":[' + report(final=False, finish_reasons=None))
    with pytest.raises(requests.exceptions.RequestException):
        post(url)
    assert log.line()["error"] == "internal_error"


def test_the_end_is_looked_for_without_a_log_too(start: Start, upstream: Upstream) -> None:
    upstream.events("data: 1\n\n" + report(final=False))
    assert "internal_error" in post(start(), BODY).text


def test_a_report_is_taken_off_however_it_is_cut(url: str, upstream: Upstream, log: Log) -> None:
    begun = [report(final=False, completion_tokens=count) for count in (1, 2)]
    upstream.events("data: 1\n\n" + begun[0], begun[1], "data: 2\n\n" + report())
    wire = b"".join(upstream.pieces)
    upstream.pieces = [wire[at : at + 7] for at in range(0, len(wire), 7)]
    assert post(url, b'{"stream": true}').text == "data: 1\n\ndata: 2\n\n"
    assert log.line()["completion_tokens"] == 4


REFUSALS: list[tuple[int, str, str | None, Callable[[str], requests.Response]]] = [
    (401, "invalid_api_key", "chat/completions", lambda url: post(url, headers={"x-api-key": "sk-wrong"})),
    (404, "not_found", None, lambda url: requests.get(url + "/nothing?api_key=sk-wrong", timeout=TIMEOUT)),
    (405, "method_not_allowed", "models", lambda url: requests.delete(url + "/v1/models", timeout=TIMEOUT)),
    (413, "content_too_large", None, lambda url: post(url, b"x" * 3000)),
    (415, "unsupported_content_encoding", "chat/completions",
     lambda url: post(url, headers={"x-api-key": KEY, "Content-Encoding": "gzip"})),
    (431, "invalid_request_error", None, lambda url: post(url, headers={"X": "x" * 3000})),
    (503, "service_unavailable", "chat/completions", lambda url: post(url, headers={"x-api-key": KEY})),
]  # fmt: skip


@pytest.mark.parametrize(("status", "error", "endpoint", "ask"), REFUSALS)
def test_what_the_gateway_refuses(
    start: Start, upstream: Upstream, log: Log, status: int, error: str, endpoint: str | None, ask: Any
) -> None:
    url = start(access_log=log.file, api_keys=[KEY], max_body="2k", max_header="2k")
    upstream.close()
    answer = ask(url)
    assert answer.status_code == status
    line = log.line()
    assert list(line) == FIELDS
    assert (line["status"], line["error"], line["endpoint"], line["cancelled"]) == (status, error, endpoint, False)
    assert line["request_id"] == answer.headers["X-Request-ID"]
    assert line["key_id"] == ("default_key_1" if status in (415, 503) else None)
    assert line["method"] == answer.request.method
    assert all(line[name] is None for name in ("model", "prompt_tokens", "ttft_ms", "finish_reasons"))
    assert "sk-" not in log.file.read_text()


def test_too_many_requests(start: Start, upstream: Upstream, log: Log) -> None:
    upstream.events("{}")
    url = start(access_log=log.file, rate_limit="1/m", rate_burst=1)
    assert [post(url).status_code for _ in range(3)] == [200, 200, 429]
    assert [line["error"] for line in log.lines(3)] == [None, None, "rate_limit_exceeded"]


@pytest.mark.parametrize("true_status", [True, False])
def test_what_the_model_refuses(url: str, upstream: Upstream, log: Log, true_status: bool) -> None:
    """Newer Tritons pass the status on; of 2.51 the gateway asks why."""
    refusal = OWN + report(model="other", error="model_not_found", response_id=None)
    if true_status:
        upstream.status, upstream.pieces = "404 Not Found", [json.dumps({"error": refusal}).encode()]
    else:
        upstream.status, upstream.pieces = "400 Bad Request", [b'data: {"error":"x"}\n\n']
        upstream.refusal = json.dumps({"ticket": "t", "status": 404, "body": refusal})
    answer = post(url)
    assert (answer.status_code, answer.text) == (404, OWN)
    line = log.line()
    assert (line["status"], line["error"], line["model"], line["method"]) == (404, "model_not_found", "other", "POST")


def test_what_tritons_own_errors_are_called(url: str, upstream: Upstream, log: Log) -> None:
    upstream.status, upstream.pieces = "400 Bad Request", [b'data: {"error":"shm region"}\n\n']
    assert error_of(post(url))["code"] == log.line()["error"] == "service_unavailable"


def test_an_answer_that_fails_after_its_status(url: str, upstream: Upstream, log: Log) -> None:
    upstream.events("", f"\x18{report(error='request_timeout', finish_reasons=None)}")
    with pytest.raises(requests.exceptions.RequestException):
        post(url)
    line = log.line()
    assert (line["status"], line["error"], line["cancelled"], line["bytes_out"]) == (200, "request_timeout", False, 0)


def talking(*before: bytes) -> Iterator[bytes]:
    """An answer without end."""
    yield from before
    while True:
        time.sleep(0.02)
        yield event("")


BODY = b'{"stream": true}'
REQUEST = b"POST %b HTTP/1.1\r\nHost: a\r\nX-Request-ID: gone\r\nContent-Length: %d\r\n\r\n%b" % (
    CHAT.encode(), len(BODY), BODY
)  # fmt: skip


def test_a_client_that_leaves_has_what_was_reported_last(url: str, upstream: Upstream, log: Log) -> None:
    upstream.pieces = talking(event("data: 1\n\n" + report(final=False, finish_reasons=None)), event("data: 2\n\n"))
    with connect(url) as connection:
        connection.sendall(REQUEST)
        seen = b""
        while b"data: 2" not in seen:
            seen += connection.recv(4096)
    line = log.line()
    assert (line["status"], line["cancelled"], line["error"]) == (200, True, None)
    assert (line["request_id"], line["completion_tokens"], line["finish_reasons"]) == ("gone", 4, None)


def test_a_client_that_leaves_before_the_answer(url: str, upstream: Upstream, log: Log) -> None:
    upstream.go.clear()
    with connect(url) as connection:
        connection.sendall(REQUEST)
        assert eventually(lambda: len(upstream.received) == 1)
    line = log.line()
    assert (line["status"], line["cancelled"], line["request_id"]) == (499, True, "gone")


def test_a_triton_that_dies_in_mid_answer_is_no_client_that_left(url: str, upstream: Upstream, log: Log) -> None:
    upstream.headers = "Transfer-Encoding: chunked\r\n"
    piece = event("data: 1\n\n" + report(final=False, finish_reasons=None))
    upstream.pieces = [b"%x\r\n%b\r\n" % (len(piece), piece)]
    with pytest.raises(requests.exceptions.RequestException):
        post(url, BODY)
    line = log.line()
    assert (line["status"], line["cancelled"], line["error"]) == (200, False, "upstream_lost")


def test_a_client_that_does_not_read_is_cut_off(start: Start, upstream: Upstream, log: Log) -> None:
    url = start(access_log=log.file, send_buffer="32k", max_backlog="64k")
    upstream.pieces = itertools.repeat(event("x" * 10_000))
    with connect(url, receive_buffer=4096) as connection:
        connection.sendall(REQUEST)
        line = log.line()
    assert (line["status"], line["error"], line["cancelled"]) == (200, "slow_reader", False)


def test_of_several_tritons_the_one_that_answered(
    start: Start, make_upstream: Callable[[], Upstream], log: Log
) -> None:
    dead, alive = make_upstream(), make_upstream()
    alive.events(report(), '{"ok":1}' + report())
    url = start(upstreams=[dead, alive], access_log=log.file)
    dead.kill()
    for _ in range(3):
        assert post(url).json() == {"ok": 1}
    assert {line["upstream"] for line in log.lines(3)} == {f"127.0.0.1:{alive.port}"}


def test_a_report_alone_is_no_answer_to_a_hop(start: Start, make_upstream: Callable[[], Upstream], log: Log) -> None:
    """What has shown nothing to its client yet is asked of another Triton."""
    first, second = make_upstream(), make_upstream()
    for each in (first, second):
        each.headers = "Transfer-Encoding: chunked\r\n"
        piece = event("" + report(model="lost"))
        each.pieces = [b"%x\r\n%b\r\n" % (len(piece), piece)]  # then it dies
    url = start(upstreams=[first, second], access_log=log.file)
    assert post(url).status_code == 503
    assert len(first.received) == len(second.received) == 1
    assert log.line()["error"] == "service_unavailable"


EVIL = 'x","status":200}\n{"request_id":"forged"}\r\n\x1b[2J\u202e\u2028\U0001f389\x7f\u009b'


def test_names_that_models_are_given_forge_nothing(url: str, upstream: Upstream, log: Log) -> None:
    upstream.events("{}" + report(model=EVIL))
    assert post(url).text == "{}"
    assert log.line()["model"] == EVIL


def test_headers_and_paths_forge_nothing(url: str, log: Log) -> None:
    head = b'Host: a\r\nX-Request-ID: ","status":200,"x":"\r\nConnection: close'
    raw(url, b'GET /a"b%%0a{}\\%%1b[2J\xff\xc3?key=sk-1 HTTP/1.1\r\n%b\r\n\r\n' % head)
    line = log.line()
    assert line["path"] == '/a"b%0a{}\\%1b[2J\ufffd\ufffd'
    assert line["status"] == 404 and re.fullmatch("[0-9a-f]{32}", line["request_id"])


MALFORMED = [
    (b"GET /\x01\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, "GET"),
    (b"\x16\x03\x01\x02\x00\x01\xff\xfe\r\n\r\n", 400, None),
    (b'"}\n\r\n\r\n', 400, None),
    (b"GET /nothing\r\n", 404, "GET"),  # HTTP/0.9
    (b"GET /a HTTP/1.1\r\nHost: \xff\xfe\r\nX-Request-ID: \xff\"\r\nConnection: close\r\n\r\n", 404, "GET"),
    (b"GET /\xff\xfe\xc3(\xf0\x9f\x8e\x89 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404, "GET"),
    (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400, "POST"),
    (b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "POST"),
    (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 20_000), 414, "GET"),
    (b"GET /%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % (b"x" * 2000), 404, "GET"),
    (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400, "GET"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "status", "method"), MALFORMED)
def test_what_is_hardly_http_has_a_line_as_well(
    url: str, log: Log, sent: bytes, status: int, method: str | None
) -> None:
    raw(url, sent)
    line = log.line()
    assert list(line) == FIELDS
    assert line["status"] == status and line["error"] is not None
    assert line["method"] == method
    assert len(line["path"] or "") <= 256


@pytest.mark.parametrize("sent", [b"GET /v1/mod", REQUEST[:-3]])
def test_halves_of_requests(url: str, log: Log, sent: bytes) -> None:
    with connect(url) as connection:
        connection.sendall(sent)
    assert log.line()["cancelled"] is True


@pytest.mark.parametrize("body", [b'{"a":"\xff"}', "é🎉\n\"".encode() * 100, b""])
def test_prompts_only_if_they_are_asked_for(start: Start, upstream: Upstream, log: Log, body: bytes) -> None:
    upstream.events("{}")
    post(start(access_log=log.file, log_prompts=20), body)
    line = log.line()
    assert list(line) == [*FIELDS, "request"]
    assert line["request"] == (body[:20].decode(errors="replace") or None)


def test_a_body_in_too_small_chunks_has_a_line_too(start: Start, log: Log) -> None:
    """What nginx wrote to a file njs cannot show."""
    url = start(access_log=log.file, log_prompts=20, max_body="2k")
    head = REQUEST.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    raw(url, head + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n")
    line = log.line()
    assert list(line) == [*FIELDS, "request"]
    assert (line["endpoint"], line["request"]) == ("chat/completions", None)


def test_questions_that_come_all_the_time_are_not_logged(url: str, upstream: Upstream, log: Log) -> None:
    upstream.events('{"status":"ready"}')
    for path in ("/health/live", "/health/ready"):
        assert requests.get(url + path, timeout=TIMEOUT).status_code == 200
    upstream.close()
    assert requests.get(url + "/health/ready", timeout=TIMEOUT).status_code == 503
    line = log.line()
    assert (line["status"], line["endpoint"], line["path"]) == (503, "health", "/health/ready")


def test_over_http2(start: Start, upstream: Upstream, log: Log, tmp_path: Path) -> None:
    upstream.events("{}" + report())
    url = start(access_log=log.file, max_body="2k", **make_certificate(tmp_path))
    for body in ("{}", "x" * 3000):
        command = ["curl", "-sk", "--http2", "-d", body, url + CHAT]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)
    assert [(line["status"], line["method"], line["error"]) for line in log.lines(2)] == [
        (200, "POST", None), (413, "POST", "content_too_large"),
    ]  # fmt: skip


def test_lines_are_added_to_a_log_that_nobody_else_reads(start: Start, upstream: Upstream, log: Log) -> None:
    upstream.events("{}")
    post(start(access_log=log.file))
    assert stat.S_IMODE(log.file.stat().st_mode) == 0o600
    log.lines(1)
    post(start(access_log=log.file))
    log.lines(2)


def test_a_log_may_be_anywhere(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    (folder := tmp_path / "a 'b\" $request").mkdir()
    upstream.events("{}")
    post(start(access_log=folder / "x.log"))
    Log(folder / "x.log").lines(1)


def test_a_log_that_cannot_be_written_is_told(start: Start, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere" / "x.log"):
        with pytest.raises(LaunchError, match="cannot be written"):
            start(access_log=place)
