"""Reasoning: how a model's style of it is found, what prompts open it, and how much of an answer it is."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postprocessing.reader import CallArguments, CallOpened, Content, Delta, Reader, Reasoning, Tools, merged
from postprocessing.reasoning import STYLES, recognise
from postprocessing.tool_calls.families import FAMILIES
from postprocessing.tool_calls.forced import Arguments
from postprocessing.tool_calls.plain import Plain

TOOLS: Tools = {"f": {"type": "object", "properties": {"a": {"type": "integer"}}}}

TEMPLATES = {
    "think": (
        "{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}{%- endif %}",
        r"""{{- '<|im_start|>assistant\n<think>\n' + reasoning_content + '\n</think>\n\n' + content }}""",
    ),
    "granite": (
        """ Write your thoughts after 'Here is my thought process:' and your response after 'Here is my response:'""",
        """ Thoughts go between <think></think> and the response between <response></response> for each query.""",
    ),
    "mistral": ("""{{- '[THINK]' + block['thinking'] + '[/THINK]' }}""",),
    "harmony": ("""{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}""",),
}


@pytest.mark.parametrize("name", STYLES)
def test_a_style_is_recognised_by_its_template(name: str) -> None:
    for source in TEMPLATES[name]:
        style = recognise(source)
        assert style is not None and style.name == name


def test_other_templates_have_none() -> None:
    assert recognise("{% for message in messages %}<|im_start|>{{ message.content }}{% endfor %}") is None


PROMPTS = [  # style, prompt, whether it opens a thought, what makes the answer proper begin
    ("think", "<|im_start|>assistant\n", False, "<think>\n\n</think>\n\n"),
    ("think", "<|im_start|>assistant\n<think>\n", True, "\n</think>\n\n"),
    ("think", "<|im_start|>assistant\n<think>\n\n</think>\n\n", False, ""),
    ("think", "<think>One</think>Two\n<|im_start|>assistant\n", False, "<think>\n\n</think>\n\n"),
    ("think", "<｜Assistant｜></think>", False, ""),
    ("mistral", "[INST]Hi[/INST]", False, ""),
    ("mistral", "[INST]Hi[/INST][THINK]", True, "[/THINK]"),
    ("granite", "<|start_of_role|>assistant<|end_of_role|>", False, ""),
    ("harmony", "<|start|>assistant", False, "<|channel|>final<|message|>"),
    ("harmony", "<|start|>assistant<|channel|>final<|message|>", False, ""),
    (
        "harmony",
        "<|start|>assistant<|channel|>analysis<|message|>",
        True,
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
]


@pytest.mark.parametrize(("name", "prompt", "opened", "appended"), PROMPTS)
def test_prompts(name: str, prompt: str, opened: bool, appended: str) -> None:
    style = STYLES[name]
    assert style.opened_by(prompt) is opened
    template = r"{{ '<think>\n\n</think>\n\n' }}"
    assert style.thoughtless(prompt, template, opened=opened, fresh=True) == prompt + appended
    assert opened or style.thoughtless(prompt, template, opened=False, fresh=False) == prompt
    assert not style.opened_by(prompt + appended)


def test_a_model_that_knows_no_empty_thought_gets_none() -> None:
    template = "{{ content.split('</think>')[-1] }}"
    think = STYLES["think"]
    assert think.thoughtless("assistant\n", template, opened=False, fresh=True) == "assistant\n"
    assert think.thoughtless("<think>\n", template, opened=True, fresh=True) == "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(("text", "within"), [
    ("<think>\nLet me", True), ("\n<think>", True), ("<think>a</think>b", False), ("Hm <think>", False), ("", False),
])  # fmt: skip
def test_a_thought_that_the_client_began(text: str, within: bool) -> None:
    assert STYLES["think"].opened_within(text) is within


# Each style around each family

CALLS = {
    "pythonic": "[f(a=1)]",
    "qwen3_coder": "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
}
THOUGHTS = {
    "think": ("<think>\n", "\n</think>\n\n"),
    "granite": ("Here is my thought process:\n", "\n\nHere is my response:\n"),
    "mistral": ("[THINK]", "[/THINK]"),
}


def written(family: str) -> str:
    """A call as the family writes it."""
    tag = FAMILIES[family].tag
    return CALLS[family] if tag is None else tag.text("f", '{"a": 1}')


def read(reader: Reader, pieces: Sequence[str]) -> list[Delta]:
    return merged([delta for piece in pieces for delta in reader.push(piece)] + reader.finish())


def cut(text: str, chance: random.Random) -> list[str]:
    edges = sorted(chance.sample(range(len(text) + 1), min(5, len(text))))
    return [text[start:end] for start, end in zip([0, *edges], [*edges, len(text)], strict=True)]


@pytest.mark.parametrize("style", THOUGHTS)
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "harmony"])
def test_a_thought_and_a_call(style: str, family: str) -> None:
    before, behind = THOUGHTS[style]
    call = written(family)
    text = f"{before}I call it by {call}.{behind}{call}"
    expected = [Reasoning(f"I call it by {call}."), CallOpened(0, "f"), CallArguments(0, '{"a": 1}')]
    for seed in range(20):
        for pieces in ([text], list(text), cut(text, random.Random(seed))):
            reader = STYLES[style].reader(FAMILIES[family].reader(TOOLS), False)
            assert read(reader, pieces) == expected
            assert reader.calls == 1


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "harmony"])
def test_calls_are_counted_as_they_end(family: str) -> None:
    reader = STYLES["think"].reader(FAMILIES[family].reader(TOOLS), True)
    assert merged(reader.push(f"One {written(family)}</thi")) == [Reasoning(f"One {written(family)}")]
    assert (reader.calls, reader.reasoning) == (0, True)
    reader.push(f"nk> {written(family)}\n")
    assert (reader.calls, reader.reasoning) == (1, False)


def test_harmony_reads_its_calls_itself() -> None:
    style = STYLES["harmony"]
    text = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
    assert style.owns_calls
    assert read(style.reader(FAMILIES["harmony"].reader(TOOLS), False), [text])[0] == CallOpened(0, "f")
    assert read(style.reader(Plain(), False), [text]) == [Reasoning("{}")]
    opened = style.reader(Plain(), True)
    assert opened.reasoning
    assert read(opened, [" One<|end|><|start|>assistant<|channel|>final<|message|> Two"]) == [
        Reasoning("One"),
        Content(" Two"),
    ]


def test_content_of_harmony_is_read_by_another_family() -> None:
    reader = STYLES["harmony"].reader(FAMILIES["json"].reader(TOOLS), True)
    call = '{"name": "f", "arguments": {"a": 1}}'
    assert merged(reader.push(f"{call}<|end|><|start|>assistant<|channel|>commentary<|message|>")) == [Reasoning(call)]
    assert (reader.calls, reader.reasoning) == (0, False)
    assert merged(reader.push(f"{call}<|end|>")) == [CallOpened(0, "f"), CallArguments(0, '{"a": 1}')]
    assert reader.calls == 1
    reader.push("<|start|>assistant<|channel|>commentary to=functions.f<|message|>{}<|call|>")
    assert reader.calls == 1
    final = reader.push(f"<|start|>assistant<|channel|>final<|message|>{call[:-1]}")
    assert merged(final) == [CallOpened(1, "f"), CallArguments(1, '{"a": 1}')]
    assert reader.calls == 1
    assert reader.push("}") == reader.finish() == []
    assert reader.calls == 2


def test_harmony_gives_the_arguments_of_a_forced_function() -> None:
    reader = STYLES["harmony"].reader(Arguments("f"), True)
    deltas = read(reader, ['One<|end|><|start|>assistant<|channel|>final<|message|>{"a": 1}'])
    assert deltas == [Reasoning("One"), CallOpened(0, "f"), CallArguments(0, '{"a": 1}')]
    assert reader.calls == 1


@pytest.mark.parametrize(("arguments", "calls"), [('{"a": "}', 0), ('{"a": "}"}', 1), ("", 1)])
def test_harmony_counts_calls_whose_end_is_not_seen(arguments: str, calls: int) -> None:
    reader = FAMILIES["harmony"].reader(TOOLS)
    read(reader, [f"<|channel|>commentary to=functions.f<|message|>{arguments}"])
    assert reader.calls == calls


# What counts as reasoning

SPANS = [  # style, opened, text with the span in brackets
    ("think", False, "\n<think>⟦\nOne\n</think>⟧\n\nTwo <think>"),
    ("think", False, " Two <think>One</think>"),
    ("think", True, "⟦\nOne <think>\n</think>⟧\n\nTwo"),
    ("think", True, "⟦<think>One </thi"),
    ("granite", False, "Here is my thought process:⟦ One Here is my response:⟧ Two"),
    ("mistral", False, "[THINK]⟦One[/THINK]⟧Two"),
    (
        "harmony",
        False,
        "<|channel|>analysis<|message|>⟦One<|end|>⟧<|start|>assistant"
        "<|channel|>analysis to=python<|message|>⟦1<|call|>⟧"
        "<|start|>assistant to=functions.f<|channel|>commentary<|message|>{}<|call|><|channel|>final<|message|>Two",
    ),
    (
        "harmony",
        False,
        "<|channel|>commentary<|message|>One<|end|><|start|>assistant<|channel|>analysis<|message|>⟦Two",
    ),
    ("harmony", True, "⟦One<|end|>⟧<|start|>assistant<|channel|>final<|message|>Two"),
]


@pytest.mark.parametrize(("name", "opened", "marked"), SPANS)
def test_the_span_of_reasoning_is_exact(name: str, opened: bool, marked: str) -> None:
    text = marked.replace("⟦", "").replace("⟧", "")
    expected: list[bool] = []
    reasoning = False
    for char in marked:
        if char in "⟦⟧":
            reasoning = char == "⟦"
            continue
        expected.append(reasoning)
    inner = FAMILIES["harmony"] if name == "harmony" else FAMILIES["hermes"]

    def make() -> Reader:
        return STYLES[name].reader(inner.reader(TOOLS), opened)

    reader = make()
    found = []
    for char in text:
        found.append(reader.reasoning)
        reader.push(char)
    assert found == expected
    for end in range(len(text)):
        reader = make()
        reader.push(text[:end])
        assert reader.reasoning is expected[end]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_a_thought_and_its_answer_are_whole(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(THOUGHTS)))
    before, behind = THOUGHTS[name]
    letters = st.text("ab <[/H\n", max_size=20)
    thought, answer = data.draw(letters), data.draw(letters)
    opened = data.draw(st.booleans())
    text = ("" if opened else before) + thought + behind + answer
    expected = [Reasoning(thought.strip()), Content(answer.lstrip())]
    pieces = cut(text, data.draw(st.randoms()))
    assert read(STYLES[name].reader(Plain(), opened), pieces) == merged(expected)
