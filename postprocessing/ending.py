"""Why sequences ended, for engines that do not say: the standard contract has no output for it."""

from __future__ import annotations

from collections.abc import Iterator

from postprocessing.events import Event, Status


class Endings:
    """Counts what the sequences of one prompt got.

    Args:
        sequences: how many there are.
        max_tokens: most tokens that each was allowed.
    """

    def __init__(self, sequences: int, max_tokens: int) -> None:
        self._generated = [0] * sequences
        self._last = [0] * sequences
        self._max_tokens = max_tokens

    def see(self, event: Event) -> None:
        if event.status is Status.RUNNING:
            self._generated[event.sequence] += len(event.tokens)
            self._last[event.sequence] = len(event.tokens)

    def statuses(self) -> Iterator[tuple[int, Status]]:
        """Index and status of each sequence, once the engine has ended the request."""
        for index, (generated, last) in enumerate(zip(self._generated, self._last, strict=True)):
            yield index, infer(generated, self._max_tokens, last)


def infer(generated: int, max_tokens: int, last: int) -> Status:
    """The status at the end of a sequence whose tokens held no end-of-sequence or stop token.

    Args:
        generated: tokens in all.
        max_tokens: most tokens the engine was allowed.
        last: tokens in the last response. The end token itself is not delivered, so an empty one stands for it.
    """
    if generated >= max_tokens or last > 0:
        return Status.LENGTH
    return Status.END_ID
