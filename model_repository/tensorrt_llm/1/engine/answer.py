"""Progress of the sequences of one Triton request -> responses of the standard contract (sections B and C).

In: news, merged while the courier is behind. Out: tensors. With streaming each response holds the new tokens of one
sequence; without, the one response of a sequence waits for its end. The final flag is on the last response of the
request. Which output exists when is the table OUTPUTS. It does not know the scheduler or Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from .errors import RequestError
from .prefix_cache import blocks
from .request import Request
from .response import Channel, Parcel, Response
from .sequence import Perf, Progress, Sequence, Status


class Part(NamedTuple):
    """What one response is made of."""

    news: Progress
    tokens: list[int]  # as shown: with the prompt in front if the contract wants that
    log_probs: list[float]  # of the whole answer so far
    rows: int  # batch size of the Triton request

    @property
    def sequence(self) -> Sequence:
        return self.news.sequence


class Output(NamedTuple):
    """One output tensor: when it is present and what it holds."""

    name: str
    present: Callable[[Part], bool]
    value: Callable[[Part], np.ndarray]


class Answer:
    """Implements response.Mailbox for one generation request."""

    def __init__(self, channel: Channel, rows: int):
        self.channel = channel
        self.sequences: list[Sequence] = []  # filled before the scheduler gets them
        self._rows = rows
        self._open = 0  # sequences whose last response is not built yet
        self._news: dict[Sequence, list[Progress]] = {}
        self._log_probs: dict[Sequence, list[float]] = {}

    def expect(self, sequences: list[Sequence]) -> None:
        """Sets the sequences whose ends make up the end of the request."""
        self.sequences, self._open = sequences, len(sequences)

    @property
    def done(self) -> bool:
        """Whether the final response has been built."""
        return not self._open

    def push(self, progress: Progress) -> None:
        if progress.of_prompt_only:  # the contract has no response for that
            return
        news = self._news.setdefault(progress.sequence, [])
        if news and not (progress.status is Status.END_ID and progress.sequence.request.streaming):
            news[-1].merge(progress)
        else:  # an end by end_id stays a response without tokens: that is how a caller knows it
            news.append(progress)

    def take(self, now: float) -> Parcel | None:
        ready = [s for s, news in self._news.items() if s.request.streaming or news[-1].status is not Status.RUNNING]
        taken = [progress for sequence in ready for progress in self._news.pop(sequence)]
        return partial(self._responses, taken) if taken else None

    def deadline(self) -> float | None:
        return None

    def _responses(self, ready: list[Progress]) -> Iterator[tuple[Channel, Response]]:
        for news in ready:
            if self.done:  # an error has ended the whole request
                return
            if news.status is Status.ERROR:
                self._open = 0
                yield self.channel, Response(error=news.error)
                return
            self._open -= news.status is not Status.RUNNING
            yield self.channel, Response(self._outputs(news), final=self.done)

    def _outputs(self, news: Progress) -> dict[str, np.ndarray]:
        if news.status is Status.CANCELLED:  # by the contract a cancelled sequence loses what was not sent yet
            news.tokens, news.log_probs, news.generation_logits = [], [], []
        request = news.sequence.request
        shown = not request.streaming and not request.exclude_input
        log_probs = self._log_probs.setdefault(news.sequence, []) if request.log_probs else []
        log_probs += news.log_probs
        part = Part(news, request.prompt + news.tokens if shown else news.tokens, log_probs, self._rows)
        return {output.name: output.value(part) for output in OUTPUTS if output.present(part)}


def check_wanted(wanted: frozenset[str]) -> str:
    """The error text if the named outputs lack the two that the contract insists on, else empty."""
    missing = {"output_ids", "sequence_length"} - wanted if wanted else set()
    if not missing:
        return ""
    names = " and ".join(sorted(missing))
    return f"Error encountered while populating response: {names} must be among the requested outputs"


def check_standard(requests: list[Request]) -> None:
    """Raises RequestError for what only a session's event record can carry."""
    for field, tensor in (("top_log_probs", "session_top_log_probs"), ("prompt_log_probs", "session_prompt_log_probs")):
        if getattr(requests[0], field):
            raise RequestError(f"{tensor}: only available in a session")


def _always(part: Part) -> bool:
    return True


def _if(flag: str) -> Callable[[Part], bool]:
    return lambda part: getattr(part.sequence.request, flag)


def _int32(value: int) -> np.ndarray:
    return np.array([[value]], np.int32)


def _time(name: str) -> Callable[[Part], np.ndarray]:
    return lambda part: np.array([[getattr(part.sequence.times, name)]], np.int64)


def _generation_logits(part: Part) -> np.ndarray:
    rows = part.news.generation_logits
    return np.stack(rows)[None, None] if rows else np.empty((1, 1, 0, part.sequence.vocab_size), np.float32)


def _count(name: str, dtype: type = np.int32) -> Callable[[Part], np.ndarray]:
    return lambda part: np.array([[getattr(_counts(part.sequence), name)]], dtype)


def _counts(sequence: Sequence) -> Perf:
    total, reused = blocks(sequence.computed), sequence.reused_blocks
    return sequence.perf or Perf(total, total - reused, reused)


_perf = _if("perf_metrics")

OUTPUTS = (
    Output("output_ids", _always, lambda part: np.array(part.tokens, np.int32).reshape(1, 1, -1)),
    Output("sequence_length", _always, lambda part: _int32(len(part.tokens))),
    Output("cum_log_probs", _if("log_probs"), lambda part: np.array([[part.news.cum_log_prob]], np.float32)),
    Output("output_log_probs", _if("log_probs"), lambda part: np.array(part.log_probs, np.float32).reshape(1, 1, -1)),
    Output("context_logits", lambda part: part.news.context_logits is not None,
           lambda part: part.news.context_logits[None]),  # type: ignore[index]
    Output("generation_logits", _if("generation_logits"), _generation_logits),
    Output("batch_index", lambda part: part.rows > 1, lambda part: _int32(part.sequence.row)),
    Output("sequence_index", lambda part: part.sequence.request.num_sequences > 1,
           lambda part: _int32(part.sequence.index)),
    Output("num_input_tokens", _if("num_input_tokens"), lambda part: _int32(len(part.sequence.request.prompt))),
    Output("num_output_tokens", _if("num_output_tokens"), lambda part: _int32(len(part.tokens))),
    Output("kv_cache_alloc_new_blocks", _perf, _count("alloc_new")),
    Output("kv_cache_reused_blocks", _perf, _count("reused")),
    Output("kv_cache_alloc_total_blocks", _perf, _count("alloc_total")),
    Output("arrival_time_ns", _perf, _time("arrival")),
    Output("first_scheduled_time_ns", _perf, _time("first_scheduled")),
    Output("first_token_time_ns", _perf, _time("first_token")),
    Output("last_token_time_ns", _perf, _time("last_token")),
    Output("acceptance_rate", _perf, _count("acceptance_rate", np.float32)),
    Output("total_accepted_draft_tokens", _perf, _count("accepted_draft_tokens")),
    Output("total_draft_tokens", _perf, _count("draft_tokens")),
)
