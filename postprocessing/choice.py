"""One sequence of an answer: its tokens' way to text and its meaning, with stop strings, log probs and why it ended."""

from __future__ import annotations

from typing import NamedTuple

from postprocessing import engine_errors
from postprocessing.detokenizer import Detokenizer
from postprocessing.events import Event, Status
from postprocessing.interpreter import Interpreter
from postprocessing.log_probs import Entry, Waiting
from postprocessing.reader import Delta, merged
from postprocessing.stop import StopStrings

FINISH_REASONS = {Status.END_ID: "stop", Status.STOP_WORDS: "stop", Status.LENGTH: "length"}


class Piece(NamedTuple):
    """What is ready to be shown, and the log probs of its tokens (if they are wanted)."""

    deltas: list[Delta]
    entries: list[Entry]


class Choice:
    """State of one sequence.

    Args:
        interpreter: says what the text means.
        ends: token ids that end the text and are not shown.
        min_tokens: before so many, the tokens in `ends` end nothing.
        max_tokens: 0 if no new text is wanted at all.
        offset: where its text begins, for the places of log probs.

    Attributes:
        tokens: how many count, up to the one that completed a stop string.
        finish_reason: set once it has ended.
        cumulative: sum of the log probs of its tokens.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        stop: StopStrings,
        interpreter: Interpreter,
        ends: frozenset[int],
        min_tokens: int,
        max_tokens: int,
        *,
        log_probs: bool,
        offset: int = 0,
    ) -> None:
        self._detokenizer = detokenizer
        self._interpreter = interpreter
        self._stop = stop
        self._ends = ends
        self._min_tokens = min_tokens
        self._max_tokens = max_tokens
        self._waiting = Waiting() if log_probs else None
        self._unfinished: list[Entry] = []
        self._unsure: list[Entry] = []
        self._ready: list[Entry] = []
        self._read = self._shown = offset
        self.tokens = 0
        self.cumulative = 0.0
        self.finish_reason: str | None = None

    @property
    def reasoning_tokens(self) -> int:
        """How many tokens were part of a thought."""
        return self._interpreter.reasoning_tokens

    @property
    def failed_calls(self) -> int:
        """How many tool calls could not be read."""
        return self._interpreter.failed_calls

    def push(self, event: Event) -> Piece:
        """Takes the engine's news.

        Raises:
            OpenAIError: the event is an error, in words fit for the client.
        """
        if self.finish_reason is not None:
            return Piece([], [])
        deltas: list[Delta] = []
        if self._max_tokens:
            self._read_tokens(event, deltas)
        else:
            self._end("length", deltas)
        if event.status is not Status.RUNNING and self.finish_reason is None:
            if event.status not in FINISH_REASONS:
                raise engine_errors.translate(event)
            self._end(FINISH_REASONS[event.status], deltas)
        return Piece(merged(deltas), self._told())

    def _read_tokens(self, event: Event, deltas: list[Delta]) -> None:
        """Reads the event's tokens, up to where the answer ends by itself."""
        for at, token in enumerate(event.tokens):
            if token in self._ends and self.tokens >= self._min_tokens:
                self._end("stop", deltas)
                return
            self.tokens += 1
            piece = self._detokenizer.push(token)
            if event.log_probs:
                self._note(event, at, len(piece))
            text = self._stop.push(piece)
            found = self._interpreter.push_token(text)
            deltas += found
            if self._stop.matched is not None or self._interpreter.complete:
                self._finish("stop", deltas)
            if self._waiting is not None:
                self._sort(len(text), known=bool(found))
            if self.finish_reason is not None:
                return

    def _finish(self, reason: str, deltas: list[Delta]) -> None:
        deltas += self._interpreter.finish()
        self.finish_reason = self._interpreter.finish_reason(reason)

    def _note(self, event: Event, at: int, length: int) -> None:
        """Notes a token's log probs. Parts of a character have the place of the whole, which the last part brings."""
        self.cumulative += event.log_probs[at]
        if self._waiting is None:
            return
        top = event.top[at] if event.top else ()
        self._unfinished.append(Entry(event.tokens[at], event.log_probs[at], top, self._read, self._read))
        if length:
            self._place(length)

    def _place(self, length: int) -> None:
        assert self._waiting is not None
        for entry in self._unfinished:
            self._waiting.add(entry._replace(end=self._read + length))
        self._unfinished = []
        self._read += length

    def _end(self, reason: str, deltas: list[Delta]) -> None:
        """Reads the text that was still held back. If it completes a stop string, that is the reason."""
        rest = self._detokenizer.finish()
        if self._waiting is not None:
            self._place(len(rest))
        text = self._stop.push(rest)
        if self._stop.matched is None:
            text += self._stop.finish()
        deltas += self._interpreter.push(text)
        self._finish(reason if self._stop.matched is None else "stop", deltas)
        if self._waiting is not None:
            self._sort(len(text), known=True)

    def _sort(self, length: int, *, known: bool) -> None:
        """Notes the log probs of so much text. They are told when it is known what the text means, or never."""
        self._unsure += self._entries(length)
        if self._interpreter.hidden:
            self._unsure = []
        elif known:
            self._ready += self._unsure
            self._unsure = []

    def _told(self) -> list[Entry]:
        if not self._ready and self.finish_reason is None:
            return []
        told = self._ready if self.finish_reason is None else self._ready + self._unsure
        self._ready = []
        return told

    def _entries(self, length: int) -> list[Entry]:
        if self._waiting is None:
            return []
        self._shown += length
        if self.finish_reason is not None:
            return self._waiting.rest(self._shown if self._stop.matched is not None else None)
        # Without text nothing is sent, so the entry of a character's first part waits for the others.
        return self._waiting.shown(self._shown) if length else []
