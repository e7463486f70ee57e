"""A tokenizer, an engine that answers from a script, and a sink that keeps what it hears."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import tests.front.conftest  # noqa: F401  (puts a stand-in for Triton's module in place)
from engine import tiny_checkpoint
from preprocessing import tokenizer
from preprocessing.tokenizer import Tokenizer
from transports import llmapi
from transports.bls import EngineError


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.make(folder)
    return tokenizer.load(folder)


class ScriptedEngine:
    """Each call takes the next script: responses (text, reason), or an error's text."""

    def __init__(self, *scripts: Any) -> None:
        self.scripts = list(scripts)
        self.calls: list[tuple[dict[str, Any], str]] = []

    def stream(self, inputs: Any, outputs: Sequence[str], request_id: str = "") -> Iterator[Any]:
        self.calls.append((inputs, request_id))
        script = self.scripts.pop(0)
        if isinstance(script, str):
            raise EngineError(script)
        for text, reason in script:
            yield {"text_output": text.encode(), "finish_reason": reason.encode()}

    def ask(self, inputs: Any, outputs: Sequence[str]) -> Any:
        return list(self.stream(inputs, outputs))[-1]


class Ear:
    """A Sink that wants no more after so many events."""

    id = "r1"

    def __init__(self, patience: int = 1000) -> None:
        self.events: list[Any] = []
        self.is_accepted = False
        self._patience = patience

    def accepted(self) -> None:
        self.is_accepted = True

    def push(self, event: Any) -> bool:
        self.events.append(event)
        return len(self.events) < self._patience

    def alive(self) -> bool:
        return True

    look = alive


@pytest.fixture(autouse=True)
def plain_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Responses here are dictionaries."""
    monkeypatch.setattr(llmapi, "output", lambda response, name: np.array([response[name]], object))
