"""Draws the dashboard's panels as SVG, from what a running Prometheus has of the last minutes.

    python -m tools.dashboard_picture http://127.0.0.1:9090 --minutes 5 docs/dashboard.svg
"""

from __future__ import annotations

import argparse
import json
import math
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from tools.dashboard import COLUMNS, PANELS, RATE, Panel

WIDTH, HEIGHT = 400, 210  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 44  # around its diagram
STEP_S = 2
RATE_WINDOW = "20s"
COLOURS = ("#3274d9", "#e0752d", "#56a64b", "#a352cc", "#e02f44", "#8a8a8a", "#f2cc0c", "#1f78c1")
UNITS = {"percentunit": (100, " %"), "reqps": (1, "/s"), "short": (1, "")}
"""Grafana's name → what a value is multiplied by, and what stands behind it."""


class Line(NamedTuple):
    """A legend and its points: Unix time in seconds, value."""

    legend: str
    points: list[tuple[float, float]]


def asked(prometheus: str, query: str, legend: str, start: float, end: float) -> list[Line]:
    """A query's lines."""
    query = query.replace("$model_name", ".*").replace(RATE, RATE_WINDOW)
    parameters = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": STEP_S})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{parameters}", timeout=30) as answer:
        found = json.load(answer)["data"]["result"]
    return [Line(filled(legend, each["metric"]), numbers(each["values"])) for each in found]


def filled(legend: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace("{{" + name + "}}", value)
    return legend


def numbers(values: list[Any]) -> list[tuple[float, float]]:
    return [(at, float(value)) for at, value in values if math.isfinite(float(value))]


def ceiling(value: float) -> float:
    """The next number of 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= value * 0.999)


def drawn(panel: Panel, lines: Sequence[Line], x: int, y: int, start: float, end: float) -> str:
    most = max((value for line in lines for _, value in line.points), default=0)
    factor, unit = UNITS.get(panel.unit) or ((1000, " ms") if most < 1 else (1, " s"))
    top = ceiling(most * factor)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(at: float, value: float) -> str:
        return f"{LEFT + (at - start) / (end - start) * wide:.1f},{TOP + high * (1 - value * factor / top):.1f}"

    parts = [f'<g transform="translate({x},{y})"><text x="8" y="18" class="title">{escape(panel.title)}</text>']
    for share in (0, 0.5, 1):
        at = TOP + high * (1 - share)
        parts.append(f'<path d="M{LEFT},{at}h{wide}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 4}" class="scale">{top * share:g}{unit}</text>')
    legend_x = LEFT
    for line, colour in zip(lines, COLOURS, strict=False):
        points = " ".join(place(at, value) for at, value in line.points)
        parts.append(f'<polyline points="{points}" stroke="{colour}" class="line"/>')
        parts.append(f'<text x="{legend_x}" y="{HEIGHT - 24}" fill="{colour}">{escape(line.legend)}</text>')
        legend_x += 7 * len(line.legend) + 14
    return "\n".join([*parts, "</g>"])


def picture(prometheus: str, minutes: float) -> str:
    end = time.time()
    start = end - 60 * minutes
    panels = []
    for number, panel in enumerate(PANELS):
        lines = [
            line
            for legend, query in panel.queries.items()
            for line in asked(prometheus, query, legend, start, end)
            if line.points
        ]
        row, column = divmod(number, COLUMNS)
        panels.append(drawn(panel, lines, column * WIDTH, row * HEIGHT, start, end))
    rows = -(-len(PANELS) // COLUMNS)
    wide, high = COLUMNS * WIDTH, rows * HEIGHT
    style = (
        "text{font:11px sans-serif}.title{font-weight:bold;font-size:13px;fill:#222}.scale{text-anchor:end;fill:#666}"
        ".grid{stroke:#ddd;fill:none}.line{fill:none;stroke-width:1.5}"
    )
    body = "\n".join(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}">'
        f'\n<style>{style}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prometheus", help="its URL")
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    chosen = parser.parse_args()
    chosen.file.write_text(picture(chosen.prometheus.rstrip("/"), chosen.minutes), encoding="utf-8")


if __name__ == "__main__":
    main()
