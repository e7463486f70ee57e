"""One answer, from the engine's events to the bytes for the client: choices, their order, usage, shape.

`open()` when the engine has taken the request, then `push(event)` until `done`; each returns what to send, perhaps
nothing. Streamed and whole answers go the same way and differ in the last step only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from postprocessing import log_probs, shapes
from postprocessing.choice import Choice, Piece
from postprocessing.detokenizer import Detokenizer
from postprocessing.echo import Echo
from postprocessing.events import Event, Status, joined_events
from postprocessing.interpreter import Interpreter
from postprocessing.log_probs import Entry
from postprocessing.reader import CallArguments, CallOpened, Content, Delta, Reasoning, merged
from postprocessing.shapes import Chunks, Identity, Usage
from postprocessing.stop import StopStrings
from postprocessing.tool_calls.families import new_id
from postprocessing.vocabulary import Vocabulary
from preprocessing.errors import OpenAIError
from preprocessing.generation import Generation, Prompt
from preprocessing.tokenizer import Tokenizer


@dataclass(slots=True)
class Candidate:
    """A choice, how its chunks are rendered, and what it holds: all for a whole answer, little for a streamed one.

    Attributes:
        deltas: of a whole answer.
        entries: log probs, of a whole answer.
        opened: whether its first text is out.
        early: news that wait until there are enough tokens for a chunk.
    """

    choice: Choice
    chunks: Chunks
    deltas: list[Delta] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    opened: bool = False
    early: list[Event] = field(default_factory=list)

    @property
    def mean_log_prob(self) -> float:
        # An answer that ended at once has no log prob that could be compared.
        return self.choice.cumulative / self.choice.tokens if self.choice.tokens else -math.inf


class Answer:
    """State of one answer.

    Args:
        stream_interval: so many tokens of a choice come as one chunk, if the answer streams; the first comes at once.

    Attributes:
        done: nothing more will come; engine sequences that still run can be cancelled.
    """

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        vocabulary: Vocabulary,
        identity: Identity,
        stream_interval: int = 1,
    ) -> None:
        self._generation = generation
        self._interval = stream_interval if generation.stream else 1
        self._identity = identity
        self._shape = shapes.shape_of(chat=generation.chat)
        self._render = renderer(generation, vocabulary)
        self._echoes = [Echo(tokenizer.backend, prompt, generation) for prompt in generation.prompts]
        self._candidates = [
            self._candidate(tokenizer, prompt, number * generation.n + index, self._echoes[number])
            for number, prompt in enumerate(generation.prompts)
            for index in range(generation.best_of)
        ]
        self._cached: int | None = None
        self._opened = False
        self._begun = generation.chat  # a chat's opening chunks are in order
        self.done = False

    def open(self) -> bytes:
        """What comes before the first token. May be called again: it is sent once."""
        if self._opened or not self._generation.stream:
            return b""
        self._opened = True
        return b"".join(candidate.chunks.opening(self._usage_so_far()) for candidate in self._candidates)

    def push(self, event: Event) -> bytes:
        """Takes the engine's news.

        Raises:
            OpenAIError: the event is an error, in words fit for the client. `fail` ends the answer.
        """
        if self.done:
            return b""
        if event.status is Status.PROMPT:
            self._read_prompt(event)
            return b""
        candidate = self._candidates[event.prompt * self._generation.best_of + event.sequence]
        if self._interval > 1:
            if self._is_early(candidate, event):
                return b""
            event = joined_events([*candidate.early, event])
            candidate.early = []
        ended_before = candidate.choice.finish_reason is not None
        piece = self._with_echo(candidate, event, candidate.choice.push(event))
        out = self._chunk(candidate, piece, ended_before) if self._generation.stream else self._keep(candidate, piece)
        ended = candidate.choice.finish_reason is not None
        if ended and all(each.choice.finish_reason is not None for each in self._candidates):
            self.done = True
            out += self._ending()
        return out

    def _is_early(self, candidate: Candidate, event: Event) -> bool:
        """Keeps what is to wait for more tokens."""
        waiting = sum(len(each.tokens) for each in candidate.early) + len(event.tokens)
        if event.status is not Status.RUNNING or not candidate.choice.tokens or waiting >= self._interval:
            return False
        candidate.early.append(event)
        return True

    def wants(self, prompt: int) -> bool:
        """Whether some choice of a prompt has not ended."""
        first = prompt * self._generation.best_of
        group = self._candidates[first : first + self._generation.best_of]
        return any(candidate.choice.finish_reason is None for candidate in group)

    def fail(self, error: OpenAIError) -> bytes:
        """Ends an answer, part of which may have been sent, with an error."""
        self.done = True
        return shapes.error_event(error.body()) if self._generation.stream else shapes.FAILED

    @property
    def generation(self) -> Generation:
        """What was asked for."""
        return self._generation

    @property
    def streams(self) -> bool:
        return self._generation.stream

    @property
    def finish_reason(self) -> str | None:
        """Of the first choice; None while it has not ended."""
        return self._candidates[0].choice.finish_reason

    @property
    def finish_reasons(self) -> list[str]:
        """Of all choices that have ended, in their order."""
        reasons = (candidate.choice.finish_reason for candidate in self._candidates)
        return [reason for reason in reasons if reason is not None]

    @property
    def id(self) -> str:
        """What clients see as the answer's id."""
        return self._identity.id

    @property
    def failed_calls(self) -> int:
        """How many tool calls could not be read."""
        return sum(candidate.choice.failed_calls for candidate in self._candidates)

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=sum(len(prompt.ids) for prompt in self._generation.prompts),
            completion_tokens=sum(candidate.choice.tokens for candidate in self._candidates),
            cached_tokens=self._cached,
            reasoning_tokens=sum(candidate.choice.reasoning_tokens for candidate in self._candidates)
            if self._generation.reading.style
            else None,
        )

    def _candidate(self, tokenizer: Tokenizer, prompt: Prompt, index: int, echo: Echo) -> Candidate:
        generation = self._generation
        choice = Choice(
            Detokenizer(
                tokenizer.backend,
                prompt.ids,
                skip_special_tokens=generation.skip_special_tokens,
                kept={
                    tokenizer.special_ids[marker]: marker
                    for marker in generation.reading.markers
                    if marker in tokenizer.special_ids
                },
            ),
            StopStrings(generation.stops, include=generation.include_stop),
            Interpreter(generation.reading),
            frozenset(generation.end_ids + generation.stop_ids),
            generation.sampling.min_tokens,
            prompt.max_tokens,
            log_probs=generation.log_probs is not None,
            offset=0 if generation.chat else echo.length,
        )
        return Candidate(choice, Chunks(self._shape, self._identity, index, with_usage=generation.include_usage))

    def _read_prompt(self, event: Event) -> None:
        if event.tokens:
            self._cached = (self._cached or 0) + event.tokens[0]
        self._echoes[event.prompt].read(event)

    def _with_echo(self, candidate: Candidate, event: Event, piece: Piece) -> Piece:
        """The prompt's text comes before the first of the answer's own."""
        if not self._generation.echo or candidate.opened:
            return piece
        candidate.opened = True
        echo = self._echoes[event.prompt]
        return Piece(merged([Content(echo.text), *piece.deltas]), echo.entries + piece.entries)

    def _chunk(self, candidate: Candidate, piece: Piece, ended_before: bool) -> bytes:
        out = self.open()
        if ended_before:
            return out
        usage = self._usage_so_far()
        reason = candidate.choice.finish_reason
        deltas: Sequence[Delta] = piece.deltas
        if piece.entries and not deltas:
            deltas = [Content("")]  # tokens at the end that have no text of their own
        if (deltas or reason) and not self._begun:
            out += self._first(candidate)
        told = self._render(piece.entries) if self._render and piece.entries else None
        for delta in deltas:
            out += self._rendered(candidate, delta, told, usage)
            told = None
        return out + candidate.chunks.closing(reason, usage) if reason else out

    def _rendered(
        self, candidate: Candidate, delta: Delta, told: dict[str, Any] | None, usage: Usage | None
    ) -> bytes:
        """The chunk of a delta."""
        chunks = candidate.chunks
        if isinstance(delta, Content):
            return chunks.text(delta.text, told, usage)
        if isinstance(delta, Reasoning):
            return chunks.reasoning(delta.text, self._generation.reading.names, told, usage)
        if isinstance(delta, CallOpened):
            return chunks.call(delta.number, new_id(self._generation.reading.call_id), delta.name, told, usage)
        return chunks.arguments(delta.number, delta.text, told, usage)

    def _first(self, candidate: Candidate) -> bytes:
        """Clients take an answer's first chunk for choice 0: if another one is ahead, an empty chunk makes it so."""
        self._begun = True
        if candidate is self._candidates[0]:
            return b""
        return self._candidates[0].chunks.text("", None, self._usage_so_far())

    def _keep(self, candidate: Candidate, piece: Piece) -> bytes:
        candidate.deltas += piece.deltas
        candidate.entries += piece.entries
        return b""

    def _usage_so_far(self) -> Usage | None:
        return self.usage if self._generation.continuous_usage else None

    def _ending(self) -> bytes:
        if self._generation.stream:
            asked = self._generation.include_usage
            return (shapes.usage_chunk(self._shape, self._identity, self.usage) if asked else b"") + shapes.DONE
        choices = [self._whole_choice(index, candidate) for index, candidate in enumerate(self._best())]
        return shapes.whole(self._shape, self._identity, choices, self.usage)

    def _best(self) -> list[Candidate]:
        """The n best candidates of each prompt, in the order of their mean log probs; all of them if all are wanted."""
        n, best_of = self._generation.n, self._generation.best_of
        if n == best_of:
            return self._candidates
        groups = [self._candidates[at : at + best_of] for at in range(0, len(self._candidates), best_of)]
        ranked = [sorted(group, key=lambda candidate: -candidate.mean_log_prob) for group in groups]
        return [candidate for group in ranked for candidate in group[:n]]

    def _whole_choice(self, index: int, candidate: Candidate) -> dict[str, Any]:
        assert candidate.choice.finish_reason is not None
        told = self._render(candidate.entries) if self._render else None
        return shapes.whole_choice(index, self._said(candidate), told, candidate.choice.finish_reason)

    def _said(self, candidate: Candidate) -> dict[str, Any]:
        deltas = merged(candidate.deltas)
        content = joined(deltas, Content)
        if not self._generation.chat:
            return {"text": content}
        thought = joined(deltas, Reasoning)
        names = self._generation.reading.names if thought else ()
        arguments = {delta.number: delta.text for delta in deltas if isinstance(delta, CallArguments)}
        calls = [
            shapes.tool_call(new_id(self._generation.reading.call_id), delta.name, arguments.get(delta.number, ""))
            for delta in deltas
            if isinstance(delta, CallOpened)
        ]
        return {"message": shapes.message(content, dict.fromkeys(names, thought), calls)}


def joined(deltas: Sequence[Delta], kind: type[Content] | type[Reasoning]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, kind))


def renderer(generation: Generation, vocabulary: Vocabulary) -> log_probs.Renderer | None:
    """How the answer's log probs are written; None if none are wanted."""
    wanted = generation.log_probs
    if wanted is None:
        return None
    return (log_probs.chat if generation.chat else log_probs.completion)(vocabulary, wanted.top, wanted.as_ids)
