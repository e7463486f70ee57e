"""Logits of one position -> the next token of one sequence.

In: FP32 [vocab_size] raw logits. Out: a token id.
Order: repetition penalty, then presence and frequency penalty and bias (one vector), then bans, then temperature,
top-k, top-p. With a guide only its tokens take part from the temperature on. It remembers only what costs O(1) per
token to keep up. It does not know about batches: the same logits and the same seed give the same tokens, whoever else
runs.
"""

from __future__ import annotations

import numpy as np

from .request import Request
from .word_list import ends_with

CANDIDATES = 1024
"""top-p without top-k looks at so many of the likeliest tokens before it sorts the whole vocabulary."""


class Sampler:
    """Chooses the tokens of one sequence; `index` is its number among num_return_sequences and shifts the seed."""

    def __init__(self, request: Request, index: int, vocab_size: int):
        self._request = request
        self._random = np.random.Generator(np.random.PCG64((request.seed + index) % 2**64))
        self._top_p = request.top_p if request.top_p > 0 else 1.0
        self._prefixes = tuple(
            (word[:-1], word[-1]) for word in request.bad_words if len(word) > 1 and 0 <= word[-1] < vocab_size)
        self._counts: dict[int, int] = {}
        self._seen = _GrowingSet(request.prompt) if request.repetition_penalty != 1 else None
        self._offset = _static_offset(request, vocab_size)
        self._adjusts = bool(self._prefixes) or self._offset is not None or self._seen is not None

    def is_argmax(self, generated: int) -> bool:
        """Whether the token after `generated` ones is simply the largest logit, so that a batch can share one call."""
        return self._request.greedy and not self._adjusts and not self._bans_end(generated)

    def choose(self, logits: np.ndarray, ids: list[int], generated: int, allowed: np.ndarray | None = None) -> int:
        """The next token. `ids` are prompt and answer so far. Raises ValueError if no token has a finite logit.

        `allowed`, if given, are the ids to choose from: the rest of the vocabulary is as if it did not exist. They
        overrule min_tokens.
        """
        bans_end = allowed is None and self._bans_end(generated)
        if self._adjusts or bans_end:
            logits = self._adjusted(logits, ids, bans_end)
        if allowed is not None:
            if not len(allowed):
                raise ValueError("no token is left to choose from")
            return int(allowed[self._choose(logits[allowed])])
        return self._choose(logits)

    def _choose(self, logits: np.ndarray) -> int:
        best = int(logits.argmax())
        if not np.isfinite(logits[best]):
            raise ValueError("no token is left to choose from")
        return best if self._request.greedy else self._draw(logits)

    def record(self, token: int) -> None:
        """Takes note of the token that was appended."""
        request = self._request
        if request.presence_penalty or request.frequency_penalty:
            assert self._offset is not None
            count = self._counts[token] = self._counts.get(token, 0) + 1
            self._offset[token] -= request.frequency_penalty + (request.presence_penalty if count == 1 else 0.0)
        if self._seen is not None:
            self._seen.add(token)
        if request.top_p > 0:  # factual nucleus sampling
            reset = token == request.top_p_reset_id
            self._top_p = request.top_p if reset else max(self._top_p * request.top_p_decay, request.top_p_min)

    def _bans_end(self, generated: int) -> bool:
        return self._request.end_id >= 0 and generated < self._request.min_tokens

    def _adjusted(self, logits: np.ndarray, ids: list[int], bans_end: bool) -> np.ndarray:
        adjusted = logits.copy() if self._offset is None else logits + self._offset
        if self._seen is not None:
            seen = self._seen.ids()
            values, penalty = logits[seen], np.float32(self._request.repetition_penalty)
            values = np.where(values > 0, values / penalty, values * penalty)
            adjusted[seen] = values if self._offset is None else values + self._offset[seen]
        for prefix, last in self._prefixes:
            if ends_with(ids, prefix):
                adjusted[last] = -np.inf
        if bans_end:
            adjusted[self._request.end_id] = -np.inf
        return adjusted

    def _draw(self, logits: np.ndarray) -> int:
        ids, weights = nucleus(logits, self._request.temperature, self._request.top_k, self._top_p)
        cumulative = np.cumsum(weights, dtype=np.float64)
        place = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        place = min(int(place), len(cumulative) - 1)
        return place if ids is None else int(ids[place])


def nucleus(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> tuple[np.ndarray | None, np.ndarray]:
    """Candidate ids and their weights (not normalised); ids None = the whole vocabulary in order."""
    scaled = (logits - logits.max()) / np.float32(temperature)
    if not top_k or top_k >= len(logits):
        weights = np.exp(scaled)
        return (None, weights) if top_p >= 1 else _most_likely(weights, top_p)
    ids = _largest(scaled, top_k)
    weights = np.exp(scaled[ids])
    kept = _count(weights, float(weights.sum(dtype=np.float64)), top_p)
    return ids[:kept], weights[:kept]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """FP32 [..., V] -> FP32 [..., V], over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def likeliest(log_probs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """[..., V] -> ids and values [..., count] of the largest along the last axis, largest first, ties in order."""
    ids = np.sort(np.argpartition(log_probs, -count, -1)[..., -count:], -1)
    values = np.take_along_axis(log_probs, ids, -1)
    order = np.argsort(-values, -1, kind="stable")
    return np.take_along_axis(ids, order, -1), np.take_along_axis(values, order, -1)


def _most_likely(weights: np.ndarray, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """Sorts values only, not ids: several times cheaper. Ids that tie with the last one kept are kept too."""
    wanted = top_p * float(weights.sum(dtype=np.float64))
    for count in (CANDIDATES, len(weights)):
        everything = count >= len(weights)
        largest = np.sort(weights if everything else np.partition(weights, -count)[-count:])[::-1]
        mass = np.cumsum(largest, dtype=np.float64)
        if everything or mass[-1] >= wanted:
            break
    least = largest[min(int(np.searchsorted(mass, wanted)), len(mass) - 1)]
    ids = np.flatnonzero(weights >= least)
    return ids, weights[ids]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Ids of the largest values, largest first, ties in order."""
    ids = np.sort(np.argpartition(values, -count)[-count:])
    return ids[np.argsort(-values[ids], kind="stable")]


def _count(weights: np.ndarray, total: float, top_p: float) -> int:
    """How many of the sorted weights make up at least top_p of the total; at least one."""
    return min(int(np.searchsorted(np.cumsum(weights, dtype=np.float64), top_p * total)) + 1, len(weights))


def _static_offset(request: Request, vocab_size: int) -> np.ndarray | None:
    """What is added to the logits: bias and single-token bad words now, penalties as tokens come; None if never."""
    banned = [word[0] for word in request.bad_words if len(word) == 1 and 0 <= word[0] < vocab_size]
    if request.bias is None and not banned and not request.presence_penalty and not request.frequency_penalty:
        return None
    offset = np.zeros(vocab_size, np.float32) if request.bias is None else request.bias.copy()
    offset[banned] = -np.inf
    return offset


class _GrowingSet:
    """Distinct ids as an array that grows by doubling."""

    def __init__(self, ids: list[int]):
        self._members = set(ids)
        self._array = np.array(sorted(self._members), np.int64)
        self._size = len(self._array)

    def add(self, token: int) -> None:
        if token in self._members:
            return
        self._members.add(token)
        if self._size == len(self._array):
            self._array = np.concatenate([self._array, np.zeros(self._size + 16, np.int64)])
        self._array[self._size] = token
        self._size += 1

    def ids(self) -> np.ndarray:
        return self._array[: self._size]
