from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.repository import (
    CONFIG,
    assemble,
    parameters_in,
    with_instances,
    with_parameters,
    with_queue,
    without_sessions,
)

FRONT = """\
name: "openai_bls"
# parameters { key: "in_a_comment" value: { string_value: "x" } }
instance_group [ { count: 1 kind: KIND_CPU } ]
# dynamic_batching { default_queue_policy { default_timeout_microseconds: 60000000 max_queue_size: 512 } }
parameters { key: "tokenizer_dir" value: { string_value: "" } }
parameters { key: "engine" value: { string_value: "tensorrt_llm" } }
"""
ENGINE = """\
name: "tensorrt_llm"
input [
  { name: "input_ids", data_type: TYPE_INT32, dims: [ -1 ] },
  { name: "session_command", data_type: TYPE_INT32, dims: [ 1 ], optional: true },
  { name: "session_id", data_type: TYPE_UINT64, dims: [ 1 ], optional: true }
]
output [ { name: "output_ids", data_type: TYPE_INT32, dims: [ -1, -1 ] } ]
parameters { key: "checkpoint" value: { string_value: "" } }
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository like ours: one model is a link to a folder elsewhere."""
    front = tmp_path / "openai_bls"
    engine = tmp_path / "models" / "tensorrt_llm"
    for folder, config in ((front, FRONT), (engine, ENGINE)):
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text("")
        (folder / CONFIG).write_text(config)
    (tmp_path / "models" / "openai_bls").symlink_to(front)
    (tmp_path / "models" / "README").write_text("not a model")
    return tmp_path / "models"


def test_a_repository_is_assembled_out_of_links_and_new_configurations(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "run" / "repository"
    assemble(source, target, {"openai_bls": {"tokenizer_dir": "/m"}, "tensorrt_llm": {"checkpoint": "/m"}}, instances=3)
    front = (target / "openai_bls" / CONFIG).read_text()
    assert 'key: "tokenizer_dir" value: { string_value: "/m" }' in front
    assert "count: 3 kind: KIND_CPU" in front
    assert 'string_value: "/m"' in (target / "tensorrt_llm" / CONFIG).read_text()
    assert (target / "openai_bls" / "1" / "model.py").is_file()
    assert sorted(entry.name for entry in target.iterdir()) == ["openai_bls", "tensorrt_llm"]
    assert (source / "openai_bls" / CONFIG).read_text() == FRONT


def test_assembling_again_forgets_the_last_time(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "repository"
    assemble(source, target, {"tensorrt_llm": {"checkpoint": "/old"}})
    assemble(source, target, sessions=False)
    engine = (target / "tensorrt_llm" / CONFIG).read_text()
    assert "/old" not in engine
    assert "session_" not in engine


@pytest.mark.parametrize("value", ["", "plain", "with space", 'quote " and \\ backslash', "line\nbreak", "}", "{key}"])
def test_any_value_stays_one_parameter_on_one_line(value: str) -> None:
    config = with_parameters(FRONT, "m", {"tokenizer_dir": value})
    assert config.count("\n") == FRONT.count("\n")
    assert parameters_in(config) == ["tokenizer_dir", "engine"]
    assert with_parameters(config, "m", {"tokenizer_dir": ""}) == FRONT


def test_an_unknown_parameter_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(LaunchError, match=r"no parameter nonsense \(it has: engine, tokenizer_dir\)"):
        with_parameters(FRONT, "openai_bls", {"nonsense": "1"})


def test_a_parameter_in_a_comment_does_not_count() -> None:
    with pytest.raises(LaunchError, match="in_a_comment"):
        with_parameters(FRONT, "openai_bls", {"in_a_comment": "1"})


def test_the_queue_is_bounded_for_engines_without_sessions() -> None:
    limits = {"max_requests": "7", "max_queue_seconds": "1.5"}
    line = "dynamic_batching { default_queue_policy { default_timeout_microseconds: 1500000 max_queue_size: 7 } }"
    assert line in with_queue(FRONT, "m", limits).splitlines()
    usual = "dynamic_batching { default_queue_policy { default_timeout_microseconds: 60000000 max_queue_size: 512 } }"
    assert usual in with_queue(FRONT, "m", {}).splitlines()
    with pytest.raises(LaunchError, match="dynamic_batching"):
        with_queue(ENGINE, "m", {})


def test_switching_sessions_off_leaves_a_list_without_dangling_comma() -> None:
    config = without_sessions(ENGINE, "tensorrt_llm")
    assert "session_" not in config
    assert 'dims: [ -1 ] }\n]' in config
    assert 'key: "checkpoint"' in config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FRONT, "no tensor"),
        ('input {\n  name: "session_id"\n}', "more than one line"),
    ],
)
def test_sessions_that_cannot_be_switched_off_are_an_error(config: str, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        without_sessions(config, "m")


@pytest.mark.parametrize("config", ["", FRONT + FRONT])
def test_instances_need_exactly_one_line(config: str) -> None:
    with pytest.raises(LaunchError, match="exactly one line"):
        with_instances(config, "m", 2)


def test_parameters_for_a_model_that_is_not_there(source: Path, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="no such model"):
        assemble(source, tmp_path / "t", {"other": {"a": "b"}})


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_a_folder_without_models(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LaunchError, match="no model in"):
        assemble(tmp_path / folder, tmp_path / "t")
