"""JSON in pieces, compared with what a parser says of the whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postprocessing.tool_calls.value import Unescaped, Value, unescaped

VALUES = st.recursive(
    st.text('ab"\\{}[]<é😀\n', max_size=6) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a{"\\', max_size=3), inner, max_size=3),
    max_leaves=8,
)


def end(text: str, size: int) -> int:
    """Where the value at the beginning of the text ends, read in pieces."""
    value = Value()
    for start in range(0, len(text), size):
        piece = text[start : start + size]
        at = value.read(piece, 0)
        if value.done:
            return start + at
        assert at == len(piece)
    return -1


@given(st.lists(VALUES, max_size=3) | st.text(max_size=5), st.text('ab]}"<', max_size=5), st.integers(1, 7))
def test_the_end_of_a_value(value: object, behind: str, size: int) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert end(text + behind, size) == len(text)
    assert end(text[:-1], size) == -1


def test_an_angle_bracket_outside_of_strings_ends_it() -> None:
    value = Value()
    text = '{"a": "<", "b": 1</tool_call>'
    assert value.read(text, 0) == text.index("</")
    assert value.broken


@given(st.text(), st.booleans(), st.integers(1, 7))
def test_the_inside_of_a_string(text: str, ascii_only: bool, size: int) -> None:
    inside = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    reader = Unescaped()
    parts = [reader.push(inside[start : start + size]) for start in range(0, len(inside), size)]
    assert "".join(parts) + reader.finish() == text


@given(st.text(r"\ud83e0n" + '"', max_size=16), st.integers(1, 5))
def test_cuts_do_not_matter_for_escapes_of_any_kind(inside: str, size: int) -> None:
    reader = Unescaped()
    parts = [reader.push(inside[start : start + size]) for start in range(0, len(inside), size)]
    assert "".join(parts) + reader.finish() == unescaped(inside)


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        (r"\x\u12g4", r"\x\u12g4"),
        (r"\ud83da\ude00", "\ufffda\ufffd"),
        (r"\ud83d\u0041\ud83d", "\ufffdA\ufffd"),
        (r"\u00", r"\u00"),
        ("\\", "\\"),
    ],
)
def test_what_is_no_json_stays(inside: str, text: str) -> None:
    assert unescaped(inside) == text
