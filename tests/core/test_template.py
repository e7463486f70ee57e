"""Chat templates take messages and tools in many ways; whatever they take, the conversation reaches the prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from postprocessing.tool_calls.families import FAMILIES
from preprocessing.errors import OpenAIError
from preprocessing.messages import Message
from preprocessing.template import ChatTemplate
from preprocessing.tools import Tool
from tests.core import vocabularies

LOOP = "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
END = "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def calls(arguments: str) -> str:
    return "{% for c in m.tool_calls or [] %}<{{ c.function.name }} " + arguments + ">{% endfor %}"


AS_JSON = calls("{{ c.function.arguments | tojson }}")
TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"

TEMPLATES: dict[str, str] = {
    "arguments as objects": TOOLS + LOOP + AS_JSON + END,
    "arguments as text": TOOLS + LOOP + calls("{{ '' + c.function.arguments }}") + END,
    "null content": TOOLS
    + "{% for m in messages %}{% if m.content is none %}"
    + AS_JSON
    + "{% else %}[{{ m.role }}]{{ '' + m.content }}{% endif %}"
    + END,
    "one call at a time": TOOLS
    + LOOP
    + "{% if m.tool_calls and m.tool_calls | length != 1 %}{{ raise_exception('one call only') }}{% endif %}"
    + AS_JSON
    + END,
    "parts": TOOLS
    + "{% for m in messages %}[{{ m.role }}]{% for p in m.content or [] %}{% if p.text is defined %}{{ p.text }}"
    + "{% endif %}{% endfor %}"
    + AS_JSON
    + END,
    "no tools": LOOP + AS_JSON + END,
    "no calls": LOOP + END,
    "turns only": "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    + "{{ raise_exception('take turns') }}{% endif %}[{{ m.role }}]{{ m.content }}"
    + END,
    "tools in the system message": "{% for m in messages %}[{{ m.role }}]"
    + "{% if m.tools is defined %}{{ m.tools }}{% endif %}{{ m.content }}"
    + AS_JSON
    + END,
    "only the first call": TOOLS
    + LOOP
    + "{% if m.tool_calls %}{% set c = m.tool_calls[0] %}<{{ c.function.name }} {{ c.function.arguments | tojson }}>"
    + "{% endif %}"
    + END,
    "tools required": "{{ tools | length }}{{ tools | tojson }}" + LOOP + calls("{{ c.function.arguments }}") + END,
}
TOOL = Tool.model_validate({"type": "function", "function": {"name": "get_weather", "description": "the weather"}})


def template(source: str) -> ChatTemplate:
    fast = PreTrainedTokenizerFast(tokenizer_object=vocabularies.tokenizer("byte-level"), chat_template=source)
    return ChatTemplate(fast)


def call(name: str, city: str) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
    return {"id": name, "type": "function", "function": function}


def messages(*entries: dict[str, Any]) -> list[Message]:
    return [Message.model_validate(entry) for entry in entries]


CONVERSATION = messages(
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Paris?"}, {"type": "text", "text": "Rome?"}]},
    {"role": "assistant", "content": None, "tool_calls": [call("c1", "Paris"), call("c2", "Rome")]},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    {"role": "tool", "tool_call_id": "c2", "content": "rainy"},
    {"role": "assistant", "content": "Sun and rain."},
    {"role": "user", "content": "Thanks."},
)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_conversation_with_calls_reaches_the_prompt(name: str) -> None:
    text = template(TEMPLATES[name]).render(CONVERSATION, tools=[TOOL])
    order = ["Be kind.", "Paris?", "Rome?", "sunny", "rainy", "Sun and rain.", "Thanks."]
    places = [text.index(said) for said in order]
    if name not in ("one call at a time", "only the first call"):
        assert places == sorted(places)
    assert text.count('{"city": "Paris"}') == text.count('{"city": "Rome"}') == 1
    assert "the weather" in text and "None" not in text
    assert text.endswith("[assistant]")


@pytest.mark.parametrize("name", ["one call at a time", "only the first call"])
def test_each_result_follows_its_call_where_one_is_allowed_at_a_time(name: str) -> None:
    text = template(TEMPLATES[name]).render(CONVERSATION)
    order = [text.index(said) for said in ("Paris\"}", "sunny", "Rome\"}", "rainy", "Sun and rain.")]
    assert order == sorted(order)


@pytest.mark.parametrize(("name", "takes"), [
    ("arguments as objects", True), ("tools in the system message", True), ("no tools", False),
])
def test_whether_a_template_lists_tools(name: str, takes: bool) -> None:
    found = template(TEMPLATES[name])
    assert found.takes_tools is takes
    assert ("You can call these functions" in found.render(CONVERSATION, tools=[TOOL])) is not takes
    assert "You can call" not in found.render(CONVERSATION)


def test_ids_that_mistral_s_templates_refuse_are_shortened() -> None:
    source = (
        LOOP
        + "{% for c in m.tool_calls or [] %}[TOOL_CALLS]{{ c.function | tojson }}"
        + "{% if c.id | length != 9 %}{{ raise_exception('nine characters') }}{% endif %}{{ c.id }}{% endfor %}"
        + "{% if m.role == 'tool' %}{{ m.tool_call_id }}{% endif %}"
        + END
    )
    text = template(source).render(CONVERSATION[:4] + CONVERSATION[5:])
    assert "c1" not in text and "sunny" in text
    kept = messages(
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [call("abcDEF123", "Paris")]},
        {"role": "tool", "tool_call_id": "abcDEF123", "content": "sunny"},
    )
    assert template(source).render(kept).count("abcDEF123") == 2


def test_thoughts_reach_templates_that_ask_for_them() -> None:
    source = "{% for m in messages %}{{ m.reasoning_content or '' }}|{{ m.content }}{% endfor %}"
    for name in ("reasoning_content", "reasoning"):
        said = {"role": "assistant", "content": "b", name: "a thought"}
        assert template(source).render(messages({"role": "user", "content": "a"}, said)) == "|aa thought|b"


def test_a_template_that_refuses_says_why() -> None:
    source = "{% if messages | length > 1 %}{{ raise_exception('too long') }}{% endif %}{{ messages[0].content }}"
    with pytest.raises(OpenAIError, match="too long"):
        template(source).render(CONVERSATION)


@pytest.mark.parametrize("name", ["one call at a time", "no calls", "arguments as objects"])
def test_ids_that_come_again_in_later_turns(name: str) -> None:
    turn = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": None, "tool_calls": [call("c1", "Paris"), call("c2", "Rome")]},
    ]
    results = [
        [{"role": "tool", "tool_call_id": f"c{n}", "content": f"{city} {at}"} for n, city in ((1, "A"), (2, "B"))]
        for at in (1, 2)
    ]
    text = template(TEMPLATES[name]).render(messages(*turn, *results[0], *turn, *results[1]))
    places = [text.index(said) for said in ("A 1", "B 1", "A 2", "B 2")]
    assert places == sorted(places)


def test_arguments_that_are_nested_too_deep_are_the_client_s_fault() -> None:
    deep = "[" * 1000 + "]" * 1000
    function = {"name": "f", "arguments": deep}
    said = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    for name in ("no calls", "arguments as objects"):
        with pytest.raises(OpenAIError, match="cannot render"):
            template(TEMPLATES[name]).render(messages({"role": "user", "content": "x"}, said))


def test_a_template_that_only_knows_calls_has_them_asked_for_in_its_own_way() -> None:
    tag = FAMILIES["deepseek_v31"].tag
    text = template(TEMPLATES["no tools"]).render(CONVERSATION, tools=[TOOL], call=tag)
    assert "<｜tool▁call▁begin｜><its name><｜tool▁sep｜>{<its arguments>}<｜tool▁call▁end｜>" in text
