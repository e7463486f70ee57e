"""A model's chat template: a conversation and its tools → the text of a prompt.

Templates differ in what they take: text or parts, arguments as objects or as text, tools or none. What this one takes
is found out once, by rendering small conversations and looking at what comes out. Source of the variables:
huggingface.co/docs/transformers/chat_templating.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import orjson

from postprocessing.tool_calls.families import Tag
from preprocessing.errors import invalid
from preprocessing.messages import Message, ToolCall
from preprocessing.tools import Tool, instructions

MAX_SAID = 300  # characters of a template's own message in an error
# Templates know "system"; OpenAI renamed it to "developer" for its newer models.
ROLES = {"developer": "system"}
Entry = dict[str, Any]
# Whatever a template does wrong with what it is given.
FAILURES = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)

PROBE, KEY, NAME, RESULT = "a text to look for", "probe_key", "probe_name", "a result to look for"
GRANITE = "<|tool_call|>"  # its templates write answers down as they are
SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")  # the only ids that Mistral's templates take


class Calls(NamedTuple):
    """How a template takes the calls of earlier answers.

    Attributes:
        as_text: arguments as JSON text, not as an object.
        content: of a message that has calls and no content.
    """

    as_text: bool
    content: str | None


FORMS = (Calls(False, ""), Calls(False, None), Calls(True, ""), Calls(True, None))


class ChatTemplate:
    """Renders prompts. The template comes from the model's folder only and runs in Jinja's immutable sandbox.

    Args:
        pretrained: a `transformers` tokenizer.

    Attributes:
        source: the template's text (of all of them, if the model has one for tools); empty without any.
        takes_tools: it writes down the tools that it is given; for the others `render` does.
        takes_calls: it writes down the calls of earlier answers, in the model's own way.
    """

    def __init__(self, pretrained: Any) -> None:
        self._pretrained = pretrained
        found = pretrained.chat_template or ""
        self.source: str = "\n".join(found.values()) if isinstance(found, dict) else found
        self._parts = self._wants_parts()
        self._tools_in_system = bool(found) and self._shows([told(probe_tool()), *self._asked()], NAME)
        self.takes_tools = self._tools_in_system or (
            bool(found) and self._shows(self._asked(), NAME, tools=[probe_tool()])
        )
        self._system = self._shows([{"role": "system", "content": RESULT}, *self._asked()], RESULT, PROBE)
        self._calls = next((form for form in FORMS if self._takes(form)), None) if found else None
        self.takes_calls = self._calls is not None
        self._results = self._shows(self._answered_twice(), RESULT)
        self._several = self._calls is None or self._takes(self._calls, calls=2)

    def mentions(self, variable: str) -> bool:
        """Whether the template looks at a variable (or at something of that name)."""
        return re.search(rf"\b{variable}\b", self.source) is not None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        call: Tag | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt of a conversation.

        Args:
            tools: those that the model may call.
            call: how it is asked to write a call, where the template does not say it; None: as plain JSON.
            add_generation_prompt: leave it open for the assistant's answer.
            continue_final_message: leave the last message open instead.
            variables: further variables of the template; the caller decides which are allowed.

        Raises:
            OpenAIError: 400 if there is no template or if it does not take these messages.
        """
        if not self.source:
            raise invalid("This model has no chat template; use /v1/completions.", "messages")
        given = [tool.for_template() for tool in tools] if self.takes_tools and not self._tools_in_system else []
        try:
            return self._apply(
                self._conversation(messages, tools, call),
                given or None,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **(variables or {}),
            )
        except jinja2.TemplateError as error:
            said = (error.message or "")[:MAX_SAID]
            raise invalid(f"The model's chat template refuses these messages: {said}", "messages") from None
        except FAILURES:
            raise invalid("The model's chat template cannot render these messages.", "messages") from None

    def _apply(self, entries: list[Entry], tools: list[Entry] | None = None, **options: object) -> str:
        # Not `apply_chat_template`: it drops a content that is null, which some templates ask for.
        from transformers.utils.chat_template_utils import render_jinja_template

        template = self._pretrained.get_chat_template(None, tools)
        variables = {**self._pretrained.special_tokens_map, **options}
        (rendered,), _ = render_jinja_template([entries], tools=tools, chat_template=template, **variables)
        return str(rendered)

    def _conversation(self, messages: Sequence[Message], tools: Sequence[Tool], call: Tag | None) -> list[Entry]:
        """The messages as this template takes them."""
        entries = self._entries(messages)
        if tools and self._tools_in_system:
            if entries[0]["role"] != "system":
                entries.insert(0, {"role": "system", "content": ""})
            entries[0] |= told(*(tool.for_template() for tool in tools), content=entries[0]["content"])
        elif tools and not self.takes_tools:
            entries = instructed(entries, instructions(tools, call))
        if not self._system:
            entries = without_system(entries)
        return [self._shaped(entry) for entry in entries]

    def _entries(self, messages: Sequence[Message]) -> list[Entry]:
        """The messages with plain contents, calls in the form that the template takes."""
        if self._calls is None:
            return without_calls(messages, keep_results=self._results, mark=GRANITE if GRANITE in self.source else "")
        if not self._several:
            messages = one_call_each(messages)
        names = called_names(messages)
        return [self._entry(message, self._calls, name) for message, name in zip(messages, names, strict=True)]

    def _entry(self, message: Message, form: Calls, called: str | None) -> Entry:
        entry = plain(message)
        if called is not None:
            entry.setdefault("name", called)
        if message.tool_calls:
            entry["tool_calls"] = [self._call(call, form) for call in message.tool_calls]
            entry["content"] = message.text or form.content
        if message.tool_call_id is not None:
            entry["tool_call_id"] = self._call_id(message.tool_call_id)
        # gpt-oss takes no thought beside a content that goes with calls.
        if "<|channel|>" in self.source and message.tool_calls and message.text:
            entry.pop("reasoning_content", None)
        return entry

    def _call(self, call: ToolCall, form: Calls) -> Entry:
        function = call.function
        arguments = function.arguments if form.as_text else as_object(function.arguments)
        return {
            "id": self._call_id(call.id),
            "type": "function",
            "function": {"name": function.name, "arguments": arguments},
        }

    def _call_id(self, given: str) -> str:
        """Mistral's templates refuse the ids of other providers, which a conversation may have begun with."""
        if "[TOOL_CALLS]" not in self.source or SHORT_ID.fullmatch(given):
            return given
        return hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:9]

    def _shaped(self, entry: Entry) -> Entry:
        """Contents as parts, for templates that go through the parts themselves."""
        shaped = {name: value for name, value in entry.items() if name != "texts"}
        if self._parts and entry["content"] is not None:
            texts = entry.get("texts") or [entry["content"]]
            shaped["content"] = [{"type": "text", "text": text} for text in texts]
        return shaped

    def _wants_parts(self) -> bool:
        """Some templates go through parts and find none in a text."""
        as_text: Entry = {"role": "user", "content": PROBE}
        as_parts = {"role": "user", "content": [{"type": "text", "text": PROBE}]}
        return not self._shows([as_text], PROBE) and self._shows([as_parts], PROBE)

    def _asked(self) -> list[Entry]:
        return [self._shaped({"role": "user", "content": PROBE})]

    def _answered_twice(self) -> list[Entry]:
        said = self._shaped({"role": "assistant", "content": PROBE})
        result = self._shaped({"role": "tool", "content": RESULT})
        return [*self._asked(), said, result, result, said]

    def _shows(self, entries: list[Entry], *texts: str, **options: Any) -> bool:
        """Whether the template renders these messages, and all the texts are in what comes out."""
        try:
            rendered = self._apply(entries, **options)
        except FAILURES:
            return False
        return all(text in rendered for text in texts)

    def _takes(self, form: Calls, calls: int = 1) -> bool:
        """Whether calls in this form, and their results, are written down, and nothing of Python's own with them."""
        values = [f"value {number}" for number in range(calls)]
        made = [self._call(probe_call(value), form) for value in values]
        called = {"role": "assistant", "content": form.content, "tool_calls": made}
        result = self._shaped({"role": "tool", "content": RESULT, "name": NAME, "tool_call_id": "probe0001"})
        entries = [*self._asked(), called, *[result] * calls]
        try:
            tools = [probe_tool()]  # some templates cannot do without
            rendered, before = self._apply(entries, tools=tools), self._apply(self._asked(), tools=tools)
        except FAILURES:
            return False
        wrong = f"'{KEY}'" in rendered or rendered.count("None") > before.count("None")
        written = all(rendered.count(text) >= before.count(text) + calls for text in (NAME, KEY, RESULT))
        return written and not wrong and all(value in rendered for value in values)


def probe_call(value: str) -> ToolCall:
    function = {"name": NAME, "arguments": json.dumps({KEY: value})}
    return ToolCall.model_validate({"id": "probe0001", "function": function})


def told(*tools: Entry, content: str = "") -> Entry:
    """A system message that carries tools, as Phi-4-mini's template wants them."""
    listed = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    return {"role": "system", "content": content, "tools": listed}


def probe_tool() -> Entry:
    schema = {"type": "object", "properties": {KEY: {"type": "string", "description": PROBE}}, "required": [KEY]}
    return {"type": "function", "function": {"name": NAME, "description": PROBE, "parameters": schema}}


def plain(message: Message) -> Entry:
    entry: Entry = {"role": ROLES.get(message.role, message.role), "content": message.text}
    if isinstance(message.content, list):
        entry["texts"] = message.texts
    if message.name is not None:
        entry["name"] = message.name
    if thought := message.reasoning_content or message.reasoning:
        entry["reasoning_content"] = thought
    return entry


def called_names(messages: Sequence[Message]) -> list[str | None]:
    """For each message the function whose result it is. Ids may come again in later turns: the nearest call counts."""
    names: dict[str, str] = {}
    found: list[str | None] = []
    for message in messages:
        names |= {call.id: call.function.name for call in message.tool_calls or ()}
        found.append(names.get(message.tool_call_id or "") if message.role == "tool" else None)
    return found


def as_object(arguments: str) -> Any:
    """Arguments as an object, where they are one: templates write them as JSON themselves."""
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments


def one_call_each(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with one call per message, each followed by its result."""
    found: list[Message] = []
    rest = list(reversed(messages))
    while rest:
        message = rest.pop()
        calls = message.tool_calls or []
        if len(calls) < 2:
            found.append(message)
            continue
        results: dict[str | None, Message] = {}
        while rest and rest[-1].role == "tool":
            result = rest.pop()
            results[result.tool_call_id] = result
        for number, call in enumerate(calls):
            content = message.content if number == 0 else None
            found.append(message.model_copy(update={"tool_calls": [call], "content": content}))
            found += [results.pop(call.id)] if call.id in results else []
        found += results.values()
    return found


def without_calls(messages: Sequence[Message], *, keep_results: bool, mark: str) -> list[Entry]:
    """The same conversation for a template that knows of no calls: they become text.

    Args:
        keep_results: the template takes the results of calls; else they become the user's text.
        mark: what the model itself writes before its list of calls.
    """
    found: list[Entry] = []
    for message, called in zip(messages, called_names(messages), strict=True):
        entry = plain(message)
        if message.tool_calls:
            calls = [{"name": each.function.name, "arguments": as_object(each.function.arguments)}
                     for each in message.tool_calls]  # fmt: skip
            written = mark + json.dumps(calls[0] if len(calls) == 1 and not mark else calls, ensure_ascii=False)
            entry = {"role": "assistant", "content": "\n".join(filter(None, (message.text, written)))}
        elif message.role == "tool" and not keep_results:
            name = called or message.name or "the function"
            entry = {"role": "user", "content": f"Result of {name}: {message.text}", "result": True}
        if entry["role"] == "user" and found and found[-1].get("result"):  # templates want the roles to take turns
            before = found.pop()
            entry = {**before, "content": f"{before['content']}\n{entry['content']}"}
        found.append(entry)
    return [{name: value for name, value in entry.items() if name != "result"} for entry in found]


def without_system(entries: list[Entry]) -> list[Entry]:
    """The same conversation for a template that takes no system message: the user's first one begins with its text."""
    if entries[0]["role"] != "system":
        return entries
    rest = entries[1:]
    if not rest or rest[0]["role"] != "user":
        rest = [{"role": "user", "content": ""}, *rest]
    content = "\n\n".join(filter(None, (entries[0]["content"], rest[0]["content"])))
    return [{"role": "user", "content": content}, *rest[1:]]


def instructed(entries: list[Entry], text: str) -> list[Entry]:
    """A conversation that begins with instructions: in the system message if there is one, else before the user's."""
    at = next((at for at, entry in enumerate(entries) if entry["role"] in ("system", "user")), None)
    if at is None:
        return entries
    first = entries[at]
    order = (first["content"], text) if first["role"] == "system" else (text, first["content"])
    return [*entries[:at], {"role": first["role"], "content": "\n\n".join(order)}, *entries[at + 1 :]]
