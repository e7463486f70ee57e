"""--models-file: which engines are made, and of what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher import options, serve
from launcher.errors import LaunchError
from launcher.models import Engine, engines
from launcher.repository import CONFIG, assemble
from launcher.stack import ROOT, Settings


def file(tmp_path: Path, *entries: Any) -> str:
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"models": entries}))
    return str(path)


def settings(*arguments: str) -> Settings:
    return serve.settings_for(options.parse(arguments, {}), lambda step: None)


A = {"id": "a", "engine": "tensorrt_llm"}
B = {"id": "b", "engine": "two", "tokenizer_dir": "b", "loaded": False}


def test_engines_are_made_of_the_ones_here(tmp_path: Path) -> None:
    remote = {"id": "c", "engine": "far", "engine_url": "http://10.0.0.1:8000"}
    embedding = {"id": "d", "embedding_engine": "vectors", "embedding_tokenizer_dir": "/d"}
    again = {**B, "id": "e", "loaded": True}
    found = engines(Path(file(tmp_path, A, B, remote, embedding, again)))
    assert found == [
        Engine("tensorrt_llm", "tensorrt_llm", None, True),
        Engine("two", "tensorrt_llm", str(tmp_path / "b"), True),
        Engine("vectors", "embedding", "/d", True),
    ]


def test_options_hold_for_all_engines_and_set_for_one(tmp_path: Path) -> None:
    given = settings("--models-file", file(tmp_path, A, B), "--runner", "numpy", "--set", "two.max_batch_size=4")
    assert given.engines == {"tensorrt_llm": "tensorrt_llm", "two": "tensorrt_llm"}
    assert given.parameters["openai_bls"] == {"models_file": str(tmp_path / "models.json")}
    assert given.parameters["tensorrt_llm"] == {"runner": "numpy"}
    assert given.parameters["two"] == {"checkpoint": str(tmp_path / "b"), "runner": "numpy", "max_batch_size": "4"}
    assert given.load_at_start is None


def test_with_model_control_triton_begins_with_the_models_that_are_loaded(tmp_path: Path) -> None:
    given = settings("--models-file", file(tmp_path, A, B), "--model-control")
    assert given.load_at_start == ["openai_bls", "tensorrt_llm"]
    assert given.parameters["openai_bls"]["model_control"] == "on"
    assert settings("--model-control", "on").load_at_start == ["*"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "x"], "--model and --models-file do not go together"),
        (["--served-model-name", "x"], "--served-model-name and --models-file"),
        (["--embedding-model", "default"], "--embedding-model and --models-file"),
        (["--sessions", "off"], "--sessions off serves one model"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve.model, "resolve", lambda wanted, tell: serve.model.Model(tmp_path, "x"))
    with pytest.raises(LaunchError, match=message):
        settings("--models-file", file(tmp_path, A), *arguments)


@pytest.mark.parametrize(("text", "message"), [(None, "cannot be read"), ("{", "is not JSON")])
def test_a_file_that_is_none(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "models.json").write_text(text)
    with pytest.raises(LaunchError, match=message):
        settings("--models-file", str(tmp_path / "models.json"))


def test_one_engine_cannot_be_both(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="has x as engine and as embedding_engine"):
        engines(Path(file(tmp_path, {"id": "a", "engine": "x"}, {"id": "b", "embedding_engine": "x"})))


def test_the_repository_has_each_engine_under_its_own_name(tmp_path: Path) -> None:
    made = {"two": "tensorrt_llm", "vectors": "embedding"}
    assemble(ROOT / "model_repository", tmp_path / "repository", {"two": {"checkpoint": "/b"}}, engines=made)
    assert sorted(folder.name for folder in (tmp_path / "repository").iterdir()) == ["openai_bls", "two", "vectors"]
    config = (tmp_path / "repository" / "two" / CONFIG).read_text()
    assert 'name: "two"' in config and 'name: "tensorrt_llm"' not in config and 'string_value: "/b"' in config
    assert (tmp_path / "repository" / "two" / "1" / "model.py").is_file()
    with pytest.raises(LaunchError, match="three"):
        assemble(ROOT / "model_repository", tmp_path / "other", {"three": {"a": "b"}}, engines=made)
