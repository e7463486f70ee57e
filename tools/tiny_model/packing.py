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
_AHEAD = 8


class Batch(NamedTuple):
    """Int64 [tokens]: tokens, and what to predict at each place (or IGNORED). The lengths of the dialogues."""

    tokens: np.ndarray
    targets: np.ndarray
    lengths: list[int]


class Encoder:
    """Dialogues -> token ids and targets. Works piece by piece, as the server does with prompt and answer."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def encode(self, source: Source, early: bool) -> tuple[list[int], list[int]]:
        """Token ids, and for each the one to predict next."""
        ids: list[int] = []
        said: list[int] = []
        for text, own in segments(dialogue(source, early, source.chance(_LONG))):
            piece = self._tokenizer.encode(text, add_special_tokens=False).ids
            ids += piece
            said += piece if own else [IGNORED] * len(piece)
        return ids[:-1], said[1:]

    def batch(self, size: int, seed: int, number: int) -> Batch:
        """Whole dialogues of `size` tokens together, or a few more."""
        source = Source(Random(f"batch {seed} {number}"))
        tokens: list[int] = []
        targets: list[int] = []
        lengths: list[int] = []
        while len(tokens) < size:
            ids, wanted = self.encode(source, early=number * size < EARLY_TOKENS)
            tokens += ids
            targets += wanted
            lengths.append(len(ids))
        return Batch(np.array(tokens), np.array(targets), lengths)


def stream(folder: Path, size: int, seed: int, first: int, workers: int) -> Iterator[Batch]:
    """Batches number `first` and on, in order, from so many processes."""
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(_AHEAD) for _ in range(workers)]
    for worker, queue in enumerate(queues):
        arguments = (str(folder / "tokenizer.json"), size, seed, first + worker, workers, queue)
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
