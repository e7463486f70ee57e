"""Writes the model repository: openai_bls as a real folder, the engine model configured, the tokenizer in place.

In: options, facts, for the engine flow what its steps have made. Out: a folder that Triton loads. It is written beside
its place and moved there at the end, so what stands there is always whole; and nothing is replaced that was not written
here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from builder import backend_config, pytorch_flow, stamp
from builder.engine_flow import Flow
from builder.model import Facts
from builder.options import CPU, ENGINE, PYTORCH, Options
from launcher.errors import LaunchError
from launcher.repository import CONFIG, ENGINE_MODEL, FRONT_MODEL, with_instances, with_parameters

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = "checkpoint"
TOKENIZER = "tokenizer"
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py", "chat_template*", "LICENSE*")
"""Of a model folder: tokenizer, chat template and configurations, no weights."""
_SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")
_FOR_A_SHELL = re.compile(r"[^\w@%+=:,./-]")


def check_place(options: Options) -> None:
    """Raises LaunchError if there is something that is not ours, or if Triton could not start models there."""
    output = options.output
    if _FOR_A_SHELL.search(str(output)):  # the Python backend starts its processes through one, unquoted, and waits
        raise LaunchError(f"Triton cannot start models in {output}: choose a path without spaces and such characters.")
    if output.exists() and not (output / stamp.FILE).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise LaunchError(f"{output} was not written by this script: name a folder that does not exist, or remove it.")


def write(options: Options, facts: Facts, flow: Flow | None) -> None:
    """`flow` is that of the engine flow, with all its steps done."""
    check_place(options)
    draft = options.work / "repository"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _write_front(draft / FRONT_MODEL, options, facts)
    _ENGINES[options.flow](draft / ENGINE_MODEL, options, facts, flow)
    stamp.write(draft / stamp.FILE, options, facts)
    _move(draft, options.output)


def _write_front(target: Path, options: Options, facts: Facts) -> None:
    shutil.copytree(ROOT / FRONT_MODEL, target, ignore=_SKIPPED)  # links become what they lead to
    _copy_small_files(facts.folder, target / TOKENIZER)
    values = {"served_model_name": options.served_model_name or facts.name}
    if options.flow == ENGINE:  # it cannot be asked how long a sequence may be
        values["max_model_len"] = str(options.max_seq_len or facts.max_seq_len)
    if options.lora and options.flow != PYTORCH:  # there the engine has them and says so
        values["lora"] = str(options.lora)
    config = (target / CONFIG).read_text(encoding="utf-8")
    config = with_instances(with_parameters(config, FRONT_MODEL, values), FRONT_MODEL, options.instances)
    (target / CONFIG).write_text(config, encoding="utf-8")


def _copy_small_files(source: Path, target: Path) -> None:
    target.mkdir()
    for pattern in SMALL_FILES:
        for file in source.glob(pattern):
            if file.is_file() and not file.name.endswith(".index.json"):
                shutil.copy(file, target / file.name)


def _write_python_engine(target: Path, options: Options, facts: Facts, values: dict[str, str]) -> None:
    """Our engine model with parameters of its own."""
    source = ROOT / "model_repository" / ENGINE_MODEL
    shutil.copytree(source / "1", target / "1", ignore=_SKIPPED)
    if options.copy_model:
        shutil.copytree(facts.folder, target / CHECKPOINT)
    values = values | {"checkpoint": CHECKPOINT if options.copy_model else str(facts.folder)}
    config = with_parameters((source / CONFIG).read_text(encoding="utf-8"), ENGINE_MODEL, values)
    (target / CONFIG).write_text(config, encoding="utf-8")


def _write_cpu(target: Path, options: Options, facts: Facts, flow: Flow | None) -> None:
    values = {"runner": options.runner, "max_batch_size": str(options.max_batch_size),
              "max_seq_len": str(options.max_seq_len or "")}
    if not options.kv_reuse:
        values["kv_cache_reuse_tokens"] = "0"
    _write_python_engine(target, options, facts, values)


def _write_pytorch(target: Path, options: Options, facts: Facts, flow: Flow | None) -> None:
    _write_python_engine(target, options, facts, pytorch_flow.parameters(options))
    text = json.dumps(pytorch_flow.llm_options(options), indent=2)
    (target / pytorch_flow.LLM_OPTIONS).write_text(text + "\n", encoding="utf-8")


def _write_engine(target: Path, options: Options, facts: Facts, flow: Flow | None) -> None:
    assert flow is not None
    target.mkdir()
    shutil.copytree(flow.engine, target / backend_config.ENGINE_FOLDER, copy_function=_link_or_copy)
    if flow.tokenizer_info.is_file():
        shutil.copy(flow.tokenizer_info, target / backend_config.TOKENIZER_INFO)
    embedded = (ROOT / "model_repository" / ENGINE_MODEL / CONFIG).read_text(encoding="utf-8")
    config = backend_config.render(embedded, options, facts.name, options.output / ENGINE_MODEL)
    (target / CONFIG).write_text(config, encoding="utf-8")


_ENGINES: dict[str, Callable[[Path, Options, Facts, Flow | None], None]] = {
    CPU: _write_cpu, PYTORCH: _write_pytorch, ENGINE: _write_engine}


def _link_or_copy(source: str, target: str) -> None:
    """Engines are large: a second name costs nothing where the file system has it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _move(draft: Path, output: Path) -> None:
    old = output.with_name(output.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    draft.rename(output)
    shutil.rmtree(old, ignore_errors=True)
