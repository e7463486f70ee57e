"""Llama-layout checkpoints as a model that embeds, by the embedded engine's numpy runner. No torch."""

from __future__ import annotations

import numpy as np

from engine.numpy_runner import NumpyRunner
from preprocessing.sentences import Recipe

from .head import Head


class NumpyEncoder:
    """Implements encoder.Encoder. A text's vector does not depend on what else is computed, not by a bit."""

    def __init__(self, runner: NumpyRunner, recipe: Recipe) -> None:
        self._runner = runner
        self._head = Head(recipe)
        self.vocab_size = runner.vocab_size
        self.max_tokens: int | None = runner.max_seq_len

    def encode(self, rows: list[list[int]]) -> np.ndarray:
        found = [self._head(hidden[None], np.ones((1, len(hidden)), np.float32))
                 for hidden in self._runner.last_hidden_states(rows)]
        return np.concatenate(found)
