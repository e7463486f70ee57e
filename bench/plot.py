"""Results as one SVG: a row of diagrams for each engine speed, streams across, a line for each system."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from bench.figures import Figures

WIDTH, HEIGHT = 330, 220  # of a diagram
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 34  # around its area
COLOURS = ("#8a8a8a", "#1f5fbf", "#6fa3e8", "#c25b14", "#f0a468", "#2f7d3b", "#82c48d", "#a352cc", "#e02f44")


class Diagram(NamedTuple):
    title: str
    value: Callable[[Figures], float | None]
    logarithmic: bool


DIAGRAMS = (
    Diagram("tokens/s", lambda each: each.tokens_per_s, True),
    Diagram("time to first token, p50, ms", lambda each: each.first_ms.p50, True),
    Diagram("inter-token latency, p99, ms", lambda each: each.gap_ms.p99, True),
    Diagram("CPU s per 1000 tokens", lambda each: each.cpu, False),
    Diagram("memory, MB", lambda each: each.memory, False),
)


def svg(figures: Sequence[Figures]) -> str:
    modes = list(dict.fromkeys(each.mode for each in figures))
    systems = list(dict.fromkeys(each.system for each in figures))
    colours = {system: COLOURS[place % len(COLOURS)] for place, system in enumerate(systems)}
    width, height = WIDTH * len(DIAGRAMS), HEIGHT * len(modes) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11"><rect width="{width}" height="{height}" fill="#ffffff"/>'
    ]
    for place, system in enumerate(systems):
        left = 20 + place * (width - 40) / len(systems)
        parts.append(f'<rect x="{left:.0f}" y="12" width="14" height="4" fill="{colours[system]}"/>')
        parts.append(f'<text x="{left + 20:.0f}" y="18">{escape(system)}</text>')
    for row, mode in enumerate(modes):
        found = [each for each in figures if each.mode == mode]
        for column, diagram in enumerate(DIAGRAMS):
            parts.append(f'<g transform="translate({column * WIDTH},{40 + row * HEIGHT})">')
            parts += drawn(diagram, mode, found, colours)
            parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def drawn(diagram: Diagram, mode: str, figures: Sequence[Figures], colours: dict[str, str]) -> list[str]:
    points = [(each.system, each.streams, value) for each in figures
              if (value := diagram.value(each)) is not None and value > 0]  # fmt: skip
    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{escape(diagram.title)} · engine: {escape(mode)}</text>']
    if not points:
        return parts
    streams = sorted({count for _, count, _ in points})
    across = Scale(streams[0], streams[-1], LEFT, WIDTH - RIGHT, logarithmic=True)
    values = [value for _, _, value in points]
    lowest = decade(min(values), math.floor) if diagram.logarithmic else 0.0
    up = Scale(lowest, rounded_up(max(values)), HEIGHT - BOTTOM, TOP, logarithmic=diagram.logarithmic)
    for value in up.marks():
        y = up.place(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for count in streams:
        parts.append(
            f'<text x="{across.place(count):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{count}</text>'
        )
    for system, colour in colours.items():
        line = [(across.place(count), up.place(value)) for name, count, value in points if name == system]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line)
        if line:
            parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in line]
    return parts


class Scale:
    """Values from `low` to `high` → places from `start` to `end`."""

    def __init__(self, low: float, high: float, start: float, end: float, *, logarithmic: bool) -> None:
        self._low, self._high, self._start, self._end = low, max(high, low * 1.0001, 1e-9), start, end
        self._logarithmic = logarithmic

    def place(self, value: float) -> float:
        if self._logarithmic:
            share = math.log(value / self._low) / math.log(self._high / self._low)
        else:
            share = (value - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def marks(self) -> list[float]:
        if not self._logarithmic:
            return [self._low + (self._high - self._low) * step / 4 for step in range(5)]
        first, last = math.floor(math.log10(self._low)), math.ceil(math.log10(self._high))
        powers = [10.0**power * part for power in range(first, last + 1) for part in (1, 3)]
        return [value for value in powers if self._low <= value <= self._high]


def decade(value: float, rounding: Callable[[float], int]) -> float:
    return float(10.0 ** rounding(math.log10(value)))


def rounded_up(value: float) -> float:
    power = decade(value, math.floor)
    return next(step * power for step in (1, 2, 3, 5, 10) if step * power >= value)
