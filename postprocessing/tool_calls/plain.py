"""The reader of answers in which no calls are looked for."""

from __future__ import annotations

from postprocessing.reader import Content, Delta


class Plain:
    """Everything is content."""

    reasoning = False
    calls = 0
    failures = 0

    def push(self, text: str) -> list[Delta]:
        return [Content(text)] if text else []

    def finish(self) -> list[Delta]:
        return []
