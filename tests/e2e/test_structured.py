"""Structured output end to end, over both forms. The model is random: what has a shape has it from the constraint."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel

from tests.e2e.conftest import Server
from tests.e2e.wire import events, text

USER = [{"role": "user", "content": "hello"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 30},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
    },
    "required": ["kind", "age", "tags"],
    "additionalProperties": False,
}


def chat(server: Server, **options: Any) -> dict[str, Any]:
    return {"model": server.model, "messages": USER, "max_tokens": 300, "seed": 1} | options


def answer(server: Server, **options: Any) -> tuple[str, str]:
    """Text and finish reason."""
    choice = server.post("/v1/chat/completions", chat(server, **options)).json()["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


@pytest.mark.parametrize("seed", range(4))
def test_a_schema_holds(server: Server, seed: int) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA, "strict": True}}
    found, reason = answer(server, response_format=asked, seed=seed)
    assert reason == "stop"
    jsonschema.validate(json.loads(found), SCHEMA)


def test_a_stream_holds_it_too(server: Server) -> None:
    body = chat(server, structured_outputs={"json": SCHEMA}, stream=True, n=2)
    found = events(server.post("/v1/chat/completions", body).content)
    for index in (0, 1):
        part = [each for each in found if each["choices"][0]["index"] == index]
        jsonschema.validate(json.loads(text(part)), SCHEMA)


def test_other_constraints(server: Server) -> None:
    assert re.fullmatch("[a-c]{3}-\\d{2}", answer(server, guided_regex="[a-c]{3}-\\d{2}")[0])
    assert answer(server, guided_choice=["yes", "no.", "(maybe)"])[0] in ("yes", "no.", "(maybe)")
    assert re.fullmatch("(ab)+c", answer(server, guided_grammar='root ::= "ab" root | "abc"', temperature=0.5)[0])
    found, reason = answer(server, response_format={"type": "json_object"}, max_tokens=1500)
    if reason == "stop":
        assert isinstance(json.loads(found), dict)


@pytest.mark.parametrize(
    "wrong", [{"guided_regex": "("}, {"guided_json": {"type": "nonsense"}}, {"guided_json": {"not": {}}}]
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_cannot_be_enforced_is_400(server: Server, wrong: dict[str, Any], stream: bool) -> None:
    found = server.post("/v1/chat/completions", chat(server, stream=stream, **wrong))
    assert (found.status_code, found.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "constraint" in found.json()["error"]["message"]


class Pet(BaseModel):
    kind: Literal["cat", "dog"]
    good: bool


def test_openai_python_parses_into_models(server: Server) -> None:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none") as client:
        found = client.chat.completions.parse(
            model=server.model,
            messages=[{"role": "user", "content": "a pet"}],
            response_format=Pet,
            seed=2,
        )
    assert isinstance(found.choices[0].message.parsed, Pet)
