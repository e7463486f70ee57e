"""Token vectors -> a text's vector, as the checkpoint's files say: pooling, dense layers, normalisation.

In: FP32 hidden states and mask, with numpy alone. Out: FP32 [rows, size].
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.checkpoint import Checkpoint
from postprocessing.pooling import normalise, pool
from preprocessing.sentences import Recipe, Step

Transform = Callable[[np.ndarray], np.ndarray]

ACTIVATIONS: dict[str, Transform] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, np.float32(0)),
}


class Head:
    """What comes behind the transformer. Raises ValueError or FileNotFoundError that name what is wrong."""

    def __init__(self, recipe: Recipe) -> None:
        self._pooling = recipe.pooling
        self._steps = [STEPS[step.kind](step) for step in recipe.steps]

    def __call__(self, hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """[rows, tokens, hidden size] and [rows, tokens] -> [rows, size]."""
        vectors = pool(hidden, mask, self._pooling)
        for step in self._steps:
            vectors = step(vectors)
        return vectors


def dense(step: Step) -> Transform:
    """A linear layer with an activation (sentence-transformers' Dense)."""
    weights = Checkpoint(step.folder)
    activate = _activation(step.folder, str(weights.config.get("activation_function", "Tanh")))
    for key in ("use_residual", "module_input_name"):
        if weights.config.get(key, "sentence_embedding") not in (False, "sentence_embedding"):
            raise ValueError(f"{step.folder}: {key} is not supported")
    matrix = weights.tensor("linear.weight")
    bias = weights.tensor("linear.bias") if "linear.bias" in weights else np.zeros(len(matrix), np.float32)
    return lambda vectors: activate(vectors @ matrix.T + bias)


def _activation(folder: Path, name: str) -> Transform:
    """By the last part of the name: torch.nn.modules.activation.Tanh."""
    short = name.rpartition(".")[2]
    if short not in ACTIVATIONS:
        raise ValueError(f"{folder}: the activation {name} is not known (known: {', '.join(ACTIVATIONS)})")
    return ACTIVATIONS[short]


STEPS: dict[str, Callable[[Step], Transform]] = {"Dense": dense, "Normalize": lambda step: normalise}
