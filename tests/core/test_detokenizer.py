"""Joined pieces equal the whole text, whatever the tokenizer, and no piece flashes half a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postprocessing.detokenizer import Detokenizer
from tests.core.vocabularies import KINDS, TEXTS, tokenizer

kinds = pytest.mark.parametrize("kind", KINDS)


def pieces(kind: str, ids: list[int], prompt: list[int] | None = None) -> list[str]:
    detokenizer = Detokenizer(tokenizer(kind), prompt or [])
    return [*(detokenizer.push(token) for token in ids), detokenizer.finish()]


def encode(kind: str, text: str) -> list[int]:
    return list(tokenizer(kind).encode(text, add_special_tokens=False).ids)


@kinds
@pytest.mark.parametrize("prompt", ["", "user: hi there", "x\n"])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_decoded_text(kind: str, prompt: str, text: str) -> None:
    before, ids = encode(kind, prompt), encode(kind, text)
    found = pieces(kind, ids, before)
    whole = tokenizer(kind).decode(before + ids)
    assert "".join(found) == whole[len(tokenizer(kind).decode(before)) :]
    assert not any("\ufffd" in piece for piece in found)


@kinds
@given(text=st.text(max_size=60))
def test_any_text_survives(kind: str, text: str) -> None:
    ids = encode(kind, text)
    assert "".join(pieces(kind, ids)) == tokenizer(kind).decode(ids)


@kinds
@given(data=st.data())
def test_any_ids_neither_raise_nor_lose_valid_characters(kind: str, data: st.DataObject) -> None:
    size = tokenizer(kind).get_vocab_size()
    noise = data.draw(st.lists(st.integers(0, size - 1), max_size=40))
    found = "".join(pieces(kind, noise + encode(kind, " known text")))
    assert found.endswith("known text")


@kinds
def test_a_character_cut_at_the_end_is_not_lost(kind: str) -> None:
    ids = encode(kind, "ok 🎉")
    found = pieces(kind, ids[:-1])
    assert "".join(found[:-1]) in ("ok ", "ok")
    assert found[-1].endswith("\ufffd")


def test_an_invalid_byte_after_an_ascii_byte_does_not_end_the_stream() -> None:
    vocabulary = tokenizer("byte-fallback")
    byte = {value: vocabulary.token_to_id(f"<0x{value:02X}>") for value in (0x33, 0xFF)}
    found = pieces("byte-fallback", [byte[0x33], byte[0xFF], *encode("byte-fallback", "x hi")])
    assert "".join(found) == "3\ufffd x hi"


def test_a_long_silence_ends() -> None:
    vocabulary = tokenizer("byte-fallback")
    lead = vocabulary.token_to_id("<0xF0>")
    detokenizer = Detokenizer(vocabulary)
    assert any(detokenizer.push(lead) for _ in range(12))


@kinds
def test_special_tokens_are_not_shown(kind: str) -> None:
    end = tokenizer(kind).token_to_id("<|end|>")
    assert "".join(pieces(kind, [*encode(kind, "hi"), end, end])) == tokenizer(kind).decode(encode(kind, "hi"))
