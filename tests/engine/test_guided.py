"""Guided decoding: a model that says nothing but noise says what the guide wants."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import guide_trial, guides
from engine import guided as guided_module
from engine.engine import Engine
from engine.guides import TYPES, Guide, available, compile_grammar, load_tokenizer, to_grammar
from engine.matcher import Compiled
from engine.numpy_runner import NumpyRunner
from engine.sequence import Status
from engine.settings import Settings
from tests.engine.client import PROMPT, Client, Recorder, words
from tests.engine.grammars import Language
from tests.engine.test_session import Caller

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")
tokenizers = pytest.importorskip("tokenizers")

LENGTH = 300
SHORT = {"type": "string", "maxLength": 8}
TREE = {"$defs": {"node": {"type": "object", "additionalProperties": False, "required": ["v"], "properties": {
    "v": {"type": "integer", "minimum": 0, "maximum": 9}, "next": {"$ref": "#/$defs/node"}}}}, "$ref": "#/$defs/node"}


def closed(**properties: Any) -> dict[str, Any]:
    """An object with just these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SCHEMAS: list[Any] = [
    {"type": "null"}, {"type": "boolean"}, SHORT, {"type": "string", "minLength": 3, "maxLength": 3},
    {"const": "a fixed text"}, {"const": {"a": [1, None, "x"]}}, {"enum": ["red", "green", "blue"]},
    {"enum": [1, "one", None, True, [1, 2]]},
    {"type": "integer", "minimum": 3, "maximum": 17}, {"type": "integer", "exclusiveMinimum": -5, "maximum": 5},
    {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 25},
    {"type": "number", "minimum": 0, "maximum": 1}, {"type": "number", "exclusiveMinimum": 1.5, "exclusiveMaximum": 2},
    {"type": "string", "pattern": "^[a-c]{2,4}$"}, {"type": "string", "pattern": r"^\d{3}-\d{4}$"},
    {"type": "string", "pattern": "^(yes|no)$"}, {"type": "string", "format": "date"},
    {"type": "string", "format": "uuid"}, {"type": "string", "format": "ipv4"},
    {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
    {"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": 99}]},
    {"anyOf": [closed(kind={"const": "a"}, x={"type": "boolean"}), closed(kind={"const": "b"}, y=SHORT)]},
    {"oneOf": [{"const": 1}, {"const": "x"}]},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    {"type": "array", "items": closed(n={"type": "null"}), "minItems": 1, "maxItems": 2},
    {"type": "array", "prefixItems": [{"type": "boolean"}, SHORT], "items": False, "minItems": 2},
    {"type": "array", "items": {"type": "array", "items": {"const": 0}, "maxItems": 2}, "maxItems": 2},
    closed(), closed(a={"type": "boolean"}), closed(name=SHORT, age={"type": "integer", "minimum": 0, "maximum": 150}),
    closed(outer=closed(inner=closed(deep={"enum": [1, 2]}))),
    closed(tags={"type": "array", "items": SHORT, "maxItems": 3}, ok={"type": "boolean"}),
    closed(zip={"type": "string", "pattern": "^[0-9]{5}$"}, kind={"enum": ["home", "work"]}),
    closed(maybe={"anyOf": [SHORT, {"type": "null"}]}),
    {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}, "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
     "additionalProperties": {"type": "boolean"}},
    {"type": "object", "patternProperties": {"^x_[ab]$": {"type": "boolean"}}, "additionalProperties": False},
    {"$defs": {"flag": {"type": "boolean"}}, **closed(a={"$ref": "#/$defs/flag"}, b={"$ref": "#/$defs/flag"})},
    TREE, {"$defs": {"list": {"type": "array", "items": {"$ref": "#/$defs/list"}, "maxItems": 2}},
           "$ref": "#/$defs/list"},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": False},
               {"required": ["a"]}]},
    closed(**{"a \"quoted\" näme": {"const": "ünïcödé\n"}}),
]


@pytest.fixture(scope="module")
def guided(tiny: Path, runner: NumpyRunner) -> Iterator[Client]:
    engine = Engine(runner, Settings(), str(tiny))
    engine.start()
    yield Client(engine)
    engine.close()


@pytest.fixture(scope="module")
def text_of(tiny: Path) -> Callable[[list[int]], str]:
    tokenizer = tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json"))
    return lambda tokens: tokenizer.decode(tokens, skip_special_tokens=False)


def guide(kind: str, text: Any = None) -> dict[str, Any]:
    """The two inputs."""
    if text is None:
        return {"guided_decoding_guide_type": kind}
    return {"guided_decoding_guide_type": kind,
            "guided_decoding_guide": text if isinstance(text, str) else json.dumps(text)}


def ended(recorder: Recorder) -> bool:
    """Whether an end came, not the length."""
    return recorder.wait()[-1].outputs["output_ids"].size == 0


@pytest.mark.parametrize("schema", SCHEMAS, ids=[json.dumps(schema)[:60] for schema in SCHEMAS])
def test_schemas(guided: Client, text_of: Any, schema: Any) -> None:
    asked = [guided.ask([seed + 7, *PROMPT], LENGTH, seed=seed, **sampling, **guide("json_schema", schema))
             for seed, sampling in enumerate([{}, *[{"runtime_top_p": 1.0}] * 4, {"runtime_top_k": 3}])]
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    complete = 0
    for recorder in asked:
        text = text_of(recorder.tokens)
        if ended(recorder):
            jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator, format_checker=checker)
            complete += 1
        else:
            assert len(recorder.tokens) == LENGTH
    assert complete


def test_any_object(guided: Client, text_of: Any) -> None:
    asked = [guided.ask(PROMPT, LENGTH, runtime_top_p=1.0, seed=seed, **guide("json", text))
             for seed in range(6) for text in (None, "")]
    texts = [text_of(recorder.tokens) for recorder in asked]
    assert all(text.lstrip().startswith("{") for text in texts)
    assert all(isinstance(json.loads(text), dict) for text, r in zip(texts, asked, strict=True) if ended(r))


@pytest.mark.parametrize(("regex", "good", "bad"), [
    (r"\d+", ["7"], ["\u0663"]), (r"[\d,]+", ["1,2"], ["\u0663"]), (r"[^\d]", ["\u0663"], ["7"]), (r"\D", ["x"], ["7"]),
    (r"[\D]", ["x"], ["7"]), (r"\\d", ["\\d"], ["7"]), (r"(?i)x\d", ["X1"], ["X\u0663"]), (r"\w", ["\u00e9"], ["-"]),
    (r"\s", ["\u00a0"], ["x"]), (r"[\d&&[1-3]]", ["2"], ["4"]), (r"\p{Nd}", ["\u0663"], ["x"])])
def test_digits_are_ascii(tiny: Path, regex: str, good: list[str], bad: list[str]) -> None:
    tokenizer = load_tokenizer(str(tiny))
    inside = {"format": {"type": "regex", "pattern": regex}}
    for language in (Language("regex", regex, tokenizer), Language("structural_tag", inside, tokenizer)):
        assert all(text in language for text in good) and not any(text in language for text in bad)


@pytest.mark.parametrize(("grammar", "good", "bad"), [
    (r'"\u0041\x42\U00000043"', ["ABC"], ["abc"]), (r'"\u65e5\xe9"', ["日é"], []), (r'"\x22\x5c\x0a"', ['"\\\n'], []),
    (r'"\[\"\]"', ['["]'], []), (r"[\u0041-\u0043]", ["B"], ["D", "u"]), (r"[a\u002dz]", ["-"], ["b"]),
    (r"[^\x5d]", ["["], ["]"]), (r"[\u3041-\u3096]+", ["ひらがな"], ["x"]),
    ('"a" # "\\x0a [\nother ::= "b"', ["a"], ["b"])])
def test_escapes_of_gbnf(tiny: Path, grammar: str, good: list[str], bad: list[str]) -> None:
    language = Language("ebnf_grammar", "root ::= " + grammar, load_tokenizer(str(tiny)))
    assert all(text in language for text in good) and not any(text in language for text in bad)


REGEXES = [r"ab*c", r"\d{3}-\d{4}", r"(yes|no)", r"[A-Z][a-z]{2,5}( [A-Z][a-z]{2,5})?", r"[^,]{1,4}, [A-Z]{2}",
           r"(é|日本){2}", r"(a|aa){1,9}b", r"x?"]


@pytest.mark.parametrize("regex", REGEXES)
def test_regexes(guided: Client, text_of: Any, regex: str) -> None:
    for seed in range(4):
        recorder = guided.ask(PROMPT, 64, runtime_top_p=1.0, seed=seed, **guide("regex", regex))
        text = text_of(recorder.tokens)
        assert re.fullmatch(regex, text) or not ended(recorder), text


@pytest.mark.parametrize(("kind", "text", "regex"), [
    ("ebnf_grammar", 'root ::= "<" word ("," word){1,2} ">"\nword ::= [a-z]{1,3}\n', r"<[a-z]{1,3}(,[a-z]{1,3}){1,2}>"),
    ("ebnf_grammar", 'root ::= "yes" | "no"', "yes|no"),
    ("lark_grammar", 'start: "n" NUMBER\nNUMBER: /[0-9]{2,3}/\n', "n[0-9]{2,3}"),
    ("lark_grammar", 'start: "[" %json {"type": "boolean"} "]"', r"\[(true|false)\]"),
    ("llguidance", {"grammars": [{"json_schema": {"enum": [7, 8]}}]}, "7|8"),
])
def test_grammars(guided: Client, text_of: Any, kind: str, text: Any, regex: str) -> None:
    for seed in range(4):
        recorder = guided.ask(PROMPT, 64, runtime_top_p=1.0, seed=seed, **guide(kind, text))
        assert ended(recorder) and re.fullmatch(regex, text_of(recorder.tokens))


TAG = {"begin": "<f>", "schema": closed(a={"type": "boolean"}), "end": "</f>"}
TAGS = [{"type": "structural_tag", "structures": [TAG], "triggers": ["<"]},
        {"type": "structural_tag", "format": {"type": "triggered_tags", "triggers": ["<"], "tags": [
            {**TAG, "content": {"type": "json_schema", "json_schema": TAG["schema"]}}]}}]


@pytest.mark.parametrize("tag", TAGS)
def test_structural_tags(guided: Client, runner: NumpyRunner, text_of: Any, tiny: Path, tag: Any) -> None:
    bias = np.zeros((1, runner.vocab_size), np.float32)
    bias[0, tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json")).token_to_id("<")] = 8  # makes it likely
    found = 0
    for seed in range(4):
        values = {"runtime_top_p": 1.0, "seed": seed, "embedding_bias": bias, **guide("structural_tag", tag)}
        text = text_of(guided.ask(PROMPT, 100, **values).tokens)
        tags = re.findall(r"<f>(.*?)</f>", text, re.DOTALL)
        assert all(set(json.loads(content)) == {"a"} for content in tags)
        assert all("<f>".startswith(rest[:3]) for rest in re.findall(r"<(?!/f>).*", text, re.DOTALL))
        found += len(tags)
    assert found


def test_ends_like_an_end_id(guided: Client, text_of: Any, tiny: Path) -> None:
    eos, other = json.loads((tiny / "generation_config.json").read_text())["eos_token_id"]
    unset = guided.ask(PROMPT, 30, **guide("regex", "abc"))
    assert text_of(unset.tokens) == "abc" and ended(unset)
    for values in ({"end_id": eos}, {"end_id": other}, {"end_id": 40}, {"stop_words_list": words((eos,))},
                   {"min_tokens": 20}, {"min_tokens": 20, "end_id": eos}):
        recorder = guided.ask(PROMPT, 30, **values, **guide("regex", "abc"))
        assert recorder.tokens == unset.tokens and ended(recorder), values
    longer = guided.ask(PROMPT, 40, min_tokens=20, end_id=eos, **guide("regex", "x{0,30}"))
    assert len(longer.tokens) >= 20 or text_of(longer.tokens) == "x" * 30
    caller = Caller(guided)
    caller.submit(1, 30, **guide("regex", "abc"))
    (record,) = caller.drain()
    assert record.status == 1 and record.tokens == unset.tokens


def test_a_text_token_as_end_id_ends_only_what_is_complete(guided: Client, text_of: Any, tiny: Path) -> None:
    letter = tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json")).token_to_id("b")
    recorder = guided.ask(PROMPT, 30, end_id=letter, runtime_top_p=1.0, **guide("regex", "a[bc]{3}d"))
    assert letter not in recorder.tokens and re.fullmatch("a[bc]{3}d", text_of(recorder.tokens))


def test_each_of_n_has_its_own_place(guided: Client, text_of: Any) -> None:
    recorder = guided.ask(PROMPT, 40, num_return_sequences=5, runtime_top_p=1.0, streaming=False,
                          exclude_input_in_output=True, **guide("regex", "[a-z]{4,8}"))
    texts = [text_of(r.outputs["output_ids"][0, 0].tolist()) for r in recorder.wait()]
    assert len(set(texts)) > 2 and all(re.fullmatch("[a-z]{4,8}", text) for text in texts)


def test_log_probs_stay_raw(guided: Client) -> None:
    values = {"return_generation_logits": True, "streaming": False, "return_log_probs": True,
              "exclude_input_in_output": True}
    outputs = guided.ask(PROMPT, 20, **values, **guide("regex", "[0-9]{30}")).wait()[-1].outputs
    logits, tokens = outputs["generation_logits"][0, 0], outputs["output_ids"][0, 0]
    expected = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(
        -1, keepdims=True)
    assert np.isfinite(logits).all()
    assert np.allclose(outputs["output_log_probs"][0, 0], expected[np.arange(len(tokens)), tokens], atol=1e-4)


def test_the_others_do_not_notice(guided: Client) -> None:
    values = [{"seed": i, "runtime_top_p": 0.9} if i % 2 else {} for i in range(4)]
    alone = [guided.ask([i + 9, *PROMPT], 40, **v).tokens for i, v in enumerate(values)]
    with_guides = []
    for i, v in enumerate(values):
        with_guides.append((guided.ask([i + 9, *PROMPT], 40, **v), guided.ask(PROMPT, 40, seed=i, **guide("json"))))
    assert [plain.tokens for plain, _ in with_guides] == alone


def test_a_guided_sequence_does_not_depend_on_company(guided: Client) -> None:
    values = {"runtime_top_p": 1.0, **guide("json_schema", SCHEMAS[30])}
    alone = [guided.ask(PROMPT, 60, seed=seed, **values).tokens for seed in range(4)]
    together = [guided.ask(PROMPT, 60, seed=seed, **values) for seed in range(4)]
    assert [recorder.tokens for recorder in together] == alone


BAD = [
    ("json_schema", "{", "it is not JSON"), ("json_schema", "[]", "a JSON schema is an object"),
    ("json_schema", {"type": "nothing"}, "Invalid type: nothing"), ("json_schema", {"not": {}}, "Unimplemented"),
    ("json_schema", {"$ref": "#"}, "refers to itself"), ("json_schema", {"enum": []}, "Unsatisfiable"),
    ("regex", "(", "invalid regex"), ("regex", "a(?=b)", "invalid regex"), ("ebnf_grammar", "foo", "Expected ::="),
    ("ebnf_grammar", 'a ::= "b"', "No 'root' rule"), ("lark_grammar", "x: y", ""),
    ("lark_grammar", "start: start", "no text"),
    ("llguidance", "{}", "grammars"), ("llguidance", "start: x", "it is not JSON"),
    ("structural_tag", {"structures": [TAG], "triggers": ["#"]}, "no trigger fits"),
    ("structural_tag", {"format": {"type": "token_dispatch"}}, "triggered_tags"),
]


@pytest.mark.parametrize(("kind", "text", "reason"), BAD)
def test_bad_guides(guided: Client, kind: str, text: Any, reason: str) -> None:
    recorder = guided.ask(PROMPT, 8, **guide(kind, text))
    assert recorder.error.startswith("Invalid guided decoding guide: ") and "\n" not in recorder.error
    assert reason in recorder.error and len(recorder.responses) == 1
    caller = Caller(guided, 77).known()
    (answer,) = caller.submit(1, **guide(kind, text)).wait()
    assert reason in answer.error
    caller.submit(1, 3)  # the id is free
    assert [record.status for record in caller.drain()] == [3]


@pytest.mark.parametrize(("values", "reason"), [
    (guide("yaml", "x"), "guided_decoding_guide_type: wanted one of json, json_schema"),
    (guide("regex"), "guided_decoding_guide is present"),
    ({"guided_decoding_guide": "x"}, "guided_decoding_guide_type"),
    (guide("regex", "a" * (300 << 10)), "at most 262144 bytes"),
    ({**guide("regex"), "guided_decoding_guide": np.array([[b"\xff"]], object)}, "not UTF-8"),
])
def test_bad_inputs(guided: Client, values: Any, reason: str) -> None:
    assert reason in guided.ask(PROMPT, 8, **values).error


def test_hello_and_engines_without_a_tokenizer(guided: Client, client: Client, tiny: Path, tmp_path: Path) -> None:
    def types(of: Client) -> Any:
        return json.loads(Caller(of).send(0).wait()[0].outputs["session_texts"][0, 0])["guide_types"]

    assert types(guided) == list(TYPES) and types(client) == []
    assert "GuidedDecoder is not setup" in client.ask(PROMPT, 8, **guide("json")).error
    assert available(None) == available(str(tmp_path)) == () and available(str(tiny))


def test_a_tokenizer_that_cannot_be_used(make_client: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "GuidedDecoder is not setup" in make_client(folder=str(tmp_path)).ask(PROMPT, 8, **guide("json")).error


def nested(depth: int) -> str:
    return '{"items":' * depth + "{}" + "}" * depth


HOSTILE = {
    "deep schema": ("json_schema", nested(20000)),
    "deep regex": ("regex", "(" * 50000 + "a" + ")" * 50000),
    "deep grammar": ("ebnf_grammar", "root ::= " + "(" * 20000 + '"a"' + ")" * 20000),
    "never compiles": ("json_schema", {
        "type": "string", "allOf": [{"pattern": f".*a.{{{i}}}b"} for i in range(10, 30)]}),
    "never converts": ("ebnf_grammar", "root ::= r0\n" + "\n".join(
        f'r{i} ::= "a" r{i + 1} | "b" r{i + 1}' for i in range(5000)) + '\nr5000 ::= "x"'),
    "slow masks": ("regex", "(a{1000}){1000}"),
    "long literal": ("regex", "a" * 250_000),
    "many choices": ("json_schema", {"allOf": [{"anyOf": [closed(**{f"p{i}{j}": {}}) for j in range(4)]}
                                               for i in range(12)]}),
    "too many properties": ("json_schema", {"type": "object", "properties": {
        f"p{i}": {"type": "string", "pattern": "^(a|b)*c{1,100}$"} for i in range(3000)}}),
    "too many items": ("json_schema", {"type": "object", "properties": {f"p{i}": {} for i in range(1500)}}),
    "never ends": ("ebnf_grammar", 'root ::= "a" root'),
    "never ends later": ("ebnf_grammar", 'root ::= "x" [a-z]{3} rest\nrest ::= "a" rest'),
    "long and ambiguous": ("json_schema", {"type": "string", "minLength": 100000, "pattern": "^(a|b.{5})*$"}),
    "endless references": ("json_schema", {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_guides_fail_in_bounded_time_while_others_go_on(
        guided: Client, name: str) -> None:
    victim = guided.ask(PROMPT, 2000)
    started = time.monotonic()
    recorder = guided.ask(PROMPT, 2000, **guide(*HOSTILE[name]))
    assert recorder.wait(3 * guide_trial.SECONDS + 5)[-1].error.startswith("Invalid guided decoding guide: ")
    assert time.monotonic() - started < 3 * guide_trial.SECONDS + 5
    assert len(victim.tokens) == 2000
    assert np.diff(victim.times).max() < 1.5
    assert ended(guided.ask(PROMPT, 20, **guide("regex", "ab")))


def test_a_catastrophic_regex_is_none_here(guided: Client, text_of: Any) -> None:
    recorder = guided.ask(PROMPT, 60, **guide("regex", "(x+x+)+y|(a|aa)*b"))
    assert set(text_of(recorder.tokens)) <= set("xyab")


def test_cancelled_while_it_compiles(make_client: Any, tiny: Path) -> None:
    client = make_client(folder=str(tiny))
    slow = guide(*HOSTILE["never compiles"])
    gone, caller = client.ask(PROMPT, 100, request_id="a", **slow), Caller(client)
    submitted = caller.submit(1, 50, **guide("regex", "[a-z]{40}"))  # waits for nothing: there are two threads
    client.send(request_id="a", stop=True, input_ids=[0], input_lengths=1, request_output_len=0).wait()
    assert gone.wait(2)[-1].final and not gone.responses[-1].error
    assert not submitted.wait()[0].error and caller.drain()[0].status in (1, 3)
    refused = caller.submit(2, **guide("regex", "(a{1000}){1001}"))
    caller.send(3, session_sequence_ids=[2]).wait()
    assert "takes too long" in refused.wait()[0].error  # to enforce, or on a busy machine to compile
    assert not caller.submit(2, 2).wait()[0].error


def test_closing_does_not_wait_for_guides(runner: NumpyRunner, tiny: Path) -> None:
    engine = Engine(runner, Settings(), str(tiny))
    engine.start()
    asked = [Client(engine).ask(PROMPT, 8, **guide("json_schema", {**HOSTILE["never compiles"][1], "title": str(i)}))
             for i in range(4)]
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 2
    assert all(recorder.error for recorder in asked)


def test_many_sequences_share_one_compilation(guided: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    grammar = guide_trial.Trial.grammar
    monkeypatch.setattr(guide_trial.Trial, "grammar", lambda self, asked: calls.append(asked) or grammar(self, asked))
    asked = [guided.ask(PROMPT, 8, **guide("regex", "once and for all")) for _ in range(20)]
    assert all(recorder.tokens for recorder in asked) and len(calls) == 1


def test_refused_guides_are_not_tried_again(
        make_client: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, calls = make_client(folder=str(tiny)), []
    grammar = guide_trial.Trial.grammar
    monkeypatch.setattr(guide_trial.Trial, "grammar", lambda self, asked: calls.append(asked) or grammar(self, asked))
    slow = guide(*HOSTILE["never compiles"])
    together = [client.ask(PROMPT, 8, **slow) for _ in range(5)]
    assert all("takes too long" in recorder.error for recorder in together) and len(calls) == 1
    started = time.monotonic()
    again = client.ask(PROMPT, 8, **slow)
    assert again.error == together[0].error and len(calls) == 1 and time.monotonic() - started < 1
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + guided_module.REFUSED_SECONDS)
    assert "takes too long" in client.ask(PROMPT, 8, **slow).error and len(calls) == 2


def test_what_is_known_of_refusals_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided_module, "REFUSED", 3)
    refusals = guided_module.Refusals()
    for i in range(5):
        refusals.add(Guide("regex", str(i)), f"no {i}")
    assert [refusals.reason(Guide("regex", str(i))) for i in range(5)] == ["", "", "no 2", "no 3", "no 4"]
    assert refusals.reason(Guide("json_schema", "4")) == ""


def test_many_hostile_guides_are_answered_in_time(make_client: Any, tiny: Path) -> None:
    """Within the patience of the front; who waits too long hears that."""
    client, started = make_client(folder=str(tiny)), time.monotonic()
    hostile = [client.ask(PROMPT, 8, **guide("json_schema", {**HOSTILE["never compiles"][1], "title": str(i)}))
               for i in range(12)]
    errors = [recorder.error for recorder in hostile]
    assert time.monotonic() - started < 10
    tried = sum("takes too long to compile" in error for error in errors)
    assert tried in (2, 3, 4)  # as fast as processes start
    assert tried + sum("Too many guides wait" in error for error in errors) == len(errors)
    assert client.ask(PROMPT, 20, **guide("regex", "ab")).tokens


@pytest.mark.parametrize("name", ["bad_words_list", "embedding_bias"])
def test_nothing_is_left_to_choose_from(guided: Client, runner: NumpyRunner, tiny: Path, name: str) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json"))
    letters, bias = [tokenizer.token_to_id(letter) for letter in "ab"], np.zeros((1, runner.vocab_size), np.float32)
    bias[0, letters] = -np.inf
    values = {"bad_words_list": words(*((letter,) for letter in letters)), "embedding_bias": bias}
    recorder = guided.ask(PROMPT, 8, **{name: values[name]}, **guide("regex", "([ab]x){3}"))
    assert recorder.error == "Invalid guided decoding guide: bad words or biases leave no token that it allows"
    assert len(guided.ask(PROMPT, 8).tokens) == 8


def test_a_guide_that_fails_late_ends_with_its_reason(guided: Client) -> None:
    """Behind what is tried out."""
    grammar = guide("ebnf_grammar", 'root ::= [0-9]{600} rest\nrest ::= "a" rest')
    caller = Caller(guided)
    caller.submit(1, 700, **grammar)
    assert [record.status for record in caller.drain()] == [Status.ERROR]
    assert guided.ask(PROMPT, 700, **grammar).error == "Invalid guided decoding guide: it never ends, or is too complex"


@pytest.mark.parametrize("vocab_size", [1000, 1280, 1400])
def test_vocabularies_of_another_size(tiny: Path, vocab_size: int) -> None:
    tokenizer = load_tokenizer(str(tiny))
    compiled = Compiled(compile_grammar(to_grammar(Guide("regex", r"(.|\n)*"), tokenizer), tokenizer),
                        frozenset(tokenizer.eos_tokens), tokenizer.vocab_size)
    ids = compiled.matcher().allowed(vocab_size, -1, False)
    assert len(ids) > 500 and ids.max() < min(vocab_size, tokenizer.vocab_size)
    assert (set(tokenizer.eos_tokens) <= set(ids.tolist())) == (vocab_size >= 1280)


def test_slow_masks_end_the_sequence_and_the_guide(
        make_client: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, slow = make_client(folder=str(tiny)), guide("regex", "[a-z]{100}")
    monkeypatch.setattr(guides, "SLOW_MASK", 0.0)
    monkeypatch.setattr(guides, "MASK_SECONDS", 0.0001)
    other = client.ask(PROMPT, 200)
    assert client.ask(PROMPT, 100, **slow).error == "Invalid guided decoding guide: it takes too long to enforce"
    monkeypatch.undo()
    assert "too long to enforce" in client.ask(PROMPT, 100, **slow).error
    assert len(other.tokens) == 200 and len(client.ask(PROMPT, 9, **guide("regex", "[a-z]{101}")).tokens) == 9


def test_trials_survive_the_end_of_their_copy(tiny: Path) -> None:
    """Also when it ends while nobody asks: an answer is never taken for another guide's."""
    trial = guide_trial.Trial(str(tiny))
    expected = trial.grammar(Guide("regex", "ab"))
    process = trial.start()
    (copy,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(copy), signal.SIGKILL)
    with pytest.raises(guide_trial.TrialError, match="could not be compiled"):
        trial.grammar(Guide("regex", "cd"))
    assert trial.grammar(Guide("regex", "ab")) == expected and trial.start() is process
    trial.close()
    assert process.poll() is not None and not Path(f"/proc/{process.pid}").exists()
    with pytest.raises(guide_trial.Stopped):
        trial.grammar(Guide("regex", "ab"))
