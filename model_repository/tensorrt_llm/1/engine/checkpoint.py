"""A Hugging Face checkpoint folder -> its configuration and FP32 weights, with numpy alone.

In: a folder with config.json and model.safetensors, or model.safetensors.index.json and its shards (F16, BF16, F32).
Out: `config` (a dict) and `tensor(name)`. It does not know architectures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES: dict[str, np.dtype] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "BF16": np.dtype("<u2")}


class Checkpoint:
    """Weights are mapped, not read: `tensor` copies one out."""

    def __init__(self, folder: Path):
        """Raises FileNotFoundError that names what is missing, or ValueError."""
        self.folder = Path(folder)
        self.config: dict[str, Any] = json.loads(_existing(self.folder / "config.json").read_text())
        if "quantization_config" in self.config:
            raise ValueError(f"{self.folder}: quantised checkpoints are not supported by the numpy runner")
        self._entries: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
        for shard in self._shards():
            self._entries.update(_open(_existing(shard)))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def tensor(self, name: str) -> np.ndarray:
        """FP32, C order, writable. Raises KeyError that names the tensor and the folder."""
        if name not in self._entries:
            raise KeyError(f"{self.folder}: the checkpoint has no tensor {name}")
        data, entry = self._entries[name]
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{name}: wanted one of {', '.join(_DTYPES)}, found {entry['dtype']}")
        start, end = entry["data_offsets"]
        values: np.ndarray = data[start:end].view(_DTYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":  # the upper half of a float
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32).reshape(entry["shape"])

    def _shards(self) -> list[Path]:
        index = self.folder / "model.safetensors.index.json"
        if not index.exists():
            return [self.folder / "model.safetensors"]
        names = json.loads(index.read_text())["weight_map"].values()
        return [self.folder / name for name in sorted(set(names))]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint needs {path}")
    return path


def _open(path: Path) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """safetensors: a little-endian u64 length, so many bytes of JSON, then the data the JSON's offsets point into."""
    raw = np.memmap(path, np.uint8, "r")
    length = int(raw[:8].view("<u8")[0])
    header = json.loads(raw[8: 8 + length].tobytes())
    header.pop("__metadata__", None)
    data = raw[8 + length:]
    return {name: (data, entry) for name, entry in header.items()}
