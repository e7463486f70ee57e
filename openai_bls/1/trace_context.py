"""Where a request is in a trace, as those say who have it before: the gateway, or Triton itself.

Source: W3C Trace Context (www.w3.org/TR/trace-context).
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

# Ids of nothing but zeros, and version ff, are not valid.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")
SAMPLED = 1
WORD = '"trace":'  # in a request's parameters, as Triton writes them
# What reading something of another shape raises.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Context:
    """Where a request is in a trace (W3C Trace Context).

    Attributes:
        span: id of the request's own span.
        parent: id of the span that it is part of; 0: it is the first.
        state: W3C's tracestate, as it came.
        since: when the gateway got the request, in seconds since 1970; None: nobody says.
        engine: id of the span of the engine's work, which begins before that span is made.
    """

    trace: int
    span: int
    parent: int = 0
    state: str = ""
    since: float | None = None
    engine: int = field(default_factory=lambda: new_id(64))

    @property
    def traceparent(self) -> str:
        """For those whose work is part of the engine's span."""
        return f"00-{self.trace:032x}-{self.engine:016x}-01"


def new_id(bits: int) -> int:
    """Random, and never 0, which stands for none."""
    return secrets.randbits(bits) or 1


def parse(traceparent: Any) -> tuple[int, int, bool] | None:
    """Trace, span, and whether it is traced; None: it is no traceparent."""
    found = TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    return None if found is None else (int(found[1], 16), int(found[2], 16), bool(int(found[3], 16) & SAMPLED))


def gateways_word(request: Any) -> str:
    """The parameter of a Triton request that says where it is in a trace; empty: nobody says. (Inputs cost more.)"""
    parameters = request.parameters()
    if WORD not in parameters:
        return ""
    try:
        told = json.loads(parameters)["trace"]
    except UNREADABLE:
        return ""
    return told if isinstance(told, str) else ""


def from_gateway(told: str) -> Context | None:
    """What a gateway has decided (gateway.js, traceOf); None: not to trace, or it cannot be read."""
    try:
        given = json.loads(told)
        own = parse(given["span"])
        parent = given.get("parent") or ""
        if own is None or not own[2] or not (parent == "" or SPAN_ID.fullmatch(parent)):
            return None
        since = given.get("since")
        state = str(given.get("state") or "")
        return Context(own[0], own[1], int(parent or "0", 16), state, None if since is None else float(since))
    except UNREADABLE:
        return None


def of_triton(request: Any) -> Context | None:
    """As a part of Triton's own span for the request; None: Triton does not trace it."""
    try:
        trace = request.trace()
        told = None if trace is None else trace.get_context()
        outer = parse(json.loads(told)["traceparent"]) if told else None
    except UNREADABLE:
        return None
    return Context(outer[0], new_id(64), outer[1]) if outer is not None and outer[2] else None
