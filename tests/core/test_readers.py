"""The readers of answers, each held to the rules of postprocessing/reader.py.

Golden cases are in readers/, a file for each reader: a text written by hand in the format of the family, and the deltas
it comes to. To add a reader: a row in READERS, and its file.
"""

from __future__ import annotations

import json
import random
import string
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postprocessing.reader import CallArguments, CallOpened, Content, Delta, Reader, Reasoning, Tools, merged
from postprocessing.reasoning import STYLES
from postprocessing.tool_calls.families import FAMILIES, FORCED, new_id, recognise
from postprocessing.tool_calls.forced import Arguments
from postprocessing.tool_calls.plain import Plain

FOLDER = Path(__file__).parent / "readers"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS: Tools = {"get_weather": SCHEMA, "get_time": SCHEMA, "f": SCHEMA}
ANY_NAME = string.ascii_letters + string.digits + "_.:/-"  # all that names may be made of
KINDS = {"content": Content, "reasoning": Reasoning, "call": CallOpened, "arguments": CallArguments}
SPACE = " \t\r\n"


class Subject(NamedTuple):
    """A reader and what to try it with.

    Attributes:
        fragments: texts that mean something in its format: random texts are made of them.
        framed: markers vanish, and line breaks may come in, even where nothing is called or thought.
    """

    reader: Callable[[Tools], Reader]
    fragments: tuple[str, ...] = ()
    framed: bool = False


JSON_FRAGMENTS = (
    *'{}[]:,"\\ \n;a<`',
    '{"name": "f"',
    ', "arguments": {',
    '"parameters": {',
    '{"type": "function", "function": ',
    '"name": "get_time"}',
    '"{\\"city\\": \\"a\\"}"',
    "null",
    '"a{"',
)


def family(name: str, *fragments: str) -> Subject:
    return Subject(FAMILIES[name].reader, (*fragments, *FAMILIES[name].markers))


def thoughtful(name: str, inner: str, *fragments: str, opened: bool = False) -> Subject:
    """A style of reasoning around the calls of a family."""
    style, calls = STYLES[name], READERS[inner]
    tags = tuple(tag for tags in style.tags for tag in (*tags.opens, *tags.closes))
    return Subject(
        lambda tools: style.reader(calls.reader(tools), opened), (*fragments, *tags, *calls.fragments), framed=True
    )


READERS = {
    "plain": Subject(lambda tools: Plain(), ("a", " ", "{")),
    "hermes": family("hermes", "<tool_call>\n{", "<tool", "}</tool_call>", "}\n</tool_call>", "{'a': '5\""),
    "granite": family("granite", "<|tool_call|>[{", "}]"),
    "nemotron": family("nemotron", "<TOOLCALL>[{", "}]"),
    "phi4_mini": family("phi4_mini", "functools[{", "functools", "}]"),
    "llama3_json": family("llama3_json", "<|python_tag|>{", "};"),
    "json": family("json", "```json\n", "```", "}\n```"),
    "forced": Subject(FORCED.reader),
    "mistral": family("mistral", "[TOOL_CALLS] [{", "[TOOL_CALLS]f[ARGS]{", "f", "[CALL_ID]a1[ARGS]", "[AR"),
    "deepseek_v3": family("deepseek_v3", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n", "```json\n{", "```", "f"),
    "deepseek_v31": family("deepseek_v31", "<｜tool▁call▁begin｜>f<｜tool▁sep｜>", "}<｜tool▁call▁end｜>", "<｜tool▁"),
    "pythonic": family(
        "pythonic", "[f(", "[get_weather(city=", "f(a='", "a=", "(", ")", ")]", "'", "\\x4", "\\", "1", "True"
    ),
    "qwen3_coder": family(
        "qwen3_coder",
        *(
            "<function=f>\n",
            "<parameter=city>\n",
            "<parameter=x>\n",
            "\n</parameter>\n",
            "\n</function>\n",
            "<tool_c",
            ">",
            "null",
            "1",
        ),
    ),
    "harmony": family(
        "harmony", "analysis", "final", "commentary", " to=functions.f", "to=python", "assistant", "json"
    )._replace(framed=True),
}
READERS |= {
    "think": thoughtful("think", "hermes", "</thi"),
    "think_opened": thoughtful("think", "hermes", "</thi", opened=True),
    "granite_thought": thoughtful("granite", "granite", "<response>", "</response>", "Here is my "),
    "mistral_thought": thoughtful("mistral", "mistral", "[/THI"),
    "harmony_json": thoughtful("harmony", "json", *READERS["harmony"].fragments, "<|message|>{"),
}


class Case(NamedTuple):
    """A golden case."""

    name: str
    reader: str
    tools: list[str]
    text: str
    deltas: list[Delta]


def cases() -> Iterator[Case]:
    for path in sorted(FOLDER.glob("*.json")):
        for raw in json.loads(path.read_text(encoding="utf-8")):
            deltas = [KINDS[kind](*rest) for kind, *rest in raw["deltas"]]
            yield Case(raw["name"], path.stem, raw.get("tools", list(TOOLS)), raw["text"], deltas)


CASES = list(cases())


def read(reader: Reader, text: str, edges: Sequence[int]) -> list[Delta]:
    """What the reader makes of the text if it comes in pieces that end at `edges`."""
    found: list[Delta] = []
    for start, end in zip([0, *edges], [*edges, len(text)], strict=True):
        found += reader.push(text[start:end])
    return merged(found + reader.finish())


def joined(deltas: Sequence[Delta], kind: type[Delta]) -> str:
    return "".join(delta[-1] for delta in deltas if isinstance(delta, kind))


def tokens(text: str, seed: int) -> list[int]:
    """Edges of pieces as long as tokens are."""
    chance = random.Random(seed)
    edges = [chance.randint(1, 6)]
    while edges[-1] < len(text):
        edges.append(edges[-1] + chance.randint(1, 6))
    return edges[:-1]


def is_within(part: str, text: str) -> bool:
    """Whether the characters of `part` occur in `text` in their order."""
    rest = iter(text)
    return all(char in rest for char in part)


# The golden cases


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.reader}-{case.name}")
def test_golden(case: Case) -> None:
    tools = {name: TOOLS.get(name, SCHEMA) for name in case.tools}
    make = READERS[case.reader].reader
    assert read(make(tools), case.text, []) == case.deltas
    assert read(make(tools), case.text, range(1, len(case.text))) == case.deltas
    for seed in range(20):
        assert read(make(tools), case.text, tokens(case.text, seed)) == case.deltas
        count = random.Random(seed).randint(0, min(6, len(case.text) - 1))
        edges = sorted(random.Random(seed).sample(range(1, len(case.text)), count))
        assert read(make(tools), case.text, edges) == case.deltas


def test_every_reader_has_golden_cases() -> None:
    assert {case.reader for case in CASES} == set(READERS)


# Any text


def slices(name: str) -> st.SearchStrategy[str]:
    """Parts of the golden texts: what is nearly right goes deeper into a reader than what is not."""
    texts = st.sampled_from([case.text for case in CASES if case.reader == name])
    return st.builds(lambda text, start, end: text[start:end], texts, st.integers(0, 20), st.integers(0, 200))


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_cuts_do_not_matter_and_nothing_is_lost(name: str, data: st.DataObject) -> None:
    make, fragments, framed = READERS[name]
    parts = st.sampled_from((*fragments, *JSON_FRAGMENTS)) | slices(name)
    text = "".join(data.draw(st.lists(parts, max_size=25)))
    whole = read(make(TOOLS), text, [])
    edges = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=6)))
    assert read(make(TOOLS), text, [edge for edge in edges if edge < len(text)]) == whole
    assert read(make(TOOLS), text, range(1, len(text))) == whole
    content = joined(whole, Content)
    assert is_within(content.replace("\n", "") if framed else content, text)
    if name == "forced":
        assert content == text or isinstance(whole[0], CallOpened)
    if not framed and not any(isinstance(delta, (CallOpened, Reasoning)) for delta in whole):
        assert content == text
    numbers = [delta.number for delta in whole if isinstance(delta, CallOpened)]
    assert numbers == list(range(len(numbers)))
    opened = -1
    for delta in whole:  # arguments come right behind their call's name
        opened += isinstance(delta, CallOpened)
        assert not isinstance(delta, CallArguments) or delta.number == opened


# Answers of known parts: everything is accounted for, character for character

PROSE = {  # what text around calls may be made of, beyond letters; what may belong to a call is left out
    "hermes": ' \n{}[],;<|`"tool_',
    "granite": ' \n{}[],;<|`"tool_',
    "nemotron": ' \n{}[],;<|`"TOLCA',
    "phi4_mini": ' \n{}[],;<|`"tools',
    "llama3_json": ' \n}]<|`"python_',
    "json": ' \n}]<|"',
    "mistral": ' \n{},;<`"TOOL_]',
    "deepseek_v3": ' \n{}[],;<｜`"▁',
    "deepseek_v31": ' \n{}[],;<｜`"▁',
}
LINES = ("llama3_json", "json")  # where a call begins a line


def as_object(name: str, arguments: str, key: str = "arguments", *, flipped: bool = False) -> str:
    members = [f'"name": "{name}"', f'"{key}": {arguments}']
    return "{" + ", ".join(reversed(members) if flipped else members) + "}"


def rendered(family: str, name: str, arguments: str, flipped: bool) -> str:
    call = as_object(name, arguments, FAMILIES[family].arguments_key, flipped=flipped)
    deepseek = f"{name}\n```json\n{arguments}\n```" if family == "deepseek_v3" else None
    return {
        "hermes": f"<tool_call>\n{call}\n</tool_call>",
        "granite": f"<|tool_call|>[{call}]",
        "nemotron": f"<TOOLCALL>[{call}]</TOOLCALL>",
        "phi4_mini": f"<|tool_call|>[{call}]<|/tool_call|>",
        "llama3_json": call,
        "json": f"```json\n{call}\n```" if flipped else call,
        "mistral": f"[TOOL_CALLS]{name}[ARGS]{arguments}" if flipped else f"[TOOL_CALLS] [{call}]",
        "deepseek_v3": f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{deepseek}<｜tool▁call▁end｜>",
        "deepseek_v31": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
    }[family]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\{}[]<é😀\n', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab{"', max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", PROSE)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_answers_of_known_parts(name: str, data: st.DataObject) -> None:
    text = ""
    expected: list[Delta] = []
    calls = 0
    for _ in range(data.draw(st.integers(1, 3))):
        prose = data.draw(st.text(alphabet="xyé" + PROSE[name], max_size=12))
        arguments = json.dumps(data.draw(st.dictionaries(st.text(max_size=3), VALUES, max_size=3)))
        function = data.draw(st.sampled_from(sorted(TOOLS)))
        if name in LINES and prose.strip():
            prose += "\n"
        text += prose + rendered(name, function, arguments, data.draw(st.booleans()))
        expected += [Content(prose)] if prose.strip() else []
        expected += [CallOpened(calls, function), CallArguments(calls, arguments)]
        calls += 1
    end = data.draw(st.text(alphabet="xyé" + PROSE[name], max_size=12))
    text += end
    expected += [Content(end)] if end.strip() else []
    edges = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=6)))
    reader = READERS[name].reader(TOOLS)
    assert read(reader, text, edges) == merged(expected)
    assert reader.calls == calls


# At once, and in time that grows no faster than the text


@pytest.mark.parametrize("name", ["llama3_json", "json"])
def test_json_that_is_no_call_is_content_at_once(name: str) -> None:
    reader = FAMILIES[name].reader(TOOLS)
    assert merged(reader.push('{"ci')) == [Content('{"ci')]
    assert merged(reader.push('ty": "Paris"}')) == [Content('ty": "Paris"}')]
    assert merged(FAMILIES[name].reader(TOOLS).push('{"name": "Pa')) == [Content('{"name": "Pa')]
    assert merged(FAMILIES[name].reader(TOOLS).push('{"name": "f", "d')) == [Content('{"name": "f", "d')]
    assert merged(FAMILIES[name].reader(TOOLS).push('[1, {"na')) == [Content('[1, {"na')]


@pytest.mark.parametrize("name", ["llama3_json", "json", "hermes"])
def test_names_and_arguments_come_as_they_are_written(name: str) -> None:
    reader = FAMILIES[name].reader(TOOLS)
    assert reader.push(("<tool_call>" if name == "hermes" else "") + '{"name": "f') == []
    opened = [CallOpened(0, "f")]
    assert reader.push('"') == (opened if name == "hermes" else [])
    assert reader.push(', "arguments": ') == []
    assert merged(reader.push("{")) == [*([] if name == "hermes" else opened), CallArguments(0, "{")]
    for char in '"city": "Par':
        assert reader.push(char) == [CallArguments(0, char)]
    assert reader.calls == 0
    assert merged(reader.push('is"}}')) == [CallArguments(0, 'is"}')]
    assert reader.calls == 1


UNITS = (
    *("{", "[", " ", "a", '"', "\\u", "[{", '{"name', '{"a": 1},'),
    *('{"parameters": ', '{"arguments": {', '{"parameters": {"parameters": ["'),
)


def long_texts(name: str, size: int) -> Iterator[str]:
    """Texts that are much work for a reader that goes back in them."""
    fragments = [fragment for fragment in READERS[name].fragments if len(fragment) > 1]
    for unit in (*UNITS, *fragments):
        yield unit * (size // max(9, len(unit)))
    for opening in (*fragments, '{"name": "', '{"name": "f", "arguments": "', '{"name": "f", "arguments": {"a": "'):
        for unit in ("a", " ", "\\n"):
            yield opening + unit * (size // len(unit))


def work(subject: Subject, text: str) -> int:
    """How many functions are called while a text is read."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        deltas = read(subject.reader(TOOLS), text, range(97, len(text), 97))
    finally:
        sys.setprofile(None)
    assert subject.framed or is_within(joined(deltas, Content), text)
    return count


@pytest.mark.parametrize("name", READERS)
def test_the_work_is_proportional_to_the_text(name: str) -> None:
    size = 1500
    for short, long in zip(long_texts(name, size), long_texts(name, 8 * size), strict=True):
        # A reader that goes back would work up to 64 times as much.
        assert work(READERS[name], long) < 12 * work(READERS[name], short) + 2000, long[:40]


@pytest.mark.parametrize("name", READERS)
def test_what_is_held_back_is_not_copied_again_and_again(name: str) -> None:
    # A hundred thousand characters in pieces of twenty: copying all of them each time would be gigabytes.
    for opening in ("", *READERS[name].fragments[:1], '{"parameters": {"a": "'):
        text = opening + " " * 100_000
        deltas = read(READERS[name].reader(TOOLS), text, range(20, len(text), 20))
        assert READERS[name].framed or is_within(joined(deltas, Content), text)


# The rest of the table


def test_arguments_of_a_forced_function() -> None:
    reader = Arguments("f")
    assert reader.push("") == []
    assert reader.push('{"a') == [CallOpened(0, "f"), CallArguments(0, '{"a')]
    assert reader.push('": 1}') == [CallArguments(0, '": 1}')]
    assert reader.finish() == []
    assert reader.calls == 1
    assert Arguments("f").finish() == []


def test_ids() -> None:
    assert new_id("openai") != new_id("openai")
    assert new_id("openai").startswith("call_") and len(new_id("openai")) == 29
    assert new_id("mistral").isalnum() and len(new_id("mistral")) == 9


def test_what_is_forced_is_the_work_of_no_model() -> None:
    assert FORCED.name not in FAMILIES
    assert not FORCED.markers and not FORCED.templates
    assert FORCED.arguments_key == "arguments"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tag_is_what_the_reader_reads(name: str) -> None:
    family = FAMILIES[name]
    if family.tag is None:
        return
    for function in ("f", ANY_NAME):
        text = family.tag.text(function, '{"city": "Paris"}')
        for edges in ([], range(1, len(text))):
            deltas = read(family.reader({ANY_NAME: SCHEMA, **TOOLS}), text, edges)
            assert deltas == [CallOpened(0, function), CallArguments(0, '{"city": "Paris"}')]


TEMPLATES: dict[str, tuple[str, ...]] = {
    "hermes": (
        r"""{{- "</tools>\nInside <tool_call></tool_call>:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": """,
        """{{- '<tool_call>\n{"name": "' + tool_call.name + '", "arguments": ' }}{{- '}\n</tool_call>' }}""",
    ),
    "llama3_json": (
        """{{- "<|start_header_id|>assistant" }}{{- '{"name": "' + tool_call.name + '", "parameters": ' }}""",
    ),
    "mistral": ("""{{- "[TOOL_CALLS] [" }}{{- tool_call.function|tojson }}""",),
    "mistral_args": ("""{{- "[TOOL_CALLS]" + tool.function.name + "[ARGS]" + arguments }}""",),
    "deepseek_v3": ("""{{'<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + name + '\\n' + '```json' }}""",),
    "deepseek_v31": ("""{{'<｜tool▁call▁begin｜>'+ tool['function']['name'] + '<｜tool▁sep｜>' }}""",),
    "harmony": ("""{{- "functions." + tool_call.name + "<|channel|>commentary " }}{{- "json<|message|>" }}""",),
    "qwen3_coder": (
        """{{- '\\n<tool_call>\\n<function=' + tool_call.name + '>\\n' }}{{- '<parameter=' + args_name }}""",
    ),
    "pythonic": (
        """{{- "Respond in the format [func_name1(params_name1=params_value1...), func_name2(params)] " }}""",
        """{{- "<|header_start|>system Use exact format: [func_name1(param1=value1, param2=value2), f(...)]" }}""",
    ),
    "granite": (
        """{{- '<|start_of_role|>system' }} answer with <|tool_call|> and a list """,
        """{{- '<|start_of_role|>system' }} answer with <tool_call> and a JSON list of tools """,
    ),
    "nemotron": ("""{{- '<TOOLCALL>[{\\"name\\": \\"tool_name1\\"' }}<|start_header_id|>""",),
    "phi4_mini": ("""{{ '<|tool|>' + message['tools'] + '<|/tool|>' }}""", """as functools[{"name": ..."""),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_family_is_recognised_by_its_template(name: str) -> None:
    for source in TEMPLATES[name]:
        found = recognise(source)
        assert found is not None and found.name == name


def test_other_templates_are_not_recognised() -> None:
    assert recognise("{% for message in messages %}<|im_start|>{{ message.content }}{% endfor %}") is None
    assert recognise("<|start_header_id|>{{ message.content }}<|eot_id|>") is None
