"""The standard contract as a caller sees it: shapes, ends, errors, cancellation."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from engine.engine import Engine
from engine.request import REFUSED
from engine.settings import Settings
from tests.engine.client import PROMPT, Breaking, Client, Recorder, tensors, words


@pytest.fixture
def greedy(client: Any) -> list[int]:
    """What follows PROMPT."""
    return client.ask(PROMPT, 12).tokens


def test_stream_is_one_token_per_response_and_the_final_flag_rides_on_the_last(make_client: Any) -> None:
    responses = make_client(step_interval_ms=30).ask(PROMPT, 12).wait()
    assert len(responses) == 12
    assert [r.final for r in responses] == [False] * (len(responses) - 1) + [True]
    for response in responses:
        assert set(response.outputs) == {"output_ids", "sequence_length"}
        count = response.outputs["output_ids"].shape[2]
        assert response.outputs["output_ids"].shape == (1, 1, count)
        assert response.outputs["output_ids"].dtype == response.outputs["sequence_length"].dtype == np.int32
        assert response.outputs["sequence_length"].tolist() == [[count]]
        assert count == 1


def test_end_id_ends_with_an_empty_final(client: Any, greedy: list[int]) -> None:
    last = client.ask(PROMPT, 12, end_id=greedy[4]).wait()[-1]
    assert last.final and last.outputs["output_ids"].shape == (1, 1, 0) and last.outputs["sequence_length"] == 0
    assert client.ask(PROMPT, 12, end_id=greedy[4]).tokens == greedy[:4]
    assert client.ask(PROMPT, 12, end_id=-1).tokens == greedy


def test_stop_word_is_kept_and_may_begin_in_the_prompt(client: Any, greedy: list[int]) -> None:
    assert client.ask(PROMPT, 12, stop_words_list=words((1, 2), tuple(greedy[3:5]))).tokens == greedy[:5]
    assert client.ask(PROMPT, 12, stop_words_list=words((PROMPT[-1], greedy[0]))).tokens == greedy[:1]
    assert client.ask(PROMPT, 12, stop_words_list=np.zeros((1, 2, 0), np.int32)).tokens == greedy


def test_bad_words(client: Any, greedy: list[int]) -> None:
    single = client.ask(PROMPT, 12, bad_words_list=words((greedy[2],))).tokens
    assert single[:2] == greedy[:2] and greedy[2] not in single
    pair = client.ask(PROMPT, 12, bad_words_list=words((greedy[1], greedy[2]))).tokens
    assert pair[:2] == greedy[:2] and pair[2] != greedy[2]


def test_min_tokens_holds_the_end_back(client: Any, greedy: list[int]) -> None:
    tokens = client.ask(PROMPT, 12, end_id=greedy[2], min_tokens=6).tokens
    assert len(tokens) >= 6 and greedy[2] not in tokens[:6]
    assert client.ask(PROMPT, 12, end_id=greedy[0], min_tokens=0).tokens == []
    assert greedy[0] not in client.ask(PROMPT, 1, end_id=greedy[0]).tokens


def test_length_is_clamped_silently(make_client: Any) -> None:
    client = make_client(max_seq_len=16)
    assert len(client.ask(PROMPT, 1000).tokens) == 11
    assert len(client.ask(PROMPT * 3, 1000).tokens) == 1


def test_whole_answer_has_the_prompt_unless_excluded(client: Any, make_client: Any, greedy: list[int]) -> None:
    assert [client.ask(PROMPT, 12, streaming=False).tokens] == [PROMPT + greedy]
    assert len(client.ask(PROMPT, 12, streaming=False).wait()) == 1
    assert client.ask(PROMPT, 12, streaming=False, exclude_input_in_output=True).tokens == greedy
    excluding = make_client(exclude_input_in_output=True)
    assert excluding.ask(PROMPT, 12, streaming=False).tokens == greedy
    assert excluding.ask(PROMPT, 12, streaming=False, exclude_input_in_output=False).tokens == PROMPT + greedy


def test_log_probs_are_cumulative_and_raw(make_client: Any, runner: Any) -> None:
    client = make_client(step_interval_ms=30)
    responses = client.ask(PROMPT, 12, return_log_probs=True).wait()
    lists = [r.outputs["output_log_probs"][0, 0].tolist() for r in responses]
    assert [len(values) for values in lists] == list(range(1, 13))
    assert lists[-1][:5] == lists[4]
    assert responses[-1].outputs["cum_log_probs"].shape == (1, 1)
    assert responses[-1].outputs["cum_log_probs"][0, 0] == pytest.approx(sum(lists[-1]), rel=1e-5)
    logits = client.ask(PROMPT, 1, return_generation_logits=True).wait()[0].outputs["generation_logits"][0, 0, 0]
    assert lists[0][0] == pytest.approx(float(logits.max() - np.log(np.exp(logits).sum())), rel=1e-5)


def test_cum_log_probs_include_the_end(client: Any, greedy: list[int]) -> None:
    whole = client.ask(PROMPT, 5, return_log_probs=True).wait()[-1].outputs
    ended = client.ask(PROMPT, 12, return_log_probs=True, end_id=greedy[4]).wait()[-1].outputs
    assert ended["output_log_probs"].shape == (1, 1, 4)
    assert ended["cum_log_probs"] == whole["cum_log_probs"]


def test_logits_and_counters(make_client: Any, runner: Any) -> None:
    client = make_client(step_interval_ms=30)
    flags = ("return_context_logits", "return_generation_logits", "return_num_input_tokens", "return_num_output_tokens",
             "return_perf_metrics")
    responses = client.ask(PROMPT, 3, **dict.fromkeys(flags, True)).wait()
    first, last = responses[0].outputs, responses[-1].outputs
    assert first["context_logits"].shape == (1, 5, runner.vocab_size) and "context_logits" not in last
    assert first["generation_logits"].shape == (1, 1, 1, runner.vocab_size)
    assert (first["generation_logits"][0, 0, 0] == first["context_logits"][0, -1]).all()
    assert first["num_input_tokens"] == 5 and first["num_output_tokens"] == 1
    times = [int(last[f"{name}_time_ns"][0, 0]) for name in ("arrival", "first_scheduled", "first_token", "last_token")]
    assert times == sorted(times) and 0 < times[0] < times[3] <= time.monotonic_ns()
    assert last["kv_cache_alloc_total_blocks"] == 1 and last["kv_cache_reused_blocks"] == 0


def test_context_logits_of_a_chunked_prompt(make_client: Any, client: Any) -> None:
    prompt = list(range(10, 50))
    whole = client.ask(prompt, 1, return_context_logits=True).wait()[0].outputs["context_logits"]
    pieces = make_client(prefill_chunk=7).ask(prompt, 1, return_context_logits=True).wait()[0].outputs["context_logits"]
    assert pieces.shape == whole.shape and np.allclose(pieces, whole, atol=1e-4)


def test_several_sequences_are_told_apart(client: Any) -> None:
    responses = client.ask(PROMPT, 6, num_return_sequences=3, runtime_top_p=1.0, seed=7).wait()
    by_index: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for response in responses:
        by_index[int(response.outputs["sequence_index"][0, 0])] += response.outputs["output_ids"][0, 0].tolist()
    alone = [client.ask(PROMPT, 6, runtime_top_p=1.0, seed=7 + i).tokens for i in range(3)]
    assert list(by_index.values()) == alone and len({tuple(t) for t in alone}) == 3
    assert sum(r.final for r in responses) == 1


def test_batch_rows_are_trimmed_and_told_apart(client: Any) -> None:
    column = np.array([[4], [4]], np.int32)
    ids = np.array([[5, 9, 200], [8, 7, 0]], np.int32)
    lengths = np.array([[3], [2]], np.int32)
    responses = client.send(input_ids=ids, input_lengths=lengths, request_output_len=column).wait()
    assert len(responses) == 2 and sum(r.final for r in responses) == 1
    rows = {int(r.outputs["batch_index"][0, 0]): r.outputs["output_ids"][0, 0].tolist() for r in responses}
    assert rows[0] == client.ask([5, 9, 200], 4, streaming=False).tokens
    assert rows[1] == client.ask([8, 7], 4, streaming=False).tokens


ERRORS = [
    (dict(request_output_len=0), "Assertion failed: request_output_len > 0"),
    (dict(beam_width=2), "beam search is not supported"),
    (dict(num_return_sequences=0), "Assertion failed: num_return_sequences"),
    (dict(temperature=-1.0), "Assertion failed: temperature"),
    (dict(temperature=float("nan")), "Assertion failed: temperature"),
    (dict(runtime_top_p=1.5), "Assertion failed: runtime_top_p"),
    (dict(runtime_top_k=-1), "Assertion failed: runtime_top_k"),
    (dict(repetition_penalty=0.0), "Assertion failed: repetition_penalty"),
    (dict(end_id=10**6), "EndId (1000000) is not within acceptable range"),
    (dict(seed=[1, 2]), "Invalid size for tensor seed"),
    (dict(input_ids=np.zeros((1, 0), np.int32)), "input_ids"),
    (dict(input_ids=[10**6]), "Assertion failed: 0 <= input_ids"),
    (dict(input_ids=[1] * 3000),
     "Executor failed process requestId 1 due to the following error: Encountered an error when fetching new request: "
     "Prompt length (3000) exceeds maximum input length (2047)."),
    (dict(embedding_bias=[0.0] * 5000), "Assertion failed: embedding_bias"),
    (dict(stop_words_list=np.array([[[1, 2, 3]]], np.int32)), "Sparse list must not have"),
    (dict(stop_words_list=np.array([[[1, 2], [3, -1]]], np.int32)), "Sparse list must not have"),
    (dict(bad_words_list=np.array([[[1, 2], [2, 1]]], np.int32)), "Sparse list must not have"),
    (dict(bad_words_list=np.array([[[1, 2], [-1, 2]]], np.int32)), "Sparse list must not have"),
    (dict(bad_words_list=np.array([[[1, 2], [0, 2]]], np.int32)), "Sparse list must not have"),
    *[({name: [1]}, name) for name in REFUSED],
    (dict(guided_decoding_guide_type=np.array([["json"]], object)), "GuidedDecoder is not setup"),
    (dict(wanted=frozenset({"output_ids"})), "Error encountered while populating response: sequence_length"),
]


@pytest.mark.parametrize(("values", "text"), ERRORS, ids=[text[:40] for _, text in ERRORS])
def test_refused(client: Any, values: dict[str, Any], text: str) -> None:
    recorder = client.ask(**{"prompt": PROMPT, "length": 4, **values})
    assert text in recorder.error and len(recorder.responses) == 1
    assert len(client.ask(PROMPT, 2).tokens) == 2  # and the engine goes on


def test_gathering_can_be_switched_off(make_client: Any) -> None:
    client = make_client(gather_context_logits=False, gather_generation_logits=False)
    assert "gather_context_logits" in client.ask(PROMPT, 2, return_context_logits=True).error
    assert "gather_generation_logits" in client.ask(PROMPT, 2, return_generation_logits=True).error


def test_disaggregated_request_type_is_refused(client: Any) -> None:
    recorder = Recorder()
    client.engine.receive(tensors(input_ids=PROMPT, input_lengths=5, request_output_len=2), recorder,
                          {"request_type": "context_only"})
    assert "disaggregated" in recorder.error


def test_stop_by_request_id(make_client: Any) -> None:
    client = make_client(step_interval_ms=5)
    victim = client.ask(PROMPT, 1000, request_id="a")
    whole = client.ask(PROMPT, 1000, request_id="b", streaming=False)
    while len(victim.responses) < 3:
        time.sleep(0.001)
    for name in ("a", "b", "unknown"):
        stopper = client.send(request_id=name, stop=True, input_ids=[0], input_lengths=1, request_output_len=0)
        (answer,) = stopper.wait()
        assert answer.final and not answer.error and not answer.outputs
    last = victim.wait(2)[-1]
    assert last.final and not last.error and last.outputs["output_ids"].shape == (1, 1, 0)
    assert whole.tokens == PROMPT
    assert "request id" in client.send(stop=True, input_lengths=1, request_output_len=0).error


def test_a_cancelled_caller_frees_its_slot(make_client: Any) -> None:
    client = make_client(step_interval_ms=2, max_batch_size=1)
    gone = client.ask(PROMPT, 1900)
    gone.cancelled = True
    started = time.monotonic()
    assert len(client.ask(PROMPT, 2).tokens) == 2
    assert time.monotonic() - started < 1
    assert gone.wait()[-1].outputs["sequence_length"] == 0


def test_queue_is_bounded_and_counts_sequences(make_client: Any) -> None:
    client = make_client(step_interval_ms=20, max_batch_size=1, max_queue_size=2)
    running = client.ask(PROMPT, 20)
    while not running.responses:
        time.sleep(0.001)
    waiting = client.ask(PROMPT, 2)
    assert "Maximum queue size of 2 has been reached" in client.ask(PROMPT, 2, num_return_sequences=2).error
    also = client.ask(PROMPT, 2)
    assert "Maximum queue size of 2 has been reached" in client.ask(PROMPT, 2).error
    assert len(running.tokens) == 20 and waiting.tokens == also.tokens


def test_a_failed_step_fails_what_runs_and_nothing_else(make_client: Any, runner: Any) -> None:
    breaking = Breaking(runner)
    client = make_client(breaking, step_interval_ms=2)
    running = client.ask(PROMPT, 500, num_return_sequences=2)
    while len(running.responses) < 4:
        time.sleep(0.001)
    breaking.broken = True
    assert running.error == "Encountered an error in forwardSync function: RuntimeError: out of something"
    assert len(client.ask(PROMPT, 3).tokens) == 3


def test_no_token_left_fails_one_request(client: Any, runner: Any) -> None:
    bias = np.full((1, runner.vocab_size), -np.inf, np.float32)
    assert "no token is left" in client.ask(PROMPT, 3, embedding_bias=bias).error
    assert len(client.ask(PROMPT, 3).tokens) == 3


def test_close_answers_what_runs(runner: Any) -> None:
    engine = Engine(runner, Settings(step_interval_ms=5))
    engine.start()
    running = Client(engine).ask(PROMPT, 1000)
    engine.close()
    assert "shutting down" in running.error


def test_gauges_follow(make_client: Any) -> None:
    seen: list[Any] = []
    client = make_client(publish=seen.append, step_interval_ms=3)
    assert client.ask(PROMPT, 60).tokens
    time.sleep(0.05)
    assert max(s.active for s in seen) == 1 and seen[-1].active == 0 and seen[-1].iterations >= 60
    assert len(seen) < 10


