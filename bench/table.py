"""Results as Markdown: for each engine speed and figure a table, systems down and streams across."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.figures import Figures, Times


def shown(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def times(found: Times) -> str:
    return f"{shown(found.p50, 1)} / {shown(found.p99, 1)}"


COLUMNS: dict[str, Callable[[Figures], str]] = {
    "tokens/s": lambda each: shown(each.tokens_per_s),
    "time to first token, p50 / p99, ms": lambda each: times(each.first_ms),
    "inter-token latency, p50 / p99, ms": lambda each: times(each.gap_ms),
    "tokens per chunk": lambda each: shown(each.tokens_per_chunk, 2),
    "CPU s per 1000 tokens, all processes": lambda each: shown(each.cpu, 3),
    "memory (PSS), MB": lambda each: shown(each.memory),
}


def markdown(figures: Sequence[Figures]) -> str:
    parts = []
    for mode in dict.fromkeys(each.mode for each in figures):
        parts.append(f"## Engine: {mode}\n")
        found = [each for each in figures if each.mode == mode]
        parts += [grid(name, cell, found) for name, cell in COLUMNS.items()]
        parts += trouble(found)
    return "\n".join(parts)


def grid(name: str, cell: Callable[[Figures], str], figures: Sequence[Figures]) -> str:
    streams = sorted({each.streams for each in figures})
    cells = {(each.system, each.streams): cell(each) for each in figures}
    lines = [f"| {name} | " + " | ".join(map(str, streams)) + " |", "|---|" + "---|" * len(streams)]
    for system in dict.fromkeys(each.system for each in figures):
        row = " | ".join(cells.get((system, count), "–") for count in streams)
        lines.append(f"| {system} | {row} |")
    return "\n".join(lines) + "\n"


def trouble(figures: Sequence[Figures]) -> list[str]:
    """What went wrong; figures beside which something did are not to be trusted."""
    return [
        f"- {each.system}, {each.streams} streams: {each.errors} errors, {each.wrong} wrong texts ({each.error})\n"
        for each in figures
        if each.errors or each.wrong
    ]
