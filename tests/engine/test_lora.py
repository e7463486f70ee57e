"""LoRA: adapters beside each other in one batch, the cache of adapters, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.blas import Linear
from engine.checkpoint import Checkpoint
from engine.errors import RequestError
from engine.lora import AdapterCache, Layout, Lora, Update, updates
from engine.numpy_runner import NumpyRunner
from tests.engine.adapters import MODULE_IDS, Updates, merged, random_adapter, tensors
from tests.engine.client import PROMPT, Client
from tests.engine.layouts import PROMPTS, Loop, build, hugging_face
from tests.engine.test_session import Caller

NOT_CACHED = "LoRA task {} not found in cache. Please send LoRA weights with request"


def adapters_of(runner: NumpyRunner, *made: Updates) -> list[Any]:
    """None for the base model, then what the engine gives requests that bring these weights."""
    cache, found = AdapterCache(runner, 1 << 30), [None]
    for number, each in enumerate(made):
        given = tensors(number, each)
        found.append(cache.take(Lora(number, given["lora_weights"][0], given["lora_config"][0])))
    return found


@pytest.mark.parametrize("layout", ["llama, biases", "mistral, short window", "qwen3"])
def test_a_mixed_batch_equals_merged_checkpoints(tmp_path: Path, layout: str) -> None:
    """The reference is Hugging Face's, on weights with the updates added in."""
    model = build(tmp_path / "base", layout)
    runner = NumpyRunner(Checkpoint(tmp_path / "base"))
    made = [random_adapter(tmp_path / "base", 1), random_adapter(tmp_path / "base", 2, rank=3, projections=(
        "self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"), layers=[1])]
    adapters = adapters_of(runner, *made)
    models = [model, *(type(model).from_pretrained(merged(tmp_path / "base", each, tmp_path / str(number))).eval()
                       for number, each in enumerate(made))]
    loop = Loop(runner, 16)
    sequences = []
    for prompt in PROMPTS[:4]:
        sequences.append([loop.add(prompt, 8, adapter=adapter) for adapter in adapters])
        loop.step()
    loop.finish()
    for prompt, group in zip(PROMPTS, sequences, strict=False):
        found = [loop.tokens[sequence] for sequence in group]
        assert found == [hugging_face(each, prompt, 8) for each in models]
        assert len(set(map(tuple, found))) == 3


def test_no_bit_depends_on_the_company_of_other_adapters(runner: NumpyRunner, tiny: Path) -> None:
    adapters = adapters_of(runner, random_adapter(tiny, 1, 4), random_adapter(tiny, 2, 9))
    prompts = [[(i * n) % 1200 for i in range(3, 3 + 17 * n)] for n in range(1, 6)]

    def answers(together: bool, reuse: int) -> list[Any]:
        loop, ours = Loop(runner, 256, reuse=reuse), []
        for prompt in prompts:
            for adapter in adapters:
                ours.append(loop.add(prompt, 5, generation_logits=True, adapter=adapter))
                if not together:
                    loop.finish()
        loop.finish()
        return [np.stack(loop.logits[sequence]).view(np.int32) for sequence in ours]

    alone = answers(False, 0)
    for other in (answers(True, 0), answers(True, 10_000), answers(False, 10_000)):
        assert all((a == b).all() for a, b in zip(alone, other, strict=True))


@pytest.mark.parametrize("rank", [1, 2, 3, 5, 8, 12, 24, 33, 64])
def test_narrow_products_have_the_same_bits_for_any_number_of_rows(rank: int) -> None:
    dice = np.random.default_rng(rank)
    down = Linear(dice.standard_normal((rank, 320)).astype(np.float32))
    up = Linear(dice.standard_normal((200, rank)).astype(np.float32))
    x = dice.standard_normal((600, 320)).astype(np.float32)
    alone = np.concatenate([up(down(row[None])) for row in x[:20]])
    assert np.allclose(alone, x[:20] @ (down(np.eye(320, dtype=np.float32)) @ up(np.eye(rank, dtype=np.float32))),
                       rtol=1e-3, atol=1e-3)
    for rows in (2, 3, 7, 8, 16, 31, 256, 600):
        assert (up(down(x[:rows]))[:20] == alone[:rows]).all()


def test_keys_and_values_are_not_shared_between_adapters(runner: NumpyRunner, tiny: Path) -> None:
    prompt = [(i * i) % 1200 for i in range(200)]
    adapters = adapters_of(runner, random_adapter(tiny, 1), random_adapter(tiny, 2))
    loop, plain = Loop(runner, reuse=10_000), []
    for adapter in adapters:
        alone = Loop(runner)
        plain.append(alone.tokens[alone.add(prompt, 6, adapter=adapter)])
        alone.finish()
    found = []
    for number, adapter in enumerate(adapters * 2):
        found.append(loop.tokens[loop.add(prompt, 6, adapter=adapter)])
        loop.finish()
        assert loop.scheduler.stats().reused_blocks == 3 * max(0, number - 2)
    assert found == plain * 2 and len(set(map(tuple, plain))) == 3


def test_the_contract(make_client: Any, tiny: Path, runner: NumpyRunner, tmp_path: Path) -> None:
    """Weights come once; later the task id is enough. Requests without one get the base model."""
    made = {number: random_adapter(tiny, number) for number in (1, 2)}
    expected = {number: make_client(NumpyRunner(Checkpoint(merged(tiny, each, tmp_path / str(number))))).ask(
        PROMPT, 12).tokens for number, each in made.items()}
    client = make_client(step_interval_ms=2)
    expected[0] = client.ask(PROMPT, 12).tokens
    assert len(set(map(tuple, expected.values()))) == 3
    assert client.ask(PROMPT, 12, **tensors(1)).error == NOT_CACHED.format(1)
    first = [client.ask(PROMPT, 12, **tensors(number, made[number])) for number in (1, 2)]
    later = [client.ask(PROMPT, 12, **tensors(number)) for number in (2, 1)]
    base = client.ask(PROMPT, 12)
    assert [each.tokens for each in (base, *first, *later)] == [expected[number] for number in (0, 1, 2, 2, 1)]
    # A batch of prompts has an adapter per row.
    rows = [tensors(number, made[number]) for number in (2, 1)]
    both = client.ask(np.array([PROMPT] * 2, np.int32), **{
        "streaming": np.array([[True]] * 2),
        "input_lengths": np.array([[5]] * 2, np.int32), "request_output_len": np.array([[12]] * 2, np.int32),
        **{name: np.concatenate([row[name] for row in rows]) for name in rows[0]}})
    by_row: dict[int, list[int]] = {0: [], 1: []}
    for response in both.wait():
        assert not response.error, response.error
        by_row[int(response.outputs["batch_index"][0, 0])] += response.outputs["output_ids"][0, 0].tolist()
    assert by_row == {0: expected[2], 1: expected[1]}


def test_a_session(client: Client, tiny: Path) -> None:
    caller = Caller(client)
    assert caller.submit(1, 6, **tensors(5)).error == NOT_CACHED.format(5)
    assert not caller.submit(2, 6, **tensors(5, random_adapter(tiny, 5))).error
    assert not caller.submit(3, 6, **tensors(5)).error
    expected = client.ask(PROMPT, 6, **tensors(5)).tokens
    assert [record.tokens for record in caller.drain(2)] == [expected, expected]
    assert expected != client.ask(PROMPT, 6).tokens


class Weights:
    """What a runner might make of updates."""

    def __init__(self, size: int):
        self.nbytes = size


class Runner:
    """An Adaptable whose adapters take as many bytes as the rank says."""

    lora_layout = Layout(2, {1: (1, 1)})

    def lora_weights(self, made: list[Update]) -> Weights:
        return Weights(sum(len(update.down) for update in made))


def of(task_id: int, rank: int = 10) -> Lora:
    return Lora(task_id, np.ones((1, 2 * rank), np.float16), np.array([[1, 0, rank]], np.int32))


def test_the_least_recently_used_adapter_goes_first() -> None:
    cache = AdapterCache(Runner(), 30)
    for task_id in (1, 2, 3):
        cache.take(of(task_id))
    cache.take(Lora(1))
    cache.take(of(4))
    for task_id, there in ((2, False), (3, True), (1, True), (4, True)):
        if there:
            cache.take(Lora(task_id))
        else:
            with pytest.raises(RequestError, match=NOT_CACHED.format(task_id)):
                cache.take(Lora(task_id))
    cache.take(of(5, 25))
    with pytest.raises(RequestError, match="not found in cache"):
        cache.take(Lora(4))


def test_adapters_in_use_stay() -> None:
    cache = AdapterCache(Runner(), 30)
    used = [cache.take(of(task_id)) for task_id in (1, 2)]
    cache.take(of(3))
    again = cache.take(Lora(1))
    assert again is used[0]
    cache.take(of(4))  # 3 goes
    with pytest.raises(RequestError, match="PEFT Cache is full. Could not store taskId=5"):
        cache.take(of(5, 11))
    cache.take(Lora(4))  # and nothing went for it
    del used[0]
    with pytest.raises(RequestError, match="PEFT Cache is full"):
        cache.take(of(5, 11))
    number = again.number
    del again
    cache.take(of(5, 20))
    assert cache.take(of(1)).number != number  # it came back: keys and values of the old one are not found


def test_more_than_fits_at_all() -> None:
    cache = AdapterCache(Runner(), 30)
    cache.take(of(1))
    with pytest.raises(RequestError, match="PEFT Cache is full"):
        cache.take(of(2, 31))
    cache.take(Lora(1))


def test_an_engine_lets_go_of_adapters(make_client: Any, tiny: Path, runner: NumpyRunner) -> None:
    made = random_adapter(tiny, 1)
    size = adapters_of(runner, made)[1].weights.nbytes
    client = make_client(lora_cache_host_memory_bytes=size, step_interval_ms=2)
    running = client.ask(PROMPT, 60, **tensors(1, made))
    while not running.responses:
        time.sleep(0.001)
    assert client.ask(PROMPT, 2, **tensors(2, made)).error == "PEFT Cache is full. Could not store taskId=2"
    assert len(running.tokens) == 60
    assert len(client.ask(PROMPT, 2, **tensors(2, made)).tokens) == 2
    assert client.ask(PROMPT, 2, **tensors(1)).error == NOT_CACHED.format(1)


ONES = np.ones((1, 1, 600), np.float16)


def config(*row: int) -> np.ndarray:
    return np.array([[row]], np.int32)


@pytest.mark.parametrize(("values", "text"), [
    ({"lora_weights": ONES, "lora_config": config(1, 0, 4)}, "lora_task_id must be set"),
    (tensors(1) | {"lora_weights": ONES}, "must have both lora_weights and lora_config"),
    (tensors(1) | {"lora_config": config(1, 0, 4)}, "must have both"),
    (tensors(1) | {"lora_weights": ONES, "lora_config": config(1, 2, 4)}, "layerId to be in the range [0, 2), got 2"),
    (tensors(1) | {"lora_weights": ONES, "lora_config": config(1, -1, 4)}, "layerId"),
    (tensors(1) | {"lora_weights": ONES, "lora_config": config(8, 0, 4)}, "module 8 not enabled"),
    (tensors(1) | {"lora_weights": ONES, "lora_config": config(1, 0, 5)}, "with rank 5 it needs 5 * (64 + 64)"),
    (tensors(1) | {"lora_weights": ONES, "lora_config": config(1, 0, 0)}, "rank 0"),
    (tensors(1) | {"lora_weights": ONES, "lora_config": config(1, 0, -1)}, "rank -1"),
    (tensors(1) | {"lora_weights": ONES, "lora_config": config(1, 0, 4, 1)}, "lora_config [the same rows, 3]"),
    (tensors(1) | {"lora_weights": ONES, "lora_config": np.ones((1, 2, 3), np.int32)}, "[1, 600] and [2, 3]"),
    (tensors(1) | {"lora_weights": ONES * np.float16(np.inf), "lora_config": config(1, 0, 4)}, "not finite"),
    ({"lora_task_id": np.ones((1, 2), np.uint64)}, "Invalid size for tensor lora_task_id"),
])
def test_refused(client: Client, values: dict[str, Any], text: str) -> None:
    assert text in client.ask(PROMPT, 2, **values).error
    assert client.ask(PROMPT, 2, **tensors(1)).error == NOT_CACHED.format(1)  # nothing of it was kept


def test_a_joint_projection_of_queries_keys_and_values(runner: NumpyRunner) -> None:
    """Module 0 is what modules 1 to 3 are together."""
    assert runner.lora_layout.sizes[0] == (64, 128)
    dice = np.random.default_rng(0)
    a, b = (dice.standard_normal(shape).astype(np.float16) for shape in ((2, 64), (128, 2)))
    joint = np.concatenate([a.reshape(-1), b.reshape(-1)])[None]
    parts = [np.concatenate([a.reshape(-1), part.reshape(-1)]) for part in np.split(b, [64, 96])]
    apart = np.stack([np.pad(part, (0, 256 - len(part))) for part in parts])
    logits = []
    for weights, rows in ((joint, [[0, 1, 2]]), (apart, [[1, 1, 2], [2, 1, 2], [3, 1, 2]])):
        adapter = AdapterCache(runner, 1 << 30).take(Lora(1, weights, np.array(rows, np.int32)))
        loop = Loop(runner)
        sequence = loop.add(PROMPT, 3, generation_logits=True, adapter=adapter)
        loop.finish()
        logits.append(np.stack(loop.logits[sequence]))
    assert np.allclose(*logits, rtol=1e-4, atol=1e-4)


def test_updates_are_read_row_by_row() -> None:
    weights = np.arange(14, dtype=np.float16).reshape(2, 7)
    first, second = updates(weights, np.array([[1, 1, 1], [3, 0, 2]], np.int32), Layout(2, {1: (2, 3), 3: (2, 1)}))
    assert (first.layer, first.module, first.down.tolist(), first.up.tolist()) == (1, 1, [[0, 1]], [[2], [3], [4]])
    assert (second.down.tolist(), second.up.tolist()) == ([[7, 8], [9, 10]], [[11, 12]])


def test_every_projection_has_its_module_id(runner: NumpyRunner) -> None:
    assert set(runner.lora_layout.sizes) == {0, *MODULE_IDS.values()}
