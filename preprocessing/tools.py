"""The tools of a chat request: what a client offers and asks for, and the guide that forces a call.

In: the checked fields `tools`, `tool_choice` and `parallel_tool_calls`. Out: a `ToolUse`. Source:
platform.openai.com/docs/guides/function-calling.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from postprocessing.tool_calls.families import PLAIN_CALL, Tag
from preprocessing.errors import invalid
from preprocessing.guides import Guide, as_json, check
from preprocessing.messages import Strict

MAX_TOOLS = 256
MAX_NAME = 128
MAX_CALLS = 16  # of a forced list; a model that cannot stop would go on for ever
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
# Keywords of JSON schemas that hold values: what looks like a reference there is none.
VALUES = ("enum", "const", "default", "examples", "example")
# Keywords that hold schemas by name: there a name is a name, whatever it looks like.
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


class FunctionSpec(Strict):
    """A function that the model may call; `parameters` is the JSON schema of its arguments."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]+$", max_length=MAX_NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: FunctionSpec

    def for_template(self) -> dict[str, Any]:
        """The tool as templates expect it: always with a description and parameters."""
        spec = self.function
        return {
            "type": "function",
            "function": {
                "name": spec.name,
                "description": spec.description or "",
                "parameters": spec.parameters or NO_PARAMETERS,
            },
        }


class ToolUse(NamedTuple):
    """What a request offers and wants of tools.

    Attributes:
        mode: "none" (there are none, or none may be called), "auto", "required" (some call), "named" (this one).
        tools: those that may be called.
        parallel: whether an answer may hold more than one call.
    """

    mode: str
    tools: tuple[Tool, ...] = ()
    parallel: bool = True

    @property
    def forced(self) -> str | None:
        """The name of the one function that has to be called."""
        return self.tools[0].function.name if self.mode == "named" else None

    @property
    def schemas(self) -> dict[str, Mapping[str, Any]]:
        """Name → JSON schema of the arguments, which are an object even if the client's schema does not say so."""
        return {tool.function.name: {**(tool.function.parameters or NOTHING), "type": "object"} for tool in self.tools}

    @property
    def strict(self) -> bool:
        """Whether some function's arguments have to fit its schema."""
        return any(tool.function.strict for tool in self.tools)


NO_TOOLS = ToolUse("none")


def tool_use(tools: Sequence[Tool], choice: Any, parallel: bool) -> ToolUse:
    """What a request wants of its tools.

    Args:
        tools: what it offers.
        choice: `tool_choice`, as it came; None if it did not.

    Raises:
        OpenAIError: 400: the choice is none that there is, or names a tool that is not offered.
    """
    check_tools(tools)
    mode, names = chosen(choice)
    if not tools and mode in ("required", "named"):
        raise invalid("'tool_choice' asks for a call, but there are no 'tools'.", "tool_choice")
    offered = {tool.function.name: tool for tool in tools}
    for name in names or ():
        if name not in offered:
            shown = name[:MAX_NAME]
            raise invalid(f"'tool_choice' names the function '{shown}', which is not in 'tools'.", "tool_choice")
    usable = tuple(tools) if names is None else tuple(offered[name] for name in dict.fromkeys(names))
    return NO_TOOLS if mode == "none" or not usable else ToolUse(mode, usable, parallel and mode != "named")


def check_tools(tools: Sequence[Tool]) -> None:
    """Refuses two tools of one name, and parameters that can never be a schema."""
    seen: set[str] = set()
    for at, tool in enumerate(tools):
        field = f"tools[{at}].function"
        name = tool.function.name
        if name in seen:
            raise invalid(f"'{field}.name' is the name of another tool as well: '{name}'.", f"{field}.name")
        seen.add(name)
        parameters = tool.function.parameters or NO_PARAMETERS
        kind = parameters.get("type", "object")
        if kind != "object" and not (isinstance(kind, list) and "object" in kind):
            raise invalid(f"'{field}.parameters' must be the schema of an object.", f"{field}.parameters")
        check(Guide("json_schema", as_json(parameters, f"{field}.parameters")), f"{field}.parameters")


def chosen(choice: Any) -> tuple[str, list[str] | None]:
    """`tool_choice` as a mode and the names of the tools that it leaves (None: all)."""
    if choice is None:
        return "auto", None
    if choice in ("none", "auto", "required"):
        return str(choice), None
    if isinstance(choice, dict) and choice.get("type") == "function":
        return "named", [function_name(choice, "tool_choice")]
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return allowed(choice.get("allowed_tools"))
    raise invalid(
        "'tool_choice' must be 'none', 'auto', 'required', {\"type\": \"function\", \"function\": {\"name\": …}} or "
        '{"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}}.',
        "tool_choice",
    )


def allowed(value: Any) -> tuple[str, list[str]]:
    """OpenAI's list of the tools that may be called this time."""
    field = "tool_choice.allowed_tools"
    if not isinstance(value, dict) or value.get("mode") not in ("auto", "required"):
        raise invalid(f"'{field}' must be an object with a 'mode', 'auto' or 'required', and 'tools'.", field)
    tools = value.get("tools")
    if not isinstance(tools, list) or not tools:
        raise invalid(f"'{field}.tools' must be a list of functions, not empty.", f"{field}.tools")
    return value["mode"], [function_name(tool, f"{field}.tools[{at}]") for at, tool in enumerate(tools)]


def function_name(value: Any, field: str) -> str:
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise invalid(f"'{field}.function.name' must be a string.", f"{field}.function.name")
    return name


def arguments_guide(use: ToolUse) -> Guide:
    """The arguments of the one function that has to be called."""
    (schema,) = use.schemas.values()
    return schema_guide(moved(schema, "#"))


def calls_guide(use: ToolUse, key: str, otherwise: Mapping[str, Any] | None = None) -> Guide:
    """One call of any of the tools, or a list of calls.

    Args:
        key: what the model calls the arguments.
        otherwise: a JSON schema that the answer may fit instead.
    """
    calls = [
        {
            "type": "object",
            "properties": {"name": {"enum": [name]}, key: {"$ref": f"#/$defs/tool_{at}"}},
            "required": ["name", key],
            "additionalProperties": False,
        }
        for at, name in enumerate(use.schemas)
    ]
    several = {"type": "array", "items": {"anyOf": calls}, "minItems": 1, "maxItems": MAX_CALLS}
    definitions: dict[str, Any] = {
        f"tool_{at}": moved(schema, f"#/$defs/tool_{at}") for at, schema in enumerate(use.schemas.values())
    }
    forms: list[Any] = [*calls, several] if use.parallel else list(calls)
    if otherwise is not None:
        definitions["answer"] = moved(otherwise, "#/$defs/answer")
        forms.append({"$ref": "#/$defs/answer"})
    return schema_guide({"anyOf": forms, "$defs": definitions})


def schema_guide(schema: Mapping[str, Any]) -> Guide:
    """Raises OpenAIError (400) if all the tools together are too much."""
    guide = Guide("json_schema", json.dumps(schema, separators=(",", ":"), ensure_ascii=False))
    check(guide, "tools")
    return guide


def moved(schema: Any, place: str) -> Any:
    """A schema that has become part of another one: its references to itself lead to its new place.

    Raises:
        OpenAIError: 400: a part of it is a document of its own, whose references mean something else.
    """
    own = schema.get("$id") if isinstance(schema, Mapping) else None
    return _moved(schema, place, own if isinstance(own, str) else "", root=True)


def _moved(schema: Any, place: str, own: str, *, root: bool = False) -> Any:
    if isinstance(schema, list):
        return [_moved(each, place, own) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$id" in schema and not root:
        raise invalid("The parameters of a function cannot have an '$id' in one of their parts.", "tools")
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name in ("$schema", "$id"):
            continue  # say what the document was; it is none any more
        if name == "$ref" and isinstance(value, str):
            found[name] = relocated(value.removeprefix(own), place)
        elif name in NAMED and isinstance(value, Mapping):
            found[name] = {key: _moved(each, place, own) for key, each in value.items()}
        else:
            found[name] = value if name in VALUES else _moved(value, place, own)
    return found


def relocated(reference: str, place: str) -> str:
    """A reference within a schema, now that the schema is at `place`; others stay, for the engine to judge."""
    return place + reference.removeprefix("#") if reference in ("", "#") or reference.startswith("#/") else reference


def tagged_guide(use: ToolUse, tag: Tag) -> Guide:
    """Free text in which every call has arguments that fit: the engine watches for the beginning of one."""
    structures = [
        {"begin": tag.begin.replace("NAME", name), "schema": moved(schema, "#"), "end": tag.end}
        for name, schema in use.schemas.items()
    ]
    # The whole beginning triggers: a shorter one would forbid all other text that begins so.
    triggers = [structure["begin"] for structure in structures]
    document = {"type": "structural_tag", "structures": structures, "triggers": triggers}
    guide = Guide("structural_tag", json.dumps(document, separators=(",", ":"), ensure_ascii=False))
    check(guide, "tools")
    return guide


def instructions(tools: Iterable[Tool], call: Tag | None) -> str:
    """What to tell a model whose chat template has no place for tools.

    Args:
        call: how a call is written; None: as plain JSON.
    """
    listed = "\n".join(json.dumps(tool.for_template()["function"], ensure_ascii=False) for tool in tools)
    written = (call or PLAIN_CALL).text("<its name>", "{<its arguments>}")
    return (
        f"You can call these functions:\n{listed}\nTo call one, answer with nothing but:\n{written}\n"
        "If no function fits, answer in plain text."
    )
