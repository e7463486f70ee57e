"""Structural tags: text stays free until a tag begins, also where parts of the tag are single tokens."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.guides import GuideError, load_tokenizer
from preprocessing.guides import Guide as Asked
from preprocessing.guides import behind_thought
from tests.engine.client import PROMPT
from tests.engine.grammars import Language
from tests.engine.test_guided import closed, ended, guide

pytest.importorskip("llguidance")
tokenizers = pytest.importorskip("tokenizers")

NULL = {"type": "null"}
F = {"begin": '<tool_call>\n{"name": "f", "arguments": ', "schema": closed(a=NULL), "end": "}\n</tool_call>"}
G = {"begin": '<tool_call>\n{"name": "g", "arguments": ', "schema": {"$ref": "#/$defs/n", "$defs": {"n": {
    "type": "integer", "minimum": 0, "maximum": 99}}}, "end": "}\n</tool_call>"}
OLDER = {"type": "structural_tag", "structures": [F, G], "triggers": ["<tool_call>"]}
TAGS = [{"type": "tag", "begin": tag["begin"], "end": tag["end"],
         "content": {"type": "json_schema", "json_schema": tag["schema"]}} for tag in (F, G)]
CALL_F = '<tool_call>\n{"name": "f", "arguments": {"a": null}}\n</tool_call>'
CALL_G = '<tool_call>\n{"name": "g", "arguments": 12}\n</tool_call>'


def newer(**flags: bool) -> dict[str, Any]:
    return {"format": {"type": "triggered_tags", "triggers": ["<tool_call>"], "tags": TAGS, **flags}}


@pytest.fixture(scope="module", params=["in letters", "added", "special"])
def folder(request: Any, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint; some of its special tokens have become others, which are special or just added."""
    folder = tmp_path_factory.mktemp("tags")
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    names = dict(zip(("<|start_header_id|>", "<|end_header_id|>", "<|pad|>"),
                     ("<tool_call>", "</tool_call>", "</think>"), strict=True))
    if request.param != "in letters":
        text = json.loads((tiny / "tokenizer.json").read_text())
        for token in text["added_tokens"]:
            if token["content"] in names:
                token["content"] = names[token["content"]]
                token["special"] = request.param == "special"
        (folder / "tokenizer.json").write_text(json.dumps(text))
    return folder


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    return load_tokenizer(str(folder))


@pytest.mark.parametrize("tag", [OLDER, newer()])
def test_text_is_free_and_arguments_are_not(tokenizer: Any, tag: Any) -> None:
    language = Language("structural_tag", tag, tokenizer)
    good = ["", "Hello", CALL_F, CALL_G, f"Let me see.\n{CALL_F}\n{CALL_G} Done.", "a <tool_cal l> b </tool_call> c",
            f"hm </think> {CALL_F}"]
    bad = [CALL_F.replace("null", "1"), CALL_G.replace("12", "120"), CALL_F.replace('"f"', '"h"'), "<tool_call>hello",
           CALL_F[:-1], f"{CALL_F}<tool_call>"]
    assert [text for text in good if text not in language] == []
    assert [text for text in bad if text in language or language.spelled(text)] == []


@pytest.mark.parametrize(("flags", "good", "bad"), [
    ({"at_least_one": True}, [CALL_F, CALL_F + CALL_G + "x"], ["", "x", "x" + CALL_F]),
    ({"stop_after_first": True}, ["", "x", "x" + CALL_F], [CALL_F + "x", CALL_F + CALL_G]),
    ({"at_least_one": True, "stop_after_first": True}, [CALL_G], ["", "x" + CALL_F, CALL_F + CALL_F]),
])
def test_how_many_tags(tokenizer: Any, flags: Any, good: list[str], bad: list[str]) -> None:
    language = Language("structural_tag", newer(**flags), tokenizer)
    assert [text for text in good if text not in language] == []
    assert [text for text in bad if text in language or language.spelled(text)] == []


@pytest.mark.parametrize("trigger", ["<", "<tool", "<tool_call>\n{"])
def test_triggers_that_are_no_whole_token(tokenizer: Any, trigger: str) -> None:
    language = Language("structural_tag", {**OLDER, "triggers": [trigger]}, tokenizer)
    assert CALL_F + "x" + CALL_G in language and "x" in language
    assert CALL_F.replace("null", "1") not in language and not language.spelled(CALL_F.replace("null", "1"))


def thought_then(content: Any) -> dict[str, Any]:
    """A thought, which the chat template has begun, then the answer."""
    return {"format": {"type": "sequence", "elements": [
        {"type": "tag", "begin": "", "content": {"type": "any_text"}, "end": "</think>"},
        {"type": "regex", "pattern": r"\s*"}, content]}}


def test_a_schema_behind_a_thought(tokenizer: Any) -> None:
    language = Language("structural_tag", thought_then(TAGS[0]["content"]), tokenizer)
    for text in ('Well, {"a": 1}?\n</think>\n\n{"a": null}', '</think>{"a":null}'):
        assert text in language and language.spelled(text)
    for text in ('{"a":null}', 'x</think>{"a":1}', 'x</think>y{"a":null}', 'x</think>{"a":null}y', 'x</think>'):
        assert text not in language and not language.spelled(text)
    either = {"type": "or", "elements": [{"type": "const_string", "value": 'a "text" 👍'}, newer()["format"]]}
    language = Language("structural_tag", thought_then(either), tokenizer)
    assert all(text in language for text in ('x</think>a "text" 👍', f"x</think>So {CALL_F} y"))
    assert CALL_F.replace("null", "1") not in language


def test_the_same_in_lark(tokenizer: Any) -> None:
    """In letters with a lazy rule, as a token by its name: one of the two."""
    answer = f"answer: %json {json.dumps(closed(a=NULL))}\n"
    letters = Language("lark_grammar", f"start: thought /\\s*/ answer\nthought[lazy]: /(?s:.*)<\\/think>/\n{answer}",
                       tokenizer)
    right, wrong = 'Well, {"a": 1}?\n</think>\n\n{"a": null}', 'Well.</think>{"a": 1}'
    assert letters.spelled(right) and not letters.spelled(wrong) and wrong not in letters
    by_name = f"start: TEXT </think> /\\s*/ answer\nTEXT: /(.|\\n)*/\n{answer}"
    if tokenizer.is_special_token(tokenizer.tokenize_str("</think>", parse_special=True)[0]):
        token = Language("lark_grammar", by_name, tokenizer)
        assert right in token and wrong not in token and right not in letters and not token.spelled(right)
    else:
        assert right in letters
        with pytest.raises(GuideError, match="unknown special token"):
            Language("lark_grammar", by_name, tokenizer)


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_calls_at_random(make_client: Any, folder: Path, seed: int) -> None:
    """Not only the grammar: with the token in the vocabulary, the model writes it, and it is found in the text."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.get_vocab_size())]
    bias = np.array([[7 * text.startswith("<") * "<tool_call>".startswith(text) - 4 * (not text.strip())
                      for text in texts]], np.float32)
    recorder = make_client(folder=str(folder)).ask(
        PROMPT, 600, runtime_top_p=1.0, seed=seed, min_tokens=200, embedding_bias=bias,
        **guide("structural_tag", OLDER))
    text = tokenizer.decode(recorder.tokens, skip_special_tokens=False)
    calls = re.findall(r'<tool_call>\n\{"name": "([fg])", "arguments": (.*?)\}\n</tool_call>', text, re.DOTALL)
    assert len(calls) >= text.count("<tool_call>") - (not ended(recorder))
    for name, arguments in calls:
        assert json.loads(arguments) == {"a": None} if name == "f" else 0 <= json.loads(arguments) <= 99
    assert calls or tokenizer.token_to_id("<tool_call>") is None


@pytest.mark.parametrize(("tag", "reason"), [
    ([], "is a JSON object"), ({}, "structures"), ({"structures": [F]}, "triggers"),
    ({"structures": [F], "triggers": ["#"]}, "no trigger fits"),
    ({"structures": [{"begin": "<tool_call>"}], "triggers": ["<"]}, "begin, schema and end"),
    ({"structures": [{**F, "schema": {"not": {}}}], "triggers": ["<"]}, "not"),
    ({"format": {"type": "token_dispatch"}}, "a format is one of json_schema, regex"),
    ({"format": 1}, "a format is one"),
    ({"format": {"type": "json_schema", "json_schema": {}, "style": "qwen_xml"}}, "json_schema: style"),
    ({"format": {"type": "any_text", "max_tokens": 5}}, "any_text: max_tokens"),
    ({"format": {**newer()["format"], "excludes": ["x"]}}, "triggered_tags: excludes"),
    ({"format": {"type": "sequence", "elements": [{"type": "any_text"}, {"type": "any_text"}]}},
     "any_text must be the last"),
    ({"format": {"type": "regex", "pattern": "("}}, "unclosed group"),
    ({"format": {"type": "regex"}}, "pattern: wanted"),
])
def test_refusals(tokenizer: Any, tag: Any, reason: str) -> None:
    with pytest.raises(GuideError, match=reason):
        Language("structural_tag", tag, tokenizer)


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("schema", [closed(a=NULL), True])
def test_what_the_server_asks_for_behind_a_thought(folder: Path, opened: bool, schema: Any) -> None:
    """`preprocessing.guides.behind_thought`: a thought, perhaps none, then what the constraint says."""
    made = behind_thought(Asked("json_schema", json.dumps(schema)), "<tool_call>", "</tool_call>", opened=opened)
    assert made is not None and made.text is not None
    language = Language(made.type, made.text, load_tokenizer(folder))
    begin = "" if opened else "<tool_call>"
    assert f'{begin}Hm <b> {{"x"}}\n</tool_call>\n\n{{"a": null}}' in language
    assert f'{begin}</tool_call>{{"a": null}}' in language
    assert ('{"a": null}' in language) is not opened
    assert f"{begin}Hm</tool_call>text" not in language
    assert f"{begin}Hm" not in language
    if schema is not True:
        assert f'{begin}Hm</tool_call>{{"a": 1}}' not in language
