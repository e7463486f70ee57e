"""LoRA adapters by model name, over both forms: right answers in one batch, weights sent when the engine lacks them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from engine.checkpoint import Checkpoint
from engine.lora import AdapterCache, Lora
from engine.numpy_runner import NumpyRunner
from tests.e2e.conftest import Server, eventually, serve
from tests.engine.adapters import merged, random_adapter, save_peft, tensors
from tests.engine.layouts import Loop

PROMPT = [1, 200, 31, 77, 410, 5]
LENGTH = 8
LONG = 60  # tokens: more than a second
NAMES = ("pirate", "poet", "v1.2")
pytestmark = pytest.mark.usefixtures("expected")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(NAMES):
        save_peft(folder / name, random_adapter(checkpoint, seed, rank=4 + seed))
    return folder


def taken(checkpoint: Path, number: int) -> int:
    """Bytes that the engine takes for an adapter."""
    given = tensors(1, random_adapter(checkpoint, number, rank=4 + number))
    runner = NumpyRunner(Checkpoint(checkpoint))
    lora = Lora(1, given["lora_weights"][0], given["lora_config"][0])
    return int(AdapterCache(runner, 1 << 30).take(lora).weights.nbytes)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> dict[str, list[int]]:
    """Greedy tokens by adapter; "" is the base model. From checkpoints with the updates added in."""
    folder, found = tmp_path_factory.mktemp("merged"), {}
    for seed, name in enumerate(("", *NAMES), -1):
        updates = random_adapter(checkpoint, seed, rank=4 + seed) if name else {}
        loop = Loop(NumpyRunner(Checkpoint(merged(checkpoint, updates, folder / (name or "base")))))
        sequence = loop.add(PROMPT, LONG, end_id=-1)
        loop.finish()
        found[name] = loop.tokens[sequence]
    assert len({tuple(each[:LENGTH]) for each in found.values()}) == len(found)
    return found


@pytest.fixture(scope="module", params=["session", "single"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, adapters: Path
) -> Iterator[Server]:
    """An engine that keeps two of the three adapters."""
    kept = sum(taken(checkpoint, number) for number in (1, 2))
    changes = {
        "openai_bls": {"lora": str(adapters)},
        "tensorrt_llm": {"lora_cache_host_memory_bytes": str(kept), "step_interval_ms": "20"},
    }
    yield from serve(request.param, tmp_path_factory.mktemp(request.param), checkpoint, changes)


def ask(server: Server, model: str, **options: Any) -> requests.Response:
    wanted = {"prompt": PROMPT, "max_tokens": LENGTH, "temperature": 0, "ignore_eos": True, "logprobs": 0}
    return server.post("/v1/completions", {**wanted, "model": model, "return_tokens_as_token_ids": True, **options})


def written(answer: requests.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    told = answer.json()["choices"][0]["logprobs"]["tokens"]
    return [int(token.removeprefix("token_id:")) for token in told]


def named(server: Server, adapter: str) -> str:
    return f"{server.model}_lora_{adapter}" if adapter else server.model


def test_three_in_one_batch(server: Server, expected: dict[str, list[int]]) -> None:
    asked = ("pirate", "", "poet")
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(ask, server, named(server, adapter), max_tokens=LONG) for adapter in asked]
        together = eventually(lambda: server.active() == 3, 10)
        assert [written(answer.result()) for answer in answers] == [expected[adapter] for adapter in asked]
    assert together
    told = answers[0].result().json()
    assert told["model"] == named(server, "pirate") and told["usage"]["prompt_tokens"] == len(PROMPT)


def test_dropped_adapters_are_sent_again(server: Server, expected: dict[str, list[int]]) -> None:
    for adapter in ("pirate", "poet", "v1.2", "", "pirate", "poet", "v1.2", "pirate"):
        assert written(ask(server, named(server, adapter))) == expected[adapter][:LENGTH]


def test_streams_and_several_prompts(server: Server, expected: dict[str, list[int]]) -> None:
    both = ask(server, named(server, "poet"), prompt=[PROMPT, PROMPT[:3]])
    assert written(both) == expected["poet"][:LENGTH] and len(both.json()["choices"]) == 2
    streamed = ask(server, named(server, "poet"), stream=True)
    told = re.findall(r'"tokens":\[([^]]*)\]', streamed.text)
    assert [int(token) for token in re.findall(r"token_id:(\d+)", " ".join(told))] == expected["poet"][:LENGTH]


def test_chat(server: Server) -> None:
    message = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 8}
    told = [
        server.post("/v1/chat/completions", {**message, "model": named(server, adapter)}).json()
        for adapter in ("", "pirate", "poet")
    ]
    assert len({each["choices"][0]["message"]["content"] for each in told}) == 3


def test_the_adapter_by_a_field_of_its_own(server: Server, expected: dict[str, list[int]]) -> None:
    answer = ask(server, server.model, lora_model="poet")
    assert written(answer) == expected["poet"][:LENGTH] and answer.json()["model"] == named(server, "poet")
    assert written(ask(server, named(server, "poet"), lora_model="poet")) == expected["poet"][:LENGTH]


@pytest.mark.parametrize(
    ("adapter", "options", "status", "param"),
    [
        ("sheep", {}, 404, "model"),
        ("pirate_lora_poet", {}, 404, "model"),
        ("", {"lora_model": "sheep"}, 404, "model"),
        ("", {"lora_model": 4}, 400, "lora_model"),
        ("poet", {"lora_model": "pirate"}, 400, "lora_model"),
    ],
)
def test_refused(server: Server, adapter: str, options: dict[str, Any], status: int, param: str) -> None:
    answer = ask(server, named(server, adapter), **options)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


def test_models_are_listed(server: Server) -> None:
    listed = requests.get(server.url + "/v1/models", timeout=30).json()["data"]
    assert [model["id"] for model in listed] == [server.model, *(named(server, adapter) for adapter in NAMES)]
    assert [model.get("parent") for model in listed] == [None, *[server.model] * 3]
    one = requests.get(f"{server.url}/v1/models/{named(server, 'v1.2')}", timeout=30)
    assert one.status_code == 200 and one.json() == listed[3]
    assert requests.get(f"{server.url}/v1/models/{named(server, 'sheep')}", timeout=30).status_code == 404
    counted = server.post("/v1/tokenize", {"model": named(server, "poet"), "prompt": "Hello"})
    assert counted.status_code == 200 and counted.json()["count"] > 0
