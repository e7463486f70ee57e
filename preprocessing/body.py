"""Raw JSON bytes → a checked request body: types, ranges and sizes, by pydantic in strict mode.

Nothing is coerced: `"4"` or `true` is not a number, `1` is not a string. Fields that are absent or null take OpenAI's
defaults (platform.openai.com/docs/api-reference).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from preprocessing import fields
from preprocessing.errors import OpenAIError, invalid
from preprocessing.messages import Message, Strict
from preprocessing.tools import MAX_TOOLS, Tool
from preprocessing.wire import MAX_SHOWN, shown

MAX_STOPS = 4  # OpenAI's own limit
MAX_STOP_CHARS = 1024  # the held-back text per stream is bounded by this
MAX_MESSAGES = 4096
MAX_PROMPTS = 1024  # far above what a server allows (max_choices)
MAX_N = 128  # OpenAI's own limit; the server's may be lower
MAX_BIASES = 1024
MAX_WORDS = 128  # bad words, stop token ids
MAX_TOP_LOG_PROBS = 20  # chat; OpenAI's own limit
MAX_LOG_PROBS = 5  # completions; OpenAI's own limit
MAX_TOOLS_BYTES = 1024 * 1024
MAX_TOP_K = 1024  # what TensorRT-LLM's kernels take

Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
TokenIds = Annotated[list[int], Field(fail_fast=True)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class StreamOptions(Strict):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    # A padding field against traffic analysis that openai clients may send; it asks for nothing we would do.
    include_obfuscation: bool | None = None


class Body(Strict):
    """What chat and completions share. The members from `top_k` on are extensions, under the names of vLLM."""

    model: str
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    n: Annotated[int, Field(ge=1, le=MAX_N)] = 1
    seed: Int64 | None = None
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_BIASES)] = Field(
        default_factory=dict
    )
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS, fail_fast=True)] = Field(
        default_factory=list
    )
    stream: bool = False
    stream_options: StreamOptions | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_TOP_K)] = 0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] = 1.0
    min_tokens: Annotated[int, Field(ge=0)] = 0
    ignore_eos: bool = False
    stop_token_ids: Annotated[list[int], Field(max_length=MAX_WORDS, fail_fast=True)] = Field(default_factory=list)
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    bad_words: Annotated[list[StopString], Field(max_length=MAX_WORDS, fail_fast=True)] = Field(default_factory=list)
    return_tokens_as_token_ids: bool = False
    lora_model: str | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] = Field(default_factory=list)
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    include_reasoning: bool = True
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOG_PROBS)] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    # The template writes the special tokens itself.
    add_special_tokens: bool = False


class CompletionBody(Body):
    """POST /v1/completions. A prompt is text or token ids, alone or in a list of several."""

    # Lists fail fast: a long one of the wrong kind is one error, not one for each item.
    prompt: (
        str | Annotated[list[str], Field(fail_fast=True)] | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
    )
    suffix: str | None = None
    echo: bool = False
    best_of: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOG_PROBS)] | None = None
    add_special_tokens: bool = True


class Rule(NamedTuple):
    """A field that is only allowed under a condition: what to say, and whether a body breaks it."""

    field: str
    needed: str
    broken: Callable[[Any], bool]


COMMON_RULES = (Rule("stream_options", "'stream' is true", lambda b: b.stream_options is not None and not b.stream),)
CHAT_RULES = (
    *COMMON_RULES,
    Rule("top_logprobs", "'logprobs' is true", lambda b: b.top_logprobs is not None and not b.logprobs),
    Rule(
        "continue_final_message",
        "'add_generation_prompt' is false",
        lambda b: (
            b.continue_final_message and b.add_generation_prompt and "add_generation_prompt" in b.model_fields_set
        ),
    ),
    Rule(
        "continue_final_message",
        "the last message is the assistant's",
        lambda b: b.continue_final_message and b.messages[-1].role != "assistant",
    ),
)
COMPLETION_RULES = (
    *COMMON_RULES,
    Rule("best_of", "it is at least 'n'", lambda b: b.best_of is not None and b.best_of < b.n),
    Rule("best_of", "'stream' is false, or it equals 'n'", lambda b: (b.best_of or b.n) > b.n and b.stream),
    Rule("max_tokens", "it is at least 1, or 'echo' is true", lambda b: b.max_tokens == 0 and not b.echo),
    Rule("echo", "there is no 'suffix'", lambda b: b.echo and bool(b.suffix)),
)


class Schema(NamedTuple):
    """What an endpoint takes."""

    body: type[Body]
    fields: Mapping[str, fields.Field]
    rules: Sequence[Rule]


SCHEMAS: dict[str, Schema] = {
    "chat/completions": Schema(ChatBody, fields.CHAT, CHAT_RULES),
    "completions": Schema(CompletionBody, fields.COMPLETIONS, COMPLETION_RULES),
}


def parse(endpoint: str, given: dict[str, Any], *, ignore_unknown: bool = False) -> ChatBody | CompletionBody:
    """Checks a request.

    Args:
        endpoint: a key of `SCHEMAS`.
        given: the request body, decoded.
        ignore_unknown: drop fields that the endpoint does not know, instead of refusing them.

    Raises:
        OpenAIError: 400 that names the field, what is wanted and what came.
    """
    schema = SCHEMAS[endpoint]
    honoured = fields.check(given, schema.fields, ignore_unknown=ignore_unknown)
    check_prompts(honoured.get("prompt"))
    check_tools_size(honoured.get("tools"))
    try:
        body = schema.body.model_validate(honoured)
    except ValidationError as error:
        raise translate(error) from None
    for rule in schema.rules:
        if rule.broken(body):
            raise invalid(f"'{rule.field}' is only allowed when {rule.needed}.", rule.field)
    assert isinstance(body, ChatBody | CompletionBody)
    return body


def check_prompts(prompt: Any) -> None:
    """Refuses a list of very many prompts before each of them is looked at. (A long list of numbers is one prompt.)"""
    if isinstance(prompt, list) and len(prompt) > MAX_PROMPTS and isinstance(prompt[0], str | list):
        raise invalid(f"'prompt' must have at most {MAX_PROMPTS} item(s).", "prompt")


def check_tools_size(tools: Any) -> None:
    """Refuses what would take long to look at."""
    if tools and len(orjson.dumps(tools)) > MAX_TOOLS_BYTES:
        raise invalid(f"'tools' must have at most {MAX_TOOLS_BYTES} bytes.", "tools")


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
    "tool_call_id_required": "'{field}' needs a 'tool_call_id'.",
    "not_of_role": "'{field}.{member}' is not allowed with the role '{role}'.",
    "dict_type": "'{field}' must be an object; got {input}.",
    "content_required": "'{field}' needs a 'content'.",
    "extra_forbidden": "Unknown field: '{field}'.",
    "greater_than_equal": "'{field}' must be at least {ge}; got {input}.",
    "less_than_equal": "'{field}' must be at most {le}; got {input}.",
    "too_short": "'{field}' must have at least {min_length} item(s); got {actual_length}.",
    "too_long": "'{field}' must have at most {max_length} item(s).",
    "string_too_short": "'{field}' must not be an empty string.",
    "string_pattern_mismatch": "'{field}' must be made of letters, digits and _ . : / - only; got {input}.",
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
    "input": "'{field}' must be a string, a list of strings, a list of token ids or a list of those; got {input}.",
    "content": "'{field}' must be a string or a list of text parts; got {input}.",
}


def translate(error: ValidationError) -> OpenAIError:
    """The most telling of pydantic's errors as one of ours.

    For a union each member reports its own failure; the one that got deepest into the value is the member that was
    meant.
    """
    found = [(path(each), each) for each in error.errors(include_url=False)]
    steps, worst = max(found, key=lambda each: len(each[0]))
    details: dict[str, Any] = dict(worst.get("ctx", {}), input=shown(worst.get("input")))
    field = details["field"] = dotted(steps)
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
    "constrained-list",
}  # fmt: skip


def dotted(steps: list[int | str]) -> str:
    """`["messages", 0, "role"]` → `messages[0].role`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.lstrip(".")
