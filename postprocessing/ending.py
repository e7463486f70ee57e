"""Why a sequence ended, for engines that do not say: the standard contract has no output for it."""

from __future__ import annotations

from postprocessing.events import Status


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
