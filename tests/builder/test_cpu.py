"""--flow cpu, up to an answer from Triton."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from builder.build import build
from builder.options import parse
from launcher.errors import LaunchError
from tests.builder.conftest import Build, ask, started, triton_line


def test_from_a_model_to_an_answer(run: Build, output: Path, tmp_path: Path) -> None:
    told = run("--flow", "cpu", "--max-seq-len", "512", "--served-model-name", "little")
    assert shlex.split(told[-1])[1:] == ["--gateway-only", "on", "--upstream", "127.0.0.1:8000"]
    with started(triton_line(told), tmp_path / "triton.log") as url:
        body = json.dumps({"model": "little", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})
        answer = json.loads(ask(url, "chat/completions", body))
        assert answer["usage"]["completion_tokens"] <= 4 and answer["choices"][0]["finish_reason"] in ("stop", "length")
        (listed,) = json.loads(ask(url, "models", "{}"))["data"]
        assert (listed["id"], listed["max_model_len"]) == ("little", 512)


def test_what_is_written(run: Build, output: Path, tiny: Path) -> None:
    run("--flow", "cpu", "--kv-reuse", "off", "--runner", "transformers")
    assert not [path for path in output.rglob("*") if path.is_symlink() or path.name == "__pycache__"]
    assert (output / "openai_bls" / "1" / "preprocessing" / "body.py").is_file()
    copied = {path.name for path in (output / "openai_bls" / "tokenizer").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "config.json"} <= copied and "model.safetensors" not in copied
    assert sorted(path.name for path in (output / "tensorrt_llm").iterdir()) == ["1", "config.pbtxt"]
    config = (output / "tensorrt_llm" / "config.pbtxt").read_text()
    for key, value in {"runner": "transformers", "checkpoint": str(tiny), "kv_cache_reuse_tokens": "0"}.items():
        assert f'key: "{key}" value: {{ string_value: "{value}" }}' in config
    stamp = json.loads((output / "built.json").read_text())
    assert stamp["flow"] == "cpu" and stamp["options"]["runner"] == "transformers" and stamp["openai_bls"]


def test_a_repository_that_can_be_moved(run: Build, output: Path, tmp_path: Path) -> None:
    told = run("--flow", "cpu", "--copy-model", "on")
    moved = tmp_path / "elsewhere"
    output.rename(moved)
    line = triton_line(told).replace(str(output) + " ", str(moved) + " ")
    with started(line, tmp_path / "triton.log") as url:
        assert json.loads(ask(url, "completions", '{"model": "tiny", "prompt": "Hi", "max_tokens": 2}'))["choices"]


def test_a_second_time_it_is_written_anew(run: Build, output: Path) -> None:
    run("--flow", "cpu")
    (output / "leftover").touch()
    run("--flow", "cpu", "--instances", "3")
    assert not (output / "leftover").exists()
    assert "count: 3 " in (output / "openai_bls" / "config.pbtxt").read_text()


def test_nothing_else_is_replaced(run: Build, output: Path) -> None:
    output.mkdir()
    (output / "precious").touch()
    with pytest.raises(LaunchError, match="was not written by this script"):
        run("--flow", "cpu")
    assert (output / "precious").exists()


@pytest.mark.parametrize("name", ["a space", "a$b", "it's"])
def test_a_place_where_triton_could_not_start_models(tiny: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(LaunchError, match="choose a path without spaces"):
        build(parse([str(tiny), str(tmp_path / name), "--flow", "cpu"]), print)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_writes_nothing(run: Build, output: Path) -> None:
    told = run("--flow", "cpu", "--dry-run")
    assert any("then the repository is written to" in line for line in told) and not output.exists()


@pytest.mark.parametrize("change, wrong", [
    ({"max_position_embeddings": None}, "does not say max_position_embeddings"),
    ({"max_position_embeddings": 100}, "--max-seq-len 512: broken was trained for 100"),
])
def test_models_that_do_not_fit(run: Build, tiny: Path, tmp_path: Path, change: dict[str, int], wrong: str) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer.json").write_text((tiny / "tokenizer.json").read_text())
    (broken / "config.json").write_text(json.dumps(json.loads((tiny / "config.json").read_text()) | change))
    with pytest.raises(LaunchError, match=wrong):
        run("--flow", "cpu", "--max-seq-len", "512", model=broken)
