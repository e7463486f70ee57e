"""Guides without an engine: which texts fit, token by token."""

from __future__ import annotations

import json
from typing import Any

from engine.guides import Guide, compile_grammar, to_grammar


class Language:
    """What a guide allows."""

    def __init__(self, kind: str, text: Any, tokenizer: Any):
        """Raises GuideError."""
        guide = Guide(kind, text if isinstance(text, str) else json.dumps(text))
        self._tokenizer = tokenizer
        self._matcher = compile_grammar(to_grammar(guide, tokenizer), tokenizer)

    def __contains__(self, text: str) -> bool:
        """With added tokens as tokens."""
        return self.fits(self._tokenizer.tokenize_str(text, parse_special=True))

    def spelled(self, text: str) -> bool:
        """With added tokens in letters."""
        return self.fits([token for char in text for token in self._tokenizer.tokenize_str(char)])

    def fits(self, tokens: list[int]) -> bool:
        matcher = self._matcher.deep_copy()
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
