"""Any encoder (or causal model) of Hugging Face transformers as a model that embeds, on the CPU or on CUDA.

In: a checkpoint folder, then token ids. Out: FP32 vectors. Needs torch and transformers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

from preprocessing.batching import padded
from preprocessing.sentences import Recipe

from .head import Head


class TransformersEncoder:
    """Implements encoder.Encoder. FP32 on the CPU, the checkpoint's dtype on CUDA."""

    def __init__(self, recipe: Recipe, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._head = Head(recipe)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        whole = AutoConfig.from_pretrained(recipe.transformer, **options)
        # Of a model with encoder and decoder the encoder alone; files of a T5 without decoder do not say that it lacks.
        halved = whole.is_encoder_decoder or whole.model_type.endswith("t5")
        kind = AutoModelForTextEncoding if halved else AutoModel
        dtype = "auto" if self._device == "cuda" else torch.float32
        self._model = kind.from_pretrained(recipe.transformer, dtype=dtype, **options).to(self._device).eval()
        config = whole.get_text_config()
        self._padding: int = config.pad_token_id or 0
        self.vocab_size: int = config.vocab_size
        self.max_tokens = recipe.max_tokens

    @torch.inference_mode()
    def encode(self, rows: list[list[int]]) -> np.ndarray:
        ids, mask = padded(rows, np.int64, self._padding)
        result = self._model(input_ids=self._tensor(ids), attention_mask=self._tensor(mask))
        return self._head(result.last_hidden_state.float().cpu().numpy(), mask)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)
