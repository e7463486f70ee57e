"""config.pbtxt of NVIDIA's C++ backend (`backend: "tensorrtllm"`), for an engine of ours.

In: the embedded engine's config.pbtxt, which declares the same tensors one a line; options. Out: a configuration with
these tensors, without the session extension, and the parameters of the table PARAMETERS. What is not in the table keeps
the backend's own default.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from builder.options import Options
from launcher.repository import without_sessions

ENGINE_FOLDER = "1"
"""Of the Triton model: the version's folder holds the engine."""
TOKENIZER_INFO = "xgrammar_tokenizer_info.json"
QUEUE = 1024
"""Requests that may wait, in Triton and in the executor; as with the embedded engine."""


class Parameter(NamedTuple):
    key: str
    value: Callable[[Options, Path], str]  # from the options and the Triton model's folder; empty = leave it out
    why: str


def _switch(name: str) -> Callable[[Options, Path], str]:
    return lambda options, model: "true" if getattr(options, name) else "false"


def _fixed(value: str) -> Callable[[Options, Path], str]:
    return lambda options, model: value


def _with_guides(value: Callable[[Path], str]) -> Callable[[Options, Path], str]:
    return lambda options, model: value(model) if options.guided_decoding == "xgrammar" else ""


PARAMETERS = (
    Parameter("gpt_model_path", lambda options, model: str(model / ENGINE_FOLDER), "the engine"),
    Parameter("gpt_model_type", _fixed("inflight_fused_batching"), "requests join and leave between steps"),
    Parameter("batch_scheduler_policy", _fixed("guaranteed_no_evict"),
              "a request that has started never loses its KV cache; max_utilization packs tighter and may pause some"),
    Parameter("max_beam_width", _fixed("1"), "OpenAI's API has no beam search"),
    Parameter("kv_cache_free_gpu_mem_fraction", lambda options, model: str(options.kv_cache_fraction),
              "of the memory that the engine leaves"),
    Parameter("enable_kv_cache_reuse", _switch("kv_reuse"), "prompts that begin alike are read once"),
    Parameter("enable_chunked_context", _switch("chunked_context"), "long prompts are read in pieces"),
    Parameter("exclude_input_in_output", _fixed("true"), "answers without their prompts"),
    Parameter("normalize_log_probs", _fixed("false"), "log probs of the model's own distribution, as OpenAI's are"),
    Parameter("cancellation_check_period_ms", _fixed("100"), "how soon a client that has gone frees its place"),
    Parameter("stats_check_period_ms", _fixed("100"), "how often the nv_trt_llm_* gauges change"),
    Parameter("decoding_mode", lambda options, model: "" if options.speculative == "none" else options.speculative,
              "how draft tokens are made"),
    Parameter("guided_decoding_backend", _with_guides(lambda model: "xgrammar"), "what enforces guides"),
    Parameter("tokenizer_dir", _with_guides(lambda model: str(model.parent / "openai_bls" / "tokenizer")),
              "guides speak of text, tokens are numbers"),
    Parameter("xgrammar_tokenizer_info_path", _with_guides(lambda model: str(model / TOKENIZER_INFO)),
              "what the tokens stand for"),
    Parameter("executor_worker_path", _fixed("/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker"),
              "for the orchestrator mode of several GPUs"),
)

_INPUT = re.compile(r"^(  \{ name: .*) (\},?)$")
_HEAD = """\
# TensorRT-LLM's C++ backend for an engine of {model}, written by build_engine.sh. The tensors are the contract's; one
# tensor per line, so that a tool can filter lines.
name: "tensorrt_llm"
backend: "tensorrtllm"
max_batch_size: {batch}
model_transaction_policy {{ decoupled: true }}
instance_group [ {{ count: 1, kind: KIND_CPU }} ]  # one engine; more would be that many copies of it
dynamic_batching {{
  max_queue_delay_microseconds: 0  # the engine batches by itself
  default_queue_policy {{ max_queue_size: {queue} }}
}}
"""


def render(embedded: str, options: Options, model_name: str, model: Path) -> str:
    """`embedded` is the text of the embedded engine's config.pbtxt, `model` the folder of the Triton model."""
    head = _HEAD.format(model=model_name, batch=options.max_batch_size, queue=QUEUE)
    declared = without_sessions(embedded, "tensorrt_llm")
    inputs, outputs = _section(declared, "input"), _section(declared, "output")
    ragged = "\n".join(_INPUT.sub(r"\1, allow_ragged_batch: true \2", line) for line in inputs.split("\n"))
    return "\n".join([head, ragged, "", outputs, "", *_parameters(options, model), ""])


def _section(config: str, name: str) -> str:
    start = config.index(f"\n{name} [") + 1
    lines = config[start: config.index("\n]", start) + 2].split("\n")
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def _parameters(options: Options, model: Path) -> list[str]:
    lines = []
    for parameter in PARAMETERS:
        if value := parameter.value(options, model):
            lines += [f"# {parameter.why}",
                      f'parameters {{ key: "{parameter.key}" value: {{ string_value: "{value}" }} }}']
    return lines
