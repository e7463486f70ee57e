"""What the numpy runner reads, what it refuses, and the small checkpoint it can make itself."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import tiny_checkpoint
from engine.checkpoint import Checkpoint
from engine.load import load
from engine.numpy_runner import NumpyRunner
from engine.runner import Segment
from engine.settings import Settings


def test_the_same_bytes_each_time(tmp_path: Path, tiny: Path) -> None:
    tiny_checkpoint.make(tmp_path / "again")
    tiny_checkpoint.make(tmp_path / "other", seed=1)
    for path in tiny.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != (tiny / "model.safetensors").read_bytes()
    assert sum(path.stat().st_size for path in tiny.iterdir()) < 1_000_000


def test_ensure_is_safe_to_race(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: tiny_checkpoint.ensure(tmp_path), range(4)))
    assert len(folders) == 1 and [path.name for path in tmp_path.iterdir()] == [folders.pop().name]


def test_answers_vary_and_sometimes_end(runner: NumpyRunner, tiny: Path) -> None:
    end = json.loads((tiny / "config.json").read_text())["eos_token_id"][0]
    lengths = []
    for number in range(12):
        cache, tokens = runner.new_cache(), [number + 300, 40 + number]
        while len(tokens) < 300 and tokens[-1] != end:
            tokens.append(int(runner.forward([Segment(cache, tokens[cache.length:], 1)])[0].argmax()))
        lengths.append(len(tokens))
        assert len(set(tokens)) > len(tokens) / 3
    assert min(lengths) < 300 and sorted(lengths)[6] > 40, lengths


def test_tokenizer(tiny: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json"))
    text = "Grüße, 世界! 👩‍🚀 ça va?"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text and len(ids) > 15
    assert tokenizer.get_vocab_size() == tiny_checkpoint.VOCAB_SIZE
    assert ids[0] == tokenizer.token_to_id("<|begin_of_text|>")


def test_auto_tokenizer_with_the_chat_template(tiny: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    messages = [{"role": "user", "content": " Hi "}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == ("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                    "<|start_header_id|>assistant<|end_header_id|>\n\n")
    assert tokenizer.eos_token == "<|eot_id|>"


@pytest.mark.parametrize(("changes", "text"), [
    ({"architectures": ["FalconForCausalLM"]}, "architecture: wanted .* found FalconForCausalLM"),
    ({"hidden_act": "gelu"}, "hidden_act: wanted silu, found gelu"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "rope_type: wanted .* found yarn"),
    ({"quantization_config": {}}, "quantised"),
])
def test_refused_checkpoints(tmp_path: Path, tiny: Path, changes: dict[str, Any], text: str) -> None:
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=text):
        NumpyRunner(Checkpoint(tmp_path))


def test_missing_files_and_tensors_are_named(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(FileNotFoundError, match="config.json"):
        Checkpoint(tmp_path)
    with pytest.raises(KeyError, match="no tensor lm_head.weight"):
        Checkpoint(tiny).tensor("lm_head.weight")


def test_load(tiny: Path) -> None:
    runner, folder = load(Settings(checkpoint=str(tiny)))
    assert folder == tiny.resolve() and runner.max_seq_len == 2048
    assert load(Settings())[1].name == "tiny-chat"
    with pytest.raises(ValueError, match="runner: wanted numpy or transformers"):
        load(Settings(runner="magic"))


def test_the_numpy_runner_needs_no_torch(tiny: Path) -> None:
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import engine.engine; from engine.load import load;"
            "from engine.settings import Settings; load(Settings(checkpoint=sys.argv[2]));"
            "heavy = {'torch', 'transformers', 'tokenizers', 'triton_python_backend_utils'};"
            "print(sorted(heavy & set(sys.modules)))")
    package = Path(tiny_checkpoint.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code, str(package), str(tiny)], capture_output=True, text=True,
                          check=True).stdout.strip() == "[]"


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    values = np.array([1.5, -2.25, 3e30], np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    header = json.dumps({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + upper.tobytes())
    assert np.allclose(Checkpoint(tmp_path).tensor("x"), values, rtol=1e-2)
