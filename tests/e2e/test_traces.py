"""Traces of a running server, as a collector gets them over OTLP: openai_bls's spans, and Triton's own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from launcher.gateway import Rules
from tests.collector import CLIENT, ERROR, INTERNAL, OK, SERVER, Collector, Received
from tests.e2e.conftest import Server, eventually, serve

TRITON = ["InferRequest", "openai_bls", "compute"]
PARENT = "b7ad6b7169203331"
PHASES = ["tokenize", "tensorrt_llm", "queue", "prefill", "decode"]
SECRET = "xyzzy plugh"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, collector: Collector) -> Iterator[Server]:
    changes = {
        "openai_bls": {
            "trace_url": collector.url,
            "embedding_engine": "embedding",
            "embedding_model_name": "embedding",
        },
        "embedding": {"checkpoint": str(checkpoint), "runner": "numpy"},
    }
    settings = {"rules": Rules(trace_ratio="1"), "trace_url": f"{collector.url}/v1/traces"}
    yield from serve("session", tmp_path_factory.mktemp("traced"), checkpoint, changes, **settings)


class Asked:
    """A request with a trace of its own, which its spans are found by."""

    def __init__(self, server: Server, collector: Collector, flags: str = "01") -> None:
        self._server = server
        self._collector = collector
        self.trace = secrets.token_hex(16)
        self.headers = {"traceparent": f"00-{self.trace}-{PARENT}-{flags}", "tracestate": "vendor=1"}

    def post(self, path: str, stream: bool = False, **body: object) -> requests.Response:
        given = {"model": self._server.model, **body} | ({"stream": True} if stream else {})
        url = self._server.url + path
        return requests.post(url, json=given, headers=self.headers, stream=stream, timeout=60)

    def own(self) -> Received:
        """The request's own span, once it has come."""
        return self.spans(1)[0]

    def spans(self, count: int) -> list[Received]:
        """Those of openai_bls."""
        assert eventually(lambda: len(self._ours()) >= count), self._collector.of(self.trace)
        found = self._ours()
        assert len(found) == count, found
        return found

    def tritons(self) -> dict[str, Received]:
        """Triton sends them every five seconds."""
        assert eventually(lambda: len(self._collector.of(self.trace)) >= len(self._ours()) + len(TRITON))
        return {span.name: span for span in self._collector.of(self.trace) if span.service != "openai_bls"}

    def _ours(self) -> list[Received]:
        return [span for span in self._collector.of(self.trace) if span.service == "openai_bls"]


@pytest.fixture
def asked(traced: Server, collector: Collector) -> Asked:
    return Asked(traced, collector)


def test_a_clients_trace_goes_through_to_the_engine(asked: Asked, traced: Server, collector: Collector) -> None:
    messages = [{"role": "user", "content": SECRET}]
    answer = asked.post("/v1/chat/completions", messages=messages, max_tokens=8, temperature=0.5, seed=3).json()
    spans = asked.spans(6)
    own, tokenize, engine, queue, prefill, decode = spans
    assert [span.name for span in spans] == [f"chat {traced.model}", *PHASES]
    assert own.parent == PARENT and own.state == "vendor=1"
    assert {span.parent for span in (tokenize, engine)} == {own.id}
    assert {span.parent for span in (queue, prefill, decode)} == {engine.id}
    assert [span.kind for span in spans] == [SERVER, INTERNAL, CLIENT, INTERNAL, INTERNAL, INTERNAL]
    assert {span.status for span in spans} == {OK}
    # One after the other, and within each other.
    assert own.start <= tokenize.start <= tokenize.end == engine.start == queue.start
    assert queue.end == prefill.start <= prefill.end == decode.start < decode.end <= engine.end == own.end
    usage = answer["usage"]
    told = own.attributes
    for name, wanted in {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai_bls",
        "gen_ai.request.model": traced.model,
        "gen_ai.response.model": traced.model,
        "gen_ai.response.id": answer["id"],
        "gen_ai.request.max_tokens": 8,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.stream": False,
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "gen_ai.response.finish_reasons": [answer["choices"][0]["finish_reason"]],
        "http.response.status_code": 200,
    }.items():
        assert told[name] == wanted, name
    assert SECRET not in repr(collector.spans) and answer["choices"][0]["message"]["content"] not in repr(spans)

    tritons = asked.tritons()
    assert set(tritons) == set(TRITON)
    assert tritons["InferRequest"].parent == own.id
    assert tritons["openai_bls"].parent == tritons["InferRequest"].id
    assert tritons["compute"].parent == tritons["openai_bls"].id
    assert own.start <= tritons["InferRequest"].start
    assert collector.paths == {"/v1/traces"}


def test_without_a_trace_one_begins_that_is_called_as_the_request(traced: Server, collector: Collector) -> None:
    answer = traced.post("/v1/completions", {"model": traced.model, "prompt": "a", "max_tokens": 2, "stream": True})
    trace = answer.headers["X-Request-ID"]
    assert eventually(lambda: bool(collector.named(trace, f"text_completion {traced.model}")))
    (own,) = collector.named(trace, f"text_completion {traced.model}")
    assert own.parent == "" and own.attributes["openai_bls.request.id"] == trace
    assert own.attributes["gen_ai.request.stream"] is True
    assert 0 < own.attributes["gen_ai.response.time_to_first_chunk"] < (own.end - own.start) / 1e9


@pytest.mark.parametrize("header", ["x", f"00-{'0' * 32}-{PARENT}-01"])
def test_what_is_no_trace_context_is_as_good_as_none(traced: Server, collector: Collector, header: str) -> None:
    url, headers = f"{traced.url}/v1/models", {"traceparent": header}
    answer = requests.get(url, headers=headers, timeout=60)
    assert answer.status_code == 200 and "traceparent" not in answer.headers
    trace = answer.headers["X-Request-ID"]
    assert eventually(lambda: bool(collector.named(trace, "models")))
    assert collector.named(trace, "models")[0].parent == ""


def test_who_does_not_want_a_trace_has_none(asked: Asked, traced: Server, collector: Collector) -> None:
    unwanted = Asked(traced, collector, flags="00")
    assert unwanted.post("/v1/completions", prompt="a", max_tokens=2).status_code == 200
    requests.get(f"{traced.url}/health/ready", headers=asked.headers, timeout=60)
    asked.post("/v1/completions", prompt="a", max_tokens=2)
    asked.spans(6)
    assert set(asked.tritons()) == set(TRITON)  # all that came before would be there by now
    assert collector.of(unwanted.trace) == []
    assert {span.name for span in collector.of(asked.trace)} == {f"text_completion {traced.model}", *PHASES, *TRITON}


@pytest.mark.parametrize(
    ("path", "body", "status", "error", "name"),
    [
        ("/v1/completions", {"prompt": SECRET, "top_p": 7}, 400, "invalid", "text_completion MODEL"),
        ("/v1/completions", {"prompt": [300] * 5000}, 400, "context_length", "text_completion MODEL"),
        ("/v1/chat/completions", {"model": SECRET, "messages": []}, 404, "model_not_found", "chat"),
    ],
)
def test_errors_are_marked(
    asked: Asked, traced: Server, path: str, body: dict[str, object], status: int, error: str, name: str
) -> None:
    assert asked.post(path, **body).status_code == status
    own = asked.own() if name == "chat" else asked.spans(2)[0]
    assert own.name == name.replace("MODEL", traced.model) and own.status == ERROR
    assert (own.attributes["error.type"], own.attributes["http.response.status_code"]) == (error, status)
    assert SECRET not in repr(own)


def test_a_client_that_leaves(asked: Asked) -> None:
    with asked.post("/v1/completions", stream=True, prompt="go", max_tokens=1900, ignore_eos=True) as answer:
        assert next(answer.iter_content(64))
    own, _, engine, *_ = asked.spans(6)
    assert own.status == engine.status == ERROR and own.attributes["error.type"] == "cancelled"
    assert 0 < own.attributes["gen_ai.usage.output_tokens"] < 1900


def test_several_choices_and_prompts_have_one_set(asked: Asked) -> None:
    answer = asked.post("/v1/completions", prompt=["a", "b"], n=2, max_tokens=3, ignore_eos=True)
    assert len(answer.json()["choices"]) == 4
    own = asked.spans(6)[0]
    assert own.attributes["gen_ai.request.choice.count"] == own.attributes["openai_bls.request.prompts"] == 2
    assert own.attributes["gen_ai.usage.output_tokens"] == 12
    assert own.attributes["gen_ai.response.finish_reasons"] == ["length"] * 4


def test_embeddings(asked: Asked) -> None:
    answer = asked.post("/v1/embeddings", model="embedding", input=["a", "b c"])
    assert answer.status_code == 200
    own, tokenize, engine = asked.spans(3)
    assert [span.name for span in (own, tokenize, engine)] == ["embeddings embedding", "tokenize", "embedding"]
    assert own.attributes["gen_ai.operation.name"] == "embeddings"
    assert own.attributes["gen_ai.usage.input_tokens"] == answer.json()["usage"]["prompt_tokens"]


def test_a_collector_that_is_away_costs_spans_only(traced: Server, collector: Collector) -> None:
    """Last, because it takes the collector away."""
    collector.close()
    for _ in range(3):
        lost = Asked(traced, collector)
        assert lost.post("/v1/completions", prompt="a", max_tokens=2).status_code == 200
    log = traced.stack.children[0].log
    assert eventually(lambda: "does not take spans" in log.read_text(errors="replace"))
    back = Collector(collector.port)
    try:
        found = Asked(traced, back)
        assert found.post("/v1/completions", prompt="a", max_tokens=2).status_code == 200
        found.spans(6)
        found.tritons()
    finally:
        back.close()
    assert collector.named(lost.trace, "tokenize") == []
