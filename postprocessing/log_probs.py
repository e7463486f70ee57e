"""Log probs of tokens, in the order of the text and in OpenAI's two shapes.

Entries are held back as long as the text of their tokens is, and those of a stop string that is not shown are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from postprocessing.events import Alternatives
from postprocessing.vocabulary import Vocabulary

LOWEST = -9999.0  # JSON has no infinity; OpenAI says this for a token that could not have been drawn


class Entry(NamedTuple):
    """One token of an answer.

    Attributes:
        log_prob: None for a prompt's first token, which nothing precedes.
        start, end: where its text is, in characters: of the answer for chat, of prompt and answer for completions.
    """

    token: int
    log_prob: float | None
    top: Alternatives
    start: int
    end: int


class Waiting:
    """Entries whose text has not been shown yet."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)

    def shown(self, length: int) -> list[Entry]:
        """Takes the entries whose text is within the first `length` characters."""
        count = next((at for at, entry in enumerate(self._entries) if entry.end > length), len(self._entries))
        taken, self._entries = self._entries[:count], self._entries[count:]
        return taken

    def rest(self, length: int | None) -> list[Entry]:
        """At the end: takes those that begin within the first `length` characters, or all."""
        taken = [entry for entry in self._entries if length is None or entry.start < length]
        self._entries = []
        return taken


Renderer = Callable[[Sequence[Entry]], dict[str, Any]]


def chat(vocabulary: Vocabulary, count: int, as_ids: bool) -> Renderer:
    """Renders `choice.logprobs` of a chat completion with `count` alternatives per token."""

    def one(token: int, log_prob: float | None) -> dict[str, Any]:
        name = vocabulary.name(token, as_id=as_ids)
        return {"token": name, "logprob": finite(log_prob), "bytes": list(vocabulary.bytes_of(token))}

    def render(entries: Sequence[Entry]) -> dict[str, Any]:
        content = [
            one(entry.token, entry.log_prob) | {"top_logprobs": [one(*other) for other in entry.top[:count]]}
            for entry in entries
        ]
        return {"content": content, "refusal": None}

    return render


def completion(vocabulary: Vocabulary, count: int, as_ids: bool) -> Renderer:
    """Renders `choice.logprobs` of a completion: parallel lists; the chosen token is always among its alternatives."""

    def alternatives(entry: Entry) -> dict[str, float] | None:
        if entry.log_prob is None:
            return None
        found = {vocabulary.name(entry.token, as_id=as_ids): finite(entry.log_prob)}
        for token, log_prob in entry.top[:count]:
            found.setdefault(vocabulary.name(token, as_id=as_ids), finite(log_prob))
        return found

    def render(entries: Sequence[Entry]) -> dict[str, Any]:
        return {
            "text_offset": [entry.start for entry in entries],
            "token_logprobs": [None if entry.log_prob is None else finite(entry.log_prob) for entry in entries],
            "tokens": [vocabulary.name(entry.token, as_id=as_ids) for entry in entries],
            "top_logprobs": [alternatives(entry) for entry in entries],
        }

    return render


def finite(log_prob: float | None) -> float:
    return LOWEST if log_prob is None else max(LOWEST, log_prob)
