"""What requests count as, and how Prometheus gets to know it, at Triton's own endpoint.

Each call of Triton's API (pb_utils.MetricFamily) is a round trip to the server process, and a metric that two threads
use at once ends the server (docs/decisions.md). So everything is counted here, in Python, and one thread tells Triton
once a second.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from call import Call
from metric_families import COUNTER, FAMILIES, GAUGE, HISTOGRAM, MODEL, PLACES, RUNNING, WAITING
from preprocessing.errors import Kind
from request_stats import RequestStats

INTERVAL = 1.0  # seconds between two flushes
# Of one series, observations that Triton is told per flush, and for how many flushes they may wait. Of what is more
# than that a random sample is kept: the shape of the distribution stays, its count does not. Requests come by the
# hundred a second at most; tokens come faster than Triton can be told.
MOST_TOLD = 200
MOST_TOLD_OF = {"openai_bls_inter_token_latency_seconds": 20}
MOST_FLUSHES = 25

# Paths that clients may write in any number of ways → what they count as; any other path is OTHER.
ENDPOINTS = ("chat/completions", "completions", "embeddings", "tokenize", "detokenize", "models")
OTHER = "other"
# Questions of the gateway, which are no requests of clients.
INTERNAL = frozenset({"health", "refusal"})
BY_MODEL = tuple(name for name, row in FAMILIES.items() if row.kind == COUNTER and row.labels == MODEL)
REJECTED = frozenset({Kind.QUEUE_FULL, Kind.QUEUE_TIMEOUT, Kind.UNAVAILABLE})

Series = tuple[str, tuple[str, ...]]
"""A family's name and the values of its labels."""


class Triton:
    """Triton's side of the metrics. To be used by one thread at a time."""

    def __init__(self) -> None:
        self._families: dict[str, Any] = {}
        self._metrics: dict[Series, Any] = {}

    def tell(self, series: Series, value: float) -> None:
        """Adds to a counter or a gauge, or observes.

        Raises:
            Exception: Triton does not take it, whatever the reason.
        """
        metric = self._metrics.get(series) or self._made(series)
        if FAMILIES[series[0]].kind == HISTOGRAM:
            metric.observe(value)
        else:
            metric.increment(value)

    def _made(self, series: Series) -> Any:
        name, values = series
        row = FAMILIES[name]
        if name not in self._families:
            kind = getattr(pb_utils.MetricFamily, row.kind.upper())
            self._families[name] = pb_utils.MetricFamily(name=name, description=row.about, kind=kind)
        options: dict[str, Any] = {"labels": dict(zip(row.labels, values, strict=True))}
        if row.buckets:
            options["buckets"] = list(row.buckets)
        made = self._metrics[series] = self._families[name].Metric(**options)
        if row.kind == GAUGE:
            made.set(0)  # an instance of this name that died may have left something
        return made


class Metrics:
    """Counts what happens to the calls of an instance.

    Args:
        instance: its name in Triton; gauges have it as a label, because what a dead one has left cannot be told from
            the rest otherwise. Counters and histograms of all instances add up.
        places: how many calls it takes at a time.
        calls: gives those that it has.
    """

    def __init__(
        self, instance: str, places: int, calls: Callable[[], Sequence[Call]], triton: Triton | None = None
    ) -> None:
        self._instance = instance
        self._calls = calls
        self._triton = triton or Triton()
        self._lock = threading.Lock()
        self._counts: dict[Series, float] = {}
        self._waiting: dict[Series, list[float]] = {}
        self._levels: dict[Series, float] = {(PLACES, (instance,)): places}
        self._told: dict[Series, float] = {}
        self._failed: set[str] = set()
        self._models: set[str] = set()
        self._started = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="metrics", daemon=True)

    def start(self) -> None:
        """From the first call on; before it there is nothing to tell."""
        if not self._started:
            self._started = True
            self._thread.start()

    def close(self) -> None:
        """Tells the rest; the gauges go back to 0."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        if not self._thread.is_alive():
            self._levels = dict.fromkeys(self._levels, 0.0)
            self._flush(self._levels)

    def ended(self, call: Call) -> None:
        """Counts a call that has ended. Called once for each, from any thread."""
        stats = call.stats
        if stats.endpoint in INTERNAL:
            return
        endpoint, model = endpoint_label(stats.endpoint), stats.model
        answered = not stats.cancelled and stats.error is None
        with self._lock:
            if call.heard or answered:
                self._progress(call)
            if stats.cancelled:
                self._count("openai_bls_request_cancelled_total", endpoint, model)
            elif stats.error is not None:
                kind = stats.error.kind
                self._count("openai_bls_request_errors_total", endpoint, model, str(stats.error.status), kind.value)
                if kind in REJECTED:
                    self._count("openai_bls_request_rejected_total", endpoint, kind.value)
            else:
                reason = (call.answer and call.answer.finish_reason) or "none"
                self._count("openai_bls_request_success_total", endpoint, model, reason)
                self._observe_request(call, stats)

    def flush(self) -> None:
        """Tells Triton what is new. For one thread at a time."""
        calls = self._calls()
        with self._lock:
            for call in calls:
                if call.heard:
                    self._progress(call)
        self._flush(self._measured(calls))

    def _loop(self) -> None:
        while not self._closed.wait(INTERVAL):
            try:
                self.flush()
            except Exception as error:  # whatever it is, requests must not suffer from it
                pb_utils.Logger.log_error(f"openai_bls: {error!r} while publishing metrics")

    def _count(self, name: str, *labels: str, by: float = 1) -> None:
        series = name, labels
        self._counts[series] = self._counts.get(series, 0) + by

    def _observe(self, name: str, model: str, values: Iterable[float]) -> None:
        self._waiting.setdefault((name, (model,)), []).extend(values)

    def _progress(self, call: Call) -> None:
        """Counts what a call has got since the last look."""
        stats, model = call.stats, call.stats.model
        if model not in self._models:  # from 0 on, so that the first one counts as growth
            self._models.add(model)
            for name in BY_MODEL:
                self._count(name, model, by=0)
        if stats.first_token is not None and not stats.first_counted:
            stats.first_counted = True
            self._observe("openai_bls_time_to_first_token_seconds", model, [stats.first_token - stats.started])
            if stats.queued is not None:
                self._observe("openai_bls_request_queue_time_seconds", model, [stats.queued])
        if gaps := stats.gaps:
            count = len(gaps)  # more may be appended meanwhile
            self._observe("openai_bls_inter_token_latency_seconds", model, gaps[:count])
            del gaps[:count]
        now = tokens_of(call)
        for name, before, after in zip(
            (
                "openai_bls_prompt_tokens_total",
                "openai_bls_prompt_tokens_cached_total",
                "openai_bls_generation_tokens_total",
            ),
            stats.counted,
            now,
            strict=True,
        ):
            if after > before:
                self._count(name, model, by=after - before)
        stats.counted = now

    def _observe_request(self, call: Call, stats: RequestStats) -> None:
        """What is told once of a request that was answered."""
        prompt, _, generated = stats.counted
        if not prompt:
            return  # it was no work for a model
        model = stats.model
        self._observe("openai_bls_e2e_request_latency_seconds", model, [stats.ended - stats.started])
        self._observe("openai_bls_request_prompt_tokens", model, [prompt])
        if call.answer is None:
            return
        self._observe("openai_bls_request_generation_tokens", model, [generated])
        if failed := call.answer.failed_calls:
            self._count("openai_bls_tool_call_parse_failures_total", model, by=failed)
        if generated > 1 and stats.first_token is not None:
            per_token = (stats.last_token - stats.first_token) / (generated - 1)
            self._observe("openai_bls_request_time_per_output_token_seconds", model, [per_token])

    def _measured(self, calls: Sequence[Call]) -> dict[Series, float]:
        """The gauges as they are now: those that were there before stay."""
        levels = {series: 0.0 if series[0] in (RUNNING, WAITING) else level for series, level in self._levels.items()}
        for call in calls:
            labels = call.stats.model, self._instance
            for name, counts in ((RUNNING, call.heard), (WAITING, not call.heard)):
                levels[name, labels] = levels.get((name, labels), 0) + counts
        self._levels = levels
        return levels

    def _flush(self, levels: dict[Series, float]) -> None:
        with self._lock:
            counts, self._counts = self._counts, {}
            waiting = self._waiting.items()
            observed = [(series, value) for series, values in waiting for value in taken(series[0], values)]
        for series, value in (*counts.items(), *observed):
            self._tell(series, value)
        for series, level in levels.items():
            # By the difference, because pb_utils holds Python's lock while it sets, not while it adds.
            if (before := self._told.get(series)) != level:
                self._told[series] = level
                self._tell(series, level - (before or 0))

    def _tell(self, series: Series, value: float) -> None:
        try:
            self._triton.tell(series, value)
        except Exception as error:
            if series[0] not in self._failed:
                self._failed.add(series[0])
                pb_utils.Logger.log_warn(f"openai_bls: Triton does not take the metric {series[0]}: {error}")


def endpoint_label(path: str) -> str:
    """A path after /v1/ as one of few values."""
    first = path.split("/", 1)[0]
    return path if path in ENDPOINTS else "models" if first == "models" else OTHER


def tokens_of(call: Call) -> tuple[int, int, int]:
    """Of the prompt, of these cached, and of the answer so far."""
    if call.answer is None:
        return call.stats.prompt_tokens, 0, 0
    usage = call.answer.usage
    return usage.prompt_tokens, usage.cached_tokens or 0, usage.completion_tokens


def taken(name: str, values: list[float]) -> list[float]:
    """Takes out what may be told now."""
    most = MOST_TOLD_OF.get(name, MOST_TOLD)
    if len(values) > most * MOST_FLUSHES:
        values[:] = random.sample(values, most * MOST_FLUSHES)
    now = values[:most]
    del values[:most]
    return now
