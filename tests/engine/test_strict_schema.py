"""What llguidance cannot do is refused with the keyword's name, never passed over; what can be said otherwise holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.guides import GuideError, load_tokenizer
from engine.strict_schema import ANNOTATING_FORMATS
from tests.engine.grammars import Language
from tests.engine.test_guided import closed

pytest.importorskip("llguidance")
pytest.importorskip("tokenizers")

DRAFTS = [None, "https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#",
          "http://json-schema.org/draft-04/schema#", "https://example.com/our-own"]
BIG = 2**53 + 1


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return load_tokenizer(str(tiny))


UNKNOWN: list[dict[str, Any]] = [
    {"not": {"type": "null"}}, {"if": {"type": "null"}, "then": False}, {"uniqueItems": True},
    {"contains": {"const": 1}}, {"minContains": 2}, {"propertyNames": {"minLength": 2}},
    {"dependentRequired": {"a": ["b"]}}, {"dependentSchemas": {"a": False}}, {"dependencies": {"a": ["b"]}},
    {"unevaluatedProperties": False}, {"unevaluatedItems": False}, {"$dynamicRef": "#node"}, {"$recursiveRef": "#"},
]


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("schema", UNKNOWN, ids=[next(iter(schema)) for schema in UNKNOWN])
def test_keywords_that_are_not_enforced(tokenizer: Any, schema: Any, draft: str | None) -> None:
    """Whatever the draft: older ones do not know all of them."""
    schema = schema if draft is None else {"$schema": draft, **schema}
    inner = {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": schema}}
    for each in (schema, closed(a=schema), {"anyOf": [{"type": "null"}, schema]}, inner):
        with pytest.raises(GuideError, match=next(iter(set(schema) - {"$schema"})).replace("$", "")):
            Language("json_schema", each, tokenizer)


@pytest.mark.parametrize(("schema", "reason"), [
    ({"$ref": "https://example.com/other.json"}, "https://example.com/other.json"),
    ({"$ref": "other.json#/$defs/a"}, "other.json"), ({"$ref": "#/$defs/nowhere"}, "/\\$defs/nowhere"),
    ({"$ref": "#anchor"}, "anchor"),
    *(({"type": "string", "format": name}, f"format: {name}") for name in (
        "uri-reference", "uri-template", "iri", "iri-reference", "idn-email", "idn-hostname", "json-pointer",
        "relative-json-pointer", "regex", "colour")),
    ({"type": "string", "format": "unknown"}, "format: unknown"),
    ({"type": "string", "pattern": "a(?=b)"}, "look-ahead"),
    ({"type": "string", "pattern": r"(a)\1"}, "backreferences"),
    ({"type": "string", "pattern": r"\bword\b"}, "lookarounds"), ({"type": "string", "pattern": "("}, "unclosed group"),
    ({"type": "number", "multipleOf": 0}, "multiple"), ({"type": "number", "multipleOf": 0.07}, "multipleOf"),
    ({"const": BIG}, "const: 9007199254740993"), ({"enum": ["a", {"b": [-BIG]}]}, "enum: -9007199254740993"),
    ({"type": "integer", "minimum": 10**20}, "min="),
    ({"type": "object", "minProperties": 2}, "minProperties"),
    ({"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 1}, "minProperties|maxProperties"),
    ({"type": "object", "patternProperties": {"^a": {}, "b$": {}}}, "not disjoint"),
    ({"type": "array", "items": [{"type": "null"}], "prefixItems": [{"type": "null"}]}, "prefixItems"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    ({"oneOf": [closed(a={"type": "null"}), {"type": "object"}]}, "oneOf: something could fit two"),
    ({"x-guidance": {"lenient": True}, "not": {}}, "x-guidance: lenient"),
    ({"x-guidance": {"coerce_one_of": True}}, "x-guidance: coerce_one_of"),
    ({"x-guidance": {"key_separator": "="}}, "x-guidance: key_separator"),
    (False, "schema is false"), ({"enum": []}, "Unsatisfiable"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, r"minimum \(5\) is greater than maximum \(3\)"),
    ({"type": "string", "minLength": 5, "maxLength": 3}, r"minLength \(5\) is greater"),
    ({"type": "array", "minItems": 5, "maxItems": 3}, r"minItems \(5\) is greater"),
    ({"type": "object", "minProperties": 1, "maxProperties": 0}, "minProperties > maxProperties"),
    ({"type": "string", "pattern": "^a$", "minLength": 3}, "Unsatisfiable"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "property 'a' is unsatisfiable"),
    ({"type": "strnig"}, "Invalid type: strnig"), ({"type": "object", "required": True}, "required"),
    ({"enum": "a"}, "enum must be an array"), ({"properties": []}, "properties must be"),
    ({"items": 1}, "schema must be"),
])
def test_refusals(tokenizer: Any, schema: Any, reason: str) -> None:
    with pytest.raises(GuideError, match=reason):
        Language("json_schema", schema, tokenizer)


NULL: dict[str, Any] = {"type": "null"}
SAYS_NOTHING = {"title": "T", "description": "D", "default": {"not": 1}, "examples": [{"if": 1}], "deprecated": True,
                "$schema": "https://example.com/x", "$id": "https://example.com/y", "$comment": "C", "readOnly": True,
                "writeOnly": True, "x-order": 1, "nullable": False, "example": 3, "contentMediaType": "text/plain",
                "discriminator": {"propertyName": "x"}, "uniqueItems": False, "not": False, "dependentRequired": {},
                "propertyNames": {"type": "string", "description": "D"}, "unevaluatedProperties": True}
CARD = {"$defs": {"a": closed(kind={"const": "a"}), "b": closed(kind={"enum": ["b", "c"]}, next={"$ref": "#"})},
        "discriminator": {"propertyName": "kind", "mapping": {"a": "#/$defs/a"}},
        "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}


@pytest.mark.parametrize(("schema", "good", "bad"), [
    ({"type": "boolean", **SAYS_NOTHING}, ["true"], ["null"]),
    (closed(**dict.fromkeys(["not", "if", "$ref", "uniqueItems", "format"], NULL)),
     ['{"not":null,"if":null,"$ref":null,"uniqueItems":null,"format":null}'], ["{}"]),
    ({"enum": [{"not": {"$ref": "#/nowhere"}}, 1]}, ['{"not":{"$ref":"#/nowhere"}}', "1"], ["2"]),
    # Younger than the draft that is named, and still enforced.
    ({"$schema": DRAFTS[3], "const": 1}, ["1"], ["2"]),
    ({"$schema": DRAFTS[2], "type": "array", "prefixItems": [{"const": 1}]}, ["[1]"], ["[2]"]),
    ({"anyOf": [{"$schema": DRAFTS[2], "type": "array", "prefixItems": [{"const": 1}]}]}, ["[1]"], ["[2]"]),
    ({"type": "array", "prefixItems": [{"const": 1}], "additionalItems": False}, ["[1]"], ["[2]"]),
    ({"type": "array", "items": [{"const": 1}], "additionalItems": False}, ["[1]", "[]"], ["[2]", "[1,1]"]),
    ({"exclusiveMinimum": True, "enum": [3, 4], "minimum": 3}, ["4"], ["3"]),
    # A day is a day.
    ({"type": "string", "format": "date"}, ['"2024-02-29"', '"2000-02-29"', '"0400-12-31"'],
     ['"2023-02-29"', '"1900-02-29"', '"0000-01-01"', '"2024-04-31"']),
    ({"type": "string", "format": "date-time"}, ['"2024-02-29T23:59:59.5Z"', '"1999-01-01T00:00:00+01:00"'],
     ['"2023-02-29T00:00:00Z"', '"2024-01-01T24:00:00Z"', '"2024-01-01T00:00:60Z"', '"2024-01-01T00:00:00"']),
    ({"type": "string", "format": "time", "pattern": "^1"}, ['"12:30:00Z"'], ['"02:30:00Z"', '"12:30:60Z"']),
    ({"type": ["string", "null"], "format": "date"}, ["null", '"1999-01-01"'], ['"x"']),
    # Doubles.
    ({"type": "integer", "minimum": -2**63, "maximum": 2**63 - 1}, ["0", "1234567890123456789"], [str(2**63)]),
    ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, ["7"], ["-1", str(2**64)]),
    ({"type": "integer", "minimum": BIG}, [str(BIG + 30000)], [str(BIG - 1)]),
    ({"type": "number", "maximum": 2**60}, ["0.5", str(2**60 - 30000)], [str(2**60 + 1)]),
    ({"type": "number", "multipleOf": 0.01, "minimum": 0}, ["0.29", "7"], ["0.295"]),
    # Names.
    ({"type": "object", "properties": {'a"b': NULL}, "additionalProperties": {"type": "boolean"}},
     ['{"a\\"b":null,"c":true}'], ['{"a\\"b":true}', '{"a\\u0022b":true}']),
    ({"type": "object", "required": ["a"], "minProperties": 2}, ['{"a":1,"b":1}'], ['{"a":1}', '{"a":1,"a":1}']),
    ({"type": "object", "propertyNames": {"$ref": "#/$defs/c"}, "additionalProperties": NULL,
      "$defs": {"c": {"enum": ["red", "blue"], "title": "C"}}},
     ['{"red":null}', "{}"], ['{"green":null}', '{"red":1}']),
    ({"type": "object", "propertyNames": {"pattern": "^x-"}}, ['{"x-a":1}'], ['{"a":1}']),
    # [] of patterns.
    ({"type": "string", "pattern": r"^[^[\]]$"}, ['"a"'], ['"["', '"]"']),
    ({"type": "string", "pattern": "^[^a&&b~~]$"}, ['"c"'], ['"a"', '"&"', '"~"']),
    ({"type": "string", "pattern": r"^[\]a-c[]{2}\[$"}, ['"][["', '"ba["'], ['"bd["']),
    # One of several that have nothing in common.
    (CARD, ['{"kind":"a"}', '{"kind":"c","next":{"kind":"a"}}'], ['{"kind":"d"}', '{"kind":"b"}']),
    ({"oneOf": [CARD | {"$defs": {}}, NULL], "$defs": CARD["$defs"]}, ["null", '{"kind":"a"}'], ["1"]),
    ({"components": {"schemas": {"P": {"type": "null", "nullable": True}}}, "$ref": "#/components/schemas/P"},
     ["null"], ["1"]),
])
def test_what_holds(tokenizer: Any, schema: Any, good: list[str], bad: list[str]) -> None:
    language = Language("json_schema", schema, tokenizer)
    assert [text for text in good if text not in language] == []
    assert [text for text in bad if text in language] == []


PARAMETERS = {"type": "object", "required": ["n"], "additionalProperties": False,
              "properties": {"n": {"$ref": "#/$defs/tool_0/$defs/digit"}, "again": {"$ref": "#/$defs/tool_0"}},
              "$defs": {"digit": {"type": "integer", "minimum": 1, "maximum": 9}}}


@pytest.mark.parametrize("name", [{"const": "f"}, {"enum": ["f"]}, {"type": "string", "const": "f"}])
def test_tool_calls(tokenizer: Any, name: Any) -> None:
    """One call or several; references lead into parameters that lie two levels deep, or back to their root."""
    calls = [closed(name=name, arguments={"$ref": "#/$defs/tool_0"}),
             closed(name={"const": "g"}, arguments={"$ref": "#/$defs/tool_1"})]
    several = {"type": "array", "items": {"anyOf": calls}, "minItems": 1, "maxItems": 2}
    language = Language("json_schema", {"anyOf": [*calls, several], "$defs": {
        "tool_0": PARAMETERS, "tool_1": closed(**{"$id": {"$ref": "#/$defs/tool_0/properties/n"}})}}, tokenizer)
    f, g = '{"name":"f","arguments":{"n":3,"again":{"n":1}}}', '{"name": "g", "arguments": {"$id": 7}}'
    assert all(text in language for text in (f, g, f"[{f}]", f"[{g}, {f}]"))
    assert not any(text in language for text in (
        "[]", f"[{f},{f},{f}]", f.replace("f", "h"), f.replace("3", "0"), f.replace("1", "0"), f.replace("f", "g")))


@pytest.mark.parametrize("name", sorted(ANNOTATING_FORMATS))
def test_formats_of_openapi_say_nothing(tokenizer: Any, name: str) -> None:
    language = Language("json_schema", {"anyOf": [{"type": kind, "format": name} for kind in ("string", "integer")]},
                        tokenizer)
    assert '"any text"' in language and "12" in language and "null" not in language


SELF = {"$ref": "#/$defs/q"}
ENDLESS: list[dict[str, Any]] = [
    SELF, {"anyOf": [SELF]}, {"allOf": [SELF]}, {"oneOf": [SELF]}, {"anyOf": [NULL, SELF]},
    {"anyOf": [NULL, {"allOf": [{"oneOf": [SELF]}]}]}, {"type": "object", "required": ["a"], "properties": {"a": SELF}},
    {"type": "array", "items": SELF, "minItems": 1}, {"type": "array", "prefixItems": [NULL, SELF], "minItems": 2},
    {"type": "object", "required": ["a"], "additionalProperties": SELF},
    {"anyOf": [closed(a=SELF), {"type": "array", "items": SELF, "minItems": 3}]},
]
BY_OTHER_WORDS = [
    {"q r": {"anyOf": [{"$ref": "#/$defs/q%20r"}]}}, {"q": {"anyOf": [{"$ref": "#/%24defs/%71"}]}},
    {"q": {"$anchor": "here", "anyOf": [{"$ref": "#here"}]}}, {"q": {"$id": "x:y", "anyOf": [{"$ref": "x:y"}]}},
    {"q": {"$id": "https://a.b/c", "anyOf": [{"$ref": "c#"}]}},
    {"q": {"$id": "https://a.b/c", "allOf": [{"$ref": "#"}]}},
    {"q/~": {"anyOf": [{"$ref": "#/$defs/q~1~0"}]}}, {"q": {"anyOf": [{"$ref": "#/$defs/q/anyOf/0"}]}},
]


@pytest.mark.parametrize("schema", ENDLESS)
def test_schemas_without_an_end(tokenizer: Any, schema: Any) -> None:
    for outer in (SELF, {"type": "object", "properties": {"a": SELF}}, closed(a=SELF), {"anyOf": [NULL, SELF]}):
        with pytest.raises(GuideError, match="itself"):
            Language("json_schema", {"$defs": {"q": schema}, **outer}, tokenizer)


@pytest.mark.parametrize("definitions", BY_OTHER_WORDS)
def test_loops_in_other_words(tokenizer: Any, definitions: Any) -> None:
    with pytest.raises(GuideError, match="itself"):
        Language("json_schema", {"type": "object", "$defs": definitions}, tokenizer)


@pytest.mark.parametrize(("schema", "good", "bad"), [
    ({"anyOf": [NULL, closed(a=SELF)]}, '{"a":{"a":null}}', '{"a":1}'),
    ({"type": "array", "items": SELF}, "[[],[[]]]", "[1]"),
    ({"type": ["array", "null"], "items": SELF, "minItems": 1}, "[null,[null]]", "[]"),
    ({"type": "object", "properties": {"a": SELF}, "additionalProperties": False}, '{"a":{}}', '{"a":1}'),
    ({"type": "object", "additionalProperties": SELF}, '{"x":{"y":{}}}', '{"x":1}'),
    ({"type": "object", "properties": {"a": {"allOf": [SELF]}}, "additionalProperties": False}, '{"a":{}}', '{"a":1}'),
])
def test_recursion_that_ends(tokenizer: Any, schema: Any, good: str, bad: str) -> None:
    language = Language("json_schema", {"$defs": {"q": schema}, **SELF}, tokenizer)
    assert good in language and bad not in language


@pytest.mark.parametrize("schema", [
    {"$ref": "#/$defs/a%20b", "$defs": {"a b": NULL}}, {"$ref": "#x", "$defs": {"a": {"$anchor": "x", **NULL}}},
    {"$ref": "https://a.b/c", "$defs": {"a": {"$id": "https://a.b/c", **NULL}}},
    {"$id": "https://a.b/c", "$ref": "c#/$defs/a", "$defs": {"a": NULL}},
    {"$ref": "#/$defs/a/1", "$defs": {"a": [1, NULL]}},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$id": "x:y", "$ref": "#/$defs/a", "$defs": {"a": NULL}}}},
])
def test_references(tokenizer: Any, schema: Any) -> None:
    language = Language("json_schema", schema, tokenizer)
    assert "null" in language and "1" not in language


def test_rules_hold_wherever_a_reference_leads(tokenizer: Any) -> None:
    with pytest.raises(GuideError, match="uniqueItems"):
        Language("json_schema", {"$ref": "#/x/%61", "x": {"a": {"uniqueItems": True}}}, tokenizer)


@pytest.mark.parametrize("value", ["a", None, [1]])
def test_options_that_are_no_object(tokenizer: Any, value: Any) -> None:
    with pytest.raises(GuideError, match="x-guidance"):
        Language("json_schema", {"x-guidance": value, "properties": {'a"b': {}}}, tokenizer)


def test_whitespace_comes_to_an_end(tokenizer: Any) -> None:
    language = Language("json_schema", closed(a=closed(b=NULL)), tokenizer)
    for space in ("", " ", "\n" + " " * 40):
        assert f'{{{space}"a":{space}{{{space}"b"{space}: null{space}}}{space}}}' in language
    assert '{' + " " * 200 + '"a": {"b": null}}' not in language
    compact = Language("json_schema", closed(a=NULL) | {"x-guidance": {"whitespace_flexible": False}}, tokenizer)
    assert '{"a":null}' in compact and '{ "a":null}' not in compact
