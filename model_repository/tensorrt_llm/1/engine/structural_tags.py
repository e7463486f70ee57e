"""Structural tags -> Lark: text that is free until something begins that must be followed.

In: a structural tag as parsed JSON, of the older form (`structures` and `triggers`) or the newer (`format`). Out: a
grammar for llguidance, or TagError. FORMATS is what is known of the newer form.

To llguidance an added token is no text: where the vocabulary has "<tool_call>" as one token, it must be named by its
id, at the end of a tag as at its beginning. A model can also spell the same characters with ordinary tokens; readers
of the text cannot tell the difference, so what ends free text does that in both ways. All other added tokens may stand
in free text: a thought begins and ends with some.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import dropwhile
from typing import Any, NamedTuple

from .strict_schema import enforceable

Node = dict[str, Any]
TEXT = "TEXT"


class TagError(ValueError):
    """What is wrong with a structural tag, in one line."""


def ascii_digits(regex: str) -> str:
    r"""The same with `\d` as 0 to 9, as patterns of JSON schemas and TensorRT-LLM have it; else it is any script's."""
    return re.sub(r"\\.", lambda found: _DIGITS.get(found[0], found[0]), regex, flags=re.DOTALL)


_DIGITS = {r"\d": "[0-9]", r"\D": "[^0-9]"}


def to_lark(tag: Any, tokenizer: Any) -> str:
    """Raises TagError."""
    if not isinstance(tag, dict):
        raise TagError("a structural tag is a JSON object")
    writer = _Writer(tokenizer)
    start = writer.write(tag["format"] if "format" in tag else _newer(tag), True)
    rules = "".join(f"{name}: {body}\n" for body, name in writer.rules.items())
    return f"%llguidance {{}}\nstart: {start}\n{rules}{TEXT}: /(.|\\n)*/\n"


def _newer(tag: Node) -> Node:
    """The older form is one of the newer."""
    tags = [{"type": "tag", "begin": each.get("begin"), "end": each.get("end", ""), "content": {
        "type": "json_schema", "json_schema": each.get("schema")}} for each in _filled(tag, "structures", dict)]
    return {"type": "triggered_tags", "triggers": tag.get("triggers"), "tags": tags}


class Piece(NamedTuple):
    """A part of a text, as Lark and as it is."""

    lark: str
    text: str
    token: bool


class _Writer:
    """Collects rules; every method returns what stands for its part on the right side of one."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.rules: dict[str, str] = {}  # what a rule says -> its name
        self._names: dict[str, int] = {}

    def write(self, node: Any, last: bool) -> str:
        """`last`: whether nothing follows, so that free text may."""
        kind = node.get("type") if isinstance(node, dict) else None
        found = FORMATS.get(kind) if isinstance(kind, str) else None
        if found is None:
            raise TagError(f"a format is one of {', '.join(FORMATS)}")
        for member, value in node.items():
            if member not in ("type", *found.members) and value and (member, value) != ("style", "json"):
                raise TagError(f"{kind}: {member[:40]} is not supported")
        if found.free and not last:
            raise TagError(f"{kind} must be the last")
        return found.write(self, node, last)

    def rule(self, body: str, lazy: bool = False) -> str:
        name = f"rule_{len(self.rules)}" + "[lazy]" * lazy
        return self.rules.setdefault(body, name).removesuffix("[lazy]")

    def schema(self, node: Node, last: bool) -> str:
        schema = node.get("json_schema")
        schema = _parsed(schema) if isinstance(schema, str) else schema
        if not isinstance(schema, dict):
            raise TagError("a structure needs begin, schema and end; a format json_schema needs json_schema")
        return "%json " + json.dumps(enforceable(schema), allow_nan=False)

    def regex(self, node: Node, last: bool) -> str:
        pattern = ascii_digits(_text(node, "pattern"))
        pattern = re.sub(r"\\.|/", lambda it: r"\/" if it[0] == "/" else it[0], pattern, flags=re.DOTALL)
        return self.rule("/" + pattern.replace("\n", r"\n") + "/")

    def const(self, node: Node, last: bool) -> str:
        return self.spell(_text(node, "value"))

    def any_text(self, node: Node, last: bool) -> str:
        return f"{self.free()} {TEXT}"

    def sequence(self, node: Node, last: bool) -> str:
        *before, final = _filled(node, "elements", dict)
        return "(" + " ".join([self.write(each, False) for each in before] + [self.write(final, last)]) + ")"

    def either(self, node: Node, last: bool) -> str:
        return "(" + " | ".join(self.write(each, last) for each in _filled(node, "elements", dict)) + ")"

    def tag(self, node: Node, last: bool) -> str:
        return f"{self.spell(_text(node, 'begin'))} {self.inside(node, last)}"

    def inside(self, node: Node, last: bool) -> str:
        """Content and end."""
        content, end = node.get("content"), _text(node, "end")
        if end and isinstance(content, dict) and content.get("type") == "any_text":
            self.write(content, True)
            return f"{self.free(end)} (" + " | ".join(self.watch(end, end)) + ")"
        return f"{self.write(content, last and not end)} {self.spell(end)}"

    def triggered(self, node: Node, last: bool) -> str:
        triggers, tags = _filled(node, "triggers", str), _filled(node, "tags", dict)
        begun = [f"{begin} {self.inside(tag, False)}" for tag in tags
                 for begin in self.watch(_text(tag, "begin"), _trigger(_text(tag, "begin"), triggers))]
        free, any_of = self.free(*(_text(tag, "begin") for tag in tags)), self.rule(" | ".join(begun))
        rest = f"{free} ({any_of} {free})* {TEXT}"
        if not node.get("at_least_one"):
            return f"{free} ({any_of} | {TEXT})" if node.get("stop_after_first") else rest
        first = self.rule(" | ".join(self.tag(tag, False) for tag in tags))
        return first if node.get("stop_after_first") else f"{first} {rest}"

    def watch(self, text: str, trigger: str) -> list[str]:
        """Free text up to the given one, in letters and, if it holds an added token, from there on."""
        ways = [self.rule(f"{TEXT} {_quoted(trigger)}", lazy=True) + " " + self.spell(text[len(trigger):])]
        if pieces := self.from_token(text):
            ways.append(" ".join([TEXT, *(piece.lark for piece in pieces)]))
        return ways

    def free(self, *watched: str) -> str:
        """Any text that ends with an added token, any number of times; none of those that begin something."""
        begin = {pieces[0].text for text in watched if (pieces := self.from_token(text))}
        ids = [str(i) for name, i in self._added().items() if name not in begin]
        return self.rule(f"({TEXT} <[{','.join(ids)}]>)*") if ids else ""

    def from_token(self, text: str) -> list[Piece]:
        """The pieces from the first added token on."""
        return list(dropwhile(lambda piece: not piece.token, self.pieces(text)))

    def spell(self, text: str) -> str:
        return " ".join(piece.lark for piece in self.pieces(text))

    def pieces(self, text: str) -> list[Piece]:
        """As a model writes it: added tokens that the text holds are named by their ids."""
        ids = self._tokenizer.tokenize_str(text, parse_special=True) if text else []
        names = {self._tokenizer.decode_bytes([i]).decode(errors="replace"): i
                 for i in ids if self._tokenizer.is_special_token(i)}
        parts = re.split("(" + "|".join(map(re.escape, names)) + ")", text) if names else [text]
        return [Piece(f"<[{names[part]}]>" if part in names else _quoted(part), part, part in names)
                for part in parts if part]

    def _added(self) -> dict[str, int]:
        """All added tokens that do not mean the end."""
        if not self._names:
            tokenizer, ends = self._tokenizer, set(self._tokenizer.eos_tokens)
            for i in filter(tokenizer.is_special_token, range(tokenizer.vocab_size)):
                name = tokenizer.decode_bytes([i]).decode(errors="replace")
                if i not in ends and tokenizer.tokenize_str(name, parse_special=True) == [i]:  # else it fills a gap
                    self._names[name] = i
        return self._names


class Format(NamedTuple):
    """How a format is written, and the members it may have."""

    write: Callable[[_Writer, Node, bool], str]
    members: tuple[str, ...]
    free: bool = False  # ends with free text


FORMATS = {
    "json_schema": Format(_Writer.schema, ("json_schema",)),
    "regex": Format(_Writer.regex, ("pattern",)),
    "const_string": Format(_Writer.const, ("value",)),
    "any_text": Format(_Writer.any_text, (), True),
    "sequence": Format(_Writer.sequence, ("elements",)),
    "or": Format(_Writer.either, ("elements",)),
    "tag": Format(_Writer.tag, ("begin", "content", "end")),
    "triggered_tags": Format(
        _Writer.triggered, ("triggers", "tags", "at_least_one", "stop_after_first"), True),
}


def _trigger(begin: str, triggers: list[str]) -> str:
    for trigger in triggers:
        if trigger and begin.startswith(trigger):
            return trigger
    raise TagError(f"no trigger fits the beginning {begin[:60]!r}")


def _filled(node: Node, member: str, kind: type) -> list[Any]:
    value = node.get(member)
    if not isinstance(value, list) or not value or not all(isinstance(item, kind) for item in value):
        raise TagError(f"{member}: wanted a list that is not empty")
    return value


def _text(node: Node, member: str) -> str:
    value = node.get(member)
    if not isinstance(value, str):
        raise TagError(f"{member}: wanted a string")
    return value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise TagError("json_schema: it is not JSON") from None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
