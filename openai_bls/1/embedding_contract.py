"""What models that embed take and give: forms of input, and which output is the embedding.

In: texts with their token ids. Out: tensors, and the other way round. It knows nothing of Triton; embedder.py asks the
model which form it takes. docs/embeddings.md has the tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from preprocessing.batching import padded
from preprocessing.embeddings import Input
from transports import Inputs

Vectors = npt.NDArray[np.float32]

MOST_ROWS = 64  # inputs in one request to the engine; fewer if it takes fewer
NUMPY_TYPES = {"TYPE_INT64": np.int64, "TYPE_INT32": np.int32}
TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
# Triton's vLLM backend.
VLLM_TEXT, VLLM_REQUEST, VLLM_OUTPUT = "text_input", "embedding_request", "text_output"
# Outputs that are numbers but not what a text's embedding is: BERT's, made for another task.
NOT_AN_EMBEDDING = ("pooler_output",)
HIDDEN = ("last_hidden_state", "token_embeddings")  # preferred among outputs with a vector for each token


class Form(NamedTuple):
    """One way of putting texts into tensors.

    Attributes:
        name: for the log.
        tensors: makes them.
        takes: "tokens" or "text": what it is made from.
        most: how many texts fit into one request at most.
    """

    name: str
    tensors: Callable[[Sequence[Input]], Inputs]
    takes: str = "tokens"
    most: int = MOST_ROWS


def forms_of(inputs: Mapping[str, str]) -> list[Form]:
    """The ways of sending texts to a model with these inputs, the likeliest first."""
    if "input_ids" in inputs and not set(inputs) - set(TOKEN_INPUTS):
        return [Form("token ids", lambda texts: token_tensors(inputs, texts))]
    if set(inputs) - {VLLM_REQUEST} == {VLLM_TEXT}:
        return [Form("vLLM's request", vllm_tensors, most=1), *text_forms(VLLM_TEXT)]
    return text_forms(next(iter(inputs))) if len(inputs) == 1 else []


def text_forms(name: str) -> list[Form]:
    """With a batch dimension and without one."""
    return [
        Form("texts [batch, 1]", lambda texts: {name: text_tensor(texts)[:, None]}, takes="text"),
        Form("texts [batch]", lambda texts: {name: text_tensor(texts)}, takes="text"),
    ]


def text_tensor(texts: Sequence[Input]) -> npt.NDArray[np.object_]:
    return np.array([(each.text or "").encode() for each in texts], np.object_)


def token_tensors(inputs: Mapping[str, str], texts: Sequence[Input]) -> Inputs:
    """Token ids [batch, longest] and what goes with them: which are tokens, and that all are of the first segment."""
    ids, mask = padded([each.ids for each in texts], np.int64)
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    values["position_ids"] = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    return {name: np.ascontiguousarray(values[name], NUMPY_TYPES[type_]) for name, type_ in inputs.items()}


def vllm_tensors(texts: Sequence[Input]) -> Inputs:
    """What NVIDIA's frontend sends to Triton's vLLM backend: JSON with token ids; the text is required but not read."""
    asked = json.dumps({"input": texts[0].ids, "pooling_params": {}}).encode()
    return {VLLM_TEXT: np.array([b""], np.object_), VLLM_REQUEST: np.array([asked], np.object_)}


def numbers(values: npt.NDArray[Any]) -> Vectors:
    """An output as FP32; vLLM's is JSON."""
    if values.dtype == np.object_:
        return np.array([json.loads(values.reshape(-1)[0])], np.float32)
    return values.astype(np.float32)


def best_output(outputs: Mapping[str, npt.NDArray[Any]]) -> str:
    """The output that is a text's embedding; else one that has a vector for each token."""
    if VLLM_OUTPUT in outputs:
        return VLLM_OUTPUT
    real = {name: values.ndim for name, values in outputs.items() if values.dtype in (np.float32, np.float16)}
    pooled = [name for name, rank in real.items() if rank <= 2 and name not in NOT_AN_EMBEDDING]
    named = [name for name in pooled if "embed" in name.lower()]
    hidden = [name for name in HIDDEN if name in real] + [name for name, rank in real.items() if rank == 3]
    return next(iter(named + pooled + hidden), "")
