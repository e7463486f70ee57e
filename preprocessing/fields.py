"""Which request fields are honoured, accepted without effect, or refused: the one place that says so.

A field that is not in the table of its endpoint is unknown and refused by name. A refused field may still be sent
with a value that asks for nothing (`n: 1`, `tools: []`): clients send those as a matter of course.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from preprocessing.errors import invalid


class Field(NamedTuple):
    """How one field is treated.

    Attributes:
        use: "honoured", "accepted" (taken, without effect on the answer) or "refused".
        note: the reason, for the documentation.
        neutral: values of a refused field that ask for what happens anyway.
    """

    use: str
    note: str = ""
    neutral: tuple[Any, ...] = ()


HONOURED = Field("honoured")
BOOKKEEPING = Field("accepted", "for the provider's records; the answer does not depend on it")


def refused(*neutral: Any) -> Field:
    """A field that is not supported yet, and the values that ask for nothing."""
    return Field("refused", "not supported yet", neutral)


COMMON: dict[str, Field] = {
    "model": HONOURED,
    "max_tokens": HONOURED,
    "temperature": HONOURED,
    "top_p": HONOURED,
    "seed": HONOURED,
    "stop": HONOURED,
    "stream": HONOURED,
    "stream_options": HONOURED,
    "user": BOOKKEEPING,
    "n": refused(1),
    "presence_penalty": refused(0),
    "frequency_penalty": refused(0),
    "logit_bias": refused({}),
}

CHAT: dict[str, Field] = COMMON | {
    "messages": HONOURED,
    "max_completion_tokens": HONOURED,
    "metadata": BOOKKEEPING,
    "store": BOOKKEEPING,
    "service_tier": BOOKKEEPING,
    "safety_identifier": BOOKKEEPING,
    "prompt_cache_key": BOOKKEEPING,
    "logprobs": refused(False),
    "top_logprobs": refused(),
    "response_format": refused({"type": "text"}),
    "tools": refused([]),
    "tool_choice": refused("none", "auto"),
    "parallel_tool_calls": refused(True, False),
    "functions": refused([]),
    "function_call": refused("none", "auto"),
    "reasoning_effort": refused(),
    "modalities": refused(["text"]),
    "audio": refused(),
    "prediction": refused(),
    "verbosity": refused(),
    "web_search_options": refused(),
}

COMPLETIONS: dict[str, Field] = COMMON | {
    "prompt": HONOURED,
    "suffix": refused(""),
    "echo": refused(False),
    "best_of": refused(1),
    "logprobs": refused(),
}


def check(body: Mapping[str, Any], table: Mapping[str, Field]) -> dict[str, Any]:
    """Keeps the honoured fields of a request body.

    Args:
        body: the decoded JSON object, explicit nulls already dropped (they mean "absent").
        table: the fields of the endpoint.

    Raises:
        OpenAIError: 400 naming the first field that is unknown or refused.
    """
    honoured: dict[str, Any] = {}
    for name, value in body.items():
        field = table.get(name)
        if field is None:
            raise invalid(f"Unknown field: '{name[:64]}'.", name[:64])
        if field.use == "refused" and not is_neutral(value, field):
            raise invalid(f"The field '{name}' is {field.note}.", name)
        if field.use == "honoured":
            honoured[name] = value
    return honoured


def is_neutral(value: Any, field: Field) -> bool:
    """Whether a refused field's value asks for nothing. `True` is not the number 1 here."""
    return any(value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in field.neutral)
