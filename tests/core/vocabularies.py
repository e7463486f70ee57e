"""Small tokenizers of the kinds that models have, trained here in a moment: nothing is downloaded."""

from __future__ import annotations

import functools
import json
import re

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = (
    "Hello world, this is a test.\n\n  indented text  and   spaces.",
    "Emoji 🎉🚀 family 👨‍👩‍👧‍👦 flags 🇩🇪 end",
    "日本語のテキスト 你好世界 привет мир naïve café",
    "aaaaa\t\ttabs \r\n crlf",
    '{"k": [1, 2.5, "é"]}',
    " leading space",
    "𝕏𝕐𝕫 math ∑∫√",
    "don't  you 've",
    "user assistant system\n\n",
)
SPECIAL = ["<s>", "</s>", "<|start|>", "<|end|>"]
BYTES = [f"<0x{value:02X}>" for value in range(256)]
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('system comes first') }}{% endif %}"
    "<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    train(tokenizer, TEXTS, vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2 and Mistral: sentencepiece, with byte tokens for what the vocabulary lacks."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<s>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+|▁+"), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    ascii_only = [re.sub(r"[^\x00-\x7f]", "", text) for text in TEXTS]
    train(tokenizer, ascii_only, vocab_size=700, special_tokens=SPECIAL + BYTES, max_token_length=16)
    return without_special_bytes(tokenizer, pre_tokenizer=None)


def metaspace() -> Tokenizer:
    """As Gemma and T5-like vocabularies: the Metaspace decoder, with byte tokens."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="first")]
    )
    train(tokenizer, TEXTS[:1] + TEXTS[5:6], vocab_size=600, special_tokens=SPECIAL + BYTES)
    return without_special_bytes(tokenizer)


def train(tokenizer: Tokenizer, texts: object, **options: object) -> None:
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(show_progress=False, **options))


def without_special_bytes(tokenizer: Tokenizer, **changes: object) -> Tokenizer:
    """Byte tokens belong to the vocabulary but are not special; the trainer knows only special ones."""
    content = json.loads(tokenizer.to_str()) | changes
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(content))


KINDS = {"byte-level": byte_level, "byte-fallback": byte_fallback, "metaspace": metaspace}


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    return KINDS[kind]()
