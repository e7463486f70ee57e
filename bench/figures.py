"""What was measured, and medians of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Times:
    """Of a distribution, in milliseconds; None: nothing was seen."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, found: Mapping[str, float] | None) -> Times:
        return cls() if found is None else cls(found["p50"], found["p90"], found["p99"], found["max"])


@dataclass(frozen=True)
class Figures:
    """
    Attributes:
        system: name of the target.
        mode: how fast the engine was.
        tokens_per_s: that reached the clients.
        answers_per_s: whole ones.
        tokens_per_chunk: 1 if each came by itself.
        first_ms: from sending a request until its first text.
        gap_ms: between two chunks of text of a stream.
        cpu_s_per_1000: CPU seconds per 1000 tokens of all the server's processes, by program; the synthetic engine is
            part of tritonserver.
        memory_mb: PSS at the end, by program.
        errors: requests that failed; the text of the first one is in `error`.
        wrong: answers that were not, byte by byte, what the engine wrote.
        generator_share: of a core, that the load generator took.
    """

    system: str
    streams: int
    mode: str = ""
    tokens_per_s: float = 0.0
    answers_per_s: float = 0.0
    tokens_per_chunk: float = 0.0
    first_ms: Times = Times()
    gap_ms: Times = Times()
    cpu_s_per_1000: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    answers: int = 0
    errors: int = 0
    wrong: int = 0
    error: str = ""
    generator_share: float = 0.0

    @classmethod
    def of(
        cls,
        system: str,
        streams: int,
        found: Mapping[str, Any],
        seconds: float,
        cpu: Mapping[str, float],
        memory: Mapping[str, float],
    ) -> Figures:
        """From what the load generator says and what the processes took in these seconds."""
        tokens, wall = found["tokens"], found["seconds"]
        return cls(
            system=system,
            streams=streams,
            tokens_per_s=tokens / wall,
            answers_per_s=found["answers"] / wall,
            tokens_per_chunk=tokens / max(1, found["events"]),
            first_ms=Times.of(found["first_ms"]),
            gap_ms=Times.of(found["gap_ms"]),
            cpu_s_per_1000={name: 1000 * spent / max(1, tokens) * wall / seconds for name, spent in cpu.items()},
            memory_mb=dict(memory),
            answers=found["answers"],
            errors=found["errors"],
            wrong=found["wrong"],
            error=found["error"],
            generator_share=found["cpu_seconds"] / wall,
        )

    @property
    def cpu(self) -> float | None:
        """All programs together; None for servers whose processes are not known."""
        return sum(self.cpu_s_per_1000.values()) if self.cpu_s_per_1000 else None

    @property
    def memory(self) -> float | None:
        return sum(self.memory_mb.values()) if self.memory_mb else None

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Figures:
        return cls(**{**kept, "first_ms": Times(**kept["first_ms"]), "gap_ms": Times(**kept["gap_ms"])})


_SUMS = ("answers", "errors", "wrong")
_WORST = ("generator_share",)


def median(repeats: Sequence[Figures]) -> Figures:
    """Of each figure by itself; what went wrong adds up."""
    merged: dict[str, Any] = {}
    for each in fields(Figures):
        values = [getattr(repeat, each.name) for repeat in repeats]
        merged[each.name] = _merged(each.name, values)
    return Figures(**merged)


def _merged(name: str, values: Sequence[Any]) -> Any:
    if name in _SUMS:
        return sum(values)
    if name in _WORST:
        return max(values)
    if isinstance(values[0], Times):
        return Times(*(_median([getattr(value, part.name) for value in values]) for part in fields(Times)))
    if isinstance(values[0], dict):
        return {key: statistics.median(value.get(key, 0.0) for value in values) for key in values[0]}
    if isinstance(values[0], float):
        return statistics.median(values)
    return next((value for value in values if value), values[0])


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
