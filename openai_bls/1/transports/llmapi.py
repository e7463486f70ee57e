"""NVIDIA's llmapi model (TensorRT-LLM's triton_backend/all_models/llmapi): text in, the whole text so far out.

One request in flight per instance, as with the standard contract. It has no token ids, no log probs, no guides, no
bias and no candidates: what it cannot express is refused. Its text is made into tokens again, for all that counts or
looks at tokens, so `completion_tokens` is what the text has, not what the engine generated. Special tokens are not in
the text.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from postprocessing.events import Event, Status
from preprocessing.errors import Kind, OpenAIError
from preprocessing.tensors import Submission
from preprocessing.tokenizer import Tokenizer
from transports import Inputs, Sink
from transports.adapters import Lender
from transports.bls import Engine, EngineError, output
from transports.contract import is_neutral, unique_id, unsupported
from transports.single import Run, SingleTransport

OUTPUTS = ["text_output", "finish_reason"]
ASKS_FOR_ID = "request id must be provided"  # what it says to a stop request that names none
NOT_DECOUPLED = "only supported in decoupled mode"
BROKEN = "\N{REPLACEMENT CHARACTER}"  # stands for the first bytes of a character
ENDS: Mapping[str, Status] = {"stop": Status.END_ID, "length": Status.LENGTH, "cancelled": Status.CANCELLED}
SAMPLES = (" one", "two", "\n\n", "é", " 3")  # pieces of text, one behind the other

SAMPLING: Mapping[str, tuple[str, type[np.generic]]] = {
    "request_output_len": ("sampling_param_max_tokens", np.int32),
    "temperature": ("sampling_param_temperature", np.float32),
    "runtime_top_k": ("sampling_param_top_k", np.int32),
    "runtime_top_p": ("sampling_param_top_p", np.float32),
    "frequency_penalty": ("sampling_param_frequency_penalty", np.float32),
    "presence_penalty": ("sampling_param_presence_penalty", np.float32),
    "seed": ("sampling_param_seed", np.uint64),
}
"""Tensor of the standard contract -> the model's input. It has no batch dimension: each is of shape [1]."""


ELSEWHERE = frozenset(
    {"input_ids", "input_lengths", "streaming", "exclude_input_in_output", "end_id", "stop_words_list"}
)
"""Tensors that `inputs_for` treats one by one."""


def recognised(engine: Engine) -> bool:
    """Whether the engine is such a model: it has words of its own against a stop request without an id."""
    try:
        engine.ask(stop_request(), OUTPUTS[:1])
    except EngineError as error:
        return ASKS_FOR_ID in str(error)
    return False


class LlmapiTransport(SingleTransport):
    """One generation at a time over decoupled BLS.

    Raises:
        OpenAIError: with this tokenizer text does not stay the same when it is made into tokens piece by piece.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        pieces = [token for piece in SAMPLES for token in tokenizer.encode(piece, add_special_tokens=False)]
        if tokenizer.backend.decode(pieces) != "".join(SAMPLES):
            raise OpenAIError(Kind.UNAVAILABLE, "The server's engine needs a model with a byte-level tokenizer.")
        super().__init__(engine)
        self._tokenizer = tokenizer

    def submit(self, submissions: Sequence[Submission], sink: Sink) -> None:
        """Runs a request to its end, one prompt after the other; see `Transport.submit`.

        Raises:
            OpenAIError: the model cannot express the request.
        """
        inputs = [inputs_for(submission, self._tokenizer) for submission in submissions]
        run = LlmapiRun(self._engine, sink, self._tokenizer)
        for prompt, tensors in enumerate(inputs):
            if not run.ask(prompt, tensors):
                return
            self.heard_at = time.monotonic()


class LlmapiRun(Run):
    """One request's way through the engine."""

    def __init__(self, engine: Engine, sink: Sink, tokenizer: Tokenizer) -> None:
        super().__init__(engine, sink, Lender())
        self._tokenizer = tokenizer

    def ask(self, prompt: int, inputs: Inputs) -> bool:
        """Generates for one prompt. False: the request is over.

        Raises:
            EngineError: the engine refused the request before anything was heard of it.
        """
        if self._accepted and not self._sink.look():
            return False
        request_id, wanted = unique_id(self._sink.id), True
        try:
            for event in self._pieces(prompt, inputs, request_id):
                self._accept()
                if wanted and not self._pass_on(event):
                    wanted = False
                    self._stop(request_id)  # what is still on its way is drained
        except EngineError as error:
            if not self._accepted:
                raise
            if wanted:
                self._sink.push(Event((), Status.ERROR, prompt, error=str(error)))
            return False
        return True

    def _pieces(self, prompt: int, inputs: Inputs, request_id: str) -> Iterator[Event]:
        """What is new in each response, then the end."""
        text, reason = Text(), ""
        for response in self._responses(inputs, request_id):
            told, reason = first(response, "text_output"), first(response, "finish_reason")
            piece = text.new(told, final=reason in ENDS)
            yield Event(self._tokenizer.encode(piece, add_special_tokens=False) if piece else (), prompt=prompt)
        if reason not in ENDS:
            raise EngineError(f"the engine ended the request with the reason '{reason}'")
        yield Event((), ENDS[reason], prompt)

    def _responses(self, inputs: Inputs, request_id: str) -> Iterator[Any]:
        """Streamed if the model can, else the one response."""
        try:
            yield from self._engine.stream(inputs | {"streaming": np.array([True])}, OUTPUTS, request_id)
        except EngineError as error:
            if NOT_DECOUPLED not in str(error):
                raise
            yield from self._engine.stream(inputs | {"streaming": np.array([False])}, OUTPUTS, request_id)

    def _stop(self, request_id: str) -> None:
        """Answered by an error, always: that the request was cancelled."""
        try:
            for _ in self._engine.stream(stop_request(), OUTPUTS[:1], request_id):
                pass
        except EngineError:
            pass


class Text:
    """The whole text again and again -> what is new in it."""

    def __init__(self) -> None:
        self._told = ""

    def new(self, text: str, final: bool) -> str:
        """A character that is not whole yet waits, unless nothing comes behind it.

        Raises:
            EngineError: the engine has changed what it said before.
        """
        ready = text if final else text.rstrip(BROKEN)
        if not ready.startswith(self._told):
            if self._told.startswith(ready):  # it has taken back the beginning of a stop string
                return ""
            raise EngineError("the engine has changed text that it had sent")
        piece = ready[len(self._told) :]
        self._told = ready
        return piece


def inputs_for(submission: Submission, tokenizer: Tokenizer) -> Inputs:
    """The model's inputs for one prompt.

    Raises:
        OpenAIError: it cannot express something; the message names the field.
    """
    tensors = submission.tensors
    for name, array in tensors.items():
        if name not in SAMPLING and name not in ELSEWHERE and not is_neutral(name, array):
            raise unsupported(name)
    if submission.log_probs is not None:
        raise unsupported("logprobs")
    if int(tensors["end_id"][0, 0]) < 0 and tokenizer.end_ids:
        raise unsupported("ignore_eos")
    sampling = {name: row for name, row in SAMPLING.items() if name in tensors}
    return {
        **{model: tensors[name].reshape(-1).astype(dtype) for name, (model, dtype) in sampling.items()},
        "text_input": strings([prompt_text(tensors["input_ids"][0].tolist(), tokenizer)]),
        "sampling_param_exclude_input_from_output": np.array([True]),
        "return_finish_reason": np.array([True]),
        **stop_strings(tensors, tokenizer),
    }


def prompt_text(ids: list[int], tokenizer: Tokenizer) -> str:
    """The text that the engine, which adds special tokens by itself, makes into exactly these tokens.

    Raises:
        OpenAIError: there is none.
    """
    for without in range(2):  # as it stands, or without the special token in front
        text: str = tokenizer.backend.decode(ids[without:], skip_special_tokens=False)
        if tokenizer.encode(text, add_special_tokens=True) == ids:
            return text
    raise OpenAIError(Kind.INVALID, "This server's engine takes text, and these prompt tokens are not those of a text.")


def stop_strings(tensors: Inputs, tokenizer: Tokenizer) -> Inputs:
    """Further end tokens, by their text; stop strings of the client are watched for elsewhere."""
    if "stop_words_list" not in tensors:
        return {}
    ids, ends = tensors["stop_words_list"][0].tolist()
    words, start = [], 0
    for end in (end for end in ends if end > 0):
        words.append(tokenizer.backend.decode(ids[start:end], skip_special_tokens=False))
        start = end
    return {"sampling_param_stop": strings(words)}


def stop_request() -> Inputs:
    return {"text_input": strings([""]), "stop": np.array([True])}


def strings(values: Sequence[str]) -> Any:
    return np.array([value.encode() for value in values], np.object_)


def first(response: Any, name: str) -> str:
    """The first string of an output; empty if it is absent."""
    values = output(response, name)
    return "" if values is None or not len(values) else values[0].decode(errors="replace")
