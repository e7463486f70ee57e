"""openai_bls without Triton: what it says to Triton is written down instead."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Response:
    output_tensors: list[Any]
    error: Any = None


@dataclass
class Tensor:
    name: str
    array: Any

    def as_numpy(self) -> Any:
        return self.array


class TritonError(Exception):
    def __init__(self, message: str, code: str = "INTERNAL") -> None:
        super().__init__(message)
        self.code = code


for code in ("INVALID_ARG", "NOT_FOUND", "UNSUPPORTED", "INTERNAL", "UNAVAILABLE"):
    setattr(TritonError, code, code)


@dataclass
class Sender:
    """What a model sends with.

    Attributes:
        sent: texts, and errors as objects.
        ended: the last response is out; `bare`: it had nothing but the end.
        gone: the client has left.
    """

    sent: list[Any] = field(default_factory=list)
    ended: bool = False
    bare: bool = False
    gone: bool = False

    def send(self, response: Any, flags: int = 0) -> None:
        assert not self.ended
        if response is not None:
            self.sent.append(response.error or response.output_tensors[0].array[0])
        self.ended, self.bare = bool(flags), response is None

    def is_cancelled(self) -> bool:
        assert not self.ended, "Triton would die of it"
        return self.gone


@dataclass
class Request:
    """What Triton hands to a model."""

    inputs: dict[str, bytes] = field(default_factory=dict)
    sender: Sender = field(default_factory=Sender)
    asks: dict[str, str] = field(default_factory=dict)

    def request_id(self) -> str:
        return "r1"

    def parameters(self) -> str:
        return json.dumps(self.asks, separators=(",", ":")) if self.asks else ""

    def get_response_sender(self) -> Sender:
        return self.sender


def input_tensor(request: Request, name: str) -> Tensor | None:
    import numpy as np

    found = request.inputs.get(name)
    return None if found is None else Tensor(name, np.array([found], dtype=object))


def install() -> None:
    module: Any = types.ModuleType("triton_python_backend_utils")
    module.Tensor = Tensor
    module.InferenceResponse = Response
    module.TritonError = TritonError
    module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    module.get_input_tensor_by_name = input_tensor
    quiet = {f"log_{level}": staticmethod(lambda text: None) for level in ("info", "warn", "error")}
    module.Logger = type("Logger", (), quiet)
    sys.modules.setdefault("triton_python_backend_utils", module)


install()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that calls see."""
    import call

    made = Clock()
    monkeypatch.setattr(call, "time", made)
    return made


@pytest.fixture
def request_of_triton() -> Request:
    return Request({"endpoint": b"completions", "ticket": b"t1", "request": b"{}"})
