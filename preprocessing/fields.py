"""Which request fields are honoured, accepted without effect, or refused: the one place that says so.

A field that is not in the table of its endpoint is unknown and refused by name. A refused field may still be sent
with a value that asks for nothing (`functions: []`, `min_p: 0`): clients send those as a matter of course.
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
EXTENSION = Field("honoured", "an extension, as vLLM names it")
BOOKKEEPING = Field("accepted", "for the provider's records; the answer does not depend on it")
MIN_P = Field("refused", "cannot be expressed in the engine's contract", (0,))


COMMON: dict[str, Field] = {
    "model": HONOURED,
    "max_tokens": HONOURED,
    "temperature": HONOURED,
    "top_p": HONOURED,
    "n": HONOURED,
    "seed": HONOURED,
    "presence_penalty": HONOURED,
    "frequency_penalty": HONOURED,
    "logit_bias": HONOURED,
    "logprobs": HONOURED,
    "stop": HONOURED,
    "stream": HONOURED,
    "stream_options": HONOURED,
    "user": BOOKKEEPING,
    "top_k": EXTENSION,
    "min_p": MIN_P,
    "repetition_penalty": EXTENSION,
    "min_tokens": EXTENSION,
    "ignore_eos": EXTENSION,
    "stop_token_ids": EXTENSION,
    "include_stop_str_in_output": EXTENSION,
    "skip_special_tokens": EXTENSION,
    "add_special_tokens": EXTENSION,
    "bad_words": EXTENSION,
    "return_tokens_as_token_ids": EXTENSION,
    "response_format": HONOURED,
    "structured_outputs": EXTENSION,
    "lora_model": Field("honoured", "an extension, as llgtrt names it: the adapter that `model` can name as well"),
    "guided_json": EXTENSION,
    "guided_regex": EXTENSION,
    "guided_choice": EXTENSION,
    "guided_grammar": EXTENSION,
}

CHAT: dict[str, Field] = COMMON | {
    "messages": HONOURED,
    "max_completion_tokens": HONOURED,
    "top_logprobs": HONOURED,
    "add_generation_prompt": EXTENSION,
    "continue_final_message": EXTENSION,
    "chat_template_kwargs": Field("honoured", "an extension, as vLLM names it; only keys that the server allows"),
    "metadata": BOOKKEEPING,
    "store": BOOKKEEPING,
    "service_tier": BOOKKEEPING,
    "safety_identifier": BOOKKEEPING,
    "prompt_cache_key": BOOKKEEPING,
    "prompt_cache_retention": BOOKKEEPING,
    "prompt_cache_options": BOOKKEEPING,
    "tools": HONOURED,
    "tool_choice": HONOURED,
    "parallel_tool_calls": HONOURED,
    "functions": Field("refused", "OpenAI has replaced it by `tools`", ([],)),
    "function_call": Field("refused", "OpenAI has replaced it by `tool_choice`", ("none", "auto")),
    "reasoning_effort": Field("honoured", "becomes `reasoning_effort` and thinking switches of the chat template"),
    "include_reasoning": Field("honoured", "an extension, as vLLM names it: false leaves the reasoning out"),
    "modalities": Field("refused", "text is all that the model writes", (["text"],)),
    "audio": Field("refused", "text is all that the model writes"),
    "prediction": Field("refused", "cannot be expressed in the engine's contract"),
    "verbosity": Field("refused", "models have no such setting", ("medium",)),
    "web_search_options": Field("refused", "the server does not search"),
}

COMPLETIONS: dict[str, Field] = COMMON | {
    "prompt": HONOURED,
    "suffix": Field("honoured", "for models whose vocabulary has the tokens of fill-in-the-middle"),
    "echo": HONOURED,
    "best_of": HONOURED,
}

EMBEDDINGS: dict[str, Field] = {
    "model": HONOURED,
    "input": HONOURED,
    "encoding_format": HONOURED,
    "dimensions": Field("honoured", "where the model is made for it (docs/embeddings.md)"),
    "prompt_name": Field("honoured", "an extension: one of the prompts that the model's files name"),
    "user": BOOKKEEPING,
}


def check(body: Mapping[str, Any], table: Mapping[str, Field], *, ignore_unknown: bool = False) -> dict[str, Any]:
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
        if field is None and ignore_unknown:
            continue
        if field is None:
            raise invalid(f"Unknown field: '{name[:64]}'.", name[:64])
        if field.use == "refused" and not is_neutral(value, field):
            raise invalid(f"The field '{name}' is refused: {field.note}.", name)
        if field.use == "honoured":
            honoured[name] = value
    return honoured


def is_neutral(value: Any, field: Field) -> bool:
    """Whether a refused field's value asks for nothing. `True` is not the number 1 here."""
    return any(value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in field.neutral)
