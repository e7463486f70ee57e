"""Forms of input and choice of output, without Triton."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from embedding_contract import best_output, forms_of, numbers
from preprocessing.embeddings import Input

TEXTS = [Input([5, 6, 7], "a b"), Input([8], "é")]


def values(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("outputs", "wanted"),
    [
        ({"sentence_embedding": values((1, 4)), "token_embeddings": values((1, 3, 4))}, "sentence_embedding"),
        ({"token_embeddings": values((1, 3, 4)), "sentence_embedding": values((1, 4))}, "sentence_embedding"),
        ({"last_hidden_state": values((1, 3, 4)), "pooler_output": values((1, 4))}, "last_hidden_state"),
        ({"hidden_states_0": values((1, 3, 4)), "last_hidden_state": values((1, 3, 4))}, "last_hidden_state"),
        ({"out": values((1, 4), np.float16), "ids": values((1, 3), np.int64)}, "out"),
        ({"text_output": values((1,), object), "logprobs": values((1,))}, "text_output"),
        ({"scores": values((1,), np.int32)}, ""),
        ({}, ""),
    ],
)
def test_the_output_that_is_an_embedding(outputs: dict[str, Any], wanted: str) -> None:
    assert best_output(outputs) == wanted


def test_token_ids_with_what_the_model_wants() -> None:
    names = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids", "position_ids"), "TYPE_INT32")
    (form,) = forms_of(names)
    made = form.tensors(TEXTS)
    assert {name: (array.dtype, array.tolist()) for name, array in made.items()} == {
        "input_ids": (np.int32, [[5, 6, 7], [8, 0, 0]]),
        "attention_mask": (np.int32, [[1, 1, 1], [1, 0, 0]]),
        "token_type_ids": (np.int32, [[0, 0, 0], [0, 0, 0]]),
        "position_ids": (np.int32, [[0, 1, 2], [0, 1, 2]]),
    }


def test_texts_with_and_without_a_batch_dimension() -> None:
    batched, flat = forms_of({"query": "TYPE_STRING"})
    assert batched.tensors(TEXTS)["query"].tolist() == [[b"a b"], ["é".encode()]]
    assert flat.tensors(TEXTS)["query"].tolist() == [b"a b", "é".encode()]
    assert batched.takes == flat.takes == "text"


def test_vllm_gets_one_text_s_ids() -> None:
    first, *others = forms_of({"text_input": "TYPE_STRING"})
    made = first.tensors(TEXTS[:1])
    assert json.loads(made["embedding_request"][0]) == {"input": [5, 6, 7], "pooling_params": {}}
    assert made["text_input"].tolist() == [b""] and first.most == 1 and len(others) == 2
    assert numbers(np.array([b"[1.5, 2]"], np.object_)).tolist() == [[1.5, 2]]


@pytest.mark.parametrize("names", [("input_ids", "pixel_values"), ("a", "b"), ()])
def test_inputs_that_nobody_can_fill(names: tuple[str, ...]) -> None:
    assert forms_of(dict.fromkeys(names, "TYPE_INT64")) == []
