"""LoRA adapters on disk: which there are, and what is in them (docs/lora.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from preprocessing.lora import Adapter, Contents, from_arrays, from_peft, from_safetensors
from preprocessing.wire import shown
from readers import a_name

LIST = "multi_lora.json"
PEFT = ("adapter_config.json", "adapter_model.safetensors")
# What NVIDIA's hf_lora_convert.py writes.
CONVERTED = ("model.lora_config.npy", "model.lora_weights.npy")


def load(place: Path) -> dict[str, Adapter]:
    """The adapters of a list or a folder, each read once to see that it can be served.

    Args:
        place: a JSON file, name → folder; or a folder with a `multi_lora.json`, or with a subfolder for each adapter.

    Raises:
        ValueError: what is wrong, and with which adapter.
        OSError: a file cannot be read.
    """
    listed = place / LIST if place.is_dir() and (place / LIST).is_file() else place
    folders = dict(subfolders(listed)) if listed.is_dir() else from_list(listed)
    if not folders:
        raise ValueError(f"{place}: wanted subfolders with {PEFT[0]} or {CONVERTED[0]}, found none")
    adapters = {}
    for name, folder in folders.items():
        try:
            adapters[a_name(name)] = Adapter(name, task_id(folder, read(folder)), partial(read, folder))
        except (ValueError, EOFError, re.error) as error:
            raise ValueError(f"the LoRA adapter '{name}' in {folder}: {error}") from None
    return adapters


def subfolders(place: Path) -> Iterator[tuple[str, Path]]:
    for folder in sorted(place.iterdir()):
        if (folder / PEFT[0]).is_file() or (folder / CONVERTED[0]).is_file():
            yield folder.name, folder


def from_list(file: Path) -> Mapping[str, Path]:
    """NVIDIA's list: {"name": "folder"}."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: wanted JSON, found something else: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(path, str) for path in found.values()):
        raise ValueError(f"{file}: wanted an object of names and folders, found {shown(found)}")
    return {name: folder_of(file, path) for name, path in found.items()}


def folder_of(file: Path, path: str) -> Path:
    """A relative path begins at the list's folder or at one above it: NVIDIA's begin where the server was started."""
    for above in file.absolute().parents:
        if (above / path).is_dir():
            return above / path
    raise ValueError(f"{file}: wanted a folder, found '{path}'")


def task_id(folder: Path, contents: Contents) -> int:
    """A folder's name if it is a number, as in the engine's lora_prefetch_dir, else what its content says."""
    return int(folder.name) if folder.name.isdecimal() else contents.task_id


def read(folder: Path) -> Contents:
    """An adapter's content.

    Raises:
        ValueError: it cannot be expressed.
        OSError: a file cannot be read.
    """
    config, weights = (folder / name for name in CONVERTED)
    if config.is_file():
        return from_arrays(np.load(weights), np.load(config))
    config, weights = (folder / name for name in PEFT)
    if not weights.is_file():
        raise ValueError(f"wanted {PEFT[1]}, found none (PEFT writes it with save_pretrained)")
    settings = json.loads(config.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ValueError(f"{PEFT[0]}: wanted an object")
    return from_peft(settings, from_safetensors(np.memmap(weights, np.uint8, "r")))
