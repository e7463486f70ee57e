"""The format of gpt-oss: messages with a channel and perhaps a recipient, which say what a message's text is.

The prompt ends with `<|start|>assistant`, and the model goes on with the rest of that header, the message, and further
messages:

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json
    <|message|>{…}<|call|>

A message to a function is a call; one to something else (a built-in tool), and one on the analysis channel, is
reasoning; all others are content. A line break is put between two messages of a kind, as nothing else parts them.

Public sources: the guide to the format (https://cookbook.openai.com/articles/openai-harmony) and the chat template of
gpt-oss, which names the recipient before the channel.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import Enum, auto
from typing import NamedTuple

from postprocessing.markers import Scanner, pieces
from postprocessing.reader import CallArguments, CallOpened, Content, Delta, Reader, Reasoning
from postprocessing.tool_calls.value import Value
from postprocessing.whitespace import Trimmer

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
MARKERS = (START, CHANNEL, CONSTRAIN, MESSAGE, *ENDS)
CHANNELS = ("analysis", "commentary", "final")

# Far more than any header has; what goes on without `<|message|>` for longer is text.
LONGEST_HEADER = 400
# What a header may be so far: a role, then recipient, channel and type in any order, as models repeat the channel.
NAME = r"[\w.:/\-]*"
HEADER = re.compile(
    rf"\s*(?:{re.escape(START)}{NAME})?(?:\s*(?:to={NAME}|{re.escape(CHANNEL)}\s*\w*|{re.escape(CONSTRAIN)}))*\s*\w*\s*"
)
# The same where no marker has shown yet that it is one.
RECIPIENT_FIRST = re.compile(rf"\s*(?:t|to|to={NAME}\s*)?")
CHANNEL_NAME = re.compile(re.escape(CHANNEL) + r"\s*(\w+)")
RECIPIENT = re.compile(r"\bto=([^\s<]+)")
FUNCTION = re.compile(r"functions\.(.+)")


class Kind(Enum):
    """What a message is."""

    CONTENT = auto()
    REASONING = auto()
    CALL = auto()


class Message(NamedTuple):
    """What a header says of its message; `function`: the one that is called."""

    kind: Kind
    function: str = ""


class Harmony:
    """Reads one answer.

    Args:
        inner: reads all content, as one text. Its calls are those of the answer then; the text of calls in this format
            is reasoning, as is all that goes to other recipients.
        opened: the prompt ends within a thought.
        names: functions that may be called without their namespace.
    """

    def __init__(self, inner: Reader | None = None, *, opened: bool = False, names: Collection[str] = ()) -> None:
        self.reasoning = opened
        self.calls = self.failures = 0
        self._inner = inner
        self.names = names
        self._opened_calls = 0
        self._scanner = Scanner(MARKERS)
        self._header: list[str] | None = None if opened else []
        self._message = Message(Kind.REASONING if opened else Kind.CONTENT)
        self._trimmer = Trimmer()
        self._arguments = Value()
        self._fresh = True  # nothing of the message has been shown
        self._seen: set[Kind] = set()
        self._ended = False

    def push(self, text: str) -> list[Delta]:
        deltas: list[Delta] = []
        for part in pieces(text):
            found = self._scanner.push(part)
            deltas += self._text(found.before)
            while found.marker is not None:
                deltas += self._marker(found.marker)
                found = self._scanner.push(found.rest)
                deltas += self._text(found.before)
        return deltas

    def finish(self) -> list[Delta]:
        found = self._scanner.finish()
        deltas = self._text(found.before)
        deltas += self._cut_header()
        # The token that ends a call ends the answer and is not seen, nor is it when the answer was cut off.
        complete = self._arguments.done and not self._arguments.broken
        deltas += self._close(complete=complete or self._fresh)
        return deltas + self._read_content(None)

    def _text(self, text: str) -> list[Delta]:
        """Takes text without markers."""
        if self._header is None:
            return self._body(text)
        header = "".join(self._header) + text
        pattern = HEADER if any(part in MARKERS for part in self._header) else RECIPIENT_FIRST
        if len(header) > LONGEST_HEADER or not pattern.fullmatch(header):
            return self._no_header() + self._body(text)
        return self._hold(text)

    def _marker(self, marker: str) -> list[Delta]:
        if marker in ENDS:
            return self._cut_header() + self._close()
        if self._header is not None and self._fits(marker):
            return self._begin("".join(self._header)) if marker == MESSAGE else self._hold(marker)
        deltas = self._no_header()
        if marker not in (START, CHANNEL):
            return deltas + self._body(marker)
        self._header = []
        return deltas + self._hold(marker)

    def _fits(self, marker: str) -> bool:
        """Whether the header can go on with this marker."""
        header = "".join(self._header or [])
        if marker == MESSAGE:
            channel = CHANNEL_NAME.search(header)
            known = channel.group(1) in CHANNELS if channel else header.lstrip().startswith(START)
            return known or not header.strip() or RECIPIENT.search(header) is not None
        return not header.strip() or (marker != START and HEADER.fullmatch(header + marker) is not None)

    def _hold(self, text: str) -> list[Delta]:
        """Takes more of a header."""
        if self._header is not None and text:
            self._header.append(text)
        return []

    def _begin(self, header: str) -> list[Delta]:
        """A header is complete: the message that it says begins."""
        deltas = self._close()
        self._header = None
        self._message = self._said(header)
        self.reasoning = self._message.kind is Kind.REASONING
        if self._message.kind is Kind.CALL:
            deltas.append(CallOpened(self._opened_calls, self._message.function))
            self._opened_calls += 1
        return deltas

    def _said(self, header: str) -> Message:
        recipient = RECIPIENT.search(header)
        if recipient and recipient.group(1) != "all":
            function = FUNCTION.fullmatch(recipient.group(1))
            name = function.group(1) if function else recipient.group(1)
            called = (function is not None or name in self.names) and self._inner is None
            return Message(Kind.CALL, name) if called else Message(Kind.REASONING)
        channel = CHANNEL_NAME.search(header)
        return Message(Kind.REASONING if channel and channel.group(1) == "analysis" else Kind.CONTENT)

    def _no_header(self) -> list[Delta]:
        """What looked like a header is text of the message before it; behind an end there is none, it is content."""
        if self._header is None:
            return []
        header, self._header = "".join(self._header), None
        return self._body(header)

    def _cut_header(self) -> list[Delta]:
        """The message or the answer ends within a header, which is no text; nor is whitespace behind an end."""
        header = "".join(self._header or [])
        told = header.lstrip().startswith((START, CHANNEL) if self._at_seam else START)
        if told or (self._ended and not header.strip()):
            self._header = None
        return self._no_header()

    @property
    def _at_seam(self) -> bool:
        """Whether no message is open: at the beginning, or behind an end."""
        return self._fresh and self._message == Message(Kind.CONTENT)

    def _body(self, text: str) -> list[Delta]:
        """Takes text of the message."""
        kind = self._message.kind
        shown = text if kind is Kind.CONTENT else self._trimmer.push(text)
        if not shown:
            return []
        if kind is Kind.CALL:
            self._fresh = False
            self._arguments.read(shown, 0)
            return [CallArguments(self._opened_calls - 1, shown)]
        parted = "\n" if self._fresh and kind in self._seen else ""
        self._fresh = False
        self._seen.add(kind)
        return self._read_content(parted + shown) if kind is Kind.CONTENT else [Reasoning(parted + shown)]

    def _read_content(self, text: str | None) -> list[Delta]:
        """What content is; None ends it."""
        if self._inner is None:
            return [Content(text)] if text else []
        deltas = self._inner.finish() if text is None else self._inner.push(text)
        self.calls, self.failures = self._inner.calls, self._inner.failures
        return deltas

    def _close(self, *, complete: bool = True) -> list[Delta]:
        """The message ends; until a header says otherwise, what comes is content."""
        deltas: list[Delta] = []
        if self._message.kind is Kind.CALL:
            self.calls += complete
            if self._fresh:
                deltas.append(CallArguments(self._opened_calls - 1, "{}"))
        self._message = Message(Kind.CONTENT)
        self.reasoning = False
        self._trimmer, self._arguments = Trimmer(), Value()
        self._fresh = self._ended = True
        self._header = []
        return deltas
