"""The transformers runner gives what the model's own generate gives, packed and one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.layouts import PROMPTS, build, hugging_face, in_company, transformers

from engine.transformers_runner import TransformersRunner  # isort: skip  (after torch is known to be there)


@pytest.mark.parametrize("layout", ["llama", "mistral, short window", "qwen3"])
def test_packed(tmp_path: Path, layout: str) -> None:
    model = build(tmp_path, layout)
    runner = TransformersRunner(tmp_path)
    assert runner.packed
    assert in_company(runner, PROMPTS[:8], 12, 11) == [hugging_face(model, prompt, 12) for prompt in PROMPTS[:8]]


def test_one_by_one_when_the_model_cannot_be_packed(tmp_path: Path, monkeypatch: Any) -> None:
    model = build(tmp_path, "llama")
    attend = TransformersRunner._attend
    monkeypatch.setattr(TransformersRunner, "_attend", lambda *a, **k: (attend(*a, **k)[0] * 0.9, None))
    runner = TransformersRunner(tmp_path)
    assert not runner.packed
    assert in_company(runner, PROMPTS[:4], 8, 11) == [hugging_face(model, prompt, 8) for prompt in PROMPTS[:4]]


def test_another_architecture(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=300, n_positions=128, n_embd=32, n_layer=2, n_head=2)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    runner = TransformersRunner(tmp_path)
    assert runner.max_seq_len == 128 and runner.packed
