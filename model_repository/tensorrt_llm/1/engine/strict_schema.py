"""A JSON schema -> one that llguidance enforces to the letter, or SchemaError.

In: a schema as parsed JSON. Out: the same object, changed in place; whatever text it allows is valid for the schema as
it was. llguidance refuses most of what it cannot do by itself; here is what it would pass over in silence, and what it
refuses although it can be said in words that it knows. RULES is the list. Only places of schemas are looked at: not
what stands in `enum`, `const`, `default` or `examples`, nor names of properties. It does not import llguidance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from .references import NAMED, ONE, SEVERAL, SchemaError, as_dict, as_list, check_endless, localize, reachable, target

Node = dict[str, Any]

KEYWORDS = frozenset((
    *ONE, *SEVERAL, *NAMED, "$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef",
    "$ref", "const", "dependencies", "dependentRequired", "enum", "exclusiveMaximum", "exclusiveMinimum", "format",
    "id", "maxContains", "maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength",
    "minProperties", "minimum", "multipleOf", "pattern", "required", "type", "uniqueItems", "x-guidance"))
"""All others say nothing about the value."""
ANNOTATIONS = ("default", "discriminator", "examples")
"""Those of them that hold more than a word; what else does may be what a reference leads to."""

EXACT, LARGEST = 2**53, 9 * 10**18
"""llguidance computes with doubles: larger integers become others, and beyond the second it gives up."""

_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY = ("(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
        "|02-(?:0[1-9]|1[0-9]|2[0-8]))")
_DATE = f"(?:{_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)"
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
FORMATS = {"date": f"^{_DATE}$", "date-time": f"^{_DATE}T{_CLOCK}$", "time": f"^{_CLOCK}$"}
"""llguidance's own know February 29 of every year, the year 0 and second 60, which most readers refuse."""

ANNOTATING_FORMATS = frozenset((
    "base64url", "binary", "byte", "char", "commonmark", "decimal", "decimal128", "double", "double-int", "float",
    "html", "int8", "int16", "int32", "int64", "password", "uint8", "uint16", "uint32", "uint64"))
"""OpenAPI's, from its registry: they say how a value is stored or shown, not which values there are."""

WHITESPACE = r"[ \t\r\n]{1,64}"
"""Between two things at a time: enough to indent with, and an end for models that would go on with it for ever."""
_IN_CLASS = {"[": r"\[", "&&": r"\&\&", "~~": r"\~\~", "--": r"-\-"}
"""What has a meaning within [] of a regular expression for llguidance, but not in JSON schemas."""


def enforceable(schema: Any) -> Any:
    """A schema that says the same; the given one stays as it is. Raises SchemaError."""
    if isinstance(schema, dict):
        schema = deepcopy(schema)
        _check_options(schema)
        localize(schema)
        for node in reachable(schema):
            for rule in RULES:
                rule(node, schema)
        check_endless(schema)
        options = schema.setdefault("x-guidance", {})
        if options.get("whitespace_flexible") is not False:
            options["whitespace_pattern"] = WHITESPACE
    return schema


# The rules

def _check_options(root: Node) -> None:
    """llguidance's switches at the root: most of them give up what this module is for."""
    if not isinstance(root.get("x-guidance", {}), dict):
        raise SchemaError("x-guidance: wanted an object")
    for name in as_dict(root.get("x-guidance")):
        if name != "whitespace_flexible":
            raise SchemaError(f"x-guidance: {name[:40]} is not supported")


def _annotations(node: Node, root: Node) -> None:
    """Beside a reference they keep llguidance from recursion. `$schema` is one of them: keywords that are younger than
    the draft it names would be passed over."""
    for keyword in node.keys() - KEYWORDS:
        if not isinstance(node[keyword], (dict, list)) or keyword in ANNOTATIONS:
            del node[keyword]


def _says_nothing(keyword: str, value: Any) -> bool:
    """Whether any value fits; such keywords are refused as if they said something, although many tools write them."""
    if keyword in ("uniqueItems", "not"):
        return value is False
    if keyword == "propertyNames" and isinstance(value, dict):
        return _keywords(value) <= {"type"} and value.get("type", "string") == "string"
    if keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
        return value == {}
    return value is True or value == {}


def _nothing(node: Node, root: Node) -> None:
    for keyword in ("uniqueItems", "not", "propertyNames", "dependencies", "dependentRequired", "dependentSchemas",
                    "unevaluatedItems", "unevaluatedProperties"):
        if keyword in node and _says_nothing(keyword, node[keyword]):
            del node[keyword]


def _property_names(node: Node, root: Node) -> None:
    """Where no other keyword speaks about properties by name, their list or pattern can do it."""
    names = node.get("propertyNames")
    if isinstance(names, dict) and _keywords(names) == {"$ref"}:
        names = target(names, root)
    value = node.get("additionalProperties", True)
    if not isinstance(names, dict) or not value or "properties" in node or "patternProperties" in node:
        return
    known = _keywords(names) - {"type"}
    if known == {"pattern"}:
        node["patternProperties"] = {names["pattern"]: value}
    elif known in ({"const"}, {"enum"}):
        node["properties"] = {name: value for name in _listed(names) or [] if isinstance(name, str)}
    else:
        return
    node["additionalProperties"] = False
    del node["propertyNames"]


def _items(node: Node, root: Node) -> None:
    """A list in `items` is older drafts' `prefixItems`: the two would hide each other."""
    if not isinstance(node.get("items"), list):
        node.pop("additionalItems", None)  # has a meaning behind such a list only
    elif "prefixItems" in node:
        raise SchemaError("prefixItems: not together with a list in items")


def _values(node: Node, root: Node) -> None:
    for keyword in ("const", "enum"):
        pending = [node.get(keyword)]
        while pending:
            value = pending.pop()
            if isinstance(value, int) and abs(value) > EXACT:
                raise SchemaError(f"{keyword}: {str(value)[:40]} is too large to be enforced exactly")
            pending += as_list(value) + list(as_dict(value).values())


def _bounds(node: Node, root: Node) -> None:
    """Bounds that a double cannot hold, or that are written differently, move inside by some 10 000."""
    for keyword, inside in (("minimum", 1), ("exclusiveMinimum", 1), ("maximum", -1), ("exclusiveMaximum", -1)):
        value = node.get(keyword)
        if isinstance(value, (int, float)) and abs(value) > EXACT:
            node[keyword] = _inside(value * inside) * inside


def _inside(least: float) -> float:
    """A lower bound that is certainly not lower."""
    least = max(least, -LARGEST)
    return least if least > LARGEST else (math.ceil(least) // 10_000 + 2) * 10_000


def _exclusive(node: Node, root: Node) -> None:
    """Draft 4's booleans, which llguidance understands only while nothing stands between them and the bound."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(node.get(exclusive), bool):
            if node.pop(exclusive) and bound in node:
                node[exclusive] = node.pop(bound)


def _count(node: Node, root: Node) -> None:
    """Names that are not listed may come twice, and then count once."""
    least, required = node.get("minProperties"), as_list(node.get("required"))
    names = {name for name in required if isinstance(name, str)}
    if isinstance(least, int) and least - len(names) > 1:
        raise SchemaError("minProperties: not more than one property beyond those in required can be enforced")


def _names(node: Node, root: Node) -> None:
    """A name with quotes has several spellings in JSON; by the others it could come a second time, as any value."""
    if any(char < " " or char in '"\\' for name in as_dict(node.get("properties")) for char in name):
        root.setdefault("x-guidance", {})["json_allowed_escapes"] = 'nrbtf\\"'


def _format(node: Node, root: Node) -> None:
    """Formats that JSON Schema defines and llguidance does not know are refused by it, with their names."""
    name = node.get("format")
    if name == "unknown":  # llguidance's name for anything
        raise SchemaError("Unknown format: unknown")
    if isinstance(name, str) and name in ANNOTATING_FORMATS:
        del node["format"]
    elif isinstance(name, str) and name in FORMATS:
        del node["format"]
        if "pattern" in node:
            node["allOf"] = [*as_list(node.get("allOf")), {"pattern": FORMATS[name]}]
        else:
            node["pattern"] = FORMATS[name]


def _pattern(node: Node, root: Node) -> None:
    if isinstance(pattern := node.get("pattern"), str):
        node["pattern"] = re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", _class, pattern, flags=re.DOTALL)


def _class(found: re.Match[str]) -> str:
    text = found[0]
    if text[0] != "[":
        return text
    return "[" + re.sub(r"\\.|\[|&&|~~|--", lambda it: _IN_CLASS.get(it[0], it[0]), text[1:], flags=re.DOTALL)


def _one_of(node: Node, root: Node) -> None:
    """Where nothing fits two of them, any is one. llguidance sees that too, but not through references."""
    options = as_list(node.get("oneOf"))
    if not options or "anyOf" in node:
        return
    if all(_apart(a, b, root) for i, a in enumerate(options) for b in options[i + 1:]):
        items = [("anyOf" if keyword == "oneOf" else keyword, value) for keyword, value in node.items()]
        node.clear()
        node.update(items)  # the order of properties may depend on it


RULES = (_annotations, _nothing, _property_names, _items, _values, _exclusive, _bounds, _count, _names, _format,
         _pattern, _one_of)


# Which schemas have nothing in common

_DEPTH = 6
_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null", list: "array",
          dict: "object"}


def _apart(a: Any, b: Any, root: Node, depth: int = _DEPTH) -> bool:
    """Whether it is certain that nothing fits both."""
    return bool(depth) and any(_differ(x, y, root, depth) for x in _facets(a, root) for y in _facets(b, root))


def _facets(node: Any, root: Node) -> Iterator[Node]:
    """Schemas that all hold for what fits the node."""
    for _ in range(_DEPTH):
        if not isinstance(node, dict):
            return
        yield node
        node = target(node, root)


def _differ(a: Node, b: Node, root: Node, depth: int) -> bool:
    if not _types(a) & _types(b):
        return True
    if (left := _literals(a)) is not None and (right := _literals(b)) is not None:
        return not left & right
    for x, y in ((a, b), (b, a)):
        for keyword in ("anyOf", "oneOf"):
            options = as_list(x.get(keyword))
            if options and all(_apart(option, y, root, depth - 1) for option in options):
                return True
    return _types(a) == {"object"} == _types(b) and _told_apart(a, b, root, depth)


def _told_apart(a: Node, b: Node, root: Node, depth: int) -> bool:
    """By a property that one of them requires."""
    left, right = as_dict(a.get("properties")), as_dict(b.get("properties"))
    return any(isinstance(name, str) and _apart(left.get(name), right.get(name), root, depth - 1)
               for name in as_list(a.get("required")) + as_list(b.get("required")))


def _types(node: Node) -> set[str]:
    types = node.get("type")
    if isinstance(types, str):
        types = [types]
    if isinstance(types, list):
        return {"number" if each == "integer" else str(each) for each in types}
    return {_TYPES[type(value)] for value in _listed(node) or []} or set(_TYPES.values())


def _literals(node: Node) -> set[tuple[type, Any]] | None:
    """The only values that fit; None if they cannot be listed, or compared."""
    values = _listed(node)
    if values is None or not all(type(value) in (str, bool, int, type(None)) for value in values):
        return None
    return {(type(value), value) for value in values}


def _listed(node: Node) -> list[Any] | None:
    values = [node["const"]] if "const" in node else node.get("enum")
    return values if isinstance(values, list) else None


def _keywords(node: Node) -> set[str]:
    """Without annotations."""
    return set(node) & KEYWORDS
