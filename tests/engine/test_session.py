"""The session extension, over a running engine (docs/session_contract.md)."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import numpy as np
import pytest

from engine import scheduler
from engine.sampler import log_softmax
from tests.engine.client import PROMPT, Breaking

SESSION = 2**63 + 5


class Record(NamedTuple):
    number: int
    index: int
    status: int
    tokens: list[int]
    log_probs: list[float]
    top: list[tuple[int, float]] = []


class Caller:
    """One session of one engine."""

    def __init__(self, client: Any, session: int = SESSION):
        self.client, self.session = client, session
        self.texts: list[str] = []
        self.prompts: list[Record] = []  # the prompt records that drain has met
        self.waits: list[int] = []  # what prompt records say of the queue, in microseconds
        self._asked: set[int] = set()  # whose prompt's log probs were asked for

    def send(self, command: int, **values: Any) -> Any:
        return self.client.send(session_command=command, **{
            "session_id": self.session, "input_lengths": 0, "request_output_len": 0, **values})

    def submit(self, number: int, length: int = 8, **values: Any) -> Any:
        if values.get("session_prompt_log_probs"):
            self._asked.add(number)
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
        found = [self.without_wait(record) for record in records(outputs)]
        return [each for each in found if each.status != -1 or each.tokens != [0] or each.number in self._asked]

    def without_wait(self, record: Record) -> Record:
        """Prompt records always come, because of the wait; most tests look at the rest of them only."""
        if record.status != -1:
            return record
        reused, *waits = record.tokens  # not every engine knows it
        self.waits += waits
        return record._replace(tokens=[reused])

    def drain(self, ends: int = 1, limit: float = 10) -> list[Record]:
        """Polls until so many sequences have ended; their records, merged."""
        merged: dict[tuple[int, int], Record] = {}
        until = time.monotonic() + limit
        while sum(r.status > 0 for r in merged.values()) < ends:
            assert time.monotonic() < until, merged
            for r in self.poll():
                if r.status == -1:
                    assert r.index == 0 and r.number not in {key[0] for key in merged}
                    assert r.number not in {prompt.number for prompt in self.prompts}
                    self.prompts.append(r)
                    continue
                old = merged.get((r.number, r.index), Record(r.number, r.index, 0, [], [], []))
                assert old.status == 0, "a record after the last"
                merged[r.number, r.index] = r._replace(
                    tokens=old.tokens + r.tokens, log_probs=old.log_probs + r.log_probs, top=old.top + r.top)
        return sorted(merged.values())


def records(outputs: Any) -> list[Record]:
    events, found = outputs["session_events"], []
    assert events.dtype == np.int32 and events.shape[0] == 1
    flat, values = events[0].tolist(), outputs.get("session_log_probs", np.empty((1, 0)))[0].tolist()
    ids, their_values = (outputs[name][0] if name in outputs else [] for name in (
        "session_top_ids", "session_top_log_probs"))
    top = list(zip(ids, their_values, strict=True))
    while flat:
        number, index, status, tokens, log_probs, tops = flat[:6]
        found.append(Record(number, index, status, flat[6: 6 + tokens], values[:log_probs], top[:tops]))
        flat, values, top = flat[6 + tokens:], values[log_probs:], top[tops:]
    assert not values and not top
    return found


def test_hello(client: Any, runner: Any) -> None:
    (response,) = Caller(client).send(0).wait()
    text = json.loads(response.outputs["session_texts"][0, 0])
    assert text == {"version": 1, "max_seq_len": 2048, "max_batch_size": 64, "vocab_size": runner.vocab_size,
                    "checkpoint": "folder", "poll_wait_ms": 20, "session_timeout_ms": 30000,
                    "top_log_probs": 20, "tokens_per_block": 64, "guide_types": [], "lora_adapters": {}}
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
    (dict(session_top_log_probs=21), "Assertion failed: 0 <= session_top_log_probs <= 20"),
    (dict(session_top_log_probs=-1), "Assertion failed: 0 <= session_top_log_probs <= 20"),
    (dict(session_top_log_probs=[1, 2]), "Invalid size for tensor session_top_log_probs"),
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


LONG = [(11 * i * i + 3 * i) % 1200 for i in range(300)]


def tops_of(logits: Any, k: int) -> list[tuple[int, float]]:
    """The k largest of each row's log-softmax, sorted the plain way."""
    exact = np.asarray(logits, np.float64)
    exact = exact - np.log(np.exp(exact).sum(-1, keepdims=True))
    order = np.argsort(-exact, -1)[:, :k]
    return [(int(i), float(row[i])) for row, ids in zip(exact, order, strict=True) for i in ids]


def same(ours: list[tuple[int, float]], theirs: list[tuple[int, float]]) -> None:
    assert [i for i, _ in ours] == [i for i, _ in theirs]
    assert np.allclose([v for _, v in ours], [v for _, v in theirs], atol=1e-4)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_alternatives_are_those_of_the_raw_logits(client: Any, k: int) -> None:
    values = dict(runtime_top_p=0.9, temperature=2.0, seed=4, repetition_penalty=1.3, frequency_penalty=0.4)
    whole = client.ask(PROMPT, 8, return_generation_logits=True, **values).wait()
    logits = np.concatenate([r.outputs["generation_logits"][0, 0] for r in whole])
    caller = Caller(client)
    caller.submit(1, session_top_log_probs=k, **values)
    (record,) = caller.drain()
    assert len(record.top) == 8 * k and not record.log_probs and not caller.prompts
    same(record.top, tops_of(logits, k))


def test_alternatives_and_log_probs_agree_and_late_polls_merge(client: Any) -> None:
    caller = Caller(client)
    caller.submit(1, 12, session_top_log_probs=3, return_log_probs=True)
    caller.submit(2, 12, session_top_log_probs=2, num_return_sequences=2, runtime_top_p=1.0, seed=9)
    caller.submit(3, 12, return_log_probs=True)
    time.sleep(0.4)
    first, second, third, plain = sorted(caller.poll())
    assert [len(r.top) for r in (first, second, third, plain)] == [36, 24, 24, 0]
    assert [len(r.log_probs) for r in (first, second, third, plain)] == [12, 0, 0, 12]
    assert [i for i, _ in first.top[::3]] == first.tokens  # greedy: the likeliest
    assert np.allclose([v for _, v in first.top[::3]], first.log_probs)
    assert first.log_probs == plain.log_probs and second.top != third.top
    assert all(r.top[n][1] >= r.top[n + 1][1] for r in (second, third) for n in range(0, 24, 2))


def test_an_end_has_no_alternatives(client: Any) -> None:
    greedy = client.ask(PROMPT, 8).tokens
    caller = Caller(client)
    caller.submit(1, end_id=greedy[3], session_top_log_probs=4, return_log_probs=True)
    (record,) = caller.drain()
    assert (record.status, len(record.tokens), len(record.log_probs), len(record.top)) == (1, 3, 3, 12)


@pytest.mark.parametrize("prompt", [[7], PROMPT, LONG[:64], LONG[:65], LONG])
@pytest.mark.parametrize("chunk", [256, 70, 9])
def test_log_probs_of_the_prompt_are_those_of_the_context_logits(make_client: Any, prompt: list[int],
                                                                 chunk: int) -> None:
    client = make_client(prefill_chunk=chunk)
    logits = client.ask(prompt, 1, return_context_logits=True).wait()[0].outputs["context_logits"][0]
    expected = log_softmax(logits)[np.arange(len(prompt) - 1), prompt[1:]]
    caller = Caller(client)
    caller.submit(1, 2, input_ids=prompt, session_prompt_log_probs=True, session_top_log_probs=3)
    caller.submit(2, 2, input_ids=prompt, session_prompt_log_probs=True)
    first, second = caller.drain(2)
    with_top, without = sorted(caller.prompts)
    assert with_top[:4] == (1, 0, -1, [0]) and without[:4] == (2, 0, -1, [0])
    assert with_top.log_probs == without.log_probs == expected.tolist()
    assert len(first.top) == 6 and not first.log_probs and not second.top and not without.top
    same(with_top.top, tops_of(logits[:-1], 3))


def test_the_prompt_record_comes_once_and_first(make_client: Any) -> None:
    caller = Caller(make_client(step_interval_ms=2))
    caller.submit(1, 3, input_ids=LONG, num_return_sequences=3, session_prompt_log_probs=True, runtime_top_p=1.0)
    assert len(caller.drain(3)) == 3
    caller.submit(2, 3, input_ids=LONG, num_return_sequences=3)
    assert len(caller.drain(3)) == 3
    caller.submit(3, 3, input_ids=LONG, session_prompt_log_probs=True)
    caller.drain()
    caller.submit(4, 3, input_ids=LONG[:64])
    caller.drain()
    assert [(r.number, r.tokens, len(r.log_probs)) for r in caller.prompts] == [
        (1, [0], 299), (2, [256], 0), (3, [0], 299)]


def test_the_time_in_the_queue(make_client: Any) -> None:
    caller = Caller(make_client(step_interval_ms=20, max_batch_size=1))
    caller.submit(1, 20)
    caller.submit(2, 1)
    caller.drain(2)
    first, second = caller.waits
    assert 0 <= first and 300_000 < second - first < 20_000_000  # 20 steps of 20 ms each, and a busy machine


def test_what_was_found_is_told_before_the_rest_is_read(make_client: Any) -> None:
    caller = Caller(make_client(step_interval_ms=60, prefill_chunk=64))
    caller.submit(1, 1, input_ids=LONG)
    caller.drain()
    caller.submit(2, 1, input_ids=[*LONG[:200], *LONG])
    first: list[Record] = []
    while not first:
        first = caller.poll()
    assert first == [Record(2, 0, -1, [192], [])]
    caller.send(3, session_sequence_ids=[2])
    assert [r[2:4] for r in caller.drain()] == [(4, [])]


def test_nothing_extra_when_not_asked(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("computed for nobody")

    monkeypatch.setattr(scheduler, "likeliest", never)
    monkeypatch.setattr(scheduler, "log_softmax", never)
    caller = Caller(client)
    caller.submit(1, session_top_log_probs=0, session_prompt_log_probs=False)
    while True:
        outputs = caller.send(2).wait()[0].outputs
        assert set(outputs) == {"session_events"}
        if any(r.status > 0 for r in records(outputs)):
            break
    assert records(outputs)[-1].status == 3


@pytest.mark.parametrize("name", ["session_top_log_probs", "session_prompt_log_probs"])
def test_the_standard_contract_has_no_place_for_them(client: Any, name: str) -> None:
    assert client.ask(PROMPT, 2, **{name: True}).error == f"{name}: only available in a session"
    assert len(client.ask(PROMPT, 2, **{name: False}).tokens) == 2
