"""What a model's files say about it.

In: a checked folder (launcher.model). Out: `Facts`. It does not load weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import LaunchError

CONVERTERS = {
    "llama": "models/core/llama", "mistral": "models/core/llama", "mixtral": "models/core/llama",
    "qwen2": "models/core/qwen", "qwen2_moe": "models/core/qwen", "qwen3": "models/core/qwen",
    "qwen3_moe": "models/core/qwen", "gemma": "models/core/gemma", "gemma2": "models/core/gemma",
    "gemma3_text": "models/core/gemma", "phi": "models/core/phi", "phi3": "models/core/phi",
    "gpt2": "models/core/gpt", "gpt_bigcode": "models/core/gpt", "starcoder2": "models/core/gpt",
}
"""model_type of config.json -> where TensorRT-LLM's examples have its convert_checkpoint.py (0.19 to 1.2)."""


@dataclass(frozen=True)
class Facts:
    folder: Path
    name: str
    model_type: str
    max_seq_len: int
    vocab_size: int
    end_ids: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path, name: str) -> Facts:
        """Raises LaunchError for a model whose config.json lacks something."""
        config = _read(folder / "config.json")
        text = config | config.get("text_config", {})
        missing = [key for key in ("model_type", "vocab_size", "max_position_embeddings") if not text.get(key)]
        if missing:
            raise LaunchError(f"{folder}/config.json does not say {', '.join(missing)}.")
        ends = _read(folder / "generation_config.json").get("eos_token_id", text.get("eos_token_id"))
        listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
        return cls(folder, name, config["model_type"], text["max_position_embeddings"], text["vocab_size"],
                   tuple(listed))

    def converter(self) -> str:
        if self.model_type not in CONVERTERS:
            raise LaunchError(f"--flow engine does not know how to convert {self.model_type} (it knows "
                              f"{', '.join(sorted(CONVERTERS))}). Try --flow pytorch.")
        return CONVERTERS[self.model_type]


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LaunchError(f"{file} is not JSON: {error}.") from None
    return read if isinstance(read, dict) else {}
