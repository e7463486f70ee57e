"""Requests at fault: each is a 400 that names the field. The table is the specification."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing import fields
from preprocessing.body import ChatBody, CompletionBody, decode, parse
from preprocessing.errors import OpenAIError

USER = [{"role": "user", "content": "hi"}]
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


def chat(**changes: Any) -> dict[str, Any]:
    return decode(orjson.dumps({"model": "m", "messages": USER} | changes))


def completion(**changes: Any) -> dict[str, Any]:
    return decode(orjson.dumps({"model": "m", "prompt": "hi"} | changes))


RAW = [
    (b"", "not valid JSON"),
    (b"{", "not valid JSON"),
    (b'{"model": NaN}', "not valid JSON"),
    (b'"\xff"', "not valid JSON"),
    (b'{"model": "\\ud800"}', "not valid JSON"),
    (b"[" * 100_000, "not valid JSON"),
    (b"[]", "must be a JSON object"),
    (b"null", "must be a JSON object"),
]


@pytest.mark.parametrize(("raw", "message"), RAW)
def test_not_a_json_object(raw: bytes, message: str) -> None:
    with pytest.raises(OpenAIError) as caught:
        decode(raw)
    assert (caught.value.status, caught.value.param) == (400, None)
    assert message in caught.value.message


# param, what the message says, the member that is wrong
CHAT_FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("model", "Missing", {"model": None}),
    ("model", "must be a string; got 5", {"model": 5}),
    ("messages", "Missing", {"messages": None}),
    ("messages", "must be a list", {"messages": "hi"}),
    ("messages", "at least 1 item", {"messages": []}),
    ("messages[0]", "must be an object", {"messages": [5]}),
    ("messages[0].role", "Missing", {"messages": [{"content": "a"}]}),
    ("messages[0].role", "must be 'system', 'developer'", {"messages": [{"role": "robot", "content": "a"}]}),
    ("messages[1]", "needs a 'content'", {"messages": [*USER, {"role": "user"}]}),
    ("messages[0].content", "a string or a list of text parts", {"messages": [{"role": "user", "content": 5}]}),
    ("messages[0].content[0].type", "must be 'text'", {"messages": [{"role": "user", "content": [IMAGE]}]}),
    ("messages[0].mood-x", "Unknown field", {"messages": [{"role": "user", "content": "a", "mood-x": 1}]}),
    ("messages[0].tool_calls[0].id", "Missing", {"messages": [{"role": "assistant", "tool_calls": [{}]}]}),
    ("messages[0]", "needs a 'tool_call_id'", {"messages": [{"role": "tool", "content": "a"}]}),
    ("messages[0]", "not allowed with the role 'user'", {"messages": [{**USER[0], "tool_calls": [CALL]}]}),
    ("n", "at most 128", {"n": 129}),
    ("n", "must be an integer", {"n": True}),
    ("logprobs", "true or false", {"logprobs": 1}),
    ("top_logprobs", "only allowed when 'logprobs'", {"top_logprobs": 1}),
    ("top_logprobs", "at most 20", {"logprobs": True, "top_logprobs": 21}),
    ("logit_bias.5", "at most 100", {"logit_bias": {"5": 101}}),
    ("logit_bias", "must be an object", {"logit_bias": [1]}),
    ("presence_penalty", "at least -2", {"presence_penalty": -2.1}),
    ("frequency_penalty", "must be a number", {"frequency_penalty": "1"}),
    ("repetition_penalty", "at least 0.01", {"repetition_penalty": 0}),
    ("repetition_penalty", "at least 0.01", {"repetition_penalty": 1e-300}),
    ("top_k", "at most 1024", {"top_k": 5000}),
    ("min_p", "engine's contract", {"min_p": 0.1}),
    ("ignore_eos", "true or false", {"ignore_eos": 123}),
    ("min_tokens", "at least 0", {"min_tokens": -1}),
    ("bad_words[0]", "empty", {"bad_words": [""]}),
    ("continue_final_message", "assistant's", {"continue_final_message": True}),
    ("chat_template", "Unknown field", {"chat_template": "{{ 7 * 7 }}"}),
    ("temperature", "must be a number", {"temperature": "0.5"}),
    ("temperature", "must be a number", {"temperature": True}),
    ("temperature", "at most 2", {"temperature": 2.01}),
    ("temperature", "at least 0", {"temperature": -1}),
    ("top_p", "at most 1", {"top_p": 1.5}),
    ("max_tokens", "at least 1; got 0", {"max_tokens": 0}),
    ("max_tokens", "must be an integer", {"max_tokens": 1.5}),
    ("max_completion_tokens", "must be an integer", {"max_completion_tokens": "9"}),
    ("seed", "at most 9223372036854775807", {"seed": 2**63}),
    ("stop", "a string or a list", {"stop": 5}),
    ("stop", "up to 4", {"stop": ["a", "b", "c", "d", "e"]}),
    ("stop[1]", "empty", {"stop": ["a", ""]}),
    ("stop[0]", "at most 1024", {"stop": ["x" * 1025]}),
    ("stream", "true or false", {"stream": "true"}),
    ("stream_options", "only allowed when 'stream'", {"stream_options": {"include_usage": True}}),
    ("stream_options.more", "Unknown field", {"stream": True, "stream_options": {"more": 1}}),
    ("tools[0].function", "Missing", {"tools": [{"type": "function"}]}),
    ("functions", "replaced", {"functions": [{"name": "f"}]}),
    ("response_format", "must be an object", {"response_format": "json"}),
]


@pytest.mark.parametrize(("param", "message", "changes"), CHAT_FAULTS)
def test_chat_names_the_field_at_fault(param: str, message: str, changes: dict[str, Any]) -> None:
    with pytest.raises(OpenAIError) as caught:
        parse("chat/completions", chat(**changes))
    assert (caught.value.status, caught.value.param) == (400, param)
    assert message in caught.value.message
    assert param in caught.value.message


COMPLETION_FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("prompt", "at most 1024", {"prompt": ["a"] * 2000}),
    ("best_of", "at least 'n'", {"best_of": 1, "n": 2}),
    ("best_of", "'stream' is false", {"best_of": 2, "stream": True}),
    ("max_tokens", "at least 1", {"max_tokens": 0}),
    ("logprobs", "at most 5", {"logprobs": 6}),
    ("prompt", "Missing", {"prompt": None}),
    ("prompt", "a string, a list of strings or a list of token ids", {"prompt": 5}),
    ("prompt[1]", "must be a string", {"prompt": ["a", 1]}),
    ("messages", "Unknown field", {"messages": USER}),
    ("max_completion_tokens", "Unknown field", {"max_completion_tokens": 5}),
]


@pytest.mark.parametrize(("param", "message", "changes"), COMPLETION_FAULTS)
def test_completions_name_the_field_at_fault(param: str, message: str, changes: dict[str, Any]) -> None:
    with pytest.raises(OpenAIError) as caught:
        parse("completions", completion(**changes))
    assert (caught.value.status, caught.value.param) == (400, param)
    assert message in caught.value.message


@pytest.mark.parametrize("name", sorted(set(fields.CHAT) - {"model", "messages"}))
def test_null_means_absent(name: str) -> None:
    assert parse("chat/completions", chat(**{name: None})) == parse("chat/completions", chat())


@pytest.mark.parametrize("depth", [10, 300, 900])
def test_deep_values_are_refused_like_others(depth: int) -> None:
    raw = b'{"model": "m", "prompt": ' + b"[" * depth + b"1" + b"]" * depth + b"}"
    with pytest.raises(OpenAIError) as caught:
        parse("completions", decode(raw))
    assert caught.value.status == 400


NEUTRAL = [(name, value) for name, field in fields.CHAT.items() for value in field.neutral]


@pytest.mark.parametrize(("name", "value"), NEUTRAL)
def test_a_refused_field_may_ask_for_nothing(name: str, value: Any) -> None:
    assert parse("chat/completions", chat(**{name: value})) == parse("chat/completions", chat())


ACCEPTED = [name for name, field in fields.CHAT.items() if field.use == "accepted"]


@pytest.mark.parametrize("name", ACCEPTED)
def test_bookkeeping_is_accepted(name: str) -> None:
    assert parse("chat/completions", chat(**{name: "anything"})) == parse("chat/completions", chat())


def test_defaults_are_openais() -> None:
    body = parse("chat/completions", chat())
    assert isinstance(body, ChatBody)
    assert (body.temperature, body.top_p, body.max_tokens, body.stream, body.stops) == (1.0, 1.0, None, False, ())


def test_messages_that_sdks_send_back_are_taken() -> None:
    answer = {"role": "assistant", "content": "a", "refusal": None, "annotations": [], "audio": None,
              "function_call": None, "tool_calls": None, "provider_specific_fields": {"x": 1}}  # fmt: skip
    called = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}", "parsed_arguments": {}}}
    parsed = {"role": "assistant", "content": [], "parsed": {"a": 1}, "tool_calls": [called]}
    parse("chat/completions", chat(messages=[*USER, parsed, {"role": "tool", "tool_call_id": "c1", "content": "x"}]))
    body = parse("chat/completions", chat(messages=[*USER, answer, *USER]))
    assert isinstance(body, ChatBody)
    assert [message.text for message in body.messages] == ["hi", "a", "hi"]


def test_text_parts_are_joined_by_newlines() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = parse("chat/completions", chat(messages=[{"role": "user", "content": parts}]))
    assert isinstance(body, ChatBody)
    assert body.messages[0].text == "a\nb"


@pytest.mark.parametrize("prompt", ["a", ["a"], [1, 2], [[1, 2]]])
def test_forms_of_a_prompt(prompt: Any) -> None:
    body = parse("completions", completion(prompt=prompt))
    assert isinstance(body, CompletionBody)
    assert body.prompt == prompt


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70).filter(lambda n: -(2**63) <= n < 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(fields.CHAT)) | st.text(max_size=5), json_values, max_size=4))
def test_any_json_is_understood_or_refused(changes: dict[str, Any]) -> None:
    try:
        parse("chat/completions", chat(**changes))
    except OpenAIError as error:
        assert error.status == 400
        assert len(error.message) < 400
