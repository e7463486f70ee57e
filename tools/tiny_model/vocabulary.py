"""The model's tokenizer: trained on its dialogues, written as Hugging Face's files.

In: dialogues. Out: tokenizer.json and tokenizer_config.json in a folder.

A word has the same tokens wherever it stands, which is what makes copying learnable for a small model: letters are
merged first, and a space joins only a whole, frequent, lower-case word. Digits are tokens of their own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from .dialogue import dialogue, segments
from .source import Source

SIZE = 2048
CONTEXT = 2048
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
           "<|eom_id|>", "<|python_tag|>", "<|pad|>")
THOUGHT = ("<think>", "</think>")  # these stay in the text
END_OF_TURN = "<|eot_id|>"

_SPACED_WORDS = 420
_SAMPLES = 12000
_APART = r"\p{L}+|\p{N}|(?:[^\s\p{L}\p{N}]+ ?)+|\s+"  # while words are learnt
_TOGETHER = r" ?\p{L}+|\p{N}|(?:[^\s\p{L}\p{N}]+ ?)+|\s+"
_SPACE = "Ġ"  # how byte-level tokens write one


def train(seed: int) -> Tokenizer:
    texts = list(_texts(seed))
    plain = SIZE - len(SPECIAL) - len(THOUGHT)
    words = _word_pieces(texts, plain - _SPACED_WORDS)
    state = json.loads(words.to_str())["model"]
    vocabulary: dict[str, int] = state["vocab"]
    merges: list[tuple[str, str]] = [tuple(pair) for pair in state["merges"]]
    for word in _frequent(texts, vocabulary, plain - len(vocabulary)):
        merges.append((_SPACE, word))
        vocabulary[_SPACE + word] = len(vocabulary)
    tokenizer = _tokenizer(models.BPE(vocab=vocabulary, merges=merges), _TOGETHER)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in THOUGHT])
    bos = SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0], "eos_token": END_OF_TURN, "pad_token": "<|pad|>",
        "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8"),
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _tokenizer(model: Any, pattern: str) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _word_pieces(texts: list[str], size: int) -> Tokenizer:
    """Merges of letters, and of punctuation; no space joins a word yet."""
    tokenizer = _tokenizer(models.BPE(), _APART)
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tokenizer


def _frequent(texts: list[str], vocabulary: dict[str, int], count: int) -> list[str]:
    """The most frequent words that follow a space, are lower-case and one token already."""
    found: Counter[str] = Counter()
    for text in texts:
        found.update(text.split(" ")[1:])
    words = (word for word, _ in found.most_common()
             if len(word) > 1 and word.isascii() and word.isalpha() and word.islower() and word in vocabulary)
    return [word for word, _ in zip(words, range(count), strict=False)]


def _texts(seed: int) -> Iterator[str]:
    for number in range(_SAMPLES):
        for text, _ in segments(dialogue(Source(Random(f"vocabulary {seed} {number}")))):
            for token in (*SPECIAL, *THOUGHT):
                text = text.replace(token, "\n")
            yield text
