"""tensorrt_llm.llmapi, as far as the engine needs it."""

from __future__ import annotations

from ..sampling_params import GuidedDecodingParams, SamplingParams
from .llm import LLM
from .llm_args import KvCacheConfig, LoraConfig

__all__ = ["LLM", "GuidedDecodingParams", "KvCacheConfig", "LoraConfig", "SamplingParams"]
