"""The settings embedding_… of a model, checked when openai_bls loads: one table from name to reader."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from preprocessing.sentences import ANY_SIZE, POOLINGS
from readers import Reader, a_count, a_folder, a_triton_model, read, several


def an_input(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"\s*([^\s:]+):(TYPE_(?:INT64|INT32|STRING))\s*", text)
    if found is None:
        raise ValueError("wanted NAME:TYPE_INT64, NAME:TYPE_INT32 or NAME:TYPE_STRING, several separated by commas")
    return found[1], found[2]


def inputs_in(text: str) -> dict[str, str]:
    return dict(an_input(part) for part in text.split(","))


def sizes_in(text: str) -> tuple[int, ...]:
    return ANY_SIZE if text == "any" else tuple(several(a_count)(text))


def poolings_in(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if set(found) - set(POOLINGS):
        raise ValueError(f"wanted {', '.join(POOLINGS)}, or several of them separated by commas")
    return found


PREFIX = "embedding_"
SHARED_SUFFIX = "-embedding"  # behind the generating model's name, for one that has no folder of its own
READERS: dict[str, Reader] = {
    "engine": a_triton_model,
    "tokenizer_dir": a_folder,
    "model_name": str,
    "max_len": a_count,
    "sizes": sizes_in,
    "inputs": inputs_in,
    "output": str,
    "pooling": poolings_in,
}
NAMES = tuple(PREFIX + name for name in READERS)
LISTS = tuple(PREFIX + name for name in ("sizes", "inputs", "pooling"))
"""Settings of several values."""


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
    def read(cls, values: Mapping[str, str], place: str = "parameter ") -> EmbeddingSettings | None:
        """From texts by name; None if no engine for embeddings is named.

        Raises:
            ValueError: one of them is impossible; the message begins with `place` and its name.
        """
        if PREFIX + "engine" not in values:
            return None
        given = {name[len(PREFIX) :]: value for name, value in values.items() if name.startswith(PREFIX)}
        for name in given:
            if name not in READERS:
                raise ValueError(f"{place}{PREFIX}{name}: there is no such parameter")
        return cls(**read(READERS, given, place + PREFIX))

    @property
    def name(self) -> str | None:
        """What clients put into `model`, if it does not come from the generating model."""
        return self.model_name or (None if self.tokenizer_dir is None else self.tokenizer_dir.name)
