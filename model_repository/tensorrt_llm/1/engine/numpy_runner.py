"""Llama-layout checkpoints in numpy: Llama 2/3, Mistral, Qwen2, Qwen3, SmolLM.

In: a Checkpoint, then packed segments. Out: FP32 logits, equal to Hugging Face's to rounding. No torch.
All tokens of all segments go through each matrix together; attention is per segment, over that sequence's own cache.
LoRA adapters are added to the rows of their segments, behind each matrix.
Biases and query/key norms are used where the checkpoint has them; what it does not know it refuses by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import lora
from .blas import Linear
from .checkpoint import Checkpoint
from .runner import Segment

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")

_FIRST_CAPACITY = 64


class Cache:
    """Keys and values of one sequence: FP32 [layers, heads, head_dim, capacity] and [.., capacity, head_dim]."""

    __slots__ = ("keys", "values", "length")

    def __init__(self, layers: int, heads: int, head_dim: int):
        self.keys = np.empty((layers, heads, head_dim, 0), np.float32)
        self.values = np.empty((layers, heads, 0, head_dim), np.float32)
        self.length = 0

    def reserve(self, length: int) -> None:
        """Makes room by doubling, so that each position is copied a bounded number of times."""
        if length <= self.values.shape[2]:
            return
        capacity = max(_FIRST_CAPACITY, 1 << (length - 1).bit_length())
        layers, heads, head_dim, _ = self.keys.shape
        keys = np.empty((layers, heads, head_dim, capacity), np.float32)
        values = np.empty((layers, heads, capacity, head_dim), np.float32)
        keys[..., : self.length] = self.keys[..., : self.length]
        values[:, :, : self.length] = self.values[:, :, : self.length]
        self.keys, self.values = keys, values

    def save(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        return self.keys[..., start:end].copy(), self.values[:, :, start:end].copy()

    def restore(self, saved: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.reserve(sum(keys.shape[3] for keys, _ in saved))
        for keys, values in saved:
            end = self.length + keys.shape[3]
            self.keys[..., self.length: end] = keys
            self.values[:, :, self.length: end] = values
            self.length = end


_Span = tuple[Cache, int, int, int]
"""One segment in the packed rows: its cache, how many positions come before, first row, end row."""


class _Delta:
    """Low-rank updates of one matrix: the `down` halves below each other, the `up` halves on a diagonal."""

    __slots__ = ("_down", "_up")

    def __init__(self, updates: Sequence[lora.Update], columns: dict[int, slice], width: int):
        """`columns`: what of the matrix's `width` is whose module's."""
        self._down = Linear(np.concatenate([update.down for update in updates]))
        up, start = np.zeros((width, self._down.shape[0]), np.float32), 0
        for update in updates:
            end = start + len(update.down)
            up[columns[update.module], start:end] = update.up
            start = end
        self._up = Linear(up)

    @property
    def nbytes(self) -> int:
        return self._down.nbytes + self._up.nbytes

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self._up(self._down(x))


class Adapter:
    """What lora_weights makes."""

    def __init__(self, deltas: dict[tuple[int, str], _Delta]):
        self._deltas = deltas
        self.nbytes = sum(delta.nbytes for delta in deltas.values())

    def find(self, layer: int, matrix: str) -> _Delta | None:
        return self._deltas.get((layer, matrix))


_Adapted = Sequence[tuple[Adapter, np.ndarray]]
"""Adapters of one forward, each with the rows it applies to."""


@dataclass(frozen=True, slots=True)
class _Layer:
    input_norm: np.ndarray
    qkv: Linear
    query_key_norm: np.ndarray | None  # [heads + kv_heads, head_dim]
    output: Linear
    post_norm: np.ndarray
    gate_up: Linear
    down: Linear
    window: int  # positions that attention looks back, its own included; 0 = all


class NumpyRunner:
    """Implements runner.Runner."""

    reusable = True

    def __init__(self, checkpoint: Checkpoint):
        config = checkpoint.config
        _check(config)
        self.vocab_size: int = config["vocab_size"]
        self.max_seq_len: int = config["max_position_embeddings"]
        self._heads: int = config["num_attention_heads"]
        self._kv_heads: int = config.get("num_key_value_heads") or self._heads
        self._head_dim: int = config.get("head_dim") or config["hidden_size"] // self._heads
        self._epsilon = np.float32(config["rms_norm_eps"])
        self._frequencies = inverse_frequencies(config, self._head_dim)
        self._embedding = checkpoint.tensor("model.embed_tokens.weight")
        windows = _windows(config)
        self._layers = [self._load_layer(checkpoint, number, window) for number, window in enumerate(windows)]
        self._columns = self._lora_columns()
        self._norm = checkpoint.tensor("model.norm.weight")
        tied = config.get("tie_word_embeddings", False)
        self._head = Linear(self._embedding if tied else checkpoint.tensor("lm_head.weight"))

    def new_cache(self) -> Cache:
        return Cache(len(self._layers), self._kv_heads, self._head_dim)

    def forward(self, segments: Sequence[Segment]) -> np.ndarray:
        hidden, spans = self._pack(segments, _adapted(segments))
        wanted = [row for segment, (*_, end) in zip(segments, spans, strict=True)
                  for row in range(end - segment.rows, end)]
        if not wanted:
            return np.empty((0, self.vocab_size), np.float32)
        return self._head(_normalise(hidden[wanted], self._norm, self._epsilon))

    @property
    def lora_layout(self) -> lora.Layout:
        """All projections of attention and MLP."""
        sizes = {module: (getattr(self._layers[0], matrix).shape[1], part.stop - part.start)
                 for matrix, columns in self._columns.items() for module, part in columns.items()}
        return lora.Layout(len(self._layers), sizes)

    def lora_weights(self, updates: list[lora.Update]) -> Adapter:
        matrices = {module: matrix for matrix, columns in self._columns.items() for module in columns}
        groups: dict[tuple[int, str], list[lora.Update]] = {}
        for update in updates:
            groups.setdefault((update.layer, matrices[update.module]), []).append(update)
        return Adapter({(layer, matrix): _Delta(group, self._columns[matrix],
                                                getattr(self._layers[layer], matrix).shape[0])
                        for (layer, matrix), group in groups.items()})

    def last_hidden_states(self, sequences: Sequence[list[int]]) -> list[np.ndarray]:
        """FP32 [tokens, hidden size] of each sequence, behind the last norm, as Hugging Face's models give them."""
        hidden, spans = self._pack([Segment(self.new_cache(), tokens, 0) for tokens in sequences])
        normed = _normalise(hidden, self._norm, self._epsilon)
        return [normed[start:end] for _, _, start, end in spans]

    def _pack(self, segments: Sequence[Segment], adapted: _Adapted = ()) -> tuple[np.ndarray, list[_Span]]:
        """Appends tokens to caches; FP32 [all tokens, hidden size] before the last norm, and which rows are whose."""
        ids: list[int] = []
        positions: list[int] = []
        spans: list[_Span] = []
        for segment in segments:
            start, past = len(ids), segment.cache.length
            ids += segment.tokens
            positions += range(past, past + len(segment.tokens))
            segment.cache.reserve(past + len(segment.tokens))
            segment.cache.length += len(segment.tokens)
            spans.append((segment.cache, past, start, len(ids)))
        return self._transform(ids, positions, spans, adapted), spans

    def _transform(self, ids: list[int], positions: list[int], spans: list[_Span], adapted: _Adapted) -> np.ndarray:
        angles = np.array(positions, np.float32)[:, None] * self._frequencies
        turn = np.concatenate([angles, angles], 1)[:, None]  # [T, 1, head_dim]
        cos, sin = np.cos(turn), np.sin(turn)
        hidden = self._embedding[ids]
        for number, layer in enumerate(self._layers):
            normed = _normalise(hidden, layer.input_norm, self._epsilon)
            attended = self._attention(number, self._project(number, "qkv", normed, adapted), cos, sin, spans)
            hidden = hidden + self._project(number, "output", attended, adapted)
            normed = _normalise(hidden, layer.post_norm, self._epsilon)
            gate, up = np.split(self._project(number, "gate_up", normed, adapted), 2, 1)
            hidden = hidden + self._project(number, "down", _silu(gate) * up, adapted)
        return hidden

    def _project(self, number: int, matrix: str, x: np.ndarray, adapted: _Adapted) -> np.ndarray:
        """A matrix of a layer, and what adapters add to it."""
        y: np.ndarray = getattr(self._layers[number], matrix)(x)
        for adapter, rows in adapted:
            if delta := adapter.find(number, matrix):
                y[rows] += delta(x[rows])
        return y

    def _attention(self, number: int, projected: np.ndarray, cos: np.ndarray, sin: np.ndarray,
                   spans: list[_Span]) -> np.ndarray:
        """Queries, keys and values, [T, all heads * head_dim] -> [T, heads * head_dim]."""
        layer = self._layers[number]
        mixed = projected.reshape(len(projected), -1, self._head_dim)
        turned = mixed[:, : self._heads + self._kv_heads]
        if layer.query_key_norm is not None:
            turned = _normalise(turned, layer.query_key_norm, self._epsilon)
        turned = _rotate(turned, cos, sin)
        queries = turned[:, : self._heads] * np.float32(self._head_dim ** -0.5)
        keys, values = turned[:, self._heads:], mixed[:, self._heads + self._kv_heads:]
        attended = np.empty((len(projected), self._heads * self._head_dim), np.float32)
        for cache, past, start, end in spans:
            total = past + end - start
            cache.keys[number, :, :, past:total] = keys[start:end].transpose(1, 2, 0)
            cache.values[number, :, past:total] = values[start:end].transpose(1, 0, 2)
            attend = self._attend_one if end - start == 1 else self._attend_many
            attended[start:end] = attend(
                queries[start:end], cache.keys[number], cache.values[number], past, layer.window)
        return attended

    def _attend_one(self, query: np.ndarray, keys: np.ndarray, values: np.ndarray, past: int,
                    window: int) -> np.ndarray:
        """One new position: [1, heads, head_dim] -> [1, heads * head_dim]."""
        first = max(0, past + 1 - window) if window else 0
        grouped = query.reshape(self._kv_heads, -1, self._head_dim)
        weights = _softmax(grouped @ keys[:, :, first: past + 1])
        return (weights @ values[:, first: past + 1]).reshape(1, -1)

    def _attend_many(self, queries: np.ndarray, keys: np.ndarray, values: np.ndarray, past: int,
                     window: int) -> np.ndarray:
        """n new positions: [n, heads, head_dim] -> [n, heads * head_dim]."""
        count = len(queries)
        total, groups = past + count, self._heads // self._kv_heads
        grouped = queries.reshape(count, self._kv_heads, groups, -1).transpose(1, 2, 0, 3)
        scores = grouped.reshape(self._kv_heads, groups * count, -1) @ keys[:, :, :total]
        hidden = _hidden_positions(past, count, window)
        scores.reshape(self._kv_heads, groups, count, total)[:, :, hidden] = -np.inf
        mixed = (_softmax(scores) @ values[:, :total]).reshape(self._kv_heads, groups, count, -1)
        return mixed.transpose(2, 0, 1, 3).reshape(count, -1)

    def _lora_columns(self) -> dict[str, dict[int, slice]]:
        """Which columns of which matrix belong to a module."""
        layer = self._layers[0]
        queries, keys = self._heads * self._head_dim, self._kv_heads * self._head_dim
        inner, hidden = layer.gate_up.shape[0] // 2, layer.output.shape[0]
        return {
            "qkv": {lora.ATTN_QKV: slice(0, queries + 2 * keys), lora.ATTN_Q: slice(0, queries),
                    lora.ATTN_K: slice(queries, queries + keys),
                    lora.ATTN_V: slice(queries + keys, queries + 2 * keys)},
            "output": {lora.ATTN_DENSE: slice(0, hidden)},
            "gate_up": {lora.MLP_H_TO_4H: slice(0, inner), lora.MLP_GATE: slice(inner, 2 * inner)},
            "down": {lora.MLP_4H_TO_H: slice(0, hidden)},
        }

    def _load_layer(self, checkpoint: Checkpoint, number: int, window: int) -> _Layer:
        prefix = f"model.layers.{number}."

        def linear(*names: str) -> Linear:
            """Projections of the same input, joined into one matrix."""
            bias = None
            if f"{prefix}{names[0]}.bias" in checkpoint:
                bias = np.concatenate([checkpoint.tensor(f"{prefix}{name}.bias") for name in names])
            return Linear(np.concatenate([checkpoint.tensor(f"{prefix}{name}.weight") for name in names]), bias)

        return _Layer(
            input_norm=checkpoint.tensor(prefix + "input_layernorm.weight"),
            qkv=linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            query_key_norm=self._load_query_key_norm(checkpoint, prefix),
            output=linear("self_attn.o_proj"),
            post_norm=checkpoint.tensor(prefix + "post_attention_layernorm.weight"),
            gate_up=linear("mlp.gate_proj", "mlp.up_proj"),
            down=linear("mlp.down_proj"),
            window=window,
        )

    def _load_query_key_norm(self, checkpoint: Checkpoint, prefix: str) -> np.ndarray | None:
        if prefix + "self_attn.q_norm.weight" not in checkpoint:
            return None
        query = checkpoint.tensor(prefix + "self_attn.q_norm.weight")
        key = checkpoint.tensor(prefix + "self_attn.k_norm.weight")
        return np.stack([query] * self._heads + [key] * self._kv_heads)


def _adapted(segments: Sequence[Segment]) -> _Adapted:
    rows: dict[Adapter, list[int]] = {}
    start = 0
    for segment in segments:
        end = start + len(segment.tokens)
        if segment.adapter is not None:
            rows.setdefault(segment.adapter, []).extend(range(start, end))
        start = end
    return [(adapter, np.array(numbers)) for adapter, numbers in rows.items()]


def inverse_frequencies(config: dict[str, Any], head_dim: int) -> np.ndarray:
    """Rotary frequencies, FP32 [head_dim / 2]: default, linear and llama3 scaling."""
    rope = _rope(config)
    base = np.float32(rope["rope_theta"])
    frequencies = np.float32(1) / base ** (np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim))
    return _SCALINGS[rope["rope_type"]](frequencies, rope).astype(np.float32)


def _llama3_scaling(frequencies: np.ndarray, rope: dict[str, Any]) -> np.ndarray:
    """Long wavelengths are stretched by `factor`, short ones kept, those between interpolated."""
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    wavelengths = 2 * math.pi / frequencies
    smooth = np.clip((context / wavelengths - low) / (high - low), 0, 1)
    return (1 - smooth) * frequencies / factor + smooth * frequencies


_SCALINGS = {
    "default": lambda frequencies, rope: frequencies,
    "linear": lambda frequencies, rope: frequencies / np.float32(rope["factor"]),
    "llama3": _llama3_scaling,
}


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings in one dict, from the newer `rope_parameters` or the older pair of fields."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta") or 10000.0)
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    return rope


def _check(config: dict[str, Any]) -> None:
    """Raises ValueError that lists everything in the configuration that this runner cannot compute."""
    rope = _rope(config)
    architecture = (config.get("architectures") or ["(none)"])[0]
    wrong = [f"{what}: wanted {wanted}, found {found}" for what, wanted, found, fits in (
        ("architecture", " or ".join(ARCHITECTURES), architecture, architecture in ARCHITECTURES),
        ("hidden_act", "silu", config.get("hidden_act"), config.get("hidden_act", "silu") == "silu"),
        ("rope_type", " or ".join(_SCALINGS), rope["rope_type"], rope["rope_type"] in _SCALINGS),
        ("partial_rotary_factor", 1, rope.get("partial_rotary_factor"), rope.get("partial_rotary_factor", 1) == 1),
    ) if not fits]
    if wrong:
        raise ValueError(
            "the numpy runner cannot run this checkpoint (the transformers runner may): " + "; ".join(wrong))


def _windows(config: dict[str, Any]) -> list[int]:
    """Sliding window of each layer, 0 = none. Qwen has a switch and a first layer; Mistral all layers or none."""
    layers, window = config["num_hidden_layers"], config.get("sliding_window") or 0
    if not config.get("use_sliding_window", True):
        window = 0
    kinds = config.get("layer_types")
    if kinds:
        return [window if kind == "sliding_attention" else 0 for kind in kinds]
    if "max_window_layers" in config:
        return [window if number >= config["max_window_layers"] else 0 for number in range(layers)]
    return [window] * layers


def _hidden_positions(past: int, count: int, window: int) -> np.ndarray:
    """BOOL [count, past + count]: what each new position must not see."""
    columns, rows = np.arange(past + count)[None], np.arange(past, past + count)[:, None]
    hidden = columns > rows
    return hidden | (columns <= rows - window) if window else hidden


def _normalise(x: np.ndarray, weight: np.ndarray, epsilon: np.float32) -> np.ndarray:
    """RMSNorm over the last axis."""
    return x * (1 / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon)) * weight


def _rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Rotary embedding of [T, heads, head_dim], halves rotated against each other."""
    half = x.shape[-1] // 2
    return x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin


def _silu(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right limit, 0
        return x / (1 + np.exp(-x))


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis, in place."""
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores
