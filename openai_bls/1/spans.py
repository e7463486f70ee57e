"""The spans of a request: values, made once it has ended, from the times in its statistics. No OpenTelemetry here.

    chat tiny-chat        the request, from the gateway's first byte to the last of the answer
    ├─ tokenize           from the body to tensors
    └─ tensorrt_llm       the engine, from the submission to the end
       ├─ queue           as long as the engine says
       ├─ prefill         until the first token
       └─ decode          until the last one

Names and attributes: OpenTelemetry's conventions for generative AI (docs/gen-ai/gen-ai-spans.md in
github.com/open-telemetry/semantic-conventions-genai). What clients or models have written is in none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from metrics import endpoint_label
from postprocessing.answer import Answer
from preprocessing.generation import Generation
from request_stats import UNKNOWN, RequestStats

PROVIDER = "openai_bls"
OPERATIONS = {"chat/completions": "chat", "completions": "text_completion", "embeddings": "embeddings"}
"""Endpoints → OpenTelemetry's word for what they do; the others are no work for a model."""
CANCELLED = "cancelled"
Attributes = Mapping[str, Any]


class Span(NamedTuple):
    """Times are seconds of the monotonic clock.

    Attributes:
        parent: a span's place in the list that it is in; None: it is the request's own.
        remote: what it is about happens in another process.
        error: the kind of error that it ended with; empty: none.
    """

    name: str
    start: float
    end: float
    parent: int | None = None
    attributes: Attributes = {}
    remote: bool = False
    error: str = ""


def spans_of(stats: RequestStats, answer: Answer | None, since: float | None = None) -> list[Span]:
    """All spans of a request that has ended; its own is the first.

    Args:
        since: when the gateway got it, on the monotonic clock.
    """
    error = error_of(stats)
    start = stats.started if since is None else min(since, stats.started)
    spans = [Span(name_of(stats, answer), start, stats.ended, None, attributes_of(stats, answer), False, error)]
    if stats.began is None or stats.endpoint not in OPERATIONS:
        return spans
    spans.append(Span("tokenize", stats.began, stats.submitted or stats.ended, 0))
    if stats.submitted is None:
        return spans
    spans.append(Span(stats.engine, stats.submitted, stats.ended, 0, {}, True, error))
    engine = len(spans) - 1
    if stats.first_token is not None:
        spans += phases(stats.submitted, stats.queued, stats.first_token, stats.last_token, engine)
    return spans


def phases(submitted: float, queued: float | None, first: float, last: float, engine: int) -> list[Span]:
    """What the engine did until the last token. Without its word on the queue that is a part of prefill."""
    begun = submitted if queued is None else min(submitted + queued, first)
    queue = [] if queued is None else [Span("queue", submitted, begun, engine)]
    return [*queue, Span("prefill", begun, first, engine), Span("decode", first, last, engine)]


def error_of(stats: RequestStats) -> str:
    if stats.cancelled:
        return CANCELLED
    return "" if stats.error is None else stats.error.kind.value


def name_of(stats: RequestStats, answer: Answer | None) -> str:
    operation = OPERATIONS.get(stats.endpoint) or endpoint_label(stats.endpoint)
    model = stats.model if answer is None else answer.generation.model
    return operation if model == UNKNOWN or stats.endpoint not in OPERATIONS else f"{operation} {model}"


def attributes_of(stats: RequestStats, answer: Answer | None) -> dict[str, Any]:
    """Of the request's own span."""
    found: dict[str, Any] = {"openai_bls.endpoint": endpoint_label(stats.endpoint)}
    if stats.endpoint in OPERATIONS:
        found["gen_ai.operation.name"] = OPERATIONS[stats.endpoint]
        found["gen_ai.provider.name"] = PROVIDER
    if stats.model != UNKNOWN:
        found["gen_ai.response.model"] = found["gen_ai.request.model"] = stats.model
    if stats.prompt_tokens:
        found["gen_ai.usage.input_tokens"] = stats.prompt_tokens
    if answer is not None:
        found |= asked_for(answer.generation) | answered_with(answer)
        if answer.streams and stats.first_token is not None:
            found["gen_ai.response.time_to_first_chunk"] = stats.first_token - stats.started
    if not stats.cancelled:
        found["http.response.status_code"] = stats.status
    if error := error_of(stats):
        found["error.type"] = error
    return found


def asked_for(generation: Generation) -> dict[str, Any]:
    """As it was applied, defaults included. Settings that do nothing are left out."""
    sampling = generation.sampling
    found: dict[str, Any] = {
        "gen_ai.request.model": generation.model,
        "gen_ai.request.max_tokens": max(prompt.max_tokens for prompt in generation.prompts),
        "gen_ai.request.temperature": float(sampling.temperature),
        "gen_ai.request.top_p": float(sampling.top_p),
        "gen_ai.request.stream": generation.stream,
    }
    optional = {
        "gen_ai.request.top_k": float(sampling.top_k),
        "gen_ai.request.frequency_penalty": float(sampling.frequency_penalty),
        "gen_ai.request.presence_penalty": float(sampling.presence_penalty),
        "gen_ai.request.choice.count": generation.n if generation.n > 1 else 0,
        "openai_bls.request.prompts": len(generation.prompts) if len(generation.prompts) > 1 else 0,
    }
    return found | {name: value for name, value in optional.items() if value}


def answered_with(answer: Answer) -> dict[str, Any]:
    """As far as it came."""
    usage = answer.usage
    found: dict[str, Any] = {
        "gen_ai.response.id": answer.id,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.response.finish_reasons": answer.finish_reasons,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    return {name: value for name, value in found.items() if value is not None and value != []}
