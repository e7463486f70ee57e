"""What is told of a call besides its answer: to a gateway, for its access log, and in Triton's own log.

A gateway asks for it (the request's parameter "report") and takes it off again: a JSON object behind the text of a
response, between two marks. It has figures and names, and nothing that was said.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from postprocessing.answer import Answer
from preprocessing.wire import dumps
from request_stats import UNKNOWN, RequestStats

MARK = b"\x1e"  # ASCII's record separator: no text of ours has it, neither events nor JSON
LONGEST_NAME = 128  # characters
CLIENT_LEFT = 499  # as nginx has it


def figures(stats: RequestStats, answer: Answer | None) -> dict[str, Any]:
    """How a call went, so far or in all. What is not known is None; times are milliseconds since openai_bls got it."""
    found: dict[str, Any] = {
        "model": model(stats),
        "response_id": None,
        "prompt_tokens": stats.prompt_tokens or None,
        "cached_tokens": None,
        "completion_tokens": None,
        "reasoning_tokens": None,
        "finish_reasons": None,
        "error": None if stats.error is None else stats.error.code,
        "queue_ms": milliseconds(stats.queued),
        "ttft_ms": None if stats.first_token is None else milliseconds(stats.first_token - stats.started),
    }
    if answer is not None:
        usage = answer.usage
        found |= {
            "response_id": answer.id,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "finish_reasons": answer.finish_reasons if answer.done and stats.error is None else None,
        }
    return found


def appendix(stats: RequestStats, answer: Answer | None, *, final: bool) -> bytes:
    """For the end of a response's text. With the last one a gateway knows that it has all of the answer."""
    return MARK + dumps(figures(stats, answer) | {"final": final}) + MARK


def line(call_id: str, stats: RequestStats, answer: Answer | None) -> str:
    """For Triton's log: a JSON object of one line, for those who have no gateway."""
    told = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request_id": call_id,
        "endpoint": stats.endpoint[:LONGEST_NAME],
        "status": CLIENT_LEFT if stats.cancelled else stats.status,
        "duration_ms": milliseconds(stats.ended - stats.started),
        "cancelled": stats.cancelled,
        **figures(stats, answer),
    }
    return dumps(told).decode()


def model(stats: RequestStats) -> str | None:
    """What the client calls it, else what it is called here."""
    name = stats.asked or stats.model
    return None if name == UNKNOWN else name[:LONGEST_NAME]


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 1)
