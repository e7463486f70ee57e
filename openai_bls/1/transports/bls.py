"""BLS calls to the engine, with what it takes to make them safely.

Two rules (docs/decisions.md, "Decoupled BLS"): keep a reference to response iterators for a while, because Triton
destroys finished ones on a thread of its own; and never let two Python threads wait in iterators, unless each call is
answered by exactly one response.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from transports import Inputs

# Seconds for which iterators are kept: each keeps all of its responses, a kilobyte and more per token.
KEPT_SECONDS = 5.0
DECOUPLED = "decoupled"  # is in Triton's words for a call that wants one response from a model that may send several


class EngineError(Exception):
    """The engine, or Triton on its behalf, answered with an error; the text is its own."""


class Engine:
    """The engine's Triton model.

    Args:
        model: its name in the model repository.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._kept: deque[tuple[float, Any]] = deque()
        self._keeping = threading.Lock()
        self._decoupled = False  # as far as `answer` knows

    def stream(self, inputs: Inputs, outputs: Sequence[str], request_id: str = "") -> Iterator[Any]:
        """The engine's responses, each holding output tensors.

        Raises:
            EngineError: a response was an error.
        """
        for response in self._responses(inputs, outputs, request_id):
            if response.has_error():
                raise EngineError(response.error().message())
            yield response

    def answer(self, inputs: Inputs, outputs: Sequence[str] = (), request_id: str = "") -> Any:
        """The one response of an ordinary model, or the first of a decoupled one; safe from many threads.

        Whether a decoupled model sends more, or the end by itself, is not waited for. No outputs: all that there are.

        Raises:
            EngineError: the response was an error.
        """
        if not self._decoupled:
            response = self._request(inputs, outputs, request_id).exec()
            if not response.has_error():
                return response
            if DECOUPLED not in response.error().message():
                raise EngineError(response.error().message())
            self._decoupled = True
        for response in self._responses(inputs, outputs, request_id):
            if response.has_error():
                raise EngineError(response.error().message())
            return response
        raise EngineError("the engine did not answer")

    def _responses(self, inputs: Inputs, outputs: Sequence[str], request_id: str = "") -> Any:
        """Sends a request; returns when the first response is there."""
        responses = self._request(inputs, outputs, request_id).exec(decoupled=True)
        self._keep(responses)
        return responses

    def _keep(self, responses: Any) -> None:
        now = time.monotonic()
        with self._keeping:
            self._kept.append((now, responses))
            while self._kept[0][0] < now - KEPT_SECONDS:
                self._kept.popleft()

    def _request(self, inputs: Inputs, outputs: Sequence[str], request_id: str = "") -> Any:
        return pb_utils.InferenceRequest(
            model_name=self._model,
            request_id=request_id,
            requested_output_names=list(outputs),
            inputs=[pb_utils.Tensor(name, array) for name, array in inputs.items()],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )

    def ask(self, inputs: Inputs, outputs: Sequence[str], request_id: str = "") -> Any:
        """The one response to a call that has exactly one."""
        answer = None
        for response in self.stream(inputs, outputs, request_id):
            answer = response
        if answer is None:
            raise EngineError("the engine did not answer")
        return answer


def output(response: Any, name: str) -> Any:
    """An output tensor as a flat numpy array; None if the response does not have it."""
    tensor = pb_utils.get_output_tensor_by_name(response, name)
    return None if tensor is None else tensor.as_numpy().reshape(-1)
