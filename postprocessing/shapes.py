"""Answers and chunks as OpenAI shapes them: bytes ready for the wire.

Chunks are rendered once per answer but for their text: a chunk costs one JSON string escape and a join. Two shapes,
chat and text completion, share everything else. Source: platform.openai.com/docs/api-reference (chat/streaming,
completions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from preprocessing.wire import dumps, escape

# Stands for a whole answer that failed after its status was sent: no JSON begins so. The gateway breaks the connection.
FAILED = b"\x18"
DONE = b"data: [DONE]\n\n"


class Identity(NamedTuple):
    """What all chunks of one answer have in common.

    Attributes:
        id: begins with `Shape.id_prefix`.
        created: Unix time in seconds.
        fingerprint: `system_fingerprint`: changes when the answers to the same request may.
    """

    id: str
    created: int
    model: str
    fingerprint: str


class Usage(NamedTuple):
    """Token counts.

    Attributes:
        cached_tokens: prompt tokens that the engine found in its cache; None if it does not say.
        reasoning_tokens: completion tokens that were part of a thought; None if the model has none.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    def body(self) -> dict[str, Any]:
        counts: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.cached_tokens is not None:
            counts["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if self.reasoning_tokens is not None:
            counts["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return counts


class Shape(NamedTuple):
    """Where the two endpoints differ.

    Attributes:
        opening: members of a choice in the first chunk (None: there is no such chunk).
        text_open, text_close: JSON around the escaped text of a streamed choice.
        closing: members of a choice in its last chunk.
    """

    id_prefix: str
    object: str
    chunk_object: str
    opening: bytes | None
    text_open: bytes
    text_close: bytes
    closing: bytes


CHAT = Shape(
    id_prefix="chatcmpl-",
    object="chat.completion",
    chunk_object="chat.completion.chunk",
    opening=b'"delta":{"role":"assistant","content":""}',
    text_open=b'"delta":{"content":',
    text_close=b"}",
    closing=b'"delta":{}',
)
COMPLETION = Shape(
    id_prefix="cmpl-",
    object="text_completion",
    chunk_object="text_completion",
    opening=None,
    text_open=b'"text":',
    text_close=b"",
    closing=b'"text":""',
)


def shape_of(*, chat: bool) -> Shape:
    return CHAT if chat else COMPLETION


class Chunks:
    """Renders the server-sent events of one choice of a streamed answer.

    Args:
        index: of the choice.
        with_usage: the client asked for usage: every chunk has the member, null until the last.
    """

    def __init__(self, shape: Shape, identity: Identity, index: int, *, with_usage: bool) -> None:
        self._shape = shape
        self._choice = head(shape, identity) + b',"choices":[{"index":%d,' % index
        self._no_usage = b'"usage":null}\n\n' if with_usage else None
        self._text_head = self._choice + shape.text_open
        self._text_tail = shape.text_close + b',"logprobs":null,"finish_reason":null}]' + self._end(None)

    def opening(self, usage: Usage | None = None) -> bytes:
        """The first chunk, with the role; empty for shapes that have none."""
        if self._shape.opening is None:
            return b""
        return self._choice + self._shape.opening + b',"logprobs":null,"finish_reason":null}]' + self._end(usage)

    def text(self, text: str, log_probs: dict[str, Any] | None = None, usage: Usage | None = None) -> bytes:
        if log_probs is None and usage is None:
            return self._text_head + escape(text) + self._text_tail
        told = b',"logprobs":' + (b"null" if log_probs is None else dumps(log_probs)) + b',"finish_reason":null}]'
        return self._text_head + escape(text) + self._shape.text_close + told + self._end(usage)

    def reasoning(
        self, text: str, names: Sequence[str], log_probs: dict[str, Any] | None = None, usage: Usage | None = None
    ) -> bytes:
        """More of the thought, under each of the names that clients have for it."""
        written = escape(text)
        return self._delta(b",".join(b'"%b":%b' % (name.encode(), written) for name in names), log_probs, usage)

    def call(
        self, number: int, call_id: str, name: str, log_probs: dict[str, Any] | None = None, usage: Usage | None = None
    ) -> bytes:
        """A tool call begins: the only chunk with its id, type and name."""
        function = dumps({"name": name, "arguments": ""})
        told = (number, dumps(call_id), function)
        return self._delta(
            b'"tool_calls":[{"index":%d,"id":%b,"type":"function","function":%b}]' % told, log_probs, usage
        )

    def arguments(
        self, number: int, text: str, log_probs: dict[str, Any] | None = None, usage: Usage | None = None
    ) -> bytes:
        """More of a tool call's arguments."""
        told = (number, escape(text))
        return self._delta(b'"tool_calls":[{"index":%d,"function":{"arguments":%b}}]' % told, log_probs, usage)

    def _delta(self, members: bytes, log_probs: dict[str, Any] | None, usage: Usage | None) -> bytes:
        told = b"null" if log_probs is None else dumps(log_probs)
        return b'%b"delta":{%b},"logprobs":%b,"finish_reason":null}]%b' % (
            self._choice, members, told, self._end(usage)
        )  # fmt: skip

    def closing(self, finish_reason: str, usage: Usage | None = None) -> bytes:
        """The chunk with the finish reason: alone, with an empty delta."""
        reason = b',"logprobs":null,"finish_reason":"%b"}]' % finish_reason.encode()
        return self._choice + self._shape.closing + reason + self._end(usage)

    def _end(self, usage: Usage | None) -> bytes:
        if usage is not None:
            return b',"usage":' + dumps(usage.body()) + b"}\n\n"
        return b"}\n\n" if self._no_usage is None else b"," + self._no_usage


def head(shape: Shape, identity: Identity) -> bytes:
    """The beginning of a chunk, up to its choices."""
    return b"data: " + dumps(envelope(shape.chunk_object, identity))[:-1]


def usage_chunk(shape: Shape, identity: Identity, usage: Usage) -> bytes:
    """The last chunk of a stream whose client asked for usage."""
    return head(shape, identity) + b',"choices":[],"usage":' + dumps(usage.body()) + b"}\n\n"


def envelope(object_name: str, identity: Identity) -> dict[str, Any]:
    return {
        "id": identity.id,
        "object": object_name,
        "created": identity.created,
        "model": identity.model,
        "system_fingerprint": identity.fingerprint,
    }


def message(content: str, thoughts: Mapping[str, str], calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's message of a chat that is not streamed: without text, an answer of calls has no content at all.

    Args:
        thoughts: the reasoning, under each of its names; empty if there is none.
        calls: as `tool_call` makes them.
    """
    shown = None if calls and not content else content
    found = {"role": "assistant", "content": shown, "refusal": None, **thoughts}
    return found | {"tool_calls": list(calls)} if calls else found


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def whole_choice(
    index: int, said: dict[str, Any], log_probs: dict[str, Any] | None, finish_reason: str
) -> dict[str, Any]:
    """A choice of an answer that is not streamed; `said` is its member with the message or text."""
    return {"index": index, **said, "logprobs": log_probs, "finish_reason": finish_reason}


def whole(shape: Shape, identity: Identity, choices: list[dict[str, Any]], usage: Usage) -> bytes:
    """The body of an answer that is not streamed."""
    return dumps(envelope(shape.object, identity) | {"choices": choices, "usage": usage.body()})


def error_event(body: bytes) -> bytes:
    """An error in mid-stream; `body` is an error object as JSON. Nothing follows it."""
    return b"data: " + body + b"\n\n"
