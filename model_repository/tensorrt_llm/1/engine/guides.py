"""Guides of guided decoding -> llguidance's grammars and matchers.

In: a guide's type and text, a checkpoint folder. Out: a grammar as text, a checked matcher, or GuideError.
Every type is one row of TYPES. llguidance is imported when the first guide comes: an engine without guides never needs
it; numpy is not imported, so that the process that tries guides out (guide_trial.py) starts fast. It does not know
requests.
"""

from __future__ import annotations

import importlib.util
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .strict_schema import enforceable
from .structural_tags import ascii_digits, to_lark

FIRST_MASK_SECONDS = 0.5
"""CPU time: a guide whose very first mask takes longer would hold up the batch at each token."""

SLOW_MASK, MASK_SECONDS = 0.005, 0.5
"""CPU time, of which preemption is no part: masks slower than the first may together take a sequence the second."""
TOO_SLOW = "it takes too long to enforce"

STEP_ITEMS = 250_000
"""llguidance's own bound, a fifth of this, is too low for objects of some hundred properties and large vocabularies."""

_TOO_MUCH = "it allows too much at once; objects may have some 500 optional properties"
IN_OUR_WORDS = {
    "oneOf constraints are not supported": "oneOf: something could fit two of the schemas",
    "NoExtension": "no text can satisfy it",
    "Parser Error: Current row has": _TOO_MUCH,
    "parser error: Current row has": _TOO_MUCH,
    "Parser Error: Too many items": "it never ends, or is too complex",
    "parser error: Too many items": "it never ends, or is too complex",
    "lexer error: too many": "a pattern or a length in it is too complex",
}
"""Messages that advise what is not possible here, or mean nothing to a caller, by how they begin."""


class Guide(NamedTuple):
    """What an answer must look like, as the caller says it."""

    type: str
    text: str


class GuideError(Exception):
    """What is wrong with a guide, in one line."""


class Effort:
    """What the masks of one sequence cost."""

    def __init__(self) -> None:
        self._slow = 0.0

    def bearable(self, started: float) -> bool:
        """Counts the CPU time since then. False: it must go no further, it would hold up the batch."""
        spent = time.thread_time() - started
        if spent > SLOW_MASK:
            self._slow += spent
        return self._slow <= MASK_SECONDS


def available(folder: str | None) -> tuple[str, ...]:
    """The types that can be enforced with the checkpoint in this folder; none without its tokenizer."""
    if folder is None or not Path(folder, "tokenizer.json").is_file() or not importlib.util.find_spec("llguidance"):
        return ()
    return tuple(TYPES)


def load_tokenizer(folder: str) -> Any:
    """An LLTokenizer; all end ids of the checkpoint end a grammar."""
    import llguidance
    text = Path(folder, "tokenizer.json").read_text(encoding="utf-8")
    plain = llguidance.LLTokenizer(text)
    ends = sorted(token for token in _end_ids(Path(folder), text) if 0 <= token < plain.vocab_size)
    return llguidance.LLTokenizer(text, eos_token=ends) if ends else plain


def to_grammar(guide: Guide, tokenizer: Any) -> str:
    """Raises GuideError for what can be seen without compiling."""
    try:
        return TYPES[guide.type](guide.text, tokenizer)
    except RecursionError:
        raise GuideError("it is nested too deeply") from None
    except (ValueError, AssertionError) as error:
        raise GuideError(first_line(str(error))) from None


def compile_grammar(grammar: str, tokenizer: Any) -> Any:
    """An LLMatcher at its start, with the first mask computed once: copies of it find the lexer warm."""
    import llguidance
    limits = llguidance.LLParserLimits(verbose_errors=False, step_max_items=STEP_ITEMS)
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise GuideError(first_line(matcher.get_error()))
    started = time.thread_time()
    matcher.compute_bitmask()
    if matcher.is_error():
        raise GuideError(first_line(matcher.get_error()))
    if time.thread_time() - started > FIRST_MASK_SECONDS:
        raise GuideError(TOO_SLOW)
    return matcher


def first_line(text: str) -> str:
    """For callers: short, and without what llguidance appends for its developers."""
    lines = text.strip().splitlines() or ["unknown error"]
    if lines[0].endswith("regex parse error:"):  # the reason comes last, behind a drawing
        lines[0] += next((line.partition("error:")[2] for line in lines if line.startswith("error:")), "")
    return next((said for start, said in IN_OUR_WORDS.items() if lines[0].startswith(start)), lines[0][:200])


# The types

def _any_object(text: str, tokenizer: Any) -> str:
    return _schema('{"type": "object"}', tokenizer)


def _schema(text: str, tokenizer: Any) -> str:
    import llguidance
    schema = _load(text)
    if not isinstance(schema, (dict, bool)):
        raise GuideError("a JSON schema is an object")
    return llguidance.LLMatcher.grammar_from_json_schema(json.dumps(enforceable(schema), allow_nan=False))


def _regex(text: str, tokenizer: Any) -> str:
    import llguidance
    return llguidance.LLMatcher.grammar_from_regex(ascii_digits(text))


def _ebnf(text: str, tokenizer: Any) -> str:
    import llguidance
    return llguidance.grammar_from("gbnf", _GBNF_PART.sub(_unescaped, text))


_GBNF_PART = re.compile(r'#[^\n]*|"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]', re.DOTALL)
_GBNF_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_IN_STRING = {'"': r'\"', "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


def _unescaped(part: re.Match[str]) -> str:
    """A string or class of GBNF with characters instead of their numbers, which llguidance loses on the way to Lark."""
    in_string = part[0][0] == '"'

    def char(found: re.Match[str]) -> str:
        if found[4]:
            return found[4] if in_string and found[4] in "[]" else found[0]
        code = int(found[1] or found[2] or found[3], 16)
        if in_string:
            return _IN_STRING.get(chr(code), chr(code))
        return f"\\x{code:02x}" if code < 0x100 else chr(code)  # some of those mean something in a class

    return part[0] if part[0][0] == "#" else _GBNF_ESCAPE.sub(char, part[0])


def _lark(text: str, tokenizer: Any) -> str:
    import llguidance
    return llguidance.LLMatcher.grammar_from_lark(text)


def _llguidance(text: str, tokenizer: Any) -> str:
    if not isinstance(_load(text), dict):
        raise GuideError("a grammar of llguidance is a JSON object")
    return text


def _structural_tag(text: str, tokenizer: Any) -> str:
    return to_lark(_load(text), tokenizer)


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise GuideError(f"it is not JSON: {first_line(str(error))}") from None


TYPES: dict[str, Callable[[str, Any], str]] = {
    "json": _any_object,
    "json_schema": _schema,
    "regex": _regex,
    "ebnf_grammar": _ebnf,
    "structural_tag": _structural_tag,
    # Beyond the contract:
    "lark_grammar": _lark,
    "llguidance": _llguidance,
}
"""Value of `guided_decoding_guide_type` -> what makes a grammar of the guide."""

WITHOUT_GUIDE = frozenset({"json"})
"""Types that say everything by themselves."""


# The end ids

def _end_ids(folder: Path, tokenizer: str) -> set[int]:
    """What the checkpoint's files call the end, as ids; several files may say different things, all of them count."""
    ends: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = _read(folder / name).get("eos_token_id")
        ends.update(value if isinstance(value, list) else [value] if isinstance(value, int) else [])
    token = _read(folder / "tokenizer_config.json").get("eos_token")
    content = token.get("content") if isinstance(token, dict) else token
    added = json.loads(tokenizer).get("added_tokens") or []
    ends.update(entry["id"] for entry in added if entry["content"] == content)
    return ends


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}
