"""What requests.py wants from a model that embeds."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Encoder(Protocol):
    """A loaded model. Used by one thread."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_tokens(self) -> int | None:
        """The longest text; None: any."""

    def encode(self, rows: list[list[int]]) -> np.ndarray:
        """Token ids of texts -> FP32 [rows, size]."""
