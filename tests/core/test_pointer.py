"""References within a JSON schema."""

from __future__ import annotations

from typing import Any

import pytest

from preprocessing.pointer import is_anchor, resolve

ROOT = {"$defs": {"a/b": 1, "c~d": 2, "e f": 3}, "anyOf": [{"x": 4}, 5]}


@pytest.mark.parametrize(("reference", "node"), [
    ("#", ROOT), ("#/$defs/a~1b", 1), ("#/$defs/c~0d", 2), ("#/$defs/e%20f", 3), ("#/anyOf/0/x", 4), ("#/anyOf/1", 5),
    ("#/anyOf/2", None), ("#/anyOf/01", None), ("#/anyOf/" + "9" * 5000, None), ("#/anyOf/1/x", None),
    ("#name", None), ("other#/anyOf/1", None), ("", None),
])  # fmt: skip
def test_what_a_reference_names(reference: str, node: Any) -> None:
    assert resolve(reference, ROOT) == node


@pytest.mark.parametrize(("reference", "anchor"), [("#name", True), ("#%61", True), ("#", False), ("#/a", False)])
def test_anchors(reference: str, anchor: bool) -> None:
    assert is_anchor(reference) is anchor
