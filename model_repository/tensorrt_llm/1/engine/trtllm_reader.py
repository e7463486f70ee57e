"""Results of TensorRT-LLM's LLM API for one sequence -> its Progress.

In: RequestOutputs, each with everything so far. Out: what is new in them. What ends a sequence is decided by
`Sequence.accept`, with the same rules as everywhere: so it does not matter whether a result has its end token among its
tokens (PyTorch flow) or not, or runs on behind a stop word of several tokens. It does not know threads or `LLM`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from . import trtllm_api
from .request import Request
from .sampler import likeliest, log_softmax
from .sequence import Progress, PromptNews, Sequence, Status, Top

ENDS = {"stop": Status.END_ID, "length": Status.LENGTH, "cancelled": Status.CANCELLED}
"""finish_reason -> status, where the tokens do not say more."""


class Reader:
    """Reads one sequence's results, one after the other. Every method may raise RuntimeError: then it has failed."""

    def __init__(self, sequence: Sequence):
        self._sequence = sequence
        self._first = True
        self._held: Progress | None = None  # waits for the logits of the prompt, which may come later than tokens
        self._wants_prompt = sequence.request.context_logits or sequence.wants_prompt_scores

    def read(self, piece: Any) -> Progress | None:
        """What is new in a RequestOutput, if it can be told already. The status of the sequence is left as it is."""
        sequence, completion = self._sequence, piece.outputs[0]
        progress = self._with_held(accept_new(sequence, completion))
        if piece.finished and progress.status is Status.RUNNING:
            progress.status = _end_of(completion.finish_reason)
        self._read_prompt(piece, progress)
        sequence.computed = len(sequence.ids)
        metrics = getattr(completion, "request_perf_metrics", None)  # with the last result, if at all
        if metrics is not None:
            sequence.perf = trtllm_api.perf(metrics)
            sequence.times.first_scheduled = trtllm_api.first_scheduled_ns(metrics)
        if self._wants_prompt:
            self._held = progress
            if progress.status in (Status.END_ID, Status.STOP_WORD, Status.LENGTH):
                raise RuntimeError("the logits of the prompt have not come")
            return None
        return progress

    def _with_held(self, progress: Progress) -> Progress:
        held, self._held = self._held, None
        if held is None:
            return progress
        held.merge(progress)
        return held

    def _read_prompt(self, piece: Any, progress: Progress) -> None:
        sequence, request = self._sequence, self._sequence.request
        if self._first:
            self._first = False
            reused = int(getattr(piece, "cached_tokens", 0) or 0)  # newer than 1.0
            if sequence.index == 0 and (reused or request.prompt_log_probs):
                progress.prompt = PromptNews(reused)
        if not self._wants_prompt or piece.context_logits is None:
            return
        self._wants_prompt = False
        logits = trtllm_api.array(piece.context_logits).reshape(-1, sequence.vocab_size)
        if len(logits) != len(request.prompt):
            raise RuntimeError(f"{len(request.prompt)} prompt tokens have {len(logits)} rows of context logits")
        if request.context_logits:
            progress.context_logits = logits
        if sequence.wants_prompt_scores and progress.prompt is not None:
            _score_prompt(progress.prompt, request, logits)


def accept_new(sequence: Sequence, completion: Any) -> Progress:
    """Appends the tokens of a CompletionOutput that the sequence does not have, up to its end."""
    request, progress = sequence.request, Progress(sequence)
    ids, start, now = completion.token_ids, sequence.generated, time.monotonic_ns()
    rows = _new_logits(sequence, completion, len(ids) - start) if request.generation_logits else None
    for place in range(start, len(ids)):
        log_prob, top = _scores(request, completion.logprobs, place, ids[place])
        before = len(sequence.ids)
        progress.status = sequence.accept(ids[place], log_prob, now)
        if len(sequence.ids) > before:  # else it is the end token
            progress.tokens.append(ids[place])
            progress.log_probs += [log_prob] if request.log_probs else []
            progress.top += [top] if top is not None else []
            progress.generation_logits += [] if rows is None else [rows[place - start]]
        if progress.status is not Status.RUNNING:
            break
    progress.cum_log_prob = sequence.cum_log_prob
    return progress


def _new_logits(sequence: Sequence, completion: Any, count: int) -> np.ndarray | None:
    """FP32 [count, vocab_size]: the last rows, whether the result has those of all tokens or only of the new ones."""
    if not count:
        return None
    if completion.generation_logits is None:
        raise RuntimeError("there are no generation logits; LLM needs gather_generation_logits")
    return trtllm_api.array(completion.generation_logits).reshape(-1, sequence.vocab_size)[-count:]


def _scores(request: Request, entries: Any, place: int, token: int) -> tuple[float, Top | None]:
    """Log prob of a token and, if wanted, its alternatives. An end token that is not shown may have none."""
    if not (request.log_probs or request.top_log_probs):
        return 0.0, None
    if not entries or place >= len(entries):
        if token == request.end_id:
            return 0.0, None
        raise RuntimeError("there is no log prob for a token")
    log_prob, top = trtllm_api.token_log_probs(entries[place], token, request.top_log_probs)
    if log_prob is None:
        raise RuntimeError("the log prob of the chosen token is missing among those of the likeliest")
    return log_prob, top if request.top_log_probs else None


def _score_prompt(news: PromptNews, request: Request, logits: np.ndarray) -> None:
    """Log probs of the prompt's second to last tokens from the logits at all of its places, [prompt, vocab_size]."""
    following = request.prompt[1:]
    if not following:
        return
    log_probs = log_softmax(logits[: len(following)])
    news.log_probs = log_probs[np.arange(len(following)), following].tolist()
    if request.top_log_probs:
        news.top = [likeliest(log_probs, request.top_log_probs)]


def _end_of(reason: str | None) -> Status:
    if reason not in ENDS:
        raise RuntimeError(f"the generation ended with {reason or 'no reason'}")
    return ENDS[reason]
