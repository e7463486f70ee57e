"""Parameters of config.pbtxt, and that the file and the tables say the same."""

from __future__ import annotations

import re
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from engine.answer import OUTPUTS
from engine.metrics import Metrics
from engine.request import REFUSED, SCALARS, WITHOUT_EFFECT
from engine.scheduler import Stats
from engine.settings import Settings

CONFIG = (Path(__file__).resolve().parents[2] / "model_repository" / "tensorrt_llm" / "config.pbtxt").read_text()
READ_BY_NAME = {"lora_task_id", "lora_weights", "lora_config", "guided_decoding_guide_type", "guided_decoding_guide",
                "input_ids", "input_lengths", "stop", "end_id", "embedding_bias", "stop_words_list", "bad_words_list",
                "session_command", "session_id", "session_sequence_ids"}
SESSION_OUTPUTS = {"session_events", "session_log_probs", "session_top_ids", "session_top_log_probs", "session_texts"}


def test_defaults_and_placeholders() -> None:
    assert Settings.from_parameters({}) == Settings()
    assert Settings.from_parameters({"runner": "${runner}", "max_batch_size": " ", "unknown": "x"}) == Settings()
    read = Settings.from_parameters(
        {"max_batch_size": "8", "step_interval_ms": "0.5", "exclude_input_in_output": "TRUE"})
    assert (read.max_batch_size, read.step_interval_ms, read.exclude_input_in_output) == (8, 0.5, True)


def test_every_bad_value_is_named() -> None:
    with pytest.raises(ValueError) as caught:
        Settings.from_parameters({"max_queue_size": "-1", "step_interval_ms": "nan", "gather_context_logits": "yes",
                                  "prefill_chunk": "0", "threads": "2"})
    assert all(name in str(caught.value) for name in (
        "max_queue_size", "step_interval_ms", "gather_context_logits", "prefill_chunk"))
    assert "threads" not in str(caught.value)


def section(name: str) -> list[str]:
    return re.findall(r'name: "(\w+)"', CONFIG[CONFIG.index(f"\n{name} ["):].split("\n]")[0])


def test_config_declares_what_the_tables_know() -> None:
    known = READ_BY_NAME | {scalar.tensor for scalar in SCALARS} | set(REFUSED) | set(WITHOUT_EFFECT)
    assert set(section("input")) == known and len(section("input")) == len(known)
    produced = {output.name for output in OUTPUTS} | SESSION_OUTPUTS
    assert set(section("output")) - produced == {"context_phase_params"} and produced <= set(section("output"))


def test_config_parameters_are_the_settings_and_their_defaults() -> None:
    found = dict(re.findall(r'^parameters \{ key: "(\w+)" value: \{ string_value: "([^"]*)" \} \}$', CONFIG, re.M))
    assert set(found) == {field.name for field in fields(Settings)}
    assert Settings.from_parameters(found) == Settings()


def test_gauges() -> None:
    gauges: dict[tuple[str, ...], float] = {}
    count = 0

    class Gauge:
        def __init__(self, key: tuple[str, ...]):
            self.key = key

        def set(self, value: float) -> None:
            nonlocal count
            gauges[self.key] = value
            count += 1

    class Family:
        def __init__(self, name: str, description: str):
            self.name = name

        def Metric(self, labels: dict[str, str]) -> Any:
            assert (labels.pop("model"), labels.pop("version")) == ("m", "1")
            return Gauge((self.name, *labels.values()))

    metrics = Metrics(Family, "m", "1", 4, 130)
    metrics.publish(Stats(active=3, scheduled=2, context=1, used_blocks=6, iterations=9, context_tokens=40))
    assert gauges["nv_trt_llm_request_metrics", "waiting"] == 1
    assert gauges["nv_trt_llm_kv_cache_block_metrics", "max"] == 12
    assert gauges["nv_trt_llm_kv_cache_block_metrics", "fraction"] == 0.5
    assert gauges["nv_trt_llm_general_metrics", "iteration_counter"] == 9
    assert gauges["nv_trt_llm_inflight_batcher_metrics", "total_context_tokens"] == 40
    assert gauges["nv_trt_llm_inflight_batcher_metrics", "generation_requests"] == 1
    assert 10e6 < gauges["nv_trt_llm_runtime_memory_metrics", "cpu"] < 100e9
    assert abs(gauges["nv_trt_llm_general_metrics", "timestamp"] / 1e6 - time.time()) < 60
    before = count
    metrics.publish(Stats(active=0, scheduled=2, context=1, used_blocks=6, iterations=9))
    assert gauges["nv_trt_llm_request_metrics", "active"] == 0 and count - before <= 5
