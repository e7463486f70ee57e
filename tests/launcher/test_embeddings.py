"""--embedding-model: which models are loaded, with which parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import options, repository, serve
from launcher.errors import LaunchError
from launcher.stack import ROOT, Settings

MODELS = ROOT / "model_repository"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "minilm"
    made.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (made / name).write_text("{}")
    return made


def settings(*arguments: str) -> Settings:
    return serve.settings_for(options.parse(arguments, {}), lambda step: None)


def loaded(found: Settings, target: Path) -> list[str]:
    repository.assemble(MODELS, target, found.parameters)
    return sorted(path.name for path in target.iterdir())


def test_without_the_option_nothing_more_is_loaded(tmp_path: Path) -> None:
    assert loaded(settings(), tmp_path / "r") == ["openai_bls", "tensorrt_llm"]
    assert 'key: "embedding_engine" value: { string_value: "" }' in (
        tmp_path / "r" / "openai_bls" / "config.pbtxt"
    ).read_text()


def test_a_checkpoint(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("torch")
    found = settings("--embedding-model", str(folder))
    assert loaded(found, tmp_path / "r") == ["embedding", "openai_bls", "tensorrt_llm"]
    assert found.parameters["embedding"] == {"checkpoint": str(folder)}
    assert found.parameters["openai_bls"] == {
        "embedding_engine": "embedding",
        "embedding_tokenizer_dir": str(folder),
        "embedding_model_name": "minilm",
    }


def test_the_model_that_writes(tmp_path: Path, folder: Path) -> None:
    found = settings("--embedding-model", "default")
    assert found.parameters["embedding"] == {"checkpoint": "", "runner": "numpy"}
    assert loaded(found, tmp_path / "r") == ["embedding", "openai_bls", "tensorrt_llm"]
    with_model = settings("--embedding-model", "default", "--model", str(folder))
    assert with_model.parameters["embedding"] == {"checkpoint": str(folder), "runner": "numpy"}
    assert "embedding_tokenizer_dir" not in with_model.parameters["openai_bls"]


def test_what_is_set_by_hand_wins(folder: Path) -> None:
    pytest.importorskip("torch")
    name = "openai_bls.embedding_model_name=mine"
    found = settings("--embedding-model", str(folder), "--set", name, "--set", "embedding.threads=1")
    assert found.parameters["openai_bls"]["embedding_model_name"] == "mine"
    assert found.parameters["embedding"]["threads"] == "1"


def test_a_folder_with_the_transformer_in_a_folder_of_its_own(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("torch")
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "modules.json").write_text("[]")
    folder.rename(whole / "0_Transformer")
    assert settings("--embedding-model", str(whole)).parameters["embedding"]["checkpoint"] == str(whole)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(LaunchError, match="has no tokenizer"):
        settings("--embedding-model", str(tmp_path))
