"""Bodies drawn from the description that the server itself serves: answers and errors have the known shapes."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema
import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.e2e.conftest import Server
from tests.hostile import fault_of
from tests.schema_strategies import fitting, nearly_fitting

# The same ones in every run; a failure that comes and goes helps nobody.
QUICK = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
SMALL = {"max_tokens": 2, "n": 1, "best_of": 1}
"""Work is not what is tested here."""
PLAIN: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/completions": {"prompt": "a"},
    "/embeddings": {"input": "a"},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [300]},
}
"""What is answered; of what is made up next to nothing is."""
ROUTES = list(PLAIN)


@cache
def description(url: str) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{url}/openapi.json", timeout=30).json()
    return found


def bodies(url: str, route: str) -> st.SearchStrategy[Any]:
    components = description(url)["components"]["schemas"]
    operation = description(url)["paths"][route]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return fitting(schema, components) | nearly_fitting(schema, components)


def assert_described(document: dict[str, Any], route: str, answer: requests.Response) -> None:
    """Status, type of content and schema are among those that the description names."""
    responses = document["paths"][route]["post"]["responses"]
    assert str(answer.status_code) in responses
    told = responses[str(answer.status_code)]
    if "$ref" in told:
        told = document["components"]["responses"][told["$ref"].rpartition("/")[2]]
    kind = answer.headers["Content-Type"].partition(";")[0]
    assert kind in told["content"]
    if kind == "application/json":
        jsonschema.validate(answer.json(), {**told["content"][kind]["schema"], "components": document["components"]})


@pytest.mark.parametrize("route", ROUTES)
def test_bodies_of_the_description(session_server: Server, route: str) -> None:
    server = session_server

    @QUICK
    @example(body=PLAIN[route], named=True)
    @given(body=bodies(server.url, route), named=st.booleans())
    def check(body: dict[str, Any], named: bool) -> None:
        body |= {name: value for name, value in SMALL.items() if name in body}
        body |= {"model": server.model} if named else {}
        body |= {"max_tokens": 2} if route.endswith("completions") else {}
        sent = json.dumps(body)
        answer = requests.post(f"{server.url}/v1{route}", sent, timeout=30)
        assert fault_of(answer.status_code, answer.content, sent) is None
        seen.add(answer.status_code)
        assert_described(description(server.url), route, answer)
        if answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/event-stream"):
            assert answer.text.startswith("data: {") and answer.text.endswith("data: [DONE]\n\n")
        elif answer.status_code == 200:
            assert "error" not in answer.json()

    seen: set[int] = set()
    check()
    assert seen >= ({404} if route == "/embeddings" else {200, 400}), "what was asked is too much alike"


def test_models_of_any_name(session_server: Server) -> None:
    @QUICK
    @given(name=st.text(max_size=40))
    def check(name: str) -> None:
        answer = requests.get(f"{session_server.url}/v1/models/" + requests.utils.quote(name, safe=""), timeout=30)
        assert fault_of(answer.status_code, answer.content, name) is None

    check()
