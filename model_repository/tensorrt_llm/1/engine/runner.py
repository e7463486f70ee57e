"""What the scheduler wants from a model: one packed forward over pieces of many sequences.

In: segments, each a cache that already holds some positions and the tokens that follow them.
Out: FP32 logits of the last positions of each segment, as many as it asks for.
A runner knows weights and caches; it does not know requests, sampling or time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Segment:
    """The next tokens of one sequence. `rows` = how many of the last positions need logits (0 = none)."""

    cache: Any
    tokens: list[int]
    rows: int


class Runner(Protocol):
    """A loaded model. Used by one thread."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_seq_len(self) -> int: ...

    def new_cache(self) -> Any:
        """An empty cache for one sequence; whoever holds it owns its memory."""

    def forward(self, segments: Sequence[Segment]) -> np.ndarray:
        """Appends the tokens to the caches; FP32 [sum of rows, vocab_size], segment after segment.

        After an exception the caches of these segments must not be used again.
        """
