from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from launcher import gateway
from tests.gateway.upstream import Upstream

ROOT = Path(__file__).resolve().parents[2]

Start = Callable[..., str]


@pytest.fixture
def make_upstream() -> Iterator[Callable[[], Upstream]]:
    made: list[Upstream] = []

    def make() -> Upstream:
        made.append(Upstream())
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def upstream(make_upstream: Callable[[], Upstream]) -> Upstream:
    return make_upstream()


@pytest.fixture
def gateways() -> Iterator[list[gateway.Gateway]]:
    """Those that run, in the order of their start; stopped at the end."""
    started: list[gateway.Gateway] = []
    yield started
    for each in started:
        each.stop()


@pytest.fixture
def start(upstream: Upstream, tmp_path: Path, gateways: list[gateway.Gateway]) -> Start:
    """Starts the real gateway, before one upstream unless told otherwise; gives its URL. Options are its rules."""

    def begin(
        upstreams: Sequence[Upstream] = (),
        metrics_of: Upstream | None = None,
        access_log: Path | None = None,
        log_prompts: int = 0,
        **rules: object,
    ) -> str:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        listen = gateway.Listen(
            port=port,
            upstreams=[f"127.0.0.1:{each.port}" for each in upstreams or [upstream]],
            metrics_upstream=f"127.0.0.1:{(metrics_of or upstream).port}",
            rules=gateway.Rules(**rules),  # type: ignore[arg-type]
            access_log=access_log,
            log_prompts=log_prompts,
        )
        run = tmp_path / f"gateway{len(gateways) or ''}"
        gateways.append(gateway.start(gateway.find_nginx(), ROOT / "gateway", run, listen))
        gateways[-1].wait_until_listening()
        return f"{'https' if 'tls_cert' in rules else 'http'}://127.0.0.1:{port}"

    return begin


@pytest.fixture
def url(start: Start) -> str:
    return start()
