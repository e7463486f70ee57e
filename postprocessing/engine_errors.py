"""What engines say when they fail → what the client is told. An engine's own words never reach a client.

The C++ engine reports everything as an internal error, so the text is all there is to go by; the patterns are those of
TensorRT-LLM's executor and Triton backend, of Triton core and of the embedded engine.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from postprocessing.events import Event, Status
from preprocessing.errors import Kind, OpenAIError


class Row(NamedTuple):
    """A pattern in the engine's message and the error it stands for; `{0}`… are the pattern's groups."""

    pattern: str
    kind: Kind
    message: str


ROWS = (
    Row(
        r"Prompt length \((\d+)\) exceeds maximum input length \((\d+)\)",
        Kind.CONTEXT_LENGTH,
        "The engine takes prompts of at most {1} tokens, but the request has {0}. Shorten the prompt.",
    ),
    Row(
        r"Maximum queue size of \d+ has been reached|Exceeds maximum queue size|Too many guides wait",
        Kind.QUEUE_FULL,
        "The server has as many requests waiting as it accepts. Try again later.",
    ),
    Row(
        r"is not ready|is not healthy|is not found|unknown model|unloaded|shutting down|is stopping|failed to load",
        Kind.UNAVAILABLE,
        "The engine is not ready. Try again later.",
    ),
    Row(r"unknown session", Kind.UNAVAILABLE, "The engine has lost the request. Try again."),
    Row(
        r"gather_(generation|context)_logits",
        Kind.INVALID,
        "The engine was built without {0} logits, which the requested log probs need.",
    ),
    Row(
        r"Invalid guided decoding guide:? ?([^\n]{0,300})",
        Kind.INVALID,
        "The engine cannot enforce the constraint of the output: {0}",
    ),
    Row(
        r"guided_decoding_guide: at most (\d+)",
        Kind.INVALID,
        "The constraint of the output has more than the {0} bytes that the engine takes.",
    ),
    Row(
        r"bad words of one token only",
        Kind.INVALID,
        "The engine takes bad words of one token only.",
    ),
    Row(
        r"LoRA task (\d+) is not among",
        Kind.INVALID,
        "The engine has no LoRA adapter {0}.",
    ),
    Row(
        r"LoRA task \d+ not found in cache",
        Kind.UNAVAILABLE,
        "The engine does not have the LoRA adapter, and it cannot be sent.",
    ),
    Row(
        r"PEFT Cache is full|Cache is full. There are no done tasks to evict",
        Kind.UNAVAILABLE,
        "The engine has no room for another LoRA adapter. Try again later.",
    ),
    Row(
        r"LoRA is not supported|LoRA is not enabled",
        Kind.INVALID,
        "The engine cannot apply LoRA adapters.",
    ),
    Row(
        r"lora module \S+ not enabled|low_rank must be smaller|lora_weights (has|holds)|lora weights to be the same"
        r"|layerId to be in the range",
        Kind.INTERNAL,
        "The LoRA adapter does not fit the engine.",
    ),
    Row(
        r"no token is left to choose from",
        Kind.INVALID,
        "The constraint of the output leaves no token that the other fields of the request allow.",
    ),
    Row(
        r"GuidedDecoder is not setup",
        Kind.INVALID,
        "The engine is not configured for guided decoding.",
    ),
)
UNKNOWN = "The engine failed to generate an answer."
CANCELLED = "The engine cancelled the request."


def translate(event: Event) -> OpenAIError:
    """The client's error for a last event that is no regular end of a sequence."""
    if event.status is Status.CANCELLED:
        return OpenAIError(Kind.UNAVAILABLE, CANCELLED)
    return from_message(event.error)


def from_message(message: str) -> OpenAIError:
    """The client's error for an engine's message."""
    for row in ROWS:
        if found := re.search(row.pattern, message):
            return OpenAIError(row.kind, row.message.format(*found.groups()))
    return OpenAIError(Kind.INTERNAL, UNKNOWN)
