"""gateway/openapi.json says what the tables of preprocessing say. `python -m tools.openapi` writes it anew."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from preprocessing import fields
from tools import openapi


def test_the_description_is_up_to_date() -> None:
    assert openapi.FILE.read_text(encoding="utf-8") == openapi.text()


@pytest.mark.parametrize(
    ("endpoint", "table"), [("chat/completions", fields.CHAT), ("completions", fields.COMPLETIONS)]
)
def test_every_field_is_described_once(endpoint: str, table: dict[str, fields.Field]) -> None:
    assert openapi.body_schema(endpoint)["properties"].keys() == table.keys()


def resolved(endpoint: str) -> Draft202012Validator:
    """The validator of a request body, with what it refers to."""
    found = json.loads(openapi.FILE.read_text(encoding="utf-8"))
    schema = found["paths"][f"/{endpoint}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return Draft202012Validator(schema | {"components": found["components"]})


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ({"model": "m", "messages": [{"role": "user", "content": "a"}]}, True),
        ({"model": "m", "messages": [{"role": "user", "content": "a"}], "n": 2, "min_p": 0}, True),
        ({"model": "m", "messages": [{"role": "nobody", "content": "a"}]}, False),
        ({"model": "m", "messages": [{"role": "user", "content": "a"}], "n": 0}, False),
        ({"model": "m", "messages": [{"role": "user", "content": "a"}], "nonsense": 1}, False),
        ({"model": "m", "messages": [{"role": "user", "content": "a"}], "verbosity": "high"}, False),
        ({"model": "m"}, False),
    ],
)
def test_it_tells_good_bodies_from_bad_ones(body: dict[str, object], valid: bool) -> None:
    assert resolved("chat/completions").is_valid(body) is valid
