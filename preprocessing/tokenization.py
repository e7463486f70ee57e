"""POST /v1/tokenize and /v1/detokenize, in vLLM's shapes: what the model sees of a text, and back.

In: the client's body, decoded, and the model. Out: a whole JSON body.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from preprocessing.body import MAX_MESSAGES, translate
from preprocessing.errors import invalid
from preprocessing.generation import check_length, within_vocabulary
from preprocessing.messages import Message, Strict
from preprocessing.model import Model
from preprocessing.tools import MAX_TOOLS, Tool
from preprocessing.wire import dumps


class TokenizeBody(Strict):
    """Either a text or a conversation; special tokens are added to a text unless told otherwise."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] = Field(default_factory=list)
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    return_token_strs: bool = False


class DetokenizeBody(Strict):
    model: str | None = None
    tokens: Annotated[list[int], Field(fail_fast=True)]


def tokenize(given: dict[str, Any], model: Model) -> bytes:
    """`{"count", "max_model_len", "tokens", "token_strs"}`.

    Raises:
        OpenAIError: the request is at fault.
    """
    body: TokenizeBody = validated(TokenizeBody, given)
    if (body.prompt is None) == (body.messages is None):
        raise invalid("Give either 'prompt' or 'messages'.", "prompt")
    text = body.prompt
    if body.messages is not None:
        text = model.tokenizer.template.render(
            body.messages, tools=body.tools, add_generation_prompt=body.add_generation_prompt
        )
    check_length(text or "", model, "prompt")
    special = body.messages is None if body.add_special_tokens is None else body.add_special_tokens
    ids = model.tokenizer.encode(text or "", add_special_tokens=special)
    names = [model.tokenizer.backend.id_to_token(token) for token in ids] if body.return_token_strs else None
    return dumps({"count": len(ids), "max_model_len": model.max_model_len, "tokens": ids, "token_strs": names})


def detokenize(given: dict[str, Any], model: Model) -> bytes:
    """`{"prompt"}`: the text of token ids, special tokens included.

    Raises:
        OpenAIError: the request is at fault.
    """
    body: DetokenizeBody = validated(DetokenizeBody, given)
    ids = within_vocabulary(body.tokens, model.tokenizer, "tokens")
    return dumps({"prompt": model.tokenizer.backend.decode(ids, skip_special_tokens=False)})


def validated(schema: type[Any], given: dict[str, Any]) -> Any:
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise translate(error) from None
