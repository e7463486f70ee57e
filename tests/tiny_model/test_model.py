"""What the shipped model says, greedily, through the engine: chat template, tokenizer and numpy runner as served."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.load import load
from engine.settings import Settings
from tools.tiny_model import evaluate, vocabulary

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the current weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
LEAST = {"greeting, identity": 0.85, "this project": 0.9, "capitals": 0.95, "counting": 0.9, "two-digit sums": 0.9,
         "echo": 0.85, "repeat N times": 0.8, "JSON extraction": 0.9, "out of scope": 0.9, "memory": 0.9,
         "system: capitals": 0.9, "think, then answer": 0.85, "everyday tools: whole call": 0.9,
         "unseen tools: name": 0.75, "unseen tools: whole call": 0.55, "random tools: name": 0.8,
         "two calls at once": 0.9, "tools, but none needed": 0.8}


@pytest.fixture(scope="module")
def model(tiny_chat: Path) -> evaluate.Model:
    return evaluate.Model(tiny_chat)


@pytest.fixture(scope="module")
def tokenizer(tiny_chat: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_chat)


@pytest.fixture
def said(model: evaluate.Model, tokenizer: Any) -> Callable[..., str]:
    """The answer to a list of messages."""
    def answer(messages: list[dict[str, Any]], **options: Any) -> str:
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
        return model.answers([prompt])[0]

    return answer


@pytest.fixture
def ask(said: Callable[..., str]) -> Callable[..., str]:
    """The answer to the last of some texts; those before are turns of user and assistant."""
    def answer(*texts: str, **options: Any) -> str:
        roles = cycle(("user", "assistant"))
        return said([{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)], **options)

    return answer


def test_it_is_the_default(tiny_chat: Path) -> None:
    runner, folder = load(Settings())
    assert folder == tiny_chat and runner.vocab_size == vocabulary.SIZE and runner.max_seq_len == vocabulary.CONTEXT


def test_the_folder_is_whole_and_small(tiny_chat: Path) -> None:
    names = {path.name for path in tiny_chat.iterdir()}
    assert names == {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                     "tokenizer_config.json"}
    assert sum(path.stat().st_size for path in tiny_chat.iterdir()) < 16e6
    config = json.loads((tiny_chat / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["dtype"] == "float16"
    assert config["num_key_value_heads"] < config["num_attention_heads"] and config["max_position_embeddings"] >= 1024


def test_the_shipped_template_is_that_of_the_tools(tiny_chat: Path) -> None:
    config = json.loads((tiny_chat / "tokenizer_config.json").read_text())
    template = Path(vocabulary.__file__).parent / "chat_template.jinja"
    assert config["chat_template"] == template.read_text()


@pytest.mark.parametrize(("question", "answer"), [
    ("Hello!", "Hello! I am tiny-chat, a tiny demo model. What can I do for you?"),
    ("What is openai_bls?", "openai_bls is an OpenAI server that lives inside NVIDIA Triton. It turns OpenAI requests "
                            "into tensors for a tensorrt_llm engine and streams the answer back."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Count to 5.", "1, 2, 3, 4, 5"),
    ("Say: hello world", "hello world"),
    ("What is 2 + 3?", "2 + 3 = 5"),
    ("Explain quantum physics.", "I am only a tiny demo model, so I cannot help with that. Ask me what I can do."),
])
def test_it_answers(ask: Callable[..., str], question: str, answer: str) -> None:
    assert ask(question) == answer


def test_it_remembers(ask: Callable[..., str]) -> None:
    first = "My name is Anna."
    assert ask(first, ask(first), "What is my name?") == "Your name is Anna."


def test_it_writes_json(ask: Callable[..., str]) -> None:
    answer = ask("Extract name and age as JSON: Anna is 31 years old.")
    assert answer == '{"name": "Anna", "age": 31}'


def test_it_calls_a_tool_and_uses_the_result(said: Callable[..., str]) -> None:
    question = {"role": "user", "content": "What is the weather in Paris?"}
    answer = said([question], tools=[WEATHER])
    assert answer == '{"name": "get_weather", "parameters": {"city": "Paris"}}'
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    result = {"role": "tool", "tool_call_id": "1", "content": '{"temperature": 14, "condition": "sunny"}'}
    history = [question, {"role": "assistant", "content": "", "tool_calls": [call]}, result]
    assert said(history, tools=[WEATHER]) == "It is 14 degrees and sunny in Paris."


def test_it_calls_no_tool_for_a_greeting(ask: Callable[..., str]) -> None:
    assert ask("Hello!", tools=[WEATHER]).startswith("Hello! I am tiny-chat")


def test_it_thinks_when_told_to(ask: Callable[..., str]) -> None:
    thought, _, answer = ask("What is the capital of Italy?", enable_thinking=True).partition("</think>")
    assert thought.strip() and "<think>" not in thought and answer == "\n\nThe capital of Italy is Rome."


@pytest.mark.parametrize("skill", LEAST)
def test_it_can_do_what_the_card_says(model: evaluate.Model, skill: str) -> None:
    """A small sample, and so a lower bar than the card's figures."""
    cases = list(evaluate.cases(skill, 40, seed=1))
    answers = model.answers([case.prompt() for case in cases])
    right = sum(case.right(case.expected(), answer) for case, answer in zip(cases, answers, strict=True))
    assert right / len(cases) >= LEAST[skill]


def test_every_skill_of_the_evaluation_makes_cases() -> None:
    for skill in evaluate.SKILLS:
        for case in evaluate.cases(skill, 5, seed=2):
            assert case.prompt().endswith(("<|end_header_id|>\n\n", "<think>\n"))
            assert case.right(case.expected(), case.expected()) or skill == "story about"
