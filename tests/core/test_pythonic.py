"""Python literals as JSON, compared with what Python itself makes of them."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postprocessing.reader import CallArguments, CallOpened, Content, Tools, merged
from postprocessing.tool_calls.pythonic import Pythonic, scalar

TOOLS: Tools = {"f": {}, "get_weather": {}, "get-time": {}}

NAMES = st.from_regex(r"[a-zé_][a-z0-9_]{0,5}", fullmatch=True)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.text(alphabet="\"'\\\n\x00\x7f\u2028é😀[](){},=:", max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.booleans() | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)


def arguments(text: str, edges: list[int]) -> str:
    """The arguments of the text's one call."""
    reader = Pythonic(TOOLS)
    deltas = []
    for start, end in zip([0, *edges], [*edges, len(text)], strict=True):
        deltas += reader.push(text[start:end])
    opened, *rest = merged(deltas + reader.finish())
    assert opened == CallOpened(0, "f")
    assert reader.calls == 1
    assert len(rest) == 1 and isinstance(rest[0], CallArguments)
    return rest[0].text


def as_json(value: Any) -> Any:
    """What is left of a value in JSON: tuples are lists, keys are strings."""
    return json.loads(json.dumps(value))


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), st.data())
def test_values_are_what_python_reads(values: dict[str, Any], data: st.DataObject) -> None:
    text = f"[f({', '.join(f'{key}={value!r}' for key, value in values.items())})]"
    edges = data.draw(st.sets(st.integers(1, len(text) - 1), max_size=8))
    found = json.loads(arguments(text, sorted(edges)))
    assert found == {key: as_json(ast.literal_eval(repr(value))) for key, value in values.items()}
    assert json.loads(arguments(text, list(range(1, len(text))))) == found


LITERALS = [
    r"'\x41\101\08\7'",
    r"'\u00e9\U0001F600\a\b\f\v\0'",
    r"'\ud83d\ude00'",
    r"'\d\q\'\"'",
    r'"\"\'"',
    "'a\\\nb'",
    "0x1F",
    "0b101",
    "1_000_000",
    "1.",
    ".5",
    "+3",
    "-0",
    "1e400",
    "[ 1 , 2 , ]",
    "( 1 , )",
    "{ 'a' : 1 , \"b\" : { } , }",
    "[[], (), {}, [[[]]]]",
]


@pytest.mark.parametrize("literal", LITERALS)
def test_literals(literal: str) -> None:
    found = json.loads(arguments(f"[f(a={literal})]", []))["a"]
    value = ast.literal_eval(literal)
    if isinstance(value, float) and math.isinf(value):
        assert literal == "1e400" and math.isinf(found)
    elif isinstance(value, str):
        assert found == value.encode("utf-16", "surrogatepass").decode("utf-16")
    else:
        assert found == as_json(value)


def test_what_is_no_literal_is_a_string() -> None:
    assert scalar("nan") == '"nan"'
    assert scalar("09") == "9.0"
    assert scalar('Rue "X"') == r'"Rue \"X\""'
    assert scalar("9" * 5000) == "9" * 5000
    assert scalar("1_" + "9" * 5000).startswith('"1_')


def test_strings_come_as_they_are_written() -> None:
    reader = Pythonic(TOOLS)
    assert reader.push("[get_weather(city") == []
    assert merged(reader.push("='Pa")) == [CallOpened(0, "get_weather"), CallArguments(0, '{"city": "Pa')]
    for char in "ris in":
        assert reader.push(char) == [CallArguments(0, char)]
    assert reader.push("', days=1") and reader.push("2") == []
    assert merged(reader.push(")")) == [CallArguments(0, "12}")]
    assert reader.calls == 1


def test_plain_text_comes_at_once() -> None:
    reader = Pythonic(TOOLS)
    assert merged(reader.push("[1")) == [Content("[1")]
    assert merged(reader.push("\n[get_t")) == [Content("\n[get_t")]
    assert merged(reader.push("\n[get-time(x")) == [Content("\n")]
    assert merged(reader.push(")")) == [Content("[get-time(x)")]
