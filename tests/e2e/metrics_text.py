"""Reads what Prometheus reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import requests

SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


class Scrape:
    """One look at a page of metrics."""

    def __init__(self, url: str) -> None:
        answer = requests.get(url, timeout=10)
        assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain")
        self.samples = list(parsed(answer.text.splitlines()))

    def total(self, name: str, **labels: str) -> float:
        """Sum of all samples of that name that have these labels."""
        return sum(each.value for each in self.samples if each.name == name and labels.items() <= each.labels.items())

    def names(self) -> set[str]:
        return {each.name for each in self.samples}

    def values(self, label: str) -> set[str]:
        """All values that a label has in openai_bls's own metrics."""
        own = (each.labels for each in self.samples if each.name.startswith("openai_bls_"))
        return {labels[label] for labels in own if label in labels}


def parsed(lines: Iterable[str]) -> Iterator[Sample]:
    for line in lines:
        if line and not line.startswith("#"):
            found = SAMPLE.match(line)
            assert found is not None, line
            yield Sample(found[1], dict(LABEL.findall(found[2] or "")), float(found[3]))
