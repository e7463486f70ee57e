"""POST /v1/embeddings: the client's body → what is to be embedded, and vectors → the answer.

In: the decoded body and the model, later FP32 vectors. Out: an `Embeddings`, later a whole JSON body. It knows nothing
of engines.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import Field, ValidationError

from preprocessing import fields
from preprocessing.body import TokenIds, translate
from preprocessing.errors import Kind, OpenAIError, invalid
from preprocessing.generation import as_list, within_vocabulary
from preprocessing.messages import Strict
from preprocessing.tokenizer import Tokenizer
from preprocessing.wire import dumps

MAX_INPUTS = 2048  # OpenAI's own limit
# A text with more characters per token of the context is refused before the work of tokenizing it. Tokens of WordPiece
# have no longest text (blanks and unknown words cost nothing), so this is far above what texts have: 4 to 6.
MAX_CHARS_PER_TOKEN = 64


class EmbeddingBody(Strict):
    """An input is text or token ids, alone or in a list of several."""

    model: str
    input: (
        str | Annotated[list[str], Field(fail_fast=True)] | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    prompt_name: str | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A served embedding model.

    Attributes:
        name: what clients put into `model`.
        max_model_len: the longest input in tokens, special ones included.
        created: Unix time in seconds, for /v1/models.
        lower_case: texts are lower-cased before they are tokenized.
        prompts: name → what is put in front of a text.
        default_prompt: what is put in front if the request names none.
        sizes: sizes that vectors may be cut to; empty: any; None: the model is not made for cutting.
        ignore_unknown: drop request fields that are unknown, instead of refusing them.
    """

    name: str
    tokenizer: Tokenizer
    max_model_len: int
    created: int
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    sizes: tuple[int, ...] | None = None
    ignore_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """One text as token ids (special ones included), and as text where the client sent text."""

    ids: list[int]
    text: str | None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What a request asks for. `size` is that of the vectors in the answer."""

    model: str
    inputs: list[Input]
    size: int
    as_base64: bool

    @property
    def tokens(self) -> int:
        return sum(len(each.ids) for each in self.inputs)


def prepare(given: dict[str, Any], model: EmbeddingModel, size: int) -> Embeddings:
    """Understands a request.

    Args:
        given: the request body, decoded.
        model: the one that the request's `model` stands for; the answer has the name that was asked for.
        size: that of the model's vectors.

    Raises:
        OpenAIError: the request is at fault.
    """
    body = parse(given, model)
    prompt = prompt_of(body, model)
    items = as_list(body.input)
    texts = [prompt + text for text in items if isinstance(text, str)]
    if texts:
        inputs = text_inputs(texts, model)
    else:
        rows = [list(ids) for ids in items if not isinstance(ids, str)]
        inputs = [Input(within_vocabulary(ids, model.tokenizer, "input"), None) for ids in rows]
    check_lengths(inputs, model.max_model_len)
    return Embeddings(body.model, inputs, size_of(body.dimensions, model, size), body.encoding_format == "base64")


def parse(given: dict[str, Any], model: EmbeddingModel) -> EmbeddingBody:
    honoured = fields.check(given, fields.EMBEDDINGS, ignore_unknown=model.ignore_unknown)
    check_input(honoured.get("input"))
    try:
        return EmbeddingBody.model_validate(honoured)
    except ValidationError as error:
        raise translate(error) from None


def check_input(given: Any) -> None:
    """Refuses what is empty, and very many inputs before each is looked at. (A list of numbers is one input.)"""
    if given == "":
        raise invalid("'input' must not be an empty string.", "input")
    if not isinstance(given, list):
        return
    if not given:
        raise invalid("'input' must not be an empty list.", "input")
    if isinstance(given[0], str | list) and len(given) > MAX_INPUTS:
        raise invalid(f"'input' must have at most {MAX_INPUTS} items; got {len(given)}.", "input")
    empty = next((at for at, each in enumerate(given) if each in ("", [])), None)
    if empty is not None:
        what = "string" if given[empty] == "" else "list"
        raise invalid(f"'input[{empty}]' must not be an empty {what}.", f"input[{empty}]")


def prompt_of(body: EmbeddingBody, model: EmbeddingModel) -> str:
    """What is put in front of every text."""
    if body.prompt_name is None:
        return model.default_prompt
    if body.prompt_name not in model.prompts:
        known = ", ".join(model.prompts) or "none"
        raise invalid(f"This model has no prompt '{body.prompt_name[:64]}'; it has: {known}.", "prompt_name")
    return model.prompts[body.prompt_name]


def text_inputs(texts: Sequence[str], model: EmbeddingModel) -> list[Input]:
    """Texts with their tokens. All are tokenized in one call, which releases Python's lock."""
    longest = MAX_CHARS_PER_TOKEN * model.max_model_len
    for at, text in enumerate(texts):
        if len(text) > longest:
            raise OpenAIError(
                Kind.CONTEXT_LENGTH,
                f"This model's maximum context length is {model.max_model_len} tokens, but {place(at, texts)} has "
                f"{len(text)} characters; more than {longest} are not looked at. Shorten it.",
                "input",
            )
    seen = [text.lower() for text in texts] if model.lower_case else list(texts)
    found = model.tokenizer.backend.encode_batch_fast(seen, add_special_tokens=True)
    return [Input(list(each.ids), text) for each, text in zip(found, seen, strict=True)]


def check_lengths(inputs: Sequence[Input], longest: int) -> None:
    for at, each in enumerate(inputs):
        if len(each.ids) > longest:
            raise OpenAIError(
                Kind.CONTEXT_LENGTH,
                f"This model's maximum context length is {longest} tokens, but {place(at, inputs)} has "
                f"{len(each.ids)} tokens. Shorten it.",
                "input",
            )
        if not each.ids:
            raise invalid(f"{place(at, inputs)} has no tokens.", "input")


def place(at: int, inputs: Sequence[object]) -> str:
    return f"'input[{at}]'" if len(inputs) > 1 else "'input'"


def size_of(wanted: int | None, model: EmbeddingModel, size: int) -> int:
    """How long the vectors of the answer are. Cutting vectors of a model that was not trained for it ruins them."""
    if wanted is None or wanted == size:
        return size
    if model.sizes is None:
        raise invalid(f"This model's embeddings have {size} dimensions and cannot be shortened.", "dimensions")
    if wanted > size or (model.sizes and wanted not in model.sizes):
        allowed = ", ".join(map(str, model.sizes)) if model.sizes else f"1 to {size}"
        raise invalid(f"'dimensions' must be one of this model's ({allowed}); got {wanted}.", "dimensions")
    return wanted


def answer(asked: Embeddings, vectors: npt.NDArray[np.float32]) -> bytes:
    """The answer.

    Args:
        vectors: FP32 [inputs, size or more], in the order of the inputs.
    """
    render = in_base64 if asked.as_base64 else as_numbers
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, render(vector))
        for index, vector in enumerate(cut(vectors, asked.size))
    )
    usage = dumps({"prompt_tokens": asked.tokens, "total_tokens": asked.tokens})
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (data, dumps(asked.model), usage)


def cut(vectors: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """The first `size` numbers of each vector, made as long as 1 again if any were cut off."""
    if vectors.shape[1] == size:
        return np.ascontiguousarray(vectors, np.float32)
    short = vectors[:, :size]
    lengths = np.linalg.norm(short, axis=1, keepdims=True)
    return np.ascontiguousarray(short / np.maximum(lengths, 1e-12), np.float32)


def as_numbers(vector: npt.NDArray[np.float32]) -> bytes:
    """The shortest decimals that are the same FP32 numbers again."""
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def in_base64(vector: npt.NDArray[np.float32]) -> bytes:
    """Little-endian FP32, as openai-python asks for and reads it."""
    return b'"%b"' % base64.b64encode(vector.astype("<f4").tobytes())
