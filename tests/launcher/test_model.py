from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import model
from launcher.errors import LaunchError


def folder(path: Path, *files: str) -> Path:
    path.mkdir(parents=True)
    for name in files:
        (path / name).write_text("{}")
    return path


def silent(step: str) -> None:
    pass


@pytest.mark.parametrize("tokenizer", model.TOKENIZER_FILES)
def test_a_folder_gives_its_name(tmp_path: Path, tokenizer: str) -> None:
    path = folder(tmp_path / "my model", "config.json", tokenizer)
    assert model.resolve(str(path), silent) == model.Model(path, "my model")


@pytest.mark.parametrize(
    ("files", "message"),
    [(("config.json",), "has no tokenizer"), (("tokenizer.json",), "has no config.json"), ((), "has no tokenizer")],
)
def test_an_incomplete_folder(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        model.resolve(str(folder(tmp_path / "m", *files)), silent)


@pytest.mark.parametrize("wanted", ["/no/such/folder", "./nothing", "nothing", "a/b/c", "../no/such/folder"])
def test_a_folder_that_does_not_exist(wanted: str) -> None:
    with pytest.raises(LaunchError, match="does not exist"):
        model.resolve(wanted, silent)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(LaunchError, match="is a file"):
        model.resolve(str(tmp_path / "model.gguf"), silent)


def hub(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> None:
    def snapshot_download(repository: str, ignore_patterns: list[str]) -> str:
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))


def test_an_id_is_downloaded_and_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "snapshots" / "abc", "config.json", "tokenizer.json")
    hub(monkeypatch, path)
    told: list[str] = []
    assert model.resolve("some-org/Some-Model.1", told.append) == model.Model(path, "some-org/Some-Model.1")
    assert told == ["downloading some-org/Some-Model.1 from Hugging Face"]


def test_a_failed_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, OSError("no network.\nmany\nlines"))
    with pytest.raises(LaunchError) as caught:
        model.resolve("org/name", silent)
    assert str(caught.value) == (
        "org/name is not a folder here and could not be downloaded from Hugging Face: no network."
    )
