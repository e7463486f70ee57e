"""The part of TensorRT-LLM's LLM API that the engine uses: arguments, sampling parameters, and what results say.

In: settings, requests, results. Out: arguments of `LLM`, a `SamplingParams`, log probs, statistics. Signatures as in
TensorRT-LLM 1.0 to 1.3, from its API reference and tests/unittest/api_stability. It starts nothing and holds no state.
Only `load_api` imports tensorrt_llm.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .guides import Guide
from .request import Request
from .scheduler import Stats
from .sequence import Perf, Top
from .settings import Settings

OLDEST = 1
"""Major version: before it the LLM API built TensorRT engines, and its arguments were others."""
BAN = -1e9
"""What is added to the logit of a token that must not come: in every dtype less than any other logit, and finite."""
UNBOUND = 2**64


@dataclass(frozen=True)
class Api:
    """What is imported from tensorrt_llm."""

    llm: Any
    sampling_params: Any
    guided_decoding_params: Any
    lora_request: Any
    merge: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
    """Nested dictionaries of options -> the API's own configuration classes."""


def load_api() -> Api:
    """Raises ImportError that says what is missing."""
    try:
        import tensorrt_llm
        from tensorrt_llm.executor.request import LoRARequest
        from tensorrt_llm.llmapi import GuidedDecodingParams
        from tensorrt_llm.llmapi.llm_utils import update_llm_args_with_extra_dict
    except ImportError as error:
        raise ImportError(f"the trtllm runner needs TensorRT-LLM {OLDEST}.0 or newer, as in NVIDIA's containers "
                          f"tritonserver:YY.MM-trtllm-python-py3 from 25.09 on: {error}") from error
    version = str(tensorrt_llm.__version__)
    if int(version.split(".")[0]) < OLDEST:
        raise ImportError(f"the trtllm runner needs TensorRT-LLM {OLDEST}.0 or newer, found {version}")
    return Api(tensorrt_llm.LLM, tensorrt_llm.SamplingParams, GuidedDecodingParams, LoRARequest,
               update_llm_args_with_extra_dict)


# Arguments of LLM

def arguments(folder: Path, settings: Settings, adapters: Mapping[int, Path]) -> dict[str, Any]:
    """Keyword arguments of `LLM`, nested ones still as dictionaries. What `llm_options` says goes before all else."""
    chosen: dict[str, Any] = {
        "model": str(folder),
        "skip_tokenizer_init": not settings.guided_decoding_backend,  # only grammars need the text of tokens
        "max_batch_size": settings.max_batch_size,
        "max_seq_len": max_seq_len(folder, settings),
        "enable_iter_perf_stats": True,  # without it there is nothing to publish
        "kv_cache_config": {"enable_block_reuse": settings.kv_cache_reuse_tokens > 0},
    }
    if settings.guided_decoding_backend:
        chosen["guided_decoding_backend"] = settings.guided_decoding_backend
    if settings.gather_generation_logits:
        chosen["gather_generation_logits"] = True
    if adapters:
        chosen |= lora_arguments(list(adapters.values()))
    return merged(chosen, options(settings.llm_options))


def options(file: str) -> dict[str, Any]:
    """The further arguments of LLM, in the form that trtllm-serve's configuration has."""
    if not file:
        return {}
    try:
        read = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"llm_options: {file} cannot be read as JSON: {error}") from error
    if not isinstance(read, dict):
        raise ValueError(f"llm_options: wanted an object in {file}, found {type(read).__name__}")
    return read


def merged(ours: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """`theirs` over `ours`, objects member by member."""
    both = {key for key, value in theirs.items() if isinstance(value, dict) and isinstance(ours.get(key), dict)}
    return {**ours, **theirs, **{key: merged(ours[key], theirs[key]) for key in both}}


def model_config(folder: Path) -> dict[str, Any]:
    """config.json; of a model with several parts, that of the one that writes text."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"the checkpoint needs {file}")
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config | config.get("text_config", {})


def max_seq_len(folder: Path, settings: Settings) -> int:
    known = settings.max_seq_len or model_config(folder).get("max_position_embeddings")
    if not known:
        raise ValueError("max_seq_len: the checkpoint does not say it, so it must be set")
    return int(known)


def lora_adapters(folder: str) -> dict[int, Path]:
    """Task id -> adapter: the subfolders of `folder` with an adapter_config.json.

    A name that is a number is the id; the others are numbered in their order, past the largest.
    """
    if not folder:
        return {}
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"lora_dir: there is no folder {folder}")
    paths = sorted(path for path in Path(folder).iterdir() if (path / "adapter_config.json").is_file())
    numbered = {int(path.name): path for path in paths if path.name.isdecimal()}
    named = [path for path in paths if not path.name.isdecimal()]
    return numbered | dict(enumerate(named, 1 + max(numbered, default=0)))


LORA_MODULES = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_dense", "qkv_proj": "attn_qkv",
    "gate_proj": "mlp_h_to_4h", "up_proj": "mlp_gate", "down_proj": "mlp_4h_to_h", "gate_up_proj": "mlp_gate_up",
    "w1": "moe_h_to_4h", "w2": "moe_4h_to_h", "w3": "moe_gate", "gate": "moe_router",
}
"""Hugging Face's name of a projection -> TensorRT-LLM's (lora_manager.py)."""
_QKV = {"attn_q", "attn_k", "attn_v"}
_PLAIN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def lora_arguments(folders: list[Path]) -> dict[str, Any]:
    """The largest rank decides how much room an adapter takes; all of them stay in the host's memory.

    The modules are named, because `lora_dir`, from which the API would find them out, may name one adapter only.
    """
    configs = [json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")) for folder in folders]
    modules = {module for config in configs for module in _lora_modules(config.get("target_modules"))}
    return {"enable_lora": True, "lora_config": {
        "lora_target_modules": sorted(modules | (_QKV if modules & _QKV else set())),  # all of these three, or none
        "max_lora_rank": max(max([config["r"], *(config.get("rank_pattern") or {}).values()]) for config in configs),
        "max_loras": len(folders), "max_cpu_loras": len(folders)}}


def _lora_modules(targets: Any) -> set[str]:
    """A pattern, or "all-linear", may mean any of the usual ones. Raises ValueError."""
    names = {name.rsplit(".", 1)[-1] for name in targets} if isinstance(targets, list) else set(_PLAIN)
    if unknown := sorted(names - LORA_MODULES.keys()):
        raise ValueError(f"lora_dir: TensorRT-LLM has no LoRA for {', '.join(unknown)}")
    return {LORA_MODULES[name] for name in names}


# Requests

GUIDES: dict[str, Callable[[str], dict[str, Any]]] = {
    "json": lambda text: {"json_object": True},
    "json_schema": lambda text: {"json": text},
    "regex": lambda text: {"regex": text},
    "ebnf_grammar": lambda text: {"grammar": text},
    "structural_tag": lambda text: {"structural_tag": text},
}
"""guided_decoding_guide_type -> arguments of GuidedDecodingParams."""

GUIDE_TYPES: dict[str, tuple[str, ...]] = {
    "": (),
    "xgrammar": tuple(GUIDES),
    "llguidance": ("json", "json_schema", "regex", "ebnf_grammar"),  # structural tags are xgrammar's alone
}
"""guided_decoding_backend -> the types it enforces."""


def sampling(request: Request, index: int, vocab_size: int) -> dict[str, Any]:
    """Arguments of SamplingParams for one of a request's sequences. What the contract leaves unset stays unset.

    A stop word of several tokens is left out: the API takes those as text only. The caller watches for them.
    """
    chosen: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "end_id": request.end_id,
        "pad_id": max(request.end_id, 0),  # nothing is padded; it must be set where no tokenizer is loaded
        "ignore_eos": request.end_id < 0,
        "min_tokens": request.min_tokens,
        "seed": (request.seed + index) % UNBOUND,
        "stop_token_ids": sorted({word[0] for word in request.stop_words if len(word) == 1}) or None,
        "include_stop_str_in_output": True,  # by contract stop words are shown; else results lose tokens they had
        "detokenize": False,
        "return_perf_metrics": request.perf_metrics,
    }
    chosen |= {name: value for name, value, default in _adjustments(request) if value != default}
    if request.log_probs or request.top_log_probs:
        chosen["logprobs"] = max(1, request.top_log_probs)  # 0 means "none" up to 1.2, "the chosen one" later
    if request.context_logits or request.prompt_log_probs:
        chosen["return_context_logits"] = True
    if request.generation_logits:
        chosen["return_generation_logits"] = True
    if (bias := _bias(request, vocab_size)) is not None:
        chosen["embedding_bias"] = bias
    return chosen


def _adjustments(request: Request) -> list[tuple[str, Any, Any]]:
    """Name, value and the value that means nothing. Greedy requests say so and nothing else about the choice."""
    penalties = [("repetition_penalty", request.repetition_penalty, 1.0),
                 ("presence_penalty", request.presence_penalty, 0.0),
                 ("frequency_penalty", request.frequency_penalty, 0.0)]
    if request.greedy:
        return [*penalties, ("top_k", 1, None)]
    return [*penalties, ("temperature", request.temperature, None), ("top_k", request.top_k, 0),
            ("top_p", max(request.top_p, 0.0), 0.0), ("top_p_min", request.top_p_min, 1e-6),
            ("top_p_decay", request.top_p_decay, 1.0), ("top_p_reset_ids", request.top_p_reset_id, -1)]


def _bias(request: Request, vocab_size: int) -> Any:
    """FP32 [vocab_size] as a torch tensor, or None. Bad words of one token are a bias: every sampler knows that."""
    banned = [word[0] for word in request.bad_words if 0 <= word[0] < vocab_size]
    if request.bias is None and not banned:
        return None
    import torch
    values = np.zeros(vocab_size, np.float32) if request.bias is None else request.bias.copy()
    values[banned] = BAN
    return torch.from_numpy(values)


def guide_arguments(guide: Guide) -> dict[str, Any]:
    return GUIDES[guide.type](guide.text)


# Results

def token_log_probs(entry: Any, token: int, count: int) -> tuple[float | None, Top]:
    """Log prob of the token and the likeliest alternatives, from one position of CompletionOutput.logprobs.

    That is a dictionary token id -> Logprob, which need not have the token itself, or just the token's number.
    """
    if not isinstance(entry, Mapping):
        return float(entry), (np.empty(0, np.int32), np.empty(0, np.float32))
    best = sorted(((ids, value.logprob) for ids, value in entry.items()), key=lambda pair: (-pair[1], pair[0]))[:count]
    chosen = entry[token].logprob if token in entry else None
    return chosen, (np.array([ids for ids, _ in best], np.int32), np.array([value for _, value in best], np.float32))


def array(tensor: Any) -> np.ndarray:
    """A torch tensor, wherever it lies, as FP32."""
    return np.asarray(tensor.detach().float().cpu().numpy())


def perf(metrics: Any) -> Perf:
    """RequestPerfMetrics -> what the contract tells of a sequence."""
    blocks, drafts = metrics.kv_cache_metrics, metrics.speculative_decoding
    return Perf(blocks.num_total_allocated_blocks, blocks.num_new_allocated_blocks, blocks.num_reused_blocks,
                drafts.acceptance_rate, drafts.total_accepted_draft_tokens, drafts.total_draft_tokens)


def first_scheduled_ns(metrics: Any) -> int:
    """On the steady clock, which is Python's monotonic one."""
    return int(metrics.timing_metrics.first_scheduled_time.total_seconds() * 1e9)


GAUGES = (
    ("nv_trt_llm_request_metrics", "max", ("maxNumActiveRequests",)),
    ("nv_trt_llm_runtime_memory_metrics", "cpu", ("cpuMemUsage",)),
    ("nv_trt_llm_runtime_memory_metrics", "gpu", ("gpuMemUsage",)),
    ("nv_trt_llm_runtime_memory_metrics", "pinned", ("pinnedMemUsage",)),
    ("nv_trt_llm_kv_cache_block_metrics", "max", ("kvCacheStats", "maxNumBlocks")),
    ("nv_trt_llm_kv_cache_block_metrics", "free", ("kvCacheStats", "freeNumBlocks")),
    ("nv_trt_llm_kv_cache_block_metrics", "used", ("kvCacheStats", "usedNumBlocks")),
    ("nv_trt_llm_kv_cache_block_metrics", "tokens_per", ("kvCacheStats", "tokensPerBlock")),
    ("nv_trt_llm_kv_cache_block_metrics", "reused", ("kvCacheStats", "reusedBlocks")),
    ("nv_trt_llm_inflight_batcher_metrics", "total_context_tokens", ("inflightBatchingStats", "numCtxTokens")),
    ("nv_trt_llm_inflight_batcher_metrics", "generation_requests", ("inflightBatchingStats", "numGenRequests")),
    ("nv_trt_llm_inflight_batcher_metrics", "micro_batch_id", ("inflightBatchingStats", "microBatchId")),
    ("nv_trt_llm_inflight_batcher_metrics", "paused_requests", ("inflightBatchingStats", "numPausedRequests")),
)
"""Family, value of its label, where an iteration's statistics (LLM.get_stats) have it."""


def stats(iteration: Mapping[str, Any], active: int) -> Stats:
    """An iteration's statistics and the number of live sequences -> what is published. Figures may be missing."""
    gauges = {(family, kind): value for family, kind, path in GAUGES if (value := _at(iteration, path)) is not None}
    if not active:  # the last iteration's figures no longer hold
        gauges |= {key: 0 for key in gauges if key[0] == "nv_trt_llm_inflight_batcher_metrics"}
    used, most = (gauges.get(("nv_trt_llm_kv_cache_block_metrics", kind), 0) for kind in ("used", "max"))
    if most:
        gauges["nv_trt_llm_kv_cache_block_metrics", "fraction"] = used / most
    scheduled, context = (int(_at(iteration, ("inflightBatchingStats", name)) or 0)
                          for name in ("numScheduledRequests", "numContextRequests"))
    return Stats(active, min(scheduled, active), min(context, active), int(used), int(iteration.get("iter", 0)),
                 more=gauges)


def _at(values: Any, path: tuple[str, ...]) -> float | None:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values if isinstance(values, int | float) else None
