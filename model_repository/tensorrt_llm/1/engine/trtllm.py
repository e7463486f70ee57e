"""TensorRT-LLM's LLM API (PyTorch flow) behind the tensor contract: token ids in, token ids out.

In: sequences. Out: their Progress. `LLM` does its own in-flight batching, so this stands where the scheduler stands,
not where a runner stands. Each sequence is one `generate_async` of its own, with its own seed: so each can be
cancelled, and n > 1 needs nothing special. The first of n starts alone and the others when it has read the prompt: then
they find it in the KV cache.

One thread runs an asyncio loop; everything happens there but `submit`, `cancel` and the reading of news.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from . import trtllm_api
from .errors import RequestError
from .lora import Lora
from .request import Request
from .scheduler import Stats
from .sequence import Progress, Sequence, Status
from .settings import Settings
from .trtllm_reader import Reader

STATS_WAIT = 2.0
"""Seconds that one question for statistics waits for the next iteration."""
STATS_PAUSE = 0.1
"""Seconds between two questions, as often as the contract's gauges change."""
TOKENS_PER_BLOCK = 32
"""Of the KV cache, if `llm_options` do not say otherwise: the API's default."""
END_SECONDS = 60.0
"""How long giving up what runs may take."""

_log = logging.getLogger(__name__)


class TrtllmModel:
    """Implements batcher.SelfBatching: a loaded LLM."""

    def __init__(self, folder: Path, settings: Settings):
        """Raises ImportError, ValueError or FileNotFoundError whose text tells the operator what to change."""
        known = trtllm_api.GUIDE_TYPES
        if settings.guided_decoding_backend not in known:
            raise ValueError(f"guided_decoding_backend: wanted {' or '.join(filter(None, known))}, "
                             f"found {settings.guided_decoding_backend!r}")
        self._api = trtllm_api.load_api()
        adapters = trtllm_api.lora_adapters(settings.lora_dir)
        self._guide_types = known[settings.guided_decoding_backend]
        arguments = trtllm_api.arguments(folder, settings, adapters)
        self.vocab_size = int(trtllm_api.model_config(folder)["vocab_size"])
        self.max_seq_len = int(arguments["max_seq_len"])
        self.tokens_per_block = int(arguments["kv_cache_config"].get("tokens_per_block", TOKENS_PER_BLOCK))
        self.adapters = NativeAdapters(adapters, self._api.lora_request)
        self._llm = self._api.llm(**self._api.merge({}, arguments))

    def guides(self) -> NativeGuides:
        return NativeGuides(self._guide_types)

    def batcher(self, settings: Settings) -> TrtllmBatcher:
        return TrtllmBatcher(self._llm, self._start, settings.max_batch_size, settings.max_queue_size)

    def _start(self, sequence: Sequence) -> Any:
        """A RequestOutput that brings what is generated. Raises what the API raises."""
        request = sequence.request
        chosen = trtllm_api.sampling(request, sequence.index, self.vocab_size)
        if request.guide:
            chosen["guided_decoding"] = self._api.guided_decoding_params(**trtllm_api.guide_arguments(request.guide))
        return self._llm.generate_async(request.prompt, sampling_params=self._api.sampling_params(**chosen),
                                        lora_request=sequence.adapter, streaming=True)


class NativeAdapters:
    """Implements lora.Adapters: TensorRT-LLM reads adapters from their folders, when they are first used."""

    def __init__(self, folders: dict[int, Path], make: Callable[..., Any]):
        self.names = {folder.name: task_id for task_id, folder in folders.items()}
        self._folders = folders
        self._make = make

    def take(self, lora: Lora) -> Any:
        if lora.weights is not None:
            raise RequestError("lora_weights: TensorRT-LLM's LLM API takes adapters from lora_dir only")
        folder = self._folders.get(lora.task_id)
        if folder is None:
            raise RequestError(f"LoRA task {lora.task_id} is not among the adapters that this engine has")
        return self._make(lora_name=folder.name, lora_int_id=lora.task_id, lora_path=str(folder))


class NativeGuides:
    """Implements batcher.Guides: TensorRT-LLM compiles guides by itself, while the sequence waits."""

    def __init__(self, types: tuple[str, ...]):
        self.types = types

    def prepare(self, sequences: list[Sequence], then: Callable[[Exception | None], None]) -> None:
        then(None)

    def close(self) -> None:
        """There is nothing to close."""


class TrtllmBatcher:
    """Implements batcher.Batcher. `start` begins a sequence and gives its RequestOutput; the loop's thread calls it."""

    def __init__(self, llm: Any, start: Callable[[Sequence], Any], max_batch_size: int, max_queue_size: int):
        self._llm = llm
        self._start = start
        self._places = max_batch_size + max_queue_size if max_queue_size else 0
        self._max_queue_size = max_queue_size
        self._changed = threading.Condition()
        self._news: list[Progress] = []
        self._live: dict[Sequence, None] = {}
        self._iteration: dict[str, Any] = {}
        self._fresh = False  # there are statistics that nobody has seen
        self._closed = False
        self._outputs: dict[Sequence, Any] = {}  # for the loop only: what can be aborted
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="trtllm", daemon=True)
        self._thread.start()
        self._call(self._ask_for_stats())

    # For any thread

    def check_room(self, count: int) -> None:
        """Raises RequestError if there is no room for so many sequences now."""
        with self._changed:
            if self._places and len(self._live) + count > self._places:
                raise RequestError(
                    f"Maximum queue size of {self._max_queue_size} has been reached, please try again later")

    def submit(self, sequences: list[Sequence]) -> None:
        """All of them or none."""
        for sequence in sequences:
            check(sequence.request)
        with self._changed:
            self.check_room(len(sequences))
            self._live |= dict.fromkeys(sequences)
        rows: dict[int, list[Sequence]] = {}
        for sequence in sequences:
            rows.setdefault(sequence.row, []).append(sequence)
        for first, *others in rows.values():
            self._call(self._generate(first, others))

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Ends those that have not ended."""
        wanted = list(sequences)
        self._loop.call_soon_threadsafe(lambda: self._end(wanted, Status.CANCELLED))

    # For the stepping thread

    def wait(self) -> bool:
        """Blocks until there is something to tell; False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._news or self._fresh)
            return not self._closed

    def step(self) -> list[Progress]:
        """What has happened since the last one."""
        with self._changed:
            news, self._news, self._fresh = self._news, [], False
            return news

    def stats(self) -> Stats:
        with self._changed:
            return trtllm_api.stats(self._iteration, len(self._live))

    def close(self) -> None:
        """Makes `wait` return False, now and always."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self, message: str) -> list[Progress]:
        """Ends everything with an error and gives the GPU back. After it nothing may be called."""
        self._call(self._stop(message)).result(END_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._llm.shutdown()
        return self.step()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    # In the loop

    async def _generate(self, sequence: Sequence, others: list[Sequence]) -> None:
        """One sequence to its end. `others` have the same prompt and start once it has been read."""
        try:
            if not _ended(sequence):
                await self._follow(sequence, others)
        except Exception as error:
            self._fail(sequence, error)
        finally:
            self._abort(sequence)
            self._begin(others)

    async def _follow(self, sequence: Sequence, others: list[Sequence]) -> None:
        reader = Reader(sequence)
        sequence.times.first_scheduled = time.monotonic_ns()
        output = self._outputs[sequence] = self._start(sequence)
        async for piece in output:
            if _ended(sequence):  # it was cancelled
                return
            if piece.finished:
                self._outputs.pop(sequence)
            if news := reader.read(piece):
                if news.status is not Status.RUNNING:
                    sequence.finish(news.status)
                self._tell(news)
                self._begin(others)
            if _ended(sequence):
                return
        raise RuntimeError("the results ended before the sequence did")

    def _begin(self, others: list[Sequence]) -> None:
        while others:
            self._loop.create_task(self._generate(others.pop(0), []))

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """Ends it and all others of the same request."""
        _log.error("a generation failed", exc_info=error)
        with self._changed:
            same = [other for other in self._live if other.owner is sequence.owner]
        self._end(same, Status.ERROR, f"Encountered an error in generate: {_short(error)}")

    def _end(self, sequences: list[Sequence], status: Status, message: str = "") -> None:
        for sequence in dict.fromkeys(sequences):
            if not _ended(sequence):
                sequence.finish(status)
                self._abort(sequence)
                self._tell(Progress(sequence, status, cum_log_prob=sequence.cum_log_prob, error=message))

    def _abort(self, sequence: Sequence) -> None:
        """Frees its place in the engine, unless it has ended there."""
        if output := self._outputs.pop(sequence, None):
            output.abort()

    def _tell(self, progress: Progress) -> None:
        with self._changed:
            self._news.append(progress)
            if progress.status is not Status.RUNNING:
                self._live.pop(progress.sequence, None)
            self._changed.notify_all()

    async def _ask_for_stats(self) -> None:
        try:
            while True:
                async for iteration in self._llm.get_stats_async(STATS_WAIT):
                    with self._changed:
                        self._iteration, self._fresh = iteration, True
                        self._changed.notify_all()
                await asyncio.sleep(STATS_PAUSE)
        except Exception:
            _log.exception("TensorRT-LLM gives no statistics; its gauges stay as they are")

    async def _stop(self, message: str) -> None:
        with self._changed:
            live = list(self._live)
        self._end(live, Status.ERROR, message)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check(request: Request) -> None:
    """Raises RequestError for what the API cannot express."""
    if any(len(word) > 1 for word in request.bad_words):
        raise RequestError("bad_words_list: TensorRT-LLM's LLM API takes bad words of one token only")


def _ended(sequence: Sequence) -> bool:
    return sequence.status is not Status.RUNNING


def _short(error: Exception) -> str:
    """The first line of a message, for callers: no traceback."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
