"""Bytes of any kind sent to nginx: it answers in OpenAI's shape or not at all, and goes on."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher import gateway
from tests.gateway.conftest import Start
from tests.gateway.test_access_log import FIELDS
from tests.gateway.test_hostile import head_and_body
from tests.gateway.upstream import Upstream
from tests.gateway.wire import connect, post
from tests.hostile import fault_of

QUICK = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
TOKENS = st.sampled_from(
    [b"GET", b"POST", b" ", b"/", b"//", b"/v1", b"/v2", b"/..", b"%2e", b"%2F", b"%00", b"%zz", b"?", b"#", b"chat",
     b"completions", b"models", b"health", b"ready", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\r", b"\n", b"\0", b":", b",",
     b"Host", b"Content-Length", b"Transfer-Encoding", b"chunked", b"Content-Encoding", b"Authorization", b"Bearer",
     b"X-Request-ID", b"0", b"2", b"-1", b"{}", b"\xff", b"\x7f", b"Expect", b"100-continue", b"Upgrade", b"h2c"]
)  # fmt: skip
START = st.sampled_from(
    [
        b"",
        b"GET ",
        b"POST /v1/completions HTTP/1.1\r\n",
        b"POST /v1/tokenize HTTP/1.1\r\nHost: a\r\n",
        b"GET /v1/models/",
    ]
)
REQUESTS = st.tuples(
    START, st.lists(TOKENS, max_size=25).map(b"".join), st.sampled_from([b"", b"\r\n\r\n", b"\r\n\r\n{}"])
)


def test_any_bytes(start: Start, upstream: Upstream, gateways: list[gateway.Gateway], tmp_path: Path) -> None:
    upstream.events("{}")
    url = start(access_log=tmp_path / "access.log")

    @QUICK
    @given(request=REQUESTS.map(b"".join) | st.binary(max_size=200))
    def check(request: bytes) -> None:
        with connect(url) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            try:
                found = head_and_body(connection)
            except ConnectionResetError:
                return
        page = found is not None and found[1].startswith(b"<!doctype html>")  # HTTP/0.9: GET / with nothing else
        assert (
            found is None
            or fault_of(*found, sent=request.decode("latin-1")) is None
            or found[1] in (b"", b"{}")
            or (page and request.lstrip().startswith(b"GET /"))
        )

    check()
    assert gateways[0].child.exit_code is None
    assert post(url).status_code == 200
    lines = (tmp_path / "access.log").read_text(encoding="ascii").splitlines()
    assert len(lines) > 200 and {tuple(json.loads(line)) for line in lines} == {tuple(FIELDS)}
