"""One answer, from the engine's events to the bytes for the client: text, stop strings, finish reason, usage, shape.

`open()` when the engine has taken the request, then `push(event)` until `done`; each returns what to send, perhaps
nothing. Streamed and whole answers go the same way and differ in the last step only.
"""

from __future__ import annotations

from postprocessing import engine_errors, shapes
from postprocessing.detokenizer import Detokenizer
from postprocessing.events import Event, Status
from postprocessing.shapes import Chunks, Identity, Usage
from postprocessing.stop import StopStrings
from preprocessing.errors import OpenAIError
from preprocessing.generation import Generation
from preprocessing.tokenizer import Tokenizer

FINISH_REASONS = {Status.END_ID: "stop", Status.STOP_WORDS: "stop", Status.LENGTH: "length"}


class Answer:
    """State of one answer.

    Attributes:
        done: nothing more will come; the engine's sequence can be cancelled if it still runs.
        finish_reason: set when done without an error.
        completion_tokens: tokens of the engine that count, up to the one that completed a stop string.
    """

    def __init__(self, generation: Generation, tokenizer: Tokenizer, identity: Identity) -> None:
        self._generation = generation
        self._identity = identity
        self._shape = shapes.CHAT if generation.chat else shapes.COMPLETION
        self._chunks = Chunks(self._shape, identity, with_usage=generation.include_usage)
        self._ends = frozenset(generation.end_ids)
        self._detokenizer = Detokenizer(tokenizer.backend, generation.prompt_ids)
        self._stop = StopStrings(generation.stops)
        self._text: list[str] = []
        self._opened = False
        self.completion_tokens = 0
        self.finish_reason: str | None = None
        self.done = False

    def open(self) -> bytes:
        """What comes before the first token. May be called again: it is sent once."""
        if self._opened:
            return b""
        self._opened = True
        return self._chunks.opening() if self._generation.stream else b""

    def push(self, event: Event) -> bytes:
        """Takes the engine's news.

        Raises:
            OpenAIError: the event is an error, in words fit for the client. `fail` ends the answer.
        """
        if self.done:
            return b""
        text = self._read(event)
        if event.status is not Status.RUNNING and self.finish_reason is None:
            if event.status not in FINISH_REASONS:
                raise engine_errors.translate(event)
            text += self._end(FINISH_REASONS[event.status])
        opening = self.open()
        if not self._generation.stream:
            self._text.append(text)
            return self._whole() if self.finish_reason else b""
        chunk = self._chunks.text(text) if text else b""
        return opening + chunk + (self._closing() if self.finish_reason else b"")

    def fail(self, error: OpenAIError) -> bytes:
        """Ends an answer, part of which may have been sent, with an error."""
        self.done = True
        return shapes.error_event(error.body()) if self._generation.stream else error.body()

    @property
    def usage(self) -> Usage:
        return Usage(len(self._generation.prompt_ids), self.completion_tokens)

    def _read(self, event: Event) -> str:
        """Text of the event's tokens, up to where the answer ends by itself."""
        pieces = []
        for token in event.tokens:
            if token in self._ends:
                pieces.append(self._end("stop"))
                break
            self.completion_tokens += 1
            pieces.append(self._stop.push(self._detokenizer.push(token)))
            if self._stop.matched is not None:
                self.finish_reason = "stop"
                break
        return "".join(pieces)

    def _end(self, reason: str) -> str:
        """The text that was still held back. It may complete a stop string, which then is the reason."""
        text = self._stop.push(self._detokenizer.finish())
        if self._stop.matched is None:
            text += self._stop.finish()
        self.finish_reason = reason if self._stop.matched is None else "stop"
        return text

    def _closing(self) -> bytes:
        self.done = True
        assert self.finish_reason is not None
        usage = self._chunks.usage(self.usage) if self._generation.include_usage else b""
        return self._chunks.closing(self.finish_reason) + usage + shapes.DONE

    def _whole(self) -> bytes:
        self.done = True
        assert self.finish_reason is not None
        return shapes.whole(self._shape, self._identity, "".join(self._text), self.finish_reason, self.usage)
