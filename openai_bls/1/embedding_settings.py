"""The parameters embedding_… of config.pbtxt, checked when the model loads: one table from name to reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.sentences import ANY_SIZE, POOLINGS


def an_input(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"\s*([^\s:]+):(TYPE_(?:INT64|INT32|STRING))\s*", text)
    if found is None:
        raise ValueError("wanted NAME:TYPE_INT64, NAME:TYPE_INT32 or NAME:TYPE_STRING, several separated by commas")
    return found[1], found[2]


def inputs_in(text: str) -> dict[str, str]:
    return dict(an_input(part) for part in text.split(","))


def a_folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise ValueError("wanted a folder")
    return Path(text)


def a_count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("wanted a positive whole number")
    return int(text)


def sizes_in(text: str) -> tuple[int, ...]:
    return ANY_SIZE if text == "any" else tuple(a_count(part.strip()) for part in text.split(","))


def poolings_in(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if set(found) - set(POOLINGS):
        raise ValueError(f"wanted {', '.join(POOLINGS)}, or several of them separated by commas")
    return found


PREFIX = "embedding_"
READERS: dict[str, Callable[[str], Any]] = {
    "engine": str,
    "tokenizer_dir": a_folder,
    "model_name": str,
    "max_len": a_count,
    "sizes": sizes_in,
    "inputs": inputs_in,
    "output": str,
    "pooling": poolings_in,
}


@dataclass(frozen=True)
class EmbeddingSettings:
    """What an operator can set; None means "find out" (config.pbtxt says where from).

    Attributes:
        engine: the Triton model.
        tokenizer_dir: the model's folder.
        model_name: what clients put into `model`.
        max_len: the longest input, in tokens.
        sizes: sizes that vectors may be cut to; empty: any.
        inputs: name → Triton's data type, where the engine cannot be asked.
        output: the tensor that holds the embeddings.
        pooling: how token vectors become one, where the engine gives those.
    """

    engine: str
    tokenizer_dir: Path | None = None
    model_name: str | None = None
    max_len: int | None = None
    sizes: tuple[int, ...] | None = None
    inputs: Mapping[str, str] | None = None
    output: str | None = None
    pooling: tuple[str, ...] | None = None

    @classmethod
    def read(cls, values: Mapping[str, str]) -> EmbeddingSettings | None:
        """From the parameters; None if no engine for embeddings is named.

        Raises:
            ValueError: a parameter has an impossible value.
        """
        given = {name[len(PREFIX) :]: value for name, value in values.items() if name.startswith(PREFIX)}
        if "engine" not in given:
            return None
        found: dict[str, Any] = {}
        for name, value in given.items():
            if name not in READERS:
                raise ValueError(f"parameter {PREFIX}{name}: there is no such parameter")
            try:
                found[name] = READERS[name](value)
            except ValueError as error:
                raise ValueError(f"parameter {PREFIX}{name}: {error}, found '{value}'") from None
        return cls(**found)
