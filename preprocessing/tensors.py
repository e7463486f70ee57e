"""A `Generation` → the input tensors of the `tensorrt_llm` contract: one table, one row per tensor.

Every tensor has the leading batch dimension 1. A row whose value is None is not sent, so the engine's default holds.
Source: TensorRT-LLM's Triton backend, `inflight_batcher_llm/tensorrt_llm/config.pbtxt`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from preprocessing.generation import Generation

Array = npt.NDArray[Any]
NO_END_ID = -1


class Row(NamedTuple):
    """One input tensor: its dtype and the value it takes from a request (None: leave it out)."""

    dtype: type[np.generic]
    value: Callable[[Generation], Any]


def word_list(words: Sequence[Sequence[int]]) -> list[list[int]]:
    """The contract's encoding of token sequences: all ids in a row, then the end offset of each word, padded with -1.

    >>> word_list([[5, 6], [9]])
    [[5, 6, 9], [2, 3, -1]]
    """
    ids = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words]).tolist()
    return [ids, ends + [-1] * (len(ids) - len(ends))]


def further_ends(generation: Generation) -> list[list[int]] | None:
    """The contract has one `end_id`; models with several end-of-sequence tokens pass the others as stop words."""
    return word_list([[token] for token in generation.end_ids[1:]]) if generation.end_ids[1:] else None


ROWS: dict[str, Row] = {
    "input_ids": Row(np.int32, lambda g: g.prompt_ids),
    "input_lengths": Row(np.int32, lambda g: [len(g.prompt_ids)]),
    "request_output_len": Row(np.int32, lambda g: [g.max_tokens]),
    "streaming": Row(np.bool_, lambda g: [True]),
    "exclude_input_in_output": Row(np.bool_, lambda g: [True]),
    "end_id": Row(np.int32, lambda g: [g.end_ids[0] if g.end_ids else NO_END_ID]),
    "stop_words_list": Row(np.int32, further_ends),
    # Greedy is top_k 1 on every version of the engine; a temperature of 0 is not.
    "runtime_top_k": Row(np.int32, lambda g: [1] if g.sampling.greedy else None),
    "temperature": Row(np.float32, lambda g: None if g.sampling.greedy else [g.sampling.temperature]),
    # Without top_k and top_p the engine decodes greedily whatever the temperature, so 1.0 is sent, too.
    "runtime_top_p": Row(np.float32, lambda g: None if g.sampling.greedy else [g.sampling.top_p]),
    # Seeds may be negative for OpenAI and are unsigned for the engine.
    "seed": Row(np.uint64, lambda g: [g.sampling.seed & (2**64 - 1)]),
}


def tensors(generation: Generation) -> dict[str, Array]:
    """Input tensors by name, each of shape [1, …]."""
    found = {name: (row.dtype, row.value(generation)) for name, row in ROWS.items()}
    return {name: np.array([value], dtype) for name, (dtype, value) in found.items() if value is not None}
