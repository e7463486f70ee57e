"""Golden cases: a request, the prompt it becomes, the engine's tokens, and the events that go out.

Each case in golden/ is fed whole, token by token and in random cuts. Cuts move text between chunks but change nothing
else, so neighbouring chunks of text are joined before they are compared. `python -m tests.core.test_golden` writes what
comes out into the cases; read the difference before you keep it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from postprocessing.answer import Answer
from postprocessing.events import Event, Status
from postprocessing.shapes import Identity
from postprocessing.vocabulary import Vocabulary
from preprocessing.generation import prepare
from preprocessing.model import Model
from preprocessing.tokenizer import Tokenizer
from tests.core import vocabularies

FOLDER = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in FOLDER.glob("*.json"))
IDENTITY = Identity("id-1", 1700000000, "m", "fp_0")
Case = dict[str, Any]


def load(name: str) -> Case:
    found: Case = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def model() -> Model:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=vocabularies.tokenizer("byte-level"),
        bos_token="<s>",
        eos_token="<|end|>",
        chat_template=vocabularies.CHAT_TEMPLATE,
    )
    return Model("m", Tokenizer(fast, [3]), 200, 1700000000)


def prompt(case: Case) -> tuple[str, list[int]]:
    """The rendered prompt and its ids."""
    made = model()
    ids = prepare(case["endpoint"], case["request"], made, seed=1).prompts[0].ids
    return made.tokenizer.backend.decode(ids, skip_special_tokens=False), ids


def events(case: Case, edges: list[int]) -> list[Any]:
    """What goes out if the engine's tokens come in groups that end at `edges`."""
    made = model()
    generation = prepare(case["endpoint"], case["request"], made, seed=1)
    answer = Answer(generation, made.tokenizer, Vocabulary(made.tokenizer.backend), IDENTITY)
    tokens = made.tokenizer.encode(case["writes"], add_special_tokens=False)[: case.get("cut")]
    out = answer.open()
    for start, end in zip([0, *edges], [*edges, len(tokens)], strict=True):
        status = Status[case["status"]] if end == len(tokens) and end not in edges[:-1] else Status.RUNNING
        given_ = {"log_probs": [-0.5] * (end - start)} if generation.log_probs else {}
        out += answer.push(Event(tokens[start:end], status, **given_))
    assert answer.done
    parts = [part.removeprefix("data: ") for part in out.decode("ascii").split("\n\n") if part]
    return [part if part == "[DONE]" else json.loads(part) for part in parts]


def joined(found: list[Any]) -> list[Any]:
    """Neighbouring chunks of text as one."""
    merged: list[Any] = []
    for each in found:
        if merged and is_text(each) and is_text(merged[-1]):
            join(merged[-1]["choices"][0], each["choices"][0])
        else:
            merged.append(json.loads(json.dumps(each)))
    return merged


def is_text(event: Any) -> bool:
    choice = (event["choices"] or [{}])[0] if isinstance(event, dict) else {}
    return choice.get("finish_reason", "") is None and "role" not in choice.get("delta", {})


def join(into: Any, more: Any) -> None:
    if "text" in into:
        into["text"] += more["text"]
    else:
        into["delta"]["content"] += more["delta"]["content"]
    for name, values in (more["logprobs"] or {}).items():
        into["logprobs"][name] = (into["logprobs"][name] or []) + (values or []) or None


def count(case: Case) -> int:
    return len(model().tokenizer.encode(case["writes"], add_special_tokens=False)[: case.get("cut")])


@pytest.mark.parametrize("name", CASES)
def test_prompt(name: str) -> None:
    case = load(name)
    assert prompt(case) == (case["prompt"], case["prompt_ids"])


@pytest.mark.parametrize("name", CASES)
def test_whole_and_token_by_token(name: str) -> None:
    case = load(name)
    assert joined(events(case, [])) == case["events"]
    assert joined(events(case, list(range(1, count(case))))) == case["events"]


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_random_cuts(name: str, data: st.DataObject) -> None:
    case = load(name)
    edges = sorted(data.draw(st.sets(st.integers(1, max(1, count(case) - 1)), max_size=6)))
    assert joined(events(case, [edge for edge in edges if edge < count(case)])) == case["events"]


if __name__ == "__main__":
    for name in CASES:
        case = load(name)
        case["prompt"], case["prompt_ids"] = prompt(case)
        case["events"] = joined(events(case, []))
        text = json.dumps(case, ensure_ascii=False, indent=1)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
