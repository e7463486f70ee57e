"""A caller of an engine without Triton: makes tensors, sends requests, keeps what comes back."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from engine.engine import Engine
from engine.response import Response

PROMPT = [5, 9, 200, 31, 77]

DTYPES: dict[str, Any] = {
    "seed": np.uint64, "session_id": np.uint64,
    **dict.fromkeys(("temperature", "runtime_top_p", "runtime_top_p_min", "runtime_top_p_decay", "repetition_penalty",
                     "presence_penalty", "frequency_penalty", "embedding_bias", "draft_acceptance_threshold"),
                    np.float32),
}


def tensors(**values: Any) -> dict[str, np.ndarray]:
    """Keyword values as a caller would send them: [1, n]; arrays stay as they are."""
    made = {}
    for name, value in values.items():
        if isinstance(value, str):
            value = np.array([[value.encode()]], object)
        elif not isinstance(value, np.ndarray):
            array = np.array(value)
            dtype = np.bool_ if array.dtype == bool else DTYPES.get(name, np.int32)
            value = array.astype(dtype).reshape(1, -1)
        made[name] = value
    return made


def words(*lists: tuple[int, ...]) -> np.ndarray:
    """The contract's encoding of a word list, [1, 2, L]."""
    flat = [i for word in lists for i in word]
    ends = np.cumsum([len(word) for word in lists]).tolist()
    return np.array([[flat, ends + [-1] * (len(flat) - len(ends))]], np.int32)


class Recorder:
    """A Channel that keeps the responses."""

    def __init__(self, request_id: str = "", wanted: frozenset[str] = frozenset()):
        self.request_id = request_id
        self.wanted = wanted
        self.responses: list[Response] = []
        self.times: list[float] = []
        self.cancelled = False
        self._ended = threading.Event()

    def send(self, response: Response) -> None:
        assert not self._ended.is_set(), "a response after the final one"
        self.responses.append(response)
        self.times.append(time.monotonic())
        if response.final or response.error:
            self._ended.set()

    def is_cancelled(self) -> bool:
        return self.cancelled

    def wait(self, timeout: float = 20.0) -> list[Response]:
        assert self._ended.wait(timeout), "no final response"
        return self.responses

    @property
    def error(self) -> str:
        return self.wait()[-1].error

    @property
    def tokens(self) -> list[int]:
        """All tokens of the answer; raises if it ended with an error."""
        responses = self.wait()
        assert not responses[-1].error, responses[-1].error
        return [i for r in responses if "output_ids" in r.outputs for i in r.outputs["output_ids"][0, 0].tolist()]


class Client:
    """Sends requests to an engine."""

    def __init__(self, engine: Engine):
        self.engine = engine

    def send(self, request_id: str = "", wanted: frozenset[str] = frozenset(), **values: Any) -> Recorder:
        recorder = Recorder(request_id, wanted)
        self.engine.receive(tensors(**values), recorder)
        return recorder

    def ask(self, prompt: list[int], length: int = 8, **values: Any) -> Recorder:
        """A streaming generation."""
        usual = {"input_ids": prompt, "input_lengths": len(prompt), "request_output_len": length, "streaming": True}
        return self.send(**{**usual, **values})


class Breaking:
    """A runner that fails when told to."""

    def __init__(self, runner: Any):
        self.runner, self.broken = runner, False
        self.vocab_size, self.max_seq_len, self.new_cache = runner.vocab_size, runner.max_seq_len, runner.new_cache
        self.reusable = runner.reusable

    def forward(self, segments: Any) -> np.ndarray:
        if self.broken:
            self.broken = False
            raise RuntimeError("out of something\nsecond line")
        return self.runner.forward(segments)
