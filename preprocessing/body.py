"""Raw JSON bytes → a checked request body: types, ranges and sizes, by pydantic in strict mode.

Nothing is coerced: `"4"` or `true` is not a number, `1` is not a string. Fields that are absent or null take OpenAI's
defaults (platform.openai.com/docs/api-reference).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from preprocessing import fields
from preprocessing.errors import OpenAIError, invalid

MAX_STOPS = 4  # OpenAI's own limit
MAX_STOP_CHARS = 1024  # the held-back text per stream is bounded by this
MAX_MESSAGES = 4096
INT64 = Field(ge=-(2**63), le=2**63 - 1)

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class Strict(BaseModel):
    """Strict types, no unknown members, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class StreamOptions(Strict):
    include_usage: bool | None = None
    # A padding field against traffic analysis that openai clients may send; it asks for nothing we would do.
    include_obfuscation: bool | None = None


class TextPart(Strict):
    type: Literal["text"]
    text: str


class Message(Strict):
    """One message of a chat.

    The members after `name` are what SDK objects carry back from earlier answers; they do not reach the prompt.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)] | None = None
    name: str | None = None
    refusal: Any = None
    annotations: Any = None
    provider_specific_fields: Any = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None

    @model_validator(mode="after")
    def _has_content(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError("content_required", "content")
        return self

    def text(self) -> str:
        """The content as one string; text parts are joined by newlines."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class Body(Strict):
    """What chat and completions share."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    seed: Annotated[int, INT64] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)] = Field(default_factory=list)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


class CompletionBody(Body):
    """POST /v1/completions. A prompt is text or token ids, alone or in a list of one."""

    prompt: str | list[str] | list[int] | list[list[int]]


SCHEMAS: dict[str, tuple[type[Body], Mapping[str, fields.Field]]] = {
    "chat/completions": (ChatBody, fields.CHAT),
    "completions": (CompletionBody, fields.COMPLETIONS),
}


def parse(endpoint: str, raw: bytes) -> ChatBody | CompletionBody:
    """Decodes and checks a request.

    Args:
        endpoint: a key of `SCHEMAS`.
        raw: the request body as the client sent it.

    Raises:
        OpenAIError: 400 that names the field, what is wanted and what came.
    """
    schema, table = SCHEMAS[endpoint]
    honoured = fields.check(decode(raw), table)
    try:
        body = schema.model_validate(honoured)
    except ValidationError as error:
        raise translate(error) from None
    if body.stream_options is not None and not body.stream:
        raise invalid("'stream_options' is only allowed when 'stream' is true.", "stream_options")
    assert isinstance(body, ChatBody | CompletionBody)
    return body


def decode(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`, without its null members."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(f"The request body is not valid JSON: {error.msg} at character {error.pos}.") from None
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.")
    return {name: value for name, value in body.items() if value is not None}


# What pydantic calls an error → what we say. `{…}` are members of the error's own context.
MESSAGES: dict[str, str] = {
    "missing": "Missing required field '{field}'.",
    "content_required": "'{field}' needs a 'content'.",
    "extra_forbidden": "Unknown field: '{field}'.",
    "greater_than_equal": "'{field}' must be at least {ge}; got {input}.",
    "less_than_equal": "'{field}' must be at most {le}; got {input}.",
    "too_short": "'{field}' must have at least {min_length} item(s); got {actual_length}.",
    "too_long": "'{field}' must have at most {max_length} item(s); got {actual_length}.",
    "string_too_short": "'{field}' must not be an empty string.",
    "string_too_long": "'{field}' must have at most {max_length} characters.",
    "literal_error": "'{field}' must be {expected}; got {input}.",
    "string_type": "'{field}' must be a string; got {input}.",
    "int_type": "'{field}' must be an integer; got {input}.",
    "float_type": "'{field}' must be a number; got {input}.",
    "bool_type": "'{field}' must be true or false; got {input}.",
    "list_type": "'{field}' must be a list; got {input}.",
    "model_type": "'{field}' must be an object; got {input}.",
    "none_required": "'{field}' is not supported yet.",
}
# Fields that may be of several types: what to say when the value is of none of them.
UNIONS: dict[str, str] = {
    "stop": f"'{{field}}' must be a string or a list of up to {MAX_STOPS} strings; got {{input}}.",
    "prompt": "'{field}' must be a string, a list of strings or a list of token ids; got {input}.",
    "content": "'{field}' must be a string or a list of text parts; got {input}.",
}
MAX_SHOWN = 64  # characters of the client's own value in a message


def translate(error: ValidationError) -> OpenAIError:
    """The most telling of pydantic's errors as one of ours.

    For a union each member reports its own failure; the one that got deepest into the value is the member that was
    meant.
    """
    found = [(path(each), each) for each in error.errors(include_url=False)]
    steps, worst = max(found, key=lambda each: len(each[0]))
    field = dotted(steps)
    details = dict(worst.get("ctx", {}), field=field, input=shown(worst.get("input")))
    wanted = MESSAGES.get(worst["type"], "'{field}' has an invalid value: {input}.")
    if sum(other == steps for other, _ in found) > 1:
        wanted = UNIONS.get(str(steps[-1]), wanted)
    return invalid(wanted.format(**details), field)


def path(error: ErrorDetails) -> list[int | str]:
    """Where an error is, as field names and list indexes, without the names of union members that pydantic inserts."""
    *parents, last = error["loc"]
    steps = [step for step in parents if step not in UNION_MEMBERS]
    if error["type"] == "extra_forbidden" or last not in UNION_MEMBERS:
        steps.append(last[:MAX_SHOWN] if isinstance(last, str) else last)
    return steps


UNION_MEMBERS = {
    "str", "constrained-str", "list[str]", "list[constrained-str]", "list[TextPart]", "list[int]", "list[list[int]]",
}  # fmt: skip


def dotted(steps: list[int | str]) -> str:
    """`["messages", 0, "role"]` → `messages[0].role`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.lstrip(".")


def shown(value: Any) -> str:
    """A client's value, cut short, as JSON."""
    try:
        text = orjson.dumps(value).decode()
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
