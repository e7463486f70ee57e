"""Dialogues -> batches of tokens for training, made ahead by worker processes.

In: a tokenizer's file, a seed and the number of a batch. Out: a Batch, the same one each time; so training can go on
where it stopped. Whole dialogues stand one after the other, so nothing is cut and nothing is padded.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from . import vocabulary
from .dialogue import dialogue, segments
from .source import Source

IGNORED = -100
EARLY_TOKENS = 1_500_000  # so many tokens are half copying
_LONG = 0.04  # of the dialogues have many turns
_CHOICE = 10.0  # how much the choice of a function counts, next to any other token
_AHEAD = 8


class Batch(NamedTuple):
    """[tokens] each: tokens, what to predict at each place (or IGNORED), how much it counts; lengths of dialogues."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    lengths: list[int]


class Encoder:
    """Dialogues -> token ids and targets. Works piece by piece, as the server does with prompt and answer."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._before_name = tokenizer.encode('{"name": "', add_special_tokens=False).ids

    def encode(self, source: Source, early: bool) -> tuple[list[int], list[int], list[float]]:
        """Token ids, for each the one to predict next, and how much that counts."""
        ids: list[int] = []
        said: list[int] = []
        weights: list[float] = []
        made = dialogue(source, early, source.chance(_LONG))
        for text, own in segments(made):
            piece = self._tokenizer.encode(text, add_special_tokens=False).ids
            ids += piece
            said += piece if own else [IGNORED] * len(piece)
            weights += self._weights(piece) if own and len(made.tools) > 1 else [1.0] * len(piece)
        return ids[:-1], said[1:], weights[1:]

    def _weights(self, piece: list[int]) -> list[float]:
        """The first token of a function's name says which one of several was chosen: one token of thirty or so."""
        before = len(self._before_name)
        return [_CHOICE if piece[max(0, place - before): place] == self._before_name else 1.0
                for place in range(len(piece))]

    def batch(self, size: int, seed: int, number: int) -> Batch:
        """Whole dialogues of `size` tokens together, or a few more."""
        source = Source(Random(f"batch {seed} {number}"))
        tokens: list[int] = []
        targets: list[int] = []
        weights: list[float] = []
        lengths: list[int] = []
        while len(tokens) < size:
            ids, wanted, counts = self.encode(source, early=number * size < EARLY_TOKENS)
            tokens += ids
            targets += wanted
            weights += counts
            lengths.append(len(ids))
        return Batch(np.array(tokens), np.array(targets), np.array(weights, dtype=np.float32), lengths)


def stream(folder: Path, size: int, seed: int, first: int, every: int, workers: int) -> Iterator[Batch]:
    """Batches number `first`, `first + every`, ... in order, from so many workers."""
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(_AHEAD) for _ in range(workers)]
    for worker, queue in enumerate(queues):
        arguments = (str(folder / "tokenizer.json"), size, seed, first + worker * every, workers * every, queue)
        context.Process(target=_work, args=arguments, daemon=True).start()
    while True:
        for queue in queues:
            yield Batch(*queue.get())


def _work(tokenizer_file: str, size: int, seed: int, first: int, step: int, queue: Any) -> None:
    encoder = Encoder(Tokenizer.from_file(tokenizer_file))
    number = first
    while True:
        queue.put(tuple(encoder.batch(size, seed, number)))
        number += step


def tokenizer_of(folder: Path, seed: int) -> Tokenizer:
    """The folder's tokenizer; trained and written if there is none."""
    if not (folder / "tokenizer.json").exists():
        vocabulary.write(vocabulary.train(seed), folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
