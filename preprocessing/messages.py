"""The messages of a chat: what they may hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MAX_TOOL_CALLS = 128
MAX_PARTS = 1024


class Strict(BaseModel):
    """Strict types, no unknown members, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class TextPart(Strict):
    type: Literal["text"]
    text: str


class Function(Strict):
    """`parsed_arguments` is what openai-python leaves in messages that it has parsed."""

    name: str
    arguments: str
    parsed_arguments: Any = None


class ToolCall(Strict):
    """A call that the assistant made; the members after `function` are what SDKs leave in."""

    id: str
    type: Literal["function"] = "function"
    function: Function
    index: int | None = None
    provider_specific_fields: Any = None


class Message(Strict):
    """One message of a chat.

    The members after `reasoning` are what SDK objects carry back from earlier answers; they do not reach the prompt.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    # Lists fail fast: a long one of the wrong kind is one error, not one for each item.
    content: str | Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOL_CALLS, fail_fast=True)] | None = None
    tool_call_id: str | None = None
    # The thought behind an earlier answer, under both names that servers have for it.
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: Any = None
    annotations: Any = None
    provider_specific_fields: Any = None
    parsed: Any = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _fits_the_role(self) -> Message:
        if self.content in (None, []) and self.role != "assistant":
            raise PydanticCustomError("content_required", "content")
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("not_of_role", "tool_calls", {"member": "tool_calls", "role": self.role})
        if self.role == "tool" and not self.tool_call_id:
            raise PydanticCustomError("tool_call_id_required", "tool_call_id")
        return self

    @property
    def texts(self) -> list[str]:
        """The text parts of the content."""
        return [part.text for part in self.content] if isinstance(self.content, list) else [self.content or ""]

    @property
    def text(self) -> str:
        return "\n".join(self.texts)
