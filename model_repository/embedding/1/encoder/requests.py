"""Requests that came together -> texts in batches of like length -> the vectors of each request.

In: token ids and masks, FP32 out. A request that is wrong fails alone; its text tells what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from preprocessing.batching import batches

from .encoder import Encoder


def texts_of(ids: np.ndarray, mask: np.ndarray, encoder: Encoder) -> list[list[int]]:
    """The token ids of each row [rows, longest] without the padding behind them.

    Raises ValueError for rows that the model cannot take.
    """
    if ids.shape != mask.shape or ids.ndim != 2:
        raise ValueError(f"input_ids and attention_mask: wanted the same shape [batch, tokens], "
                         f"found {ids.shape} and {mask.shape}")
    lengths = (mask != 0).sum(1)
    if not lengths.all():
        raise ValueError("attention_mask: wanted at least one token in each row, found a row without any")
    if ((mask != 0) != (np.arange(mask.shape[1])[None] < lengths[:, None])).any():
        raise ValueError("attention_mask: wanted padding behind the tokens only")
    if encoder.max_tokens is not None and lengths.max() > encoder.max_tokens:
        raise ValueError(f"input_ids: wanted at most {encoder.max_tokens} tokens, found {lengths.max()}")
    rows = [row[:length] for row, length in zip(ids, lengths, strict=True)]
    if any(row.min() < 0 or row.max() >= encoder.vocab_size for row in rows):
        raise ValueError(f"input_ids: wanted token ids from 0 to {encoder.vocab_size - 1}")
    return [row.tolist() for row in rows]


def encode(requests: Sequence[list[list[int]]], encoder: Encoder, most_tokens: int) -> list[np.ndarray]:
    """FP32 [rows, size] for each request; all their texts are computed together where that pays."""
    rows = [row for request in requests for row in request]
    if not rows:
        return []
    parts = batches([len(row) for row in rows], len(rows), most_tokens)
    computed = [encoder.encode([rows[index] for index in part]) for part in parts]
    vectors = np.empty((len(rows), computed[0].shape[1]), np.float32)
    for part, found in zip(parts, computed, strict=True):
        vectors[part] = found
    ends = np.cumsum([len(request) for request in requests])
    return np.split(vectors, ends[:-1])
