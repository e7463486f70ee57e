"""--flow engine, with stand-ins for TensorRT-LLM's tools that take exactly the real arguments."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import LaunchError
from tests.builder.conftest import STANDIN, Build, started, triton_line

FLOW = ("--flow", "engine", "--examples", str(STANDIN / "examples"))


def arguments(output: Path, what: str) -> dict[str, Any]:
    """The command line with which a stand-in was called: name -> value, or True."""
    argv = json.loads((output.with_name("repository.build") / what / "config.json").read_text())["argv"]
    found: dict[str, Any] = {}
    for place, word in enumerate(argv):
        if word.startswith("--"):
            after = argv[place + 1: place + 2]
            found[word[2:]] = after[0] if after and not after[0].startswith("--") else True
    return found


def parameters(output: Path) -> dict[str, str]:
    config = (output / "tensorrt_llm" / "config.pbtxt").read_text()
    rows = re.findall(r'^parameters \{ key: "(\w+)" value: \{ string_value: "([^"]*)" \} \}$', config, re.MULTILINE)
    return dict(rows)


@pytest.mark.usefixtures("tensorrt_llm")
def test_a_whole_build(run: Build, output: Path, tiny: Path) -> None:
    told = run(*FLOW, "--max-batch-size", "32", "--max-seq-len", "1024", "--tp", "2")
    assert arguments(output, "checkpoint") | {"output_dir": ""} == {
        "model_dir": str(tiny), "output_dir": "", "dtype": "auto", "tp_size": "2", "pp_size": "1", "workers": "2"}
    build = arguments(output, "engine")
    assert {name: build[name] for name in ("max_batch_size", "max_seq_len", "max_input_len", "max_num_tokens")} == {
        "max_batch_size": "32", "max_seq_len": "1024", "max_input_len": "1023", "max_num_tokens": "8192"}
    assert build["use_paged_context_fmha"] == "enable" and "gather_all_token_logits" not in build
    assert {path.name for path in (output / "tensorrt_llm" / "1").iterdir()} == {
        "config.json", "rank0.engine", "rank1.engine"}
    assert told[-2].strip() == (
        f"python3 /app/scripts/launch_triton_server.py --world_size=2 --model_repo={output}")
    front = (output / "openai_bls" / "config.pbtxt").read_text()
    assert "count: 16 " in front and 'key: "max_model_len" value: { string_value: "1024" }' in front


@pytest.mark.usefixtures("tensorrt_llm")
def test_parameters_of_the_backend(run: Build, output: Path, tiny: Path) -> None:
    run(*FLOW, "--kv-cache-fraction", "0.8", "--kv-reuse", "off")
    found, model = parameters(output), output / "tensorrt_llm"
    assert found["gpt_model_path"] == str(model / "1") and found["gpt_model_type"] == "inflight_fused_batching"
    assert (found["kv_cache_free_gpu_mem_fraction"], found["enable_kv_cache_reuse"]) == ("0.8", "false")
    assert (found["exclude_input_in_output"], found["normalize_log_probs"]) == ("true", "false")
    assert found["tokenizer_dir"] == str(output / "openai_bls" / "tokenizer")
    info = json.loads(Path(found["xgrammar_tokenizer_info_path"]).read_text())
    assert len(info["encoded_vocab"]) == 1280 and info["stop_token_ids"]
    assert json.loads(info["tokenizer_str"])["model"]["type"] == "BPE"
    config = (model / "config.pbtxt").read_text()
    assert "session_" not in config and 'backend: "tensorrtllm"' in config
    assert all("allow_ragged_batch: true" in line for line in config[: config.index("output [")].split("\n")
               if line.startswith("  { name: "))


@pytest.mark.usefixtures("tensorrt_llm")
def test_triton_reads_the_configuration(run: Build, output: Path, tmp_path: Path) -> None:
    """This Triton has no such backend, and says so; a configuration that it cannot read is another message."""
    line = triton_line(run(*FLOW))
    shutil.rmtree(output / "openai_bls")
    with started(line, tmp_path / "triton.log", ready=False) as log:
        assert re.search("unable to find .*tensorrtllm", log), log[-2000:]


@pytest.mark.usefixtures("tensorrt_llm")
@pytest.mark.parametrize("options, converted, built", [
    (("--quantization", "fp8", "--kv-cache-dtype", "fp8", "--calibration-size", "64"),
     {"qformat": "fp8", "kv_cache_dtype": "fp8", "calib_size": "64"}, {"use_fp8_context_fmha": "enable"}),
    (("--kv-cache-dtype", "int8"), {"qformat": "full_prec", "kv_cache_dtype": "int8"}, {}),
    (("--gather-logits", "on"), {}, {"gather_all_token_logits": True, "logits_dtype": "float32"}),
    (("--chunked-context", "off", "--max-num-tokens", "100"), {}, {"max_num_tokens": "2048"}),
    (("--speculative", "lookahead"), {}, {"speculative_decoding_mode": "lookahead_decoding", "max_draft_len": "63"}),
    (("--speculative", "eagle", "--speculative-model", "."), {"num_eagle_layers": "4", "max_draft_len": "63"},
     {"speculative_decoding_mode": "eagle"}),
    (("--speculative", "medusa", "--speculative-model", "."), {"num_medusa_heads": "4"},
     {"speculative_decoding_mode": "medusa"}),
])
def test_options(run: Build, output: Path, options: tuple[str, ...], converted: dict[str, Any],
                 built: dict[str, Any]) -> None:
    run(*FLOW, *options)
    assert converted.items() <= arguments(output, "checkpoint").items()
    assert built.items() <= arguments(output, "engine").items()


@pytest.mark.usefixtures("tensorrt_llm")
def test_lora(run: Build, output: Path, tmp_path: Path) -> None:
    for name in ("poet", "pirate"):
        (tmp_path / "adapters" / name).mkdir(parents=True)
        (tmp_path / "adapters" / name / "adapter_config.json").write_text("{}")
    (tmp_path / "adapters" / "notes").mkdir()
    run(*FLOW, "--lora", str(tmp_path / "adapters"), "--lora-rank", "16", "--dtype", "float16")
    built = arguments(output, "engine")
    assert (built["lora_plugin"], built["max_lora_rank"], built["lora_dir"]) == (
        "auto", "16", str(tmp_path / "adapters" / "pirate"))
    front = (output / "openai_bls" / "config.pbtxt").read_text()
    assert f'key: "lora" value: {{ string_value: "{tmp_path / "adapters"}" }}' in front


@pytest.mark.usefixtures("tensorrt_llm")
def test_it_goes_on_where_it_failed(run: Build, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_FAIL", "trtllm-build")
    with pytest.raises(LaunchError, match=r"(?s)failed with status 3 .*engine\.log.*CUDA out of memory"):
        run(*FLOW)
    assert not output.exists()
    monkeypatch.delenv("STANDIN_FAIL")
    told = run(*FLOW)
    assert "[1/3] convert the checkpoint: done before" in told and output.is_dir()
    assert sum(line.endswith("done before") for line in run(*FLOW)) == 3


@pytest.mark.usefixtures("tensorrt_llm")
def test_other_options_make_it_anew(run: Build, output: Path) -> None:
    run(*FLOW)
    told = run(*FLOW, "--max-batch-size", "2")
    assert [line.endswith("done before") for line in told if line.startswith("[1/3]")] == [True]
    assert not any(line.startswith("[2/3]") and line.endswith("done before") for line in told)
    assert arguments(output, "engine")["max_batch_size"] == "2"


@pytest.mark.usefixtures("tensorrt_llm")
@pytest.mark.parametrize("file, kind", [("rank1.engine", "engine"), ("rank0.safetensors", "checkpoint")])
def test_half_built_is_refused(run: Build, output: Path, monkeypatch: pytest.MonkeyPatch, file: str, kind: str) -> None:
    monkeypatch.setenv("STANDIN_DROP", file)
    with pytest.raises(LaunchError, match=f"The {kind} in .* is half built: {file} missing or empty"):
        run(*FLOW, "--tp", "2")
    assert not output.exists()
    monkeypatch.delenv("STANDIN_DROP")
    run(*FLOW, "--tp", "2")
    assert output.is_dir()


def test_a_machine_without_the_flow(run: Build) -> None:
    with pytest.raises(LaunchError, match=r"no trtllm-build on PATH.*26\.07-trtllm-python-py3"):
        run(*FLOW)


def test_dry_run_shows_the_commands(run: Build, output: Path) -> None:
    told = "\n".join(run(*FLOW, "--dry-run", "--quantization", "int4_awq"))
    assert re.search("quantize.py'? --model_dir", told) and "trtllm-build --checkpoint_dir" in told and "note: " in told
    assert not output.exists() and not output.with_name("repository.build").exists()


@pytest.mark.usefixtures("tensorrt_llm")
def test_models_that_nobody_converts(run: Build, tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").touch()
    (other / "config.json").write_text(json.dumps(
        json.loads((tiny / "config.json").read_text()) | {"model_type": "unheard_of"}))
    with pytest.raises(LaunchError, match="does not know how to convert unheard_of"):
        run(*FLOW, model=other)
