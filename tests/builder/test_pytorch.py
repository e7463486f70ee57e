"""--flow pytorch: what LLM would get, checked by the stand-in for TensorRT-LLM; an answer through Triton with it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder import images
from launcher.errors import LaunchError
from tests.builder.conftest import Build, ask, started, triton_line

STANDIN = Path(__file__).resolve().parents[1] / "engine" / "standin"


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The class LLM; it refuses arguments that the real one does not have."""
    monkeypatch.syspath_prepend(str(STANDIN))
    from tensorrt_llm import LLM
    from tensorrt_llm.llmapi.llm_utils import update_llm_args_with_extra_dict

    yield lambda options: LLM("model", **update_llm_args_with_extra_dict({}, options))
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt_llm"]:
        del sys.modules[name]


def options_in(output: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((output / "tensorrt_llm" / "llm_options.json").read_text())
    return read


def test_parameters(run: Build, output: Path, tmp_path: Path) -> None:
    told = run("--max-batch-size", "8", "--max-seq-len", "256", "--lora", str(tmp_path), "--kv-reuse", "off")
    config = (output / "tensorrt_llm" / "config.pbtxt").read_text()
    for key, value in {
        "runner": "trtllm", "max_batch_size": "8", "max_seq_len": "256", "llm_options": "llm_options.json",
        "lora_dir": str(tmp_path), "guided_decoding_backend": "xgrammar", "kv_cache_reuse_tokens": "0",
        "gather_generation_logits": "false",
    }.items():
        assert f'key: "{key}" value: {{ string_value: "{value}" }}' in config
    assert any("There is no TensorRT-LLM here" in line and "26.07-trtllm-python-py3" in line for line in told)


def test_arguments(run: Build, output: Path, llm: Any) -> None:
    run("--tp", "2", "--pp", "2", "--dtype", "bfloat16", "--kv-cache-dtype", "fp8", "--kv-cache-fraction", "0.7",
        "--max-num-tokens", "4096", "--chunked-context", "off")
    made = llm(options_in(output)).arguments
    cache = made.pop("kv_cache_config")
    assert (cache.free_gpu_memory_fraction, cache.dtype) == (0.7, "fp8")
    assert made == {"dtype": "bfloat16", "tensor_parallel_size": 2, "pipeline_parallel_size": 2, "max_num_tokens": 4096,
                    "enable_chunked_prefill": False}


@pytest.mark.parametrize("mode, count", [("ngram", "max_draft_len"), ("eagle", "max_draft_len"),
                                         ("mtp", "num_nextn_predict_layers"), ("draft_target", "max_draft_len")])
def test_speculative_decoding(run: Build, output: Path, tmp_path: Path, llm: Any, mode: str, count: str) -> None:
    drafter = ["--speculative-model", str(tmp_path)] if mode in ("eagle", "draft_target") else []
    run("--speculative", mode, "--draft-len", "3", *drafter)
    config = llm(options_in(output)).arguments["speculative_config"]
    assert getattr(config, count) == 3 and (not drafter or config.speculative_model_dir == str(tmp_path))


def test_what_the_flow_has_not(run: Build) -> None:
    with pytest.raises(LaunchError, match="int8 is not part of the pytorch flow"):
        run("--kv-cache-dtype", "int8")


def test_an_answer_through_triton(run: Build, output: Path, tmp_path: Path) -> None:
    """Everything is real but tensorrt_llm itself, which lies beside the engine model's files here."""
    told = run("--guided-decoding", "none")
    shutil.copytree(STANDIN / "tensorrt_llm", output / "tensorrt_llm" / "1" / "tensorrt_llm")
    with started(triton_line(told), tmp_path / "triton.log") as url:
        body = {"model": "tiny", "prompt": [5, 9, 77], "max_tokens": 6, "temperature": 0, "logprobs": 1}
        answer = json.loads(ask(url, "completions", json.dumps(body)))
        assert answer["usage"]["completion_tokens"] == 6 and len(answer["choices"][0]["logprobs"]["tokens"]) == 6
        streamed = ask(url, "completions", json.dumps(body | {"stream": True, "n": 2}))
        assert streamed.rstrip().endswith("data: [DONE]") and '"index":1' in streamed


def test_images() -> None:
    assert images.version_of("1.2.0rc3") == (1, 2) and images.version_of("unknown") == (0, 0)
    assert "25.09 (1.0.0)" in images.with_pytorch_flow() and "25.01 (0.17.0)" in images.with_engine_flow()
