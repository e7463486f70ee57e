"""Where the schemas of a JSON schema stand, what refers to what, and what refers to itself for ever.

In: a schema as parsed JSON. Out: the same object with every `$ref` as a JSON pointer from its root (`localize`), and
SchemaError for schemas that never come to an end (`check_endless`). References may be written in many ways; whoever
follows one here must arrive where llguidance does, so those that lead nowhere are refused. It does not know what else
schemas say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote, urljoin

Node = dict[str, Any]

ONE = ("additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then",
       "unevaluatedItems", "unevaluatedProperties")
SEVERAL = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
NAMED = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
"""Keywords that hold a schema, a list of schemas, schemas by name."""
SAME_VALUE = ("allOf", "anyOf", "oneOf")
"""Keywords whose schemas speak about the very value that theirs does."""

_REFERENCE = 100
"""Characters of a reference that a message repeats."""


class SchemaError(ValueError):
    """What cannot be enforced, in one line that names the keyword."""


def target(node: Node, root: Any) -> Any:
    """What a `$ref`, written as `localize` does it, leads to; None if there is none."""
    reference = node.get("$ref")
    return _at(unquote(reference[1:]), root) if isinstance(reference, str) and reference.startswith("#") else None


def parts(node: Node) -> Iterator[tuple[str, Any]]:
    """The schemas within one, with their JSON pointers from there."""
    for keyword in ONE:
        yield f"/{keyword}", node.get(keyword)
    for keyword in SEVERAL:
        for i, value in enumerate(as_list(node.get(keyword))):
            yield f"/{keyword}/{i}", value
    for keyword in NAMED:
        for name, value in as_dict(node.get(keyword)).items():
            yield f"/{keyword}/{_escaped(name)}", value


def reachable(root: Any) -> Iterator[Node]:
    """All schemas of the document; also those that only a reference finds. They may be changed on the way."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if isinstance(node, dict) and id(node) not in seen:
            seen.add(id(node))
            yield node
            pending += [part for _, part in parts(node)]
            pending.append(target(node, root))  # which may stand where no schema is expected


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def as_dict(value: Any) -> Node:
    return value if isinstance(value, dict) else {}


# References

def localize(root: Node) -> None:
    """Writes references as JSON pointers from the root, and drops `$id` and `$anchor`, which nothing needs any more."""
    places = _Places()
    places.explore(root, "", "")
    for node, base in places.nodes:  # which grows: what references find has references
        if isinstance(reference := node.get("$ref"), str):
            pointer, base = places.locate(reference, base)
            value = None if pointer is None else _at(pointer, root)
            if pointer is None or value is None:
                raise SchemaError(f"$ref: {reference[:_REFERENCE]} leads nowhere within the schema")
            node["$ref"] = "#" + quote(pointer, safe="/~$")
            places.explore(value, pointer, base)
    for node, _ in places.nodes:
        node.pop("$id", None)
        node.pop("$anchor", None)


class _Places:
    """Schemas with the URI that their references start from, and the JSON pointers of those that have a URI."""

    def __init__(self) -> None:
        self.nodes: list[tuple[Node, str]] = []
        self._seen: set[int] = set()
        self._pointers = {"": ""}

    def explore(self, value: Any, pointer: str, base: str) -> None:
        pending = [(value, pointer, base)]
        while pending:
            value, pointer, base = pending.pop()
            if not isinstance(value, dict) or id(value) in self._seen:
                continue
            self._seen.add(id(value))
            if isinstance(own := value.get("$id"), str) and not own.startswith("#"):
                base = urljoin(base, own).rstrip("#")
                self._pointers.setdefault(base, pointer)
            if isinstance(anchor := value.get("$anchor"), str):
                self._pointers.setdefault(f"{base}#{anchor}", pointer)
            self.nodes.append((value, base))
            pending += [(part, pointer + suffix, base) for suffix, part in parts(value)]

    def locate(self, reference: str, base: str) -> tuple[str | None, str]:
        """The JSON pointer that a reference means, and the URI of the schema that it is in."""
        uri, _, fragment = reference.partition("#")
        uri, fragment = (urljoin(base, uri) if uri else base), unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._pointers.get(f"{uri}#{fragment}"), uri
        start = self._pointers.get(uri)
        return (None if start is None else start + fragment), uri


def _at(pointer: str, root: Any) -> Any:
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(root, list):
            root = root[int(step)] if step.isascii() and step.isdecimal() and int(step) < len(root) else None
        else:
            root = as_dict(root).get(step)
    return root


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


# Schemas without an end

def check_endless(root: Any) -> None:
    """Raises SchemaError for schemas that refer to themselves without a property or an item between, and for those that
    no value can fulfill because it would have to contain itself. Trees and lists are neither."""
    nodes = list(reachable(root))
    if _circular(nodes, root):
        raise SchemaError("$ref: a schema refers to itself with nothing between")
    if len(_finite(nodes, root)) < len(nodes):
        raise SchemaError("$ref: a schema requires itself, so that no value can ever be complete")


def _circular(nodes: Iterable[Node], root: Any) -> bool:
    done: set[int] = set()
    for start in nodes:
        path: dict[int, Iterator[Any]] = {}
        if id(start) not in done:
            path[id(start)] = _same_value(start, root)
        while path:
            last, following = next(reversed(path.items()))
            node = next(following, None)
            if node is None:
                done.add(last)
                del path[last]
            elif id(node) in path:
                return True
            elif id(node) not in done:
                path[id(node)] = _same_value(node, root)
    return False


def _same_value(node: Node, root: Any) -> Iterator[Node]:
    """The schemas that are asked about the value that this one is asked about."""
    for value in (target(node, root), *(each for keyword in SAME_VALUE for each in as_list(node.get(keyword)))):
        if isinstance(value, dict):
            yield value


def _finite(nodes: list[Node], root: Any) -> set[int]:
    """Ids of the schemas that some value of finite depth may fulfill, as far as recursion is concerned."""
    found: set[int] = set()
    before = -1
    while before < len(found):
        before = len(found)
        for node in reversed(nodes):  # parts mostly come behind what they are parts of
            if id(node) not in found and _may_end(node, root, found):
                found.add(id(node))
    return found


def _may_end(node: Node, root: Any, found: set[int]) -> bool:
    def ends(value: Any) -> bool:
        return not isinstance(value, dict) or id(value) in found

    every = [target(node, root), *as_list(node.get("allOf"))]
    some = [options for keyword in ("anyOf", "oneOf") if (options := as_list(node.get(keyword)))]
    if not all(map(ends, every)) or not all(any(map(ends, options)) for options in some):
        return False
    types = node.get("type", ["null"])
    types = {types} if isinstance(types, str) else {each for each in as_list(types) if isinstance(each, str)}
    if not types or types - {"object", "array"} or "const" in node or "enum" in node:
        return True
    return any(all(map(ends, _CONTENT[each](node))) for each in types)


def _required(node: Node) -> Iterator[Any]:
    """What the values of the required properties must fulfill."""
    named, others = as_dict(node.get("properties")), node.get("additionalProperties")
    for name in as_list(node.get("required")):
        if isinstance(name, str):
            yield named.get(name, None if "patternProperties" in node else others)


def _least_items(node: Node) -> Iterator[Any]:
    """What the items of the shortest array must fulfill."""
    count, items = node.get("minItems", 0), node.get("items")
    first = as_list(node.get("prefixItems")) or as_list(items)
    count = count if isinstance(count, int) else 0
    yield from first[:max(count, 0)]
    if count > len(first):
        yield items


_CONTENT = {"object": _required, "array": _least_items}
