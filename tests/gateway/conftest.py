from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher import gateway
from tests.gateway.upstream import Upstream

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.close()


@pytest.fixture
def start(upstream: Upstream, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts the real gateway before the upstream; gives its URL."""
    started = []

    def begin(**options: object) -> str:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        listen = gateway.Listen(port=port, triton=f"127.0.0.1:{upstream.port}", **options)  # type: ignore[arg-type]
        made = gateway.start(gateway.find_nginx(), ROOT / "gateway", tmp_path / "gateway", listen)
        started.append(made)
        made.wait_until_listening()
        return f"http://127.0.0.1:{port}"

    yield begin
    for made in started:
        made.stop()


@pytest.fixture
def url(start: Callable[..., str]) -> str:
    return start()
