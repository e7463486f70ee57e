"""The parameters embedding_… of openai_bls."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding_settings import EmbeddingSettings


def test_without_an_engine_there_are_no_embeddings() -> None:
    assert EmbeddingSettings.read({"engine": "tensorrt_llm", "embedding_sizes": "any"}) is None


def test_everything(tmp_path: Path) -> None:
    found = EmbeddingSettings.read(
        {
            "engine": "tensorrt_llm",
            "embedding_engine": "minilm",
            "embedding_tokenizer_dir": str(tmp_path),
            "embedding_model_name": "name",
            "embedding_max_len": "128",
            "embedding_sizes": "64, 32",
            "embedding_inputs": "input_ids:TYPE_INT64, attention_mask:TYPE_INT64",
            "embedding_output": "out",
            "embedding_pooling": "cls,max",
        }
    )
    inputs = {"input_ids": "TYPE_INT64", "attention_mask": "TYPE_INT64"}
    assert found == EmbeddingSettings("minilm", tmp_path, "name", 128, (64, 32), inputs, "out", ("cls", "max"))


def test_any_size() -> None:
    found = EmbeddingSettings.read({"embedding_engine": "e", "embedding_sizes": "any"})
    assert found is not None and found.sizes == ()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("embedding_max_len", "0", "wanted a positive whole number, found '0'"),
        ("embedding_sizes", "64,many", "wanted a positive whole number"),
        ("embedding_inputs", "input_ids", "wanted NAME:TYPE_INT64"),
        ("embedding_inputs", "image:TYPE_FP32", "wanted NAME:TYPE_INT64"),
        ("embedding_pooling", "median", "wanted cls, max, mean"),
        ("embedding_tokenizer_dir", "/no/such/folder", "wanted a folder"),
    ],
)
def test_a_value_that_cannot_be(name: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"parameter {name}: {message}"):
        EmbeddingSettings.read({"embedding_engine": "e", name: value})


def test_a_name_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="parameter embedding_nonsense: there is no such parameter"):
        EmbeddingSettings.read({"embedding_engine": "e", "embedding_nonsense": "1"})
