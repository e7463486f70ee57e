"""Trains the tiny model: one command, from nothing to a folder that can be served.

In: a folder and a budget. Out, in the folder: config.json, generation_config.json, model.safetensors (FP16), the
tokenizer's files; beside it FOLDER.state, from which --resume goes on. The data is made while training runs. Several
processes share each step, because one alone cannot keep several cores of a CPU busy with matrices this small.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as processes
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from . import packing, vocabulary
from .packing import Batch

_ATTENTION = "by_dialogue"
_BLOCK = 128  # queries
_WARMUP = 100  # steps
_ADAM_RATE, _MUON_RATE = 3e-3, 0.02
_SMOOTHING = 0.98  # of the loss that is shown
_LOG_EVERY = 50  # steps


class Clock:
    """How far training is: by tokens, or by minutes if those are used up first. Both go on after a resume."""

    def __init__(self, tokens: float, minutes: float):
        self._tokens, self._seconds = tokens, minutes * 60
        self._before, self._started = 0.0, time.monotonic()

    def resume(self, seconds: float) -> None:
        self._before = seconds

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def progress(self, tokens: float) -> float:
        return max(tokens / self._tokens, self.seconds() / self._seconds)


class Trainer:
    """Model, optimizers and where they stand."""

    def __init__(self, model: LlamaForCausalLM, device: str, rate: float = 1.0):
        self.model = model.to(device)
        self.rate = rate
        self.step = 0
        self.loss: float | None = None
        self._device = device
        matrices, others = _groups(self.model)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=_ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
            torch.optim.Muon(matrices, lr=_MUON_RATE, weight_decay=0.05, adjust_lr_fn="original"),
        ]

    def learn(self, batch: Batch, progress: float) -> None:
        """One step."""
        for optimizer, rate in zip(self.optimizers, (_ADAM_RATE, _MUON_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * self.rate * schedule(self.step, progress)
            optimizer.zero_grad()
        loss = self._loss(batch)
        loss.backward()
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        value = float(loss.detach())
        self.loss = value if self.loss is None else _SMOOTHING * self.loss + (1 - _SMOOTHING) * value

    def _share_gradients(self) -> None:
        """Each process learnt from other batches; all go on with the mean."""
        if not processes.is_initialized():
            return
        gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients]) / processes.get_world_size()
        processes.all_reduce(together)
        for gradient, shared in zip(gradients, together.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(shared.view_as(gradient))

    def _loss(self, batch: Batch) -> torch.Tensor:
        tokens, targets, weights = (torch.from_numpy(array)[None].to(self._device) for array in batch[:3])
        positions = torch.cat([torch.arange(length) for length in batch.lengths])[None].to(self._device)
        with torch.autocast(torch.device(self._device).type, dtype=torch.bfloat16):
            hidden = self.model.model(input_ids=tokens, position_ids=positions, use_cache=False,
                                      lengths=batch.lengths).last_hidden_state
            wanted = targets != packing.IGNORED
            logits = self.model.lm_head(hidden[wanted])
        each = cross_entropy(logits.float(), targets[wanted], reduction="none")
        return (each * weights[wanted]).sum() / weights[wanted].sum()

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizers": [each.state_dict() for each in self.optimizers],
                "step": self.step, "loss": self.loss}

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.loss = state["step"], state["loss"]


def schedule(step: int, progress: float) -> float:
    """The share of the full learning rate: up, then down to nothing at the end of the budget."""
    return min(1.0, (step + 1) / _WARMUP) * max(0.0, 1 - progress)


def new_model(tokenizer: Any, hidden: int, layers: int, heads: int) -> LlamaForCausalLM:
    end = tokenizer.token_to_id(vocabulary.END_OF_TURN)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden, intermediate_size=math.ceil(hidden * 8 / 3 / 32) * 32,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads // 2,
        max_position_embeddings=vocabulary.CONTEXT, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=tokenizer.token_to_id(vocabulary.SPECIAL[0]),
        eos_token_id=[end, tokenizer.token_to_id("<|end_of_text|>"), tokenizer.token_to_id("<|eom_id|>")],
        pad_token_id=tokenizer.token_to_id("<|pad|>"), attn_implementation=_ATTENTION,
    ))


def attend(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, *,
           scaling: float, lengths: list[int], **_: Any) -> tuple[torch.Tensor, None]:
    """Causal attention within each dialogue: [1, heads, tokens, head_dim] -> [1, tokens, heads, head_dim].

    Block by block of queries: for pieces this short, plain products take half the time of the CPU's flash attention.
    """
    hidden = torch.full((_BLOCK, max(lengths)), -torch.inf, dtype=query.dtype, device=query.device)
    parts = zip(query[0].split(lengths, 1), key[0].split(lengths, 1), value[0].split(lengths, 1), strict=True)
    attended = [block for part in parts for block in _attend_blocks(*part, hidden, scaling)]
    return torch.cat(attended, 1).transpose(0, 1)[None].contiguous(), None


def _attend_blocks(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor,
                   scaling: float) -> Iterator[torch.Tensor]:
    """One dialogue, [heads, tokens, head_dim]; each head of keys serves a group of queries."""
    heads, length, size = query.shape
    shared = key.shape[0]
    for start in range(0, length, _BLOCK):
        end = min(length, start + _BLOCK)
        block = query[:, start:end].reshape(shared, -1, size)
        later = hidden[: end - start, :end].triu(start + 1).repeat(heads // shared, 1)
        scores = torch.baddbmm(later, block, key[:, :end].transpose(1, 2), alpha=scaling)
        yield torch.bmm(scores.softmax(-1), value[:, :end]).reshape(heads, -1, size)


ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, attend)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """FP16, as it is served. The head is the embedding, so it is not written."""
    halves = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.state_dict().items()
              if name != "lm_head.weight"}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.dtype = torch.float16
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def train(options: argparse.Namespace) -> None:
    packing.tokenizer_of(options.folder, options.seed)  # written once, before the processes read it
    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(_train, (options, f"file://{meeting}/point"), options.processes)


def _train(rank: int, options: argparse.Namespace, meeting: str) -> None:
    """One of the processes."""
    torch.manual_seed(options.seed)
    if options.device == "cpu":
        torch.set_num_threads(options.threads or max(1, (os.cpu_count() or 1) // options.processes))
    if options.processes > 1:
        processes.init_process_group("gloo", meeting, world_size=options.processes, rank=rank)
    model = new_model(packing.tokenizer_of(options.folder, options.seed), options.hidden, options.layers, options.heads)
    if rank == 0:
        print(f"{sum(each.numel() for each in model.parameters()) / 1e6:.2f}M parameters", flush=True)
    if options.weights:
        model.load_state_dict(load_file(options.weights / "model.safetensors"), strict=False)
    trainer = Trainer(model, options.device, options.rate)
    clock = Clock(options.tokens, options.minutes)
    kept = options.folder.parent / f"{options.folder.name}.state"
    if options.resume and kept.exists():
        state = torch.load(kept, map_location=options.device)
        trainer.load(state)
        clock.resume(state["seconds"])
    first = trainer.step * options.processes + rank
    batches = packing.stream(options.folder, options.batch, options.seed, first, options.processes, options.workers)
    _run(trainer, clock, batches, options, kept if rank == 0 else None)


def _run(trainer: Trainer, clock: Clock, batches: Iterator[Batch], options: argparse.Namespace,
         kept: Path | None) -> None:
    """Trains to the end of the budget. Only one process, which has `kept`, shows how far it is and saves."""
    saved = time.monotonic()
    size = options.batch * options.processes
    log = (options.folder.parent / f"{options.folder.name}.log.jsonl").open("a", encoding="utf-8")
    with tqdm(total=100.0, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}", mininterval=5,
              disable=not kept) as bar:
        while (progress := _same(clock.progress(trainer.step * size))) < 1:
            bar.update(progress * 100 - bar.n)
            trainer.learn(next(batches), progress)
            tokens = trainer.step * size
            bar.set_postfix_str(f"{tokens / 1e6:.2f}M tokens, loss {trainer.loss:.4f}", refresh=False)
            if kept and trainer.step % _LOG_EVERY == 0:
                entry = {"step": trainer.step, "tokens": tokens, "loss": trainer.loss, "seconds": clock.seconds()}
                print(json.dumps(entry), file=log, flush=True)
            if kept and time.monotonic() - saved > options.save_minutes * 60:
                _keep(trainer, clock, options.folder, kept)
                saved = time.monotonic()
    if kept:
        _keep(trainer, clock, options.folder, kept)


def _same(progress: float) -> float:
    """The first process's view, for all: they have to stop together."""
    if not processes.is_initialized():
        return progress
    shared = torch.tensor([progress])
    processes.broadcast(shared, 0)
    return float(shared)


def _keep(trainer: Trainer, clock: Clock, folder: Path, kept: Path) -> None:
    save(trainer.model, folder)
    draft = kept.with_suffix(".draft")
    torch.save({**trainer.state(), "seconds": clock.seconds()}, draft)
    os.replace(draft, kept)


def _groups(model: LlamaForCausalLM) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Hidden matrices, for Muon; embeddings and norms, for AdamW."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else others).append(parameter)
    return matrices, others


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains the tiny chat model.")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--tokens", type=float, default=40e6, help="budget in tokens (default 40e6)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="budget in minutes, if that is less")
    parser.add_argument("--resume", action="store_true", help="go on where the folder's state stands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--weights", type=Path, help="a folder whose weights and tokenizer it begins with")
    parser.add_argument("--rate", type=float, default=1.0, help="the share of the full learning rate it begins with")
    parser.add_argument("--processes", type=int, default=0, help="that train together; 0: one for each core")
    parser.add_argument("--threads", type=int, default=0, help="of each process; 0: cores / processes")
    parser.add_argument("--workers", type=int, default=1, help="of each process, which make dialogues")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4096, help="tokens of each process in a step")
    options = parser.parse_args(arguments)
    options.processes = options.processes or (1 if options.device != "cpu" else os.cpu_count() or 1)
    return options


def main(arguments: list[str] | None = None) -> None:
    train(parse(arguments))


if __name__ == "__main__":
    main()
