"""Stop strings: cut anywhere, found everywhere, never seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postprocessing.stop import StopStrings


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    watcher = StopStrings(stops)
    out = ""
    for piece in pieces:
        out += watcher.push(piece)
        if watcher.matched is not None:
            return out, watcher.matched
    return out + watcher.finish(), None


CASES = [
    (["END"], "abcENDdef", "abc", "END"),
    (["END"], "abcEN", "abcEN", None),
    (["END", "EN"], "abcENDdef", "abc", "EN"),
    (["b", "abc"], "xabc", "xa", "b"),
    (["bc", "abc"], "xabc", "x", "abc"),
    (["aab"], "aaab", "a", "aab"),
    (["\n\n"], "one\ntwo\n\nthree", "one\ntwo", "\n\n"),
    ([], "anything", "anything", None),
    (["🎉"], "a🎉b", "a", "🎉"),
    (["anything"], "anything", "", "anything"),
]


@pytest.mark.parametrize(("stops", "text", "shown", "matched"), CASES)
def test_whole(stops: list[str], text: str, shown: str, matched: str | None) -> None:
    assert run(stops, [text]) == (shown, matched)


def test_a_beginning_that_turns_out_otherwise_is_given_back() -> None:
    watcher = StopStrings(["<|end|>"])
    assert [watcher.push(piece) for piece in ("a <", "|en", "ough", " b")] == ["a ", "", "<|enough", " b"]
    assert watcher.finish() == ""


@given(
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4), st.lists(st.text("ab\n", max_size=3), max_size=30)
)
def test_cuts_do_not_matter(stops: list[str], pieces: list[str]) -> None:
    text = "".join(pieces)
    shown, matched = run(stops, [text])
    assert run(stops, pieces) == (shown, matched)
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert (matched is None) == (not ends)
    if matched is not None:
        assert text.startswith(shown + matched)
        assert len(shown) + len(matched) == min(ends)
    assert not any(stop in shown for stop in stops)


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4), st.text("ab", max_size=40))
def test_nothing_that_may_become_a_stop_string_is_shown(stops: list[str], text: str) -> None:
    watcher = StopStrings(stops)
    shown = ""
    for at, character in enumerate(text):
        shown += watcher.push(character)
        if watcher.matched is not None:
            break
        rest = text[len(shown) : at + 1]
        assert rest == "" or any(stop.startswith(rest) for stop in stops)
