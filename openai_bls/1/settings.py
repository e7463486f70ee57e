"""The parameters of config.pbtxt, checked when the model loads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from call import Patience
from embedding_settings import EmbeddingSettings
from postprocessing.reasoning import STYLES
from postprocessing.tool_calls.families import FAMILIES
from preprocessing.model import Limits

# What thoughts are called in answers: DeepSeek's name, which most clients read, vLLM's newer one, or both.
REASONING_FIELDS = {
    "reasoning_content": ("reasoning_content",),
    "reasoning": ("reasoning",),
    "both": ("reasoning_content", "reasoning"),
}
MAX_REQUESTS = 512
HEALTH_SECONDS = 1.0
OWN_TOKENIZER = "tokenizer"  # a tokenizer folder inside the model's own folder is used without being named


@dataclass(frozen=True)
class Settings:
    """What an operator can set; None means "find out" (config.pbtxt says where from)."""

    engine: str
    tokenizer_dir: Path | None
    served_model_name: str | None
    max_model_len: int | None
    chat_template: Path | None
    tool_parser: str | None
    reasoning_parser: str | None
    reasoning_fields: tuple[str, ...]
    limits: Limits
    max_requests: int
    patience: Patience
    health_seconds: float
    drain_file: Path | None
    embedding: EmbeddingSettings | None

    @classmethod
    def read(cls, args: Mapping[str, str]) -> Settings:
        """From what Triton gives a model when it loads: its configuration as JSON, its name and its folder.

        Raises:
            ValueError: a parameter has an impossible value.
        """
        parameters = json.loads(args["model_config"]).get("parameters", {})
        values = {name: entry["string_value"].strip() for name, entry in parameters.items()}
        # A template's placeholder that nobody filled is as good as nothing.
        values = {name: value for name, value in values.items() if value and not value.startswith("${")}
        own = Path(args["model_repository"]) / OWN_TOKENIZER
        if "tokenizer_dir" not in values and own.is_dir():
            values = {"tokenizer_dir": str(own), "served_model_name": args["model_name"], **values}
        return cls(
            engine=values.get("engine", "tensorrt_llm"),
            tokenizer_dir=existing("tokenizer_dir", values.get("tokenizer_dir")),
            served_model_name=values.get("served_model_name"),
            max_model_len=positive("max_model_len", values.get("max_model_len")),
            chat_template=existing("chat_template", values.get("chat_template")),
            tool_parser=parser("tool_parser", values, FAMILIES),
            reasoning_parser=parser("reasoning_parser", values, STYLES),
            reasoning_fields=REASONING_FIELDS[
                one_of("reasoning_field", values.get("reasoning_field", "reasoning_content"), tuple(REASONING_FIELDS))
            ],
            limits=limits(values),
            max_requests=positive("max_requests", values.get("max_requests")) or MAX_REQUESTS,
            patience=patience(values),
            health_seconds=seconds("health_seconds", values.get("health_seconds")) or HEALTH_SECONDS,
            drain_file=Path(values["drain_file"]) if "drain_file" in values else None,
            embedding=EmbeddingSettings.read(values),
        )


def patience(values: Mapping[str, str]) -> Patience:
    usual = Patience()
    return Patience(
        queue=seconds("max_queue_seconds", values.get("max_queue_seconds")) or usual.queue,
        request=seconds("max_request_seconds", values.get("max_request_seconds")) or usual.request,
        keep_alive=seconds("keep_alive_seconds", values.get("keep_alive_seconds")),
    )


def limits(values: Mapping[str, str]) -> Limits:
    usual = Limits()
    variables = values.get("chat_template_variables")
    return Limits(
        max_choices=positive("max_choices", values.get("max_choices")) or usual.max_choices,
        ignore_unknown=one_of("unknown_fields", values.get("unknown_fields", "refuse"), ("refuse", "ignore"))
        == "ignore",
        template_variables=tuple(re.findall(r"\w+", variables)) if variables else usual.template_variables,
    )


def parser(name: str, values: Mapping[str, str], known: Mapping[str, object]) -> str | None:
    """The name of a parser, "none", or None: to be recognised from the chat template."""
    value = one_of(name, values.get(name, "auto"), ("auto", "none", *known))
    return None if value == "auto" else value


def existing(name: str, value: str | None) -> Path | None:
    if value is not None and not Path(value).exists():
        raise ValueError(f"parameter {name}: there is no {value}")
    return None if value is None else Path(value)


def one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"parameter {name}: wanted one of {', '.join(known)}, found '{value}'")
    return value


def positive(name: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isdecimal() or int(value) == 0:
        raise ValueError(f"parameter {name}: wanted a positive whole number, found '{value}'")
    return int(value)


def seconds(name: str, value: str | None) -> float | None:
    if value is None:
        return None
    if not re.fullmatch(r"\d{1,9}(\.\d{1,3})?", value) or float(value) == 0:
        raise ValueError(f"parameter {name}: wanted a number of seconds above 0, found '{value}'")
    return float(value)
