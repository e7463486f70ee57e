"""Sequences of different lengths → batches that are worth computing together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[Any]


def batches(lengths: Sequence[int], most_rows: int, most_tokens: int) -> list[list[int]]:
    """Indexes, longest sequences first, so that neighbours have nearly the same length and little is padding.

    Args:
        most_rows: of one batch.
        most_tokens: of one batch, padding included; a single sequence may have more.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    found: list[list[int]] = []
    for index in order:
        batch = found[-1] if found else None
        # The first of a batch is its longest.
        if batch and len(batch) < most_rows and (len(batch) + 1) * lengths[batch[0]] <= most_tokens:
            batch.append(index)
        else:
            found.append([index])
    return found


def padded(rows: Sequence[Sequence[int]], dtype: Any, padding: int = 0) -> tuple[Ints, Ints]:
    """Token ids [rows, longest] with padding behind them, and the mask that says which are tokens."""
    lengths = np.array([len(row) for row in rows])
    mask = (np.arange(lengths.max())[None] < lengths[:, None]).astype(dtype)
    ids = np.full(mask.shape, padding, dtype)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
    return ids, mask
