"""The messages of a chat: what they may hold, and what of it reaches the model's chat template."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MAX_TOOL_CALLS = 128
MAX_PARTS = 1024
# Templates know "system"; OpenAI renamed it to "developer" for its newer models.
TEMPLATE_ROLES = {"developer": "system"}


class Strict(BaseModel):
    """Strict types, no unknown members, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class TextPart(Strict):
    type: Literal["text"]
    text: str


class Function(Strict):
    name: str
    arguments: str


class ToolCall(Strict):
    """A call that the assistant made; the members after `function` are what SDKs leave in."""

    id: str
    type: Literal["function"] = "function"
    function: Function
    index: int | None = None
    provider_specific_fields: Any = None


class Message(Strict):
    """One message of a chat.

    The members after `tool_call_id` are what SDK objects carry back from earlier answers; they do not reach the prompt.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    # Lists fail fast: a long one of the wrong kind is one error, not one for each item.
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOL_CALLS, fail_fast=True)] | None = None
    tool_call_id: str | None = None
    refusal: Any = None
    annotations: Any = None
    reasoning_content: Any = None
    provider_specific_fields: Any = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _fits_the_role(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError("content_required", "content")
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("not_of_role", "tool_calls", {"member": "tool_calls", "role": self.role})
        if self.role == "tool" and not self.tool_call_id:
            raise PydanticCustomError("tool_call_id_required", "tool_call_id")
        return self

    def for_template(self, *, as_parts: bool) -> dict[str, Any]:
        """The message as templates expect it: content as text (parts joined by newlines) or as parts, arguments as
        objects.

        Args:
            as_parts: the template goes through the parts itself.
        """
        entry: dict[str, Any] = {"role": TEMPLATE_ROLES.get(self.role, self.role), "content": self._content(as_parts)}
        if self.name is not None:
            entry["name"] = self.name
        if self.tool_calls:
            entry["tool_calls"] = [template_call(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            entry["tool_call_id"] = self.tool_call_id
        return entry

    def _content(self, as_parts: bool) -> Any:
        texts = [part.text for part in self.content] if isinstance(self.content, list) else [self.content or ""]
        if as_parts:
            return [{"type": "text", "text": text} for text in texts]
        return "\n".join(texts)


def template_call(call: ToolCall) -> dict[str, Any]:
    """A tool call with its arguments as an object, where they are one: templates write them as JSON themselves."""
    try:
        arguments = orjson.loads(call.function.arguments)
    except orjson.JSONDecodeError:
        arguments = call.function.arguments
    return {"id": call.id, "type": call.type, "function": {"name": call.function.name, "arguments": arguments}}
