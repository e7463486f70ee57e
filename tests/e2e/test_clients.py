"""openai-python as people use it, over both forms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest

from tests.e2e.conftest import Server

USER = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


def test_chat(client: openai.OpenAI, server: Server) -> None:
    answer = client.chat.completions.create(model=server.model, messages=USER, max_completion_tokens=9)  # type: ignore[arg-type]
    assert answer.choices[0].message.content
    assert answer.usage is not None and answer.usage.completion_tokens <= 9
    assert answer._request_id


def test_chat_stream(client: openai.OpenAI, server: Server) -> None:
    stream = client.chat.completions.create(
        model=server.model,
        messages=USER,
        max_tokens=9,
        seed=2,
        stream=True,
        stream_options={"include_usage": True},  # type: ignore[arg-type]
    )
    found = list(stream)
    whole = client.chat.completions.create(model=server.model, messages=USER, max_tokens=9, seed=2)  # type: ignore[arg-type]
    joined = "".join(chunk.choices[0].delta.content or "" for chunk in found if chunk.choices)
    assert joined == whole.choices[0].message.content
    assert found[-1].usage == whole.usage


def test_the_stream_helper(client: openai.OpenAI, server: Server) -> None:
    # The helper takes "length" for an error, so the answer has to end at a stop string.
    with client.chat.completions.stream(model=server.model, messages=USER, max_tokens=200, seed=1, stop=" ") as stream:  # type: ignore[arg-type]
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds and kinds[-1] == "content.done"
    assert final.choices[0].message.role == "assistant"
    assert final.choices[0].finish_reason == "stop"


def test_completions(client: openai.OpenAI, server: Server) -> None:
    whole = client.completions.create(model=server.model, prompt="Once", max_tokens=9, temperature=0)
    stream = client.completions.create(model=server.model, prompt="Once", max_tokens=9, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_async(server: Server) -> None:
    async def talk() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client:
            whole = await client.chat.completions.create(model=server.model, messages=USER, max_tokens=9, seed=4)  # type: ignore[arg-type]
            stream = await client.chat.completions.create(
                model=server.model,
                messages=USER,
                max_tokens=9,
                seed=4,
                stream=True,  # type: ignore[arg-type]
            )
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return whole.choices[0].message.content, "".join(pieces)

    whole, joined = asyncio.run(talk())
    assert whole == joined


def test_models(client: openai.OpenAI, server: Server) -> None:
    assert [model.id for model in client.models.list()] == [server.model]
    assert client.models.retrieve(server.model).id == server.model


def test_errors_have_their_classes(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=USER)  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=server.model, messages=USER, temperature=3)  # type: ignore[arg-type]
    assert wrong.value.param == "temperature"
