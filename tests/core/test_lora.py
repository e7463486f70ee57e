"""PEFT adapters → tensors of the engine's contract: layout, scaling, names, and what is refused."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from postprocessing import engine_errors
from preprocessing.lora import Contents, from_arrays, from_peft, from_safetensors

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "target_modules": ["q_proj"]}
PREFIX = "base_model.model.model.layers."


def halves(*modules: str, rank: int = 2, inner: int = 3, outer: int = 4, seed: int = 0) -> dict[str, Any]:
    dice, found = np.random.default_rng(seed), {}
    for module in modules:
        found[f"{PREFIX}{module}.lora_A.weight"] = dice.integers(-9, 9, (rank, inner)).astype(np.float32)
        found[f"{PREFIX}{module}.lora_B.weight"] = dice.integers(-9, 9, (outer, rank)).astype(np.float32)
    return found


def pair(found: Mapping[str, Any], module: str) -> tuple[Any, Any]:
    return found[f"{PREFIX}{module}.lora_A.weight"], found[f"{PREFIX}{module}.lora_B.weight"]


def test_rows_are_a_then_b_then_zeros() -> None:
    found = halves("1.self_attn.q_proj") | halves("0.mlp.down_proj", inner=1, outer=2)
    made = from_peft(CONFIG, found)
    assert made.config.tolist() == [[6, 0, 2], [1, 1, 2]] and made.config.dtype == np.int32
    assert made.weights.dtype == np.float16 and made.weights.shape == (2, 14)
    for row, module in zip(made.weights, ("0.mlp.down_proj", "1.self_attn.q_proj"), strict=True):
        a, b = pair(found, module)
        values = [*a.reshape(-1), *(2 * b).reshape(-1)]  # alpha / rank
        assert row.tolist() == values + [0.0] * (14 - len(values))
    assert {name: array.shape for name, array in made.tensors.items()} == {
        "lora_weights": (1, 2, 14),
        "lora_config": (1, 2, 3),
    }


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("self_attn.qkv_proj", 0),
        ("attention.query_key_value", 0),
        ("self_attn.q_proj", 1),
        ("self_attn.k_proj", 2),
        ("self_attn.v_proj", 3),
        ("self_attn.o_proj", 4),
        ("mlp.gate_proj", 5),
        ("mlp.gate_up_proj", 5),
        ("mlp.down_proj", 6),
        ("mlp.up_proj", 7),
    ],
)
def test_module_ids(module: str, number: int) -> None:
    assert from_peft(CONFIG, halves(f"13.{module}")).config.tolist() == [[number, 13, 2]]


def test_the_halves_of_gate_and_up_change_places() -> None:
    found = halves("0.mlp.gate_up_proj")
    a, b = pair(found, "0.mlp.gate_up_proj")
    (row,) = from_peft(CONFIG, found).weights
    assert row.tolist() == [*a.reshape(-1), *(2 * b[2:]).reshape(-1), *(2 * b[:2]).reshape(-1)]


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, 2.0),
        ({"lora_alpha": 1}, 0.5),
        ({"use_rslora": True}, 4 / math.sqrt(2)),
        ({"alpha_pattern": {"q_proj": 8}}, 4.0),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 8}}, 4.0),
        ({"alpha_pattern": {r"layers\.[1-9].*q_proj": 8, "proj": 16}}, 2.0),
        ({"alpha_pattern": {"k_proj": 8}}, 2.0),
        ({"r": 64, "rank_pattern": {"q_proj": 2}}, 2.0),  # the tensors say the rank
    ],
)
def test_scaling(changes: dict[str, Any], scale: float) -> None:
    found = halves("0.self_attn.q_proj")
    _, b = pair(found, "0.self_attn.q_proj")
    (row,) = from_peft(CONFIG | changes, found).weights
    assert row[6:].tolist() == (b * np.float32(scale)).astype(np.float16).reshape(-1).tolist()


def test_names_with_the_adapters_own_name_and_without_prefix() -> None:
    plain = halves("0.self_attn.q_proj")
    for old, new in ((".weight", ".default.weight"), ("base_model.model.", "")):
        other = {name.replace(old, new): tensor for name, tensor in plain.items()}
        assert (from_peft(CONFIG, other).weights == from_peft(CONFIG, plain).weights).all()


Q = halves("0.self_attn.q_proj")
A, B = Q


@pytest.mark.parametrize(
    ("changes", "tensors", "text"),
    [
        ({"use_dora": True}, {}, "use_dora: wanted no DoRA, found true"),
        ({"bias": "lora_only"}, {}, 'bias: wanted no biases, found "lora_only"'),
        ({"lora_bias": True}, {}, "lora_bias: wanted no biases"),
        ({"modules_to_save": ["lm_head"]}, {}, "modules_to_save: wanted no modules that are saved whole"),
        ({"trainable_token_indices": [5]}, {}, "trainable_token_indices"),
        ({"layer_replication": [[0, 4]]}, {}, "layer_replication"),
        ({"peft_type": "IA3"}, {}, "peft_type: wanted an adapter of type LORA"),
        ({"init_lora_weights": "pissa_niter_16"}, {}, "init_lora_weights"),
        ({"lora_alpha": "4"}, {}, "lora_alpha: wanted a number"),
        ({"lora_alpha": None}, {}, "lora_alpha: wanted a number"),
        ({}, {f"{PREFIX}0.self_attn.q_proj.lora_magnitude_vector": A}, "no half of a low-rank update"),
        ({}, {"base_model.model.model.embed_tokens.lora_embedding_A": A}, "embed_tokens.lora_embedding_A is no half"),
        ({}, {"base_model.model.lm_head.weight": A}, "lm_head.weight is no half"),
        ({}, halves("0.mlp.experts.3.up_proj"), "experts.3.up_proj cannot be adapted"),
        ({}, halves("0.self_attn.rotary"), "rotary cannot be adapted; what can, in a layer: q_proj, "),
        ({}, {"base_model.model.lm_head.lora_A.weight": Q[A]}, "lm_head cannot be adapted"),
        ({}, {B: np.ones((4, 3), np.float32)}, "wanted lora_A [rank, in] and lora_B [out, rank], found (2, 3) and"),
        ({}, {B: np.ones(4, np.float32)}, "wanted two matrices"),
        ({}, {f"{PREFIX}1.mlp.up_proj.lora_A.weight": Q[A]}, "wanted two matrices, lora_A and lora_B"),
        ({}, {B: np.full((4, 2), 4e4, np.float32)}, "weights that FP16 can hold"),
        ({}, {A: np.full((2, 3), np.nan, np.float32)}, "weights that FP16 can hold"),
    ],
)
def test_what_cannot_be_expressed(changes: dict[str, Any], tensors: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as error:
        from_peft(CONFIG | changes, Q | tensors)
    assert text in str(error.value)


def test_an_adapter_without_tensors() -> None:
    with pytest.raises(ValueError, match="no tensors"):
        from_peft(CONFIG, {})


def test_task_ids_say_what_an_adapter_holds() -> None:
    made = [from_peft(CONFIG | {"lora_alpha": alpha}, Q).task_id for alpha in (4, 4, 8)]
    assert made[0] == made[1] != made[2] and all(0 < number < 2**53 for number in made)
    # The same on every machine and in every version, or engines would be sent what they have.
    fixed = Contents(np.arange(6, dtype=np.float16).reshape(1, 6), np.array([[1, 0, 1]], np.int32))
    assert fixed.task_id == 7923897676620848


def test_converted_arrays() -> None:
    made = from_peft(CONFIG, Q)
    for config in (made.config, np.pad(made.config, ((0, 0), (0, 1)))):  # newer ones say of each row: no DoRA
        again = from_arrays(made.weights[None].astype(np.float32), config[None])
        assert (again.weights == made.weights).all() and (again.config == made.config).all()
        assert again.task_id == made.task_id
    for weights, config, text in (
        (made.weights, np.pad(made.config, ((0, 0), (0, 1)), constant_values=1), "no DoRA"),
        (made.weights[:, :0].reshape(0, 0), made.config[:0], "wanted"),
        (made.weights, np.concatenate([made.config, made.config]), "wanted"),
        (made.weights.astype(np.int32), made.config, "FP16"),
        (made.weights, made.config.astype(np.float32), "integers"),
    ):
        with pytest.raises(ValueError, match=text):
            from_arrays(weights, config)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_safetensors(tmp_path: Path, dtype: Any) -> None:
    values = {"a": np.arange(6, dtype=dtype).reshape(2, 3), "b": np.ones((1, 1), dtype)}
    safetensors.numpy.save_file(values, tmp_path / "f", metadata={"format": "pt"})
    read = from_safetensors(np.fromfile(tmp_path / "f", np.uint8))
    assert {name: array.tolist() for name, array in read.items()} == {n: v.tolist() for n, v in values.items()}
    assert all(array.dtype == np.float32 for array in read.values())


def file(header: Any, data: bytes = b"") -> Any:
    text = json.dumps(header).encode()
    return np.frombuffer(struct.pack("<Q", len(text)) + text + data, np.uint8)


def test_bfloat16() -> None:
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    assert from_safetensors(file({"a": entry}, bytes([0x80, 0x3F, 0x20, 0xC0])))["a"].tolist() == [1.0, -2.5]


@pytest.mark.parametrize(
    "raw",
    [
        np.zeros(0, np.uint8),
        np.full(20, 255, np.uint8),
        file([1]),
        file({"a": {"dtype": "F32", "shape": [2]}}),
        file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
        file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 7]}}, b"1234567"),
        file({"a": {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]}}, b"12"),
    ],
)
def test_files_that_are_none(raw: Any) -> None:
    with pytest.raises(ValueError):
        from_safetensors(raw)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("LoRA task 7 not found in cache. Please send LoRA weights with request", 503),
        ("PEFT Cache is full. Could not store taskId=7", 503),
        ("Cache is full. There are no done tasks to evict", 503),
        ("lora_task_id: LoRA is not supported by this runner", 400),
        ("lora module attn_qkv not enabled for this model", 500),
        ("Invalid low_rank (64). low_rank must be smaller than mMaxLowRank (8)", 500),
        ("Expected lora weights to be the same data type as base model", 500),
        ("LoRA task 7 is not among the adapters that this engine has", 400),
    ],
)
def test_what_engines_say_about_adapters(message: str, status: int) -> None:
    error = engine_errors.from_message(message)
    assert error.status == status and "LoRA adapter" in error.message


@pytest.mark.parametrize(
    ("rank", "config", "wrong"), [(0, {}, "wanted lora_A"), (2, {"alpha_pattern": ["q_proj"]}, "alpha_pattern: wanted")]
)
def test_a_broken_adapter_is_refused_in_words(rank: int, config: dict[str, Any], wrong: str) -> None:
    place = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    tensors = {f"{place}A.weight": np.ones((rank, 8)), f"{place}B.weight": np.ones((8, rank))}
    with pytest.raises(ValueError, match=wrong):
        from_peft({"lora_alpha": 4, **config}, tensors)
