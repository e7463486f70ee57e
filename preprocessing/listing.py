"""The model list: bodies of GET /v1/models and GET /v1/models/{id}."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from preprocessing.errors import model_not_found
from preprocessing.wire import dumps

OWNER = "openai_bls"


@dataclass(frozen=True, slots=True)
class Listed:
    """A name that requests may ask for.

    Attributes:
        created: Unix time in seconds.
        root: the model that the name stands for, if it has another name as well.
        parent: the model that the name stands for with a LoRA adapter.
        max_model_len: prompt and answer together, in tokens; None: not known yet.
    """

    name: str
    created: int
    root: str | None = None
    max_model_len: int | None = None
    parent: str | None = None


def describe(entry: Listed) -> dict[str, Any]:
    """OpenAI's model object, with the context length, root and parent under the names that vLLM's clients read."""
    shown: dict[str, Any] = {"id": entry.name, "object": "model", "created": entry.created, "owned_by": OWNER}
    if entry.root is not None:
        shown["root"] = entry.root
    if entry.parent is not None:
        shown["parent"] = entry.parent
    if entry.max_model_len is not None:
        shown["max_model_len"] = entry.max_model_len
    return shown


def listing(entries: Iterable[Listed]) -> bytes:
    return dumps({"object": "list", "data": [describe(entry) for entry in entries]})


def single(entries: Iterable[Listed], name: str) -> bytes:
    """One model object.

    Raises:
        OpenAIError: 404 if it is not served.
    """
    for entry in entries:
        if entry.name == name:
            return dumps(describe(entry))
    raise model_not_found(name)
