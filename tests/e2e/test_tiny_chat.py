"""The model that ships with the project, as a newcomer meets it: sensible answers, calls, thoughts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from launcher.stack import Stack

USER = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def client(tiny_chat: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=tiny_chat.base_url, api_key="none") as made:
        yield made


def ask(client: openai.OpenAI, messages: Any = USER, **options: Any) -> Any:
    return client.chat.completions.create(model="tiny-chat", messages=messages, temperature=0, **options)


def test_it_is_the_model_that_is_served(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny-chat"]


def test_it_answers(client: openai.OpenAI) -> None:
    answer = ask(client, [{"role": "user", "content": "What is the capital of France?"}])
    assert "Paris" in answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"


def test_it_calls_a_tool_of_its_own_choice(client: openai.OpenAI) -> None:
    (choice,) = ask(client, tools=[WEATHER]).choices
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content, call.function.name) == ("tool_calls", None, "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def test_it_chooses_the_function_and_fills_in_what_it_has_never_seen(client: openai.OpenAI) -> None:
    kinds = {"city": {"type": "string"}, "nights": {"type": "integer"}}
    schema = {"type": "object", "properties": kinds, "required": list(kinds)}
    hotel = {"name": "book_hotel", "description": "Book a hotel in a city.", "parameters": schema}
    question = [{"role": "user", "content": "Book a hotel in Kyoto for 3 nights."}]
    (choice,) = ask(client, question, tools=[WEATHER, {"type": "function", "function": hotel}]).choices
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("book_hotel", {"city": "Kyoto", "nights": 3})


def test_the_stream_says_the_same(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="tiny-chat", messages=USER, tools=[WEATHER], temperature=0) as stream:  # type: ignore[arg-type]
        kinds = [event.type for event in stream]
        (choice,) = stream.get_final_completion().choices
    assert "tool_calls.function.arguments.done" in kinds and choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or ()
    (whole,) = ask(client, tools=[WEATHER]).choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == (whole.function.name, whole.function.arguments)


def test_it_uses_what_the_tool_says(client: openai.OpenAI) -> None:
    (choice,) = ask(client, tools=[WEATHER]).choices
    result = {"role": "tool", "tool_call_id": choice.message.tool_calls[0].id,
              "content": '{"temperature": 14, "condition": "sunny"}'}  # fmt: skip
    answer = ask(client, [*USER, choice.message, result], tools=[WEATHER]).choices[0]
    assert answer.finish_reason == "stop" and "14" in answer.message.content and "sunny" in answer.message.content


def test_it_leaves_tools_alone_that_do_not_fit(client: openai.OpenAI) -> None:
    (choice,) = ask(client, [{"role": "user", "content": "What is the capital of France?"}], tools=[WEATHER]).choices
    assert choice.finish_reason == "stop" and not choice.message.tool_calls and "Paris" in choice.message.content


@pytest.mark.parametrize("options", [{"reasoning_effort": "low"},
                                     {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}])  # fmt: skip
def test_it_thinks_when_it_is_asked_to(client: openai.OpenAI, options: Any) -> None:
    answer = ask(client, [{"role": "user", "content": "What is the capital of France?"}], **options)
    message = answer.choices[0].message
    assert message.reasoning_content and "Paris" in message.content and "think>" not in message.content
    assert 0 < answer.usage.completion_tokens_details.reasoning_tokens < answer.usage.completion_tokens


EXTRACT = "Tom is 31 years old and lives in Oslo. Extract name, age and city as JSON."


class Person(BaseModel):
    name: str
    age: int
    city: str


@pytest.mark.parametrize("effort", ["none", "low"])
def test_an_answer_of_a_given_form_behind_a_thought_or_without_one(client: openai.OpenAI, effort: Any) -> None:
    found = client.chat.completions.parse(
        model="tiny-chat",
        messages=[{"role": "user", "content": EXTRACT}],
        response_format=Person,
        reasoning_effort=effort,
        max_tokens=400,
        temperature=0,
    )
    message = found.choices[0].message
    assert isinstance(message.parsed, Person)
    assert bool(getattr(message, "reasoning_content", None)) is (effort == "low")
