"""The metrics that openai_bls publishes: a table of families. docs/metrics.md shows it.

Names, labels and units are vLLM's where it has the same thing, behind a prefix of our own.
"""

from __future__ import annotations

from typing import NamedTuple

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
SECONDS, TOKENS, REQUESTS = "seconds", "tokens", "requests"
FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0,
)  # fmt: skip
PER_TOKEN_BUCKETS = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
WHOLE_REQUEST_BUCKETS = (
    0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0,
)  # fmt: skip
TOKEN_BUCKETS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))


class Family(NamedTuple):
    """Metrics of one name.

    Attributes:
        labels: what tells them apart.
        unit: of the values.
        about: what they say.
        buckets: upper bounds, of a histogram.
    """

    kind: str
    labels: tuple[str, ...]
    unit: str
    about: str
    buckets: tuple[float, ...] = ()


MODEL = ("model_name",)
INSTANCE = ("model_instance",)
ENDPOINT = ("endpoint",)
RUNNING, WAITING = "openai_bls_num_requests_running", "openai_bls_num_requests_waiting"
PLACES = "openai_bls_request_places"
FAMILIES = {
    "openai_bls_time_to_first_token_seconds": Family(
        HISTOGRAM, MODEL, SECONDS, "From the request's arrival to its first token.", FIRST_TOKEN_BUCKETS
    ),
    "openai_bls_inter_token_latency_seconds": Family(
        HISTOGRAM, MODEL, SECONDS, "Between two pieces of news of a sequence: a sample.", PER_TOKEN_BUCKETS
    ),
    "openai_bls_request_time_per_output_token_seconds": Family(
        HISTOGRAM, MODEL, SECONDS, "Of a request: time per token after the first.", PER_TOKEN_BUCKETS
    ),
    "openai_bls_e2e_request_latency_seconds": Family(
        HISTOGRAM, MODEL, SECONDS, "From a request's arrival to the end of its answer.", WHOLE_REQUEST_BUCKETS
    ),
    "openai_bls_request_queue_time_seconds": Family(
        HISTOGRAM, MODEL, SECONDS, "In the engine's queue, if the engine tells.", FIRST_TOKEN_BUCKETS
    ),
    "openai_bls_request_prompt_tokens": Family(
        HISTOGRAM, MODEL, TOKENS, "Tokens of a request's prompts or inputs.", TOKEN_BUCKETS
    ),
    "openai_bls_request_generation_tokens": Family(
        HISTOGRAM, MODEL, TOKENS, "Tokens of a request's answer, all choices.", TOKEN_BUCKETS
    ),
    "openai_bls_request_success_total": Family(
        COUNTER, (*ENDPOINT, *MODEL, "finished_reason"), REQUESTS, "Requests that were answered to the end."
    ),
    "openai_bls_request_errors_total": Family(
        COUNTER, (*ENDPOINT, *MODEL, "status", "error"), REQUESTS, "Requests that ended with an error."
    ),
    "openai_bls_request_cancelled_total": Family(
        COUNTER, (*ENDPOINT, *MODEL), REQUESTS, "Requests whose client left before the end."
    ),
    "openai_bls_request_rejected_total": Family(
        COUNTER, (*ENDPOINT, "reason"), REQUESTS, "Of the errors, requests that found no place or no engine."
    ),
    "openai_bls_prompt_tokens_total": Family(
        COUNTER, MODEL, TOKENS, "Tokens of prompts and inputs that were processed."
    ),
    "openai_bls_prompt_tokens_cached_total": Family(
        COUNTER, MODEL, TOKENS, "Of these, found in the engine's cache, if it tells."
    ),
    "openai_bls_generation_tokens_total": Family(COUNTER, MODEL, TOKENS, "Tokens of answers, as they come."),
    "openai_bls_tool_call_parse_failures_total": Family(
        COUNTER, MODEL, "calls", "Tool calls that came out as text, or whose arguments broke off."
    ),
    RUNNING: Family(
        GAUGE, (*MODEL, *INSTANCE), REQUESTS, "Requests that the engine has sent something of."
    ),
    WAITING: Family(
        GAUGE, (*MODEL, *INSTANCE), REQUESTS, "Requests that were taken and wait for the engine's first news."
    ),
    PLACES: Family(
        GAUGE, INSTANCE, REQUESTS, "Requests that are taken at a time, running and waiting."
    ),
}  # fmt: skip
