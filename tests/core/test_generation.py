"""From a request to prompt ids, limits and tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from transformers import PreTrainedTokenizerFast

from preprocessing.errors import Kind, OpenAIError
from preprocessing.generation import Generation, LogProbs, prepare
from preprocessing.messages import Message
from preprocessing.model import Limits, Model
from preprocessing.tensors import submissions, word_list
from preprocessing.tokenization import detokenize, tokenize
from preprocessing.tokenizer import Tokenizer, end_ids, load, max_positions
from tests.core import vocabularies

USER = [{"role": "user", "content": "hello"}]
SEED = 7


def chat(model: Model, /, **changes: Any) -> Generation:
    return prepare("chat/completions", {"model": "m", "messages": USER} | changes, model, SEED)


def completion(model: Model, /, **changes: Any) -> Generation:
    return prepare("completions", {"model": "m", "prompt": "hello"} | changes, model, SEED)


def text(model: Model, generation: Generation) -> str:
    return model.tokenizer.backend.decode(generation.prompts[0].ids, skip_special_tokens=False)


def test_the_chat_template_writes_the_prompt(model: Model) -> None:
    messages = [{"role": "developer", "content": "be brief"}, *USER]
    expected = "<|start|>system\nbe brief<|end|><|start|>user\nhello<|end|><|start|>assistant\n"
    assert text(model, chat(model, messages=messages)) == expected


def test_a_template_that_refuses_says_why(model: Model) -> None:
    with pytest.raises(OpenAIError, match="system comes first") as caught:
        chat(model, messages=[*USER, {"role": "system", "content": "late"}])
    assert caught.value.status == 400


def test_the_answer_has_the_name_that_was_asked_for(model: Model) -> None:
    assert (chat(model).model, chat(model, model="an-alias").model) == ("m", "an-alias")
    with pytest.raises(OpenAIError, match="'model'") as caught:
        chat(model, model=5)
    assert caught.value.status == 400


def test_absent_max_tokens_is_what_the_context_leaves(model: Model) -> None:
    generation = chat(model)
    assert generation.prompts[0].max_tokens == model.max_model_len - len(generation.prompts[0].ids)
    assert completion(model).prompts[0].max_tokens == 16


def test_the_newer_name_of_max_tokens_wins(model: Model) -> None:
    assert chat(model, max_tokens=5).prompts[0].max_tokens == 5
    assert chat(model, max_tokens=5, max_completion_tokens=3).prompts[0].max_tokens == 3


@pytest.mark.parametrize(
    "changes", [{"prompt": [5] * 100}, {"prompt": [5] * 90, "max_tokens": 11}, {"max_tokens": 100}]
)
def test_too_long_for_the_context(model: Model, changes: dict[str, Any]) -> None:
    with pytest.raises(OpenAIError) as caught:
        completion(model, **changes)
    assert caught.value.kind is Kind.CONTEXT_LENGTH
    assert "100" in caught.value.message


def test_the_context_can_be_filled_to_the_last_token(model: Model) -> None:
    assert completion(model, prompt=[5] * 90, max_tokens=10).prompts[0].max_tokens == 10
    assert completion(model, prompt=[5] * 99).prompts[0].max_tokens == 1


def test_prompts_of_token_ids(model: Model) -> None:
    assert (
        completion(model, prompt=[5, 6]).prompts[0].ids == completion(model, prompt=[[5, 6]]).prompts[0].ids == [5, 6]
    )
    for bad in (-1, model.tokenizer.vocab_size, 2**40):
        with pytest.raises(OpenAIError, match="outside the vocabulary"):
            completion(model, prompt=[5, bad])


def test_an_empty_prompt_is_bos_alone(model: Model) -> None:
    assert completion(model, prompt="").prompts[0].ids == [model.tokenizer.bos_id]
    for empty in ([], [[]]):
        with pytest.raises(OpenAIError, match="empty"):
            completion(model, prompt=empty)


def test_several_prompts(model: Model) -> None:
    found = completion(model, prompt=["a", "b c"])
    assert [prompt.text for prompt in found.prompts] == ["a", "b c"]
    assert [prompt.ids for prompt in completion(model, prompt=[[5], [6, 7]]).prompts] == [[5], [6, 7]]
    for empty in ([[5], []], ["a", []]):
        with pytest.raises(OpenAIError):
            completion(model, prompt=empty)


def test_the_number_of_answers_is_bounded(model: Model) -> None:
    small = replace(model, limits=Limits(max_choices=4))
    assert completion(small, prompt=["a", "b"], n=2).best_of == 2
    for changes in ({"n": 5}, {"best_of": 5}, {"prompt": ["a"] * 5}, {"prompt": ["a", "b"], "n": 3}):
        with pytest.raises(OpenAIError, match="allows 4"):
            completion(small, **changes)


def test_unknown_fields_can_be_ignored(model: Model) -> None:
    lenient = replace(model, limits=Limits(ignore_unknown=True))
    assert completion(lenient, whatever=1) == completion(lenient)


def test_the_last_message_can_be_continued(model: Model) -> None:
    messages = [*USER, {"role": "assistant", "content": "Well"}]
    found = text(model, chat(model, messages=messages, continue_final_message=True))
    assert found == "<|start|>user\nhello<|end|><|start|>assistant\nWell"
    closed = text(model, chat(model, messages=messages, add_generation_prompt=False))
    assert closed == "<|start|>user\nhello<|end|><|start|>assistant\nWell<|end|>"


def test_templates_that_go_through_parts_get_parts(folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "parts.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{% if p.type == 'text' %}[{{ p.text }}]"
        "{% endif %}{% endfor %}{% endfor %}"
    )
    parts = load(folder, template)
    message = Message.model_validate(
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    )
    assert parts.template.render([message]) == "user:[a][b]"
    assert load(folder).template.render([message]).startswith("<|start|>user\na\nb<|end|>")


def test_only_known_template_variables(model: Model, folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "switch.jinja"
    template.write_text("{{ messages[0].content }}{% if enable_thinking %} think{% endif %}")
    switching = replace(model, tokenizer=load(folder, template))
    assert text(model, chat(switching, chat_template_kwargs={"enable_thinking": True})) == "hello think"
    for name in ("tokenize", "chat_template", "messages", "tools", "add_generation_prompt"):
        with pytest.raises(OpenAIError, match="not allowed"):
            chat(switching, chat_template_kwargs={name: True})


def test_a_model_without_a_template_still_completes(model: Model) -> None:
    backend = vocabularies.tokenizer("byte-level")
    bare = replace(model, tokenizer=Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend), [3]))
    with pytest.raises(OpenAIError, match="no chat template"):
        chat(bare)
    assert completion(bare).prompts[0].ids


def test_fill_in_the_middle(model: Model) -> None:
    with pytest.raises(OpenAIError, match="fill in the middle"):
        completion(model, suffix="b")
    fast = PreTrainedTokenizerFast(tokenizer_object=vocabularies.byte_level())
    fast.add_special_tokens({"additional_special_tokens": ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]})
    coder = replace(model, tokenizer=Tokenizer(fast, [3]))
    found = completion(coder, prompt="def f(", suffix="return x")
    assert text(coder, found) == "<|fim_prefix|>def f(<|fim_suffix|>return x<|fim_middle|>"


def sent(generation: Generation) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in submissions(generation, 600)[0].tensors.items()}


def test_tensors_of_a_default_request(model: Model) -> None:
    generation = completion(model)
    assert sent(generation) == {
        "input_ids": [generation.prompts[0].ids],
        "input_lengths": [[len(generation.prompts[0].ids)]],
        "request_output_len": [[16]],
        "streaming": [[True]],
        "exclude_input_in_output": [[True]],
        "end_id": [[3]],
        "stop_words_list": [[[1], [1]]],
        "temperature": [[1.0]],
        "runtime_top_p": [[1.0]],
        "seed": [[SEED]],
        "min_tokens": [[0]],
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
    "runtime_top_p": np.float32, "seed": np.uint64, "min_tokens": np.int32,
}  # fmt: skip


def test_dtypes_are_the_contracts(model: Model) -> None:
    found = submissions(completion(model), 600)[0].tensors
    assert {name: tensor.dtype for name, tensor in found.items()} == DTYPES


SET: list[tuple[dict[str, Any], str, Any]] = [
    ({"n": 3}, "num_return_sequences", [[3]]),
    ({"n": 1, "best_of": 4}, "num_return_sequences", [[4]]),
    ({"presence_penalty": -1.5}, "presence_penalty", [[-1.5]]),
    ({"frequency_penalty": 0.5}, "frequency_penalty", [[0.5]]),
    ({"repetition_penalty": 2}, "repetition_penalty", [[2.0]]),
    ({"top_k": 40}, "runtime_top_k", [[40]]),
    ({"top_k": 1}, "runtime_top_k", [[1]]),
    ({"min_tokens": 7}, "min_tokens", [[7]]),
    ({"ignore_eos": True}, "end_id", [[-1]]),
    ({"stop_token_ids": [8, 9]}, "stop_words_list", [[[1, 8, 9], [1, 2, 3]]]),
    ({"ignore_eos": True, "stop_token_ids": [8]}, "stop_words_list", [[[8], [1]]]),
    ({"max_tokens": 0, "echo": True}, "request_output_len", [[1]]),
]


@pytest.mark.parametrize(("changes", "tensor", "value"), SET)
def test_a_field_sets_its_tensor(model: Model, changes: dict[str, Any], tensor: str, value: Any) -> None:
    assert sent(completion(model, **changes))[tensor] == value


UNSET = [
    ("num_return_sequences", {"n": 1}),
    ("presence_penalty", {"presence_penalty": 0}),
    ("runtime_top_k", {"top_k": -1}),
    ("runtime_top_k", {"top_k": 0}),
    ("embedding_bias", {"logit_bias": {}}),
    ("bad_words_list", {"bad_words": []}),
    ("stop_words_list", {"ignore_eos": True}),
]


@pytest.mark.parametrize(("tensor", "changes"), UNSET)
def test_what_the_engine_does_anyway_is_not_sent(model: Model, tensor: str, changes: dict[str, Any]) -> None:
    assert tensor not in sent(completion(model, **changes))


def test_biases_are_dense(model: Model) -> None:
    vector = sent(completion(model, logit_bias={"5": -100, "7": 2.5}))["embedding_bias"][0]
    assert len(vector) == 600
    assert {at: value for at, value in enumerate(vector) if value} == {5: -100.0, 7: 2.5}


@pytest.mark.parametrize("key", ["-1", "99999", "x", "", "٣", "1.0", "1" * 40])
def test_biases_name_tokens(model: Model, key: str) -> None:
    with pytest.raises(OpenAIError, match="no token id"):
        completion(model, logit_bias={key: 1})


def test_bad_words_are_banned_with_and_without_a_space(model: Model) -> None:
    words = completion(model, bad_words=["test"]).sampling.bad_words
    assert [model.tokenizer.backend.decode(ids) for ids in words] == ["test", " test"]


@pytest.mark.parametrize(
    ("changes", "match"), [({"min_tokens": 17}, "at most the 16"), ({"stop_token_ids": [600000]}, "outside")]
)
def test_limits_that_need_the_model(model: Model, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(OpenAIError, match=match):
        completion(model, **changes)


def test_log_probs_are_asked_for(model: Model) -> None:
    assert chat(model).log_probs is None
    assert chat(model, logprobs=True).log_probs == LogProbs(0, False, False)
    assert chat(model, logprobs=True, top_logprobs=4).log_probs == LogProbs(4, False, False)
    assert completion(model, logprobs=2, echo=True).log_probs == LogProbs(2, True, False)
    assert submissions(completion(model, best_of=2), 600)[0].log_probs == LogProbs(0, False, False)


def test_tokenize_and_detokenize(model: Model) -> None:
    def ask(endpoint: Any, **body: Any) -> Any:
        return orjson.loads(endpoint({"model": "m"} | body, model))

    found = ask(tokenize, prompt="hello", return_token_strs=True)
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] == 100
    assert ask(detokenize, tokens=found["tokens"]) == {"prompt": "hello"}
    chatted = ask(tokenize, messages=USER)
    assert ask(detokenize, tokens=chatted["tokens"])["prompt"] == text(model, chat(model))
    for wrong in ({}, {"prompt": "a", "messages": USER}, {"prompt": 5}, {"model": 5, "prompt": "a"}, {"nonsense": 1}):
        with pytest.raises(OpenAIError):
            ask(tokenize, **wrong)
    with pytest.raises(OpenAIError, match="outside"):
        ask(detokenize, tokens=[10**6])


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
