"""One running generation, and Progress: what it did since somebody last looked.

In: tokens that the sampler chose. Out: a Status after each. It does not know the model, other sequences or responses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from .errors import RequestError
from .matcher import Matcher, invalid
from .prefix_cache import TOKENS_PER_BLOCK, Block
from .request import Request
from .sampler import Sampler
from .word_list import ends_with


class Status(IntEnum):
    """Why a sequence ended, or 0. The numbers are those of the session extension's event records."""

    RUNNING = 0
    END_ID = 1
    STOP_WORD = 2
    LENGTH = 3
    CANCELLED = 4
    ERROR = 5


@dataclass(slots=True)
class Times:
    """Monotonic nanoseconds; 0 = has not happened."""

    arrival: int = 0
    first_scheduled: int = 0
    first_token: int = 0
    last_token: int = 0


@dataclass(frozen=True, slots=True)
class Perf:
    """What is told of a sequence's KV cache, in blocks, and of its draft tokens."""

    alloc_total: int
    alloc_new: int
    reused: int
    acceptance_rate: float = 0.0
    accepted_draft_tokens: int = 0
    draft_tokens: int = 0


Top = tuple[np.ndarray, np.ndarray]
"""Token ids and log probs of the likeliest alternatives, k for each position: [k] or [positions, k]."""


@dataclass(slots=True)
class PromptNews:
    """What is to be told about a prompt."""

    reused: int  # tokens found in the prefix cache
    waited_us: int | None = None  # microseconds in the queue, if the engine knows
    log_probs: list[float] = field(default_factory=list)  # of its second to last tokens, if wanted
    top: list[Top] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Progress:
    """News of one sequence. Later news can be merged into earlier ones that nobody has taken yet."""

    sequence: Sequence
    status: Status = Status.RUNNING
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)  # one per token, if the request wants them
    top: list[Top] = field(default_factory=list)  # likewise
    generation_logits: list[np.ndarray] = field(default_factory=list)  # FP32 [vocab_size] each
    context_logits: np.ndarray | None = None  # FP32 [prompt, vocab_size], with the first news
    prompt: PromptNews | None = None  # not later than the first token of any sequence of the request
    cum_log_prob: float = 0.0
    error: str = ""

    @property
    def of_prompt_only(self) -> bool:
        """Whether the sequence itself has not come further."""
        return self.prompt is not None and not self.tokens and self.status is Status.RUNNING

    def merge(self, later: Progress) -> None:
        """Makes this the news of both."""
        self.tokens += later.tokens
        self.log_probs += later.log_probs
        self.top += later.top
        self.generation_logits += later.generation_logits
        self.prompt = self.prompt or later.prompt
        if self.context_logits is None:
            self.context_logits = later.context_logits
        self.status, self.cum_log_prob, self.error = later.status, later.cum_log_prob, later.error


class Sequence:
    """Prompt, answer so far, sampler and cache of one generation. Only the scheduler changes it."""

    __slots__ = (
        "owner", "request", "row", "index", "ids", "computed", "cache", "sampler", "status", "cum_log_prob", "times",
        "context_logits", "vocab_size", "prompt_news", "chain", "reused_blocks", "matcher",
        "adapter", "perf",
    )

    def __init__(self, owner: Any, request: Request, row: int, index: int, vocab_size: int, now_ns: int,
                 adapter: Any = None):
        self.owner = owner  # who gets the news
        self.request = request
        self.row = row  # batch row of the Triton request
        self.index = index  # among num_return_sequences
        self.ids = list(request.prompt)  # prompt and answer
        self.vocab_size = vocab_size
        self.computed = 0  # how many of them the cache holds
        self.cache: Any = None
        self.sampler = Sampler(request, index, vocab_size)
        self.status = Status.RUNNING
        self.cum_log_prob = 0.0
        self.times = Times(arrival=now_ns)
        self.context_logits: list[np.ndarray] = []  # one array per piece of the prompt, if wanted
        self.prompt_news: PromptNews | None = None  # what has not been told yet
        self.chain: list[Block] = []  # the prompt's blocks in the prefix cache, while it is being read
        self.reused_blocks = 0
        self.matcher: Matcher | None = None  # set before the scheduler gets it, if the request has a guide
        self.adapter = adapter  # of Adapters.take, in use until the end
        self.perf: Perf | None = None  # from an engine that counts by itself

    @property
    def generated(self) -> int:
        """Number of tokens of the answer."""
        return len(self.ids) - len(self.request.prompt)

    @property
    def in_prompt(self) -> bool:
        """Whether the next forward still reads the prompt."""
        return self.computed < len(self.request.prompt)

    @property
    def wants_prompt_scores(self) -> bool:
        """One of n sequences with the same prompt is enough."""
        return self.request.prompt_log_probs and self.index == 0

    def start(self, cache: Any, chain: list[Block], now_ns: int) -> None:
        """The cache holds the blocks of the chain already."""
        self.cache, self.chain = cache, chain
        self.reused_blocks = len(chain)
        self.computed = len(chain) * TOKENS_PER_BLOCK
        self.times.first_scheduled = now_ns
        if self.index == 0:
            self.prompt_news = PromptNews(self.computed, (now_ns - self.times.arrival) // 1000)

    def is_argmax(self) -> bool:
        """Whether the next token is simply the largest logit."""
        return self.matcher is None and self.sampler.is_argmax(self.generated)

    def choose(self, logits: np.ndarray) -> int:
        """The next token."""
        if self.matcher is None:
            return self.sampler.choose(logits, self.ids, self.generated)
        request, generated = self.request, self.generated
        allowed = self.matcher.allowed(self.vocab_size, request.end_id, generated < request.min_tokens)
        try:
            return self.sampler.choose(logits, self.ids, generated, allowed)
        except ValueError:
            if not np.isfinite(logits[allowed]).all():
                raise  # the model's doing, not the request's
            raise RequestError(invalid("bad words or biases leave no token that it allows")) from None

    def accept(self, token: int, log_prob: float, now_ns: int) -> Status:
        """Appends a token, unless it is end_id or what a guide ends with.

        Stop words are looked for before the length (contract C).
        """
        self.cum_log_prob += log_prob
        self.times.last_token = now_ns
        self.times.first_token = self.times.first_token or now_ns
        if token == self.request.end_id or self.matcher and token in self.matcher.ends:
            return Status.END_ID
        if self.matcher:
            self.matcher.commit(token)
        self.ids.append(token)
        self.sampler.record(token)
        if any(ends_with(self.ids, word) for word in self.request.stop_words):
            return Status.STOP_WORD
        return Status.LENGTH if self.generated >= self.request.max_tokens else Status.RUNNING

    def finish(self, status: Status) -> None:
        """Sets the last status and gives cache and adapter back."""
        self.status = status
        self.cache = self.matcher = self.adapter = None
        self.chain = []
