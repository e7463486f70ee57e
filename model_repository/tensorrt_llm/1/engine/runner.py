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
    """The next tokens of one sequence. `rows` = how many of the last positions need logits (0 = none).

    `adapter` = what lora.Adaptable.lora_weights has made, for a runner that can apply it.

    A cache may appear several times in one forward, in order. Tokens of one segment attend together: with the numpy
    runner the cuts between segments decide about the last bits of the result, and nothing else does.
    """

    cache: Any
    tokens: list[int]
    rows: int
    adapter: Any = None


class SavingCache(Protocol):
    """A cache whose positions can be copied."""

    def save(self, start: int, end: int) -> Any:
        """A copy of these positions, with its own memory."""

    def restore(self, saved: Sequence[Any]) -> None:
        """Fills an empty cache with copies, one behind the other."""


class Runner(Protocol):
    """A loaded model. Used by one thread."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_seq_len(self) -> int: ...

    @property
    def reusable(self) -> bool:
        """Whether positions of one cache can be copied into another without changing any result by a bit.

        Then caches have save and restore (see SavingCache).
        """

    def new_cache(self) -> Any:
        """An empty cache for one sequence; whoever holds it owns its memory."""

    def forward(self, segments: Sequence[Segment]) -> np.ndarray:
        """Appends the tokens to the caches; FP32 [sum of rows, vocab_size], segment after segment.

        After an exception the caches of these segments must not be used again.
        """
