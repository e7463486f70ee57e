"""What the text of one sequence means: a reader, and the rules for answers that call tools."""

from __future__ import annotations

from postprocessing.reader import CallArguments, CallOpened, Content, Delta, Reasoning
from postprocessing.reading import Reading


class Interpreter:
    """Reads one sequence as `reading` says.

    Attributes:
        reasoning_tokens: how many tokens were part of a thought.
        hidden: the last token was part of a thought that is not shown.
        complete: the answer has its only call; what follows is not wanted.
        failed_calls: how many calls could not be read, once the answer has ended.
    """

    def __init__(self, reading: Reading) -> None:
        self._reader = reading.reader()
        self._plain = not reading.holds and reading.forced is None
        self._forced = reading.forced is not None
        self._only_first = reading.only_first
        self._shows_thoughts = reading.show_reasoning
        self._opened = 0
        self._held = 0  # tokens of text that nothing is known of yet: perhaps the tag that begins a thought
        self.reasoning_tokens = 0
        self.hidden = False
        self.complete = False
        self.failed_calls = 0

    def push_token(self, text: str) -> list[Delta]:
        """Takes the text that a token brought, perhaps none yet."""
        if self._plain:
            return [Content(text)] if text else []
        thinking = self._reader.reasoning
        deltas = self.push(text)
        if thinking or self._reader.reasoning:
            self.reasoning_tokens += 1 + self._held
            self._held = 0
            self.hidden = not self._shows_thoughts
        else:
            self._held = 0 if deltas else self._held + 1
            self.hidden = False
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
        """Why the answer ended: one that has called a tool of the model's own choice did so for that.

        A call that a stop string or the model itself broke off is none that could be made.
        """
        broken_off = max(0, self._opened - self._reader.calls) if reason == "stop" else 0
        self.failed_calls = self._reader.failures + broken_off
        called = 0 < self._opened <= self._reader.calls and not self._forced
        return "tool_calls" if reason == "stop" and called else reason

    def _wanted(self, deltas: list[Delta]) -> list[Delta]:
        """Without thoughts that are not shown; of an answer that may have only one call, what comes up to its end."""
        found: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, Reasoning) and not self._shows_thoughts:
                continue
            if self._only_first and self._opened and not (isinstance(delta, CallArguments) and delta.number == 0):
                break
            self._opened += isinstance(delta, CallOpened)
            found.append(delta)
        return found
