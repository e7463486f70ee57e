"""LoRA adapters: tensors of the contract -> low-rank updates of a model's projections, and which ones are kept.

In: lora_task_id, and with its first use lora_weights and lora_config. Out: an Adapter that a runner can apply, or
RequestError, with the texts of TensorRT-LLM's own cache: callers know them. What an update looks like in a forward, the
runner decides. Layout and module ids: TensorRT-LLM's docs/source/advanced/lora.md and lora_manager.py.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable
from weakref import WeakValueDictionary

import numpy as np

from .errors import RequestError

ATTN_QKV, ATTN_Q, ATTN_K, ATTN_V, ATTN_DENSE, MLP_H_TO_4H, MLP_4H_TO_H, MLP_GATE = range(8)
"""Module ids. MLP_H_TO_4H is the projection that is activated (Hugging Face: gate_proj), MLP_GATE the one beside it
(up_proj): NVIDIA's names are those of the code, its page says it the other way round."""

CONFIG_COLUMNS = 3
"""Of lora_config: module id, layer, rank."""


class Lora(NamedTuple):
    """What one request says about its adapter."""

    task_id: int
    weights: np.ndarray | None = None  # FP16 [updates, values]; None: the engine has them already
    config: np.ndarray | None = None  # INT32 [updates, 3]


class Update(NamedTuple):
    """W + up @ down, in one layer; the scaling is part of `up`."""

    layer: int
    module: int
    down: np.ndarray  # FP32 [rank, in]
    up: np.ndarray  # FP32 [out, rank]


class Layout(NamedTuple):
    """What of a model can be updated."""

    layers: int
    sizes: Mapping[int, tuple[int, int]]  # module id -> in, out


@runtime_checkable
class Adaptable(Protocol):
    """A runner that can apply adapters: its segments may have one."""

    @property
    def lora_layout(self) -> Layout: ...

    def lora_weights(self, updates: list[Update]) -> Any:
        """The updates as the runner applies them, with their memory in `nbytes`."""


class Adapter:
    """A kept adapter, in use for as long as anybody holds this object."""

    __slots__ = ("__weakref__", "number", "weights")

    def __init__(self, number: int, weights: Any):
        self.number = number  # never used twice
        self.weights = weights  # of the runner


class Adapters(Protocol):
    """Where requests get their adapters from. For any thread."""

    @property
    def names(self) -> Mapping[str, int]:
        """The adapters that the engine has by itself: name -> task id."""

    def take(self, lora: Lora) -> Any:
        """What to put into the request. Raises RequestError."""


class NoAdapters:
    """Implements Adapters for runners that cannot apply any."""

    names: Mapping[str, int] = {}

    def take(self, lora: Lora) -> Any:
        raise RequestError("lora_task_id: LoRA is not supported by this runner")


class AdapterCache:
    """Implements Adapters: keeps what requests have brought, at most `most_bytes`; the least recently used goes first.

    One that is in use does not go. A task id stands for one content: weights of an id that is kept are not looked at.
    """

    names: Mapping[str, int] = {}

    def __init__(self, runner: Adaptable, most_bytes: int):
        self._layout = runner.lora_layout
        self._make: Callable[[list[Update]], Any] = runner.lora_weights
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, tuple[int, Any]] = OrderedDict()  # number, weights; least recently used first
        self._used: WeakValueDictionary[int, Adapter] = WeakValueDictionary()
        self._numbers = self._bytes = 0

    def take(self, lora: Lora) -> Adapter:
        with self._lock:
            if lora.task_id not in self._kept:
                self._put(lora)
            self._kept.move_to_end(lora.task_id)
            adapter = self._used.get(lora.task_id) or Adapter(*self._kept[lora.task_id])
            self._used[lora.task_id] = adapter  # all requests at a time share it
            return adapter

    def _put(self, lora: Lora) -> None:
        if lora.weights is None or lora.config is None:
            raise RequestError(f"LoRA task {lora.task_id} not found in cache. Please send LoRA weights with request")
        weights = self._make(updates(lora.weights, lora.config, self._layout))
        self._make_room(lora.task_id, weights.nbytes)
        self._numbers += 1
        self._bytes += weights.nbytes
        self._kept[lora.task_id] = self._numbers, weights

    def _make_room(self, task_id: int, size: int) -> None:
        idle = {key: weights.nbytes for key, (_, weights) in self._kept.items() if key not in self._used}
        if self._bytes - sum(idle.values()) + size > self._most_bytes:
            raise RequestError(f"PEFT Cache is full. Could not store taskId={task_id}")
        for key in idle:
            if self._bytes + size <= self._most_bytes:
                break
            self._bytes -= idle[key]
            del self._kept[key]


def updates(weights: np.ndarray, config: np.ndarray, layout: Layout) -> list[Update]:
    """The rows of the two tensors, checked against the model. A row is `down`, then `up`, then padding.

    Raises RequestError.
    """
    if weights.ndim != 2 or config.ndim != 2 or config.shape[1] != CONFIG_COLUMNS or len(weights) != len(config):
        raise RequestError("Assertion failed: lora_weights is [rows, values] and lora_config [the same rows, "
                           f"{CONFIG_COLUMNS}], got {list(weights.shape)} and {list(config.shape)}")
    return [_update(values, module, layer, rank, layout)
            for values, (module, layer, rank) in zip(weights, config.tolist(), strict=True)]


def _update(values: np.ndarray, module: int, layer: int, rank: int, layout: Layout) -> Update:
    if not 0 <= layer < layout.layers:
        raise RequestError(f"Expected layerId to be in the range [0, {layout.layers}), got {layer}")
    if module not in layout.sizes:
        raise RequestError(f"lora module {module} not enabled for this model")
    inner, outer = layout.sizes[module]
    if rank < 1 or rank * (inner + outer) > len(values):
        raise RequestError(f"lora_weights has {len(values)} values for module {module}: with rank {rank} it needs "
                           f"{rank} * ({inner} + {outer})")
    values = values[: rank * (inner + outer)].astype(np.float32)
    if not np.isfinite(values).all():
        raise RequestError("lora_weights holds values that are not finite")
    down, up = np.split(values, [rank * inner])
    return Update(layer, module, down.reshape(rank, inner), up.reshape(outer, rank))
