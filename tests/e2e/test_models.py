"""Two engines in one Triton behind one openai_bls: names, many clients at once, and models that come and go."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from launcher.stack import ROOT, Settings, Stack
from tests.e2e.conftest import eventually, family
from tests.e2e.wire import chunks, events, post, request, text
from tests.ports import free_port

TINY_CHAT = ROOT / "model_repository" / "tensorrt_llm" / "tiny-chat"
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
ENGINES = {"tensorrt_llm": "tensorrt_llm", "noisy_engine": "tensorrt_llm"}
NAMES = ["tiny-chat", "gpt-4o-mini", "noise"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Stack]:
    run = tmp_path_factory.mktemp("models")
    entries = [
        {"id": "tiny-chat", "engine": "tensorrt_llm", "aliases": ["gpt-4o-mini"]},
        {"id": "noise", "engine": "noisy_engine", "max_model_len": 900},
    ]
    (run / "models.json").write_text(json.dumps({"models": entries}))
    settings = Settings(
        run_dir=run,
        port=free_port(),
        triton_http_port=free_port(),
        triton_metrics_port=free_port(),
        parameters={
            "openai_bls": {"models_file": str(run / "models.json"), "model_control": "on"},
            "tensorrt_llm": {"checkpoint": str(TINY_CHAT)},
            "noisy_engine": {"checkpoint": str(checkpoint), "step_interval_ms": "5"},
        },
        engines=ENGINES,
        load_at_start=["openai_bls", *ENGINES],
    )
    with Stack(settings) as running:
        yield running


def ask(stack: Stack, path: str, body: Any = None) -> requests.Response:
    return requests.post(f"{stack.url}/v1/{path}", json=body, timeout=60)


def listed(stack: Stack) -> list[str]:
    return [model["id"] for model in requests.get(f"{stack.url}/v1/models", timeout=60).json()["data"]]


def ready(stack: Stack) -> bool:
    return requests.get(f"{stack.url}/health/ready", timeout=60).status_code == 200


def body(number: int, **options: Any) -> dict[str, Any]:
    """A request to one of the models in turn, with a prompt of its own."""
    words = " ".join(random.Random(number).choices(["Once", "日本", "über", "🎉", "and", "\n", "far"], k=6))
    name, limit = NAMES[number % 3], {"max_tokens": 24, "ignore_eos": True}
    return {"model": name, "prompt": f"{words} {number}", "seed": number, "stream": True, **limit, **options}


async def streams(stack: Stack, count: int) -> list[str]:
    replies = await asyncio.gather(*(post(f"{stack.url}/v1/completions", body(number)) for number in range(count)))
    assert [reply.status for reply in replies] == [200] * count
    found = [events(reply.body) for reply in replies]
    assert [each[0]["model"] for each in found] == [NAMES[number % 3] for number in range(count)]
    return [text(each) for each in found]


def alone(stack: Stack, numbers: range) -> list[str]:
    answers = [ask(stack, "completions", body(number, stream=False)) for number in numbers]
    return [answer.json()["choices"][0]["text"] for answer in answers]


def active(stack: Stack) -> int:
    """Requests that the engines have."""
    metrics = requests.get(stack.metrics_url, timeout=10).text
    found = re.findall(r'nv_trt_llm_request_metrics\{[^}]*request_type="active"[^}]*\} (\S+)', metrics)
    assert len(found) == len(ENGINES)
    return int(sum(map(float, found)))


def processes(stack: Stack) -> set[int]:
    return {pid for child in stack.children for pid in family(child.pid)}


def test_each_name_has_its_model(stack: Stack) -> None:
    assert listed(stack) == NAMES
    said = {}
    for name in NAMES:
        answer = ask(
            stack, "chat/completions", {"model": name, "messages": CAPITAL, "temperature": 0, "max_tokens": 20}
        )
        assert answer.json()["model"] == name
        said[name] = answer.json()["choices"][0]["message"]["content"]
    assert said["tiny-chat"] == said["gpt-4o-mini"] == "The capital of France is Paris."
    assert said["noise"] != said["tiny-chat"]
    lengths = [ask(stack, "tokenize", {"model": name, "prompt": "a"}).json()["max_model_len"] for name in NAMES]
    assert lengths == [2048, 2048, 900]


def test_other_names_are_404(stack: Stack) -> None:
    for path in ("chat/completions", "completions", "tokenize", "models/nobody/load", "models/nobody/unload"):
        answer = ask(stack, path, {"model": "nobody", "prompt": "a", "messages": CAPITAL})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found"), path
    assert requests.get(f"{stack.url}/v1/models/nobody", timeout=60).status_code == 404


def test_96_streams_of_both_get_what_they_get_alone(stack: Stack) -> None:
    together = asyncio.run(streams(stack, 96))
    assert together == alone(stack, range(96))


async def leave(stack: Stack, number: int, after: float) -> None:
    async def read() -> None:
        async with request(f"{stack.url}/v1/completions", body(number, max_tokens=800)) as (_, reader):
            async for _ in chunks(reader):
                pass

    try:
        await asyncio.wait_for(read(), after)
    except (TimeoutError, asyncio.TimeoutError):
        pass


async def storm(stack: Stack, clients: int, seed: int) -> None:
    chance = random.Random(seed)
    await asyncio.gather(*(leave(stack, number, chance.uniform(0.05, 0.8)) for number in range(clients)))


def test_storms_of_clients_that_leave(stack: Stack) -> None:
    before = processes(stack)
    for seed in range(3):
        asyncio.run(storm(stack, 120, seed))
    assert eventually(lambda: active(stack) == 0)
    assert processes(stack) == before
    assert asyncio.run(streams(stack, 12)) == alone(stack, range(12))


def test_a_model_comes_and_goes_while_the_other_one_answers(stack: Stack) -> None:
    wanted = alone(stack, range(3))
    long = body(2, max_tokens=400, stream=False)
    expected = ask(stack, "completions", long).json()["choices"][0]["text"]
    for _ in range(2):
        answer = asyncio.run(during(stack, long))
        assert answer == expected
        assert listed(stack) == NAMES
    assert alone(stack, range(3)) == wanted
    assert eventually(lambda: ready(stack))
    stack.check_alive()


async def during(stack: Stack, long: dict[str, Any]) -> str:
    """Unloads and loads tiny-chat while the other model writes; the other one's text."""
    running = asyncio.create_task(post(f"{stack.url}/v1/completions", long))
    await asyncio.sleep(0.3)
    answer = await asyncio.to_thread(ask, stack, "models/gpt-4o-mini/unload")
    assert (answer.status_code, answer.json()) == (200, {"status": "success", "model": "gpt-4o-mini"})
    assert await asyncio.to_thread(listed, stack) == ["noise"]
    refused = await asyncio.to_thread(ask, stack, "completions", {"model": "tiny-chat", "prompt": "a"})
    assert refused.status_code == 404
    again = await asyncio.to_thread(ask, stack, "models/tiny-chat/unload")
    assert (again.status_code, "already unloaded" in again.text) == (400, True)
    answer = await asyncio.to_thread(ask, stack, "models/tiny-chat/load")
    assert (answer.status_code, answer.json()["id"]) == (200, "tiny-chat")
    reply = await running
    assert reply.status == 200
    return str(json.loads(reply.body)["choices"][0]["text"])


def test_an_unloaded_model_finishes_what_it_writes(stack: Stack) -> None:
    async def drained() -> tuple[str, requests.Response]:
        running = asyncio.create_task(post(f"{stack.url}/v1/completions", body(2, max_tokens=200)))
        await asyncio.sleep(0.3)
        unloaded = await asyncio.to_thread(ask, stack, "models/noise/unload")
        return text(events((await running).body)), unloaded

    expected = ask(stack, "completions", body(2, max_tokens=200, stream=False)).json()["choices"][0]["text"]
    said, unloaded = asyncio.run(drained())
    assert (said, unloaded.status_code) == (expected, 200)
    assert ask(stack, "models/noise/load").status_code == 200
    assert alone(stack, range(2, 3)) == asyncio.run(streams(stack, 3))[2:]
    stack.check_alive()
