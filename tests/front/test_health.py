from __future__ import annotations

import queue
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


@pytest.fixture(params=[True, False])
def concurrent(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def health_of(engine: Engine, patience: float = SOON) -> Any:
    from health import Health

    fast = PreTrainedTokenizerFast(tokenizer_object=vocabularies.tokenizer("byte-level"), eos_token="<|end|>")
    return Health(engine, Model("m", tokenizers.Tokenizer(fast, [3]), 100, 0), patience)


def ask(health: Any) -> bool:
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()
    health.ask(told.put)
    return told.get(timeout=SOON)


def fails(sink: Any) -> None:
    raise RuntimeError("no engine")


ANSWERS = [
    (lambda sink: sink.push(TOKEN), True),
    (lambda sink: sink.push(Event((), Status.END_ID)), True),
    (lambda sink: sink.push(Event((), Status.CANCELLED)), False),
    (lambda sink: sink.push(Event((), Status.ERROR, error="x")), False),
    (fails, False),
]


@pytest.mark.parametrize(("answer", "works"), ANSWERS)
def test_ready_is_who_brings_a_token(answer: Callable[[Any], None], works: bool, concurrent: bool) -> None:
    health = health_of(Engine(answer, concurrent))
    assert ask(health) is works
    health.close()


def test_a_token_of_late_is_proof_enough(concurrent: bool) -> None:
    engine = Engine(fails, concurrent)
    engine.heard_at = time.monotonic()
    health = health_of(engine)
    assert ask(health)
    assert engine.tries == 0
    engine.ready = False
    assert not ask(health)
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
    assert [ask(health), ask(health), ask(health)] == [False] * 3
    assert time.monotonic() - started < SOON / 2
    assert engine.tries == 1
    hanging.set()
    assert sinks[0].over.wait(SOON)
    assert ask(health)
    health.close()


@pytest.mark.parametrize(
    ("heard", "told"),
    [([], [True]), ([True, True], [True]), ([True], []), ([False], [False]), ([True, False], [False]),
     ([False, True], [False]), ([False, False], [False])],
)  # fmt: skip
def test_all_of_two_have_to_work(heard: list[bool], told: list[bool]) -> None:
    from health import Quorum

    found: list[bool] = []
    quorum = Quorum(2 if heard else 0, found.append)
    for works in heard:
        quorum.hear(works)
    assert found == told
