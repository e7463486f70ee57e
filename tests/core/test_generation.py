"""From a request to prompt ids, limits and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from preprocessing.errors import Kind, OpenAIError
from preprocessing.generation import Generation, Model, prepare
from preprocessing.tensors import tensors, word_list
from preprocessing.tokenizer import end_ids, load, max_positions

USER = [{"role": "user", "content": "hello"}]
SEED = 7


def chat(model: Model, /, **changes: Any) -> Generation:
    return prepare("chat/completions", orjson.dumps({"model": "m", "messages": USER} | changes), model, SEED)


def completion(model: Model, /, **changes: Any) -> Generation:
    return prepare("completions", orjson.dumps({"model": "m", "prompt": "hello"} | changes), model, SEED)


def text(model: Model, generation: Generation) -> str:
    return model.tokenizer.backend.decode(generation.prompt_ids, skip_special_tokens=False)


def test_the_chat_template_writes_the_prompt(model: Model) -> None:
    messages = [{"role": "developer", "content": "be brief"}, *USER]
    expected = "<|start|>system\nbe brief<|end|><|start|>user\nhello<|end|><|start|>assistant\n"
    assert text(model, chat(model, messages=messages)) == expected


def test_a_template_that_refuses_says_why(model: Model) -> None:
    with pytest.raises(OpenAIError, match="system comes first") as caught:
        chat(model, messages=[*USER, {"role": "system", "content": "late"}])
    assert caught.value.status == 400


def test_an_unknown_model_is_404(model: Model) -> None:
    with pytest.raises(OpenAIError) as caught:
        chat(model, model="gpt-4")
    assert (caught.value.kind, caught.value.status) == (Kind.MODEL_NOT_FOUND, 404)


def test_absent_max_tokens_is_what_the_context_leaves(model: Model) -> None:
    generation = chat(model)
    assert generation.max_tokens == model.max_model_len - len(generation.prompt_ids)
    assert completion(model).max_tokens == 16


def test_the_newer_name_of_max_tokens_wins(model: Model) -> None:
    assert chat(model, max_tokens=5).max_tokens == 5
    assert chat(model, max_tokens=5, max_completion_tokens=3).max_tokens == 3


@pytest.mark.parametrize(
    "changes", [{"prompt": [5] * 100}, {"prompt": [5] * 90, "max_tokens": 11}, {"max_tokens": 100}]
)
def test_too_long_for_the_context(model: Model, changes: dict[str, Any]) -> None:
    with pytest.raises(OpenAIError) as caught:
        completion(model, **changes)
    assert caught.value.kind is Kind.CONTEXT_LENGTH
    assert "100" in caught.value.message


def test_the_context_can_be_filled_to_the_last_token(model: Model) -> None:
    assert completion(model, prompt=[5] * 90, max_tokens=10).max_tokens == 10
    assert completion(model, prompt=[5] * 99).max_tokens == 1


def test_prompts_of_token_ids(model: Model) -> None:
    assert completion(model, prompt=[5, 6]).prompt_ids == completion(model, prompt=[[5, 6]]).prompt_ids == [5, 6]
    for bad in (-1, model.tokenizer.vocab_size, 2**40):
        with pytest.raises(OpenAIError, match="outside the vocabulary"):
            completion(model, prompt=[5, bad])


def test_an_empty_prompt_is_bos_alone(model: Model) -> None:
    assert completion(model, prompt="").prompt_ids == [model.tokenizer.bos_id]
    for empty in ([], [[]]):
        with pytest.raises(OpenAIError, match="empty"):
            completion(model, prompt=empty)


def test_several_prompts_are_refused(model: Model) -> None:
    with pytest.raises(OpenAIError, match="several prompts"):
        completion(model, prompt=["a", "b"])


def sent(generation: Generation) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in tensors(generation).items()}


def test_tensors_of_a_default_request(model: Model) -> None:
    generation = completion(model)
    assert sent(generation) == {
        "input_ids": [generation.prompt_ids],
        "input_lengths": [[len(generation.prompt_ids)]],
        "request_output_len": [[16]],
        "streaming": [[True]],
        "exclude_input_in_output": [[True]],
        "end_id": [[3]],
        "stop_words_list": [[[1], [1]]],
        "temperature": [[1.0]],
        "runtime_top_p": [[1.0]],
        "seed": [[SEED]],
    }


@pytest.mark.parametrize("changes", [{"temperature": 0}, {"temperature": 1e-9}, {"top_p": 0}])
def test_greedy_is_top_k_1_and_nothing_else(model: Model, changes: dict[str, Any]) -> None:
    found = sent(completion(model, **changes))
    assert found["runtime_top_k"] == [[1]]
    assert not {"temperature", "runtime_top_p"} & set(found)


@pytest.mark.parametrize(("seed", "expected"), [(5, 5), (0, 0), (-1, 2**64 - 1), (-(2**63), 2**63)])
def test_seeds_become_unsigned(model: Model, seed: int, expected: int) -> None:
    assert sent(completion(model, seed=seed))["seed"] == [[expected]]


DTYPES = {
    "input_ids": np.int32, "input_lengths": np.int32, "request_output_len": np.int32, "streaming": np.bool_,
    "exclude_input_in_output": np.bool_, "end_id": np.int32, "stop_words_list": np.int32, "temperature": np.float32,
    "runtime_top_p": np.float32, "seed": np.uint64,
}  # fmt: skip


def test_dtypes_are_the_contracts(model: Model) -> None:
    assert {name: tensor.dtype for name, tensor in tensors(completion(model)).items()} == DTYPES


def test_word_lists() -> None:
    assert word_list([[5, 6], [9]]) == [[5, 6, 9], [2, 3, -1]]


def test_end_ids_are_gathered_without_repeats(folder: Path) -> None:
    assert end_ids(folder, 3) == (3, 1)
    assert end_ids(folder, 9) == (9, 3, 1)
    assert end_ids(folder / "nowhere", None) == ()


def test_a_model_folder(folder: Path, tmp_path: Path) -> None:
    assert max_positions(folder) == 512
    assert max_positions(tmp_path) is None
    with pytest.raises(ValueError, match="no tokenizer"):
        load(tmp_path)
