"""The families of models that call tools: how each writes a call, and how its chat template shows which one it is."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from postprocessing import harmony
from postprocessing.reader import Reader, Tools
from postprocessing.tool_calls import deepseek, mistral
from postprocessing.tool_calls.objects import BARE, Form, Objects
from postprocessing.tool_calls.pythonic import Pythonic
from postprocessing.tool_calls.qwen3_coder import Qwen3Coder


class Tag(NamedTuple):
    """How a call looks whose arguments are JSON; NAME stands for the function's name.

    Attributes:
        begin, end: what is directly around the arguments. An engine can be told to watch for the one and to enforce
            everything up to the other.
        before, after: what else is around a single call.
    """

    begin: str
    end: str
    before: str = ""
    after: str = ""

    def text(self, name: str, arguments: str) -> str:
        """A whole call."""
        return f"{self.before}{self.begin}{arguments}{self.end}{self.after}".replace("NAME", name)


class Family(NamedTuple):
    """A way to write tool calls.

    Attributes:
        reader: makes a reader for answers to a request with these tools.
        markers: texts of the format that may be special tokens: the reader has to see them.
        templates: how a chat template of the family is recognised: alternatives, all of whose fragments occur in it.
        tag: None where a call's arguments are not JSON, or stand in several kinds of frames.
        arguments_key: what the family calls the arguments.
        call_id: the style of ids that its template accepts.
    """

    name: str
    reader: Callable[[Tools], Reader]
    markers: tuple[str, ...] = ()
    templates: tuple[tuple[str, ...], ...] = ()
    tag: Tag | None = None
    arguments_key: str = "arguments"
    call_id: str = "openai"


def _object_tag(before: str = "", after: str = "", key: str = "arguments") -> Tag:
    """A tag of calls that are objects."""
    return Tag(f'{{"name": "NAME", "{key}": ', "}", before, after)


TOOL_CALL = {"<tool_call>": ""}
HERMES = Form(TOOL_CALL, ("</tool_call>",))
LLAMA = Form({"<|python_tag|>": "", **BARE}, separators=";,")
GRANITE = Form({"<|tool_call|>": "", **TOOL_CALL}, ("</tool_call>",))
NEMOTRON = Form({"<TOOLCALL>": ""}, ("</TOOLCALL>",))
PHI = Form({"<|tool_call|>": "", "functools": ""}, ("<|/tool_call|>",))
JSON = Form({"```json": "```", **BARE})

PLAIN_CALL = _object_tag()
FORCED = Family("forced", partial(Objects, Form(BARE, whole=True)), tag=PLAIN_CALL)
"""How answers are read that a guide holds to JSON: a call, a list of calls, or something else. No model's own way."""

FAMILIES = {
    family.name: family
    for family in (
        Family(
            "harmony",
            lambda tools: harmony.Harmony(names=tools),
            harmony.MARKERS,
            ((harmony.CHANNEL, harmony.MESSAGE),),
        ),
        Family(
            "qwen3_coder",
            Qwen3Coder,
            ("<tool_call>", "</tool_call>"),
            (("<function=", "<parameter="),),
        ),
        Family(
            "pythonic",
            Pythonic,
            ("<|python_start|>", "<|python_end|>"),
            (("[func_name1(",),),
        ),
        Family(
            "deepseek_v3",
            lambda tools: deepseek.DeepSeek(),
            deepseek.MARKERS,
            ((deepseek.CALL, "```json"),),
            Tag(
                f"{deepseek.CALL}function{deepseek.SEPARATOR}NAME\n```json\n",
                f"\n```{deepseek.CALL_END}",
            ),
        ),
        Family(
            "deepseek_v31",
            lambda tools: deepseek.DeepSeek(),
            deepseek.MARKERS,
            ((deepseek.CALL,),),
            Tag(f"{deepseek.CALL}NAME{deepseek.SEPARATOR}", deepseek.CALL_END),
        ),
        Family(
            "mistral_args",
            mistral.Mistral,
            mistral.MARKERS,
            ((mistral.OPENER, "[ARGS]"),),
            Tag(f"{mistral.OPENER}NAME[ARGS]", ""),
            call_id="mistral",
        ),
        Family(
            "mistral",
            mistral.Mistral,
            mistral.MARKERS,
            ((mistral.OPENER,),),
            _object_tag(f"{mistral.OPENER} [", "]"),
            call_id="mistral",
        ),
        Family(
            "nemotron",
            partial(Objects, NEMOTRON),
            ("<TOOLCALL>", "</TOOLCALL>"),
            (("<TOOLCALL>",),),
            _object_tag("<TOOLCALL>[", "]</TOOLCALL>"),
        ),
        Family(
            "phi4_mini",
            partial(Objects, PHI),
            ("<|tool_call|>", "<|/tool_call|>"),
            (("<|tool|>", "<|/tool|>"), ("functools[",)),
            _object_tag("<|tool_call|>[", "]<|/tool_call|>"),
        ),
        Family(
            "granite",
            partial(Objects, GRANITE),
            ("<|tool_call|>", "<tool_call>", "</tool_call>"),
            (("<|start_of_role|>", "<|tool_call|>"), ("<|start_of_role|>", "<tool_call>", "JSON list of tools")),
            _object_tag("<|tool_call|>[", "]"),
        ),
        Family(
            "hermes",
            partial(Objects, HERMES),
            ("<tool_call>", "</tool_call>"),
            (("<tool_call>", "<function-name>"), ("<tool_call>", '"arguments": '), ("<tool_call>", r"\"arguments\": ")),
            _object_tag("<tool_call>\n", "\n</tool_call>"),
        ),
        Family(
            "llama3_json",
            partial(Objects, LLAMA),
            ("<|python_tag|>",),
            (
                ("<|start_header_id|>", '"parameters": '),
                ("<|start_header_id|>", r"\"parameters\": "),
                ("<|header_start|>", '{"name": function name, "parameters": '),
            ),
            _object_tag(key="parameters"),
            arguments_key="parameters",
        ),
        Family("json", partial(Objects, JSON), tag=PLAIN_CALL),
    )
}
"""Name → family. Where several would recognise a template, the first one does."""


def recognise(template: str) -> Family | None:
    """The family whose calls a chat template, given as its source, renders and asks for."""
    for family in FAMILIES.values():
        if any(all(fragment in template for fragment in fragments) for fragments in family.templates):
            return family
    return None


_ALPHABET = string.ascii_letters + string.digits
_IDS = {"openai": ("call_", 24), "mistral": ("", 9)}
"""Style of ids → prefix and how many characters follow it."""


def new_id(style: str) -> str:
    """An id for a call."""
    prefix, length = _IDS[style]
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))
