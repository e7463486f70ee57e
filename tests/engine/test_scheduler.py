"""In-flight batching is exact: the tokens of a sequence are Hugging Face's, alone and in any company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.checkpoint import Checkpoint
from engine.numpy_runner import NumpyRunner
from engine.runner import Segment
from tests.engine.layouts import LAYOUTS, PROMPTS, Loop, build, hugging_face, in_company, torch


@pytest.mark.parametrize("layout", LAYOUTS)
def test_greedy_equals_hugging_face_alone_and_in_company(tmp_path: Path, layout: str) -> None:
    model = build(tmp_path, layout)
    runner = NumpyRunner(Checkpoint(tmp_path))
    expected = [hugging_face(model, prompt, 24) for prompt in PROMPTS]
    assert len({token for tokens in expected for token in tokens}) > 30, "the test model says too little"
    loop = Loop(runner)
    alone = loop.add(PROMPTS[5], 24)
    loop.finish()
    assert loop.tokens[alone] == expected[5]
    assert in_company(runner, PROMPTS, 24, 11) == expected


@pytest.mark.parametrize(("dtype", "save"), [("bfloat16", {}), ("float16", {"max_shard_size": "100KB"})])
def test_stored_dtypes_and_shards(tmp_path: Path, dtype: str, save: dict[str, Any]) -> None:
    model = build(tmp_path, "llama", getattr(torch, dtype), **save)
    assert (tmp_path / "model.safetensors.index.json").exists() == bool(save)
    loop = Loop(NumpyRunner(Checkpoint(tmp_path)))
    sequence = loop.add(PROMPTS[3], 20)
    loop.finish()
    assert loop.tokens[sequence] == hugging_face(model, PROMPTS[3], 20)


def test_seeds_repeat_in_any_company(runner: NumpyRunner) -> None:
    prompts = [[5 + i, 9, 200, 31, 77 + i] * 6 for i in range(12)]
    values = dict(top_p=0.95, temperature=1.3, top_k=200, seed=11)
    alone = []
    for prompt in prompts:
        loop = Loop(runner, 11)
        sequence = loop.add(prompt, 60, **values)
        loop.finish()
        alone.append(loop.tokens[sequence])
    assert in_company(runner, prompts, 60, 11, **values) == alone
    assert len({tuple(tokens) for tokens in alone}) == len(alone)


def test_chunks_do_not_change_the_tokens(runner: NumpyRunner) -> None:
    prompt, results = [(11 * i * i + 3 * i) % 1200 for i in range(300)], []
    for chunk in (1, 7, 64, 256, 1000):
        loop = Loop(runner, chunk)
        sequence = loop.add(prompt, 40)
        loop.finish()
        results.append(loop.tokens[sequence])
    assert all(tokens == results[0] for tokens in results)


def test_a_forward_reads_at_most_one_chunk_of_prompts(runner: NumpyRunner) -> None:
    sizes = []

    class Watching:
        vocab_size, max_seq_len, new_cache = runner.vocab_size, runner.max_seq_len, runner.new_cache
        reusable = True

        def forward(self, segments: list[Segment]) -> np.ndarray:
            sizes.append([len(segment.tokens) for segment in segments])
            return runner.forward(segments)

    loop = Loop(Watching(), 10)
    for length in (25, 4, 4, 3):
        loop.add([7] * length, 2)
    loop.finish()
    assert sizes[:3] == [[10], [10], [5, 4]]  # whole chunks only: always cut at the same places
    assert sizes[3] == [1, 1, 4, 3]


def test_queue_order_and_slots(runner: NumpyRunner) -> None:
    loop = Loop(runner, max_batch_size=2)
    sequences = [loop.add([5, 9, i], 3 + i) for i in range(4)]
    loop.step()
    assert [len(loop.tokens[s]) for s in sequences] == [1, 1, 0, 0]
    assert loop.scheduler.stats().active == 4 and loop.scheduler.stats().scheduled == 2
    loop.finish()
    assert [len(loop.tokens[s]) for s in sequences] == [3, 4, 5, 6]
    assert all(sequence.cache is None for sequence in sequences)


def test_rows_do_not_depend_on_their_number(runner: NumpyRunner) -> None:
    """Bits, not closeness; true of OpenBLAS as far as it was tried. See blas.py."""
    caches = [runner.new_cache() for _ in range(17)]
    together = runner.forward([Segment(c, [i + 1, 2, 3], 1) for i, c in enumerate(caches)])
    for i in (0, 7, 16):
        assert (runner.forward([Segment(runner.new_cache(), [i + 1, 2, 3], 1)])[0] == together[i]).all()
