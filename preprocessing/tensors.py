"""A `Generation` → the input tensors of the `tensorrt_llm` contract: one table, one row per tensor.

Every tensor has the leading batch dimension 1. A row whose value is None is not sent, so the engine's default holds.
Source: TensorRT-LLM's Triton backend, `inflight_batcher_llm/tensorrt_llm/config.pbtxt`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from preprocessing.generation import Generation, LogProbs, Prompt, Sampling
from preprocessing.lora import Adapter

Array = npt.NDArray[Any]
NO_END_ID = -1


class Asked(NamedTuple):
    """What the rows look at: the request, one of its prompts, its sampling, and the size of the vocabulary."""

    generation: Generation
    prompt: Prompt
    sampling: Sampling
    vocab_size: int
    adapter: Adapter | None


class Row(NamedTuple):
    """One input tensor: its dtype and the value it takes from a request (None: leave it out)."""

    dtype: type[np.generic]
    value: Callable[[Asked], Any]


@dataclass(frozen=True, slots=True)
class Submission:
    """What a transport needs for one prompt.

    Attributes:
        tensors: inputs of the contract by name, but for those of log probs, which transports ask for in their own way,
            and for the weights of the adapter, which they send when the engine needs them.
        max_tokens: value of request_output_len, to tell why an answer ended.
        sequences: value of num_return_sequences.
    """

    tensors: dict[str, Array]
    max_tokens: int
    sequences: int
    prompt_len: int
    log_probs: LogProbs | None
    adapter: Adapter | None = None


def word_list(words: Sequence[Sequence[int]]) -> list[list[int]] | None:
    """The contract's encoding of token sequences: all ids in a row, then the end offset of each word, padded with -1.

    >>> word_list([[5, 6], [9]])
    [[5, 6, 9], [2, 3, -1]]
    """
    ids = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words]).tolist()
    return [ids, ends + [-1] * (len(ids) - len(ends))] if ids else None


def stop_words(generation: Generation) -> list[list[int]] | None:
    """The contract has one `end_id`; models with several end tokens pass the others as stop words.

    `min_tokens` holds back `end_id` but no stop words: with it, answers watch for the others by themselves.
    """
    if generation.sampling.min_tokens:
        return None
    return word_list([[token] for token in (*generation.end_ids[1:], *generation.stop_ids)])


def dense(bias: dict[int, float], vocab_size: int) -> Array | None:
    """Biases as a vector over the vocabulary."""
    if not bias:
        return None
    vector = np.zeros(vocab_size, np.float32)
    vector[list(bias)] = list(bias.values())
    return vector


def guide_text(asked: Asked, member: str) -> list[bytes] | None:
    """A member of the guide as a STRING tensor's one element."""
    value = getattr(asked.generation.guide, member, None)
    return None if value is None else [value.encode()]


def unless(value: Any, default: Any) -> list[Any] | None:
    """A scalar, left out where the engine's default is the same: fewer tensors, and older engines know fewer."""
    return None if value == default else [value]


ROWS: dict[str, Row] = {
    "input_ids": Row(np.int32, lambda a: a.prompt.ids),
    "input_lengths": Row(np.int32, lambda a: [len(a.prompt.ids)]),
    # Log probs of a prompt come with its first new token, so there has to be one.
    "request_output_len": Row(np.int32, lambda a: [max(1, a.prompt.max_tokens)]),
    "streaming": Row(np.bool_, lambda a: [True]),
    "exclude_input_in_output": Row(np.bool_, lambda a: [True]),
    "num_return_sequences": Row(np.int32, lambda a: unless(a.generation.best_of, 1)),
    "end_id": Row(np.int32, lambda a: [a.generation.end_ids[0] if a.generation.end_ids else NO_END_ID]),
    "stop_words_list": Row(np.int32, lambda a: stop_words(a.generation)),
    "bad_words_list": Row(np.int32, lambda a: word_list(a.sampling.bad_words)),
    "embedding_bias": Row(np.float32, lambda a: dense(a.sampling.bias, a.vocab_size)),
    # Greedy is top_k 1 on every version of the engine; a temperature of 0 is not.
    "runtime_top_k": Row(np.int32, lambda a: [1] if a.sampling.greedy else unless(a.sampling.top_k, 0)),
    "temperature": Row(np.float32, lambda a: None if a.sampling.greedy else [a.sampling.temperature]),
    # Without top_k and top_p the engine decodes greedily whatever the temperature, so 1.0 is sent, too.
    "runtime_top_p": Row(np.float32, lambda a: None if a.sampling.greedy else [a.sampling.top_p]),
    # Seeds may be negative for OpenAI and are unsigned for the engine.
    "seed": Row(np.uint64, lambda a: [a.sampling.seed & (2**64 - 1)]),
    "presence_penalty": Row(np.float32, lambda a: unless(a.sampling.presence_penalty, 0)),
    "frequency_penalty": Row(np.float32, lambda a: unless(a.sampling.frequency_penalty, 0)),
    "repetition_penalty": Row(np.float32, lambda a: unless(a.sampling.repetition_penalty, 1)),
    "guided_decoding_guide_type": Row(np.object_, lambda a: guide_text(a, "type")),
    "guided_decoding_guide": Row(np.object_, lambda a: guide_text(a, "text")),
    # Absent means 1 for some engines: an answer may be empty unless the client says otherwise.
    "min_tokens": Row(np.int32, lambda a: [a.sampling.min_tokens]),
    "lora_task_id": Row(np.uint64, lambda a: None if a.adapter is None else [a.adapter.task_id]),
}


def submissions(generation: Generation, vocab_size: int, adapter: Adapter | None = None) -> list[Submission]:
    """One submission for each prompt; tensors are of shape [1, …]."""
    sampling = generation.sampling
    return [submission(Asked(generation, prompt, sampling, vocab_size, adapter)) for prompt in generation.prompts]


def submission(asked: Asked) -> Submission:
    found = {name: (row.dtype, row.value(asked)) for name, row in ROWS.items()}
    return Submission(
        tensors={name: np.array([value], dtype) for name, (dtype, value) in found.items() if value is not None},
        max_tokens=max(1, asked.prompt.max_tokens),
        sequences=asked.generation.best_of,
        prompt_len=len(asked.prompt.ids),
        log_probs=wanted_log_probs(asked.generation),
        adapter=asked.adapter,
    )


def wanted_log_probs(generation: Generation) -> LogProbs | None:
    """What the client wants, or what it takes to find the best of several candidates."""
    if generation.log_probs is None and generation.best_of > generation.n:
        return LogProbs(top=0, prompt=False, as_ids=False)
    return generation.log_probs
