"""Keys and values of prompts by their tokens: what one prompt has computed, another that begins alike copies.

In: whole blocks of prompt tokens, and a copy of their keys and values. Out: the copies for the beginning of a prompt.
A block is found by its tokens and the block before it, so a look-up costs as much as reading the prompt once, however
much is kept. The least recently used block goes first; using a block also uses all before it, so what goes is always
the end of a chain, and nothing unreachable stays. It does not know models: a copy is whatever a cache has saved.

Only blocks that lie in a prompt entirely are kept. Those with tokens of an answer were computed one by one, with other
rounding than a prompt's, and results must not depend on what was found here. Used by one thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

TOKENS_PER_BLOCK = 64
"""Unit of reuse, and of the figures about the cache; the caches of sequences themselves are contiguous."""

MOST_BYTES = 256 * 1024 * 1024
"""Large models take a megabyte for a few tokens, so the number of tokens alone is no bound of memory."""

_Key = tuple[int, bytes]  # number of the block before, tokens; before the first block stands the root


class Block:
    """One kept block; `saved` is None once it has been dropped."""

    __slots__ = ("key", "number", "saved")

    def __init__(self, key: _Key, number: int, saved: Any):
        self.key = key
        self.number = number  # never used twice: two blocks with the same tokens behind different ones are different
        self.saved = saved


class PrefixCache:
    """Keeps at most `tokens` tokens (0 = nothing), and MOST_BYTES."""

    def __init__(self, tokens: int):
        self._most = tokens // TOKENS_PER_BLOCK
        self._blocks: OrderedDict[_Key, Block] = OrderedDict()  # least recently used first
        self._numbers = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def find(self, prompt: list[int], root: int = 0) -> list[Block]:
        """The longest known chain of blocks that the prompt begins with; its last token is never among them.

        `root` <= 0 tells prompts apart that are not computed alike: with different roots nothing is shared.
        """
        chain: list[Block] = []
        if not self._blocks:
            return chain
        for start in range(0, len(prompt) - TOKENS_PER_BLOCK, TOKENS_PER_BLOCK):
            block = self._blocks.get(_key(chain, prompt[start: start + TOKENS_PER_BLOCK], root))
            if block is None:
                break
            chain.append(block)
        self._use(chain)
        return chain

    def store(self, chain: list[Block], prompt: list[int], computed: int, save: Callable[[int, int], Any],
              root: int = 0) -> None:
        """Extends the chain by the whole blocks of the prompt that have been computed since.

        `save(start, end)` is called for those that nobody else has stored meanwhile.
        """
        last = min(computed, len(prompt)) // TOKENS_PER_BLOCK
        if not self._most or len(chain) == last or (chain and chain[-1].saved is None):
            return  # behind a block that has been dropped nothing could be found
        while len(chain) < last:
            start, end = len(chain) * TOKENS_PER_BLOCK, (len(chain) + 1) * TOKENS_PER_BLOCK
            key = _key(chain, prompt[start:end], root)
            chain.append(self._blocks.get(key) or self._new(key, save(start, end)))
        self._use(chain)
        self._shrink()

    def _new(self, key: _Key, saved: Any) -> Block:
        self._numbers += 1
        self._bytes += _size(saved)
        block = self._blocks[key] = Block(key, self._numbers, saved)
        return block

    def _use(self, chain: list[Block]) -> None:
        """Makes these the most recently used, the first block last."""
        for block in reversed(chain):
            self._blocks.move_to_end(block.key)

    def _shrink(self) -> None:
        while len(self._blocks) > self._most or self._bytes > MOST_BYTES:
            _, block = self._blocks.popitem(last=False)
            self._bytes -= _size(block.saved)
            block.saved = None  # sequences may still hold the block itself


def blocks(tokens: int) -> int:
    """Blocks that so many positions take."""
    return -(-tokens // TOKENS_PER_BLOCK)


def _size(saved: Any) -> int:
    """Bytes of a copy: a tuple of arrays."""
    return sum(getattr(array, "nbytes", 0) for array in saved) if isinstance(saved, tuple) else 0


def _key(chain: list[Block], tokens: list[int], root: int) -> _Key:
    return chain[-1].number if chain else root, np.array(tokens, np.int32).tobytes()
