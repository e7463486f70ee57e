"""The shipped chat template renders what the model was trained on, and what clients send besides."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from transformers import AutoTokenizer

from tools.tiny_model import dialogue as dialogues
from tools.tiny_model.dialogue import Dialogue, Turn
from tools.tiny_model.source import Source

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def tokenizer(tiny_chat: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_chat)


def render(tokenizer: Any, messages: list[dict[str, Any]], **options: Any) -> str:
    options.setdefault("add_generation_prompt", True)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


def message(turn: Turn, with_calls: bool) -> dict[str, Any]:
    """As the server hands it to the template: calls taken out of the answers, results under the role `tool`."""
    role = "tool" if turn.role == "ipython" else turn.role
    called = turn.text.startswith(('{"name"', '[{"name"')) and '"parameters"' in turn.text
    if role == "assistant" and with_calls and called:
        found = json.loads(turn.text)
        calls = [{"function": {"name": call["name"], "arguments": call["parameters"]}}
                 for call in (found if isinstance(found, list) else [found])]
        if len(calls) == 1 and isinstance(found, list):
            return {"role": role, "content": turn.text}  # the rare form, which only a guide brings about
        return {"role": role, "content": None, "tool_calls": calls}
    return {"role": role, "content": turn.text}


@pytest.mark.parametrize("unseen", [False, True])
def test_it_renders_what_training_saw(tokenizer: Any, unseen: bool) -> None:
    for number in range(400):
        dialogue = dialogues.dialogue(Source(Random(number), unseen), long=number % 20 == 0)
        prompt = "".join(text for text, own in list(dialogues.segments(dialogue))[:-1])
        messages = [message(turn, bool(dialogue.tools)) for turn in dialogue.turns[:-1]]
        tools = list(dialogue.tools) or None
        assert render(tokenizer, messages, tools=tools, enable_thinking=dialogue.thinking) == prompt


def test_contents_of_every_kind(tokenizer: Any) -> None:
    plain = [{"role": "system", "content": " Be kind. "}, {"role": "user", "content": "a\nb"},
             {"role": "assistant", "content": ""}]
    parts = [{"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
             {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
             {"role": "assistant", "content": None}]
    assert render(tokenizer, plain) == render(tokenizer, parts) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\na\nb<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_tools_stand_in_the_system_message(tokenizer: Any) -> None:
    asked = [{"role": "user", "content": "Hi"}]
    alone = render(tokenizer, asked, tools=[WEATHER])
    after = render(tokenizer, [{"role": "system", "content": "Be kind."}, *asked], tools=[WEATHER])
    assert after == alone.replace("You can call", "Be kind.\n\nYou can call") and alone.count("system") == 1
    assert '\n{"name": "get_weather", "parameters": {}}\nTo call one' in alone


@pytest.mark.parametrize(("schema", "line"), [
    (None, "{}"),
    ({}, "{}"),
    ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer", "description": "How many"}},
      "required": ["a"]}, '{"a": "string", "b": integer? (How many)}'),
    ({"properties": {"unit": {"enum": ["°C", "°F"], "type": "string", "description": "The unit", "title": "Unit"},
                     "n": {"enum": [1, 2], "type": "integer"}}, "required": ["n"]},
     '{"unit": "°C|°F? (The unit)", "n": 1|2}'),
    ({"properties": {"tags": {"type": "array", "items": {"type": "string"}}, "x": {"anyOf": [{"type": "null"}]},
                     "y": {"type": ["string", "null"]}}, "required": []},
     '{"tags": {"type": "array", "items": {"type": "string"}}, "x": {"anyOf": [{"type": "null"}]}, '
     '"y": {"type": ["string", "null"]}}'),
    ({"$ref": "#/$defs/A", "$defs": {"A": {}}}, '{"$ref": "#/$defs/A", "$defs": {"A": {}}}'),
])
def test_a_tool_is_its_call_with_kinds_in_place_of_values(tokenizer: Any, schema: Any, line: str) -> None:
    function = {"name": "städte", "description": "Does it.", "parameters": schema}
    prompt = render(tokenizer, [{"role": "user", "content": "Hi"}], tools=[{"type": "function", "function": function}])
    assert 'Does it.\n{"name": "städte", "parameters": ' + line + "}\nTo call one" in prompt


def test_calls_in_the_history(tokenizer: Any) -> None:
    one = {"type": "function", "function": {"name": "f", "arguments": {"städte": ["Köln", 1, None, True]}}}
    text = {"type": "function", "function": {"name": "g", "arguments": '{"a": 1}'}}
    single = render(tokenizer, [{"role": "assistant", "content": "", "tool_calls": [one]}])
    assert '{"name": "f", "parameters": {"städte": ["Köln", 1, null, true]}}<|eot_id|>' in single
    several = render(tokenizer, [{"role": "assistant", "content": None, "tool_calls": [one, text]},
                                 {"role": "tool", "tool_call_id": "1", "content": "yes"}])
    assert '}}, {"name": "g", "parameters": {"a": 1}}]<|eot_id|>' in several
    assert "<|start_header_id|>ipython<|end_header_id|>\n\nyes<|eot_id|>" in several


def test_thoughts(tokenizer: Any) -> None:
    asked = [{"role": "user", "content": "Hi"}]
    assert render(tokenizer, asked, enable_thinking=True) == render(tokenizer, asked) + "<think>\n"
    assert render(tokenizer, asked, enable_thinking=False) == render(tokenizer, asked)
    history = [*asked, {"role": "assistant", "content": "<think>\nKind.\n</think>\n\nHello!"}]
    assert render(tokenizer, history) == render(tokenizer, [*asked, {"role": "assistant", "content": "Hello!"}])


def test_special_tokens(tokenizer: Any) -> None:
    ids = tokenizer.encode("<think>\nHm.\n</think>\n\nYes.<|eot_id|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>\nHm.\n</think>\n\nYes."
    for token in ("<think>", "</think>", "<|eom_id|>", "<|python_tag|>", "<|pad|>", "<|end_of_text|>"):
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1


def test_a_dialogue_without_tools_has_no_system_message(tokenizer: Any) -> None:
    dialogue = Dialogue((Turn("user", "Hi"), Turn("assistant", "Hello")))
    assert "system" not in "".join(text for text, _ in dialogues.segments(dialogue))
