"""The gateway without a Triton of its own, as the launcher runs it; and what a reload leaves running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from launcher import gateway
from launcher.stack import Settings, Stack
from tests.gateway.conftest import Start
from tests.gateway.upstream import Upstream, event
from tests.gateway.wire import CHAT, TIMEOUT, error_of, post, settled
from tests.ports import free_port


def test_a_gateway_alone_follows_its_files(upstream: Upstream, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice:one\n")
    told: list[str] = []
    settings = Settings(
        run_dir=tmp_path / "run",
        port=free_port(),
        gateway_only=True,
        upstreams=[f"127.0.0.1:{upstream.port}"],
        rules=gateway.Rules(api_keys_file=keys),
    )
    upstream.events("{}")
    with Stack(settings, told.append) as stack:
        assert [child.name for child in stack.children] == ["nginx"]
        assert post(stack.url, headers={"x-api-key": "one"}).status_code == 200
        stack._follow_files()
        keys.write_text("alice:second\n")
        stack._follow_files()
        assert settled(lambda: post(stack.url, headers={"x-api-key": "second"}).status_code == 200)
        keys.write_text("broken\n")
        stack._follow_files()
        stack._follow_files()
        assert post(stack.url, headers={"x-api-key": "second"}).status_code == 200
    assert [line.split(" ")[0] for line in told[-2:]] == ["keys", str(keys)]


def test_a_gateway_alone_drains(upstream: Upstream, tmp_path: Path) -> None:
    settings = Settings(
        run_dir=tmp_path / "run", port=free_port(), gateway_only=True, upstreams=[f"127.0.0.1:{upstream.port}"]
    )
    ended = threading.Event()

    def held() -> Iterator[bytes]:
        yield event('data: {"n":1}\n\n')
        ended.wait(TIMEOUT)
        yield event("data: [DONE]\n\n")

    upstream.pieces = held()
    with Stack(settings) as stack:
        stream = requests.post(stack.url + CHAT, b'{"stream":true}', stream=True, timeout=TIMEOUT).iter_content(None)
        assert next(stream)
        draining = threading.Thread(target=stack.drain, args=(TIMEOUT,))
        draining.start()
        assert settled(lambda: requests.get(f"{stack.url}/health/ready", timeout=TIMEOUT).status_code == 503)
        for refused in (post(stack.url), requests.get(f"{stack.url}/v1/models", timeout=TIMEOUT)):
            assert (refused.status_code, error_of(refused)["code"]) == (503, "service_unavailable")
            assert refused.headers["Retry-After"] == "2"
        assert requests.get(f"{stack.url}/health/live", timeout=TIMEOUT).status_code == 200
        assert draining.is_alive()
        ended.set()
        assert b"".join(stream) == b"data: [DONE]\n\n"
        draining.join(TIMEOUT)
        assert not draining.is_alive()
        assert stack.children[0].exit_code == 0


def test_a_reload_waits_for_streams_but_not_for_ever(
    start: Start, upstream: Upstream, gateways: list[gateway.Gateway], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice:one\n")
    url = start(reload_grace=1, api_keys_file=keys)
    ended = threading.Event()

    def held() -> Iterator[bytes]:
        yield event('data: {"n":1}\n\n')
        ended.wait(TIMEOUT)

    upstream.pieces = held()
    sent = {"x-api-key": "one"}
    pieces = requests.post(url + CHAT, b'{"stream":true}', headers=sent, stream=True, timeout=TIMEOUT).iter_content(
        None
    )
    assert next(pieces)
    keys.write_text("alice:other\n")
    begun = time.monotonic()
    assert gateways[0].reload_if_changed()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        next(pieces)
    assert 0.9 < time.monotonic() - begun < 5
    ended.set()
