"""Parameters that are plain text, as JSON of the types that the function's schema has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprocessing.reader import CallArguments, CallOpened, Content, merged
from postprocessing.tool_calls.qwen3_coder import VALUE_ENDS, Qwen3Coder, parameter_types

NESTED: dict[str, Any] = {"type": "string"}
for _ in range(500):
    NESTED = {"allOf": [NESTED]}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "string": {"type": "string"},
        "integer": {"type": "integer"},
        "number": {"type": "number"},
        "boolean": {"type": "boolean"},
        "null": {"type": "null"},
        "array": {"type": "array"},
        "object": {"type": "object"},
        "optional": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "optional_integer": {"type": ["integer", "null"]},
        "either": {"oneOf": [{"type": "string"}, {"type": "number"}]},
        "colour": {"enum": ["red", "green"]},
        "seven": {"const": 7},
        "referred": {"$ref": "#/$defs/Point"},
        "circle": {"$ref": "#/$defs/Circle"},
        "nowhere": {"$ref": "#/$defs/Nothing/at/all"},
        "all": {"allOf": [{"type": "string"}, {"minLength": 3}]},
        "all_numbers": {"allOf": [{"type": ["number", "string", "null"]}, {"type": ["integer", "string"]}, {}]},
        "typed_alternatives": {"type": "string", "anyOf": [{"minLength": 1}, {"const": 5}]},
        "referred_string": {"$ref": "#/$defs/Point", "type": ["object", "string"]},
        "twice": {"oneOf": [{"$ref": "#/$defs/Text"}, {"allOf": [{"$ref": "#/$defs/Text"}]}]},
        "pointer": {"$ref": "#/$defs/a~1b%20~0c/anyOf/1"},
        "beyond": {"$ref": "#/$defs/a~1b%20~0c/anyOf/2"},
        "no_index": {"$ref": "#/$defs/a~1b%20~0c/anyOf/01"},
        "long_index": {"$ref": "#/$defs/a~1b%20~0c/anyOf/" + "9" * 5000},
        "an_anchor": {"$ref": "#Text"},
        "elsewhere": {"$ref": "https://example.org/#/$defs/Text"},
        "root": {"$ref": "#"},
        "far": {"$ref": "#/$defs/0"},
        "near": {"$ref": "#/$defs/1950"},
        "deep": NESTED,
        "wide": {"$ref": "#/$defs/wide0"},
        "anything": {},
        "odd": True,
    },
    "$defs": {
        "Point": {"type": "object"},
        "Text": {"type": "string"},
        "a/b ~c": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        **{str(at): {"$ref": f"#/$defs/{at + 1}"} for at in range(2000)},
        "2000": {"type": "string"},
        # Two references each: without a memory, twice the work for each of them.
        **{f"wide{at}": {"anyOf": [{"$ref": f"#/$defs/wide{at + 1}"}] * 2} for at in range(30)},
        "wide30": {"type": "string"},
        "Circle": {"anyOf": [{"$ref": "#/$defs/Circle"}, {"$ref": "#/$defs/Circle"}]},
    },
}
FRAME = "<tool_call>\n<function=f>\n<parameter={}>\n{}\n</parameter>\n</function>\n</tool_call>"

VALUES: list[tuple[str, str, Any]] = [
    ("string", "null", "null"),
    ("string", "1", "1"),
    ("string", '"quoted" \\ \x01', '"quoted" \\ \x01'),
    ("integer", "12", 12),
    ("integer", " 12 ", 12),
    ("integer", "1.5", 1.5),
    ("integer", "twelve", "twelve"),
    ("number", "3", 3),
    ("number", "-1e3", -1000.0),
    ("number", "NaN", "NaN"),
    ("boolean", "true", True),
    ("boolean", "False", False),
    ("boolean", "yes", "yes"),
    ("null", "None", None),
    ("array", '[1, "a", {}]', [1, "a", {}]),
    ("array", "[1, ", "[1, "),
    ("array", "[" * 100_000, "[" * 100_000),
    ("object", '{"a":\n{"b": null}}', {"a": {"b": None}}),
    ("object", "{'a': 1}", "{'a': 1}"),
    ("optional", "null", None),
    ("optional", "None", None),
    ("optional", "nullify", "nullify"),
    ("optional", "nul", "nul"),
    ("optional", "", ""),
    ("optional", "5", "5"),
    ("optional_integer", "5", 5),
    ("optional_integer", "None", None),
    ("either", "5", 5),
    ("either", "5 o'clock", "5 o'clock"),
    ("either", "true", "true"),
    ("colour", "red", "red"),
    ("colour", "5", "5"),
    ("seven", "7", 7),
    ("referred", '{"x": 1}', {"x": 1}),
    ("circle", "5", 5),
    ("nowhere", "[]", []),
    ("all", "123", "123"),
    ("all_numbers", "123", 123),
    ("all_numbers", "1.5", "1.5"),
    ("all_numbers", "null", "null"),
    ("typed_alternatives", "5", "5"),
    ("referred_string", '{"x": 1}', {"x": 1}),
    ("referred_string", "1", 1),
    ("twice", "1", "1"),
    ("pointer", "1", "1"),
    ("beyond", "1", 1),
    ("no_index", "1", 1),
    ("long_index", "1", 1),
    ("an_anchor", "1", 1),
    ("elsewhere", "1", 1),
    ("root", "{}", {}),
    ("far", "1", 1),
    ("near", "1", "1"),
    ("deep", "1", 1),
    ("wide", "1", "1"),
    ("anything", "[]", []),
    ("anything", "text", "text"),
    ("anything", '"text"', '"text"'),
    ("odd", "True", True),
    ("unknown", "0", 0),
    ("unknown", "007", "007"),
    ("unknown", "-", "-"),
    ("unknown", "The end", "The end"),
]


def arguments(text: str, step: int, schema: Any = SCHEMA) -> Any:
    reader = Qwen3Coder({"f": schema})
    deltas = [delta for at in range(0, len(text), step) for delta in reader.push(text[at : at + step])]
    opened, *rest = merged(deltas + reader.finish())
    assert opened == CallOpened(0, "f")
    assert len(rest) == 1 and isinstance(rest[0], CallArguments)
    return json.loads(rest[0].text)


@pytest.mark.parametrize(("name", "text", "value"), VALUES)
def test_values(name: str, text: str, value: Any) -> None:
    for step in (1, 3, 7, 1000):
        assert arguments(FRAME.format(name, text), step) == {name: value}


@pytest.mark.parametrize("schema", [None, True, [], {}, {"properties": []}, {"additionalProperties": False}])
def test_schemas_that_say_nothing(schema: Any) -> None:
    assert parameter_types(schema, "a") is None
    assert arguments(FRAME.format("a", "1"), 1, schema) == {"a": 1}


def test_other_parameters_may_have_a_type() -> None:
    assert parameter_types({"additionalProperties": {"type": "string"}}, "a") == {"string"}


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text("<>/\nparmete=functio"), st.integers(1, 9))
def test_strings_are_whole(text: str, step: int) -> None:
    if any(end in f"{text}\n</parameter>"[:-1] for end in VALUE_ENDS) or "</parameter>" in text:
        return
    assert arguments(FRAME.format("string", text), step) == {"string": text}


def test_strings_come_as_they_are_written() -> None:
    reader = Qwen3Coder({"f": SCHEMA})
    assert reader.push("Well.\n<tool_call>\n<function=f") == [Content("Well.\n")]
    assert reader.push(">") == [CallOpened(0, "f")]
    assert merged(reader.push("\n<parameter=string>\nPa")) == [CallArguments(0, '{"string": "Pa')]
    assert merged(reader.push('r"\n')) == [CallArguments(0, 'r\\"')]
    assert merged(reader.push("is</b>\n</para")) == [CallArguments(0, "\\nis</b>")]
    assert merged(reader.push("meter>\n<parameter=unknown>\nfals")) == [CallArguments(0, '", "unknown": ')]
    assert reader.calls == 0
    assert merged(reader.push("e\n</parameter>\n</function>\n")) == [CallArguments(0, "false}")]
    assert reader.calls == 1


def test_strings_of_no_known_type_come_as_soon_as_they_are_sure_to_be_some() -> None:
    reader = Qwen3Coder({"f": SCHEMA})
    reader.push("<function=f>\n<parameter=unknown>\n")
    assert merged(reader.push("Par")) == [CallArguments(0, '"Par')]
    reader = Qwen3Coder({"f": SCHEMA})
    reader.push("<function=f>\n<parameter=optional>\n")
    assert merged(reader.push("nul")) == []
    assert merged(reader.push("lify")) == [CallArguments(0, '"nullify')]


@pytest.mark.parametrize("end", ["", "\n", "\n</fun", "\n</function>"])
def test_a_call_that_the_model_did_not_close(end: str) -> None:
    reader = Qwen3Coder({})
    text = "<tool_call>\n<function=f>\n<parameter=city>\nParis\n</parameter>" + end
    deltas = merged([delta for char in text for delta in reader.push(char)] + reader.finish())
    assert deltas == [CallOpened(0, "f"), CallArguments(0, '{"city": "Paris"}')] and reader.calls == 1
