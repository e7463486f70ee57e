"""The model list: bodies of GET /v1/models and GET /v1/models/{id}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from preprocessing.generation import require_model
from preprocessing.wire import dumps

OWNER = "openai_bls"


class Listed(Protocol):
    """What the list tells of a model, whether it writes text or embeds it."""

    @property
    def name(self) -> str: ...

    @property
    def created(self) -> int: ...

    @property
    def max_model_len(self) -> int: ...


def describe(model: Listed) -> dict[str, Any]:
    """OpenAI's model object, with the context length under the name that vLLM's clients read."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": OWNER,
        "max_model_len": model.max_model_len,
    }


def listing(models: Sequence[Listed]) -> bytes:
    return dumps({"object": "list", "data": [describe(model) for model in models]})


def single(models: Sequence[Listed], name: str) -> bytes:
    """One model object.

    Raises:
        OpenAIError: 404 if it is not served.
    """
    require_model(name, [model.name for model in models])
    return dumps(describe(next(model for model in models if model.name == name)))
