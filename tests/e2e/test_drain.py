"""How a server ends: SIGTERM lets what runs finish, for so long; Ctrl-C and a second signal do not wait."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import eventually
from tests.e2e.test_serve import Launched, completes

SLOW = ("--set", "tensorrt_llm.step_interval_ms=20")
LONG = {"stream": True, "ignore_eos": True}


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    made: list[Launched] = []

    def begin(*arguments: str) -> Launched:
        made.append(Launched(tmp_path / "run", *SLOW, *arguments))
        made[-1].wait_until("Ctrl-C stops the server.")
        return made[-1]

    yield begin
    for each in made:
        each.process.kill()
        each.process.wait(60)


def begun(launched: Launched, tokens: int) -> tuple[str, Iterator[bytes]]:
    """The model, and what still comes of a stream whose first token has come."""
    model = requests.get(f"{launched.url}/v1/models", timeout=10).json()["data"][0]["id"]
    pieces = completes(launched.url, model, max_tokens=tokens, **LONG).iter_content(None)
    assert b'"text"' in next(pieces)
    return model, pieces


def ready(launched: Launched) -> int:
    return requests.get(f"{launched.url}/health/ready", timeout=10).status_code


def left_nothing(launched: Launched) -> bool:
    return launched.process.wait(60) == 0 and launched.processes() == {} and launched.regions() == []


def test_sigterm_lets_running_requests_finish(launch: Any) -> None:
    launched = launch()
    model, stream = begun(launched, 400)  # 8 seconds
    assert ready(launched) == 200
    launched.process.send_signal(signal.SIGTERM)
    assert eventually(lambda: ready(launched) == 503, seconds=5)
    refused = completes(launched.url, model)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert [requests.get(f"{launched.url}/health/{path}", timeout=10).status_code for path in ("live", "startup")] == [
        200,
        200,
    ]
    assert launched.process.poll() is None
    rest = b"".join(stream).decode()
    assert '"finish_reason":"length"' in rest
    assert rest.endswith("data: [DONE]\n\n")
    assert left_nothing(launched), launched.output
    # Triton waits for connections to it, of which nginx has some when nothing runs any more.
    assert "Exit timeout expired" not in (launched.run / "triton.log").read_text()


def test_what_runs_beyond_the_grace_ends_with_an_error(launch: Any) -> None:
    launched = launch("--drain-seconds", "1")
    _, stream = begun(launched, 1500)
    launched.process.send_signal(signal.SIGTERM)
    rest = b"".join(stream).decode()
    assert rest.endswith("\n\n")
    assert '"error"' in rest.split("\n\n")[-2]
    assert left_nothing(launched), launched.output


@pytest.mark.parametrize(
    "signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT,)]
)
def test_ctrl_c_and_a_second_signal_end_at_once(launch: Any, signals: tuple[signal.Signals, ...]) -> None:
    launched = launch("--drain-seconds", "600")
    _, _stream = begun(launched, 1900)  # 38 seconds
    asked = time.monotonic()
    for number in signals:
        launched.process.send_signal(number)
        if len(signals) > 1 and number is signals[0]:
            launched.wait_until("draining")
    assert left_nothing(launched), launched.output
    assert time.monotonic() - asked < 20
