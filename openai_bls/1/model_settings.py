"""What an operator can set for one model: in config.pbtxt, or for several in a models file (docs/models.md).

The table is the same for both, and so are the names, but for the first: `served_model_name` is an entry's `id`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import embedding_settings
from embedding_settings import SHARED_SUFFIX, EmbeddingSettings
from postprocessing.reasoning import STYLES
from postprocessing.tool_calls.families import FAMILIES
from preprocessing.model import MAX_CHOICES, TEMPLATE_VARIABLES, Limits
from preprocessing.wire import shown
from readers import (
    Reader,
    a_count,
    a_file,
    a_folder,
    a_name,
    a_place,
    a_separator,
    a_triton_model,
    hidden,
    one_of,
    read,
    several,
)
from transports.address import Address

LORA_SEPARATOR = "_lora_"  # as in the examples of NVIDIA's frontend, which has no default
AUTO = "auto"  # a parser that is recognised from the chat template
# What thoughts are called in answers: DeepSeek's name, which most clients read, vLLM's newer one, or both.
REASONING_FIELDS = {
    "reasoning_content": ("reasoning_content",),
    "reasoning": ("reasoning",),
    "both": ("reasoning_content", "reasoning"),
}
READERS: dict[str, Reader] = {
    "served_model_name": a_name,
    "aliases": several(a_name),
    "engine": a_triton_model,
    "engine_url": hidden(Address.parse),
    "tokenizer_dir": a_folder,
    "chat_template": a_file,
    "max_model_len": a_count,
    "tool_parser": one_of(AUTO, "none", *FAMILIES),
    "reasoning_parser": one_of(AUTO, "none", *STYLES),
    "reasoning_field": one_of(*REASONING_FIELDS),
    "max_choices": a_count,
    "stream_interval": a_count,
    "unknown_fields": one_of("refuse", "ignore"),
    "lora": a_place,
    "lora_separator": a_separator,
    "loaded": lambda text: one_of("true", "false")(text) == "true",
    "chat_template_variables": lambda text: tuple(re.findall(r"\w+", text)),
}
PATHS = ("tokenizer_dir", "chat_template", "lora", f"{embedding_settings.PREFIX}tokenizer_dir")
"""Settings that name files: in a models file relative to its folder."""
LISTS = ("aliases", "chat_template_variables", *embedding_settings.LISTS)
"""Settings of several values: a list in a models file, commas in config.pbtxt."""


@dataclass(frozen=True)
class ModelSettings:
    """One model; None means "find out" (config.pbtxt says where from).

    Attributes:
        engine: the Triton model that generates; None: nothing does, the entry is an embedding model.
        engine_url: the Triton that has it; None: the same one, over BLS.
        served_model_name: what clients put into `model`.
        aliases: what else they may put there.
        stream_interval: tokens of an answer that come as one chunk; the first comes at once.
        lora: a list of LoRA adapters, or a folder of them.
        lora_separator: between the model's name and an adapter's.
        loaded: whether clients have the model from the start.
        embedding: the model that makes embeddings, if there is one.
    """

    engine: str | None = "tensorrt_llm"
    engine_url: Address | None = None
    served_model_name: str | None = None
    aliases: tuple[str, ...] = ()
    tokenizer_dir: Path | None = None
    chat_template: Path | None = None
    max_model_len: int | None = None
    tool_parser: str = AUTO
    reasoning_parser: str = AUTO
    reasoning_field: str = "reasoning_content"
    max_choices: int = MAX_CHOICES
    stream_interval: int = 1
    unknown_fields: str = "refuse"
    chat_template_variables: tuple[str, ...] = TEMPLATE_VARIABLES
    lora: Path | None = None
    lora_separator: str = LORA_SEPARATOR
    loaded: bool = True
    embedding: EmbeddingSettings | None = None

    @classmethod
    def read(cls, values: Mapping[str, str], place: str = "parameter ") -> ModelSettings:
        """From texts by name.

        Raises:
            ValueError: one of them is impossible; the message begins with `place` and its name.
        """
        return cls(**read(READERS, values, place), embedding=EmbeddingSettings.read(values, place))

    @property
    def limits(self) -> Limits:
        return Limits(self.max_choices, self.unknown_fields == "ignore", self.chat_template_variables)

    @property
    def reasoning_fields(self) -> tuple[str, ...]:
        return REASONING_FIELDS[self.reasoning_field]

    @property
    def names(self) -> tuple[str, ...]:
        """What clients may call the model, as far as it is known without asking the engine."""
        name = self.served_model_name or (self.tokenizer_dir.name if self.tokenizer_dir else None)
        return (name, *self.aliases) if name else ()

    @property
    def embedding_names(self) -> tuple[str, ...]:
        """The same for the model that makes embeddings."""
        if self.embedding is None:
            return ()
        if self.engine is None:
            return self.names
        if self.embedding.name is not None:
            return (self.embedding.name,)
        return tuple(name + SHARED_SUFFIX for name in self.names[:1])


def from_file(path: Path) -> tuple[ModelSettings, ...]:
    """The models of a models file.

    Raises:
        ValueError: the file, and in it the place, what is wanted and what was found.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"models file {path}: wanted JSON, found something else: {error}") from None
    try:
        models = tuple(entry(f"models[{at}]", each, path.parent) for at, each in enumerate(entries(found)))
        check_names(models)
    except ValueError as error:
        raise ValueError(f"models file {path}: {error}") from None
    return models


def entries(found: Any) -> list[Any]:
    if not isinstance(found, dict) or set(found) != {"models"}:
        raise ValueError(f'wanted an object with the one member "models", found {shown(found)}')
    models = found["models"]
    if not isinstance(models, list) or not models:
        raise ValueError(f"models: wanted a list of at least one model, found {shown(models)}")
    return models


def entry(place: str, given: Any, folder: Path) -> ModelSettings:
    """One member of the list."""
    if not isinstance(given, dict):
        raise ValueError(f"{place}: wanted an object, found {shown(given)}")
    known = ["id", *(name for name in READERS if name != "served_model_name"), *embedding_settings.NAMES]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{place}: wanted only {', '.join(known)}, found {shown(unknown[0])}")
    there = {name: value for name, value in given.items() if value is not None and not (name in LISTS and value == [])}
    values = {name: text_of(place, name, value) for name, value in there.items()}
    if "id" not in values:
        raise ValueError(f"{place}.id: wanted what clients call the model, found nothing")
    values |= {name: str(folder / values[name]) for name in PATHS if name in values}
    named = read({"id": a_name}, values, f"{place}.")
    if "engine" in values:
        return ModelSettings.read(values | {"served_model_name": named["id"]}, f"{place}.")
    return embedding_entry(place, values, named["id"])


def embedding_entry(place: str, values: dict[str, str], name: str) -> ModelSettings:
    """A model that embeds and does nothing else: its id is the name of the embedding model."""
    own = f"{embedding_settings.PREFIX}model_name"
    if f"{embedding_settings.PREFIX}engine" not in values:
        raise ValueError(
            f"{place}.engine: wanted the Triton model that generates, or an embedding_engine, found neither"
        )
    if f"{embedding_settings.PREFIX}tokenizer_dir" not in values:
        raise ValueError(f"{place}.embedding_tokenizer_dir: wanted the model's folder, found nothing")
    if own in values:
        raise ValueError(f"{place}.{own}: wanted nothing, as the id is the name, found '{values[own]}'")
    settings = ModelSettings.read(values | {"served_model_name": name, own: name}, f"{place}.")
    return ModelSettings(**{**vars(settings), "engine": None})


def text_of(place: str, name: str, value: Any) -> str:
    """A member as it would stand in config.pbtxt: numbers as digits, lists separated by commas."""
    if name in LISTS and isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ",".join(str(item) for item in value)
    if name in LISTS and isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return ",".join(f"{key}:{item}" for key, item in value.items())
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int):
        return str(value).lower()  # true and false too
    more = ", or several" if name in LISTS else ""
    raise ValueError(f"{place}.{name}: wanted a text, a whole number, true or false{more}, found {shown(value)}")


def check_names(models: tuple[ModelSettings, ...]) -> None:
    """No two models may be called the same."""
    seen: set[str] = set()
    for at, name in names_of(models):
        if name in seen:
            raise ValueError(f"models[{at}]: wanted names that no other model has, found '{name}' again")
        seen.add(name)


def names_of(models: tuple[ModelSettings, ...]) -> Iterator[tuple[int, str]]:
    for at, model in enumerate(models):
        names = [*model.names, *(model.embedding_names if model.engine is not None else ())]
        yield from ((at, name) for name in names)
