"""Any causal language model of Hugging Face transformers, on the CPU or on CUDA.

In: a checkpoint folder, then packed segments. Out: FP32 logits.
All tokens of all segments go through the model as one row; an attention function of our own keeps the sequences apart,
each with its own cache. Not every architecture can be run so: at load the packed forward is compared with a plain one,
and if they differ, each sequence is forwarded alone with the library's cache. Needs torch and transformers.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .runner import Segment

_FIRST_CAPACITY = 64
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}
"""Largest difference between packed and plain logits, as a share of the largest logit."""

_log = logging.getLogger(__name__)
_numbers = itertools.count()


class Cache:
    """State of one sequence: keys and values per layer when packed, else the library's cache object in `past`."""

    def __init__(self) -> None:
        self.length = 0
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.past: Any = None

    def extend(self, layer: int, past: int, keys: torch.Tensor,
               values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes [heads, n, head_dim] behind the first `past` positions; views of all of them."""
        total = past + keys.shape[1]
        if layer not in self.layers or self.layers[layer][0].shape[1] < total:
            self.layers[layer] = self._grown(layer, past, keys, total), self._grown(layer, past, values, total, 1)
        stored_keys, stored_values = self.layers[layer]
        stored_keys[:, past: total] = keys
        stored_values[:, past: total] = values
        return stored_keys[:, :total], stored_values[:, :total]

    def _grown(self, layer: int, past: int, like: torch.Tensor, total: int, place: int = 0) -> torch.Tensor:
        capacity = max(_FIRST_CAPACITY, 1 << (total - 1).bit_length())
        grown = like.new_empty(like.shape[0], capacity, like.shape[2])
        if layer in self.layers:
            grown[:, :past] = self.layers[layer][place][:, :past]
        return grown


class TransformersRunner:
    """Implements runner.Runner. FP32 on the CPU, the checkpoint's dtype on CUDA."""

    reusable = False  # rounding depends on what is computed together, so a prompt read in part is not the same

    def __init__(self, folder: Path, threads: int = 0):
        if threads:
            torch.set_num_threads(threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._spans: list[tuple[Cache, int, int, int]] = []  # cache, positions before, first row, end row
        name = f"packed_{next(_numbers)}"
        ALL_ATTENTION_FUNCTIONS.register(name, self._attend)
        self._model = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto" if self._device == "cuda" else torch.float32).to(self._device).eval()
        config = self._model.config.get_text_config()
        self.vocab_size: int = config.vocab_size
        self.max_seq_len: int = getattr(config, "max_position_embeddings", None) or 2048
        self.packed = self._try_packed(name, config)

    def new_cache(self) -> Cache:
        return Cache()

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> np.ndarray:
        logits = self._forward_packed(segments) if self.packed else self._forward_each(segments)
        return logits.float().cpu().numpy()

    def _forward_packed(self, segments: Sequence[Segment]) -> torch.Tensor:
        ids: list[int] = []
        positions: list[int] = []
        spans: list[tuple[Cache, int, int, int]] = []
        wanted: list[int] = []
        for segment in segments:
            start, past = len(ids), segment.cache.length
            ids += segment.tokens
            positions += range(past, past + len(segment.tokens))
            segment.cache.length += len(segment.tokens)
            spans.append((segment.cache, past, start, len(ids)))
            wanted += range(len(ids) - segment.rows, len(ids))
        self._spans = spans
        logits = self._model(
            input_ids=self._tensor([ids]), position_ids=self._tensor([positions]), use_cache=False,
            logits_to_keep=self._tensor(wanted or [0])).logits[0]
        return logits[: len(wanted)]

    def _forward_each(self, segments: Sequence[Segment]) -> torch.Tensor:
        parts = [torch.empty(0, self.vocab_size, device=self._device)]
        for segment in segments:
            result = self._model(
                input_ids=self._tensor([segment.tokens]), past_key_values=segment.cache.past, use_cache=True)
            segment.cache.past = result.past_key_values
            segment.cache.length += len(segment.tokens)
            parts.append(result.logits[0, len(segment.tokens) - segment.rows:].float())
        return torch.cat(parts)

    def _attend(self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any,
                scaling: float | None = None, sliding_window: int | None = None,
                **unused: Any) -> tuple[torch.Tensor, None]:
        """The library's attention interface: [1, heads, T, head_dim] -> [1, T, heads, head_dim]."""
        parts = []
        for cache, past, start, end in self._spans:
            keys, values = cache.extend(module.layer_idx, past, key[0, :, start:end], value[0, :, start:end])
            visible = _visible(past, end - start, sliding_window, query.device)
            parts.append(torch.nn.functional.scaled_dot_product_attention(
                query[:, :, start:end], keys[None], values[None], attn_mask=visible, scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1]))
        return torch.cat(parts, 2).transpose(1, 2), None

    @torch.inference_mode()
    def _try_packed(self, name: str, config: Any) -> bool:
        """Switches to the packed forward if it gives what the plain one gives."""
        plain_name = self._model.config._attn_implementation
        ids = np.random.Generator(np.random.PCG64(0)).integers(0, self.vocab_size, (2, 12)).tolist()
        plain = torch.stack([self._model(input_ids=self._tensor([row]), use_cache=False).logits[0, -1] for row in ids])
        try:
            if getattr(config, "attention_chunk_size", None):
                raise ValueError("it attends in chunks, longer than what is compared here")
            self._model.set_attn_implementation(name)
            difference = float((self._packed_in_pieces(ids) - plain).abs().max() / plain.abs().max())
            if not difference <= _TOLERANCE.get(plain.dtype, 1e-3):
                raise ValueError(f"packed and plain logits differ by {difference:.1e} of the largest")
        except Exception as error:
            _log.warning("sequences are forwarded one by one: %s", error)
            self._model.set_attn_implementation(plain_name)
            return False
        return True

    def _packed_in_pieces(self, ids: list[list[int]]) -> torch.Tensor:
        """Last logits of two sequences that are cut at different places."""
        first, second = Cache(), Cache()
        self._forward_packed([Segment(first, ids[0][:5], 0), Segment(second, ids[1][:1], 0)])
        self._forward_packed([Segment(first, ids[0][5:11], 0), Segment(second, ids[1][1:4], 0)])
        return self._forward_packed([Segment(first, ids[0][11:], 1), Segment(second, ids[1][4:], 1)])

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, device=self._device)


def _visible(past: int, count: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """BOOL [count, past + count]: what each new position sees; None = everything."""
    if count == 1 and not (window and past + 1 > window):
        return None
    columns = torch.arange(past + count, device=device)[None]
    rows = torch.arange(past, past + count, device=device)[:, None]
    visible = columns <= rows
    return visible & (columns > rows - window) if window else visible
