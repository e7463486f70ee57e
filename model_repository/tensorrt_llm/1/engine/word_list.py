"""The contract's encoding of stop and bad words -> tuples of token ids.

In: int array [2, L]: row 0 all ids one after the other, row 1 the end offset of each word, padded with -1.
Out: a tuple of words, each a tuple of ids. It does not know what the words are for.
"""

from __future__ import annotations

import numpy as np

from .errors import RequestError

Words = tuple[tuple[int, ...], ...]


def decode(array: np.ndarray) -> Words:
    """One batch row of `stop_words_list` or `bad_words_list`; raises RequestError with the contract's texts."""
    if array.size % 2:
        raise RequestError(f"Sparse list must not have an odd number of elements: {array.size}")
    ids, offsets = (row.tolist() for row in np.asarray(array).reshape(2, -1))
    ends = offsets[: offsets.index(-1)] if -1 in offsets else offsets
    if any(offset != -1 for offset in offsets[len(ends):]):
        raise RequestError("Sparse list must not have additional items after the first -1 in its offsets")
    _check(ends, len(ids))
    return tuple(tuple(ids[start:end]) for start, end in zip([0, *ends], ends, strict=False))


def _check(ends: list[int], length: int) -> None:
    previous = 0
    for end in ends:
        if end > length:
            raise RequestError(f"Sparse list must not have an offset beyond its {length} ids: {end}")
        if end <= previous:
            raise RequestError(f"Sparse list must not have offsets that do not increase: {end} after {previous}")
        previous = end


def ends_with(ids: list[int], word: tuple[int, ...]) -> bool:
    """Whether the last ids are this word. Looks at as many ids as the word has, however long the list."""
    return ids[-1] == word[-1] and tuple(ids[-len(word):]) == word
