"""Vectors of tokens → one vector of the text.

In: FP32 [rows, tokens, size] and a mask. Out: FP32 [rows, size times the number of poolings]. The ways are those that
sentence-transformers' Pooling module has, under its names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[Any]

TINY = 1e-9


def pool(hidden: Floats, mask: Mask, poolings: Sequence[str]) -> Floats:
    """One vector for each row.

    Args:
        hidden: FP32 [rows, tokens, size].
        mask: [rows, tokens], 1 for tokens and 0 for padding behind them.
        poolings: keys of `POOLINGS`; the vectors of several are put one behind the other.
    """
    marks = mask.astype(np.float32)
    return np.concatenate([POOLINGS[name](hidden.astype(np.float32), marks) for name in poolings], axis=1)


def normalise(vectors: Floats) -> Floats:
    """Vectors of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def weighted(hidden: Floats, weights: Floats) -> Floats:
    """Mean over the tokens, with weights [rows, tokens]."""
    totals = np.einsum("rts,rt->rs", hidden, weights)
    return totals / np.maximum(weights.sum(1, keepdims=True), TINY)


def highest(hidden: Floats, mask: Floats) -> Floats:
    return np.where(mask[..., None] > 0, hidden, np.float32(-np.inf)).max(1)


def mean_sqrt(hidden: Floats, mask: Floats) -> Floats:
    """The sum of the tokens' vectors over the square root of their number."""
    return weighted(hidden, mask) * np.sqrt(mask.sum(1, keepdims=True))


def weighted_mean(hidden: Floats, mask: Floats) -> Floats:
    """A later token weighs more: token i counts i + 1 times."""
    return weighted(hidden, mask * np.arange(1, mask.shape[1] + 1, dtype=np.float32))


def last(hidden: Floats, mask: Floats) -> Floats:
    rows = np.arange(len(hidden))
    return hidden[rows, mask.sum(1).astype(np.int64) - 1]


POOLINGS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "cls": lambda hidden, mask: hidden[:, 0],
    "max": highest,
    "mean": weighted,
    "mean_sqrt_len_tokens": mean_sqrt,
    "weightedmean": weighted_mean,
    "lasttoken": last,
}
