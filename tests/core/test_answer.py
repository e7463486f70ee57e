"""Golden answers: the engine's tokens in, the exact bytes for the client out, however the tokens are grouped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from postprocessing.answer import Answer
from postprocessing.ending import infer
from postprocessing.events import Event, Status
from postprocessing.shapes import Identity
from postprocessing.vocabulary import Vocabulary
from preprocessing.errors import Kind, OpenAIError
from preprocessing.generation import Generation, prepare
from preprocessing.model import Model

END = 3  # <|end|>
IDENTITY = Identity("chatcmpl-1", 1700000000, "m", "fp_0")


def generation(model: Model, endpoint: str = "chat/completions", **changes: Any) -> Generation:
    asked = {"messages": [{"role": "user", "content": "hi"}]} if endpoint == "chat/completions" else {"prompt": "hi"}
    body = {"model": "m"} | asked | changes
    return prepare(endpoint, body, model, seed=1)


def answer(model: Model, endpoint: str = "chat/completions", **changes: Any) -> Answer:
    asked = generation(model, endpoint, **changes)
    return Answer(asked, model.tokenizer, Vocabulary(model.tokenizer.backend), IDENTITY)


def run(made: Answer, groups: list[list[int]], status: Status = Status.LENGTH) -> bytes:
    out = made.open()
    for at, group in enumerate(groups):
        out += made.push(Event(group, status if at == len(groups) - 1 else Status.RUNNING))
    assert made.done
    return out


def events(wire: bytes) -> list[Any]:
    """The decoded chunks of a stream; checks the framing and the end."""
    *parts, last = wire.decode("ascii").split("\n\n")
    assert last == ""
    assert all(part.startswith("data: ") for part in parts)
    assert parts[-1] == "data: [DONE]"
    return [json.loads(part[6:]) for part in parts[:-1]]


def ids(model: Model, text: str) -> list[int]:
    return model.tokenizer.encode(text, add_special_tokens=False)


def content(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


COMMON = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1700000000,
    "model": "m",
    "system_fingerprint": "fp_0",
}


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return COMMON | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}


def test_a_chat_stream(model: Model) -> None:
    made = answer(model, stream=True)
    found = events(run(made, [ids(model, "Hello"), ids(model, " world"), []], Status.END_ID))
    assert found == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hello"}),
        chunk({"content": " world"}),
        chunk({}, "stop"),
    ]


def test_usage_comes_once_at_the_end(model: Model) -> None:
    made = answer(model, stream=True, stream_options={"include_usage": True})
    found = events(run(made, [ids(model, "Hello")]))
    prompt = len(generation(model).prompts[0].ids)
    count = len(ids(model, "Hello"))
    usage = {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}
    assert [each["usage"] for each in found] == [None, None, None, usage]
    assert found[-1]["choices"] == []


def test_a_completion_stream(model: Model) -> None:
    made = answer(model, "completions", stream=True)
    found = events(run(made, [ids(model, "Hello")]))
    choices = [each["choices"][0] for each in found]
    assert choices == [
        {"index": 0, "text": "Hello", "logprobs": None, "finish_reason": None},
        {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"},
    ]
    Completion.model_validate(found[-1], strict=True)


def test_whole_answers_are_what_openai_python_expects(model: Model) -> None:
    chat = json.loads(run(answer(model), [ids(model, "Hello")]))
    parsed = ChatCompletion.model_validate(chat, strict=True)
    assert parsed.choices[0].message.content == "Hello"
    assert parsed.usage is not None
    text = json.loads(run(answer(model, "completions"), [ids(model, "Hello")]))
    assert Completion.model_validate(text, strict=True).choices[0].text == "Hello"
    assert set(text) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}


def test_chunks_are_what_openai_python_expects(model: Model) -> None:
    made = answer(model, stream=True, stream_options={"include_usage": True})
    for each in events(run(made, [ids(model, "Hi 🎉")])):
        ChatCompletionChunk.model_validate(each, strict=True)


def test_end_tokens_end_the_answer_and_are_neither_shown_nor_counted(model: Model) -> None:
    made = answer(model)
    body = json.loads(run(made, [[*ids(model, "Hello"), 1, *ids(model, "never")]], Status.STOP_WORDS))
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == len(ids(model, "Hello"))


def test_a_stop_string_ends_the_answer_and_is_not_shown(model: Model) -> None:
    made = answer(model, stream=True, stop=["wor"], stream_options={"include_usage": True})
    tokens = ids(model, "Hello world and more")
    out = made.open() + b"".join(made.push(Event([token])) for token in tokens)
    found = events(out)
    assert content(found) == "Hello "
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert made.done
    shown = 0
    while "wor" not in model.tokenizer.backend.decode(tokens[:shown]):
        shown += 1
    assert found[-1]["usage"]["completion_tokens"] == shown


def test_a_held_back_beginning_of_a_stop_string_comes_out_at_the_end(model: Model) -> None:
    made = answer(model, stream=True, stop=["world!"])
    assert content(events(run(made, [[token] for token in ids(model, "Hello world")]))) == "Hello world"


def test_nothing_flashes_and_nothing_is_lost_when_a_character_is_cut(model: Model) -> None:
    made = answer(model, stream=True)
    found = events(run(made, [[token] for token in ids(model, "ok 😀")[:-1]]))
    texts = [each["choices"][0]["delta"].get("content", "") for each in found]
    assert not any("\ufffd" in text for text in texts[:-2])
    assert texts[-2].endswith("\ufffd")
    assert "".join(texts).startswith("ok \ufffd")


def test_an_engine_error_becomes_an_event(model: Model) -> None:
    made = answer(model, stream=True)
    made.open()
    with pytest.raises(OpenAIError) as caught:
        made.push(Event((), Status.ERROR, error="Encountered an error in forwardSync function: /secret/path"))
    assert caught.value.kind is Kind.INTERNAL
    last = json.loads(made.fail(caught.value).decode().removeprefix("data: "))
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert "secret" not in last["error"]["message"]
    assert made.done
    assert made.push(Event(ids(model, "late"))) == b""


ENGINE_ERRORS = [
    (
        "x: Prompt length (9) exceeds maximum input length (5). Set log level",
        400,
        "at most 5 tokens, but the request has 9",
    ),
    ("Maximum queue size of 3 has been reached, please try again later", 429, "Try again later"),
    ("Request for unknown model: 'tensorrt_llm' is not found", 503, "not ready"),
    ("Assertion failed: top_k (/src/tensorrt_llm/x.cpp:12)\n1 0x7f frame", 500, "failed to generate"),
]


@pytest.mark.parametrize(("message", "status", "said"), ENGINE_ERRORS)
def test_engine_messages(model: Model, message: str, status: int, said: str) -> None:
    with pytest.raises(OpenAIError) as caught:
        answer(model).push(Event((), Status.ERROR, error=message))
    assert caught.value.status == status
    assert said in caught.value.message


def test_an_engine_that_gives_up_is_an_error_not_an_ending(model: Model) -> None:
    with pytest.raises(OpenAIError, match="cancelled"):
        answer(model).push(Event((), Status.CANCELLED))


ENDINGS = [
    (5, 5, 1, Status.LENGTH),
    (4, 5, 0, Status.END_ID),
    (0, 5, 0, Status.END_ID),
    (4, 5, 1, Status.LENGTH),
    (5, 5, 0, Status.LENGTH),
]


@pytest.mark.parametrize(("generated", "most", "last", "status"), ENDINGS)
def test_why_an_answer_ended_when_the_engine_does_not_say(generated: int, most: int, last: int, status: Status) -> None:
    assert infer(generated, most, last) is status


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[int]:
    return sorted(draw(st.sets(st.integers(0, length), max_size=8)) | {0, length})


@pytest.mark.parametrize("skip", [True, False])
@given(data=st.data())
def test_grouping_never_changes_the_answer(any_model: Model, skip: bool, data: st.DataObject) -> None:
    model = any_model
    size = model.tokenizer.vocab_size
    tokens = data.draw(st.lists(st.integers(0, size - 1), max_size=40))
    stop = data.draw(st.lists(st.sampled_from(["e", "ll", "\n", " t", "日"]), max_size=3, unique=True))
    status = data.draw(st.sampled_from([Status.LENGTH, Status.END_ID]))
    whole = json.loads(run(answer(model, stop=stop, skip_special_tokens=skip), [tokens], status))
    edges = data.draw(cuts(len(tokens)))
    groups = [tokens[a:b] for a, b in zip(edges, edges[1:], strict=False)] or [[]]
    made = answer(model, stream=True, stop=stop, skip_special_tokens=skip, stream_options={"include_usage": True})
    out = made.open()
    for at, group in enumerate(groups):
        out += made.push(Event(group, status if at == len(groups) - 1 else Status.RUNNING))
    found = events(out)
    assert content(found) == whole["choices"][0]["message"]["content"]
    assert found[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert found[-1]["usage"] == whole["usage"]
    assert not any(each in content(found) for each in stop)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_tokens_that_wait_for_a_chunk(model: Model, at_once: int) -> None:
    """The first comes at once, then so many together, and none is lost at the end."""
    asked = generation(model, stream=True, logprobs=True)
    made = Answer(asked, model.tokenizer, Vocabulary(model.tokenizer.backend), IDENTITY, stream_interval=4)
    tokens = ids(model, "one two three four five six seven eight")[:11]
    groups = [tokens[:1], *(tokens[at : at + at_once] for at in range(1, len(tokens), at_once))]
    said = []
    for at, group in enumerate(groups):
        status = Status.LENGTH if at == len(groups) - 1 else Status.RUNNING
        said.append(made.push(Event(group, status, log_probs=[-1.0] * len(group))))
    shown = [count for out in said if (count := out.count(b'"token":'))]
    assert sum(shown) == len(tokens)
    assert shown[0] == 1
    assert all(count >= 4 for count in shown[1:-1])
    assert content(events(b"".join(said))) == model.tokenizer.backend.decode(tokens)
