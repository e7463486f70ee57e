"""What a hostile client may be told: an error of OpenAI's shape that says nothing of what is inside."""

from __future__ import annotations

import json
import re

# Paths, tracebacks, names of the parts. (What the client itself sent may come back in a message.)
LEAK = re.compile(
    r"/dev/shm|/tmp|/opt|/root|/home|/usr|Traceback|\.py\b|triton|openai_bls|tensorrt|stub|region|shared.?memory|pydantic"
    r"|njs|nginx|upstream|<html|Exception|0x[0-9a-f]{6}",
    re.IGNORECASE,
)
MEMBERS = {"message", "type", "param", "code"}


def fault_of(status: int, body: bytes, sent: str = "") -> str | None:
    """What is wrong with an answer; None for a good one, be it an answer or an error."""
    if status < 400:
        return None if status in (200, 204) else f"status {status}"
    if status >= 500:
        return f"status {status}: {body[:200]!r}"
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"status {status}, not an error object: {body[:200]!r}"
    if set(error) != MEMBERS or not isinstance(error["message"], str) or not error["message"]:
        return f"status {status}, not OpenAI's error: {error}"
    leak = LEAK.search(error["message"])
    if leak is not None and leak[0].lower() not in sent.lower():
        return f"status {status}, says too much: {error['message'][:200]}"
    return None
