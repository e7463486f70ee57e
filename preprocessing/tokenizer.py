"""A model's own tokenizer and chat template, as `AutoTokenizer` reads them from its folder (torch is not needed).

In: text. Out: token ids. It knows nothing of requests and limits. `load` is the only function here that
reads files; the shell calls it once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from preprocessing.template import ChatTemplate


class FillInTheMiddle(NamedTuple):
    """The tokens that mark prefix, suffix and the place to fill."""

    prefix: str
    suffix: str
    middle: str


# As their vocabularies name them: StarCoder, Qwen coder, DeepSeek coder, Code Llama, CodeGemma (as Qwen), Granite
# (StarCoder).
FIM_TOKENS = (
    FillInTheMiddle("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    FillInTheMiddle("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    FillInTheMiddle("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    FillInTheMiddle("▁<PRE>", "▁<SUF>", "▁<MID>"),
)
# Models are connected side by side, and what transformers imports when it is needed cannot be imported by two threads.
LOADING = threading.Lock()


class Tokenizer:
    """Text ↔ token ids of one model.

    Args:
        pretrained: a `transformers` fast tokenizer.
        end_ids: the ids that end an answer, the foremost first.

    Attributes:
        template: its chat template.
        special_ids: the tokens that have no text when special tokens are skipped.
    """

    def __init__(self, pretrained: Any, end_ids: Sequence[int]) -> None:
        self._pretrained = pretrained
        self.end_ids = tuple(end_ids)
        self.backend: tokenizers.Tokenizer = pretrained.backend_tokenizer
        self.vocab_size = self.backend.get_vocab_size(with_added_tokens=True)
        # No token stands for more characters, so a text has at least as many tokens as it has parts of this length.
        self.longest_token = max(map(len, self.backend.get_vocab(with_added_tokens=True)), default=1)
        self.bos_id: int | None = pretrained.bos_token_id
        added = self.backend.get_added_tokens_decoder()
        self.special_ids = {token.content: id_ for id_, token in added.items() if token.special}
        self.template = ChatTemplate(pretrained)
        self.fim = self._fim()

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text; the first ones may be special (BOS) if asked for."""
        # Of all ways to encode this one releases Python's lock, so that streams go on while a long prompt comes in.
        (found,) = self.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return list(found.ids)

    def fewest_tokens(self, text: str) -> int:
        """A lower bound of a text's length in tokens, without tokenizing it."""
        return -(-len(text) // self.longest_token)

    def _fim(self) -> FillInTheMiddle | None:
        known = (
            tokens for tokens in FIM_TOKENS if all(self.backend.token_to_id(token) is not None for token in tokens)
        )
        return next(known, None)


def load(folder: Path, chat_template: Path | None = None) -> Tokenizer:
    """Reads tokenizer, chat template and end-of-sequence ids from a model folder.

    Args:
        folder: the model's.
        chat_template: a Jinja file to be used instead of the folder's own template.

    Raises:
        ValueError: the folder holds no tokenizer that transformers can load as a fast one.
    """
    try:
        with LOADING:
            from transformers import AutoTokenizer  # takes most of a second: only when a model is really loaded

            pretrained = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"no tokenizer could be loaded from {folder}: {error}") from error
    if not getattr(pretrained, "is_fast", False):
        raise ValueError(f"the tokenizer in {folder} has no fast (tokenizer.json) form")
    if chat_template is not None:
        pretrained.chat_template = chat_template.read_text(encoding="utf-8")
    return Tokenizer(pretrained, end_ids(folder, pretrained.eos_token_id))


def end_ids(folder: Path, eos_token_id: int | None) -> tuple[int, ...]:
    """The ids that end an answer: those of generation_config.json (it may list several), then the tokenizer's own."""
    listed = read_json(folder / "generation_config.json").get("eos_token_id", [])
    ids = [listed] if isinstance(listed, int) else list(listed or [])
    if eos_token_id is not None and eos_token_id not in ids:
        ids.insert(0, eos_token_id)
    return tuple(ids)


def max_positions(folder: Path) -> int | None:
    """The context length that the model's config.json states, if it does."""
    config = read_json(folder / "config.json")
    value = config.get("text_config", config).get("max_position_embeddings")
    return value if isinstance(value, int) else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty if there is no such file."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
