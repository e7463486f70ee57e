"""The bytes that a token stands for: tokens of one character's parts have no text, but they have bytes."""

from __future__ import annotations

import functools
import re

from tokenizers import Tokenizer

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # how vocabularies with byte fallback name their bytes


@functools.cache
def byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet for byte-level vocabularies: printable bytes stand for themselves, the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + at): value for at, value in enumerate(others)}


class Vocabulary:
    """Token id → bytes and a name to show.

    Args:
        tokenizer: the model's own.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_level = "ByteLevel(" in repr(tokenizer.decoder)
        self._added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        self._bytes = functools.lru_cache(maxsize=4096)(self._read)

    def bytes_of(self, token: int) -> bytes:
        """The token's bytes in a text; empty for an id outside the vocabulary."""
        return self._bytes(token)

    def name(self, token: int, *, as_id: bool = False) -> str:
        """The token as text; one that is no whole text is spelled in bytes, as OpenAI does."""
        if as_id:
            return f"token_id:{token}"
        found = self.bytes_of(token)
        try:
            return found.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{value:02x}" for value in found)

    def _read(self, token: int) -> bytes:
        name = self._tokenizer.id_to_token(token)
        if name is None:
            return b""
        if name in self._added:
            return name.encode()
        if self._byte_level:
            alphabet = byte_of_character()
            return bytes(alphabet.get(character, ord("?")) for character in name)
        if single := BYTE_TOKEN.fullmatch(name):
            return bytes([int(single[1], 16)])
        return name.replace("▁", " ").encode()
