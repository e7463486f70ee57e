"""LoRA adapters without Triton: lists and folders, and when their weights are sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from adapters import load
from preprocessing.errors import OpenAIError
from preprocessing.lora import Adapter, Contents
from transports.adapters import Lender
from transports.bls import EngineError

GONE = "LoRA task 7 not found in cache. Please send LoRA weights with request"
CONTENTS = Contents(np.zeros((1, 2), np.float16), np.array([[1, 0, 1]], np.int32))


def peft(folder: Path, value: float = 1.0, **config: Any) -> Path:
    folder.mkdir(parents=True)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    halves = {f"{name}A.weight": np.full((1, 2), value, np.float32), f"{name}B.weight": np.ones((2, 1), np.float32)}
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 1, "r": 1} | config))
    safetensors.numpy.save_file(halves, folder / "adapter_model.safetensors")
    return folder


def converted(folder: Path) -> Path:
    folder.mkdir(parents=True)
    np.save(folder / "model.lora_weights.npy", np.ones((1, 1, 4), np.float32))
    np.save(folder / "model.lora_config.npy", np.array([[[1, 0, 1]]], np.int32))
    return folder


def test_a_folder(tmp_path: Path) -> None:
    peft(tmp_path / "sheep")
    peft(tmp_path / "12", 2.0)
    converted(tmp_path / "v1.2")
    (tmp_path / "something else").mkdir()
    (tmp_path / "README.md").write_text("no adapter")
    found = load(tmp_path)
    assert list(found) == ["12", "sheep", "v1.2"] and [adapter.name for adapter in found.values()] == list(found)
    assert found["12"].task_id == 12
    assert found["sheep"].task_id == found["v1.2"].task_id > 2**32  # they hold the same
    assert found["v1.2"].read is not None and found["v1.2"].read().weights.tolist() == [[1.0] * 4]


@pytest.mark.parametrize("base", ["", "adapters", "repository/openai_bls/1", "/"])
def test_a_list_like_nvidias(tmp_path: Path, base: str) -> None:
    """Its relative paths begin at the list's folder, at the repository or where the server was started."""
    place = tmp_path / "repository" / "openai_bls" / "1"
    folder = peft((tmp_path if base == "/" else place / base if base == "adapters" else tmp_path / base) / "one")
    path = {"": "one", "adapters": "adapters/one", "/": str(folder)}.get(base, f"{base}/one")
    place.mkdir(parents=True, exist_ok=True)
    (place / "multi_lora.json").write_text(json.dumps({"doll": path}))
    for given in (place / "multi_lora.json", place):
        assert list(load(given)) == ["doll"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "wanted JSON"),
        ("[]", "wanted an object of names and folders, found []"),
        ('{"a": 1}', "wanted an object of names and folders"),
        ('{"a": "nowhere"}', "wanted a folder, found 'nowhere'"),
        ("{}", "found none"),
        ('{"a b": "one"}', "the LoRA adapter 'a b' in"),
        ('{"a": "bad"}', "use_dora: wanted no DoRA"),
        ('{"a": "empty"}', "wanted adapter_model.safetensors, found none"),
        ('{"a": "pattern"}', "the LoRA adapter 'a' in"),
        ('{"a": "list"}', "adapter_config.json: wanted an object"),
        ('{"a": "cut"}', "the LoRA adapter 'a' in"),
        ('{"a": "no arrays"}', "the LoRA adapter 'a' in"),
    ],
)
def test_lists_that_cannot_be_served(tmp_path: Path, text: str, message: str) -> None:
    peft(tmp_path / "one")
    peft(tmp_path / "bad", use_dora=True)
    peft(tmp_path / "pattern", alpha_pattern={"(": 1})
    (peft(tmp_path / "empty") / "adapter_model.safetensors").unlink()
    (peft(tmp_path / "list") / "adapter_config.json").write_text("[]")
    (peft(tmp_path / "cut") / "adapter_model.safetensors").write_bytes(b"12345678")
    (converted(tmp_path / "no arrays") / "model.lora_weights.npy").write_bytes(b"")
    file = tmp_path / "list.json"
    file.write_text(text)
    with pytest.raises(ValueError) as error:
        load(file)
    assert message in str(error.value)


def test_a_folder_without_adapters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wanted subfolders with adapter_config.json"):
        load(tmp_path)


class Engine:
    """Answers as told; remembers what came with the prompts."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.seen: list[bool] = []

    def __call__(self, weights: dict[str, Any]) -> str:
        self.seen.append(bool(weights))
        assert not weights or set(weights) == {"lora_weights", "lora_config"}
        answer = self.answers.pop(0)
        if answer != "ok":
            raise EngineError(answer)
        return answer


def adapter(read: Callable[[], Contents] | None = lambda: CONTENTS) -> Adapter:
    return Adapter("sheep", 7, read)


def test_weights_go_with_the_first_request_and_after_they_were_dropped() -> None:
    lender, engine = Lender(), Engine("ok", "ok", GONE, "ok", "ok")
    for _ in range(4):
        assert lender.send(adapter(), engine) == "ok"
    assert engine.seen == [True, False, False, True, False]


def test_they_are_sent_again_once() -> None:
    lender, engine = Lender(), Engine("ok", GONE, GONE)
    lender.send(adapter(), engine)
    with pytest.raises(EngineError, match="LoRA task 7"):
        lender.send(adapter(), engine)
    assert engine.seen == [True, False, True]


def test_what_the_engine_refused_it_does_not_have() -> None:
    lender, engine = Lender(), Engine("PEFT Cache is full. Could not store taskId=7", "ok", "prompt too long")
    with pytest.raises(EngineError, match="PEFT"):
        lender.send(adapter(), engine)
    lender.send(adapter(), engine)
    with pytest.raises(EngineError, match="prompt"):
        lender.send(adapter(), engine)
    assert engine.seen == [True, True, False]


def test_nothing_is_sent_for_the_base_model_and_for_adapters_of_the_engine() -> None:
    lender, engine = Lender(), Engine("ok", "ok", GONE)
    lender.send(None, engine)
    lender.send(adapter(None), engine)
    with pytest.raises(EngineError):
        lender.send(adapter(None), engine)
    assert engine.seen == [False] * 3


def test_weights_that_cannot_be_read_any_more() -> None:
    def read() -> Contents:
        raise OSError("/secret/place is gone")

    with pytest.raises(OpenAIError) as error:
        Lender().send(adapter(read), Engine())
    assert error.value.status == 503 and "secret" not in error.value.message


def test_no_model_may_have_the_name_of_an_adapter(tmp_path: Path) -> None:
    from backend import Backend
    from directory import Directory
    from model_settings import ModelSettings

    peft(tmp_path / "one")

    def named(name: str) -> Backend:
        return Backend(ModelSettings(served_model_name=name, lora=tmp_path), 1.0, alone=False)

    Directory([named("a"), named("b")])
    with pytest.raises(ValueError, match="wanted names of models that no LoRA adapter has, found 'a_lora_one'"):
        Directory([named("a"), named("a_lora_one")])
