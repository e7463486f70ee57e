"""Random LoRA adapters, and the checkpoints that they make of a base model by plain addition."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from engine.checkpoint import Checkpoint

Updates = dict[tuple[int, str], tuple[np.ndarray, np.ndarray]]
"""Layer and projection -> A [rank, in], B [out, rank]; FP32, with values that FP16 holds exactly."""

MODULE_IDS = {"self_attn.q_proj": 1, "self_attn.k_proj": 2, "self_attn.v_proj": 3, "self_attn.o_proj": 4,
              "mlp.gate_proj": 5, "mlp.down_proj": 6, "mlp.up_proj": 7}


def random_adapter(folder: Path, seed: int, rank: int = 4, strength: float = 0.5, projections: Any = MODULE_IDS,
                   layers: Any = None) -> Updates:
    """An adapter for the checkpoint in `folder`; `strength` relates the update's size to the weight's."""
    checkpoint, dice = Checkpoint(folder), np.random.default_rng(seed)
    updates: Updates = {}
    for layer in range(checkpoint.config["num_hidden_layers"]) if layers is None else layers:
        for projection in projections:
            weight = checkpoint.tensor(f"model.layers.{layer}.{projection}.weight")
            outer, inner = weight.shape
            a = dice.standard_normal((rank, inner)) / np.sqrt(inner)
            b = dice.standard_normal((outer, rank))
            b *= strength * np.linalg.norm(weight) / np.linalg.norm(b @ a)
            updates[layer, projection] = a.astype(np.float16).astype(np.float32), \
                b.astype(np.float16).astype(np.float32)
    return updates


def tensors(task_id: int, updates: Updates | None = None) -> dict[str, np.ndarray]:
    """The contract's inputs."""
    inputs: dict[str, np.ndarray] = {"lora_task_id": np.array([[task_id]], np.uint64)}
    if updates is None:
        return inputs
    rows = [np.concatenate([a.reshape(-1), b.reshape(-1)]) for a, b in updates.values()]
    weights = np.full((1, len(rows), max(map(len, rows))), 7, np.float16)  # the padding's values mean nothing
    for number, row in enumerate(rows):
        weights[0, number, : len(row)] = row
    config = [[MODULE_IDS[projection], layer, len(a)] for (layer, projection), (a, _) in updates.items()]
    return inputs | {"lora_weights": weights, "lora_config": np.array([config], np.int32)}


def save_peft(folder: Path, updates: Updates, scale: int = 2, **changes: Any) -> Path:
    """The adapter as PEFT writes it; `scale` is alpha / rank."""
    folder.mkdir(parents=True)
    rank = len(next(iter(updates.values()))[0])
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": scale * rank, "bias": "none",
              "use_dora": False, "use_rslora": False, "modules_to_save": None,
              "target_modules": sorted({projection.split(".")[1] for _, projection in updates})}
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    halves = {}
    for (layer, projection), (a, b) in updates.items():
        name = f"base_model.model.model.layers.{layer}.{projection}.lora_"
        halves |= {f"{name}A.weight": a, f"{name}B.weight": b / np.float32(scale)}
    safetensors.numpy.save_file(halves, folder / "adapter_model.safetensors")
    return folder


def merged(folder: Path, updates: Updates, target: Path) -> Path:
    """A copy of the checkpoint with the updates added to its weights, in FP32."""
    shutil.copytree(folder, target)
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    for (layer, projection), (a, b) in updates.items():
        name = f"model.layers.{layer}.{projection}.weight"
        weights[name] = (weights[name].astype(np.float64) + b.astype(np.float64) @ a).astype(np.float32)
    safetensors.numpy.save_file(weights, target / "model.safetensors")
    return target
