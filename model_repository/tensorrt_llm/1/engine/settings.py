"""Model parameters of config.pbtxt -> Settings.

In: a mapping of parameter name to text. Out: a frozen dataclass, or one error that names every bad value.
An empty text or an unfilled "${name}" placeholder means the default. It does not know what the values are used for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

_TRUE = {"True", "true", "TRUE", "1"}
_FALSE = {"False", "false", "FALSE", "0"}
_POSITIVE = ("max_batch_size", "prefill_chunk", "session_timeout_ms")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator can set. 0 means "the checkpoint's own" for lengths and "the library's own" for threads."""

    runner: str = "numpy"
    checkpoint: str = ""
    max_batch_size: int = 64  # sequences that run at the same time
    max_queue_size: int = 1024  # sequences that wait; 0 = no limit
    max_seq_len: int = 0  # prompt and answer together
    max_input_len: int = 0  # prompt alone; at most max_seq_len - 1
    prefill_chunk: int = 256  # prompt tokens in one step
    kv_cache_reuse_tokens: int = 65536  # of prompts, kept for others that begin alike; 0 = off
    exclude_input_in_output: bool = False
    session_timeout_ms: int = 30_000
    poll_wait_ms: int = 20
    step_interval_ms: float = 0.0  # a minimum, for demonstrations and tests
    gather_context_logits: bool = True
    gather_generation_logits: bool = True
    threads: int = 0
    llm_options: str = ""  # trtllm: a JSON file with more arguments of LLM
    lora_cache_host_memory_bytes: int = 1 << 30  # of adapters that came with requests; trtllm has its own cache
    lora_dir: str = ""  # trtllm: adapters, each in a folder of its own
    guided_decoding_backend: str = ""  # trtllm: xgrammar, llguidance or none

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Settings:
        """Reads the parameters it knows, leaves others alone. Raises ValueError that lists all bad ones."""
        values: dict[str, Any] = {}
        wrong = []
        for field in fields(cls):
            text = parameters.get(field.name, "").strip()
            if not text or (text.startswith("${") and text.endswith("}")):
                continue
            try:
                values[field.name] = _READERS[str(field.type)](text)
            except ValueError as error:
                wrong.append(f"{field.name}: {error}, found {text!r}")
        wrong += [f"{name}: wanted at least 1, found 0" for name in _POSITIVE if values.get(name) == 0]
        if wrong:
            raise ValueError("bad model parameters: " + "; ".join(wrong))
        return cls(**values)


def _read_count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("wanted an integer that is not negative")
    return int(text)


def _read_duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError("wanted a number that is not negative")
    return value


def _read_bool(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise ValueError("wanted true or false")
    return text in _TRUE


_READERS: dict[str, Callable[[str], Any]] = {
    "str": str, "int": _read_count, "float": _read_duration, "bool": _read_bool,
}
