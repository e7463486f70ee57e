"""Random models of each layout, what Hugging Face generates with them, and a scheduler loop to compare with."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from engine.request import Request
from engine.runner import Runner
from engine.scheduler import Scheduler
from engine.sequence import Sequence, Status

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)  # the models are too small for more

SIZES = dict(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
LAYOUTS = {
    "llama": ("LlamaConfig", {}),
    "llama, tied, mha": ("LlamaConfig", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama, biases": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "llama3 rope": ("LlamaConfig", {"rope_parameters": LLAMA3, "head_dim": 32}),
    "linear rope": ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e3, "factor": 2.0}}),
    "mistral, short window": ("MistralConfig", {"sliding_window": 16}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2, some layers with a window": (
        "Qwen2Config", {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}),
    "qwen3": ("Qwen3Config", {"head_dim": 24}),
}
PROMPTS = [[(7 * i + 13 * j * j) % 299 for j in range(3 + 5 * i)] for i in range(16)]


def build(folder: Path, layout: str, dtype: Any = None, **save: Any) -> Any:
    """A random model of a layout, saved; biases and norms are random too, so that leaving one out shows."""
    kind, changes = LAYOUTS[layout]
    torch.manual_seed(1)
    config = getattr(transformers, kind)(**{**SIZES, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3 + (1.0 if "norm" in name else 0.0))
            else:
                parameter.mul_(6.0)  # far apart logits: a tie would make equality a matter of luck
    if dtype:
        model = model.to(dtype)
    model.save_pretrained(folder, **save)
    return model.float()


def hugging_face(model: Any, prompt: list[int], length: int) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, min_new_tokens=length,
                             do_sample=False, eos_token_id=None, pad_token_id=0)
    return out[0, len(prompt):].tolist()


class Loop:
    """A scheduler and what came out of it."""

    def __init__(self, runner: Runner, chunk: int = 256, max_batch_size: int = 64, reuse: int = 0):
        self.runner = runner
        self.scheduler = Scheduler(runner, max_batch_size, 0, chunk, reuse)
        self.tokens: dict[Sequence, list[int]] = {}
        self.logits: dict[Sequence, list[Any]] = {}  # with generation_logits=True

    def add(self, prompt: list[int], length: int, adapter: Any = None, **values: Any) -> Sequence:
        request = Request(prompt=prompt, max_tokens=length, **values)
        sequence = Sequence(object(), request, 0, 0, self.runner.vocab_size, 1, adapter)
        self.tokens[sequence], self.logits[sequence] = [], []
        self.scheduler.submit([sequence])
        return sequence

    def step(self) -> None:
        for progress in self.scheduler.step():
            assert progress.status is not Status.ERROR, progress.error
            self.tokens[progress.sequence] += progress.tokens
            self.logits[progress.sequence] += progress.generation_logits

    def finish(self) -> None:
        while self.scheduler.stats().active:
            self.step()


def in_company(runner: Runner, prompts: list[list[int]], length: int, chunk: int, **values: Any) -> list[list[int]]:
    """All prompts, joining one after the other, while others come and go and are cancelled."""
    loop, dice, ours, others = Loop(runner, chunk, 40), random.Random(5), [], []
    for number, prompt in enumerate(prompts):
        ours.append(loop.add(prompt, length, **values))
        other = dice.choices(range(1, 200), k=dice.randint(1, 40))
        others.append(loop.add(other, dice.randint(1, 12), top_p=0.9, seed=number))
        for _ in range(dice.randint(0, 3)):
            loop.step()
        if number % 4 == 3:
            loop.scheduler.cancel([dice.choice(others)])
    loop.finish()
    return [loop.tokens[sequence] for sequence in ours]
