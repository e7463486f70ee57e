"""Stats of the scheduler -> the gauges of TensorRT-LLM's backend (contract F).

In: Stats, and a function that makes a gauge family (Triton's, or a test's). Out: set gauges, only those that changed.
It does not know when to publish.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .prefix_cache import TOKENS_PER_BLOCK, blocks
from .scheduler import Stats

Key = tuple[str, str]  # family, value of its label

FAMILIES = {
    "nv_trt_llm_request_metrics": ("request_type", "TRT LLM request metrics"),
    "nv_trt_llm_kv_cache_block_metrics": ("kv_cache_block_type", "TRT LLM KV cache block metrics"),
    "nv_trt_llm_general_metrics": ("general_type", "General TRT LLM metrics"),
    "nv_trt_llm_runtime_memory_metrics": ("memory_type", "TRT LLM runtime memory metrics"),
    "nv_trt_llm_inflight_batcher_metrics": (
        "inflight_batcher_specific_metric", "TRT LLM inflight_batcher-specific metrics"),
}
"""Family -> the label that tells its gauges apart, description."""


class Metrics:
    """`make_family(name, description)` returns something with Metric(labels=...), whose gauges have set(value)."""

    def __init__(self, make_family: Callable[[str, str], Any], model: str, version: str, max_batch_size: int,
                 max_seq_len: int):
        self._labels = {"model": model, "version": version}
        self._make_family = make_family
        self._families: dict[str, Any] = {}
        self._max_batch_size = max_batch_size
        self._max_blocks = max_batch_size * blocks(max_seq_len)
        self._gauges: dict[Key, Any] = {}
        self._values: dict[Key, float] = {}

    def publish(self, stats: Stats) -> None:
        """Sets what has changed."""
        for key, value in self._readings(stats):
            if self._values.get(key) != value:
                self._gauge(key).set(value)
                self._values[key] = value

    def _gauge(self, key: Key) -> Any:
        if key not in self._gauges:
            family, kind = key
            label, description = FAMILIES[family]
            if family not in self._families:
                self._families[family] = self._make_family(family, description)
            labels = self._labels | {label: kind}
            self._gauges[key] = self._families[family].Metric(labels=labels)
        return self._gauges[key]

    def _readings(self, stats: Stats) -> Iterator[tuple[Key, float]]:
        used, most = stats.used_blocks, self._max_blocks
        for family, values in (
            ("nv_trt_llm_request_metrics", {
                "active": stats.active, "max": self._max_batch_size, "scheduled": stats.scheduled,
                "context": stats.context, "waiting": max(0, stats.active - stats.scheduled)}),
            ("nv_trt_llm_kv_cache_block_metrics", {
                "max": most, "free": most - used, "used": used, "tokens_per": TOKENS_PER_BLOCK,
                "reused": stats.reused_blocks, "fraction": used / most}),
            ("nv_trt_llm_inflight_batcher_metrics", {
                "total_context_tokens": stats.context_tokens, "generation_requests": stats.scheduled - stats.context,
                "micro_batch_id": 0, "paused_requests": 0}),
            ("nv_trt_llm_runtime_memory_metrics", {"cpu": resident_bytes()}),
            # Microseconds, as in TensorRT-LLM 1.x.
            ("nv_trt_llm_general_metrics", {
                "timestamp": time.time_ns() // 1000, "iteration_counter": stats.iterations}),
        ):
            for kind, value in values.items():
                if (family, kind) not in stats.more:
                    yield (family, kind), value
        yield from stats.more.items()


def resident_bytes() -> int:
    """What this process has in memory: weights and caches, in the main."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
