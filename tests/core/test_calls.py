"""Answers that think and call tools: streamed and whole ones say the same, whatever the grouping of the tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from postprocessing.answer import Answer
from postprocessing.events import Event, Status
from postprocessing.reasoning import STYLES
from postprocessing.tool_calls.families import FAMILIES
from postprocessing.vocabulary import Vocabulary
from preprocessing import tokenizer as tokenizers
from preprocessing.generation import prepare
from preprocessing.model import Model
from tests.core import vocabularies
from tests.core.test_answer import IDENTITY, events

SPECIAL = ("[TOOL_CALLS]", "<|python_tag|>", "<|silent|>")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("get_weather", "get_time")
]
ONE = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich {\\"x\\"} 🎉"}}\n</tool_call>'
TWO = ONE + '\n<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
THOUGHT = "<think>\nLet me see.\n</think>\n\n"
WEATHER = ("get_weather", {"city": 'Zürich {"x"} 🎉'})
TIME: tuple[str, Any] = ("get_time", {})


@pytest.fixture(scope="module")
def model() -> Model:
    """A model that has some special tokens more than the others."""
    backend = Tokenizer.from_str(vocabularies.tokenizer("byte-level").to_str())
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|end|>", chat_template=vocabularies.CHAT_TEMPLATE
    )
    return Model("m", tokenizers.Tokenizer(fast, [3]), 4000, 1700000000, tools=FAMILIES["hermes"],
                 reasoning=STYLES["think"])  # fmt: skip


def answer(model: Model, **changes: Any) -> Answer:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": TOOLS} | changes
    generation = prepare("chat/completions", body, model, seed=1)
    return Answer(generation, model.tokenizer, Vocabulary(model.tokenizer.backend), IDENTITY)


def tokens(model: Model, text: str) -> list[int]:
    return model.tokenizer.encode(text, add_special_tokens=False)


def feed(made: Answer, texts: list[list[int]], cuts: list[int], status: Status = Status.END_ID) -> bytes:
    """Runs the sequences side by side, in groups that end at the cuts."""
    out = made.open()
    longest = max(map(len, texts))
    edges = sorted({cut % (longest + 1) for cut in cuts} | {0, longest})
    for begin, end in zip(edges, edges[1:], strict=False):
        for number, ids in enumerate(texts):
            if end < longest and not made.done:
                out += made.push(Event(ids[begin:end], sequence=number, log_probs=[-1.0] * len(ids[begin:end])))
    for number, ids in enumerate(texts):
        rest = ids[edges[-2] :]
        out += made.push(Event(rest, status, sequence=number, log_probs=[-1.0] * len(rest)))
    assert made.done
    return out


def said(stream: bytes) -> dict[str, Any]:
    """What the chunks of a one-choice stream add up to, in the shape of a message; checks what clients rely on."""
    found: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    for chunk in events(stream):
        ChatCompletionChunk.model_validate(chunk, strict=True)
        for choice in chunk["choices"]:
            delta = choice["delta"]
            found["content"] += delta.get("content") or ""
            found["reasoning_content"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    assert call["index"] == len(found["tool_calls"]) and call["type"] == "function"
                    found["tool_calls"].append({"name": call["function"]["name"], "arguments": ""})
                else:
                    assert set(call) == {"index", "function"} and set(call["function"]) == {"arguments"}
                found["tool_calls"][call["index"]]["arguments"] += call["function"]["arguments"]
            found["finish_reason"] = choice["finish_reason"] or found.get("finish_reason")
    return found


def whole(body: bytes) -> dict[str, Any]:
    """The same of a whole answer."""
    ChatCompletion.model_validate(json.loads(body), strict=True)
    (choice,) = json.loads(body)["choices"]
    message = choice["message"]
    calls = [call["function"] for call in message.get("tool_calls", ())]
    assert not calls or message["content"] != ""
    return {
        "content": message["content"] or "",
        "reasoning_content": message.get("reasoning_content", ""),
        "tool_calls": calls,
        "finish_reason": choice["finish_reason"],
    }


def calls(found: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(call["name"], json.loads(call["arguments"])) for call in found["tool_calls"]]


CASES: list[tuple[str, dict[str, Any], str, str, list[tuple[str, Any]], str]] = [
    (ONE, {}, "", "", [WEATHER], "tool_calls"),
    (TWO, {}, "", "", [WEATHER, TIME], "tool_calls"),
    (TWO, {"parallel_tool_calls": False}, "", "", [WEATHER], "tool_calls"),
    (THOUGHT + "So:\n" + ONE + "\nDone.", {}, "So:\n\nDone.", "Let me see.", [WEATHER], "tool_calls"),
    (THOUGHT + ONE, {"include_reasoning": False}, "", "", [WEATHER], "tool_calls"),
    (THOUGHT + "Just text.", {}, "Just text.", "Let me see.", [], "stop"),
    ("A <tool_call of text", {}, "A <tool_call of text", "", [], "stop"),
    (ONE, {"tool_choice": "none"}, ONE, "", [], "stop"),
    (ONE, {"tools": []}, ONE, "", [], "stop"),
    ("Well" + ONE, {"stop": "Zür"}, "Well", "", [], "stop"),
    ('{"city": "Rom"}', {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}, "", "",
     [("get_weather", {"city": "Rom"})], "stop"),
    ('[{"name": "get_weather", "arguments": {"city": "a"}}, {"name":"get_time","arguments":{}}]',
     {"tool_choice": "required"}, "", "", [("get_weather", {"city": "a"}), TIME], "tool_calls"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[str(at) for at in range(len(CASES))])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(0, 300), max_size=40))
def test_streamed_and_whole_answers_agree(model: Model, case: Any, cuts: list[int]) -> None:
    text, changes, content, reasoning, expected, reason = case
    ids = tokens(model, text)
    streamed = said(feed(answer(model, stream=True, **changes), [ids], cuts))
    assert streamed == whole(feed(answer(model, **changes), [ids], cuts))
    if "stop" in changes:  # cut in the middle of the arguments: no call that could be made
        assert streamed["tool_calls"] == [{"name": "get_weather", "arguments": '{"city": "'}]
        assert streamed["finish_reason"] == "stop"
        return
    assert (streamed["content"], streamed["reasoning_content"]) == (content, reasoning)
    assert (calls(streamed), streamed["finish_reason"]) == (expected, reason)


def test_arguments_come_as_they_are_written(model: Model) -> None:
    ids = tokens(model, ONE)
    made = answer(model, stream=True)
    made.open()
    chunks = [made.push(Event([token])) for token in ids]
    assert sum(b'"arguments"' in chunk for chunk in chunks) > 8


def test_a_cut_answer_ends_for_its_length(model: Model) -> None:
    ids = tokens(model, ONE)[:-12]
    found = said(feed(answer(model, stream=True), [ids], [1, 2, 3], Status.LENGTH))
    assert found["finish_reason"] == "length" and found["tool_calls"][0]["arguments"].startswith('{"city": "Z')


def test_special_tokens_are_seen_by_the_reader_and_by_nobody_else(model: Model) -> None:
    mistral = replace(model, tools=FAMILIES["mistral"], reasoning=None)
    ids = tokens(model, 'Hm<|silent|>m[TOOL_CALLS][{"name": "get_time", "arguments": {}}]')
    found = said(feed(answer(mistral, stream=True), [ids], [1, 5]))
    assert (found["content"], calls(found)) == ("Hmm", [TIME])
    plain = said(feed(answer(mistral, stream=True, tools=[]), [ids], [1, 5]))
    assert plain["content"] == 'Hmm[{"name": "get_time", "arguments": {}}]'


def test_tokens_of_thoughts_are_counted(model: Model) -> None:
    thought, rest = tokens(model, "<think>\nLet me see.\n</think>"), tokens(model, "\n\nYes.")
    usage = json.loads(feed(answer(model), [thought + rest], list(range(99))))["usage"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": len(thought)}
    assert usage["completion_tokens"] == len(thought + rest)
    usage = json.loads(feed(answer(replace(model, reasoning=None)), [rest], []))["usage"]
    assert "completion_tokens_details" not in usage


def test_a_thought_that_the_prompt_opens(model: Model) -> None:
    template = vocabularies.CHAT_TEMPLATE.replace("<|start|>assistant\n", "<|start|>assistant\n<think>\n")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=model.tokenizer.backend, bos_token="<s>", eos_token="<|end|>", chat_template=template
    )
    opening = replace(model, tokenizer=tokenizers.Tokenizer(fast, [3]))
    ids = tokens(model, "I see.\n</think>\n\nYes.")
    found = said(feed(answer(opening, stream=True), [ids], [1, 2, 7]))
    assert (found["reasoning_content"], found["content"]) == ("I see.", "Yes.")


@pytest.mark.parametrize("names", [("reasoning",), ("reasoning_content", "reasoning")])
def test_thoughts_under_other_names(model: Model, names: tuple[str, ...]) -> None:
    named = replace(model, reasoning_fields=names)
    ids = tokens(model, THOUGHT + "Yes.")
    chunks = events(feed(answer(named, stream=True), [ids], [3]))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    message = json.loads(feed(answer(named), [ids], []))["choices"][0]["message"]
    for name in names:
        assert "".join(delta.get(name, "") for delta in deltas) == message[name] == "Let me see."
    assert set(message) == {"role", "content", "refusal", *names}


def test_several_choices_each_with_their_own_calls(model: Model) -> None:
    texts = [tokens(model, ONE), tokens(model, THOUGHT + "Hello"), tokens(model, TWO)]
    body = json.loads(feed(answer(model, n=3), texts, [4, 9]))
    assert [choice["finish_reason"] for choice in body["choices"]] == ["tool_calls", "stop", "tool_calls"]
    numbers = [len(choice["message"].get("tool_calls", ())) for choice in body["choices"]]
    assert numbers == [1, 0, 2]
    ids = [call["id"] for choice in body["choices"] for call in choice["message"].get("tool_calls", ())]
    assert len(set(ids)) == 3
    chunks = events(feed(answer(model, n=3, stream=True), texts, [4, 9]))
    begun = [choice["index"] for chunk in chunks for choice in chunk["choices"]
             if any("id" in call for call in choice["delta"].get("tool_calls", ()))]  # fmt: skip
    assert sorted(begun) == [0, 2, 2]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 300), max_size=40))
def test_no_log_prob_is_lost(model: Model, cuts: list[int]) -> None:
    ids = tokens(model, THOUGHT + "So " + TWO)
    chunks = events(feed(answer(model, stream=True, logprobs=True), [ids], cuts))
    told = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]]
    names = [entry["token"] for each in told for entry in each["content"]]
    body = json.loads(feed(answer(model, logprobs=True), [ids], cuts))
    assert names == [entry["token"] for entry in body["choices"][0]["logprobs"]["content"]]
    assert len(names) == len(ids)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [True, False])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, 99), max_size=40))
def test_hidden_thoughts_have_no_log_probs(model: Model, stream: bool, cuts: list[int]) -> None:
    thought, rest = tokens(model, "<think>\nA secret.\n</think>"), tokens(model, "\n\nYes, sir.")
    out = feed(answer(model, stream=stream, logprobs=True, include_reasoning=False), [thought + rest], cuts)
    chunks = events(out) if stream else [json.loads(out)]
    told = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]]
    names = [entry["token"] for each in told for entry in each["content"]]
    assert names == [model.tokenizer.backend.decode([token]) for token in rest]
    assert b"secret" not in out


def test_a_long_whole_answer_is_joined_once(model: Model) -> None:
    ids = tokens(model, "word ") * 60_000
    made = answer(replace(model, max_model_len=300_000, reasoning=None), tools=[])
    for token in ids[:-1]:
        made.push(Event([token]))
    body = json.loads(made.push(Event(ids[-1:], Status.END_ID)))
    assert body["choices"][0]["message"]["content"] == "word " * 60_000
