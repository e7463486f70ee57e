"""The servers that are measured: this project's own, each with the synthetic engine, on free ports."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import build, usage, vocabulary
from bench.target import Target
from launcher import repository
from launcher.stack import ROOT, Settings, Stack

CHECKPOINT = ROOT / "model_repository" / "tensorrt_llm" / "tiny-chat"
MODEL = "tiny-chat"
MAX_SEQ_LEN = 200_000
FORMS = ("session", "single", "http")
INSTANCES = 16
"""Of openai_bls in the single form: as many requests at a time."""
WORDS = "words.txt"


@dataclass(frozen=True)
class Engine:
    """The synthetic engine's parameters.

    Attributes:
        step_us: between two steps; 0: no pause.
        tokens_per_s: of all sequences together, at most; 0: any number.
        tokens_per_step: of each sequence.
        max_batch_size: sequences that run at a time; others wait.
    """

    step_us: int
    tokens_per_s: int = 0
    tokens_per_step: int = 1
    max_batch_size: int = 1024

    def parameters(self, folder: Path) -> dict[str, str]:
        return {
            "step_us": str(self.step_us),
            "tokens_per_s": str(self.tokens_per_s),
            "tokens_per_step": str(self.tokens_per_step),
            "max_batch_size": str(self.max_batch_size),
            "max_seq_len": str(MAX_SEQ_LEN),
            "checkpoint": str(CHECKPOINT),
            "tokens": str(folder / WORDS),
        }


MODES = {
    "fast": Engine(step_us=50, tokens_per_s=30_000),
    "1 ms": Engine(step_us=1_000),
    "10 ms": Engine(step_us=10_000),
    "40 ms": Engine(step_us=40_000),
}
"""How fast the engine steps. "fast" is what Triton's HTTP server takes from an engine without losing events
(docs/performance.md)."""


@dataclass(frozen=True)
class Running:
    """A stack and the ways into it.

    Attributes:
        targets: by name.
    """

    stack: Stack
    form: str
    targets: dict[str, Target]

    @property
    def pids(self) -> list[int]:
        return [pid for child in self.stack.children for pid in usage.family(child.pid)]


@contextmanager
def serving(
    form: str, engine: Engine, folder: Path, instances: int = INSTANCES, options: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Starts Triton with openai_bls and the synthetic engine, and the gateway; stops them in the end.

    Args:
        form: how openai_bls reaches the engine, one of FORMS.
        folder: written anew.
        instances: of openai_bls, in the single form; the others have one.
        options: further parameters of openai_bls.

    Raises:
        BuildError, LaunchError
    """
    build.build()
    shutil.rmtree(folder, ignore_errors=True)
    models = folder / "models"
    models.mkdir(parents=True)
    vocabulary.write_table(CHECKPOINT / "tokenizer.json", folder / WORDS)
    (models / "openai_bls").symlink_to(ROOT / "openai_bls")
    # The launcher knows nothing of an engine elsewhere; Triton's queue before openai_bls is for the single form only.
    write_engine(models / "tensorrt_llm", engine.parameters(folder), sessions=form != "http")
    port, http_port = free_port(), free_port()
    front = {"max_requests": "1024", **(options or {})}
    if form != "session":
        front |= {"tokenizer_dir": str(CHECKPOINT), "max_model_len": str(MAX_SEQ_LEN)}
    if form == "http":
        front["engine_url"] = f"http://127.0.0.1:{http_port}"
    settings = Settings(
        run_dir=folder / "run",
        port=port,
        triton_http_port=http_port,
        triton_metrics_port=free_port(),
        parameters={"openai_bls": front},
        instances=instances if form == "single" else 1,
        sessions=form != "single",
        models=models,
    )
    with Stack(settings) as stack:
        pids = [pid for child in stack.children for pid in usage.family(child.pid)]
        yield Running(stack, form, targets(form, stack, pids, folder / WORDS, instances))


def targets(form: str, stack: Stack, pids: list[int], table: Path, instances: int) -> dict[str, Target]:
    """With the gateway, without it, and the engine alone."""
    port = stack.settings.triton_http_port
    places = instances if form == "single" else None
    own = [
        Target("engine alone", "127.0.0.1", port, "/v2/models/tensorrt_llm/generate_stream", "engine",
               pids=pids, table=table),
        Target(form, "127.0.0.1", port, "/v2/models/openai_bls/generate_stream", "triton", MODEL, pids, table,
               places=places),
        Target(f"{form} + gateway", "127.0.0.1", stack.settings.port, "/v1/chat/completions", "openai", MODEL, pids,
               table, places=places),
    ]  # fmt: skip
    return {each.name: each for each in own}


TEXT_INPUTS = {
    "text_input": "STRING", "max_tokens": "INT32", "stream": "BOOL", "seed": "UINT64", "temperature": "FP32",
    "top_p": "FP32", "frequency_penalty": "FP32", "presence_penalty": "FP32", "stop_words": "STRING",
    "return_num_input_tokens": "BOOL", "return_num_output_tokens": "BOOL",
}  # fmt: skip
"""Of TensorRT-LLM's ensemble, as far as front ends send them; the engine looks at the first four."""


def write_text_engine(folder: Path, engine: Engine) -> None:
    """A model repository for other front ends: the synthetic engine as a model "text", text in and text out.

    Args:
        folder: is made; a model "text" in it is written anew.
    """
    model = folder / "text"
    shutil.rmtree(model, ignore_errors=True)
    (model / "1").mkdir(parents=True)
    vocabulary.write_table(CHECKPOINT / "tokenizer.json", model / WORDS)
    lines = ",\n".join(
        f'  {{ name: "{name}", data_type: TYPE_{kind}, dims: [ 1 ], optional: {str(name != "text_input").lower()} }}'
        for name, kind in TEXT_INPUTS.items()
    )
    config = f"""name: "text"
backend: "synthetic"
max_batch_size: 64
model_transaction_policy {{ decoupled: true }}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
input [
{lines}
]
output [ {{ name: "text_output", data_type: TYPE_STRING, dims: [ 1 ] }} ]
"""
    (model / "config.pbtxt").write_text(config + parameters(engine.parameters(model.resolve())), encoding="utf-8")
    (model / "1" / build.ENGINE.name).symlink_to(build.ENGINE)


def write_engine(folder: Path, values: Mapping[str, str], *, sessions: bool) -> None:
    """The synthetic engine's model folder: the tensors are those of the embedded engine."""
    config = (ROOT / "model_repository" / "tensorrt_llm" / "config.pbtxt").read_text(encoding="utf-8")
    config = re.sub(r'(?m)^backend: "python"$', 'backend: "synthetic"', config)
    config = re.sub(r"(?m)^parameters \{.*\n", "", config)
    if not sessions:
        config = repository.without_sessions(config, folder.name)
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config + "\n" + parameters(values), encoding="utf-8")
    (folder / "1" / build.ENGINE.name).symlink_to(build.ENGINE)


def parameters(values: Mapping[str, str]) -> str:
    """As config.pbtxt has them."""
    return "".join(
        f"parameters {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(value)} }} }}\n"
        for key, value in values.items()
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
