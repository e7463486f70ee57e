"""What the engine wants from whatever turns sequences into tokens.

The engine's own scheduler (scheduler.py) is one batcher, over a runner that forwards packed segments. A model that does
its own in-flight batching (trtllm.py) brings another, and its own way to guides. The engine does not know which it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, runtime_checkable

from .guided import Guided
from .lora import Adaptable, AdapterCache, Adapters, NoAdapters
from .prefix_cache import TOKENS_PER_BLOCK
from .runner import Runner
from .scheduler import Scheduler, Stats
from .sequence import Progress, Sequence
from .settings import Settings


class Batcher(Protocol):
    """See scheduler.Scheduler. Any thread may submit and cancel; one thread waits and steps."""

    def check_room(self, count: int) -> None: ...

    def submit(self, sequences: list[Sequence]) -> None: ...

    def cancel(self, sequences: Iterable[Sequence]) -> None: ...

    def wait(self) -> bool: ...

    def step(self) -> list[Progress]: ...

    def stats(self) -> Stats: ...

    def close(self) -> None: ...

    def abort(self, message: str) -> list[Progress]: ...


class Guides(Protocol):
    """See guided.Guided."""

    types: tuple[str, ...]

    def prepare(self, sequences: list[Sequence], then: Callable[[Exception | None], None]) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class SelfBatching(Protocol):
    """A loaded model that batches by itself."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_seq_len(self) -> int: ...

    @property
    def tokens_per_block(self) -> int:
        """Of its KV cache."""

    @property
    def adapters(self) -> Adapters: ...

    def guides(self) -> Guides: ...

    def batcher(self, settings: Settings) -> Batcher: ...


class Parts(NamedTuple):
    """What an engine is made of, besides its mailboxes."""

    batcher: Batcher
    guides: Guides
    tokens_per_block: int
    adapters: Adapters


def parts_of(runner: Runner | SelfBatching, settings: Settings, checkpoint: str | None) -> Parts:
    """`checkpoint` is the folder with the tokenizer, if there is one."""
    if isinstance(runner, SelfBatching):
        return Parts(runner.batcher(settings), runner.guides(), runner.tokens_per_block, runner.adapters)
    scheduler = Scheduler(runner, settings.max_batch_size, settings.max_queue_size, settings.prefill_chunk,
                          settings.kv_cache_reuse_tokens)
    adapters = AdapterCache(runner, settings.lora_cache_host_memory_bytes) if isinstance(runner, Adaptable) \
        else NoAdapters()
    return Parts(scheduler, Guided(checkpoint), TOKENS_PER_BLOCK, adapters)
