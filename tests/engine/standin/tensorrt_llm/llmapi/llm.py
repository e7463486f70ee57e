"""LLM, RequestOutput and CompletionOutput over a model that is a formula."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..sampling_params import SamplingParams
from .llm_args import LLM_ARGUMENTS, KvCacheConfig

VOCAB_SIZE = 300
"""As the configurations of tests/engine/layouts.py and the tests here say."""


@dataclass
class Behaviour:
    """What differs between versions, and what can go wrong."""

    show_end: bool = True  # the PyTorch flow shows the end token, older flows do not
    per_result: int = 1  # tokens that come with one result; more with speculative decoding
    context_logits_with: str = "first"  # "first", "last" or "never" a result
    context_rows_missing: int = 0  # a reused block has no logits
    chosen_among_log_probs: bool = True
    cached_tokens: int = 0
    fail_after: int = -1  # tokens
    step_seconds: float = 0.0
    made: list[LLM] = field(default_factory=list)


behaviour = Behaviour()


def logits_after(ids: list[int], seed: int = 0) -> np.ndarray:
    """FP32 [VOCAB_SIZE]: highest at a token that depends on the last one, where it stands and the seed."""
    best = (7 * ids[-1] + 3 * len(ids) + seed) % VOCAB_SIZE
    return (-0.1 * ((np.arange(VOCAB_SIZE) - best) % VOCAB_SIZE)).astype(np.float32)


def following(prompt: list[int], count: int, seed: int = 0) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(logits_after(ids, seed).argmax()))
    return ids[len(prompt):]


@dataclass(slots=True)
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] | None = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: Any = field(default_factory=list)
    prompt_logprobs: Any = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: Any = None
    generation_logits: Any = None
    disaggregated_params: Any = None
    request_perf_metrics: Any = None


class Tensor:
    """As much of a torch tensor as is used."""

    def __init__(self, values: Any):
        self._values = np.asarray(values, np.float32)

    def detach(self) -> Tensor:
        return self

    float = cpu = detach

    def numpy(self) -> np.ndarray:
        return self._values


class RequestOutput:
    def __init__(self, prompt: list[int], params: SamplingParams, lora_request: Any):
        self.prompt_token_ids = prompt
        self.prompt = None
        self.params = params
        self.lora_request = lora_request
        self.outputs = [CompletionOutput(0)]
        self.context_logits: Any = None
        self.finished = False
        self.cached_tokens = behaviour.cached_tokens
        self._aborted = False

    def abort(self) -> None:
        assert not self.finished, "what has finished cannot be aborted"
        self._aborted = True

    def aborted(self) -> bool:
        return self._aborted

    async def __aiter__(self) -> AsyncIterator[RequestOutput]:
        while not self.finished:
            await asyncio.sleep(behaviour.step_seconds)
            if self._aborted:
                self._finish("cancelled")
            for _ in range(behaviour.per_result):
                if not self.finished:
                    self._generate()
            self._tell_of_prompt()
            yield self

    def _generate(self) -> None:
        output, params = self.outputs[0], self.params
        tokens = output.token_ids
        if len(tokens) == behaviour.fail_after:
            raise RuntimeError("CUDA error: out of something\nsecond line")
        raw = logits_after(self.prompt_token_ids + tokens, 0 if params.greedy else params.seed or 0)
        token = int((raw if params.embedding_bias is None else raw + np.asarray(params.embedding_bias)).argmax())
        ends = token == params.end_id and len(tokens) >= (params.min_tokens or 1)
        if not ends or behaviour.show_end:
            tokens.append(token)
            self._keep_scores(output, raw, token)
        if ends:
            self._finish("stop")
        elif token in (params.stop_token_ids or ()):
            output.stop_reason = token
            self._finish("stop")
            if not params.include_stop_str_in_output:
                tokens.pop()
        elif len(tokens) >= params.max_tokens:
            self._finish("length")

    def _keep_scores(self, output: CompletionOutput, raw: np.ndarray, token: int) -> None:
        log_probs = raw - raw.max() - np.log(np.exp(raw - raw.max()).sum())
        if count := self.params.logprobs:
            best = np.argsort(-log_probs, kind="stable")[:count].tolist()
            chosen = [token] if behaviour.chosen_among_log_probs and token not in best else []
            output.logprobs.append({i: Logprob(float(log_probs[i]), rank + 1) for rank, i in enumerate(best + chosen)})
        if self.params.return_generation_logits:
            known = [] if output.generation_logits is None else list(output.generation_logits.numpy())
            output.generation_logits = Tensor([*known, raw])

    def _finish(self, reason: str) -> None:
        self.finished = True
        output = self.outputs[0]
        output.finish_reason = reason
        if self.params.return_perf_metrics:
            output.request_perf_metrics = SimpleNamespace(
                timing_metrics=SimpleNamespace(first_scheduled_time=timedelta(seconds=1.5)),
                kv_cache_metrics=SimpleNamespace(
                    num_total_allocated_blocks=5, num_new_allocated_blocks=3, num_reused_blocks=2, num_missed_blocks=3,
                    kv_cache_hit_rate=0.4),
                speculative_decoding=SimpleNamespace(
                    acceptance_rate=0.5, total_accepted_draft_tokens=4, total_draft_tokens=8))

    def _tell_of_prompt(self) -> None:
        wanted = {"first": True, "last": self.finished, "never": False}[behaviour.context_logits_with]
        if self.params.return_context_logits and wanted:
            prompt = self.prompt_token_ids
            rows = [logits_after(prompt[: end + 1]) for end in range(len(prompt))]
            self.context_logits = Tensor(rows[behaviour.context_rows_missing:])


class IterationResult:
    """Yields what there is, then ends."""

    def __init__(self, waiting: list[dict[str, Any]]):
        self._waiting = waiting

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        while self._waiting:
            yield self._waiting.pop(0)


class LLM:
    def __init__(self, model: str, **arguments: Any):
        if unknown := set(arguments) - LLM_ARGUMENTS:
            raise ValueError(f"unknown arguments of LLM: {sorted(unknown)}")
        assert isinstance(arguments.get("kv_cache_config", KvCacheConfig()), KvCacheConfig)
        if (lora := arguments.get("lora_config")) and len(lora.lora_dir) != 1:
            assert lora.lora_target_modules, "Expecting at least one lora target module"
        self.model, self.arguments = model, arguments
        self.requests: list[RequestOutput] = []
        self.stats: list[dict[str, Any]] = []
        self.down = False
        behaviour.made.append(self)

    def generate_async(self, inputs: list[int], sampling_params: SamplingParams | None = None, lora_request: Any = None,
                       prompt_adapter_request: Any = None, streaming: bool = False,
                       kv_cache_retention_config: Any = None, disaggregated_params: Any = None,
                       scheduling_params: Any = None, cache_salt: str | None = None) -> RequestOutput:
        asyncio.get_running_loop()  # results come through a queue of the loop that asked for them
        assert streaming and sampling_params is not None and all(isinstance(i, int) for i in inputs)
        if sampling_params.end_id is None and self.arguments["skip_tokenizer_init"]:
            raise ValueError("tokenizer is required to reset end_id if it is None")
        if sampling_params.guided_decoding and not self.arguments.get("guided_decoding_backend"):
            raise ValueError("guided decoding is not enabled")
        if lora_request and not self.arguments.get("enable_lora"):
            raise ValueError("LoRA is not enabled")
        self.requests.append(RequestOutput(list(inputs), sampling_params, lora_request))
        return self.requests[-1]

    def get_stats_async(self, timeout: float | None = 2) -> IterationResult:
        return IterationResult(self.stats)

    def shutdown(self) -> None:
        self.down = True
