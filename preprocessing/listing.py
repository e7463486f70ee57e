"""The model list: bodies of GET /v1/models and GET /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from preprocessing.generation import require_model
from preprocessing.model import Model
from preprocessing.wire import dumps

OWNER = "openai_bls"


def describe(model: Model) -> dict[str, Any]:
    """OpenAI's model object, with the context length under the name that vLLM's clients read."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": OWNER,
        "max_model_len": model.max_model_len,
    }


def listing(model: Model) -> bytes:
    return dumps({"object": "list", "data": [describe(model)]})


def single(model: Model, name: str) -> bytes:
    """One model object.

    Raises:
        OpenAIError: 404 if it is not served.
    """
    require_model(name, [model.name])
    return dumps(describe(model))
