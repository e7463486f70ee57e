"""Token ids → text, a token at a time, at a constant cost per token.

Pieces are whole characters: while the last token ends in the middle of one, nothing comes out. The joined pieces equal
what decoding all ids at once gives, as long as the ids are valid UTF-8. Where they are not, U+FFFD stands for the
invalid bytes and everything around them is kept; decoding all at once may blot out a few valid neighbours as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from postprocessing.vocabulary import BYTE_TOKEN

# The ids before the answer decide whether its first word keeps its leading space; a few are enough.
PROMPT_TAIL = 6
# A character has at most 4 bytes, so at most 4 byte tokens; a longer silence is invalid UTF-8 that no later token
# completes.
MAX_PENDING = 8
REPLACEMENT = "\ufffd"


class Detokenizer:
    """Incremental decoding of one sequence.

    Args:
        tokenizer: the model's own; the stream is stepped with it.
        prompt_ids: the prompt, of which the last few ids are the context of the first token.
        skip_special_tokens: special tokens have no text.
        kept: special tokens that have their text all the same.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int] = (),
        *,
        skip_special_tokens: bool = True,
        kept: Mapping[int, str] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._kept = kept or {}
        self._context = list(prompt_ids[-PROMPT_TAIL:])
        self._anchor = self._context
        self._pending: list[int] = []
        self._stream = self._primed()

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        if token in self._kept:
            return self.finish() + self._kept[token]
        self._pending.append(token)
        try:
            piece = self._stream.step(self._tokenizer, token)
        except Exception:  # the library's own type: an invalid byte after an ASCII byte token ends the stream for good
            return self.finish()
        if piece is None and len(self._pending) > MAX_PENDING:
            return self.finish()
        if piece is not None:
            self._forget()
        return piece or ""

    def finish(self) -> str:
        """The text of the ids still pending; an unfinished character becomes U+FFFD. The decoder goes on after it."""
        if not self._pending:
            return ""
        before = self._decode(self._context)
        text = self._decode(self._context + self._pending)
        piece = text[len(before) :] if text.startswith(before) else self._decode(self._pending)
        self._forget()
        # A run of byte tokens is decoded as a whole: an invalid one left in the context would spoil what follows.
        # Without any context, however, a first word would lose its leading space: the last text seen stands in.
        self._anchor = [token for token in self._context if self._is_text(token)] or self._anchor
        self._context = self._anchor
        self._stream = self._primed()
        return piece

    def _is_text(self, token: int) -> bool:
        name = self._tokenizer.id_to_token(token) or ""
        return not BYTE_TOKEN.fullmatch(name) and REPLACEMENT not in self._decode([token])

    def _forget(self) -> None:
        self._context = (self._context + self._pending)[-PROMPT_TAIL:]
        self._pending = []

    def _primed(self) -> DecodeStream:
        return DecodeStream(ids=self._context, skip_special_tokens=self._skip)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=self._skip)
