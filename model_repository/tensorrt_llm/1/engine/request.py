"""Input tensors of one Triton request -> typed requests.

In: numpy arrays by tensor name, each with the leading batch dimension. Out: one Request per batch row, or RequestError.
The rules are three tables: SCALARS, REFUSED and WITHOUT_EFFECT; a new parameter is a new row.
It knows the limits of the model as numbers and nothing else about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import word_list
from .errors import RequestError
from .guides import WITHOUT_GUIDE, Guide
from .lora import Lora

Tensors = Mapping[str, np.ndarray]

TOP_LOG_PROBS = 20
"""The most alternatives per token that a session may ask for."""
GUIDE_SIZE = 256 << 10
"""The most bytes of a guide."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request is checked against."""

    vocab_size: int
    max_seq_len: int
    max_input_len: int
    context_logits: bool = True
    generation_logits: bool = True
    exclude_input: bool = False
    guide_types: tuple[str, ...] = ()  # none without a tokenizer


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how to continue it. The defaults are the contract's for inputs that are absent."""

    prompt: list[int]
    max_tokens: int  # after clamping to the model's max_seq_len
    end_id: int = -1
    num_sequences: int = 1
    streaming: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0  # <= 0 is "unset"
    top_p_min: float = 1e-6
    top_p_decay: float = 1.0
    top_p_reset_id: int = -1
    seed: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 1
    stop_words: word_list.Words = ()
    bad_words: word_list.Words = ()
    bias: np.ndarray | None = None  # FP32 [vocab_size]
    guide: Guide | None = None
    lora: Lora | None = None
    exclude_input: bool = False
    log_probs: bool = False
    top_log_probs: int = 0  # alternatives per token
    prompt_log_probs: bool = False
    context_logits: bool = False
    generation_logits: bool = False
    perf_metrics: bool = False
    num_input_tokens: bool = False
    num_output_tokens: bool = False

    @property
    def greedy(self) -> bool:
        """The contract's greedy trap: without top_k and top_p the temperature means nothing."""
        return self.top_k == 1 or self.temperature == 0 or (self.top_k == 0 and self.top_p <= 0)


class Scalar(NamedTuple):
    """One input that is a single value per batch row."""

    tensor: str
    field: str
    allowed: Callable[[Any], bool]
    rule: str  # follows "Assertion failed:"
    per_request: bool = False  # read from batch row 0 only


def _any(value: Any) -> bool:
    return True


def _finite(value: float) -> bool:
    return math.isfinite(value)


SCALARS = (
    Scalar("request_output_len", "max_tokens", lambda v: v > 0, "request_output_len > 0"),
    Scalar("beam_width", "", lambda v: v == 1, "beam_width == 1 (beam search is not supported)"),
    Scalar("num_return_sequences", "num_sequences", lambda v: v > 0, "num_return_sequences > 0"),
    Scalar("streaming", "streaming", _any, "", True),
    Scalar("temperature", "temperature", lambda v: v >= 0 and _finite(v), "temperature >= 0"),
    Scalar("runtime_top_k", "top_k", lambda v: v >= 0, "runtime_top_k >= 0"),
    Scalar("runtime_top_p", "top_p", lambda v: v <= 1, "runtime_top_p <= 1"),
    Scalar("runtime_top_p_min", "top_p_min", lambda v: 0 <= v <= 1, "0 <= runtime_top_p_min <= 1"),
    Scalar("runtime_top_p_decay", "top_p_decay", lambda v: 0 < v <= 1, "0 < runtime_top_p_decay <= 1"),
    Scalar("runtime_top_p_reset_ids", "top_p_reset_id", lambda v: v >= 0, "runtime_top_p_reset_ids >= 0"),
    Scalar("seed", "seed", _any, ""),
    Scalar("repetition_penalty", "repetition_penalty", lambda v: v > 0 and _finite(v), "repetition_penalty > 0"),
    Scalar("presence_penalty", "presence_penalty", _finite, "presence_penalty is finite"),
    Scalar("frequency_penalty", "frequency_penalty", _finite, "frequency_penalty is finite"),
    Scalar("min_tokens", "min_tokens", lambda v: v >= 0, "min_tokens >= 0"),
    Scalar("exclude_input_in_output", "exclude_input", _any, "", True),
    Scalar("return_log_probs", "log_probs", _any, ""),
    Scalar("session_top_log_probs", "top_log_probs", lambda v: 0 <= v <= TOP_LOG_PROBS,
           f"0 <= session_top_log_probs <= {TOP_LOG_PROBS}", True),
    Scalar("session_prompt_log_probs", "prompt_log_probs", _any, "", True),
    Scalar("return_context_logits", "context_logits", _any, ""),
    Scalar("return_generation_logits", "generation_logits", _any, ""),
    Scalar("return_kv_cache_reuse_stats", "perf_metrics", _any, "", True),  # the older name of the next
    Scalar("return_perf_metrics", "perf_metrics", _any, "", True),
    Scalar("return_num_input_tokens", "num_input_tokens", _any, "", True),
    Scalar("return_num_output_tokens", "num_output_tokens", _any, "", True),
)

_DRAFT = "speculative decoding is not supported"
_ENCODER = "encoder models are not supported"
_VISION = "multimodal inputs are not supported"
_PROMPT_TABLE = "prompt tuning tables are not supported"
_RETENTION = "KV cache retention is not supported"
_LOOKAHEAD = "lookahead decoding is not supported"

REFUSED = {
    "draft_input_ids": _DRAFT, "draft_logits": _DRAFT, "draft_acceptance_threshold": _DRAFT,
    "decoder_input_ids": _ENCODER, "decoder_input_lengths": _ENCODER,
    "encoder_input_features": _ENCODER, "encoder_output_lengths": _ENCODER,
    "cross_attention_mask": _VISION, "skip_cross_attn_blocks": _VISION,
    "mrope_rotary_cos_sin": _VISION, "mrope_position_deltas": _VISION,
    "prompt_embedding_table": _PROMPT_TABLE, "prompt_vocab_size": _PROMPT_TABLE,
    "prompt_table_extra_ids": _PROMPT_TABLE,
    "retention_token_range_starts": _RETENTION, "retention_token_range_ends": _RETENTION,
    "retention_token_range_priorities": _RETENTION, "retention_token_range_durations_ms": _RETENTION,
    "retention_decode_priority": _RETENTION, "retention_decode_duration_ms": _RETENTION,
    "lookahead_window_size": _LOOKAHEAD, "lookahead_ngram_size": _LOOKAHEAD,
    "lookahead_verification_set_size": _LOOKAHEAD,
    "context_phase_params": "disaggregated serving is not supported",
}
"""Inputs of the contract that this engine has no answer to -> why."""

WITHOUT_EFFECT = {
    "pad_id": "nothing is padded at beam width 1",
    "len_penalty": "beam search only",
    "beam_search_diversity_rate": "beam search only",
    "early_stopping": "beam search only",
}
"""Inputs that by the contract mean nothing at beam width 1 -> why."""


def parse(tensors: Tensors, limits: Limits, number: int) -> list[Request]:
    """The batch rows of a generation request.

    `number` is what the contract's error texts call the request id of the executor. Raises RequestError.
    """
    for name, reason in REFUSED.items():
        if name in tensors and tensors[name].size:
            raise RequestError(f"{name}: {reason}")
    ids = tensors.get("input_ids")
    if ids is None or not ids.size:
        raise RequestError("Assertion failed: input_ids is present and not empty")
    rows = ids.reshape(-1, ids.shape[-1])
    return [_parse_row(tensors, row, len(rows), limits, number) for row in range(len(rows))]


def scalar(tensors: Tensors, name: str, row: int = 0, rows: int = 1) -> Any:
    """One element of a tensor of one value per batch row, as a Python value; None if the tensor is absent."""
    array = tensors.get(name)
    if array is None:
        return None
    if array.size != rows:
        raise RequestError(f"Invalid size for tensor {name}")
    return array.reshape(-1)[row].item()


def _parse_row(tensors: Tensors, row: int, rows: int, limits: Limits, number: int) -> Request:
    values = {"exclude_input": limits.exclude_input} | _scalars(tensors, row, rows)
    prompt = _prompt(tensors, row, rows, limits, number)
    values["max_tokens"] = min(values.get("max_tokens", 0), limits.max_seq_len - len(prompt))
    values["end_id"] = _end_id(scalar(tensors, "end_id", row, rows), limits)
    for field, name in (("stop_words", "stop_words_list"), ("bad_words", "bad_words_list")):
        if name in tensors:
            values[field] = word_list.decode(_row(tensors[name], row, rows))
    values["bias"] = _bias(tensors.get("embedding_bias"), row, rows, limits)
    values["guide"] = _guide(tensors, row, rows, limits)
    values["lora"] = _lora(tensors, row, rows)
    request = Request(prompt=prompt, **values)
    _check_gathered(request, limits)
    return request


def _scalars(tensors: Tensors, row: int, rows: int) -> dict[str, Any]:
    if "request_output_len" not in tensors:
        raise RequestError("Assertion failed: request_output_len is present")
    values: dict[str, Any] = {}
    for spec in SCALARS:
        value = scalar(tensors, spec.tensor, 0 if spec.per_request else row, rows)
        if value is None:
            continue
        if not spec.allowed(value):
            raise RequestError(f"Assertion failed: {spec.rule}, got {value}")
        if spec.field:
            values[spec.field] = value
    return values


def _prompt(tensors: Tensors, row: int, rows: int, limits: Limits, number: int) -> list[int]:
    prompt = _row(tensors["input_ids"], row, rows).reshape(-1).tolist()
    if rows > 1:  # only then are rows padded; the contract ignores input_lengths otherwise
        length = scalar(tensors, "input_lengths", row, rows)
        if length is None or not 0 < length <= len(prompt):
            raise RequestError(f"Assertion failed: 0 < input_lengths <= {len(prompt)}, got {length}")
        prompt = prompt[:length]
    if len(prompt) > limits.max_input_len:
        raise RequestError(
            f"Executor failed process requestId {number} due to the following error: Encountered an error when "
            f"fetching new request: Prompt length ({len(prompt)}) exceeds maximum input length "
            f"({limits.max_input_len}).")
    if min(prompt) < 0 or max(prompt) >= limits.vocab_size:
        raise RequestError(f"Assertion failed: 0 <= input_ids < {limits.vocab_size} (the vocabulary)")
    return prompt


def _end_id(value: int | None, limits: Limits) -> int:
    if value is None:
        return -1
    if not -1 <= value < limits.vocab_size:
        raise RequestError(f"EndId ({value}) is not within acceptable range [-1, {limits.vocab_size}).")
    return value


def _bias(array: np.ndarray | None, row: int, rows: int, limits: Limits) -> np.ndarray | None:
    """embedding_bias [rows, n] -> FP32 [vocab_size], zeros behind n."""
    if array is None or not array.size:
        return None
    given = _row(array, row, rows).reshape(-1)
    if len(given) > limits.vocab_size:
        raise RequestError(
            f"Assertion failed: embedding_bias has at most {limits.vocab_size} values, got {len(given)}")
    bias = np.zeros(limits.vocab_size, np.float32)
    bias[: len(given)] = given
    if np.isnan(bias).any():
        raise RequestError("Assertion failed: embedding_bias holds no NaN")
    return bias


def _guide(tensors: Tensors, row: int, rows: int, limits: Limits) -> Guide | None:
    kind = _text(tensors, "guided_decoding_guide_type", row, rows)
    text = _text(tensors, "guided_decoding_guide", row, rows)
    if kind is None and text is None:
        return None
    if not limits.guide_types:
        raise RequestError("GuidedDecoder is not setup: it needs llguidance and the tokenizer.json of the checkpoint")
    if kind not in limits.guide_types:
        raise RequestError(
            f"guided_decoding_guide_type: wanted one of {', '.join(limits.guide_types)}, got {(kind or '')[:40]!r}")
    if kind in WITHOUT_GUIDE:
        return Guide(kind, "")
    if text is None:
        raise RequestError(f"Assertion failed: guided_decoding_guide is present with the type {kind}")
    return Guide(kind, text)


def _lora(tensors: Tensors, row: int, rows: int) -> Lora | None:
    task_id = scalar(tensors, "lora_task_id", row, rows)
    weights, config = (_matrix(tensors, name, row, rows) for name in ("lora_weights", "lora_config"))
    if (weights is None) != (config is None):
        raise RequestError("Request for LoRA inference must have both lora_weights and lora_config")
    if task_id is None and weights is not None:
        raise RequestError("lora_task_id must be set for LoRA inference")
    return None if task_id is None else Lora(task_id, weights, config)


def _matrix(tensors: Tensors, name: str, row: int, rows: int) -> np.ndarray | None:
    """A matrix of one batch row; None if the tensor is absent or empty."""
    array = tensors.get(name)
    return None if array is None or not array.size else _row(array, row, rows).reshape(-1, array.shape[-1])


def _text(tensors: Tensors, name: str, row: int, rows: int) -> str | None:
    """A string of one batch row; None if the tensor is absent or empty."""
    if name not in tensors or not tensors[name].size:
        return None
    if tensors[name].size != rows:
        raise RequestError(f"Invalid size for tensor {name}")
    value = tensors[name].reshape(-1)[row]
    encoded = value.encode() if isinstance(value, str) else value
    if len(encoded) > GUIDE_SIZE:
        raise RequestError(f"{name}: at most {GUIDE_SIZE} bytes, got {len(encoded)}")
    try:
        return encoded.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{name}: not UTF-8") from error


def _check_gathered(request: Request, limits: Limits) -> None:
    if request.context_logits and not limits.context_logits:
        raise RequestError("return_context_logits needs the model parameter gather_context_logits")
    if request.generation_logits and not limits.generation_logits:
        raise RequestError("return_generation_logits needs the model parameter gather_generation_logits")


def _row(array: np.ndarray, row: int, rows: int) -> np.ndarray:
    """Batch row of a tensor; with one row the batch dimension may be missing."""
    if rows == 1:
        return array
    if len(array) != rows:
        raise RequestError(f"Invalid batch dimension: {len(array)}, expected {rows}")
    return array[row]
