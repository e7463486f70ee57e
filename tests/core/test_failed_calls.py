"""Tool calls that could not be read are counted, and nothing else is."""

from __future__ import annotations

import pytest

from postprocessing.interpreter import Interpreter
from postprocessing.reading import Reading
from postprocessing.reasoning import STYLES
from postprocessing.tool_calls.families import FAMILIES

TOOLS = {"f": {"type": "object"}}
CASES = [
    ("hermes", "Hello <b>there</b>", "stop", 0),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', "stop", 0),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call> and </tool_call>', "stop", 0),
    ("hermes", "<tool_call>I would call f</tool_call>", "stop", 1),
    ("hermes", '<tool_call>f</tool_call><tool_call>{"nam</tool_call>', "stop", 2),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": }', "stop", 1),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1', "stop", 1),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1', "length", 0),
    ("llama3_json", '{"a": 1}', "stop", 0),
    ("llama3_json", '{"name": "f", "parameters": {"a": 1}}', "stop", 0),
    ("llama3_json", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}; and so on', "stop", 0),
    ("llama3_json", "<|python_tag|>print(1)", "stop", 1),
    ("pythonic", "[1, 2]", "stop", 0),
    ("pythonic", "<|python_start|>no list", "stop", 1),
    ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {}}]', "stop", 0),
    ("mistral", "[TOOL_CALLS] ?", "stop", 1),
    ("harmony", "<|channel|>final<|message|>{[<tool_call>", "stop", 0),
]


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(("family", "text", "reason", "failed"), CASES)
def test_failed_calls(family: str, text: str, reason: str, failed: int, size: int) -> None:
    interpreter = Interpreter(Reading(FAMILIES[family], TOOLS))
    assert ended(interpreter, text, reason, size) == failed


def test_failed_calls_behind_a_thought() -> None:
    interpreter = Interpreter(Reading(FAMILIES["hermes"], TOOLS, style=STYLES["think"]))
    assert ended(interpreter, "<think>a</think><tool_call>f</tool_call>", "stop", 3) == 1


def ended(interpreter: Interpreter, text: str, reason: str, size: int) -> int:
    for at in range(0, len(text), size):
        interpreter.push(text[at : at + size])
    interpreter.finish()
    interpreter.finish_reason(reason)
    return interpreter.failed_calls
