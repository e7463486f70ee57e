from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def read(tmp_path: Path, **parameters: str) -> Any:
    from settings import Settings

    config = {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    args = {"model_config": json.dumps(config), "model_repository": str(tmp_path), "model_name": "openai_bls"}
    return Settings.read(args)


def test_the_limits_that_nobody_set(tmp_path: Path) -> None:
    usual = read(tmp_path, max_requests="", max_queue_seconds="${max_queue_seconds}", drain_file="")
    assert usual.max_requests >= 256
    assert (usual.patience.queue, usual.patience.request, usual.patience.keep_alive) == (60, 1800, None)
    assert (usual.health_seconds, usual.drain_file) == (1, None)


def test_limits_as_they_are_set(tmp_path: Path) -> None:
    values = {"max_queue_seconds": "2", "max_request_seconds": "0.5", "keep_alive_seconds": "15", "health_seconds": "3"}
    found = read(tmp_path, max_requests="7", drain_file="/run/draining", **values)
    assert (found.max_requests, found.health_seconds, found.drain_file) == (7, 3, Path("/run/draining"))
    assert (found.patience.queue, found.patience.request, found.patience.keep_alive) == (2, 0.5, 15)


@pytest.mark.parametrize("value", ["0", "-1", "1e3", "x", "0.0", "nan"])
@pytest.mark.parametrize("name", ["max_requests", "max_queue_seconds", "max_request_seconds", "health_seconds"])
def test_impossible_limits(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        read(tmp_path, **{name: value})


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_where_traces_go(tmp_path: Path, variables: pytest.MonkeyPatch) -> None:
    usual = read(tmp_path, trace_url="", trace_ratio="${trace_ratio}")
    assert (usual.trace_url, usual.trace_ratio) == ("", 1.0)
    given = read(tmp_path, trace_url="http://a:4318/", trace_ratio="0.25")
    assert (given.trace_url, given.trace_ratio) == ("http://a:4318/v1/traces", 0.25)
    variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:4318")
    assert read(tmp_path).trace_url == "http://b:4318/v1/traces"
    assert read(tmp_path, trace_url="https://c/x/v1/traces").trace_url == "https://c/x/v1/traces"
    assert read(tmp_path, trace_url="off").trace_url == ""
    variables.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d/v1/traces")
    assert read(tmp_path).trace_url == "http://d/v1/traces"


def test_the_launcher_takes_the_same_collectors() -> None:
    """It cannot import from the model's folder, which is for other Tritons too."""
    import readers
    from launcher import options

    assert (options.COLLECTOR, options.TRACES) == (readers.COLLECTOR.pattern, readers.TRACES)


@pytest.mark.parametrize("url", ["a:4318", "grpc://a", "http://u:p@a", "http://a b", "http://a,b", "http://", "on"])
def test_impossible_collectors(tmp_path: Path, variables: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ValueError, match="parameter trace_url: wanted off, or an address"):
        read(tmp_path, trace_url=url)
    variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    with pytest.raises(ValueError, match="trace_url"):
        read(tmp_path)


@pytest.mark.parametrize("share", ["1.5", "-0.1", "x", "nan", "1e-3", "2"])
def test_impossible_shares(tmp_path: Path, share: str) -> None:
    with pytest.raises(ValueError, match="trace_ratio: wanted a number from 0 to 1"):
        read(tmp_path, trace_ratio=share)


def models(tmp_path: Path, given: object, **parameters: str) -> Any:
    (tmp_path / "models.json").write_text(given if isinstance(given, str) else json.dumps(given))
    return read(tmp_path, models_file="models.json", **parameters).models


def test_a_models_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()  # openai_bls's own: not for models of a file
    (tmp_path / "chat").mkdir()
    a, b, c = models(
        tmp_path,
        {
            "models": [
                {"id": "org/a", "engine": "one", "aliases": ["x", "y:1"], "max_model_len": 5, "tool_parser": "none"},
                {"id": "b", "engine": "two", "tokenizer_dir": "chat", "embedding_engine": "e", "aliases": "z"},
                {"id": "c", "embedding_engine": "e", "embedding_tokenizer_dir": "chat", "embedding_sizes": [8, 4],
                 "embedding_inputs": {"input_ids": "TYPE_INT32"}, "unknown_fields": "ignore"},
            ]
        },
    )  # fmt: skip
    assert (a.engine, a.names, a.max_model_len, a.tool_parser) == ("one", ("org/a", "x", "y:1"), 5, "none")
    assert a.tokenizer_dir is None and a.embedding_names == ()
    assert (b.names, b.tokenizer_dir) == (("b", "z"), tmp_path / "chat")
    assert b.embedding_names == ("b-embedding",)
    assert (c.engine, c.embedding_names, c.limits.ignore_unknown) == (None, ("c",), True)
    assert (c.embedding.sizes, c.embedding.inputs) == ((8, 4), {"input_ids": "TYPE_INT32"})


def test_names_of_a_model_that_has_none_but_its_folders(tmp_path: Path) -> None:
    """Known before the engine is asked: who asks for embeddings first is not told that there are none."""
    (tmp_path / "chat").mkdir()
    (model,) = read(tmp_path, tokenizer_dir=str(tmp_path / "chat"), embedding_engine="e").models
    assert (model.names, model.embedding_names) == (("chat",), ("chat-embedding",))


A = {"id": "a", "engine": "one"}
WRONG: list[tuple[Any, str]] = [
    ("{", "wanted JSON"),
    ([A], 'wanted an object with the one member "models", found [{'),
    ({"models": [A], "more": 1}, 'wanted an object with the one member "models", found {'),
    ({"models": []}, "models: wanted a list of at least one model, found []"),
    ({"models": [A, 5]}, "models[1]: wanted an object, found 5"),
    ({"models": [{"engine": "one"}]}, "models[0].id: wanted what clients call the model, found nothing"),
    ({"models": [{**A, "id": "a b"}]},
     "models[0].id: wanted a name of letters, digits and . _ : @ + = / -, found 'a b'"),
    ({"models": [{**A, "id": "a/load"}]}, "models[0].id: wanted a name"),
    ({"models": [{"id": "a"}]}, "models[0].engine: wanted the Triton model that generates, or an embedding_engine"),
    ({"models": [A, {**A, "id": "b", "max_model_len": "x"}]},
     "models[1].max_model_len: wanted a positive whole number, found 'x'"),
    ({"models": [{**A, "max_model_len": True}]},
     "models[0].max_model_len: wanted a positive whole number, found 'true'"),
    ({"models": [{**A, "max_model_len": 1.5}]}, "models[0].max_model_len: wanted a text, a whole number"),
    ({"models": [{**A, "tokenizer_dir": "nowhere"}]}, "models[0].tokenizer_dir: wanted a folder, found '"),
    ({"models": [{**A, "chat_template": "nowhere"}]}, "models[0].chat_template: wanted a file, found '"),
    ({"models": [{**A, "tokeniser_dir": "x"}]}, "models[0]: wanted only id, aliases, engine"),
    ({"models": [{**A, "tool_parser": "x"}]}, "models[0].tool_parser: wanted one of auto, none"),
    ({"models": [{**A, "engine": "../x"}]}, "models[0].engine: wanted the name of a Triton model, found '../x'"),
    ({"models": [{**A, "engine": ["x", "y"]}]}, 'models[0].engine: wanted a text, a whole number, true or false'),
    ({"models": [{**A, "aliases": [["x"]]}]}, "models[0].aliases: wanted a text, a whole number"),
    ({"models": [A, A]}, "models[1]: wanted names that no other model has, found 'a' again"),
    ({"models": [A, {**A, "id": "b", "aliases": ["a"]}]}, "models[1]: wanted names that no other model has, found 'a'"),
    ({"models": [{**A, "embedding_engine": "e"}, {**A, "id": "a-embedding"}]}, "found 'a-embedding' again"),
    ({"models": [{**A, "embedding_engine": "e", "embedding_max_len": 0}]},
     "models[0].embedding_max_len: wanted a positive whole number, found '0'"),
    ({"models": [{"id": "a", "embedding_engine": "e"}]},
     "models[0].embedding_tokenizer_dir: wanted the model's folder"),
    ({"models": [{**A, "loaded": False}]}, "models[0].loaded: wanted true without model_control, found 'false'"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_a_models_file_that_cannot_be(tmp_path: Path, given: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        models(tmp_path, given)
    assert message in str(caught.value)


def test_a_models_file_leaves_no_model_to_the_parameters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="parameter max_model_len: wanted nothing beside a models_file, found '5'"):
        models(tmp_path, {"models": [A]}, max_model_len="5")
    with pytest.raises(OSError, match="nowhere"):
        read(tmp_path, models_file="nowhere")


def test_one_instance_only_may_load_and_unload(tmp_path: Path) -> None:
    from settings import Settings

    config = {"parameters": {"model_control": {"string_value": "on"}}, "instance_group": [{"count": 2}]}
    args = {"model_config": json.dumps(config), "model_repository": str(tmp_path), "model_name": "openai_bls"}
    with pytest.raises(ValueError, match="parameter model_control: wanted off with 2 instances"):
        Settings.read(args)
