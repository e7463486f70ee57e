"""Markers are found where a look at the whole text would find them, wherever it is cut."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from postprocessing.markers import Found, Scanner, pieces

TEXTS = st.text(alphabet="ab<", max_size=20)


def scan(markers: tuple[str, ...], cut: list[str]) -> list[str]:
    """The texts between markers and the markers, by turns."""
    scanner = Scanner(markers)
    found = [""]

    def take(come: Found) -> bool:
        found[-1] += come.before
        if come.marker is not None:
            found.extend((come.marker, ""))
        return come.marker is not None

    def push(text: str) -> None:
        while take(come := scanner.push(text)):
            text = come.rest

    for piece in cut:
        push(piece)
    while take(come := scanner.finish()):
        push(come.rest)
    return found


def cuts(text: str, edges: set[int]) -> list[str]:
    ends = sorted(edge for edge in edges if edge < len(text))
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@given(st.sets(st.text(alphabet="ab<", min_size=1, max_size=5), max_size=4), TEXTS, st.sets(st.integers(1, 20)))
def test_markers(markers: set[str], text: str, edges: set[int]) -> None:
    longest_first = sorted(markers, key=len, reverse=True)
    expected = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text) if markers else [text]
    assert scan(tuple(markers), cuts(text, edges)) == expected
    assert scan(tuple(markers), list(text)) == expected


def test_only_what_may_become_a_marker_is_held_back() -> None:
    scanner = Scanner(("<tool_call>", "<tool_call>["))
    assert scanner.push("a < b <too") == Found("a < b ", None, "")
    assert scanner.push("l_call>") == Found("", None, "")
    assert scanner.push("{") == Found("", "<tool_call>", "{")
    assert scanner.push("<tool_call>[{") == Found("", "<tool_call>[", "{")
    assert scanner.push("<tool_x") == Found("<tool_x", None, "")


def test_pieces() -> None:
    text = "abc" * 1000
    assert "".join(pieces(text)) == text
    assert max(map(len, pieces(text))) < len(text)
