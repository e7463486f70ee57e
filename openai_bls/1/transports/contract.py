"""The standard contract as far as transports share it: what is asked for beyond a submission's tensors, and what the
engine's responses, one per step, say.

Source: TensorRT-LLM's Triton backend, `inflight_batcher_llm/tensorrt_llm/config.pbtxt` and its README.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from postprocessing.ending import Endings
from postprocessing.events import Alternatives, Event, Status
from preprocessing.errors import Kind, OpenAIError
from preprocessing.tensors import Submission
from transports import Inputs

OUTPUTS = ["output_ids", "sequence_length"]
LONGEST_ID = 128  # characters of what a client calls its request
Output = Callable[[str], Any]
"""An output tensor of a response by its name, as a flat numpy array; None if the response does not have it."""
# A response that cannot be read raises one of these.
UNREADABLE = (ValueError, IndexError, TypeError, KeyError, AttributeError)

FIELDS = {
    "num_return_sequences": "n",
    "bad_words_list": "bad_words",
    "embedding_bias": "logit_bias",
    "guided_decoding_guide_type": "response_format",
    "guided_decoding_guide": "response_format",
    "runtime_top_k": "top_k",
    "runtime_top_p": "top_p",
    "lora_task_id": "model",
    "return_log_probs": "logprobs",
    "return_generation_logits": "top_logprobs",
    "return_context_logits": "echo",
}
"""Input tensor -> the request field that it comes from, where it has another name."""
NEUTRAL = {"min_tokens": 0}
"""Input tensor -> the value that means the same as no tensor."""


def unique_id(request_id: str) -> str:
    """An id for the engine that begins with the request's own.

    Requests are stopped by id, and an id in use again would make the older request unstoppable.
    """
    own = uuid.uuid4().hex
    return f"{request_id[:LONGEST_ID]}.{own}" if request_id else own


def unsupported(tensor: str) -> OpenAIError:
    """The client's error for an input that the engine, or the way to it, does not have."""
    param = FIELDS.get(tensor, tensor)
    return OpenAIError(Kind.INVALID, f"'{param}' is not supported by this server's engine.", param)


def is_neutral(tensor: str, array: Any) -> bool:
    """Whether the tensor may be left out for an engine that does not know it."""
    return tensor in NEUTRAL and bool(array.reshape(-1)[0] == NEUTRAL[tensor])


class Answers:
    """What the engine's responses to one submission say, as events.

    Args:
        prompt: number of the submission's prompt in the request.
    """

    def __init__(self, prompt: int, submission: Submission) -> None:
        self._prompt = prompt
        self._submission = submission
        self._endings = Endings(submission.sequences, submission.max_tokens)
        self._prompt_told = False

    def events(self, tokens: list[int], output: Output) -> Iterator[Event]:
        """The events in a response.

        Args:
            tokens: the new ones.

        Raises:
            one of UNREADABLE.
        """
        submission = self._submission
        logits = None if submission.log_probs is None else output("context_logits")
        if logits is not None and not self._prompt_told:  # with several sequences each of them brings the same
            self._prompt_told = True
            yield prompt_event(self._prompt, submission, logits)
        event = token_event(self._prompt, submission, tokens, output)
        self._endings.see(event)
        yield event

    def ends(self) -> Iterator[Event]:
        """The last events, once the engine has ended the request."""
        for index, status in self._endings.statuses():
            yield Event((), status, self._prompt, index)


def log_prob_tensors(submission: Submission) -> tuple[Inputs, list[str]]:
    """How to ask for log probs: the contract has those of the chosen tokens, and logits for all others."""
    wanted = submission.log_probs
    names = [] if submission.sequences == 1 else ["sequence_index"]
    if wanted is None:
        return {}, names
    flags = {"return_log_probs": ["output_log_probs"]}
    if wanted.top:
        flags["return_generation_logits"] = ["generation_logits"]
    if wanted.prompt:
        flags["return_context_logits"] = ["context_logits"]
    inputs: Inputs = {flag: np.array([[True]]) for flag in flags}
    return inputs, names + [name for outputs in flags.values() for name in outputs]


def stop_inputs() -> Inputs:
    """A request that stops the one with the same id; the inputs that the contract requires are dummies."""
    dummy = np.zeros((1, 1), np.int32)
    names = ("input_ids", "input_lengths", "request_output_len")
    return dict.fromkeys(names, dummy) | {"stop": np.ones((1, 1), np.bool_)}


def token_event(prompt: int, submission: Submission, tokens: list[int], output: Output) -> Event:
    """A response of the engine as an event."""
    index = None if submission.sequences == 1 else output("sequence_index")
    sequence = 0 if index is None else int(index[0])
    if submission.log_probs is None:
        return Event(tokens, prompt=prompt, sequence=sequence)
    return Event(
        tokens,
        prompt=prompt,
        sequence=sequence,
        log_probs=new_log_probs(output("output_log_probs"), len(tokens)),
        top=alternatives(output("generation_logits"), len(tokens), submission),
    )


def new_log_probs(so_far: Any, count: int) -> list[float]:
    """The engine repeats the log probs of all tokens so far; the last ones are those of the new tokens."""
    return [] if so_far is None or not count else so_far[-count:].tolist()


def alternatives(logits: Any, count: int, submission: Submission) -> list[Alternatives]:
    """The likeliest tokens at each of `count` places, from logits (flat, count times the vocabulary)."""
    wanted = submission.log_probs
    if logits is None or not count or wanted is None or not wanted.top:
        return []
    rows = log_softmax(logits.reshape(count, -1))
    best = np.argpartition(-rows, wanted.top, axis=1)[:, : wanted.top]
    return [
        sorted(zip(ids.tolist(), row[ids].tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
        for ids, row in zip(best, rows, strict=True)
    ]


def prompt_event(prompt: int, submission: Submission, logits: Any) -> Event:
    """Log probs of a prompt's second to last tokens, from the logits at all of its places."""
    ids = submission.tensors["input_ids"][0, 1:]
    rows = logits.reshape(submission.prompt_len, -1)[:-1]
    chosen = log_softmax(rows)[np.arange(len(ids)), ids].tolist()
    return Event((), Status.PROMPT, prompt, 0, chosen, alternatives(rows, len(ids), submission))


def log_softmax(logits: Any) -> Any:
    """Log probs of logits, [rows, vocabulary], FP32."""
    shifted = logits.astype(np.float32) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
