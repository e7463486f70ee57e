"""The session extension, over a running engine (docs/session_contract.md)."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.engine.client import PROMPT, Breaking

SESSION = 2**63 + 5


class Record(NamedTuple):
    number: int
    index: int
    status: int
    tokens: list[int]
    log_probs: list[float]


class Caller:
    """One session of one engine."""

    def __init__(self, client: Any, session: int = SESSION):
        self.client, self.session = client, session
        self.texts: list[str] = []

    def send(self, command: int, **values: Any) -> Any:
        return self.client.send(session_command=command, **{
            "session_id": self.session, "input_lengths": 0, "request_output_len": 0, **values})

    def submit(self, number: int, length: int = 8, **values: Any) -> Any:
        return self.send(1, **{"session_sequence_ids": [number], "input_ids": PROMPT, "input_lengths": len(PROMPT),
                               "request_output_len": length, **values})

    def known(self) -> Caller:
        """Makes the engine know the session; nothing of it is left."""
        self.submit(99, 1)
        self.drain()
        return self

    def poll(self) -> list[Record]:
        outputs = self.send(2).wait()[0].outputs
        self.texts += [text.decode() for text in outputs.get("session_texts", np.empty((1, 0)))[0]]
        return records(outputs)

    def drain(self, ends: int = 1, limit: float = 10) -> list[Record]:
        """Polls until so many sequences have ended; their records, merged."""
        merged: dict[tuple[int, int], Record] = {}
        until = time.monotonic() + limit
        while sum(r.status > 0 for r in merged.values()) < ends:
            assert time.monotonic() < until, merged
            for r in self.poll():
                old = merged.get((r.number, r.index), Record(r.number, r.index, 0, [], []))
                assert old.status == 0, "a record after the last"
                merged[r.number, r.index] = r._replace(
                    tokens=old.tokens + r.tokens, log_probs=old.log_probs + r.log_probs)
        return sorted(merged.values())


def records(outputs: Any) -> list[Record]:
    events, found = outputs["session_events"], []
    assert events.dtype == np.int32 and events.shape[0] == 1
    flat, values = events[0].tolist(), outputs.get("session_log_probs", np.empty((1, 0)))[0].tolist()
    while flat:
        number, index, status, tokens, log_probs = flat[:5]
        found.append(Record(number, index, status, flat[5: 5 + tokens], values[:log_probs]))
        flat, values = flat[5 + tokens:], values[log_probs:]
    assert not values
    return found


def test_hello(client: Any, runner: Any) -> None:
    (response,) = Caller(client).send(0).wait()
    text = json.loads(response.outputs["session_texts"][0, 0])
    assert text == {"version": 1, "max_seq_len": 2048, "max_batch_size": 64, "vocab_size": runner.vocab_size,
                    "checkpoint": "folder", "poll_wait_ms": 20, "session_timeout_ms": 5000}
    assert response.outputs["session_events"].shape == (1, 0)


def test_submit_and_poll(client: Any) -> None:
    greedy = client.ask(PROMPT, 8).tokens
    caller = Caller(client)
    (accepted,) = caller.submit(1).wait()
    assert accepted.final and not accepted.error and accepted.outputs["session_events"].shape == (1, 0)
    assert caller.drain() == [Record(1, 0, 3, greedy, [])]


@pytest.mark.parametrize(("values", "status", "count"), [
    (lambda greedy: {"end_id": greedy[3]}, 1, 3),
    (lambda greedy: {"stop_words_list": np.array([[[greedy[3]], [1]]], np.int32)}, 2, 4),
    (lambda greedy: {}, 3, 8),
])
def test_ends(client: Any, values: Any, status: int, count: int) -> None:
    greedy = client.ask(PROMPT, 8).tokens
    caller = Caller(client)
    caller.submit(1, **values(greedy))
    assert caller.drain() == [Record(1, 0, status, greedy[:count], [])]


def test_log_probs_and_several_sequences(client: Any) -> None:
    caller = Caller(client)
    caller.submit(4, return_log_probs=True, num_return_sequences=2, runtime_top_p=1.0)
    caller.submit(5)
    first, second, other = caller.drain(3)
    assert (first.number, first.index, second.index, other.number) == (4, 0, 1, 5)
    assert len(first.log_probs) == len(first.tokens) == 8 and not other.log_probs
    whole = client.ask(PROMPT, 8, return_log_probs=True, runtime_top_p=1.0).wait()[-1].outputs["output_log_probs"][0, 0]
    assert np.allclose(first.log_probs, whole)


def test_news_merge_until_polled(client: Any) -> None:
    caller = Caller(client)
    for number in (1, 2):
        caller.submit(number, 20)
    time.sleep(0.3)
    assert [(r.number, r.status, len(r.tokens)) for r in caller.poll()] == [(1, 3, 20), (2, 3, 20)]


def test_an_open_poll_waits_for_the_next_step(make_client: Any) -> None:
    caller = Caller(make_client(poll_wait_ms=2000)).known()
    poll = caller.send(2)
    time.sleep(0.05)
    assert not poll.responses
    started = time.monotonic()
    caller.submit(1)
    assert records(poll.wait()[0].outputs) and time.monotonic() - started < 1


def test_a_poll_times_out_with_nothing(client: Any) -> None:
    caller = Caller(client).known()
    started = time.monotonic()
    assert caller.poll() == []
    assert 0.015 < time.monotonic() - started < 0.5


def test_a_newer_poll_ends_the_older(make_client: Any) -> None:
    caller = Caller(make_client(poll_wait_ms=5000)).known()
    older = caller.send(2)
    newer = caller.send(2)
    assert records(older.wait(1)[0].outputs) == [] and not newer.responses
    caller.submit(1)
    assert records(newer.wait(1)[0].outputs)


def test_a_session_that_is_not_known_is_an_error(make_client: Any) -> None:
    client = make_client(session_timeout_ms=100)
    assert "unknown session" in Caller(client).send(2).error
    caller = Caller(client).known()
    assert caller.poll() == []
    time.sleep(0.5)
    assert "unknown session" in caller.send(2).error


def test_cancel(make_client: Any) -> None:
    caller = Caller(make_client(step_interval_ms=2, max_batch_size=1))
    caller.submit(1, 1000, num_return_sequences=2)
    caller.poll()
    (answer,) = caller.send(3, session_sequence_ids=[1, 99]).wait()
    assert not answer.error and answer.outputs["session_events"].shape == (1, 0)
    assert [(r.index, r.status) for r in caller.drain(2)] == [(0, 4), (1, 4)]
    caller.submit(2, 3)
    assert caller.drain()[0].status == 3


REFUSED = [
    (dict(input_ids=[1] * 3000), "Prompt length (3000) exceeds maximum input length"),
    (dict(temperature=-1.0), "Assertion failed: temperature"),
    (dict(session_sequence_ids=[0]), "session_sequence_ids"),
    (dict(session_sequence_ids=[1, 2]), "session_sequence_ids"),
    (dict(return_context_logits=True), "return_context_logits: not available in a session"),
    (dict(return_perf_metrics=True), "return_perf_metrics: not available in a session"),
    (dict(session_command=9), "session_command"),
    (dict(input_ids=np.ones((2, 3), np.int32)), "Invalid size"),
]


@pytest.mark.parametrize(("values", "text"), REFUSED, ids=[text[:30] for _, text in REFUSED])
def test_refused(client: Any, values: dict[str, Any], text: str) -> None:
    caller = Caller(client)
    values = {"input_ids": PROMPT, "input_lengths": 5, "request_output_len": 4, "session_command": 1,
              "session_id": SESSION, "session_sequence_ids": [1], **values}
    assert text in client.send(**values).error
    caller.submit(1)  # the id is still free
    assert caller.drain()[0].status == 3


def test_missing_session_and_number_in_use(make_client: Any) -> None:
    client = make_client(step_interval_ms=5)
    assert "session_id is missing" in client.send(session_command=2, input_lengths=0, request_output_len=0).error
    caller = Caller(client)
    caller.submit(1, 100)
    assert "1 is in use" in caller.submit(1).error


def test_queue_full(make_client: Any) -> None:
    caller = Caller(make_client(step_interval_ms=20, max_batch_size=1, max_queue_size=1))
    caller.submit(1, 5)
    caller.poll()
    caller.submit(2, 5)
    assert "Maximum queue size of 1 has been reached" in caller.submit(3, 5).error
    assert [(r.number, r.status) for r in caller.drain(2)] == [(1, 3), (2, 3)]


def test_a_failed_step_is_one_error_record(make_client: Any, runner: Any) -> None:
    breaking = Breaking(runner)
    caller = Caller(make_client(breaking, step_interval_ms=2))
    caller.submit(1, 1000, num_return_sequences=3)
    caller.poll()
    breaking.broken = True
    ended: list[Record] = []
    while not ended:
        ended = [r for r in caller.poll() if r.status]
    assert [r.status for r in ended] == [5]
    assert caller.texts == ["Encountered an error in forwardSync function: RuntimeError: out of something"]
    caller.submit(2, 3)
    assert [r.number for r in caller.drain()] == [2]


def test_a_dead_session_frees_its_slots(make_client: Any) -> None:
    stats: list[Any] = []
    client = make_client(session_timeout_ms=300, step_interval_ms=5, publish=stats.append)
    Caller(client, 1).submit(1, 2000)
    alive = Caller(client, 2)
    alive.submit(1, 2000)
    seen = 0
    while seen < 2 or stats[-1].active == 2:  # far less than the ten seconds that 2000 steps take
        assert all(r.status == 0 for r in alive.poll())
        seen = max(s.active for s in stats)
    assert stats[-1].active == 1
    anew = Caller(client, 1)
    anew.submit(1, 3)
    (record,) = anew.drain()
    assert record.status == 3 and len(record.tokens) == 3


def test_sessions_are_apart(client: Any) -> None:
    first, second = Caller(client, 1), Caller(client, 2)
    first.submit(1, 4)
    second.submit(1, 6)
    assert len(first.drain()[0].tokens) == 4 and len(second.drain()[0].tokens) == 6
