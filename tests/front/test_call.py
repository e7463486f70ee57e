from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from postprocessing.events import Event
from refusals import Refusals
from tests.front.conftest import Clock, Request

PATIENCE = {"queue": 10.0, "request": 100.0, "keep_alive": 3.0}


class FakeAnswer:
    """Says "text" for every event."""

    done = False

    def __init__(self, streams: bool) -> None:
        self.streams = streams

    def push(self, event: Event) -> bytes:
        return b"text" if event.tokens else b""

    def wants(self, prompt: int) -> bool:
        return True

    def fail(self, error: Any) -> bytes:
        return b"failed: " + error.body()


@pytest.fixture
def ended() -> list[Any]:
    return []


@pytest.fixture
def refusals(tmp_path: Path) -> Refusals:
    return Refusals(tmp_path / "refusals")


@pytest.fixture
def make(request_of_triton: Request, refusals: Refusals, clock: Clock, ended: list[Any]) -> Any:
    import call

    def make(streams: bool = True) -> call.Call:
        made = call.Call(request_of_triton, refusals, call.Patience(**PATIENCE), ended.append)
        made.answer = FakeAnswer(streams)  # type: ignore[assignment]
        return made

    return make


def test_what_waits_too_long_for_the_engine_is_refused(make: Any, refusals: Refusals, clock: Clock, ended: Any) -> None:
    waiting = make()
    clock.now += 9
    assert waiting.look()
    clock.now += 2
    assert not waiting.look()
    assert ended == [waiting]
    kept = orjson.loads(refusals.take("t1") or b"{}")
    assert kept["status"] == 503
    assert orjson.loads(kept["body"])["error"]["code"] == "queue_timeout"


def test_what_was_accepted_ends_with_an_error_event(make: Any, request_of_triton: Request, clock: Clock) -> None:
    waiting = make()
    waiting.accepted()
    clock.now += 11
    assert not waiting.look()
    assert b"queue_timeout" in request_of_triton.sender.sent[-1]
    # With nothing else in the last response Triton finds one that it had lost sight of.
    assert request_of_triton.sender.ended and request_of_triton.sender.bare


def test_news_end_the_wait_but_not_for_ever(make: Any, request_of_triton: Request, clock: Clock) -> None:
    running = make()
    running.accepted()
    assert running.push(Event((7,)))
    clock.now += 50
    assert running.look()
    clock.now += 51
    assert not running.look()
    assert b"request_timeout" in request_of_triton.sender.sent[-1]
    assert not running.push(Event((7,)))


def test_a_request_that_never_began_takes_too_long(make: Any, refusals: Refusals, clock: Clock) -> None:
    waiting = make()
    clock.now += 101
    assert not waiting.look()
    assert orjson.loads(refusals.take("t1") or b"{}")["status"] == 504


@pytest.mark.parametrize("streams", [True, False])
def test_signs_of_life(make: Any, request_of_triton: Request, clock: Clock, streams: bool) -> None:
    silent = make(streams)
    silent.accepted()
    for _ in range(16):
        clock.now += 0.3
        assert silent.look()
    sent = request_of_triton.sender.sent
    assert sent.count(b": keep-alive\n\n") == (1 if streams else 0)
    assert set(sent) == ({b"", b": keep-alive\n\n"} if streams else {b""})


def test_no_sign_of_life_between_tokens(make: Any, request_of_triton: Request, clock: Clock) -> None:
    talking = make()
    talking.accepted()
    for _ in range(5):
        clock.now += 2
        talking.push(Event((7,)))
        talking.look()
    assert b": keep-alive\n\n" not in request_of_triton.sender.sent


def test_who_has_left_is_closed_once(make: Any, request_of_triton: Request, ended: Any) -> None:
    gone = make()
    assert gone.look()  # nothing was written, so nothing is known
    gone.accepted()
    request_of_triton.sender.gone = True
    assert not gone.look()
    assert not gone.look()
    assert not gone.alive()
    assert ended == [gone]


def test_an_answer_may_begin_without_the_engine(make: Any, request_of_triton: Request, clock: Clock) -> None:
    waiting = make()
    waiting.opens_after = 1.0
    assert waiting.look()
    assert request_of_triton.sender.sent == []
    clock.now += 1.1
    assert waiting.look()
    assert request_of_triton.sender.sent == [b""]
    waiting.accepted()
    assert waiting.push(Event((7,)))
    assert request_of_triton.sender.sent[-1] == b"text"


def test_triton_is_not_asked_about_a_call_that_has_ended(make: Any, clock: Clock) -> None:
    """It waited too long for its thread, for example."""
    waiting = make()
    assert not waiting.has_gone()
    clock.now += 11
    assert not waiting.look()
    assert not waiting.has_gone()
