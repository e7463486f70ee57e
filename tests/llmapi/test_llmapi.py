"""NVIDIA's llmapi model as an engine: what it is sent, what becomes of its text, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from postprocessing.events import Status
from preprocessing.errors import OpenAIError
from preprocessing.generation import LogProbs
from preprocessing.tensors import Submission, word_list
from preprocessing.tokenizer import Tokenizer
from tests.llmapi.conftest import Ear, ScriptedEngine
from transports.bls import EngineError
from transports.llmapi import LlmapiTransport, inputs_for, recognised

PROMPT = "The river waits for a cup of tea."
NO_ID = "A request id must be provided for request cancellation"


def asked(tokenizer: Tokenizer, log_probs: LogProbs | None = None, **tensors: Any) -> Submission:
    ids = tensors.pop("ids", tokenizer.encode(PROMPT, add_special_tokens=True))
    usual = {
        "input_ids": np.array([ids], np.int32), "input_lengths": np.array([[len(ids)]], np.int32),
        "request_output_len": np.array([[9]], np.int32), "end_id": np.array([[tokenizer.end_ids[0]]], np.int32),
        "min_tokens": np.array([[0]], np.int32), "seed": np.array([[2**64 - 1]], np.uint64),
    }  # fmt: skip
    return Submission(usual | tensors, 9, 1, len(ids), log_probs)


def text_of(ear: Ear, tokenizer: Tokenizer) -> str:
    return tokenizer.backend.decode([token for event in ear.events for token in event.tokens])


def test_recognised() -> None:
    assert recognised(ScriptedEngine(NO_ID))  # type: ignore[arg-type]
    assert not recognised(ScriptedEngine("unexpected inference input 'text_input'"))  # type: ignore[arg-type]
    assert not recognised(ScriptedEngine([("", "")]))  # type: ignore[arg-type]


def test_inputs(loaded: Tokenizer) -> None:
    stops = np.array([word_list([[loaded.end_ids[1]]])], np.int32)
    inputs = inputs_for(asked(loaded, temperature=np.array([[0.5]], np.float32), stop_words_list=stops), loaded)
    assert inputs["text_input"].tolist() == [PROMPT.encode()]  # the engine puts the first token there by itself
    assert inputs["sampling_param_stop"].tolist() == [b"<|end_of_text|>"]
    assert (inputs["sampling_param_max_tokens"].tolist(), inputs["sampling_param_seed"].tolist()) == ([9], [2**64 - 1])
    assert inputs["sampling_param_temperature"].dtype == np.float32
    assert all(array.shape == (1,) for array in inputs.values())
    assert inputs["sampling_param_exclude_input_from_output"].all() and inputs["return_finish_reason"].all()


@pytest.mark.parametrize("tensors, param", [
    ({"num_return_sequences": np.array([[2]], np.int32)}, "n"),
    ({"embedding_bias": np.zeros((1, 4), np.float32)}, "logit_bias"),
    ({"bad_words_list": np.zeros((1, 2, 1), np.int32)}, "bad_words"),
    ({"repetition_penalty": np.array([[1.5]], np.float32)}, "repetition_penalty"),
    ({"guided_decoding_guide_type": np.array([[b"json"]], object)}, "response_format"),
    ({"min_tokens": np.array([[3]], np.int32)}, "min_tokens"),
    ({"end_id": np.array([[-1]], np.int32)}, "ignore_eos"),
    ({"lora_task_id": np.array([[1]], np.uint64)}, "model"),
    ({"log_probs": LogProbs(top=0, prompt=False, as_ids=False)}, "logprobs"),
])  # fmt: skip
def test_what_it_cannot_express(loaded: Tokenizer, tensors: dict[str, Any], param: str) -> None:
    with pytest.raises(OpenAIError) as caught:
        inputs_for(asked(loaded, **tensors), loaded)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_tokens_of_no_text(loaded: Tokenizer) -> None:
    """A word in pieces is not how its text would be tokenized."""
    ids = [loaded.encode(letter, add_special_tokens=False)[0] for letter in "river"]
    with pytest.raises(OpenAIError, match="not those of a text"):
        inputs_for(asked(loaded, ids=ids), loaded)


def test_cumulative_text_becomes_new_tokens(loaded: Tokenizer) -> None:
    engine = ScriptedEngine(
        [(" Hi", "None"), (" Hi \ufffd", "None"), (" Hi é", "None"), (" Hi é", "None"), (" Hi é!", "stop")])
    ear = Ear()
    LlmapiTransport(engine, loaded).submit([asked(loaded)], ear)  # type: ignore[arg-type]
    assert ear.is_accepted and text_of(ear, loaded) == " Hi é!"
    assert [event.status for event in ear.events][-1] is Status.END_ID
    assert engine.calls[0][0]["streaming"].all()


def test_not_decoupled_comes_whole(loaded: Tokenizer) -> None:
    engine = ScriptedEngine("Error generating request: Streaming is only supported in decoupled mode.",
                            [(" Hi \ufffd", "length")])
    ear = Ear()
    LlmapiTransport(engine, loaded).submit([asked(loaded)], ear)  # type: ignore[arg-type]
    assert text_of(ear, loaded) == " Hi \ufffd" and ear.events[-1].status is Status.LENGTH
    assert not engine.calls[1][0]["streaming"].any()


def test_stopping_names_the_request(loaded: Tokenizer) -> None:
    engine = ScriptedEngine([(" a", "None"), (" a b", "None"), (" a b", "cancelled")], "Request cancelled by client")
    ear = Ear(patience=1)
    LlmapiTransport(engine, loaded).submit([asked(loaded)], ear)  # type: ignore[arg-type]
    assert len(ear.events) == 1
    (_, running), (stop, stopped) = engine.calls
    assert running == stopped and stop["stop"].all()


def test_errors(loaded: Tokenizer) -> None:
    with pytest.raises(EngineError, match="out of memory"):
        LlmapiTransport(ScriptedEngine("out of memory"), loaded).submit([asked(loaded)], Ear())  # type: ignore[arg-type]
    for script in ([(" a", "None")], [(" a", "None"), (" b", "stop")]):
        ear = Ear()
        LlmapiTransport(ScriptedEngine(script), loaded).submit([asked(loaded)], ear)  # type: ignore[arg-type]
        assert ear.events[-1].status is Status.ERROR
