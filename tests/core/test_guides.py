"""Constraints of the output: every way to say one, and everything that is wrong with one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from preprocessing.errors import OpenAIError
from preprocessing.guides import Guide, guide
from preprocessing.model import Model
from preprocessing.tensors import submissions
from tests.core.test_generation import chat, completion

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


COMPACT = json.dumps(SCHEMA, separators=(",", ":"))


def openai_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


WAYS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"response_format": {"type": "json_object"}}, "json", None),
    ({"response_format": openai_format(SCHEMA)}, "json_schema", COMPACT),
    ({"structured_outputs": {"json": SCHEMA}}, "json_schema", COMPACT),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, "json_schema", COMPACT),
    ({"guided_json": SCHEMA}, "json_schema", COMPACT),
    ({"response_format": {"type": "regex", "regex": "a+"}}, "regex", "a+"),
    ({"guided_regex": "a+"}, "regex", "a+"),
    ({"structured_outputs": {"choice": ["a.b", "c d"]}}, "regex", r"(?:a\.b|c d)"),
    ({"guided_choice": ["yes", "no"]}, "regex", "(?:yes|no)"),
    ({"response_format": {"type": "ebnf", "ebnf": 'root ::= "a"'}}, "ebnf_grammar", 'root ::= "a"'),
    ({"guided_grammar": 'root ::= "a"'}, "ebnf_grammar", 'root ::= "a"'),
]


@pytest.mark.parametrize(("fields", "kind", "text"), WAYS)
def test_ways_to_constrain(model: Model, fields: dict[str, Any], kind: str, text: str | None) -> None:
    for make in (chat, completion):
        found = make(model, **fields)
        assert found.guide == Guide(kind, text)
        tensors = submissions(found, 600)[0].tensors
        assert tensors["guided_decoding_guide_type"].tolist() == [[kind.encode()]]
        assert ("guided_decoding_guide" in tensors) == (text is not None)


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "text"}}, {"structured_outputs": {}}])
def test_no_constraint(model: Model, fields: dict[str, Any]) -> None:
    found = chat(model, **fields)
    assert found.guide is None
    assert "guided_decoding_guide_type" not in submissions(found, 600)[0].tensors


def deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        found = {"type": "object", "properties": {"a": found}}
    return found


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"response_format": {}}, "response_format.type", "must be one of"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "must be one of"),
    ({"response_format": {"type": ["text"]}}, "response_format.type", "must be one of"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "an object"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name", "a string"),
    ({"response_format": openai_format([])}, "response_format.json_schema.schema", "an object"),
    ({"response_format": openai_format({"$ref": "#"})}, "response_format.json_schema.schema", "back to itself"),
    ({"response_format": openai_format(deep(60))}, "response_format.json_schema.schema", "nested more than"),
    ({"guided_json": "{"}, "guided_json", "not valid JSON"),
    ({"guided_json": {"enum": ["x" * 300_000]}}, "guided_json", "bytes"),
    ({"guided_regex": "a\\"}, "guided_regex", "lone backslash"),
    ({"guided_regex": ""}, "guided_regex", "empty"),
    ({"guided_regex": 5}, "guided_regex", "a string"),
    ({"guided_choice": []}, "guided_choice", "not empty"),
    ({"guided_choice": ["a"] * 5000}, "guided_choice", "at most 1024"),
    ({"structured_outputs": {"xml": 1}}, "structured_outputs.xml", "Unknown"),
    ({"guided_json": SCHEMA, "guided_regex": "a"}, "guided_regex", "Only one"),
    ({"guided_json": SCHEMA, "response_format": {"type": "json_object"}}, "guided_json", "Only one"),
]


@pytest.mark.parametrize(("fields", "param", "match"), FAULTS)
def test_constraints_that_cannot_work(model: Model, fields: dict[str, Any], param: str, match: str) -> None:
    with pytest.raises(OpenAIError, match=match) as caught:
        chat(model, **fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert len(caught.value.message) < 600


def test_references_that_go_round_together() -> None:
    around = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    with pytest.raises(OpenAIError, match="back to itself"):
        guide(openai_format(around), None, {})
    tree = {"$defs": {"t": {"type": "object", "properties": {"next": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"}
    assert guide(openai_format(tree), None, {}) is not None


def test_an_engine_that_cannot_is_not_asked(model: Model) -> None:
    plain = replace(model, guide_types=())
    with pytest.raises(OpenAIError, match="cannot enforce"):
        chat(plain, response_format={"type": "json_object"})


def test_choices_are_taken_literally(model: Model) -> None:
    words = ["a+b", "(c)", "d|e", "f\\g", "h.i", "[j]", "k{2}", "^l$", "m/n", "o-p", "é 🎉"]
    found = chat(model, guided_choice=words).guide
    assert found is not None and found.text is not None
    assert all(re.fullmatch(found.text, word) for word in words)
    assert not re.fullmatch(found.text, "aab")


def test_chains_of_references_are_followed_once() -> None:
    chain: dict[str, Any] = {f"a{at}": {"$ref": f"#/$defs/a{at + 1}"} for at in range(7000)}
    schema = {"$defs": chain | {"a7000": {"type": "integer"}}}
    found = guide(None, {"json": schema}, {})
    assert found is not None


def test_a_json_document_in_a_string_that_is_nested_too_deep() -> None:
    with pytest.raises(OpenAIError) as caught:
        guide(None, None, {"json": "[" * 100_000})
    assert caught.value.status == 400


@pytest.mark.parametrize(("wrong", "field"), [
    ({"type": "json_schema", "json_schema": {"name": "x", "schema_": SCHEMA}}, "response_format.json_schema.schema_"),
    ({"type": "text", "json_schema": {}}, "response_format.json_schema"),
    ({"type": "json_object", "shema": {}}, "response_format.shema"),
    ({"type": "regex", "regex": "a", "flags": "i"}, "response_format.flags"),
])  # fmt: skip
def test_a_constraint_that_is_misspelt_is_none(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(OpenAIError) as caught:
        guide(wrong, None, {})
    assert (caught.value.status, caught.value.param) == (400, field)


def test_a_json_object_with_a_schema() -> None:
    assert guide({"type": "json_object", "schema": SCHEMA}, None, {}) == Guide("json_schema", COMPACT)
