"""The trtllm runner over a stand-in for TensorRT-LLM with the real API's signatures (tests/engine/standin)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import trtllm_api
from engine.engine import Engine
from engine.load import load
from engine.metrics import Metrics
from engine.sampler import log_softmax
from engine.settings import Settings
from tests.engine.client import PROMPT, Client, words
from tests.engine.test_session import Caller

STANDIN = Path(__file__).parent / "standin"
VOCAB_SIZE = 300


@pytest.fixture
def trtllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, imported as tensorrt_llm, with nothing remembered."""
    monkeypatch.syspath_prepend(str(STANDIN))
    import tensorrt_llm

    yield tensorrt_llm
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt_llm"]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text(json.dumps({"vocab_size": VOCAB_SIZE, "max_position_embeddings": 64}))
    return checkpoint


@pytest.fixture
def make(trtllm: Any, folder: Path) -> Iterator[Callable[..., Client]]:
    engines: list[Engine] = []

    def started(publish: Any = lambda stats: None, **settings: Any) -> Client:
        usual = {"runner": "trtllm", "checkpoint": str(folder), "gather_generation_logits": False}
        chosen = Settings(**usual | settings)
        runner, where = load(chosen)
        engine = Engine(runner, chosen, str(where), publish)
        engine.start()
        engines.append(engine)
        return Client(engine)

    yield started
    for engine in engines:
        engine.close()
    assert all(llm.down for llm in trtllm.behaviour.made)


@pytest.fixture
def client(make: Callable[..., Client]) -> Client:
    return make()


def params(trtllm: Any, number: int = -1) -> Any:
    return trtllm.behaviour.made[-1].requests[number].params


def test_arguments_of_llm(make: Any, trtllm: Any, folder: Path) -> None:
    make(max_batch_size=8, kv_cache_reuse_tokens=0)
    llm = trtllm.behaviour.made[-1]
    assert llm.model == str(folder)
    assert llm.arguments["kv_cache_config"].enable_block_reuse is False
    del llm.arguments["kv_cache_config"]
    assert llm.arguments == {"skip_tokenizer_init": True, "max_batch_size": 8, "max_seq_len": 64,
                             "enable_iter_perf_stats": True}


def test_options_go_before_all_others(make: Any, trtllm: Any, folder: Path) -> None:
    options = folder / "options.json"
    options.write_text(json.dumps({
        "tensor_parallel_size": 2, "max_seq_len": 32,
        "speculative_config": {"decoding_type": "NGram", "max_draft_len": 4},
        "kv_cache_config": {"free_gpu_memory_fraction": 0.5, "tokens_per_block": 64}}))
    client = make(llm_options=str(options))
    arguments = trtllm.behaviour.made[-1].arguments
    assert (arguments["tensor_parallel_size"], arguments["max_seq_len"]) == (2, 32)
    cache = arguments["kv_cache_config"]
    assert (cache.free_gpu_memory_fraction, cache.enable_block_reuse) == (0.5, True)
    assert arguments["speculative_config"].max_draft_len == 4
    hello = json.loads(Caller(client).send(0).wait()[0].outputs["session_texts"][0, 0])
    assert (hello["max_seq_len"], hello["tokens_per_block"], hello["guide_types"]) == (32, 64, [])


@pytest.mark.parametrize("change, words_of_error", [
    ({"guided_decoding_backend": "outlines"}, "guided_decoding_backend: wanted xgrammar or llguidance"),
    ({"llm_options": "/nowhere.json"}, "llm_options"),
    ({"lora_dir": "/nowhere"}, "lora_dir"),
])
def test_wrong_settings(make: Any, change: dict[str, str], words_of_error: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words_of_error):
        make(**change)


def test_without_tensorrt_llm(folder: Path) -> None:
    with pytest.raises(ImportError, match="the trtllm runner needs TensorRT-LLM 1.0"):
        load(Settings(runner="trtllm", checkpoint=str(folder)))


def test_too_old(make: Any, trtllm: Any) -> None:
    trtllm.__version__ = "0.21.0"
    with pytest.raises(ImportError, match="found 0.21.0"):
        make()


def test_streams_token_by_token(client: Any, trtllm: Any) -> None:
    responses = client.ask(PROMPT, 4).wait()
    assert [r.outputs["output_ids"].tolist() for r in responses if r.outputs["output_ids"].size]
    assert client.ask(PROMPT, 4).tokens == trtllm.following(PROMPT, 4)
    assert responses[-1].final and sum(int(r.outputs["sequence_length"][0, 0]) for r in responses) == 4


def test_not_streamed_comes_at_once(client: Any, trtllm: Any) -> None:
    (response,) = client.ask(PROMPT, 4, streaming=False).wait()
    assert response.outputs["output_ids"][0, 0].tolist() == PROMPT + trtllm.following(PROMPT, 4)


@pytest.mark.parametrize("shown", [True, False])
def test_end_id_is_never_shown(client: Any, trtllm: Any, shown: bool) -> None:
    trtllm.behaviour.show_end = shown
    expected = trtllm.following(PROMPT, 6)
    recorder = client.ask(PROMPT, 20, end_id=expected[3])
    assert recorder.tokens == expected[:3]
    assert recorder.responses[-1].outputs["output_ids"].size == 0  # that is how a caller knows it


def test_stop_words_are_shown(client: Any, trtllm: Any) -> None:
    expected = trtllm.following(PROMPT, 8)
    stops = words((expected[5],), (expected[2], expected[3]))
    assert client.ask(PROMPT, 20, stop_words_list=stops).tokens == expected[:4]
    assert params(trtllm).stop_token_ids == [expected[5]] and params(trtllm).include_stop_str_in_output
    trtllm.behaviour.step_seconds = 0.05  # slow enough that it is still running when it is aborted
    assert client.ask(PROMPT, 20, stop_words_list=words((expected[2], expected[3]))).tokens == expected[:4]
    request = trtllm.behaviour.made[-1].requests[-1]
    deadline = time.monotonic() + 10
    while not request.aborted() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert request.aborted()


def test_several_tokens_in_a_result(client: Any, trtllm: Any) -> None:
    """With speculative decoding results run on behind a stop word."""
    trtllm.behaviour.per_result = 3
    expected = trtllm.following(PROMPT, 8)
    assert client.ask(PROMPT, 8).tokens == expected
    assert client.ask(PROMPT, 8, stop_words_list=words((expected[2], expected[3]))).tokens == expected[:4]


def test_sampling_parameters(client: Any, trtllm: Any) -> None:
    client.ask(PROMPT, 2).wait()
    greedy = params(trtllm)
    assert (greedy.top_k, greedy.top_p, greedy.temperature, greedy.seed) == (1, None, None, 0)
    assert (greedy.end_id, greedy.pad_id, greedy.ignore_eos, greedy.detokenize) == (-1, 0, True, False)
    assert (greedy.repetition_penalty, greedy.logprobs, greedy.embedding_bias) == (None, None, None)
    client.ask(PROMPT, 2, temperature=0.5, runtime_top_p=0.9, runtime_top_k=7, seed=2**64 - 1, min_tokens=3, end_id=9,
               repetition_penalty=1.5, presence_penalty=0.25, frequency_penalty=-0.5).wait()
    chosen = params(trtllm)
    assert (chosen.temperature, chosen.top_k, round(chosen.top_p, 6)) == (0.5, 7, 0.9)
    assert (chosen.seed, chosen.min_tokens, chosen.end_id, chosen.ignore_eos) == (2**64 - 1, 3, 9, False)
    assert (chosen.repetition_penalty, chosen.presence_penalty, chosen.frequency_penalty) == (1.5, 0.25, -0.5)
    assert (chosen.top_p_min, chosen.top_p_decay, chosen.top_p_reset_ids) == (None, None, None)


def test_bias_and_bad_words(client: Any, trtllm: Any) -> None:
    first = trtllm.following(PROMPT, 1)[0]
    tokens = client.ask(PROMPT, 1, bad_words_list=words((first,))).tokens
    assert tokens == [(first + 1) % VOCAB_SIZE]
    bias = np.zeros((1, VOCAB_SIZE), np.float32)
    bias[0, 17] = 100
    assert client.ask(PROMPT, 2, embedding_bias=bias).tokens == [17, 17]
    assert "bad words of one token" in client.ask(PROMPT, 1, bad_words_list=words((1, 2))).error


def test_several_sequences_differ_by_seed(client: Any, trtllm: Any) -> None:
    recorder = client.ask(PROMPT, 3, num_return_sequences=3, seed=5, runtime_top_p=1.0)
    found: dict[int, list[int]] = {}
    for response in recorder.wait():
        index = int(response.outputs["sequence_index"][0, 0])
        found.setdefault(index, []).extend(response.outputs["output_ids"][0, 0].tolist())
    assert found == {index: trtllm.following(PROMPT, 3, 5 + index) for index in range(3)}


def test_log_probs_and_alternatives_in_a_session(client: Any, trtllm: Any) -> None:
    caller = Caller(client)
    caller.submit(1, 3, return_log_probs=True, session_top_log_probs=2)
    (record,) = caller.drain()
    expected = trtllm.following(PROMPT, 3)
    assert record.tokens == expected and params(trtllm).logprobs == 2
    values = log_softmax(np.array([-0.1 * place for place in range(VOCAB_SIZE)], np.float32))
    assert np.allclose(record.log_probs, values[0], atol=1e-5)
    ids, scores = zip(*record.top, strict=True)
    assert list(ids) == [i for token in expected for i in (token, (token + 1) % VOCAB_SIZE)]
    assert np.allclose(scores, [values[0], values[1]] * 3, atol=1e-5)


def test_a_log_prob_that_is_missing_is_not_invented(client: Any, trtllm: Any) -> None:
    trtllm.behaviour.chosen_among_log_probs = False
    bias = np.zeros((1, VOCAB_SIZE), np.float32)
    bias[0, 17] = 100
    assert "log prob of the chosen token is missing" in client.ask(
        PROMPT, 2, embedding_bias=bias, return_log_probs=True).error


@pytest.mark.parametrize("when", ["first", "last"])
def test_log_probs_of_the_prompt_come_first(client: Any, trtllm: Any, when: str) -> None:
    trtllm.behaviour.context_logits_with = when
    caller = Caller(client)
    caller.submit(1, 3, num_return_sequences=2, session_prompt_log_probs=True, session_top_log_probs=1)
    records = caller.drain(2)
    assert [record.tokens for record in records] == [trtllm.following(PROMPT, 3)] * 2
    (prompt,) = caller.prompts
    following = [trtllm.following(PROMPT[: end + 1], 1)[0] for end in range(len(PROMPT) - 1)]
    assert [token for token, _ in prompt.top] == following
    values = log_softmax(np.array([-0.1 * place for place in range(VOCAB_SIZE)], np.float32))
    places = [(token - best) % VOCAB_SIZE for token, best in zip(PROMPT[1:], following, strict=True)]
    assert np.allclose(prompt.log_probs, values[places], atol=1e-4)


@pytest.mark.parametrize("change, words_of_error", [
    ({"context_logits_with": "never"}, "the logits of the prompt have not come"),
    ({"context_rows_missing": 2}, "5 prompt tokens have 3 rows"),
])
def test_logits_of_the_prompt_that_are_missing(client: Any, trtllm: Any, change: Any, words_of_error: str) -> None:
    for name, value in change.items():
        setattr(trtllm.behaviour, name, value)
    assert words_of_error in client.ask(PROMPT, 3, return_context_logits=True).error


def test_logits(make: Any, trtllm: Any) -> None:
    client = make(gather_generation_logits=True)
    assert trtllm.behaviour.made[-1].arguments["gather_generation_logits"]
    responses = client.ask(PROMPT, 3, return_context_logits=True, return_generation_logits=True).wait()
    assert responses[0].outputs["context_logits"].shape == (1, len(PROMPT), VOCAB_SIZE)
    rows = np.concatenate([r.outputs["generation_logits"][0, 0] for r in responses])
    assert rows.argmax(-1).tolist() == trtllm.following(PROMPT, 3)


def test_reused_tokens_and_performance(client: Any, trtllm: Any) -> None:
    trtllm.behaviour.cached_tokens = 4
    caller = Caller(client)
    caller.submit(1, 2)
    caller.drain()
    assert [prompt.tokens for prompt in caller.prompts] == [[4]]
    last = client.ask(PROMPT, 2, return_perf_metrics=True).wait()[-1].outputs
    expected = {"kv_cache_alloc_total_blocks": 5, "kv_cache_alloc_new_blocks": 3, "kv_cache_reused_blocks": 2,
                "first_scheduled_time_ns": 1_500_000_000, "total_accepted_draft_tokens": 4, "total_draft_tokens": 8}
    assert {name: int(last[name][0, 0]) for name in expected} == expected
    assert last["acceptance_rate"][0, 0] == 0.5


@pytest.mark.parametrize("kind, text, field, value", [
    ("json", "", "json_object", True),
    ("json_schema", '{"type": "object"}', "json", '{"type": "object"}'),
    ("regex", "a+", "regex", "a+"),
    ("ebnf_grammar", 'root ::= "a"', "grammar", 'root ::= "a"'),
    ("structural_tag", "{}", "structural_tag", "{}"),
])
def test_guides(make: Any, trtllm: Any, kind: str, text: str, field: str, value: Any) -> None:
    client = make(guided_decoding_backend="xgrammar")
    arguments = trtllm.behaviour.made[-1].arguments
    assert arguments["guided_decoding_backend"] == "xgrammar" and not arguments["skip_tokenizer_init"]
    given = {"guided_decoding_guide": text} if text else {}
    client.ask(PROMPT, 2, guided_decoding_guide_type=kind, **given).wait()
    assert getattr(params(trtllm).guided_decoding, field) == value


def test_guides_that_are_not_there(make: Any) -> None:
    asked = {"guided_decoding_guide_type": "structural_tag", "guided_decoding_guide": "{}"}
    assert "GuidedDecoder is not setup" in make().ask(PROMPT, 2, **asked).error
    assert "wanted one of json, " in make(guided_decoding_backend="llguidance").ask(PROMPT, 2, **asked).error


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """Three adapters, one of them with a number for a name, and something else."""
    for name, config in (
        ("12", {"r": 8, "target_modules": ["q_proj", "down_proj"]}),
        ("sheep", {"r": 4, "rank_pattern": {"up_proj": 16}, "target_modules": ["model.layers.0.mlp.up_proj"]}),
        ("doll", {"r": 8, "target_modules": ["o_proj"]}),
    ):
        adapter = tmp_path / "adapters" / name
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapters" / "no adapter").mkdir()
    return tmp_path / "adapters"


def test_lora(make: Any, trtllm: Any, adapters: Path) -> None:
    client = make(lora_dir=str(adapters))
    config = trtllm.behaviour.made[-1].arguments["lora_config"]
    assert (config.max_lora_rank, config.max_loras, config.max_cpu_loras) == (16, 3, 3)
    assert not config.lora_dir  # the API takes one adapter there, or none
    assert config.lora_target_modules == ["attn_dense", "attn_k", "attn_q", "attn_v", "mlp_4h_to_h", "mlp_gate"]
    hello = json.loads(Caller(client).send(0).wait()[0].outputs["session_texts"][0, 0])
    assert hello["lora_adapters"] == {"12": 12, "doll": 13, "sheep": 14}
    for name, task_id in hello["lora_adapters"].items():
        client.ask(PROMPT, 2, lora_task_id=np.array([[task_id]], np.uint64)).wait()
        used = trtllm.behaviour.made[-1].requests[-1].lora_request
        assert (used.lora_name, used.lora_int_id, used.lora_path) == (name, task_id, str(adapters / name))
    client.ask(PROMPT, 2).wait()
    assert trtllm.behaviour.made[-1].requests[-1].lora_request is None


def test_lora_that_it_does_not_have(make: Any, adapters: Path) -> None:
    client = make(lora_dir=str(adapters))
    assert "LoRA task 4" in client.ask(PROMPT, 2, lora_task_id=np.array([[4]], np.uint64)).error
    weights = {"lora_weights": np.ones((1, 1, 8), np.float16), "lora_config": np.array([[[1, 0, 1]]], np.int32)}
    assert "lora_dir only" in client.ask(PROMPT, 2, lora_task_id=np.array([[12]], np.uint64), **weights).error


def test_lora_for_modules_that_it_does_not_know(make: Any, adapters: Path) -> None:
    for targets, known in (("all-linear", True), (["fc1"], False)):
        (adapters / "doll" / "adapter_config.json").write_text(json.dumps({"r": 8, "target_modules": targets}))
        if known:
            make(lora_dir=str(adapters))
        else:
            with pytest.raises(ValueError, match="no LoRA for fc1"):
                make(lora_dir=str(adapters))


def test_cancelling(client: Any, trtllm: Any) -> None:
    trtllm.behaviour.step_seconds = 0.02
    caller = Caller(client)
    caller.submit(1, 50, num_return_sequences=2).wait()
    while not caller.poll():
        pass
    caller.send(3, session_sequence_ids=[1]).wait()
    assert [record.status for record in caller.drain(2)] == [4, 4]
    requests = trtllm.behaviour.made[-1].requests
    assert requests and all(request.aborted() for request in requests)


def test_a_failure_ends_the_whole_request(client: Any, trtllm: Any) -> None:
    trtllm.behaviour.fail_after = 2
    error = client.ask(PROMPT, 5, num_return_sequences=2).error
    assert error == "Encountered an error in generate: RuntimeError: CUDA error: out of something"
    trtllm.behaviour.fail_after = -1
    assert client.ask(PROMPT, 2).tokens == trtllm.following(PROMPT, 2)


def test_queue(make: Any, trtllm: Any) -> None:
    trtllm.behaviour.step_seconds = 0.05
    client = make(max_batch_size=1, max_queue_size=1)
    running = [client.ask(PROMPT, 3) for _ in range(2)]
    assert "Maximum queue size of 1 has been reached" in client.ask(PROMPT, 3).error
    assert all(len(recorder.tokens) == 3 for recorder in running)


def test_closing_ends_what_runs(make: Any, trtllm: Any) -> None:
    trtllm.behaviour.step_seconds = 0.05
    client = make()
    recorder = client.ask(PROMPT, 50)
    time.sleep(0.1)
    client.engine.close()
    assert recorder.error == "the engine is shutting down"
    client.engine.close = lambda: None  # type: ignore[method-assign]


def test_gauges(make: Any, trtllm: Any) -> None:
    gauges: dict[tuple[str, ...], float] = {}

    class Family:
        def __init__(self, name: str, description: str):
            self.name = name

        def Metric(self, labels: dict[str, str]) -> Any:
            key = (self.name, *list(labels.values())[2:])
            return type("Gauge", (), {"set": lambda _, value: gauges.__setitem__(key, value)})()

    make(publish=Metrics(Family, "m", "1", 4, 64).publish)
    trtllm.behaviour.made[-1].stats.append({
        "iter": 7, "gpuMemUsage": 5e9, "maxNumActiveRequests": 64,
        "kvCacheStats": {"maxNumBlocks": 100, "freeNumBlocks": 75, "usedNumBlocks": 25, "tokensPerBlock": 32},
        "inflightBatchingStats": {"numGenRequests": 3, "numCtxTokens": 11}})
    deadline = time.monotonic() + 5
    while ("nv_trt_llm_runtime_memory_metrics", "gpu") not in gauges and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gauges["nv_trt_llm_runtime_memory_metrics", "gpu"] == 5e9
    assert gauges["nv_trt_llm_kv_cache_block_metrics", "fraction"] == 0.25
    assert gauges["nv_trt_llm_kv_cache_block_metrics", "tokens_per"] == 32
    assert gauges["nv_trt_llm_inflight_batcher_metrics", "total_context_tokens"] == 0  # nothing runs any more
    iteration = {"inflightBatchingStats": {"numCtxTokens": 11, "numScheduledRequests": 9}}
    busy = trtllm_api.stats(iteration, active=3)
    assert busy.more["nv_trt_llm_inflight_batcher_metrics", "total_context_tokens"] == 11 and busy.scheduled == 3
    assert gauges["nv_trt_llm_request_metrics", "max"] == 64
    assert gauges["nv_trt_llm_general_metrics", "iteration_counter"] == 7
