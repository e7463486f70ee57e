"""Calls written as tags, one for each parameter, as Qwen3-Coder, Qwen3.5 and Nemotron 3 write them:

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Paris
    </parameter>
    </function>
    </tool_call>

Source: the chat templates of these models. Values are plain text, so the function's schema says what they are. Models
leave out the outer tag, or the end of the last parameter; both are understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from postprocessing.markers import Scanner
from postprocessing.reader import Tools
from postprocessing.tool_calls.cursor import Broken, CallReader, Ended, Steps
from postprocessing.tool_calls.value import escaped
from preprocessing.pointer import resolve

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"
TAGS = (OPEN, CLOSE, FUNCTION, FUNCTION_END, PARAMETER, PARAMETER_END)

# One line break before an end belongs to it. The last two end a value whose own end is missing; a value may be code
# that has such tags, so not all that would do is taken for an end. Code that has `<parameter=` at the beginning of a
# line cannot be told from that: models forget an end far more often than they write about this format.
LAST_END = f"\n{FUNCTION_END}"
NEXT_TAG = {f"\n{PARAMETER}": PARAMETER, f"{LAST_END}\n{CLOSE}": CLOSE, LAST_END: FUNCTION_END}
VALUE_ENDS = (f"\n{PARAMETER_END}", PARAMETER_END, f"\n{PARAMETER}", f"{LAST_END}\n{CLOSE}")

FUNCTION_NAME = re.compile(r"[^<>\s]*")
PARAMETER_NAME = re.compile(r"[^<>\n]*")
# Values may be written as Python has them.
WORDS = {"True": "true", "False": "false", "None": "null"}
# No JSON but a string, and no such word, begins in another way.
BEGINNINGS = "-0123456789[{tfnTFN"
NULLS = ("null", "None")
LONGEST_NULL = max(map(len, NULLS)) + 1

# References that lead to references, alternatives within alternatives: far more than schemas written by hand have.
HOPS = 64

Types = frozenset[str]
STRING: Types = frozenset(["string"])
JSON_TYPES = {bool: "boolean", type(None): "null", int: "integer", float: "number", list: "array", dict: "object"}


class Qwen3Coder(CallReader):
    """Reads such tags.

    Args:
        tools: the functions that are known; others may be called, too.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._between = False  # whether the cursor is in a call, but in none of its parameters
        super().__init__((OPEN, FUNCTION), (CLOSE,))

    def _calls(self, opener: str) -> Steps[None]:
        while True:
            if opener == OPEN:
                yield from self._visible()
                yield from self._literal(FUNCTION)
            self._begin()
            opener = yield from self._call()
            if opener not in (OPEN, FUNCTION):
                return
            self._keep(opener)

    def _call(self) -> Steps[str]:
        """A call from its function's name on. Gives the tag that ended it, which may be one that opens the next."""
        function = yield from self._name(FUNCTION_NAME)
        self._opened(function)
        given: set[str] = set()
        try:
            tag = yield from self._tag()
            while tag in (PARAMETER, PARAMETER_END):
                tag = (yield from self._parameter(function, given)) if tag == PARAMETER else (yield from self._tag())
        except Broken:
            self._argue("}" if given else "")
            raise
        except Ended:
            self._drop()  # part of a tag, which is no text
            if self._between:  # the model ended without closing what was complete
                self._argue("}" if given else "")
                self._close()
            raise
        self._argue("}" if given else "")
        self._close()
        if tag == CLOSE:
            self._due = ()
        return tag

    def _name(self, pattern: re.Pattern[str]) -> Steps[str]:
        parts: list[str] = []
        yield from self._while(pattern, parts.append)
        yield from self._literal(">")
        return "".join(parts)

    def _tag(self) -> Steps[str]:
        """The next tag; only whitespace may be before it."""
        self._between = True
        yield from self._visible()
        self._keep()
        tag = yield from self._one_of(TAGS)
        self._drop()
        self._between = False
        return tag

    def _parameter(self, function: str, given: set[str]) -> Steps[str]:
        """A parameter from its name on. Gives the next tag."""
        self._keep(PARAMETER)
        name = yield from self._name(PARAMETER_NAME)
        self._drop()
        value = Parameter(parameter_types(self._tools.get(function), name), self._argue)
        if name in given:
            value = Parameter(frozenset(), lambda text: None)  # what was said of it first cannot be unsaid
        else:
            self._argue(f"{', ' if given else '{'}{json.dumps(name, ensure_ascii=False)}: ")
        given.add(name)
        try:
            if (yield from self._next()) == "\n":
                self._at += 1
            end = yield from self._text_before_end(value.push)
        except Ended:
            value.cut()
            raise
        value.end()
        return NEXT_TAG[end] if end in NEXT_TAG else (yield from self._tag())

    def _text_before_end(self, take: Callable[[str], None]) -> Steps[str]:
        """Passes a value's text up to one of its ends, and that."""
        scanner = Scanner(VALUE_ENDS)
        while True:
            found = scanner.push(self._text[self._at :])
            take(found.before)
            self._text, self._at = found.rest, 0
            if found.marker:
                return found.marker
            try:
                yield from self._more()
            except Ended:
                rest = scanner.finish().before
                if rest.startswith(LAST_END):
                    return LAST_END
                take(rest)
                raise


class Parameter:
    """A parameter's value, from text to JSON. It is given as it comes once it is certain that it is a string.

    Args:
        types: what it may be; None if nothing is known of it.
        write: takes the JSON.
    """

    def __init__(self, types: Types | None, write: Callable[[str], None]) -> None:
        self._types = types
        self._write = write
        self._held: list[str] = []
        self._start = ""
        self._is_string = False

    def push(self, text: str) -> None:
        """Takes more of the text."""
        if not text:
            return
        if self._is_string:
            self._write(escaped(text))
            return
        self._held.append(text)
        if len(self._start) < LONGEST_NULL:
            self._start = (self._start + text.lstrip() if not self._start else self._start + text)[:LONGEST_NULL]
        if self._must_be_string():
            self._is_string = True
            self._write('"' + escaped("".join(self._held)))

    def end(self) -> None:
        """That was all of it."""
        self._write('"' if self._is_string else converted("".join(self._held), self._types))

    def cut(self) -> None:
        """The answer ended within it: what is known of it stays."""
        if not self._is_string:
            self._write("".join(self._held).strip())

    def _must_be_string(self) -> bool:
        """Whether nothing that may still come can make it something else."""
        if self._types == STRING:
            return True
        if self._types == STRING | {"null"}:
            return not any(null.startswith(self._start.rstrip()) for null in NULLS)
        if self._types is not None and "string" not in self._types:
            return False
        return self._start != "" and self._start[0] not in BEGINNINGS


def converted(text: str, types: Types | None) -> str:
    """A value's text as JSON of one of the types, or as a string if it is none."""
    stripped = text.strip()
    candidate = WORDS.get(stripped, stripped)
    found = json_type(candidate)
    expected = found is not None and (types is None or found in types or (found == "integer" and "number" in types))
    if types is None or "string" in types:
        return candidate if expected and found != "string" else f'"{escaped(text)}"'
    return candidate if found is not None else f'"{escaped(text)}"'


def json_type(text: str) -> str | None:
    """The type of what the text says in JSON; None if it is none."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return JSON_TYPES.get(type(value), "string")


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def parameter_types(schema: Any, name: str) -> Types | None:
    """What a function's schema lets a parameter be; None if it says nothing of it."""
    if not isinstance(schema, Mapping):
        return None
    properties = schema.get("properties")
    declared = properties.get(name) if isinstance(properties, Mapping) else None
    return types_of(declared if declared is not None else schema.get("additionalProperties"), schema, {})


def types_of(schema: Any, root: Mapping[str, Any], known: dict[str, Types | None], hops: int = HOPS) -> Types | None:
    """The types that a schema allows; None if it does not say.

    Args:
        known: what the references that were met allow; of one that is being followed, and leads to itself, nothing yet.
        hops: how far to follow what the schema is made of; of what is further away nothing is known.
    """
    if not isinstance(schema, Mapping) or hops == 0:
        return None
    found = own_types(schema)
    for keyword, combined in (("anyOf", union), ("oneOf", union), ("allOf", intersection)):
        if isinstance(schema.get(keyword), list):
            parts = [types_of(each, root, known, hops - 1) for each in schema[keyword]]
            found = intersection([found, combined(parts)])
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return found
    if reference not in known:
        known[reference] = None
        known[reference] = types_of(resolve(reference, root), root, known, hops - 1)
    return intersection([found, known[reference]])


def own_types(schema: Mapping[str, Any]) -> Types | None:
    """What a schema itself says of the type, or of the values."""
    given = schema.get("type")
    names = [given] if isinstance(given, str) else given
    found = frozenset(map(str, names)) if isinstance(names, list) else None
    for values in ([schema["const"]] if "const" in schema else None, schema.get("enum")):
        if isinstance(values, list):
            found = intersection([found, frozenset(JSON_TYPES.get(type(value), "string") for value in values)])
    return found


def union(alternatives: Sequence[Types | None]) -> Types | None:
    """All types of all; nothing is known if one may be anything."""
    if not alternatives or None in alternatives:
        return None
    return frozenset().union(*(types for types in alternatives if types))


def intersection(parts: Iterable[Types | None]) -> Types | None:
    """The types that all allow; those of which nothing is known allow any. A number may be an integer."""
    found: Types | None = None
    for types in parts:
        if found is None or types is None:
            found = types if found is None else found
            continue
        integers = ("number" in found and "integer" in types) or ("integer" in found and "number" in types)
        found = (found & types) | ({"integer"} if integers else frozenset())
    return found
