"""What requests count as, and what Triton is told of it; docs/metrics.md has the table of families.

`python -m tests.front.test_metrics` writes that table anew.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metric_families import COUNTER, FAMILIES, HISTOGRAM, SECONDS
from postprocessing.events import Event, Status
from postprocessing.shapes import Usage
from preprocessing.errors import Kind, OpenAIError
from request_stats import RequestStats

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "metrics.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"
Series = tuple[str, tuple[str, ...]]


class Recorder:
    """Triton's side: sums of counters and gauges, observations of histograms."""

    def __init__(self) -> None:
        self.sums: Counter[Series] = Counter()
        self.seen: dict[Series, list[float]] = {}
        self.calls = 0

    def tell(self, series: Series, value: float) -> None:
        self.calls += 1
        if FAMILIES[series[0]].kind == HISTOGRAM:
            self.seen.setdefault(series, []).append(value)
        else:
            self.sums[series] += value


class Calls(list[Any]):
    """The calls that are under way."""

    def new(self, endpoint: str = "chat/completions", model: str = "m", started: float = 10.0) -> Any:
        stats = RequestStats(endpoint, started)
        stats.model = model
        made = SimpleNamespace(stats=stats, answer=None, heard=False)
        self.append(made)
        return made

    def writing(self, prompt: int, tokens: int, cached: int = 0, **of_answer: Any) -> Any:
        """One that has so many tokens by now."""
        call = self.new()
        call.heard = True
        usage = Usage(prompt, tokens, cached)
        call.answer = SimpleNamespace(**{"usage": usage, "finish_reason": "stop", "failed_calls": 0, **of_answer})
        return call


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def triton() -> Recorder:
    return Recorder()


@pytest.fixture
def metrics_of(calls: Calls, triton: Recorder) -> Any:
    import metrics

    return metrics.Metrics("openai_bls_0_0", 512, lambda: list(calls), triton)  # type: ignore[arg-type]


def named(name: str) -> str:
    return "openai_bls_" + name


def test_an_answer_is_counted_as_it_grows_and_when_it_ends(metrics_of: Any, calls: Calls, triton: Recorder) -> None:
    call = calls.writing(7, 2, cached=4)
    for tokens, at in ((1, 10.5), (1, 10.75)):
        call.stats.see(Event([5] * tokens), at)
    metrics_of.flush()
    assert triton.sums[named("generation_tokens_total"), ("m",)] == 2
    assert triton.sums[named("prompt_tokens_total"), ("m",)] == 7
    assert triton.sums[named("prompt_tokens_cached_total"), ("m",)] == 4
    assert triton.seen[named("time_to_first_token_seconds"), ("m",)] == [0.5]
    assert named("request_success_total") not in {name for name, _ in triton.sums}

    call.stats.see(Event((5,)), 11.5)
    call.answer.usage = Usage(7, 3, 4)
    call.stats.ended = 12.0
    calls.clear()
    metrics_of.ended(call)
    metrics_of.flush()
    assert triton.sums[named("generation_tokens_total"), ("m",)] == 3
    assert triton.sums[named("prompt_tokens_total"), ("m",)] == 7
    assert triton.sums[named("request_success_total"), ("chat/completions", "m", "stop")] == 1
    assert {name.removeprefix("openai_bls_"): seen for (name, _), seen in triton.seen.items()} == {
        "time_to_first_token_seconds": [0.5],
        "inter_token_latency_seconds": [0.25, 0.75],
        "request_time_per_output_token_seconds": [0.5],
        "e2e_request_latency_seconds": [2.0],
        "request_prompt_tokens": [7],
        "request_generation_tokens": [3],
    }


def test_gaps_are_those_of_a_sequence(calls: Calls) -> None:
    stats = calls.new().stats
    for sequence, at in ((0, 11.0), (1, 11.5), (0, 12.0), (1, 12.25)):
        stats.see(Event((5,), sequence=sequence), at)
    stats.see(Event((), Status.LENGTH), 13.0)
    assert stats.gaps == [1.0, 0.75] and (stats.first_token, stats.last_token) == (11.0, 12.25)


def test_the_wait_in_the_queue_is_the_engines_word(metrics_of: Any, calls: Calls, triton: Recorder) -> None:
    for numbers in ((3,), (3, 250_000)):
        call = calls.writing(7, 1)
        call.stats.see(Event(numbers, Status.PROMPT), 11.0)
        call.stats.see(Event((5,)), 12.0)
    metrics_of.flush()
    assert triton.seen[named("request_queue_time_seconds"), ("m",)] == [0.25]


def test_an_error_counts_by_status_and_kind(metrics_of: Any, calls: Calls, triton: Recorder) -> None:
    for kind in (Kind.INVALID, Kind.QUEUE_FULL, Kind.QUEUE_FULL, Kind.TIMEOUT):
        call = calls.new("completions", "unknown")
        call.stats.error = OpenAIError(kind, "no")
        metrics_of.ended(call)
    calls.clear()
    metrics_of.flush()
    errors = {labels: count for (name, labels), count in triton.sums.items() if name == named("request_errors_total")}
    assert errors == {
        ("completions", "unknown", "400", "invalid"): 1,
        ("completions", "unknown", "429", "queue_full"): 2,
        ("completions", "unknown", "504", "timeout"): 1,
    }
    assert triton.sums[named("request_rejected_total"), ("completions", "queue_full")] == 2
    assert not triton.seen


def test_who_leaves_is_counted_with_the_tokens_so_far(metrics_of: Any, calls: Calls, triton: Recorder) -> None:
    call = calls.writing(7, 5)
    call.stats.cancelled = True
    call.stats.error = OpenAIError(Kind.UNAVAILABLE, "The client has gone.")
    calls.clear()
    metrics_of.ended(call)
    metrics_of.flush()
    assert triton.sums[named("request_cancelled_total"), ("chat/completions", "m")] == 1
    assert triton.sums[named("generation_tokens_total"), ("m",)] == 5
    assert not any(name.endswith(("success_total", "errors_total", "rejected_total")) for name, _ in triton.sums)


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("embeddings", "embeddings"),
        ("models", "models"),
        ("models/a/b", "models"),
        ("models-of-mine", "other"),
        ("completions/x", "other"),
        ("../etc", "other"),
        ("", "other"),
    ],
)
def test_endpoints_are_few(metrics_of: Any, calls: Calls, triton: Recorder, path: str, label: str) -> None:
    metrics_of.ended(calls.new(path))
    calls.clear()
    metrics_of.flush()
    assert triton.sums[named("request_success_total"), (label, "m", "none")] == 1
    assert not triton.seen


@pytest.mark.parametrize("path", ["health", "refusal"])
def test_questions_of_the_gateway_do_not_count(metrics_of: Any, calls: Calls, triton: Recorder, path: str) -> None:
    metrics_of.ended(calls.new(path))
    calls.clear()
    metrics_of.flush()
    assert {name for name, _ in triton.sums} == {named("request_places")}


def test_an_embedding_has_a_duration_and_inputs(metrics_of: Any, calls: Calls, triton: Recorder) -> None:
    call = calls.new("embeddings", "e")
    call.stats.prompt_tokens = 12
    call.stats.ended = 10.5
    calls.clear()
    metrics_of.ended(call)
    metrics_of.flush()
    assert triton.sums[named("prompt_tokens_total"), ("e",)] == 12
    assert triton.seen == {
        (named("e2e_request_latency_seconds"), ("e",)): [0.5],
        (named("request_prompt_tokens"), ("e",)): [12],
    }


def test_tool_calls_that_could_not_be_read(metrics_of: Any, calls: Calls, triton: Recorder) -> None:
    metrics_of.ended(calls.writing(7, 5, failed_calls=2))
    calls.clear()
    metrics_of.flush()
    assert triton.sums[named("tool_call_parse_failures_total"), ("m",)] == 2


def test_gauges_follow_and_go_back_to_nothing(metrics_of: Any, calls: Calls, triton: Recorder) -> None:
    running, waiting = (named(f"num_requests_{state}") for state in ("running", "waiting"))
    labels = ("m", "openai_bls_0_0")
    calls.writing(1, 1)
    calls.new()
    calls.new()
    metrics_of.flush()
    assert (triton.sums[running, labels], triton.sums[waiting, labels]) == (1, 2)
    before = triton.calls
    metrics_of.flush()
    assert triton.calls == before  # what has not changed is not told
    calls[1].heard = True
    metrics_of.flush()
    assert (triton.sums[running, labels], triton.sums[waiting, labels]) == (2, 1)
    metrics_of.close()
    assert (triton.sums[running, labels], triton.sums[waiting, labels]) == (0, 0)
    assert triton.sums[named("request_places"), ("openai_bls_0_0",)] == 0


def test_many_observations_become_a_sample(metrics_of: Any, calls: Calls, triton: Recorder) -> None:
    import metrics

    call = calls.writing(1, 1)
    series = named("inter_token_latency_seconds"), ("m",)
    most = metrics.MOST_TOLD_OF[series[0]]
    call.stats.gaps = [0.01] * 100
    metrics_of.flush()
    assert len(triton.seen[series]) == most
    for _ in range(4):
        metrics_of.flush()
    assert len(triton.seen[series]) == 100  # a burst is told bit by bit
    triton.seen.clear()
    call.stats.gaps = [index / 1e4 for index in range(10_000)]
    for _ in range(100):
        metrics_of.flush()
    found = triton.seen[series]
    assert len(found) == most * metrics.MOST_FLUSHES
    assert abs(sum(found) / len(found) - 0.5) < 0.1  # of all of them, not of the first


def test_a_triton_without_a_kind_of_metric_is_no_reason_to_fail(metrics_of: Any, calls: Calls) -> None:
    class Old(Recorder):
        def tell(self, series: Series, value: float) -> None:
            raise AttributeError("HISTOGRAM")

    metrics_of._triton = Old()
    calls.writing(1, 1)
    metrics_of.flush()
    metrics_of.flush()


def test_every_label_and_bucket_is_one_that_triton_takes() -> None:
    for name, family in FAMILIES.items():
        assert name.startswith("openai_bls_") and name.endswith("_total") == (family.kind == COUNTER)
        assert (family.kind == HISTOGRAM) == bool(family.buckets)
        assert list(family.buckets) == sorted(set(family.buckets))
        if family.kind == HISTOGRAM and family.unit == SECONDS:
            assert name.endswith("_seconds")


def rendered() -> str:
    lines = ["| family | kind | labels | unit | what it says |", "|---|---|---|---|---|"]
    for name, family in FAMILIES.items():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{name}` | {family.kind} | {labels} | {family.unit} | {family.about} |")
    return "\n".join(lines) + "\n"


def test_the_page_has_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == rendered()


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    until = text.index(BEGIN) + len(BEGIN)
    PAGE.write_text(text[:until] + rendered() + text[text.index(END) :], encoding="utf-8")
