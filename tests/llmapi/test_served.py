"""openai_bls in front of a stand-in for NVIDIA's llmapi model, both in Triton."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from builder.build import build
from builder.options import parse
from engine import tiny_checkpoint
from tests.builder.conftest import ask, started, triton_line


def test_through_triton(tmp_path: Path) -> None:
    model, repository, told = tmp_path / "tiny", tmp_path / "repository", []
    tiny_checkpoint.make(model)
    build(parse([str(model), str(repository), "--flow", "cpu", "--instances", "2"]), told.append)
    shutil.rmtree(repository / "tensorrt_llm")
    shutil.copytree(Path(__file__).parent / "standin", repository / "tensorrt_llm")
    with started(triton_line(told), tmp_path / "triton.log") as url:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Count!"}], "max_tokens": 4}
        answer = json.loads(ask(url, "chat/completions", json.dumps(body)))
        assert answer["choices"][0]["message"]["content"] == " 1 2 3é 4"
        assert answer["choices"][0]["finish_reason"] == "length"
        streamed = ask(url, "chat/completions", json.dumps(body | {"stream": True, "stop": [" 3"], "max_tokens": 500}))
        chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
        text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        assert text == " 1 2" and chunks[-1]["choices"][0]["finish_reason"] == "stop"
        refused = ask(url, "chat/completions", json.dumps(body | {"logprobs": True}))
        assert "'logprobs' is not supported by this server's engine" in refused
