"""What a request asks of its tools, and the guides that hold the model to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from postprocessing.reasoning import STYLES
from postprocessing.tool_calls.families import FAMILIES
from preprocessing.errors import OpenAIError
from preprocessing.generation import Generation, prepare
from preprocessing.model import Model

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NODE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"node": {"$ref": "#/$defs/Node"}, "again": {"$ref": "#"}, "word": {"enum": [{"$ref": "#/no"}]}},
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
}
TYPES = ("json", "json_schema", "regex", "ebnf_grammar", "structural_tag")


def tool(name: str, parameters: Any = None, **members: Any) -> dict[str, Any]:
    function = {"name": name, "description": f"does {name}", **members}
    return {"type": "function", "function": function | ({"parameters": parameters} if parameters else {})}


WEATHER, TREE = tool("get_weather", CITY), tool("walk", NODE)


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9} | fields


def made(model: Model, **fields: Any) -> Generation:
    roomy = replace(model, max_model_len=100_000, guide_types=TYPES)
    return prepare("chat/completions", request(**fields), roomy, seed=1)


def refusal(model: Model, **fields: Any) -> OpenAIError:
    with pytest.raises(OpenAIError) as caught:
        made(model, **fields)
    assert caught.value.status == 400
    return caught.value


def schema_of(generation: Generation) -> Any:
    assert generation.guide is not None and generation.guide.type == "json_schema" and generation.guide.text
    return json.loads(generation.guide.text)


def accepts(schema: Any, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize("choice", [None, "auto"])
def test_a_free_choice_reads_calls_and_forces_nothing(model: Model, choice: str | None) -> None:
    found = made(model, tools=[WEATHER], tool_choice=choice)
    assert found.guide is None
    assert found.reading.tools == {"get_weather": CITY}
    assert found.reading.forced is None


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": [WEATHER], "tool_choice": "none"},
                                    {"tool_choice": "auto"}, {"tools": [], "tool_choice": "none"}])  # fmt: skip
def test_without_tools_nothing_is_taken_for_a_call(model: Model, fields: Any) -> None:
    family = replace(model, tools=FAMILIES["hermes"])
    assert made(family, **fields).reading.family is None


@pytest.mark.parametrize("choice", ["required", {"type": "allowed_tools", "allowed_tools": {
    "mode": "required", "tools": [{"type": "function", "function": {"name": name}} for name in ("get_weather", "walk")]
}}])  # fmt: skip
def test_a_required_call_may_be_of_any_tool(model: Model, choice: Any) -> None:
    schema = schema_of(made(model, tools=[WEATHER, TREE], tool_choice=choice))
    weather = {"name": "get_weather", "arguments": {"city": "Paris"}}
    walk = {"name": "walk", "arguments": {"node": {"next": {"next": {}}}, "again": {"word": {"$ref": "#/no"}}}}
    assert accepts(schema, weather) and accepts(schema, walk) and accepts(schema, [weather, walk])
    for wrong in (
        {"name": "walk", "arguments": {"node": {"next": 1}}},
        {"name": "walk", "arguments": {"again": 5}},
        {"name": "get_weather", "arguments": {}},
        {"name": "other", "arguments": {}},
        {"name": "get_weather", "arguments": {"city": 5}},
        [], "text", {},
    ):  # fmt: skip
        assert not accepts(schema, wrong), wrong


def test_without_parallel_calls_a_list_is_not_possible(model: Model) -> None:
    generation = made(model, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}
    assert accepts(schema_of(generation), call) and not accepts(schema_of(generation), [call])
    assert generation.reading.only_first


def test_a_family_s_own_word_for_the_arguments(model: Model) -> None:
    llama = replace(model, tools=FAMILIES["llama3_json"])
    schema = schema_of(made(llama, tools=[WEATHER], tool_choice="required"))
    assert accepts(schema, {"name": "get_weather", "parameters": {"city": "Paris"}})


def test_a_named_function_gets_its_arguments_only(model: Model) -> None:
    choice = {"type": "function", "function": {"name": "walk"}}
    generation = made(model, tools=[WEATHER, TREE], tool_choice=choice)
    assert accepts(schema_of(generation), {"node": {"next": {}}})
    assert generation.reading.forced == "walk"


def test_the_allowed_tools_are_all_that_the_model_sees(model: Model) -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "walk"}}]}
    generation = made(model, tools=[WEATHER, TREE], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert list(generation.reading.tools) == ["walk"]


def test_calls_beside_an_answer_of_a_given_form(model: Model) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"],
        "additionalProperties": False, "$defs": {"A": {"type": "integer"}}}}}  # fmt: skip
    schema = schema_of(made(model, tools=[WEATHER], response_format=form))
    assert accepts(schema, {"a": 1}) and accepts(schema, {"name": "get_weather", "arguments": {"city": "x"}})
    assert not accepts(schema, {"a": "1"}) and not accepts(schema, {"city": "x"})
    regex = {"type": "regex", "regex": "a+"}
    assert "regex" in refusal(model, tools=[WEATHER], response_format=regex).message
    # A call that has to come leaves no room for the answer.
    assert not accepts(schema_of(made(model, tools=[WEATHER], tool_choice="required", response_format=form)), {"a": 1})


def test_arguments_are_an_object_even_if_the_schema_does_not_say_so(model: Model) -> None:
    loose = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
    for kind in ({}, {"type": ["object", "null"]}):
        tools = [tool("f", loose | kind)]
        named = {"type": "function", "function": {"name": "f"}}
        assert not accepts(schema_of(made(model, tools=tools, tool_choice=named)), None)
        assert not accepts(schema_of(made(model, tools=tools, tool_choice="required")), {"name": "f", "arguments": 1})


def test_names_of_properties_are_no_keywords(model: Model) -> None:
    schema = {"type": "object", "properties": {"default": {"$ref": "#/$defs/D"}, "$id": {"type": "integer"}},
              "$defs": {"D": {"type": "integer"}}, "additionalProperties": False}  # fmt: skip
    found = schema_of(made(model, tools=[tool("f", schema)], tool_choice="required"))
    assert accepts(found, {"name": "f", "arguments": {"default": 1, "$id": 2}})
    assert not accepts(found, {"name": "f", "arguments": {"default": "1"}})
    assert not accepts(found, {"name": "f", "arguments": {"$id": "1"}})


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_function_without_parameters_has_no_arguments(model: Model, choice: Any) -> None:
    schema = schema_of(made(model, tools=[tool("f")], tool_choice=choice))
    none, some = ({}, {"a": 1}) if choice != "required" else (
        {"name": "f", "arguments": {}}, {"name": "f", "arguments": {"a": 1}})  # fmt: skip
    assert accepts(schema, none) and not accepts(schema, some)


def test_references_by_the_schema_s_own_name(model: Model) -> None:
    schema = {"$id": "https://example.com/x", "type": "object", "additionalProperties": False,
              "properties": {"a": {"$ref": "https://example.com/x#/$defs/D"}, "b": {"$ref": "https://example.com/x"}},
              "$defs": {"D": {"type": "integer"}}}  # fmt: skip
    found = schema_of(made(model, tools=[tool("f", schema)], tool_choice="required"))
    assert accepts(found, {"name": "f", "arguments": {"a": 1, "b": {"b": {}}}})
    assert not accepts(found, {"name": "f", "arguments": {"b": {"a": "1"}}})
    part = {"type": "object", "properties": {"a": {"$id": "https://example.com/y", "$ref": "#/$defs/D"}}}
    assert "$id" in refusal(model, tools=[tool("f", part)], tool_choice="required").message


def test_strict_functions_are_enforced_where_the_engine_can_watch_for_calls(model: Model) -> None:
    hermes = replace(model, tools=FAMILIES["hermes"])
    strict = [tool("get_weather", CITY, strict=True)]
    guide = made(hermes, tools=strict).guide
    assert guide is not None and guide.type == "structural_tag" and guide.text is not None
    document = json.loads(guide.text)
    (structure,) = document["structures"]
    assert '"get_weather"' in structure["begin"] and structure["schema"] == CITY
    assert document["triggers"] == [structure["begin"]]
    assert made(hermes, tools=[WEATHER]).guide is None
    older = replace(hermes, max_model_len=100_000, guide_types=("json_schema",))
    assert prepare("chat/completions", request(tools=strict), older, seed=1).guide is None


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tools": {}}, "tools"),
    ({"tools": [5]}, "tools[0]"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "web_search", "function": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ({"tools": [tool("")]}, "tools[0].function.name"),
    ({"tools": [tool("get weather")]}, "tools[0].function.name"),
    ({"tools": [tool("x" * 129)]}, "tools[0].function.name"),
    ({"tools": [tool("f\n")]}, "tools[0].function.name"),
    ({"tools": [tool("f"), tool("f")]}, "tools[1].function.name"),
    ({"tools": [tool("f", {"type": "string"})]}, "tools[0].function.parameters"),
    ({"tools": [tool("f", {"$ref": "#"})]}, "tools[0].function.parameters"),
    ({"tools": [tool("f", [1])]}, "tools[0].function.parameters"),
    ({"tools": [WEATHER] * 300}, "tools"),
    ({"tools": [tool("f", CITY, description="x" * 2**20)]}, "tools"),
    ({"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": 5}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice.function.name"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "walk"}}}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [], "tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"tools": [WEATHER], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"reasoning_effort": "enormous"}, "reasoning_effort"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=str)
def test_what_is_wrong_is_named(model: Model, fields: dict[str, Any], param: str) -> None:
    assert refusal(model, **fields).param == param


def thinking(model: Model, *guide_types: str, template: str = "<think>\\n\\n</think>\\n\\n") -> Model:
    """A model that thinks, behind an engine that can enforce so much."""
    made = replace(model, max_model_len=100_000, reasoning=STYLES["think"], guide_types=guide_types)
    made.tokenizer.template.source = template
    return made


@pytest.fixture
def source(model: Model) -> Iterator[None]:
    before = model.tokenizer.template.source
    yield
    model.tokenizer.template.source = before


def prompt(model: Model, generation: Generation) -> str:
    return str(model.tokenizer.backend.decode(generation.prompts[0].ids, skip_special_tokens=False))


FORCED = {"tools": [WEATHER], "tool_choice": "required"}


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(("template", "end"), [
    ("<think>\\n\\n</think>\\n\\n", "<think>\n\n</think>\n\n"),
    ("one that only drops old thoughts: </think>", "assistant\n"),
])  # fmt: skip
def test_a_constrained_answer_has_no_thought(model: Model, template: str, end: str) -> None:
    thinker = thinking(model, "json_schema", template=template)
    free = prepare("chat/completions", request(), thinker, seed=1)
    forced = prepare("chat/completions", request(**FORCED), thinker, seed=1)
    assert free.reading.style is STYLES["think"] and forced.reading.style is None
    assert prompt(model, forced).endswith(end)


@pytest.mark.usefixtures("source")
def test_a_constraint_behind_a_thought_where_the_engine_can(model: Model) -> None:
    thinker = thinking(model, "json_schema", "structural_tag")
    forced = prepare("chat/completions", request(**FORCED), thinker, seed=1)
    assert forced.reading.style is STYLES["think"] and not prompt(model, forced).endswith("</think>\n\n")
    assert forced.guide is not None and forced.guide.type == "structural_tag" and forced.guide.text is not None
    thought, _, behind = json.loads(forced.guide.text)["format"]["elements"]
    assert [way.get("begin") for way in thought["elements"]] == [None, "<think>"]
    assert accepts(behind["json_schema"], {"name": "get_weather", "arguments": {"city": "Paris"}})


@pytest.mark.usefixtures("source")
def test_the_client_s_own_beginning_of_an_answer_is_left_alone(model: Model) -> None:
    for said, opened in (("The answer is", False), ("<think>\nLet me", True)):
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": said}]
        asked = request(messages=messages, continue_final_message=True, add_generation_prompt=False)
        generation = prepare("chat/completions", asked, thinking(model), seed=1)
        assert prompt(model, generation).endswith(said) and generation.reading.opened is opened
    forced = request(messages=messages, continue_final_message=True, add_generation_prompt=False, guided_regex="a")
    generation = prepare("chat/completions", forced, thinking(model, "regex"), seed=1)
    assert prompt(model, generation).endswith("Let me\n</think>\n\n")
    silent = request(messages=messages[:1], add_generation_prompt=False, reasoning_effort="none")
    assert prompt(model, prepare("chat/completions", silent, thinking(model), seed=1)).endswith("<|end|>")


@pytest.mark.usefixtures("source")
def test_a_structural_tag_that_holds_from_the_first_token_is_behind_the_thought(model: Model) -> None:
    form = {"type": "structural_tag", "format": {"type": "json_schema", "json_schema": {"type": "object"}}}
    generation = prepare("chat/completions", request(response_format=form), thinking(model, "structural_tag"), seed=1)
    assert generation.guide is not None and generation.guide.text is not None
    assert json.loads(generation.guide.text)["format"]["elements"][-1] == form["format"]
    watching = {"type": "structural_tag", "structures": [], "triggers": ["<"]}
    generation = prepare("chat/completions", request(response_format=watching), thinking(model, "structural_tag"), 1)
    assert generation.guide is not None and json.loads(generation.guide.text or "") == watching


@pytest.mark.usefixtures("source")
def test_no_effort_is_no_thought(model: Model) -> None:
    generation = prepare("chat/completions", request(reasoning_effort="none"), thinking(model), seed=1)
    assert not generation.reading.opened
    assert prompt(model, generation).endswith("</think>\n\n")
