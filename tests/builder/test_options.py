"""What can be set: defaults, what does not fit together, and that every option says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.options import CPU, ENGINE, FLOWS, OPTIONS, PYTORCH, parse, parser
from launcher.errors import LaunchError


def test_defaults_depend_on_the_flow() -> None:
    assert parse(["m", "out"]).flow == PYTORCH
    assert [parse(["m", "out", "--flow", flow]).instances for flow in FLOWS] == [1, 16, 1]
    chosen = parse(["m", "out", "--flow", ENGINE, "--tp", "2", "--pp", "2", "--kv-reuse", "off"])
    assert (chosen.world_size, chosen.kv_reuse, chosen.work.name) == (4, False, "out.build")


def test_every_option_is_explained() -> None:
    told = " ".join(parser().format_help().split())
    for option in OPTIONS:
        assert option.flag in told and len(option.why) > 30


@pytest.mark.parametrize("arguments, wrong", [
    (["m"], "OUTPUT_REPO"),
    (["m", "o", "--flow", "gpu"], "wanted pytorch, engine, cpu; found 'gpu'"),
    (["m", "o", "--max-batch-size", "0"], "--max-batch-size"),
    (["m", "o", "--kv-cache-fraction", "1.5"], "between 0 and 1"),
    (["m", "o", "--lora", "/nowhere"], "there is no folder /nowhere"),
    (["m", "o", "--flow", ENGINE, "--lora", "."], "--lora needs --dtype float16"),
    (["m", "o", "--flow", CPU, "--tp", "2"], "--tp has no meaning with --flow cpu"),
    (["m", "o", "--quantization", "fp8"], "--quantization has no meaning with --flow pytorch"),
    (["m", "o", "--speculative", "medusa"], "not part of the pytorch flow"),
    (["m", "o", "--speculative", "eagle"], "--speculative-model goes with"),
    (["m", "o", "--flow", ENGINE, "--guided-decoding", "llguidance"], "xgrammar only"),
])
def test_what_does_not_fit(arguments: list[str], wrong: str) -> None:
    with pytest.raises(LaunchError, match=wrong):
        parse(arguments)


def test_the_script(tmp_path: Path, tiny: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "build_engine.sh"
    environment = os.environ | {"PYTHON": sys.executable}
    command = [str(script), str(tiny), str(tmp_path / "out"), "--flow", "cpu", "--dry-run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "tritonserver --model-repository=" in done.stdout and not list(tmp_path.iterdir())
    wrong = subprocess.run([*command, "--tp", "2"], env=environment, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: --tp has no meaning with --flow cpu")
