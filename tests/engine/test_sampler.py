"""Logits to token: what is cut, what is penalised, what repeats."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from engine.request import Request
from engine.sampler import CANDIDATES, Sampler, log_softmax, nucleus

LOGITS = np.log(np.array([0.4, 0.3, 0.15, 0.1, 0.05], np.float32))


def sampler(prompt: tuple[int, ...] = (0,), index: int = 0, **values: Any) -> Sampler:
    return Sampler(Request(prompt=list(prompt), max_tokens=9, **values), index, len(LOGITS))


@pytest.mark.parametrize(("top_k", "top_p", "kept"), [
    (0, 1.0, {0, 1, 2, 3, 4}), (2, 1.0, {0, 1}), (9, 1.0, {0, 1, 2, 3, 4}),
    (0, 0.39, {0}), (0, 0.41, {0, 1}), (0, 0.86, {0, 1, 2, 3}), (3, 0.5, {0, 1}), (1, 1.0, {0}),
])
def test_nucleus_keeps(top_k: int, top_p: float, kept: set[int]) -> None:
    ids, weights = nucleus(LOGITS, 1.0, top_k, top_p)
    assert set(range(5) if ids is None else ids.tolist()) == kept
    assert len(weights) == len(kept)


@pytest.mark.parametrize("spread", [0.001, 1.0, 6.0])
def test_nucleus_of_a_large_vocabulary_is_the_sorted_one(spread: float) -> None:
    noise = np.random.Generator(np.random.PCG64(0)).standard_normal(5 * CANDIDATES)
    logits = (noise * spread).astype(np.float32)
    ids, _ = nucleus(logits, 0.8, 0, 0.9)
    p = np.exp(log_softmax(logits / np.float32(0.8)).astype(np.float64))
    order = np.argsort(-p)
    expected = order[: int(np.searchsorted(p[order].cumsum(), 0.9)) + 1]
    assert ids is not None and abs(len(ids) - len(expected)) <= 1
    assert set(ids.tolist()) ^ set(expected.tolist()) <= {int(order[len(expected)]), int(expected[-1])}


def test_draws_follow_the_distribution() -> None:
    one = sampler(top_p=1.0, seed=3)
    drawn = Counter(one.choose(LOGITS, [0], 0) for _ in range(4000))
    assert all(abs(drawn[i] / 4000 - float(np.exp(LOGITS[i]))) < 0.03 for i in range(5))


def test_seed_and_index() -> None:
    draws = [[s.choose(LOGITS, [0], 0) for _ in range(50)] for s in (
        sampler(top_p=1.0, seed=4), sampler(top_p=1.0, seed=3, index=1), sampler(top_p=1.0, seed=3))]
    assert draws[0] == draws[1] != draws[2]
    sampler(top_p=1.0, seed=2**64 - 1, index=1).choose(LOGITS, [0], 0)  # wraps round


@pytest.mark.parametrize("values", [{}, {"temperature": 5.0}, {"temperature": 0.0, "top_p": 0.9}, {"top_k": 1}])
def test_greedy(values: dict[str, Any]) -> None:
    one = sampler(**values)
    assert one.is_argmax(0) and {one.choose(LOGITS, [0], 0) for _ in range(20)} == {0}


def test_repetition_counts_prompt_and_answer() -> None:
    logits = np.array([4.0, 3.0, 2.9, -1.0, -2.0], np.float32)
    one = sampler(prompt=(0,), repetition_penalty=2.0)
    assert one.choose(logits, [0], 0) == 1
    one.record(1)
    assert one.choose(logits, [0, 1], 1) == 2


def test_presence_and_frequency_count_the_answer_only() -> None:
    logits = np.array([3.0, 2.0, 0.0, 0.0, 0.0], np.float32)
    presence = sampler(prompt=(0,), presence_penalty=1.5)
    assert presence.choose(logits, [0], 0) == 0
    presence.record(0)
    assert presence.choose(logits, [0, 0], 1) == 1
    presence.record(1)
    assert presence.choose(logits, [0, 0, 1], 2) == 0
    frequency = sampler(prompt=(0,), frequency_penalty=0.4)
    chosen = []
    for _ in range(4):
        chosen.append(frequency.choose(logits, [0], 0))
        frequency.record(chosen[-1])
    assert chosen == [0, 0, 0, 1]


def test_penalties_and_bias_add_up() -> None:
    logits = np.array([3.0, 2.0, 1.0, 0.0, 0.0], np.float32)
    bias = np.array([0, 0, 3, 0, 0], np.float32)
    one = sampler(prompt=(2,), bias=bias, repetition_penalty=2.0, frequency_penalty=1.0)
    assert one.choose(logits, [2], 0) == 2  # 1 / 2 + 3
    one.record(2)
    assert one.choose(logits, [2, 2], 1) == 0  # 1 / 2 + 3 - 1 < 3
    assert bias.tolist() == [0, 0, 3, 0, 0]


def test_bans() -> None:
    assert sampler(bad_words=((0,), (99,), (-7,))).choose(LOGITS, [3], 0) == 1
    pair = sampler(bad_words=((3, 0), (2, -1)))
    assert pair.choose(LOGITS, [2, 3], 0) == 1 and pair.choose(LOGITS, [3, 2], 0) == 0
    assert sampler(end_id=0, min_tokens=2).choose(LOGITS, [3], 1) == 1
    assert sampler(end_id=0, min_tokens=2).choose(LOGITS, [3], 2) == 0


def test_decaying_top_p() -> None:
    one = sampler(top_p=0.8, top_p_decay=0.5, top_p_min=0.3, top_p_reset_id=4)
    seen = []
    for token in (1, 1, 4):
        seen.append(one._top_p)
        one.record(token)
    assert seen == pytest.approx([0.8, 0.4, 0.3]) and one._top_p == pytest.approx(0.8)


@pytest.mark.parametrize("logits", [np.full(5, -np.inf, np.float32), np.full(5, np.nan, np.float32)])
def test_nothing_to_choose(logits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no token is left"):
        sampler(top_p=0.9).choose(logits, [0], 0)
