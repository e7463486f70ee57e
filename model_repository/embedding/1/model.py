"""Triton shell of the embedding model: tensors in, vectors out. The work is done in `encoder`."""

from __future__ import annotations

import atexit
import json
import os
from typing import Any

import triton_python_backend_utils as pb_utils

from encoder.load import Settings, load
from encoder.requests import encode, texts_of


class TritonPythonModel:
    """Lifecycle hooks of the Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        atexit.register(os._exit, 0)  # after finalize: taking Python apart would take a second and more
        parameters = json.loads(args["model_config"]).get("parameters", {})
        try:
            settings = Settings.from_parameters({key: value["string_value"] for key, value in parameters.items()})
            self._encoder = load(settings)
        except (ValueError, OSError, ImportError) as error:
            raise pb_utils.TritonModelException(f"embedding: {error}") from None
        self._most_tokens = settings.max_batch_tokens

    def execute(self, requests: list[Any]) -> list[Any]:
        """All requests that Triton has gathered, as one."""
        understood = [self._understood(request) for request in requests]
        good = [texts for texts in understood if isinstance(texts, list)]
        vectors = iter(encode(good, self._encoder, self._most_tokens))
        return [_answer(next(vectors)) if isinstance(texts, list) else _refusal(texts) for texts in understood]

    def _understood(self, request: Any) -> list[list[int]] | ValueError:
        ids, mask = (pb_utils.get_input_tensor_by_name(request, name).as_numpy()
                     for name in ("input_ids", "attention_mask"))
        try:
            return texts_of(ids, mask, self._encoder)
        except ValueError as error:
            return error


def _answer(vectors: Any) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor("sentence_embedding", vectors)])


def _refusal(error: ValueError) -> Any:
    return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
