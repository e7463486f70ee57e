"""KV reuse: what is found and kept, and that no bit of any result depends on it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.checkpoint import Checkpoint
from engine.numpy_runner import NumpyRunner
from engine.prefix_cache import PrefixCache
from engine.sequence import Sequence
from tests.engine.client import PROMPT
from tests.engine.layouts import Loop, build

LONG = [(11 * i * i + 3 * i) % 1200 for i in range(400)]


def reading(cache: PrefixCache, prompt: list[int], step: int = 64) -> list[int]:
    """Looks a prompt up, then computes the rest; the starts of the blocks that had to be saved."""
    chain = cache.find(prompt)
    saved: list[int] = []

    def save(start: int, end: int) -> tuple[int, int]:
        assert end - start == 64
        saved.append(start)
        return start, end

    for computed in range(len(chain) * 64, len(prompt) + step, step):
        cache.store(chain, prompt, min(computed, len(prompt)), save)
    return saved


def found(cache: PrefixCache, prompt: list[int]) -> int:
    return len(cache.find(prompt))


@pytest.mark.parametrize("step", [1, 50, 64, 256, 1000])
def test_whole_blocks_are_found_but_never_the_last_token(step: int) -> None:
    cache = PrefixCache(10_000)
    assert reading(cache, LONG, step) == [0, 64, 128, 192, 256, 320]
    assert reading(cache, LONG, step) == []
    assert [found(cache, LONG[:n]) for n in (1, 64, 65, 128, 129, 400)] == [0, 0, 1, 1, 2, 6]
    assert found(cache, [0, *LONG]) == 0 and found(cache, LONG[64:]) == 0
    assert found(cache, [*LONG[:130], 7, *LONG[131:]]) == 2
    assert [block.saved for block in cache.find(LONG[:129])] == [(0, 64), (64, 128)]


def test_equal_blocks_behind_different_ones_are_different() -> None:
    cache = PrefixCache(10_000)
    same = [5] * 64
    assert len(reading(cache, [*LONG[:64], *same, 1])) == 2
    assert len(reading(cache, [*LONG[64:128], *same, 1])) == 2
    assert reading(cache, [*same, *same, 1]) == [0, 64]
    assert len(cache) == 6


def test_the_least_recently_used_end_goes_first() -> None:
    cache = PrefixCache(6 * 64 + 63)
    one, two, three = ([number] * 193 for number in (1, 2, 3))
    reading(cache, one)
    reading(cache, two)
    assert found(cache, one) == 3  # and that was a use
    reading(cache, [*three[:64], 0])
    assert (found(cache, two), found(cache, one), found(cache, three), len(cache)) == (2, 3, 1, 6)


def test_more_than_fits_keeps_the_beginning() -> None:
    cache = PrefixCache(2 * 64)
    reading(cache, LONG)
    assert len(cache) == 2 and found(cache, LONG) == 2


def test_a_chain_whose_blocks_have_been_dropped_is_given_up() -> None:
    cache, chain = PrefixCache(2 * 64), []
    cache.store(chain, LONG, 128, lambda start, end: start)
    reading(cache, [1] * 130)
    assert [block.saved for block in chain] == [None, None]
    cache.store(chain, LONG, 400, lambda start, end: pytest.fail("nothing could find it"))
    assert found(cache, LONG) == 0 and len(cache) == 2


def test_random_use_leaves_nothing_unreachable() -> None:
    cache, dice = PrefixCache(20 * 64), random.Random(3)
    for _ in range(500):
        prompt = [token for _ in range(dice.randint(0, 6)) for token in [dice.randint(1, 3)] * 64] + [9]
        reading(cache, prompt, dice.choice((64, 128)))
        numbers = {block.number for block in cache._blocks.values()}
        assert len(cache) <= 20 and all(key[0] in numbers | {0} for key in cache._blocks)


def test_nothing_is_kept_when_it_is_off() -> None:
    cache = PrefixCache(0)
    assert reading(cache, LONG) == [] and found(cache, LONG) == 0


def shared(count: int) -> list[list[int]]:
    """Prompts that have more and more in common with LONG, of all kinds of lengths."""
    return [[*LONG[: 23 * i], *[(i * j * 31 + 7) % 1200 for j in range(1 + 13 * i % 90)]] for i in range(count)]


def served(runner: NumpyRunner, chunk: int, reuse: int, company: bool) -> tuple[list[Any], Loop]:
    """Tokens and logits of prompts that come one after the other, and a second time."""
    loop, dice, ours = Loop(runner, chunk, 40, reuse), random.Random(5), []
    for prompt in shared(17) * 2 + [LONG[:64], LONG[:65], LONG[:128]]:
        ours.append(loop.add(prompt, 6, generation_logits=True, top_p=0.9, seed=3))
        if company:
            loop.add(dice.choice((LONG, LONG[:99], PROMPT)) + dice.choices(range(1, 200), k=dice.randint(1, 80)), 9)
        for _ in range(dice.randint(0, 4)):
            loop.step()
    loop.finish()
    return [(loop.tokens[s], np.stack(loop.logits[s])) for s in ours], loop


@pytest.mark.parametrize("chunk", [1000, 256, 100, 64, 40, 7])
def test_no_bit_of_any_result_depends_on_reuse(runner: NumpyRunner, chunk: int) -> None:
    plain, loop = served(runner, chunk, 0, False)
    assert loop.scheduler.stats().reused_blocks == 0
    for reuse, company, least in ((100_000, False, 60), (100_000, True, 80), (5 * 64, True, 10), (0, True, 0)):
        others, loop = served(runner, chunk, reuse, company)
        assert [tokens for tokens, _ in others] == [tokens for tokens, _ in plain]
        assert all((a.view(np.int32) == b.view(np.int32)).all() for (_, a), (_, b) in zip(others, plain, strict=True))
        assert loop.scheduler.stats().reused_blocks >= least
        assert len(loop.scheduler._prefixes) <= reuse // 64


@pytest.mark.parametrize("layout", ["mistral, short window", "qwen3", "llama, tied, mha"])
def test_other_layouts(tmp_path: Path, layout: str) -> None:
    build(tmp_path, layout)
    runner = NumpyRunner(Checkpoint(tmp_path))
    prompts = [[i % 300 for i in LONG[:n]] for n in (200, 128, 130, 200, 64, 193)]
    results = []
    for reuse in (0, 10_000):
        loop = Loop(runner, 64, reuse=reuse)
        ours = []
        for prompt in prompts:
            ours.append(loop.add(prompt, 4, generation_logits=True))
            loop.finish()
        results.append([np.stack(loop.logits[s]).view(np.int32) for s in ours])
    assert loop.scheduler.stats().reused_blocks == 1 + 2 + 3 + 0 + 3
    assert all((a == b).all() for a, b in zip(*results, strict=True))


def test_how_a_prompt_is_spread_over_steps_changes_no_bit(runner: NumpyRunner) -> None:
    results = []
    for chunk in (64, 100, 256, 1000):
        loop = Loop(runner, chunk)
        sequence = loop.add(LONG, 3, generation_logits=True)
        loop.finish()
        results.append(np.stack(loop.logits[sequence]).view(np.int32))
    assert all((result == results[0]).all() for result in results)


def test_blocks_of_a_prompt_that_is_still_being_read_and_of_a_cancelled_one(runner: NumpyRunner) -> None:
    loop = Loop(runner, 64, reuse=10_000)
    first = loop.add(LONG, 2)
    second = loop.add(LONG, 2)
    while first.in_prompt:
        assert second.cache is None
        loop.step()
    loop.finish()
    assert (first.reused_blocks, second.reused_blocks) == (0, 6) and loop.tokens[first] == loop.tokens[second]
    third = loop.add([7] * 300, 2)
    loop.step()
    loop.step()
    loop.scheduler.cancel([third])
    loop.step()
    fourth = loop.add([7] * 300, 2)
    loop.finish()
    assert fourth.reused_blocks == 2
    assert all(s.cache is None and not s.chain for s in (first, second, third, fourth))


def test_a_block_with_tokens_of_the_answer_is_not_found(runner: NumpyRunner) -> None:
    loop = Loop(runner, reuse=10_000)
    first = loop.add(LONG[:100], 60)
    loop.finish()
    second = loop.add(first.ids, 2)
    loop.finish()
    assert second.reused_blocks == 1


def test_a_step_copies_only_so_much(runner: NumpyRunner) -> None:
    loop = Loop(runner, 10, reuse=10_000)
    loop.add(LONG, 1)
    loop.finish()
    sequences = [loop.add(LONG, 1) for _ in range(4)]
    loop.step()
    assert [s.reused_blocks for s in sequences] == [6, 0, 0, 0]
    loop.finish()
    assert [s.reused_blocks for s in sequences] == [6] * 4


def test_metrics(make_client: Any) -> None:
    seen: list[Any] = []
    client = make_client(publish=seen.append)
    figures = []
    for values in ({}, {}, {"return_context_logits": True}):
        outputs = client.ask(LONG, 1, return_perf_metrics=True, **values).wait()[-1].outputs
        figures.append([int(outputs[f"kv_cache_{name}_blocks"][0, 0]) for name in (
            "alloc_new", "reused", "alloc_total")])
    assert figures == [[7, 0, 7], [1, 6, 7], [7, 0, 7]]
    client.engine.close()
    assert seen[-1].reused_blocks == 6 and seen[-1].active == 0
    off = make_client(kv_cache_reuse_tokens=0)
    assert [off.ask(LONG, 1, return_perf_metrics=True).wait()[-1].outputs["kv_cache_reused_blocks"][0, 0]
            for _ in range(2)] == [0, 0]


def test_a_runner_that_cannot_is_left_alone(runner: NumpyRunner) -> None:
    class Other:
        vocab_size, max_seq_len, reusable = runner.vocab_size, runner.max_seq_len, False

        def new_cache(self) -> Any:
            return runner.new_cache()

        def forward(self, segments: Any) -> np.ndarray:
            sizes.append([len(segment.tokens) for segment in segments])
            return runner.forward(segments)

    sizes: list[list[int]] = []
    loop = Loop(Other(), 150, reuse=10_000)
    ours: list[Sequence] = []
    for _ in range(2):
        ours.append(loop.add(LONG, 1))
        loop.finish()
    assert [s.reused_blocks for s in ours] == [0, 0] and sizes == [[150], [150], [100]] * 2
