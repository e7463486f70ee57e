"""LoRA adapters on their way to the engine: their weights go with the first request, and again if they were dropped."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import triton_python_backend_utils as pb_utils

from preprocessing.errors import Kind, OpenAIError
from preprocessing.lora import Adapter
from transports import Inputs
from transports.bls import EngineError

Answer = TypeVar("Answer")
NOT_CACHED = re.compile(r"LoRA task \d+ not found in cache")  # TensorRT-LLM's peftCacheManager.cpp


class Lender:
    """Knows which adapters the engine has been sent. For any thread."""

    def __init__(self) -> None:
        self._sent: set[int] = set()

    def send(self, adapter: Adapter | None, ask: Callable[[Inputs], Answer]) -> Answer:
        """Sends a prompt, with the weights of its adapter if the engine needs them.

        Args:
            ask: sends the prompt with further inputs; raises what the engine says against it before it has begun.

        Raises:
            EngineError: the engine refused it.
            OpenAIError: the weights cannot be read any more.
        """
        if adapter is None or adapter.read is None:
            return ask({})
        if adapter.task_id in self._sent:
            try:
                return ask({})
            except EngineError as error:
                if not NOT_CACHED.search(str(error)):
                    raise
        answer = ask(weights(adapter))
        self._sent.add(adapter.task_id)
        return answer


def weights(adapter: Adapter) -> Inputs:
    assert adapter.read is not None
    try:
        return adapter.read().tensors
    except (OSError, ValueError) as error:
        pb_utils.Logger.log_error(f"openai_bls: the LoRA adapter '{adapter.name}' cannot be read: {error}")
        raise OpenAIError(Kind.UNAVAILABLE, f"The LoRA adapter '{adapter.name}' cannot be read.") from None
