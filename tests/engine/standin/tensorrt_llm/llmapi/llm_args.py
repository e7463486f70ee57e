"""Configuration classes that refuse what they do not know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LLM_ARGUMENTS = frozenset(
    # What the API promises to keep (tests/unittest/api_stability/references_committed/llm.yaml) ...
    "model tokenizer tokenizer_mode skip_tokenizer_init trust_remote_code tensor_parallel_size dtype revision "
    "tokenizer_revision pipeline_parallel_size context_parallel_size moe_tensor_parallel_size "
    "moe_expert_parallel_size enable_lora lora_config batched_logits_processor guided_decoding_backend "
    "speculative_config max_batch_size max_input_len max_seq_len max_beam_width max_num_tokens load_format "
    "enable_tqdm enable_chunked_prefill kv_cache_config stream_interval "
    # ... and what else there is (references/llm.yaml).
    "gpus_per_node moe_cluster_parallel_size enable_attention_dp iter_stats_max_iterations "
    "request_stats_max_iterations return_perf_metrics peft_cache_config scheduler_config gather_generation_logits "
    "backend cuda_graph_config disable_overlap_scheduler moe_config attn_backend sampler_type enable_iter_perf_stats "
    "enable_iter_req_stats print_iter_log enable_autotuner allreduce_strategy".split()
)


@dataclass(kw_only=True)
class KvCacheConfig:
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    max_attention_window: list[int] | None = None
    sink_token_length: int | None = None
    free_gpu_memory_fraction: float | None = 0.9
    host_cache_size: int | None = None
    onboard_blocks: bool = True
    cross_kv_cache_fraction: float | None = None
    secondary_offload_min_priority: int | None = None
    event_buffer_max_size: int = 0
    enable_partial_reuse: bool = True
    copy_on_partial_reuse: bool = True
    use_uvm: bool = False
    dtype: str = "auto"
    tokens_per_block: int = 32


@dataclass(kw_only=True)
class LoraConfig:
    lora_dir: list[str] = field(default_factory=list)
    lora_ckpt_source: str = "hf"
    max_lora_rank: int = 64
    lora_target_modules: list[str] = field(default_factory=list)
    trtllm_modules_to_hf_modules: dict[str, str] = field(default_factory=dict)
    max_loras: int | None = None
    max_cpu_loras: int | None = None


@dataclass(kw_only=True)
class NGramDecodingConfig:
    max_draft_len: int | None = None
    max_matching_ngram_size: int = 2
    is_keep_all: bool = True
    is_use_oldest: bool = True
    is_public_pool: bool = True


@dataclass(kw_only=True)
class EagleDecodingConfig:
    max_draft_len: int | None = None
    speculative_model_dir: str | None = None
    eagle3_one_model: bool | None = True


@dataclass(kw_only=True)
class MTPDecodingConfig:
    max_draft_len: int | None = None
    num_nextn_predict_layers: int = 1


@dataclass(kw_only=True)
class DraftTargetDecodingConfig:
    max_draft_len: int | None = None
    speculative_model_dir: str | None = None


DECODING: dict[str, Any] = {
    "NGram": NGramDecodingConfig, "Eagle": EagleDecodingConfig, "MTP": MTPDecodingConfig,
    "DraftTarget": DraftTargetDecodingConfig,
}
