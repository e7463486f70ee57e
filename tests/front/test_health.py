from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from postprocessing.events import Event, Status
from preprocessing import tokenizer as tokenizers
from preprocessing.model import Model
from tests.core import vocabularies

TOKEN = Event((5,), Status.LENGTH)
SOON = 10.0


class Engine:
    """A transport; `answer` is what it does with a submission."""

    ready = True

    def __init__(self, answer: Callable[[Any], None], concurrent: bool) -> None:
        self.concurrent = concurrent
        self.heard_at = float("-inf")
        self.tries = 0
        self.answer = answer

    def submit(self, submissions: Sequence[Any], sink: Any) -> None:
        assert [submission.max_tokens for submission in submissions] == [1]
        self.tries += 1
        self.answer(sink)

    def sweep(self) -> None: ...

    def close(self) -> None: ...


class Asked:
    """A call; `status` once it is answered."""

    def __init__(self) -> None:
        self.status = 0
        self._answered = threading.Event()

    def reply(self, body: bytes) -> None:
        assert body == b'{"status":"ready"}'
        self._end(200)

    def fail(self, error: Any) -> None:
        self._end(error.status)

    def _end(self, status: int) -> None:
        self.status = status
        self._answered.set()

    def wait(self) -> int:
        assert self._answered.wait(SOON)
        return self.status


@pytest.fixture(params=[True, False])
def concurrent(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def health_of(engine: Engine, patience: float = SOON) -> Any:
    from health import Health

    fast = PreTrainedTokenizerFast(tokenizer_object=vocabularies.tokenizer("byte-level"), eos_token="<|end|>")
    return Health(engine, Model("m", tokenizers.Tokenizer(fast, [3]), 100, 0), patience)


def ask(health: Any) -> int:
    call = Asked()
    health.ask(call)
    return call.wait()


def fails(sink: Any) -> None:
    raise RuntimeError("no engine")


ANSWERS = [
    (lambda sink: sink.push(TOKEN), 200),
    (lambda sink: sink.push(Event((), Status.END_ID)), 200),
    (lambda sink: sink.push(Event((), Status.CANCELLED)), 503),
    (lambda sink: sink.push(Event((), Status.ERROR, error="x")), 503),
    (fails, 503),
]


@pytest.mark.parametrize(("answer", "status"), ANSWERS)
def test_ready_is_who_brings_a_token(answer: Callable[[Any], None], status: int, concurrent: bool) -> None:
    health = health_of(Engine(answer, concurrent))
    assert ask(health) == status
    health.close()


def test_a_token_of_late_is_proof_enough(concurrent: bool) -> None:
    engine = Engine(fails, concurrent)
    engine.heard_at = time.monotonic()
    health = health_of(engine)
    assert ask(health) == 200
    assert engine.tries == 0
    engine.ready = False
    assert ask(health) == 503
    health.close()


def test_an_engine_that_hangs_is_tried_once() -> None:
    hanging = threading.Event()
    sinks: list[Any] = []

    def hang(sink: Any) -> None:
        sinks.append(sink)
        hanging.wait(SOON)
        sink.push(TOKEN)

    engine = Engine(hang, concurrent=True)
    health = health_of(engine, patience=0.2)
    started = time.monotonic()
    assert [ask(health), ask(health), ask(health)] == [503] * 3
    assert time.monotonic() - started < SOON / 2
    assert engine.tries == 1
    hanging.set()
    assert sinks[0].over.wait(SOON)
    assert ask(health) == 200
    health.close()
