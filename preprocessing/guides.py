"""Structured output: what a request says in many ways → one guide of the engine's contract, checked.

In: the checked body. Out: a `Guide` or None. What can never work is a 400 here. Whether a guide compiles is the
engine's to say: compilers can run for ever on hostile ones, and nothing can stop them within a process that has
streams to serve.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from preprocessing.errors import invalid
from preprocessing.pointer import is_anchor, resolve

MAX_GUIDE_BYTES = 256 * 1024
MAX_DEPTH = 100  # of a JSON schema; llguidance gives up at 128
MAX_REFERENCE = 1024  # characters
MAX_CHOICES = 1024
# A character that means something in a regular expression.
SPECIAL = re.compile(r"[.^$*+?()\[\]{}|\\/-]")


class Guide(NamedTuple):
    """`guided_decoding_guide_type` and `guided_decoding_guide` (None: the type needs none)."""

    type: str
    text: str | None


class Source(NamedTuple):
    """A member that holds a guide: its type in the engine's contract and how its value becomes the guide's text."""

    type: str
    text: Callable[[Any, str], str | None]


def as_text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"'{field}' must be a string.", field)
    return value


def as_json(value: Any, field: str) -> str:
    """A JSON document: as such, or as a string that holds one."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise invalid(f"'{field}' is not valid JSON, or is nested too deep.", field) from None
    if not isinstance(value, dict | bool):
        raise invalid(f"'{field}' must be an object.", field)
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # deeper than can be written, and far deeper than can be enforced
        raise invalid(f"'{field}' is nested more than {MAX_DEPTH} deep.", field) from None


def as_alternatives(value: Any, field: str) -> str:
    """A list of strings as a regular expression."""
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise invalid(f"'{field}' must be a list of strings, not empty.", field)
    if len(value) > MAX_CHOICES:
        raise invalid(f"'{field}' must have at most {MAX_CHOICES} item(s); got {len(value)}.", field)
    return "(?:" + "|".join(SPECIAL.sub(r"\\\g<0>", each) for each in value) + ")"


def nothing(value: Any, field: str) -> None:
    return None


JSON_SCHEMA = Source("json_schema", as_json)
REGEX = Source("regex", as_text)
EBNF = Source("ebnf_grammar", as_text)
CHOICE = Source("regex", as_alternatives)

# response_format: type → the member with the guide. First OpenAI's, then TensorRT-LLM's, then llgtrt's.
FORMATS: dict[str, tuple[str | None, Source | None]] = {
    "text": (None, None),
    "json_object": (None, Source("json", nothing)),
    "json_schema": ("json_schema", JSON_SCHEMA),
    "regex": ("regex", REGEX),
    "ebnf": ("ebnf", EBNF),
    "structural_tag": (None, Source("structural_tag", as_json)),
    "lark_grammar": ("lark_grammar", Source("lark_grammar", as_text)),
    "llguidance": ("llguidance", Source("llguidance", as_json)),
}
WHOLE = ("structural_tag",)  # formats that are the guide themselves
# vLLM's `structured_outputs` and its older fields, which have the same members behind "guided_".
STRUCTURED: dict[str, Source] = {"json": JSON_SCHEMA, "regex": REGEX, "choice": CHOICE, "grammar": EBNF}


def guide(
    response_format: Mapping[str, Any] | None, structured: Mapping[str, Any] | None, older: Mapping[str, Any]
) -> Guide | None:
    """The one guide of a request.

    Args:
        response_format: OpenAI's field.
        structured: vLLM's `structured_outputs`.
        older: vLLM's `guided_json` and so on, by the name behind "guided_".

    Raises:
        OpenAIError: 400: more than one guide, or one that cannot work.
    """
    found = [*from_format(response_format), *from_members(structured, "structured_outputs.{}"),
             *from_members(older, "guided_{}")]  # fmt: skip
    if len(found) > 1:
        fields = " and ".join(f"'{field}'" for field, _ in found)
        raise invalid(f"Only one constraint of the output is possible; got {fields}.", found[1][0])
    for field, each in found:
        check(each, field)
    return found[0][1] if found else None


def from_format(response_format: Mapping[str, Any] | None) -> Iterator[tuple[str, Guide]]:
    if response_format is None:
        return
    kind = response_format.get("type")
    if not isinstance(kind, str) or kind not in FORMATS:
        wanted = ", ".join(f"'{name}'" for name in FORMATS)
        raise invalid(f"'response_format.type' must be one of {wanted}.", "response_format.type")
    member, source = FORMATS[kind]
    if kind == "json_object" and "schema" in response_format:  # as llama.cpp and others have it
        member, source = "schema", JSON_SCHEMA
    if kind not in WHOLE:
        only(response_format, ("type", member), "response_format")
    if source is None:
        return
    field = "response_format" if member is None else f"response_format.{member}"
    value = dict(response_format) if member is None else response_format.get(member)
    if kind == "json_schema":
        value, field = openai_schema(value)
    yield field, Guide(source.type, source.text(value, field))


def openai_schema(value: Any) -> tuple[Any, str]:
    """OpenAI puts the schema into an object with a name. It is enforced whether or not `strict` is set."""
    field = "response_format.json_schema"
    if not isinstance(value, dict):
        raise invalid(f"'{field}' must be an object.", field)
    only(value, ("name", "description", "schema", "strict"), field)
    if not isinstance(value.get("name"), str):
        raise invalid(f"'{field}.name' must be a string.", f"{field}.name")
    if "schema" not in value:
        return {"type": "object"}, f"{field}.schema"
    return value["schema"], f"{field}.schema"


def only(value: Mapping[str, Any], members: Collection[str | None], field: str) -> None:
    """Refuses other members: a constraint that is misspelt would be none."""
    for name in value:
        if name not in members:
            raise invalid(f"Unknown field: '{field}.{name[:64]}'.", f"{field}.{name[:64]}")


def from_members(members: Mapping[str, Any] | None, name: str) -> Iterator[tuple[str, Guide]]:
    for member, value in (members or {}).items():
        field = name.format(member[:64])
        if member not in STRUCTURED:
            raise invalid(f"Unknown field: '{field}'.", field)
        if value is not None:
            yield field, Guide(STRUCTURED[member].type, STRUCTURED[member].text(value, field))


# How the types that a guide behind a thought can have are written in a structural tag.
BEHIND: dict[str, Callable[[str | None], dict[str, Any]]] = {
    "json": lambda text: {"type": "json_schema", "json_schema": {"type": "object"}},
    # Boolean schemas are no objects, which is all that the tags take.
    "json_schema": lambda text: {"type": "json_schema", "json_schema": {"allOf": [json.loads(text or "true")]}}
    if text in ("true", "false")
    else {"type": "json_schema", "json_schema": json.loads(text or "{}")},
    "regex": lambda text: {"type": "regex", "pattern": text},
    "structural_tag": lambda text: json.loads(text or "{}")["format"],
}


def leaves_free(guide: Guide) -> bool:
    """Whether the text is free until something begins that the guide watches for."""
    if guide.type != "structural_tag":
        return False
    document = json.loads(guide.text or "{}")
    form = document.get("format")
    return form is None or (isinstance(form, dict) and form.get("type") in ("triggered_tags", "any_text"))


def behind_thought(guide: Guide, begin: str, end: str, *, opened: bool) -> Guide | None:
    """The same constraint for a model that thinks first: it holds for what follows the thought.

    Args:
        begin, end: the tags around a thought.
        opened: the prompt has the first of them; else there may be no thought at all.
    """
    if guide.type not in BEHIND:
        return None
    answer = BEHIND[guide.type](guide.text)
    start = "" if opened else begin
    thought: dict[str, Any] = {"type": "tag", "begin": start, "content": {"type": "any_text"}, "end": end}
    space = {"type": "regex", "pattern": "\\s{0,64}"}
    if not opened:
        nothing = {"type": "const_string", "value": ""}
        thought = {"type": "or", "elements": [nothing, thought]}
    form = {"type": "sequence", "elements": [thought, space, answer]}
    document = {"type": "structural_tag", "format": form}
    return Guide("structural_tag", json.dumps(document, separators=(",", ":"), ensure_ascii=False))


def check(guide: Guide, field: str) -> None:
    """Raises OpenAIError (400) for a guide that is too large, is not valid or can never be fulfilled."""
    if guide.text is None:
        return
    if len(guide.text.encode()) > MAX_GUIDE_BYTES:
        raise invalid(f"'{field}' must have at most {MAX_GUIDE_BYTES} bytes.", field)
    if guide.type == "json_schema":
        check_schema(json.loads(guide.text), field)
    if guide.type == "regex" and (len(guide.text) - len(guide.text.rstrip("\\"))) % 2:
        raise invalid(f"'{field}' ends with a lone backslash.", field)
    if not guide.text.strip():
        raise invalid(f"'{field}' is empty.", field)


def check_schema(schema: Any, field: str) -> None:
    """Depth, and references that lead to nothing but themselves, which compilers take for anything at all."""
    pending = [(schema, 1)]
    harmless: set[str] = set()
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise invalid(f"'{field}' is nested more than {MAX_DEPTH} deep.", field)
        if isinstance(node, dict):
            if loops(node, schema, harmless):
                raise invalid(f"'{field}' has a reference that leads back to itself: {node['$ref']!r:.64}.", field)
            pending += [(child, depth + 1) for child in node.values()]
        elif isinstance(node, list):
            pending += [(child, depth + 1) for child in node]


def loops(node: Any, root: Any, harmless: set[str]) -> bool:
    """Whether following the node's `$ref`, and the next one's, comes back to a place that was passed.

    Args:
        harmless: references that lead to an end; grows, so that each is followed once.
    """
    seen: set[str] = set()
    while isinstance(node, dict) and isinstance(reference := node.get("$ref"), str) and reference not in harmless:
        if reference in seen:
            return True
        seen.add(reference)
        node = followed(reference, root)
    harmless |= seen
    return False


def followed(reference: str, root: Any) -> Any:
    """Where a reference leads: an absurdly long one nowhere; an anchor is not looked up, and stands for the root."""
    if len(reference) > MAX_REFERENCE:
        return None
    return root if is_anchor(reference) else resolve(reference, root)
