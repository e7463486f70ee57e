"""The parameters of config.pbtxt, checked when the model loads: what is the server's here, a model's in model_settings.

One model is described by the parameters themselves, several by the file that `models_file` names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import embedding_settings
import model_settings
from call import Patience
from model_settings import ModelSettings
from readers import Reader, a_collector, a_count, a_share, hidden, one_of, read, seconds

MAX_REQUESTS = 512
HEALTH_SECONDS = 1.0
OWN_TOKENIZER = "tokenizer"  # a tokenizer folder inside the model's own folder is used without being named
# OpenTelemetry's own, for those whom nobody starts with a parameter.
COLLECTOR_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
READERS: dict[str, Reader] = {
    "max_requests": a_count,
    "max_queue_seconds": seconds,
    "max_request_seconds": seconds,
    "keep_alive_seconds": seconds,
    "health_seconds": seconds,
    "drain_file": Path,
    "models_file": str,
    "model_control": one_of("off", "on"),
    "log_requests": one_of("off", "on"),
    "trace_url": hidden(a_collector),
    "trace_ratio": a_share,
}


@dataclass(frozen=True)
class Settings:
    """What an operator can set.

    Attributes:
        models: at least one.
        model_control: clients may load and unload models.
        log_requests: a line for each request goes into Triton's log.
        trace_url: where spans are sent, with its path; empty: there are none.
        trace_ratio: of requests that are traced if nobody has decided before.
    """

    models: tuple[ModelSettings, ...]
    max_requests: int = MAX_REQUESTS
    patience: Patience = Patience()
    health_seconds: float = HEALTH_SECONDS
    drain_file: Path | None = None
    model_control: bool = False
    log_requests: bool = False
    trace_url: str = ""
    trace_ratio: float = 1.0

    @classmethod
    def read(cls, args: Mapping[str, str]) -> Settings:
        """From what Triton gives a model when it loads: its configuration as JSON, its name and its folder.

        Raises:
            ValueError: a parameter has an impossible value.
            OSError: the models file cannot be read.
        """
        config = json.loads(args["model_config"])
        values = {name: entry["string_value"].strip() for name, entry in config.get("parameters", {}).items()}
        # A template's placeholder that nobody filled is as good as nothing.
        values = {name: value for name, value in values.items() if value and not value.startswith("${")}
        if collector := next(filter(None, map(os.environ.get, COLLECTOR_VARIABLES)), None):
            values = {"trace_url": collector, **values}
        found = read(READERS, values, "parameter ")
        return cls(
            models=models(values, args),
            max_requests=found.get("max_requests", MAX_REQUESTS),
            patience=patience(found),
            health_seconds=found.get("health_seconds", HEALTH_SECONDS),
            drain_file=found.get("drain_file"),
            model_control=control(found, config),
            log_requests=found.get("log_requests") == "on",
            trace_url=found.get("trace_url", ""),
            trace_ratio=found.get("trace_ratio", 1.0),
        )


def models(values: Mapping[str, str], args: Mapping[str, str]) -> tuple[ModelSettings, ...]:
    """Those of the file, else the one that the parameters describe."""
    folder = Path(args["model_repository"])
    if "models_file" not in values:
        return (ModelSettings.read(with_own_tokenizer(values, folder, args["model_name"])),)
    for name in (*model_settings.READERS, *embedding_settings.NAMES):
        if name in values:
            raise ValueError(f"parameter {name}: wanted nothing beside a models_file, found '{values[name]}'")
    found = model_settings.from_file(folder / values["models_file"])
    for at, model in enumerate(found):
        if not model.loaded and values.get("model_control") != "on":
            raise ValueError(f"models[{at}].loaded: wanted true without model_control, found 'false'")
    return found


def with_own_tokenizer(values: Mapping[str, str], folder: Path, name: str) -> dict[str, str]:
    own = folder / OWN_TOKENIZER
    if "tokenizer_dir" in values or not own.is_dir():
        return dict(values)
    return {"tokenizer_dir": str(own), "served_model_name": name, **values}


def patience(found: Mapping[str, Any]) -> Patience:
    usual = Patience()
    return Patience(
        queue=found.get("max_queue_seconds", usual.queue),
        request=found.get("max_request_seconds", usual.request),
        keep_alive=found.get("keep_alive_seconds"),
    )


def control(found: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether models may be loaded and unloaded. What one instance unloads the others would not know of."""
    wanted = found.get("model_control") == "on"
    instances = sum(group.get("count", 1) for group in config.get("instance_group", []))
    if wanted and instances > 1:
        raise ValueError(
            f"parameter model_control: wanted off with {instances} instances (see instance_group), found 'on'"
        )
    return wanted
