"""Two Tritons behind one gateway, and one of them is killed under load."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from launcher.stack import Settings, Stack
from tests.e2e.conftest import Server, eventually, started
from tests.e2e.wire import chunks, events, request, text
from tests.ports import free_port

# Two at a time, 30 ms a step: most of what comes at once waits in the engine's queue.
SLOW = {"tensorrt_llm": {"step_interval_ms": "30", "max_batch_size": "2"}}
REQUESTS = 40
TOKENS = 30


@pytest.fixture
def mortal(tmp_path: Path, checkpoint: Path) -> Iterator[Stack]:
    with started(tmp_path / "mortal", "session", checkpoint, SLOW) as stack:
        yield stack


@pytest.fixture
def both(tmp_path: Path, session_server: Server, mortal: Stack) -> Iterator[Server]:
    """A gateway before a Triton that stays and one that does not."""
    places = [f"127.0.0.1:{stack.settings.triton_http_port}" for stack in (mortal, session_server.stack)]
    settings = Settings(run_dir=tmp_path / "gateway", port=free_port(), gateway_only=True, upstreams=places)
    with Stack(settings) as stack:
        yield Server(stack, "session", session_server.model, stack)


@dataclass
class Asked:
    """A request and what came of it.

    Attributes:
        shown: the bytes of the answer that its client has.
        whole: the answer came to its end.
    """

    path: str
    body: dict[str, Any]
    shown: bytes = b""
    whole: bool = False

    async def ask(self, url: str) -> None:
        self.shown = b""
        try:
            async with request(url + self.path, self.body) as (reply, reader):
                assert reply.status == 200
                async for piece in chunks(reader):
                    self.shown += piece
                self.whole = True
        except asyncio.IncompleteReadError:
            pass

    def text(self) -> str:
        if self.body["stream"]:
            return text(events(self.shown))
        choice = json.loads(self.shown)["choices"][0]
        return str(choice["text"] if "text" in choice else choice["message"]["content"])


def asked(model: str, number: int) -> Asked:
    """Streamed or whole, a chat or a completion, each with a text of its own."""
    chat, stream = number % 2 == 0, number % 5 > 1
    said = f"Tell me about the number {number}."
    prompt = {"messages": [{"role": "user", "content": said}]} if chat else {"prompt": said}
    body = {"model": model, "seed": number, "max_tokens": TOKENS, "ignore_eos": True, "stream": stream} | prompt
    return Asked("/v1/chat/completions" if chat else "/v1/completions", body)


async def all_of(made: Sequence[Asked], url: str) -> None:
    await asyncio.gather(*(each.ask(url) for each in made))


async def killed_under_load(made: Sequence[Asked], both: Server, survivor: Server, mortal: Stack) -> list[Asked]:
    """Asks all at once, kills one Triton when the other one has done its share; gives those that had shown nothing."""
    asking = asyncio.create_task(all_of(made, both.url))
    while all(not each.whole for each in made) or await asyncio.to_thread(survivor.active):
        await asyncio.sleep(0.02)
    while not any(each.shown and not each.whole for each in made):
        await asyncio.sleep(0.02)
    os.kill(mortal.children[0].pid, signal.SIGKILL)
    waiting = [each for each in made if not each.shown]
    await asking
    return waiting


def answered(stack: Stack) -> int:
    """How many requests the front model of a Triton has answered."""
    metrics = requests.get(stack.metrics_url, timeout=10).text
    found = re.search(r'nv_inference_request_success\{model="openai_bls"[^}]*\} (\d+)', metrics)
    assert found is not None
    return int(found[1])


def test_what_had_shown_nothing_is_not_lost_with_its_triton(
    both: Server, session_server: Server, mortal: Stack
) -> None:
    made = [asked(both.model, number) for number in range(REQUESTS)]
    waiting = asyncio.run(killed_under_load(made, both, session_server, mortal))
    lost = [each for each in made if not each.whole]
    assert {each.body["stream"] for each in waiting} == {True, False}
    assert len(waiting) >= 10
    assert len(lost) <= 2
    assert all(each.shown for each in lost), "they had begun"
    again = [asked(both.model, number) for number in range(REQUESTS)]
    asyncio.run(all_of(again, session_server.url))
    pairs = [(each.text(), other.text()) for each, other in zip(made, again, strict=True) if each.whole]
    assert [one for one, _ in pairs] == [other for _, other in pairs]
    for each, other in zip(made, again, strict=True):
        assert each.whole or each.shown.count(b"data: ") < other.shown.count(b"data: ")

    mortal.stop()
    with Stack(mortal.settings) as back:
        assert all(both.complete("x", max_tokens=1) for _ in range(3))
        assert eventually(lambda: bool(both.complete("x", max_tokens=1)) and answered(back) > 0), "it is asked again"
