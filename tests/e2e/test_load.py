"""Many clients at once: every text right, nothing lost, nothing left running, the same processes after every storm."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Server, eventually
from tests.e2e.wire import chunks, events, post, request, text

WORDS = ("Once", "the", "日本", "über", "🎉", "and", "table", "\n", "zero", "far")


def prompt(number: int) -> str:
    """A prompt of its own for each stream."""
    return " ".join(random.Random(number).choices(WORDS, k=6)) + f" {number}"


def body(server: Server, number: int, **options: Any) -> dict[str, Any]:
    return {"model": server.model, "prompt": prompt(number), "seed": number, "max_tokens": 24, "stream": True} | options


async def streams(server: Server, count: int) -> list[str]:
    replies = await asyncio.gather(*(post(server.completions_url, body(server, number)) for number in range(count)))
    assert [reply.status for reply in replies] == [200] * count
    return [text(events(reply.body)) for reply in replies]


def alone(server: Server, count: int) -> list[str]:
    """The same requests one after the other, not streamed."""
    found = [server.post("/v1/completions", body(server, number, stream=False)) for number in range(count)]
    return [answer.json()["choices"][0]["text"] for answer in found]


@pytest.fixture(params=["session", "http"])
def concurrent_server(request: pytest.FixtureRequest) -> Server:
    """The forms with many requests in flight per instance."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


def test_64_streams_get_what_they_get_alone(server: Server) -> None:
    assert asyncio.run(streams(server, 64)) == alone(server, 64)


def test_256_streams_get_what_they_get_alone(concurrent_server: Server) -> None:
    together = asyncio.run(streams(concurrent_server, 256))
    some = range(0, 256, 8)
    answers = [
        concurrent_server.post("/v1/completions", body(concurrent_server, number, stream=False)) for number in some
    ]
    assert [together[number] for number in some] == [answer.json()["choices"][0]["text"] for answer in answers]
    assert len(set(together)) == 256


async def read(server: Server, number: int) -> None:
    async with request(server.completions_url, body(server, number, max_tokens=1500)) as (_, reader):
        async for _ in chunks(reader):
            pass


async def leave(server: Server, number: int, after: float) -> None:
    """A client that goes away in mid-stream, or before its stream has begun."""
    try:
        await asyncio.wait_for(read(server, number), after)
    except (TimeoutError, asyncio.TimeoutError):
        pass


async def storm(server: Server, clients: int, seed: int) -> None:
    chance = random.Random(seed)
    await asyncio.gather(*(leave(server, number, chance.uniform(0.05, 0.8)) for number in range(clients)))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(server: Server, stream: bool) -> None:
    # An answer of 1500 tokens, which takes 7 seconds at the tests' pace.
    options = {"model": server.model, "prompt": "Once 1", "seed": 3, "max_tokens": 1500, "stream": stream}
    with pytest.raises(requests.exceptions.RequestException):
        answer = requests.post(server.completions_url, json=options, stream=True, timeout=(5, 1))
        # The whole answer takes seconds; the client loses patience while waiting for more of it.
        for _ in answer.iter_content(None):
            if stream:
                answer.close()
                raise requests.exceptions.Timeout
    left = time.monotonic()
    assert eventually(lambda: server.active() == 0, seconds=5)
    assert time.monotonic() - left < 5


@pytest.mark.parametrize(("form", "storms"), [("session", 10), ("http", 4)])
def test_storms_of_clients_that_leave(form: str, storms: int, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(f"{form}_server")
    before = server.processes()
    for number in range(storms):
        asyncio.run(storm(server, 200, number))
    assert eventually(lambda: server.active() == 0)
    assert server.processes() == before
    assert asyncio.run(streams(server, 16)) == alone(server, 16)


def test_a_storm_over_the_single_form(single_server: Server) -> None:
    before = single_server.processes()
    asyncio.run(storm(single_server, 50, seed=1))
    assert eventually(lambda: single_server.active() == 0, seconds=60)
    assert single_server.processes() == before
    assert asyncio.run(streams(single_server, 8)) == alone(single_server, 8)
