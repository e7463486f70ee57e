from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from preprocessing.body import decode
from preprocessing.embeddings import EmbeddingModel, answer, prepare
from preprocessing.errors import OpenAIError
from preprocessing.model import Model

SIZE = 8


@pytest.fixture(scope="module")
def embedding(model: Model) -> EmbeddingModel:
    return EmbeddingModel("e", model.tokenizer, 20, 1700000000, prompts={"query": "hello "}, default_prompt="")


def ask(embedding: EmbeddingModel, **body: Any) -> Any:
    return prepare(decode(json.dumps({"model": "e"} | body).encode()), embedding, SIZE)


def refused(embedding: EmbeddingModel, **body: Any) -> OpenAIError:
    with pytest.raises(OpenAIError) as caught:
        ask(embedding, **body)
    return caught.value


def test_all_forms_of_input_give_the_same_tokens(embedding: EmbeddingModel) -> None:
    ids = embedding.tokenizer.encode("hello world", add_special_tokens=True)
    for given in ("hello world", ["hello world"], ids, [ids]):
        assert [each.ids for each in ask(embedding, input=given).inputs] == [ids]
    assert ask(embedding, input="hello world", user="me", encoding_format="base64").tokens == len(ids)


def test_inputs_keep_their_order(embedding: EmbeddingModel) -> None:
    texts = ["world", "a", "hello world", "a"]
    assert [each.text for each in ask(embedding, input=texts).inputs] == texts


def test_prompts_stand_before_texts(embedding: EmbeddingModel) -> None:
    assert ask(embedding, input="world", prompt_name="query").inputs[0].text == "hello world"
    assert refused(embedding, input="world", prompt_name="other").param == "prompt_name"
    assert ask(embedding, input=[5], prompt_name="query").inputs[0].ids == [5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "'input' must not be an empty string"),
        ([], "'input' must not be an empty list"),
        (["a", ""], r"'input\[1\]' must not be an empty string"),
        ([[1], []], r"'input\[1\]' must not be an empty list"),
        (None, "Missing required field 'input'"),
        (7, "'input' must be a string, a list of strings, a list of token ids"),
        ([1, "a"], "'input"),
        (["a", [1]], "'input"),
        ([1.5], "'input"),
        (["a"] * 2049, "at most 2048 items; got 2049"),
        ([[1]] * 2049, "at most 2048 items; got 2049"),
        ([-1], "Token id -1 in 'input' is outside the vocabulary"),
        ([10**6], "Token id 1000000 in 'input' is outside the vocabulary"),
    ],
)
def test_inputs_that_are_refused(embedding: EmbeddingModel, given: Any, message: str) -> None:
    error = refused(embedding, input=given)
    assert error.status == 400
    assert error.param is not None and error.param.startswith("input")
    with pytest.raises(OpenAIError, match=message):
        raise error


def test_an_input_that_is_too_long_is_told_with_numbers(embedding: EmbeddingModel) -> None:
    error = refused(embedding, input=["a", "world " * 40])
    assert json.loads(error.body())["error"]["code"] == "context_length_exceeded"
    assert "20 tokens, but 'input[1]' has" in error.message
    assert "21 tokens" in refused(embedding, input=[1] * 21).message


def test_a_text_of_megabytes_is_not_tokenized(embedding: EmbeddingModel) -> None:
    assert "more than 1280 are not looked at" in refused(embedding, input="a" * 2_000_000).message


def test_the_answer_has_the_name_that_was_asked_for(embedding: EmbeddingModel) -> None:
    assert ask(embedding, input="a", model="an-alias").model == "an-alias"
    assert refused(embedding, input="a", model=5).param == "model"


@pytest.mark.parametrize(
    "field", [{"encoding_format": "int8"}, {"dimensions": 0}, {"dimensions": "8"}, {"nonsense": 1}]
)
def test_fields_that_are_wrong(embedding: EmbeddingModel, field: dict[str, Any]) -> None:
    assert refused(embedding, input="a", **field).param == next(iter(field))


@pytest.mark.parametrize(
    ("sizes", "wanted", "found"),
    [
        (None, 8, 8),
        (None, 4, None),
        ((), 4, 4),
        ((), 9, None),
        ((2, 4), 4, 4),
        ((2, 4), 3, None),
        ((2, 4), 8, 8),
    ],
)
def test_sizes(model: Model, sizes: tuple[int, ...] | None, wanted: int, found: int | None) -> None:
    made = EmbeddingModel("e", model.tokenizer, 20, 0, sizes=sizes)
    if found is None:
        assert refused(made, input="a", dimensions=wanted).param == "dimensions"
    else:
        assert ask(made, input="a", dimensions=wanted).size == found


def test_numbers_and_base64_are_the_same_fp32(embedding: EmbeddingModel) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, SIZE)).astype(np.float32)
    texts = ["a", "b", "c"]
    numbers = json.loads(answer(ask(embedding, input=texts), vectors))
    coded = json.loads(answer(ask(embedding, input=texts, encoding_format="base64"), vectors))
    assert [entry["index"] for entry in numbers["data"]] == [0, 1, 2]
    for at, (plain, packed) in enumerate(zip(numbers["data"], coded["data"], strict=True)):
        assert (np.array(plain["embedding"], np.float32) == vectors[at]).all()
        assert (np.frombuffer(base64.b64decode(packed["embedding"]), "<f4") == vectors[at]).all()
    assert numbers["object"] == "list" and numbers["data"][0]["object"] == "embedding" and numbers["model"] == "e"
    assert numbers["usage"]["prompt_tokens"] == numbers["usage"]["total_tokens"] > 0


def test_a_shortened_vector_has_length_one(model: Model) -> None:
    made = EmbeddingModel("e", model.tokenizer, 20, 0, sizes=())
    vectors = np.array([[3, 4, 5, 0, 0, 0, 0, 0], [0] * 8], np.float32)
    found = json.loads(answer(ask(made, input=["a", "b"], dimensions=2), vectors))
    assert found["data"][0]["embedding"] == pytest.approx([0.6, 0.8])
    assert found["data"][1]["embedding"] == [0, 0]
