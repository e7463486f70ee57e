"""The training command: several processes, one model, and going on where it stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from tools.tiny_model import evaluate, packing, train

SMALL = ["--hidden", "32", "--layers", "1", "--heads", "2", "--batch", "512", "--device", "cpu"]


def test_it_trains_saves_and_goes_on(tiny_chat: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(tiny_chat / "tokenizer.json", folder)

    def state(*arguments: str) -> dict[str, Any]:
        train.main([str(folder), "--processes", "2", *SMALL, *arguments])
        return dict(torch.load(tmp_path / "model.state"))

    assert state("--tokens", "2048")["step"] == 2  # of two batches each
    resumed = state("--tokens", "4096", "--resume")
    assert resumed["step"] == 4 and resumed["loss"] < 8
    assert len(evaluate.Model(folder).answers(["<|begin_of_text|>"])) == 1


def test_processes_take_turns_with_the_batches(tiny_chat: Path) -> None:
    encoder = packing.Encoder(packing.tokenizer_of(tiny_chat, 0))
    second = packing.stream(tiny_chat, 300, seed=0, first=1, every=2, workers=2)
    for number in (1, 3, 5):
        assert next(second).lengths == encoder.batch(300, 0, number).lengths
