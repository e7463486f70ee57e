"""Several choices, log probs and echo: the same in a stream and in a whole answer, however the tokens are grouped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from postprocessing.events import Event, Status
from postprocessing.vocabulary import Vocabulary
from preprocessing.model import Model
from tests.core.test_answer import answer, content, cuts, events, ids
from tests.core.vocabularies import KINDS, tokenizer

Told = dict[str, Any]


def told(tokens: list[int], count: int = 2) -> Told:
    """Log probs as an engine gives them: each token's own, and `count` alternatives."""
    values = [-0.5 - 0.25 * (at % 3) for at in range(len(tokens))]
    top = [[(other, -0.25 * (rank + 1)) for rank, other in enumerate((token, 9, 10)[:count])] for token in tokens]
    return {"log_probs": values, "top": top}


def event(tokens: list[int], status: Status = Status.RUNNING, **where: int) -> Event:
    return Event(tokens, status, **where, **told(tokens))


def test_choices_interleave_with_their_indexes(model: Model) -> None:
    made = answer(model, n=2, stream=True, stream_options={"include_usage": True})
    out = made.open()
    for index, text, status in [(1, "b", 0), (0, "a", 0), (0, "A", 3), (1, "B", 3)]:
        out += made.push(Event(ids(model, text), Status(status), sequence=index))
    found = events(out)
    assert [each["choices"][0]["index"] for each in found[:2]] == [0, 1]
    assert all(each["choices"][0]["delta"] == {"role": "assistant", "content": ""} for each in found[:2])
    texts = {index: content([each for each in found[:-1] if each["choices"][0]["index"] == index]) for index in (0, 1)}
    assert texts == {0: "aA", 1: "bB"}
    reasons = [each["choices"][0]["index"] for each in found[:-1] if each["choices"][0]["finish_reason"]]
    assert sorted(reasons) == [0, 1]
    assert found[-1]["usage"]["completion_tokens"] == 4
    for each in found:
        ChatCompletionChunk.model_validate(each, strict=True)


def test_several_prompts_number_their_choices_on(model: Model) -> None:
    made = answer(model, "completions", prompt=["x", "y"], n=2)
    for prompt, sequence in [(1, 0), (0, 1), (1, 1), (0, 0)]:
        out = made.push(Event(ids(model, f"{prompt}{sequence}"), Status.LENGTH, prompt, sequence))
    body = Completion.model_validate(json.loads(out), strict=True)
    assert [choice.index for choice in body.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in body.choices] == ["00", "01", "10", "11"]


def test_the_best_candidates_are_chosen_by_their_mean(model: Model) -> None:
    made = answer(model, "completions", n=2, best_of=3)
    for sequence, (text, value) in enumerate([("low", -3.0), ("mid", -2.0), ("high high", -1.0)]):
        tokens = ids(model, text)
        out = made.push(Event(tokens, Status.LENGTH, 0, sequence, log_probs=[value] * len(tokens)))
    body = json.loads(out)
    assert [choice["text"] for choice in body["choices"]] == ["high high", "mid"]
    assert [choice["logprobs"] for choice in body["choices"]] == [None, None]
    assert body["usage"]["completion_tokens"] == sum(len(ids(model, text)) for text in ("low", "mid", "high high"))


def test_log_probs_of_a_chat(model: Model) -> None:
    tokens = ids(model, "Hi é")
    out = answer(model, logprobs=True, top_logprobs=2).push(event(tokens, Status.LENGTH))
    body = ChatCompletion.model_validate(json.loads(out), strict=True)
    assert body.choices[0].logprobs is not None and body.choices[0].logprobs.content is not None
    entries = body.choices[0].logprobs.content
    assert [entry.logprob for entry in entries] == told(tokens)["log_probs"]
    assert b"".join(bytes(entry.bytes or []) for entry in entries).decode() == "Hi é"
    assert [len(entry.top_logprobs) for entry in entries] == [2] * len(tokens)


def test_log_probs_of_a_completion(model: Model) -> None:
    tokens = ids(model, "Hello world")
    made = answer(model, "completions", logprobs=1)
    found = json.loads(made.push(event(tokens, Status.LENGTH)))["choices"][0]["logprobs"]
    assert {len(values) for values in found.values()} == {len(tokens)}
    assert "".join(found["tokens"]) == "Hello world"
    # Offsets count from the beginning of prompt and completion; the prompt is "hi".
    assert found["text_offset"][0] == 2
    assert found["text_offset"] == sorted(found["text_offset"])
    assert all(name in top for name, top in zip(found["tokens"], found["top_logprobs"], strict=True))


def test_tokens_may_be_named_by_their_ids(model: Model) -> None:
    tokens = ids(model, "Hello")
    made = answer(model, "completions", logprobs=0, return_tokens_as_token_ids=True)
    found = json.loads(made.push(event(tokens, Status.LENGTH)))["choices"][0]["logprobs"]
    assert found["tokens"] == [f"token_id:{token}" for token in tokens]


def test_echo_with_log_probs(model: Model) -> None:
    prompt = ids(model, "hi there")
    made = answer(model, "completions", prompt=prompt, echo=True, logprobs=1)
    before = told(prompt[1:])
    assert made.push(Event([0], Status.PROMPT, **before)) == b""
    tokens = ids(model, " you")
    choice = json.loads(made.push(event(tokens, Status.LENGTH)))["choices"][0]
    assert choice["text"] == "hi there you"
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == "hi there you"
    assert found["token_logprobs"] == [None, *before["log_probs"], *told(tokens)["log_probs"]]
    assert found["top_logprobs"][0] is None
    assert [choice["text"][at] for at in found["text_offset"]] == [token[0] for token in found["tokens"]]


def test_echo_alone(model: Model) -> None:
    made = answer(model, "completions", echo=True, max_tokens=0)
    body = json.loads(made.push(Event(ids(model, "x"), Status.LENGTH)))
    assert (body["choices"][0]["text"], body["choices"][0]["finish_reason"]) == ("hi", "length")
    assert body["usage"]["completion_tokens"] == 0


def test_echo_in_a_stream_comes_first(model: Model) -> None:
    made = answer(model, "completions", echo=True, stream=True)
    out = made.open() + made.push(Event([])) + made.push(Event(ids(model, "x"), Status.LENGTH))
    assert [each["choices"][0]["text"] for each in events(out)] == ["hi", "x", ""]


def test_cached_tokens_are_told(model: Model) -> None:
    made = answer(model)
    made.push(Event([7], Status.PROMPT))
    usage = json.loads(made.push(Event([], Status.END_ID)))["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 7}
    assert "prompt_tokens_details" not in json.loads(answer(model).push(Event([], Status.END_ID)))["usage"]


def test_usage_can_be_told_all_the_time(model: Model) -> None:
    made = answer(model, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    out = made.open() + b"".join(made.push(Event([token])) for token in ids(model, "a b c"))
    found = events(out + made.push(Event([], Status.END_ID)))
    counts = [each["usage"]["completion_tokens"] for each in found]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == len(ids(model, "a b c"))


def test_a_stop_string_can_be_shown(model: Model) -> None:
    made = answer(model, stop=["wor"], include_stop_str_in_output=True)
    body = json.loads(made.push(Event(ids(model, "Hello world"))))
    assert body["choices"][0]["message"]["content"] == "Hello wor"


def test_special_tokens_can_be_shown(model: Model) -> None:
    made = answer(model, skip_special_tokens=False, ignore_eos=True)
    body = json.loads(made.push(Event([*ids(model, "a"), 2], Status.LENGTH)))
    assert body["choices"][0]["message"]["content"] == "a<|start|>"


def test_stop_token_ids_end_an_answer(model: Model) -> None:
    stop = ids(model, "!")[0]
    made = answer(model, stop_token_ids=[stop])
    body = json.loads(made.push(Event([*ids(model, "a"), stop], Status.STOP_WORDS)))
    assert body["choices"][0]["message"]["content"] == "a"
    assert body["choices"][0]["finish_reason"] == "stop"


@given(data=st.data())
def test_log_probs_do_not_depend_on_grouping(model: Model, data: st.DataObject) -> None:
    size = model.tokenizer.vocab_size
    tokens = data.draw(st.lists(st.integers(0, size - 1), max_size=25))
    options: Told = {"logprobs": 1, "stop": data.draw(st.lists(st.sampled_from(["e", "ll", " t"]), max_size=2))}
    whole = json.loads(answer(model, "completions", **options).push(event(tokens, Status.LENGTH)))
    made = answer(model, "completions", stream=True, **options)
    edges = data.draw(cuts(len(tokens)))
    out = made.open()
    for start, end in zip(edges, [*edges[1:], edges[-1]], strict=True):
        given_ = told(tokens)
        status = Status.LENGTH if end == len(tokens) and start == end else Status.RUNNING
        out += made.push(
            Event(tokens[start:end], status, log_probs=given_["log_probs"][start:end], top=given_["top"][start:end])
        )
    joined: Told = {name: [] for name in whole["choices"][0]["logprobs"]}
    for each in events(out):
        for name, values in (each["choices"][0]["logprobs"] or {}).items():
            joined[name] += values
    assert joined == whole["choices"][0]["logprobs"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_tokens_join_to_the_text(kind: str) -> None:
    vocabulary = Vocabulary(tokenizer(kind))
    found = tokenizer(kind).encode("Hello 🎉 é", add_special_tokens=False).ids
    assert b"".join(map(vocabulary.bytes_of, found)).decode().strip() == "Hello 🎉 é"
    assert vocabulary.name(10**6) == ""
    names = [vocabulary.name(token) for token in found]
    assert any(name.startswith("bytes:\\x") for name in names)
