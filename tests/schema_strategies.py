"""JSON schema → hypothesis strategy, as far as gateway/openapi.json uses JSON schema; and values that fit nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from hypothesis import strategies as st

Schema: TypeAlias = Mapping[str, Any]
Values: TypeAlias = "st.SearchStrategy[Any]"

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
ANYTHING: Values = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def fitting(schema: Schema, components: Schema) -> Values:
    """Values of a schema; `components` are what its references lead to."""
    if "$ref" in schema:
        return st.deferred(lambda: fitting(components[schema["$ref"].rpartition("/")[2]], components))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of(*(fitting(each, components) for each in schema["anyOf"]))
    return OF_TYPE.get(schema.get("type", ""), lambda schema, components: ANYTHING)(schema, components)


def numbers(schema: Schema, components: Schema) -> Values:
    low, high = schema.get("minimum"), schema.get("maximum")
    if schema["type"] == "integer":
        return st.integers(low, high)
    return st.floats(low, high, allow_nan=False, allow_infinity=False) | st.integers(int(low or 0), int(high or 2**31))


def strings(schema: Schema, components: Schema) -> Values:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: len(text) <= 64)
    return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 30), 30))


def arrays(schema: Schema, components: Schema) -> Values:
    items = fitting(schema.get("items", {}), components)
    return st.lists(items, min_size=schema.get("minItems", 0), max_size=min(schema.get("maxItems", 3), 3))


def objects(schema: Schema, components: Schema) -> Values:
    known = {name: fitting(each, components) for name, each in schema.get("properties", {}).items()}
    needed = set(schema.get("required", ()))
    if not known:
        more = schema.get("additionalProperties", {})
        return st.dictionaries(
            st.text(max_size=8), fitting(more if isinstance(more, dict) else {}, components), max_size=3
        )
    # A few of the optional members at a time, or every body would be wrong in some way or other.
    optional = st.lists(st.sampled_from(sorted(known.keys() - needed) or sorted(known)), max_size=4, unique=True)
    return optional.flatmap(lambda names: st.fixed_dictionaries({name: known[name] for name in {*needed, *names}}))


OF_TYPE = {
    "integer": numbers,
    "number": numbers,
    "string": strings,
    "array": arrays,
    "object": objects,
    "boolean": lambda schema, components: st.booleans(),
    "null": lambda schema, components: st.none(),
}


@st.composite
def nearly_fitting(draw: st.DrawFn, schema: Schema, components: Schema) -> Any:
    """A body with one member of a wrong kind, or one too many."""
    body = draw(fitting(schema, components))
    name = draw(st.sampled_from(sorted(schema["properties"])) | st.text(max_size=8))
    return body | {name: draw(ANYTHING)}
