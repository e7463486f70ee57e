"""The errors a client can see: one class, and one table from kind to HTTP status, type and code.

Shapes follow OpenAI's error object (platform.openai.com/docs/guides/error-codes):
`{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from preprocessing.wire import dumps


class Kind(Enum):
    """What went wrong, by the name of the row in `ROWS`."""

    INVALID = "invalid"
    CONTEXT_LENGTH = "context_length"
    MODEL_NOT_FOUND = "model_not_found"
    NOT_FOUND = "not_found"
    QUEUE_FULL = "queue_full"
    UNAVAILABLE = "unavailable"
    QUEUE_TIMEOUT = "queue_timeout"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


class Row(NamedTuple):
    """HTTP status and the `type` and `code` of the error object."""

    status: int
    type: str
    code: str | None


ROWS: dict[Kind, Row] = {
    Kind.INVALID: Row(400, "invalid_request_error", None),
    Kind.CONTEXT_LENGTH: Row(400, "invalid_request_error", "context_length_exceeded"),
    Kind.MODEL_NOT_FOUND: Row(404, "invalid_request_error", "model_not_found"),
    Kind.NOT_FOUND: Row(404, "invalid_request_error", "not_found"),
    Kind.QUEUE_FULL: Row(429, "rate_limit_error", "queue_full"),
    Kind.UNAVAILABLE: Row(503, "server_error", "service_unavailable"),
    Kind.QUEUE_TIMEOUT: Row(503, "server_error", "queue_timeout"),
    Kind.TIMEOUT: Row(504, "server_error", "request_timeout"),
    Kind.INTERNAL: Row(500, "server_error", "internal_error"),
}


class OpenAIError(Exception):
    """An error with a message fit for the client's eyes.

    Args:
        kind: row of the table above.
        message: says what is wrong, the limit and what came; never anything internal.
        param: the request field at fault, if one is.
    """

    def __init__(self, kind: Kind, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param

    @property
    def status(self) -> int:
        return ROWS[self.kind].status

    @property
    def code(self) -> str:
        """What tells it from others: the code that clients see, where there is none the type."""
        row = ROWS[self.kind]
        return row.code or row.type

    def body(self) -> bytes:
        """The error object as ASCII JSON."""
        row = ROWS[self.kind]
        error = {"message": self.message, "type": row.type, "param": self.param, "code": row.code}
        return dumps({"error": error})


def model_not_found(name: str) -> OpenAIError:
    return OpenAIError(Kind.MODEL_NOT_FOUND, f"The model '{name[:128]}' does not exist.", "model")


def invalid(message: str, param: str | None = None) -> OpenAIError:
    """The commonest error: the request is at fault."""
    return OpenAIError(Kind.INVALID, message, param)
