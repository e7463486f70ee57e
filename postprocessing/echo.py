"""A prompt's text before its answer (`echo`), with the log probs of its tokens if they are wanted."""

from __future__ import annotations

from tokenizers import Tokenizer

from postprocessing.detokenizer import Detokenizer
from postprocessing.events import Event
from postprocessing.log_probs import Entry
from preprocessing.generation import Generation, Prompt


class Echo:
    """One prompt as text.

    Attributes:
        text: as the client sent it, or decoded from token ids.
        length: where the answer begins, in characters.
        entries: log probs of the prompt's tokens, once `read` has brought them; the first has none.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt, generation: Generation) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._wanted = generation.log_probs is not None and generation.log_probs.prompt
        needed = generation.echo or (generation.log_probs is not None and not generation.chat)
        self._skip = generation.skip_special_tokens
        self.text = self._of(prompt) if needed else ""
        self.length = len(self.text)
        self.entries: list[Entry] = []

    def _of(self, prompt: Prompt) -> str:
        if prompt.text is not None:
            return prompt.text
        return self._tokenizer.decode(prompt.ids, skip_special_tokens=self._skip)

    def read(self, event: Event) -> None:
        """Takes the engine's news about the prompt."""
        if not self._wanted:
            return
        self.entries = []
        detokenizer = Detokenizer(self._tokenizer, skip_special_tokens=self._skip)
        at = 0
        for number, token in enumerate(self._prompt.ids):
            length = len(detokenizer.push(token))
            log_prob = event.log_probs[number - 1] if number else None
            top = event.top[number - 1] if number and event.top else ()
            self.entries.append(Entry(token, log_prob, top, at, at + length))
            at += length
