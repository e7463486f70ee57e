"""What is told of a call besides its answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from postprocessing.events import Event, Status
from postprocessing.shapes import Usage
from preprocessing.errors import Kind, OpenAIError
from refusals import Refusals
from tests.front.conftest import Clock, Request

INPUTS = {"endpoint": b"completions", "ticket": b"t1", "request": b"{}"}
NAMES = ["model", "response_id", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens",
         "finish_reasons", "error", "queue_ms", "ttft_ms"]  # fmt: skip


class FakeAnswer:
    """Says "text" for each token, of which three are an answer."""

    streams = True
    id = "cmpl-1"

    def __init__(self) -> None:
        self.tokens = 0

    @property
    def done(self) -> bool:
        return self.tokens == 3

    @property
    def finish_reasons(self) -> list[str]:
        return ["stop"] if self.done else []

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=5, completion_tokens=self.tokens, cached_tokens=2, reasoning_tokens=None)

    def push(self, event: Event) -> bytes:
        if event.status is Status.PROMPT:
            return b""
        self.tokens += len(event.tokens)
        return b"text"

    def wants(self, prompt: int) -> bool:
        return True

    def fail(self, error: Any) -> bytes:
        return b"failed"


@pytest.fixture
def refusals(tmp_path: Path) -> Refusals:
    return Refusals(tmp_path / "refusals")


@pytest.fixture
def make(refusals: Refusals, clock: Clock) -> Any:
    import call

    def make(**asks: str) -> tuple[call.Call, list[Any]]:
        request = Request(dict(INPUTS), asks=asks or {"report": "1"})
        made = call.Call(request, refusals, call.Patience())
        made.answer = FakeAnswer()  # type: ignore[assignment]
        return made, request.sender.sent

    return make


def split(sent: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """The text of a response and its report."""
    text, *marked = sent.split(b"\x1e")
    assert len(marked) in (0, 2)
    if not marked:
        return text, None
    assert marked[1] == b"" and marked[0].isascii()
    found = orjson.loads(marked[0])
    assert list(found) == [*NAMES, "final"]
    del found["final"]
    return text, found


def test_the_first_news_and_the_last_have_a_report(make: Any, clock: Clock) -> None:
    call, sent = make()
    call.stats.asked = "tiny"
    call.accepted()
    clock.now += 0.2
    call.push(Event([2, 50_000], Status.PROMPT))
    for _ in range(3):
        call.push(Event((7,)))
    texts, reports = zip(*map(split, sent), strict=True)
    assert texts == (b"", b"text", b"text", b"text")
    assert (reports[0], reports[2]) == (None, None)
    assert reports[1] == {
        "model": "tiny", "response_id": "cmpl-1", "prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": 1,
        "reasoning_tokens": None, "finish_reasons": None, "error": None, "queue_ms": 50.0, "ttft_ms": 200.0,
    }  # fmt: skip
    assert reports[3] == reports[1] | {"completion_tokens": 3, "finish_reasons": ["stop"]}


def test_a_long_answer_is_reported_once_a_second(make: Any, clock: Clock) -> None:
    call, sent = make()
    call.accepted()
    call.push(Event((7,)))
    for _ in range(12):
        clock.now += 0.3
        assert call.look()
    assert {split(each)[0] for each in sent} == {b"", b"text"}
    assert [split(each)[1] is not None for each in sent] == [False, True] + [False, False, False, True] * 3


def test_before_the_engine_has_news_nothing_is_reported(make: Any, clock: Clock) -> None:
    call, sent = make()
    call.accepted()
    for _ in range(10):
        clock.now += 0.3
        assert call.look()
    assert set(sent) == {b""}


def test_a_large_answer_has_it_behind_its_last_piece(make: Any) -> None:
    call, sent = make()
    call.reply(b"x" * 40_000)
    assert [len(split(each)[0]) for each in sent] == [16384, 16384, 40_000 - 2 * 16384]
    assert [split(each)[1] is not None for each in sent] == [False, False, True]


def test_who_does_not_ask_gets_none(make: Any, refusals: Refusals) -> None:
    call, sent = make(other='"report":')
    call.accepted()
    for _ in range(3):
        call.push(Event((7,)))
    refused, _ = make(other='"report":')
    refused.fail(OpenAIError(Kind.QUEUE_FULL, "full"))
    assert b"\x1e" not in b"".join(sent) and b"u001e" not in (refusals.take("t1") or b"")


@pytest.mark.parametrize("kept", [True, False])
def test_a_refusal_has_it_behind_the_error(make: Any, refusals: Refusals, kept: bool) -> None:
    call, sent = make()
    call.stats.asked = "x" * 300
    error = OpenAIError(Kind.QUEUE_FULL, "m" * (100 if kept else 3750))
    call.fail(error)
    text, found = split(str(sent[0]).encode())
    assert text == error.body() and found is not None
    assert (found["error"], found["model"], found["completion_tokens"]) == ("queue_full", "x" * 128, 0)
    told = json.loads(refusals.take("t1") or b"{}")
    assert told["status"] == 429
    assert split(told["body"].encode()) == (error.body(), found if kept else None)


def test_an_answer_that_fails_has_no_reasons(make: Any) -> None:
    call, sent = make()
    call.accepted()
    call.push(Event((7,)))
    call.fail(OpenAIError(Kind.TIMEOUT, "too long"))
    text, found = split(sent[-1])
    assert text == b"failed" and found is not None
    assert (found["error"], found["finish_reasons"], found["completion_tokens"]) == ("request_timeout", None, 1)


@pytest.mark.parametrize(("opened", "status"), [(True, 200), (False, 504)])
def test_the_status_of_a_line_is_the_one_that_was_sent(make: Any, opened: bool, status: int) -> None:
    from report import line

    call, _ = make()
    if opened:
        call.accepted()
    call.fail(OpenAIError(Kind.TIMEOUT, "too long"))
    found = json.loads(line("id-1", call.stats, call.answer))
    assert (found["status"], found["error"]) == (status, "request_timeout")


def test_a_line_for_tritons_log() -> None:
    from report import line
    from request_stats import RequestStats

    stats = RequestStats("chat/completions\n", 10.0)
    stats.asked, stats.ended, stats.first_token = 'a"\n\u2028', 10.5, 10.25
    found = json.loads(told := line("id-1", stats, None))
    assert told.isascii() and "\n" not in told
    assert list(found) == ["time", "request_id", "endpoint", "status", "duration_ms", "cancelled", *NAMES]
    assert found["model"] == 'a"\n\u2028'
    assert (found["status"], found["duration_ms"], found["ttft_ms"]) == (200, 500.0, 250.0)
    stats.cancelled = True
    assert json.loads(line("id-1", stats, None))["status"] == 499
