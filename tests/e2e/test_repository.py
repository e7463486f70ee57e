"""The folders as they stand in any Triton: the whole repository, and openai_bls alone beside somebody's engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from launcher import triton
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def tritonserver(repository: Path, run: Path) -> Iterator[str]:
    """A plain Triton on a repository; gives its URL."""
    server = triton.start(triton.find(None, run / "backends"), repository, run, port := free_port(), free_port())
    try:
        server.wait_until_ready(60, lambda told: None)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


def ask(url: str, request: str) -> str:
    """The texts of openai_bls' answers, by Triton's own endpoint."""
    body = {"endpoint": "completions", "request": request}
    answer = requests.post(f"{url}/v2/models/openai_bls/generate_stream", json=body, timeout=60)
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.strip()]
    return "".join(json.loads(event)["response"] for event in events)


def test_the_repository_loads_as_it_stands(tmp_path: Path) -> None:
    # Triton cannot start a Python model whose path has a space; that of this tree may have one.
    (tmp_path / "model_repository").symlink_to(ROOT / "model_repository")
    with tritonserver(tmp_path / "model_repository", tmp_path) as url:
        listed = requests.post(
            f"{url}/v2/models/openai_bls/generate", json={"endpoint": "models", "request": ""}, timeout=60
        ).json()["response"]
        name = json.loads(listed)["data"][0]["id"]
        assert '"completion_tokens":4' in ask(url, f'{{"model": "{name}", "prompt": "a", "max_tokens": 4}}')


def test_a_copied_openai_bls_works_beside_any_engine(tmp_path: Path, checkpoint: Path) -> None:
    """`cp -rL`, away from this tree. The engine knows no sessions, so the tokenizer lies in the copied folder."""
    repository = tmp_path / "theirs"
    repository.mkdir()
    subprocess.run(["cp", "-rL", ROOT / "openai_bls", repository], check=True)
    shutil.copytree(ROOT / "model_repository" / "tensorrt_llm", repository / "tensorrt_llm")
    config = repository / "tensorrt_llm" / "config.pbtxt"
    config.write_text("\n".join(line for line in config.read_text().splitlines() if 'name: "session_' not in line))
    shutil.copytree(checkpoint, repository / "openai_bls" / "tokenizer")
    with tritonserver(repository, tmp_path) as url:
        assert '"completion_tokens":4' in ask(url, '{"model": "openai_bls", "prompt": "a", "max_tokens": 4}')
