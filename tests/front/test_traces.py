"""Spans, without Triton and without a collector: which there are, when, and what they say."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from postprocessing.shapes import Usage
from preprocessing.errors import Kind, OpenAIError
from preprocessing.generation import Sampling
from request_stats import RequestStats
from spans import Span, spans_of
from tests.front.conftest import Request
from trace_context import Context, from_gateway, of_triton

ROOT = Path(__file__).resolve().parents[2]
TRACE, PARENT, OWN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
SECRET = "what a client wrote"


def stats_of(endpoint: str = "chat/completions", **values: Any) -> RequestStats:
    stats = RequestStats(endpoint, 10.0)
    stats.model, stats.engine = "m", "tensorrt_llm"
    usual = {"began": 10.25, "submitted": 10.5, "queued": 0.5, "first_token": 12.0, "last_token": 14.0, "ended": 14.5}
    for name, value in {**usual, **values}.items():
        setattr(stats, name, value)
    return stats


def answer_of(**generation: Any) -> Any:
    sampling = Sampling(0.5, 0.9, 40, 1, 0.0, 0.25, 1.0, 0, {}, [])
    asked = {"model": "m_lora_x", "n": 1, "stream": True, "sampling": sampling,
             "prompts": [SimpleNamespace(ids=[1], text=SECRET, max_tokens=16)], "stops": (SECRET,)}  # fmt: skip
    return SimpleNamespace(
        generation=SimpleNamespace(**(asked | generation)),
        usage=Usage(7, 5, 4, 2),
        finish_reasons=["stop"],
        id="chatcmpl-1",
        streams=True,
    )


def times(spans: Sequence[Span]) -> dict[str, tuple[float, float, int | None]]:
    return {span.name: (span.start, span.end, span.parent) for span in spans}


def test_a_request_as_a_tree() -> None:
    assert times(spans_of(stats_of(), answer_of(), since=9.5)) == {
        "chat m_lora_x": (9.5, 14.5, None),
        "tokenize": (10.25, 10.5, 0),
        "tensorrt_llm": (10.5, 14.5, 0),
        "queue": (10.5, 11.0, 2),
        "prefill": (11.0, 12.0, 2),
        "decode": (12.0, 14.0, 2),
    }


def test_without_the_engines_word_prefill_begins_with_the_submission() -> None:
    found = times(spans_of(stats_of(queued=None), answer_of()))
    assert "queue" not in found and found["prefill"] == (10.5, 12.0, 2)


def test_a_queue_ends_before_the_first_token() -> None:
    found = times(spans_of(stats_of(queued=99.0), answer_of()))
    assert found["queue"] == (10.5, 12.0, 2) and found["prefill"] == (12.0, 12.0, 2)


def test_what_an_answer_is_described_by() -> None:
    assert spans_of(stats_of(), answer_of())[0].attributes == {
        "openai_bls.endpoint": "chat/completions",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai_bls",
        "gen_ai.request.model": "m_lora_x",
        "gen_ai.request.max_tokens": 16,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 40.0,
        "gen_ai.request.frequency_penalty": 0.25,
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "m",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 2.0,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "http.response.status_code": 200,
    }


def test_several_prompts_and_choices_are_one_set_of_spans() -> None:
    prompts = [SimpleNamespace(ids=[1], text=None, max_tokens=most) for most in (3, 9)]
    found = spans_of(stats_of("completions"), answer_of(n=4, prompts=prompts))
    assert [span.name for span in found][1:] == ["tokenize", "tensorrt_llm", "queue", "prefill", "decode"]
    told = found[0].attributes
    assert told["gen_ai.operation.name"] == "text_completion" and told["gen_ai.request.choice.count"] == 4
    assert (told["openai_bls.request.prompts"], told["gen_ai.request.max_tokens"]) == (2, 9)


@pytest.mark.parametrize(
    ("kind", "status", "error"), [(Kind.INVALID, 400, "invalid"), (Kind.QUEUE_FULL, 429, "queue_full")]
)
def test_an_error_is_told_by_its_kind_alone(kind: Kind, status: int, error: str) -> None:
    stats = stats_of(error=OpenAIError(kind, SECRET), began=None, submitted=None, first_token=None, model="unknown")
    (span,) = spans_of(stats, None)
    assert (span.name, span.error) == ("chat", error)
    assert (span.attributes["error.type"], span.attributes["http.response.status_code"]) == (error, status)
    assert "gen_ai.request.model" not in span.attributes


def test_an_answer_that_fails_after_its_status_was_sent() -> None:
    own = spans_of(stats_of(error=OpenAIError(Kind.TIMEOUT, SECRET), opened=True), answer_of())[0].attributes
    assert (own["error.type"], own["http.response.status_code"]) == ("timeout", 200)


def test_who_is_refused_by_preprocessing_was_not_with_the_engine() -> None:
    stats = stats_of(error=OpenAIError(Kind.INVALID, "no"), submitted=None, first_token=None)
    assert times(spans_of(stats, None)) == {"chat m": (10.0, 14.5, None), "tokenize": (10.25, 14.5, 0)}


def test_who_leaves_before_the_first_token() -> None:
    stats = stats_of(cancelled=True, queued=None, first_token=None)
    own, _, engine = spans_of(stats, answer_of())
    assert own.error == engine.error == own.attributes["error.type"] == "cancelled"
    assert "http.response.status_code" not in own.attributes
    assert "gen_ai.response.time_to_first_chunk" not in own.attributes


def test_embeddings_have_inputs_and_an_engine() -> None:
    stats = stats_of("embeddings", prompt_tokens=12, queued=None, first_token=None, engine="embedding")
    found = spans_of(stats, None)
    assert [span.name for span in found] == ["embeddings m", "tokenize", "embedding"]
    assert found[0].attributes["gen_ai.usage.input_tokens"] == 12


@pytest.mark.parametrize(("endpoint", "name"), [("tokenize", "tokenize"), ("models/a", "models"), (SECRET, "other")])
def test_what_is_no_work_for_a_model_is_one_span(endpoint: str, name: str) -> None:
    (span,) = spans_of(stats_of(endpoint, submitted=None, first_token=None), None)
    assert span.name == span.attributes["openai_bls.endpoint"] == name
    assert "gen_ai.operation.name" not in span.attributes


def test_no_span_has_what_was_written() -> None:
    for stats in (stats_of(), stats_of(error=OpenAIError(Kind.INVALID, SECRET)), stats_of(SECRET, asked=SECRET)):
        assert SECRET not in repr(spans_of(stats, answer_of()))


def told(**values: Any) -> str:
    return json.dumps({"span": f"00-{TRACE}-{OWN}-01", **values})


def test_what_a_gateway_says() -> None:
    found = from_gateway(told(parent=PARENT, state="a=b", since=1.5))
    assert found is not None
    assert (f"{found.trace:x}".zfill(32), f"{found.span:x}".zfill(16)) == (TRACE, OWN)
    assert (f"{found.parent:x}", found.state, found.since) == (PARENT, "a=b", 1.5)
    assert found.traceparent == f"00-{TRACE}-{found.engine:016x}-01" and found.engine != found.span
    first = from_gateway(told(parent="", state=""))
    assert first is not None and (first.parent, first.since) == (0, None)


@pytest.mark.parametrize(
    "text",
    [
        "\xff",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"span": 1}',
        told(span=f"00-{TRACE}-{OWN}-00"),
        told(span=f"ff-{TRACE}-{OWN}-01"),
        told(span=f"00-{'0' * 32}-{OWN}-01"),
        told(span=f"00-{TRACE}-{'0' * 16}-01"),
        told(span=f"00-{TRACE.upper()}-{OWN}-01"),
        told(parent="x"),
        told(parent=7),
        told(since="soon"),
    ],
)
def test_what_cannot_be_read_is_no_trace(text: str) -> None:
    assert from_gateway(text) is None


def traced_by_triton(context: str | None) -> Any:
    trace = None if context is None else SimpleNamespace(get_context=lambda: context)
    return SimpleNamespace(trace=lambda: trace)


def test_a_request_that_triton_traces_is_part_of_its_span() -> None:
    found = of_triton(traced_by_triton(json.dumps({"traceparent": f"00-{TRACE}-{PARENT}-01"})))
    assert found is not None and (f"{found.trace:x}".zfill(32), f"{found.parent:x}") == (TRACE, PARENT)
    for context in (None, "", "{}", "x", json.dumps({"traceparent": f"00-{TRACE}-{PARENT}-00"})):
        assert of_triton(traced_by_triton(context)) is None, context


class Recorder(SpanExporter):
    """A collector of which the test decides whether it takes anything."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.works = True
        self.go = threading.Event()
        self.go.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait()
        if not self.works:
            return SpanExportResult.FAILURE
        self.spans += spans
        return SpanExportResult.SUCCESS


def tracer_to(recorder: Recorder, ratio: float = 1.0) -> Any:
    from tracing import Tracer

    return Tracer("http://127.0.0.1:9", ratio, "openai_bls_0_0", recorder)


def call_of(stats: RequestStats) -> Any:
    return SimpleNamespace(stats=stats, answer=answer_of(), id="r1")


def test_spans_as_opentelemetry_has_them() -> None:
    recorder = Recorder()
    tracer = tracer_to(recorder)
    clock = time.time() - time.monotonic()
    context = Context(int(TRACE, 16), int(OWN, 16), int(PARENT, 16), "a=b", since=clock + 9.5)
    tracer.ended(call_of(stats_of()), context)
    tracer.flush()
    own, tokenize, engine, queue, prefill, decode = recorder.spans
    places = [span.context for span in recorder.spans]
    assert {place.trace_id for place in places if place} == {int(TRACE, 16)}
    assert len({place.span_id for place in places if place}) == 6
    assert own.context and own.parent and own.context.span_id == int(OWN, 16) and own.parent.span_id == int(PARENT, 16)
    assert own.parent.is_remote and own.context.trace_state.to_header() == "a=b"
    for span, parent in ((tokenize, own), (engine, own), (queue, engine), (prefill, engine), (decode, engine)):
        assert span.parent == parent.context
    assert engine.context and engine.context.span_id == context.engine
    assert [span.kind for span in recorder.spans[:3]] == [SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.CLIENT]
    assert own.start_time and abs(own.start_time / 1e9 - clock - 9.5) < 0.01
    assert own.end_time and abs(own.end_time - own.start_time - 5e9) < 1e7
    assert own.attributes and own.attributes["openai_bls.request.id"] == "r1"
    assert own.resource.attributes["service.name"] == "openai_bls"
    assert own.resource.attributes["service.instance.id"] == "openai_bls_0_0"
    assert own.status.status_code is StatusCode.UNSET


def test_a_gateway_with_another_clock_is_not_believed() -> None:
    recorder = Recorder()
    tracer = tracer_to(recorder)
    clock = time.time() - time.monotonic()
    for since in (clock - 3600, clock + 3600):
        tracer.ended(call_of(stats_of()), Context(1, 2, since=since))
    tracer.flush()
    for own in (span for span in recorder.spans if span.kind is SpanKind.SERVER):
        assert own.start_time and abs(own.start_time / 1e9 - clock - 10.0) < 0.01


def test_what_goes_wrong_here_ends_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracing

    lines: list[str] = []
    monkeypatch.setattr(tracing.pb_utils.Logger, "log_error", staticmethod(lines.append))
    tracer = tracer_to(Recorder())
    tracer.ended(SimpleNamespace(id="r9", stats=None), Context(1, 2))
    assert "r9" in lines[0]
    assert of_triton(object()) is None  # a Triton that has no such thing


def test_errors_are_marked() -> None:
    recorder = Recorder()
    tracer = tracer_to(recorder)
    tracer.ended(call_of(stats_of(error=OpenAIError(Kind.TIMEOUT, SECRET))), Context(1, 2))
    tracer.flush()
    marked = {span.name for span in recorder.spans if span.status.status_code is StatusCode.ERROR}
    assert marked == {"chat m_lora_x", "tensorrt_llm"}
    assert SECRET not in "".join(span.to_json() for span in recorder.spans)


def test_a_collector_that_is_away_costs_spans_and_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracing

    lines: list[str] = []
    monkeypatch.setattr(tracing.pb_utils.Logger, "log_warn", staticmethod(lines.append))
    recorder = Recorder()
    tracer = tracer_to(recorder)
    recorder.works = False
    for _ in range(3):
        tracer.ended(call_of(stats_of()), Context(1, 2))
        tracer.flush()
    recorder.works = True
    for _ in range(2):
        tracer.ended(call_of(stats_of()), Context(1, 2))
        tracer.flush()
    assert len(recorder.spans) == 2 * 6
    assert len(lines) == 2 and "does not take spans" in lines[0] and "3 requests" in lines[1]


def test_a_collector_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracing

    monkeypatch.setattr(tracing, "INTERVAL", 0.01)
    recorder = Recorder()
    tracer = tracer_to(recorder)
    recorder.go.clear()
    for _ in range(tracing.MOST_REQUESTS + 1000):
        tracer.ended(call_of(stats_of()), Context(1, 2))
    tracer.close()
    assert len(tracer._waiting) <= tracing.MOST_REQUESTS
    recorder.go.set()


def test_the_rest_is_sent_at_the_end() -> None:
    recorder = Recorder()
    tracer = tracer_to(recorder)
    for number in range(300):
        tracer.ended(call_of(stats_of()), Context(1, number + 1))
    tracer.close()
    assert len([span for span in recorder.spans if span.kind is SpanKind.SERVER]) == 300


def test_nothing_runs_before_the_first_request() -> None:
    before = threading.active_count()
    tracer = tracer_to(Recorder())
    assert threading.active_count() == before
    tracer.close()


@pytest.mark.parametrize(("ratio", "traced"), [(0.0, 0), (1.0, 200), (0.5, 100)])
def test_a_share_is_traced_where_nobody_has_decided(ratio: float, traced: int) -> None:
    tracer = tracer_to(Recorder(), ratio)
    request = Request()
    request.trace = lambda: None  # type: ignore[attr-defined]
    found = [tracer.context(request) for _ in range(200)]
    assert abs(sum(each is not None for each in found) - traced) <= (60 if ratio == 0.5 else 0)
    request.asks["trace"] = told()
    assert tracer.context(request) is not None
    request.asks["trace"] = told(span=f"00-{TRACE}-{OWN}-00")
    assert tracer.context(request) is None


def test_without_traces_opentelemetry_is_not_even_loaded() -> None:
    program = (
        "import sys; import tests.front.conftest; import server, tracing; "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    paths = [str(ROOT), str(ROOT / "openai_bls" / "1")]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}; {program}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracing import Tracer

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ValueError, match="trace_url: wanted the packages opentelemetry-sdk and .*requirements.txt"):
        Tracer("http://127.0.0.1:4318/v1/traces", 1.0, "i")
