"""What the text of one sequence means: a reader, and the rules for answers that call tools."""

from __future__ import annotations

from postprocessing.reader import CallArguments, CallOpened, Content, Delta
from postprocessing.reading import Reading


class Interpreter:
    """Reads one sequence as `reading` says.

    Attributes:
        reasoning_tokens: how many tokens were part of a thought.
        complete: the answer has its only call; what follows is not wanted.
    """

    def __init__(self, reading: Reading) -> None:
        self._reader = reading.reader()
        self._plain = not reading.holds and reading.forced is None
        self._forced = reading.forced is not None
        self._only_first = reading.only_first
        self._called = False
        self._held = 0  # tokens of text that nothing is known of yet: perhaps the tag that begins a thought
        self.reasoning_tokens = 0
        self.complete = False

    def push_token(self, text: str) -> list[Delta]:
        """Takes the text that a token brought, perhaps none yet."""
        if self._plain:
            return [Content(text)] if text else []
        thinking = self._reader.reasoning
        deltas = self.push(text)
        if thinking or self._reader.reasoning:
            self.reasoning_tokens += 1 + self._held
            self._held = 0
        else:
            self._held = 0 if deltas else self._held + 1
        return deltas

    def push(self, text: str) -> list[Delta]:
        """Takes more text."""
        if not text or self.complete:
            return []
        deltas = self._wanted(self._reader.push(text))
        self.complete = self._only_first and self._reader.calls > 0
        return deltas

    def finish(self) -> list[Delta]:
        """The text ends here: what was held back."""
        return [] if self.complete else self._wanted(self._reader.finish())

    def finish_reason(self, reason: str) -> str:
        """Why the answer ended: one that has called a tool of the model's own choice did so for that."""
        return "tool_calls" if reason == "stop" and self._called and not self._forced else reason

    def _wanted(self, deltas: list[Delta]) -> list[Delta]:
        """Of an answer that may have only one call, what comes up to the call's end."""
        if not self._only_first:
            self._called = self._called or any(isinstance(delta, CallOpened) for delta in deltas)
            return deltas
        found: list[Delta] = []
        for delta in deltas:
            if self._called and not (isinstance(delta, CallArguments) and delta.number == 0):
                break
            self._called = self._called or isinstance(delta, CallOpened)
            found.append(delta)
        return found
