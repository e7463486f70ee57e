"""Pooling, batches, and what a model's files say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from postprocessing.pooling import normalise, pool
from preprocessing.batching import batches, padded
from preprocessing.sentences import ANY_SIZE, read


def test_normalising_leaves_nothing_but_the_direction() -> None:
    found = normalise(np.array([[3, 4], [0, 0]], np.float32))
    assert np.abs(found - [[0.6, 0.8], [0, 0]]).max() < 1e-7


def test_half_precision_is_pooled_in_single() -> None:
    hidden = np.full((1, 4096, 1), 20, np.float16)
    assert pool(hidden, np.ones((1, 4096)), ["mean"])[0, 0] == 20  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lengths", "rows", "tokens", "wanted"),
    [
        ([3, 1, 2], 8, 100, [[0, 2, 1]]),
        ([3, 1, 2], 2, 100, [[0, 2], [1]]),
        ([5, 5, 5], 8, 10, [[0, 1], [2]]),
        ([50, 1], 8, 10, [[0], [1]]),
        ([], 8, 10, []),
    ],
)
def test_batches(lengths: list[int], rows: int, tokens: int, wanted: list[list[int]]) -> None:
    assert batches(lengths, rows, tokens) == wanted


def test_padding_stands_behind_the_tokens() -> None:
    ids, mask = padded([[5], [6, 7]], np.int32, padding=9)
    assert ids.tolist() == [[5, 9], [6, 7]] and mask.tolist() == [[1, 0], [1, 1]] and ids.dtype == np.int32


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(json.dumps(content))
    return folder


def modules(*kinds: str, package: str = "sentence_transformers.models.") -> list[dict[str, Any]]:
    paths = ["", *(f"{at}_{kind}" for at, kind in enumerate(kinds))][: len(kinds) + 1]
    return [
        {"idx": at, "name": str(at), "path": "" if at == 0 else paths[at + 1], "type": package + kind}
        for at, kind in enumerate(kinds)
    ]


def test_a_folder_says_everything(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "modules.json": modules("Transformer", "Pooling", "Dense", "Normalize"),
            "1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            "sentence_bert_config.json": {"max_seq_length": 77, "do_lower_case": True},
            "config_sentence_transformers.json": {"prompts": {"q": "query: ", "d": ""}, "default_prompt_name": "q"},
            "config.json": {"max_position_embeddings": 512, "matryoshka_dimensions": [64, 32]},
        },
    )
    found = read(tmp_path)
    assert (found.declared, found.pooling, found.max_tokens, found.lower_case) == (True, ("cls",), 77, True)
    assert [step.kind for step in found.steps] == ["Dense", "Normalize"] and found.normalises
    assert (found.default_prompt, found.prompts["d"], found.sizes) == ("query: ", "", (64, 32))


def test_newer_names(tmp_path: Path) -> None:
    listed = modules("Transformer", "Pooling", package="sentence_transformers.base.modules.transformer.")
    write(tmp_path, {"modules.json": listed, "1_Pooling/config.json": {"pooling_mode": ["cls", "max"]}})
    found = read(tmp_path)
    assert found.pooling == ("cls", "max") and not found.normalises


def test_a_folder_without_such_files_is_a_guess(tmp_path: Path) -> None:
    write(tmp_path, {"config.json": {"max_position_embeddings": 99, "is_matryoshka": True}})
    write(tmp_path, {"tokenizer_config.json": {"model_max_length": 10**30}})
    found = read(tmp_path)
    assert (found.declared, found.pooling, found.normalises) == (False, ("mean",), True)
    assert (found.max_tokens, found.sizes) == (99, ANY_SIZE)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules.json": modules("WordEmbeddings", "Pooling")}, "wanted Transformer and Pooling first"),
        ({"modules.json": modules("Transformer", "Pooling", "LSTM")}, "the module LSTM is not known"),
        (
            {"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": {"pooling_mode": "median"}},
            "the pooling median is not known",
        ),
        ({"config_sentence_transformers.json": {"default_prompt_name": "x"}}, "default prompt x"),
        (
            {
                "modules.json": modules("Transformer", "Pooling"),
                "1_Pooling/config.json": {"include_prompt": False},
                "config_sentence_transformers.json": {"prompts": {"q": "query"}},
            },
            "leaves the prompt out",
        ),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, files))
