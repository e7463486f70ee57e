"""Where a sequence is in its guide: the tokens that may come next.

In: tokens one by one. Out: ids that are allowed. A mask takes llguidance some microseconds; a guide whose masks
take too much (Effort) is given up, so that it cannot hold up the others. It does not know logits or how tokens are
chosen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from .errors import RequestError
from .guides import TOO_SLOW, Effort, first_line


class Compiled:
    """A guide that compiled: makes the matchers of its sequences."""

    def __init__(self, template: Any, ends: frozenset[int], vocab_size: int):
        self.template = template
        self.ends = ends
        self.vocab_size = vocab_size
        self.error = ""  # what has turned out while it was enforced
        self._lock = threading.Lock()

    def matcher(self) -> Matcher:
        if self.error:
            raise RequestError(self.error)
        with self._lock:
            return Matcher(self, self.template.deep_copy())


class Matcher:
    """Where one sequence is in its guide. Raises RequestError once the guide cannot be followed any further."""

    def __init__(self, compiled: Compiled, matcher: Any):
        self.ends = compiled.ends  # the tokens that say "end", besides the request's end_id
        self._compiled = compiled
        self._matcher = matcher
        self._bits = np.zeros((compiled.vocab_size + 31) // 32 * 4, np.uint8)
        self._address = self._bits.ctypes.data
        self._end = min(compiled.ends)
        self._effort = Effort()

    def allowed(self, vocab_size: int, end_id: int, hold_end: bool) -> np.ndarray:
        """Ids of the tokens that may come next, in order.

        If the guide is complete, the ends are among them; with `hold_end` only if nothing else is left. Tokens that
        the tokenizer does not know are never allowed.
        """
        started = time.thread_time()
        self._matcher.unsafe_compute_mask_ptr(self._address, len(self._bits))
        self._check(started)
        complete = bool(self._bits[self._end >> 3] >> (self._end & 7) & 1)
        ids = np.flatnonzero(np.unpackbits(self._bits, count=vocab_size, bitorder="little").view(np.bool_))
        if end_id < 0 or end_id in self.ends:
            ends: Iterable[int] = self.ends
        else:  # a token that means something in the guide, too, means the end
            ends = {*self.ends, end_id}
            ids = ids[ids != end_id]
            if complete:
                ids = np.sort(np.append(ids, end_id))
        if complete and hold_end:
            others = ids[~np.isin(ids, list(ends))]
            return others if len(others) else ids
        return ids

    def commit(self, token: int) -> None:
        """Goes on behind a token that was allowed and is not an end."""
        started = time.thread_time()
        self._matcher.consume_token(token)
        self._check(started)

    def _check(self, started: float) -> None:
        if not self._effort.bearable(started):
            self._compiled.error = invalid(TOO_SLOW)
            raise RequestError(self._compiled.error)
        if self._matcher.is_error():
            raise RequestError(invalid(first_line(self._matcher.get_error())))


def invalid(reason: str) -> str:
    """The text for the caller."""
    return f"Invalid guided decoding guide: {reason}"
