"""Dictionaries of options -> configuration objects."""

from __future__ import annotations

from typing import Any

from .llm_args import DECODING, KvCacheConfig, LoraConfig


def update_llm_args_with_extra_dict(llm_args: dict[str, Any], llm_args_dict: dict[str, Any],
                                    extra_llm_api_options: str | None = None) -> dict[str, Any]:
    made = dict(llm_args_dict)
    for name, kind in (("kv_cache_config", KvCacheConfig), ("lora_config", LoraConfig)):
        if name in made:
            made[name] = kind(**made[name])
    if "speculative_config" in made:
        chosen = dict(made["speculative_config"])
        made["speculative_config"] = DECODING[chosen.pop("decoding_type")](**chosen)
    return llm_args | made
