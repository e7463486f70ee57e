"""Structured output holds: real schemas, a model that pushes in all directions, a validator that is not ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.engine import Engine
from engine.numpy_runner import NumpyRunner
from engine.sequence import Status
from engine.settings import Settings
from tests.engine.client import Client
from tests.engine.test_session import Caller

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")
tokenizers = pytest.importorskip("tokenizers")

LENGTH = 1000
FOLDER = Path(__file__).with_name("schemas")
SCHEMAS: dict[str, Any] = {
    f"{path.stem}.{name}": schema
    for path in sorted(FOLDER.glob("*.json")) for name, schema in json.loads(path.read_text("utf-8")).items()}
PUSHES = [{"runtime_top_p": 1.0, "temperature": 1.0}, {"runtime_top_p": 1.0, "temperature": 4.0},
          {"runtime_top_k": 5, "temperature": 2.0}]
"""Three ways to sample: as the model likes, nearly blindly, among few."""
ENOUGH = 0.9
"""So many must come to an end, or the rest of the test says nothing."""


def closing(folder: Path, temperature: float) -> np.ndarray:
    """A bias that makes the end of strings, lists and objects likely, and more than one blank unlikely."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    bias = np.zeros((1, tokenizer.get_vocab_size()), np.float32)
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token])
        bias[0, token] = 5 * text.startswith(('"', "}", "]")) + 1.5 * text.startswith(",") - 4 * (not text.strip())
    return bias * temperature


@pytest.fixture(scope="module")
def outcomes(tiny: Path, runner: NumpyRunner) -> Iterator[dict[str, list[tuple[Status, str]]]]:
    """All schemas, each several times, in one batch: how they ended, and the texts."""
    engine = Engine(runner, Settings(), str(tiny))
    engine.start()
    caller = Caller(Client(engine))
    pushes = [{**push, "embedding_bias": closing(tiny, push["temperature"])} for push in PUSHES]
    asked = [(name, push) for name in SCHEMAS for push in pushes]
    answers = [caller.submit(number, LENGTH, seed=number, guided_decoding_guide_type="json_schema",
                             guided_decoding_guide=json.dumps(SCHEMAS[name]), **push)
               for number, (name, push) in enumerate(asked, 1)]
    assert [error for answer in answers if (error := answer.error)] == []
    tokenizer = tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json"))
    found: dict[str, list[tuple[Status, str]]] = {name: [] for name in SCHEMAS}
    for record in caller.drain(len(asked), 120):
        text = tokenizer.decode(record.tokens, skip_special_tokens=False)
        found[asked[record.number - 1][0]].append((Status(record.status), text))
        assert record.status == Status.END_ID or len(record.tokens) == LENGTH
    yield found
    engine.close()


def check(text: str, schema: Any) -> None:
    """Raises if the text is no JSON or not valid."""
    value, exact = (json.loads(each, parse_float=number) for each in (text, json.dumps(schema)))
    kind = jsonschema.Draft202012Validator
    with localcontext() as context:
        context.prec = LENGTH  # of remainders
        kind(exact, format_checker=kind.FORMAT_CHECKER).validate(value)


def number(text: str) -> Any:
    """Decimals, so that multiples of 0.01 are some; exponents may be too large for them."""
    return float(text) if "e" in text.lower() else Decimal(text)


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_ends_is_valid(outcomes: dict[str, list[tuple[Status, str]]], name: str) -> None:
    for status, text in outcomes[name]:
        assert status in (Status.END_ID, Status.LENGTH)
        if status == Status.END_ID:
            check(text, SCHEMAS[name])


def test_most_end(outcomes: dict[str, list[tuple[Status, str]]]) -> None:
    statuses = [status for found in outcomes.values() for status, _ in found]
    assert len(SCHEMAS) >= 110 and len(statuses) == len(PUSHES) * len(SCHEMAS)
    assert statuses.count(Status.END_ID) > ENOUGH * len(statuses)
