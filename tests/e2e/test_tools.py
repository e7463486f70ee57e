"""Tools end to end, over both forms. The model is random: its calls fit because it is held to them."""

from __future__ import annotations

import json
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel

from tests.e2e.conftest import Server
from tests.e2e.wire import events

USER = [{"role": "user", "content": "What is the weather in Paris?"}]


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "Rome"]
    unit: Literal["C", "F"]


class Search(BaseModel):
    words: Literal["a", "b"]
    exact: bool


TOOLS: list[Any] = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Search)]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
NAMED = {"type": "function", "function": {"name": "Search"}}


def chat(server: Server, **options: Any) -> dict[str, Any]:
    return {"model": server.model, "messages": USER, "tools": TOOLS, "max_tokens": 600, "seed": 1} | options


def check(call: Any) -> None:
    assert call["type"] == "function" and len(call["id"]) >= 9
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMAS[call["function"]["name"]])


@pytest.mark.parametrize("seed", range(4))
def test_a_required_call_is_one_of_the_tools(server: Server, seed: int) -> None:
    body = chat(server, tool_choice="required", seed=seed, temperature=2)
    (choice,) = server.post("/v1/chat/completions", body).json()["choices"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    for call in choice["message"]["tool_calls"]:
        check(call)


def test_every_tool_can_be_the_one(server: Server) -> None:
    body = chat(server, tool_choice="required", n=24, temperature=2, parallel_tool_calls=False)
    choices = server.post("/v1/chat/completions", body).json()["choices"]
    calls = [choice["message"]["tool_calls"] for choice in choices]
    assert {each[0]["function"]["name"] for each in calls} == {"Weather", "Search"}
    assert {len(each) for each in calls} == {1}


def test_a_named_function_is_called(server: Server) -> None:
    (choice,) = server.post("/v1/chat/completions", chat(server, tool_choice=NAMED)).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    check(call)
    assert call["function"]["name"] == "Search" and choice["finish_reason"] == "stop"


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_stream_says_the_same_as_a_whole_answer(server: Server, choice: Any) -> None:
    body = chat(server, tool_choice=choice)
    message = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]
    calls: list[dict[str, str]] = []
    for event in events(server.post("/v1/chat/completions", body | {"stream": True}).content):
        for call in event["choices"][0]["delta"].get("tool_calls", ()):
            if "id" in call:
                calls.append({"name": call["function"]["name"], "arguments": ""})
            calls[call["index"]]["arguments"] += call["function"]["arguments"]
    assert calls == [call["function"] for call in message["tool_calls"]]


def test_openai_python_parses_calls(server: Server) -> None:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none") as client:
        found = client.chat.completions.parse(
            model=server.model, messages=USER, tools=TOOLS, tool_choice="required", seed=3  # type: ignore[arg-type]
        )
    for call in found.choices[0].message.tool_calls or ():
        assert isinstance(call.function.parsed_arguments, Weather | Search)
    assert found.choices[0].message.tool_calls


def test_openai_python_streams_calls(server: Server) -> None:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none") as client:
        with client.chat.completions.stream(
            model=server.model,
            messages=USER,  # type: ignore[arg-type]
            tools=TOOLS,
            tool_choice="required",
            seed=4,
            stream_options={"include_usage": True},
        ) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds and "tool_calls.function.arguments.done" in kinds
    (choice,) = final.choices
    assert choice.finish_reason == "tool_calls" and final.usage and final.usage.completion_tokens > 0
    for call in choice.message.tool_calls or ():
        assert isinstance(call.function.parsed_arguments, Weather | Search)


def test_a_call_or_an_answer_of_a_given_form(server: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMAS["Search"]}}
    body = chat(server, response_format=form, n=16, temperature=2)
    choices = server.post("/v1/chat/completions", body).json()["choices"]
    for choice in choices:
        if choice["finish_reason"] == "stop":
            jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMAS["Search"])
        else:
            assert choice["finish_reason"] == "tool_calls"
            for call in choice["message"]["tool_calls"]:
                check(call)
    assert {choice["finish_reason"] for choice in choices} == {"stop", "tool_calls"}


def test_the_history_of_a_call(server: Server) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "Search", "arguments": '{"words": "a"}'}}
    history = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
    ]
    answer = server.post("/v1/chat/completions", chat(server, messages=history, max_tokens=8))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("wrong", [
    {"tools": [], "tool_choice": "required"},
    {"tool_choice": {"type": "function", "function": {"name": "other"}}},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}],
     "tool_choice": "required"},
])  # fmt: skip
def test_what_is_wrong_is_400(server: Server, wrong: dict[str, Any]) -> None:
    answer = server.post("/v1/chat/completions", chat(server, **wrong))
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
