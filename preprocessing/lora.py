"""LoRA adapters: what a file of PEFT holds → the tensors `lora_weights` and `lora_config` of the engine's contract.

In: tensors and adapter_config.json of PEFT, or a pair of arrays that NVIDIA's hf_lora_convert.py has made. Out: a
`Contents`, or a ValueError that says what the contract cannot express. No IO.

Sources: TensorRT-LLM's docs/source/advanced/lora.md (layout), examples/hf_lora_convert.py and lora_manager.py (module
ids, scaling); PEFT's LoraConfig (fields, patterns).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from preprocessing.wire import shown

Array = npt.NDArray[Any]
ID_BITS = 53  # of a task id: whole numbers up to here JSON carries everywhere
CONFIG_COLUMNS = 3  # of lora_config: module id, layer, rank

MODULES: Mapping[str, int] = {
    "q_proj": 1,
    "k_proj": 2,
    "v_proj": 3,
    "qkv_proj": 0,
    "query_key_value": 0,
    "o_proj": 4,
    "dense": 4,
    "gate_proj": 5,
    "gate_up_proj": 5,
    "down_proj": 6,
    "up_proj": 7,
}
"""Hugging Face's name of a projection → TensorRT-LLM's module id. 5 (mlp_h_to_4h) is the one that is activated."""
GATE_UP = "gate_up_proj"  # TensorRT-LLM has the halves of this one the other way round

# Base models that such an initialisation has changed are not the ones that a server has.
CHANGED_BASE = ("pissa", "olora", "corda", "loftq")
NEEDED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("peft_type", lambda value: value in (None, "LORA"), "an adapter of type LORA"),
    ("use_dora", lambda value: not value, "no DoRA"),
    ("bias", lambda value: value in (None, "none"), "no biases"),
    ("lora_bias", lambda value: not value, "no biases"),
    ("modules_to_save", lambda value: not value, "no modules that are saved whole"),
    ("trainable_token_indices", lambda value: not value, "no embeddings of tokens"),
    ("layer_replication", lambda value: not value, "no layers that are there twice"),
    ("alora_invocation_tokens", lambda value: not value, "an adapter that holds for the whole prompt"),
    (
        "init_lora_weights",
        lambda value: not str(value).lower().startswith(CHANGED_BASE),
        "an adapter of the unchanged base model (PEFT can convert it when it is saved)",
    ),
)
"""Fields of adapter_config.json: what they may hold, and what to tell where they hold something else."""

NAME = re.compile(r"(?:base_model\.model\.)?(?P<path>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight")
PLACE = re.compile(r"\D*\.(?P<layer>\d+)\.(?:\D+\.)?(?P<module>[^.\d]+)")
DTYPES: Mapping[str, str] = {"F16": "<f2", "F32": "<f4", "BF16": "<u2"}


class Contents(NamedTuple):
    """What an adapter is made of.

    Attributes:
        weights: FP16 [rows, values]; a row is A [rank, in], then B [out, rank] with the scaling in it, then zeros.
        config: INT32 [rows, 3]: module id, layer, rank.
    """

    weights: Array
    config: Array

    @property
    def task_id(self) -> int:
        """The same for the same content, everywhere."""
        digest = hashlib.sha256(self.config.tobytes() + self.weights.tobytes()).digest()
        return int.from_bytes(digest[:8], "big") >> (64 - ID_BITS)

    @property
    def tensors(self) -> dict[str, Array]:
        """The two inputs of the contract."""
        return {"lora_weights": self.weights[None], "lora_config": self.config[None]}


@dataclass(frozen=True)
class Adapter:
    """An adapter that requests can ask for.

    Attributes:
        name: what clients call it, behind the model's name.
        read: its content, read anew; None: the engine has it by itself.
    """

    name: str
    task_id: int
    read: Callable[[], Contents] | None = None


class Row(NamedTuple):
    """One projection of one layer."""

    layer: int
    module: int
    a: Array
    b: Array


def from_peft(config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Contents:
    """An adapter of PEFT.

    Args:
        config: adapter_config.json.
        tensors: FP32 by PEFT's names.

    Raises:
        ValueError: it holds something that the contract cannot express.
    """
    for field, allowed, wanted in NEEDED:
        if not allowed(config.get(field)):
            raise ValueError(f"adapter_config.json: {field}: wanted {wanted}, found {shown(config[field])}")
    halves: dict[str, dict[str, Array]] = {}
    for name, tensor in tensors.items():
        found = NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"the tensor {name} is no half of a low-rank update (lora_A, lora_B)")
        halves.setdefault(found["path"], {})[found["half"]] = tensor
    if not halves:
        raise ValueError("the adapter has no tensors")
    rows = [row_of(path, pair, config) for path, pair in halves.items()]
    return packed(sorted(rows, key=lambda row: (row.layer, row.module)))


def from_arrays(weights: Array, config: Array) -> Contents:
    """The pair of files that hf_lora_convert.py writes: [1, rows, values] and [1, rows, 3], or 4 with one for DoRA.

    Raises:
        ValueError: they are something else.
    """
    weights, config = (array[0] if array.ndim == 3 and len(array) == 1 else array for array in (weights, config))
    if config.ndim != 2 or weights.ndim != 2 or len(weights) != len(config) or not len(config):
        raise ValueError(f"wanted [1, rows, values] and [1, rows, 3], found {weights.shape} and {config.shape}")
    if config.shape[1] == CONFIG_COLUMNS + 1 and not config[:, CONFIG_COLUMNS].any():
        config = config[:, :CONFIG_COLUMNS]
    if config.shape[1] != CONFIG_COLUMNS:
        raise ValueError("wanted no DoRA: rows of module id, layer and rank")
    if weights.dtype not in (np.float16, np.float32) or config.dtype.kind != "i":
        raise ValueError(f"wanted FP16 or FP32, and integers, found {weights.dtype} and {config.dtype}")
    return Contents(halved(weights), np.ascontiguousarray(config, np.int32))


def from_safetensors(raw: Array) -> dict[str, Array]:
    """The tensors of a safetensors file, as FP32.

    Args:
        raw: its bytes, UINT8: a little-endian 64-bit length, so many bytes of JSON, then what its offsets point into.

    Raises:
        ValueError: it is none, or has tensors of another type than F16, BF16 and F32.
    """
    try:
        length = int(raw[:8].view("<u8")[0])
        header = json.loads(raw[8 : 8 + length].tobytes())
        data = raw[8 + length :]
        return {name: tensor_of(name, entry, data) for name, entry in header.items() if name != "__metadata__"}
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"no safetensors file: {error!r}") from None


def tensor_of(name: str, entry: Mapping[str, Any], data: Array) -> Array:
    dtype = entry["dtype"]
    if dtype not in DTYPES:
        raise ValueError(f"the tensor {name}: wanted one of {', '.join(DTYPES)}, found {dtype}")
    start, end = entry["data_offsets"]
    values = data[start:end].copy().view(DTYPES[dtype])
    if dtype == "BF16":  # the upper half of a float
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32).reshape(entry["shape"])


def row_of(path: str, pair: Mapping[str, Array], config: Mapping[str, Any]) -> Row:
    """One projection, its scaling in B."""
    place = PLACE.fullmatch(path)
    if place is None or place["module"] not in MODULES:
        raise ValueError(f"{path} cannot be adapted; what can, in a layer: {', '.join(MODULES)}")
    if set(pair) != {"A", "B"} or any(half.ndim != 2 for half in pair.values()):
        raise ValueError(f"{path}: wanted two matrices, lora_A and lora_B")
    a, b = pair["A"], pair["B"]
    if len(a) != b.shape[1] or not len(a):
        raise ValueError(f"{path}: wanted lora_A [rank, in] and lora_B [out, rank], found {a.shape} and {b.shape}")
    if place["module"] == GATE_UP:
        b = np.concatenate(np.split(b, 2)[::-1])
    return Row(int(place["layer"]), MODULES[place["module"]], a, b * scaling(path, len(a), config))


def scaling(path: str, rank: int, config: Mapping[str, Any]) -> np.float32:
    """alpha / rank, or alpha / sqrt(rank). A projection may have an alpha of its own (PEFT's get_pattern_key)."""
    patterns: Mapping[str, Any] = config.get("alpha_pattern") or {}
    if not isinstance(patterns, Mapping):
        raise ValueError(f"adapter_config.json: alpha_pattern: wanted an object, found {shown(patterns)}")
    own = next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", path)), None)
    alpha = config.get("lora_alpha") if own is None else own
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise ValueError(f"adapter_config.json: lora_alpha: wanted a number, found {shown(alpha)}")
    return np.float32(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def packed(rows: list[Row]) -> Contents:
    values = [np.concatenate([row.a.reshape(-1), row.b.reshape(-1)]) for row in rows]
    weights = np.zeros((len(rows), max(map(len, values))), np.float16)
    for at, each in enumerate(values):
        weights[at, : len(each)] = halved(each)
    return Contents(weights, np.array([[row.module, row.layer, len(row.a)] for row in rows], np.int32))


def halved(values: Array) -> Array:
    """FP16, which is what the contract has.

    Raises:
        ValueError: it cannot hold a value.
    """
    with np.errstate(over="ignore"):
        made = np.ascontiguousarray(values, np.float16)
    if not np.isfinite(made).all():
        raise ValueError("wanted weights that FP16 can hold, found larger ones or none that are numbers")
    return made
