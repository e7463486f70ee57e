from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from preprocessing.model import Model
from preprocessing.tokenizer import Tokenizer, load
from tests.core import vocabularies


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with tokenizer, chat template and generation_config.json."""
    path = tmp_path_factory.mktemp("model")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=vocabularies.tokenizer("byte-level"),
        bos_token="<s>",
        eos_token="<|end|>",
        chat_template=vocabularies.CHAT_TEMPLATE,
    )
    fast.save_pretrained(path)
    (path / "generation_config.json").write_text('{"eos_token_id": [3, 1]}')
    (path / "config.json").write_text('{"max_position_embeddings": 512}')
    return path


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    return Model(name="m", tokenizer=load(folder), max_model_len=100, created=1700000000)


@pytest.fixture(scope="session", params=vocabularies.KINDS)
def any_model(request: pytest.FixtureRequest) -> Model:
    """A model of each kind of vocabulary."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=vocabularies.tokenizer(request.param),
        bos_token="<s>",
        eos_token="<|end|>",
        chat_template=vocabularies.CHAT_TEMPLATE,
    )
    return Model(name="m", tokenizer=Tokenizer(fast, [3]), max_model_len=200, created=1700000000)
