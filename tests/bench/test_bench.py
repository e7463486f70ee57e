"""The benchmark itself, with real servers: what it measures is what was there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from bench import build, run, stacks
from bench.__main__ import main
from bench.run import Load, measure
from bench.stacks import Engine, Running
from launcher import triton

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="needs a C++ compiler")

PLACES = 3  # of the engine
NONE = {"input_ids": [3], "input_lengths": 1, "request_output_len": 1}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    engine = Engine(step_us=2000, max_batch_size=PLACES)
    with stacks.serving("session", engine, tmp_path_factory.mktemp("bench") / "servers") as found:
        yield found


def engine_request(running: Running, tokens: int, action: str = "generate_stream", **more: Any) -> requests.Response:
    """`more` are inputs, and "id"."""
    url = f"{running.stack.triton_url}/v2/models/tensorrt_llm/{action}"
    body = {"input_ids": [3, 4], "input_lengths": 2, "request_output_len": tokens, "seed": 7, **more}
    return requests.post(url, json=body, timeout=30, stream=True)


def ids_in(answer: requests.Response) -> list[int]:
    found: list[int] = []
    for line in answer.iter_lines():
        ids = json.loads(line.removeprefix(b"data: "))["output_ids"] if line else []
        found += ids if isinstance(ids, list) else [ids]
    return found


def expected(running: Running, seed: int, count: int) -> list[int]:
    lines = (Path(running.stack.settings.models).parent / stacks.WORDS).read_text().splitlines()
    known = [int(line.split()[0]) for line in lines]
    return [known[(seed + place) % len(known)] for place in range(count)]


@pytest.mark.parametrize("system", ["engine alone", "session", "session + gateway"])
def test_two_streams_through_each_way(running: Running, system: str) -> None:
    target = running.targets[system]
    found = measure(target, Load(2, 1.0, tokens=20, warm_up=60, requests=2))  # loads the tokenizer
    assert (found.errors, found.wrong, found.error) == (0, 0, "")
    found = measure(target, Load(2, 1.0, tokens=20))
    assert (found.errors, found.wrong, found.error) == (0, 0, "")
    assert found.answers > 0 and found.tokens_per_s > 0 and found.tokens_per_chunk >= 1
    assert found.first_ms.p50 is not None and found.gap_ms.p50 is not None
    assert set(found.memory_mb) >= {"tritonserver", "nginx"}
    assert found.cpu_s_per_1000["tritonserver"] > 0


def test_other_texts_than_expected_are_noticed(running: Running, tmp_path: Path) -> None:
    target = running.targets["session"]
    assert target.table is not None
    lines = target.table.read_text().splitlines(keepends=True)
    (tmp_path / "others").write_text("".join(lines[1:]))
    found = measure(replace(target, table=tmp_path / "others"), Load(1, 0.5, tokens=20))
    assert found.wrong > 0 and "not the expected one" in found.error
    found = measure(target, Load(1, 0.5, tokens=1, requests=1))
    assert found.wrong == 0
    generator_wants = 30  # tokens, where the engine is asked for 20
    with run.generating(replace(target, more={"max_tokens": 20}), Load(1, 0.5, tokens=generator_wants)) as generator:
        generator.wait_for("begin")
        generator.wait_for("end")
        said = generator.result()
    assert said["wrong"] > 0 and "a text of 20 tokens" in said["error"]


def test_errors_are_counted(running: Running) -> None:
    wrong_model = replace(running.targets["session + gateway"], model="nobody")
    found = measure(wrong_model, Load(1, 0.3))
    assert found.errors > 0 and found.answers == 0 and "404" in found.error
    nobody = replace(wrong_model, port=stacks.free_port())
    found = measure(nobody, Load(1, 0.3))
    assert found.errors > 0 and "refused" in found.error


def test_the_engine_answers_as_a_whole_and_in_steps(running: Running) -> None:
    assert ids_in(engine_request(running, 5, streaming=True)) == expected(running, 7, 5)
    assert engine_request(running, 5, "generate").json()["output_ids"] == expected(running, 7, 5)


@pytest.mark.parametrize("bad", [{"input_ids": list(range(stacks.MAX_SEQ_LEN))}, {"request_output_len": 0}])
def test_the_engine_refuses_what_it_cannot_do(running: Running, bad: dict[str, Any]) -> None:
    refused = engine_request(running, 5, "generate", **bad)
    assert refused.status_code >= 400 and refused.json()["error"]


def test_places_of_clients_that_left_are_free(running: Running) -> None:
    for _ in range(PLACES):
        with engine_request(running, 100_000, streaming=True) as answer:
            next(answer.iter_lines())
    assert ids_in(engine_request(running, 2, streaming=True)) == expected(running, 7, 2)


def test_a_stop_request_ends_its_request(running: Running) -> None:
    answer = engine_request(running, 100_000, streaming=True, id="long")
    lines = answer.iter_lines()
    next(lines)
    engine_request(running, 1, stop=True, id="long")
    assert len(list(lines)) < 2 * 100_000  # it ends; without the stop the request would time out


def test_the_load_generator_by_itself(tmp_path: Path) -> None:
    found = run.ceiling(4, tmp_path, stacks.free_port(), seconds=0.3)
    assert found.answers > 0 and found.errors == 0 and found.tokens_per_chunk == 1


def test_the_command(running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a server that it does not start."""
    server = ["--url", running.stack.base_url, "--model", stacks.MODEL, "--pid", str(running.pids[0])]
    load = ["--forms", "", "--streams", "1,2", "--repeats", "1", "--seconds", "0.5", "--out", str(tmp_path)]
    assert main([*server, *load]) == 0
    table = capsys.readouterr().out
    assert f"{stacks.MODEL} at" in table and "wrong texts" not in table
    kept = json.loads((tmp_path / "matrix.json").read_text())
    assert [each["streams"] for each in kept["figures"]] == [1, 2]
    assert all(each["tokens_per_s"] > 0 and each["cpu_s_per_1000"] for each in kept["figures"])
    assert (tmp_path / "matrix.svg").read_text().startswith("<svg")
    assert (tmp_path / "matrix.md").read_text() == table[:-1]
    again = ["--also", str(tmp_path / "matrix.json"), "--name", "another"]
    assert main([*server, *load, *again, "--streams", "1"]) == 0
    kept = json.loads((tmp_path / "matrix.json").read_text())
    assert [each["streams"] for each in kept["figures"]] == [1, 2, 1]
    assert kept["figures"][-1]["system"] == "another"


def test_wrong_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--modes", "none"], ["--forms", "grpc"], ["--url", "http://h/v1"], ["--set", "x"], ["nothing"]):
        with pytest.raises(SystemExit):
            main(arguments)
    assert "wanted some of" in capsys.readouterr().err


def test_the_engine_for_front_ends_that_want_text(tmp_path: Path) -> None:
    stacks.write_text_engine(tmp_path / "models", Engine(step_us=1000))
    server = triton.start(
        triton.find(None, tmp_path / "backends"), tmp_path / "models", tmp_path, stacks.free_port(), stacks.free_port()
    )
    try:
        server.wait_until_ready(60, lambda step: None)
        url = f"http://127.0.0.1:{server.http_port}/v2/models/text/generate_stream"
        body = {"text_input": "hi", "max_tokens": 5, "stream": True, "seed": 7}
        lines = requests.post(url, json=body, timeout=30).content.split(b"\n\n")
        found = [json.loads(line.removeprefix(b"data: "))["text_output"] for line in lines if line]
    finally:
        server.stop()
    words = [line.partition(" ")[2] for line in (tmp_path / "models" / "text" / stacks.WORDS).read_text().splitlines()]
    assert found == [words[7 + place] for place in range(5)]
