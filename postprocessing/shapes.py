"""Answers and chunks as OpenAI shapes them: bytes ready for the wire.

Chunks are rendered once per answer but for their text: a chunk costs one JSON string escape and a join. Two shapes,
chat and text completion, share everything else. Source: platform.openai.com/docs/api-reference (chat/streaming,
completions).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from preprocessing.wire import dumps, escape

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
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int

    def body(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


class Shape(NamedTuple):
    """Where the two endpoints differ.

    Attributes:
        text_open, text_close: JSON around the escaped text of a streamed choice.
        opening, closing: members of a choice without text: the first chunk (None: there is none) and the last.
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


class Chunks:
    """Renders the server-sent events of one streamed answer.

    Args:
        with_usage: the client asked for usage: every chunk has the member, null but in the last.
    """

    def __init__(self, shape: Shape, identity: Identity, *, with_usage: bool) -> None:
        head = dumps(envelope(shape.chunk_object, identity))
        self._shape = shape
        self._head = b"data: " + head[:-1]
        self._choice = self._head + b',"choices":[{"index":0,'
        self._no_usage = b',"usage":null}\n\n' if with_usage else b"}\n\n"
        self._text_head = self._choice + shape.text_open
        self._text_tail = shape.text_close + b',"logprobs":null,"finish_reason":null}]' + self._no_usage

    def opening(self) -> bytes:
        """The first chunk, with the role; empty for shapes that have none."""
        if self._shape.opening is None:
            return b""
        return self._choice + self._shape.opening + b',"logprobs":null,"finish_reason":null}]' + self._no_usage

    def text(self, text: str) -> bytes:
        return self._text_head + escape(text) + self._text_tail

    def closing(self, finish_reason: str) -> bytes:
        """The chunk with the finish reason: alone, with an empty delta."""
        reason = b',"logprobs":null,"finish_reason":"%b"}]' % finish_reason.encode()
        return self._choice + self._shape.closing + reason + self._no_usage

    def usage(self, usage: Usage) -> bytes:
        return self._head + b',"choices":[],"usage":' + dumps(usage.body()) + b"}\n\n"


def envelope(object_name: str, identity: Identity) -> dict[str, Any]:
    return {
        "id": identity.id,
        "object": object_name,
        "created": identity.created,
        "model": identity.model,
        "system_fingerprint": identity.fingerprint,
    }


def whole(shape: Shape, identity: Identity, text: str, finish_reason: str, usage: Usage) -> bytes:
    """The body of an answer that is not streamed."""
    choice: dict[str, Any] = {"index": 0}
    if shape is CHAT:
        choice["message"] = {"role": "assistant", "content": text, "refusal": None}
    else:
        choice["text"] = text
    choice |= {"logprobs": None, "finish_reason": finish_reason}
    return dumps(envelope(shape.object, identity) | {"choices": [choice], "usage": usage.body()})


def error_event(body: bytes) -> bytes:
    """An error in mid-stream; `body` is an error object as JSON. Nothing follows it."""
    return b"data: " + body + b"\n\n"
