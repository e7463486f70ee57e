"""Options -> what the engine model's `trtllm` runner is told: parameters of its config.pbtxt and arguments of LLM.

Nothing is compiled and nothing is run. The arguments have the form of trtllm-serve's configuration, so they can be
compared with NVIDIA's documentation word by word, and edited in the written repository.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from builder import images
from builder.options import DRAFT_LENGTHS, PYTORCH, Options
from builder.stamp import version_of_package
from launcher.errors import LaunchError

LLM_OPTIONS = "llm_options.json"
"""Beside the engine model's config.pbtxt."""

SPECULATIVE: dict[str, Callable[[int, str], dict[str, Any]]] = {
    "ngram": lambda count, model: {"decoding_type": "NGram", "max_draft_len": count, "max_matching_ngram_size": 3},
    "eagle": lambda count, model: {"decoding_type": "Eagle", "max_draft_len": count, "speculative_model_dir": model},
    "mtp": lambda count, model: {"decoding_type": "MTP", "num_nextn_predict_layers": count},
    "draft_target": lambda count, model: {
        "decoding_type": "DraftTarget", "max_draft_len": count, "speculative_model_dir": model},
}
"""Mode -> speculative_config, for so many draft tokens and a drafter's folder."""


def problems() -> list[str]:
    """Why this machine cannot run it, in sentences."""
    if importlib.util.find_spec("tensorrt_llm") is None:
        return [f"There is no TensorRT-LLM here. Serve the repository in {images.with_pytorch_flow()}, or wherever "
                "TensorRT-LLM 1.0 or newer is installed beside Triton's Python backend."]
    version = version_of_package("tensorrt_llm")
    if images.version_of(version) < images.PYTORCH_FROM:
        return [f"TensorRT-LLM {version} is too old for --flow pytorch: take {images.with_pytorch_flow()}."]
    return []


def parameters(options: Options) -> dict[str, str]:
    """What differs from the defaults of the engine model's config.pbtxt."""
    chosen = {
        "runner": "trtllm",
        "max_batch_size": str(options.max_batch_size),
        "max_seq_len": str(options.max_seq_len or ""),
        "llm_options": LLM_OPTIONS,
        "lora_dir": str(options.lora or ""),
        "guided_decoding_backend": "" if options.guided_decoding == "none" else options.guided_decoding,
        # The runner has log probs without them; logits themselves nobody asks for over OpenAI's API.
        "gather_context_logits": "true",  # those of a prompt cost only the requests that want them
        "gather_generation_logits": "false",
    }
    return chosen if options.kv_reuse else chosen | {"kv_cache_reuse_tokens": "0"}


def llm_options(options: Options) -> dict[str, Any]:
    """Arguments of LLM."""
    chosen: dict[str, Any] = {
        "dtype": options.dtype,
        "tensor_parallel_size": options.tp,
        "pipeline_parallel_size": options.pp,
        "max_num_tokens": options.max_num_tokens,
        "enable_chunked_prefill": options.chunked_context,
        "kv_cache_config": {"free_gpu_memory_fraction": options.kv_cache_fraction},
    }
    if options.kv_cache_dtype != "auto":
        chosen["kv_cache_config"]["dtype"] = options.kv_cache_dtype
    if options.speculative != "none":
        count = options.draft_len or DRAFT_LENGTHS[PYTORCH]
        chosen["speculative_config"] = SPECULATIVE[options.speculative](count, str(options.speculative_model))
    return chosen


def check(options: Options) -> None:
    if options.kv_cache_dtype == "int8":
        raise LaunchError("--kv-cache-dtype int8 is not part of the pytorch flow, which has fp8.")
