"""Options -> the commands that make a TensorRT engine: convert or quantise the checkpoint, then trtllm-build.

In: options, facts about the model, where TensorRT-LLM's examples are. Out: Steps, and a check of what they have made.
Argument names are those of TensorRT-LLM 0.19 to 1.2, the last line that has them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from builder import images, stamp, tokenizer_info
from builder.model import Facts
from builder.options import DRAFT_LENGTHS, ENGINE, Options
from builder.steps import Step
from launcher.errors import LaunchError

BACKEND = Path("backends/tensorrtllm/libtriton_tensorrtllm.so")
TRITON = Path("/opt/tritonserver")
EXAMPLES = (Path("/app/examples"), Path("/app/tensorrt_llm/examples"))
"""Where NVIDIA's images keep them."""

EAGLE_LAYERS, EAGLE_NON_LEAVES, MEDUSA_HEADS = 4, 10, 4
"""What published EAGLE-1 and Medusa checkpoints have: draft tokens ahead, branching nodes per layer, heads."""
SPECULATIVE = {"lookahead": "lookahead_decoding", "eagle": "eagle", "medusa": "medusa"}
"""Mode -> --speculative_decoding_mode of trtllm-build."""


def problems() -> list[str]:
    """Why this machine cannot build or serve it, in sentences."""
    found = []
    if shutil.which("trtllm-build") is None:
        found.append("there is no trtllm-build on PATH")
    root = Path(os.environ.get("TRITON_ROOT", TRITON))
    if not (root / BACKEND).is_file():
        found.append(f"there is no {root / BACKEND}")
    version = stamp.version_of_package("tensorrt_llm")
    if images.version_of(version) > images.ENGINE_UNTIL:
        found.append(f"TensorRT-LLM {version} has no engine flow any more")
    if not found:
        return []
    return [f"--flow engine cannot work here: {'; '.join(found)}. Images that have it: {images.with_engine_flow()}. "
            "With newer ones use --flow pytorch."]


class Flow:
    """The steps of one build."""

    def __init__(self, options: Options, facts: Facts):
        self._options = options
        self._facts = facts
        self.checkpoint = options.work / "checkpoint"
        self.engine = options.work / "engine"
        self.tokenizer_info = options.work / "xgrammar_tokenizer_info.json"

    def steps(self) -> list[Step]:
        made = [
            Step("convert the checkpoint", self.checkpoint, self.convert(), made_from=self._made_from(),
                 check=lambda: check_checkpoint(self.checkpoint, self._options.world_size)),
            Step("build the engine (minutes to an hour)", self.engine, self.build(), made_from=stamp.machine(),
                 check=lambda: check_engine(self.engine, self._options.world_size)),
        ]
        if self._options.guided_decoding == "xgrammar":
            made.append(Step("describe the tokenizer for xgrammar", self.tokenizer_info, function=self._describe))
        return made

    def convert(self) -> list[str]:
        """Weights as TensorRT-LLM names and splits them."""
        options = self._options
        command = [sys.executable, str(self._script()), "--model_dir", str(self._facts.folder),
                   "--output_dir", str(self.checkpoint), "--dtype", options.dtype,
                   "--tp_size", str(options.tp), "--pp_size", str(options.pp)]
        if self._quantises:
            command += ["--qformat", "full_prec" if options.quantization == "none" else options.quantization,
                        "--calib_size", str(options.calibration_size)]
            if options.kv_cache_dtype != "auto":
                command += ["--kv_cache_dtype", options.kv_cache_dtype]
        else:
            command += ["--workers", str(options.workers or options.world_size)]
        return command + self._drafter()

    def build(self) -> list[str]:
        """The numbers here bound what the engine can do; what it does is said in config.pbtxt."""
        options, facts = self._options, self._facts
        length = options.max_seq_len or facts.max_seq_len
        command = [
            "trtllm-build", "--checkpoint_dir", str(self.checkpoint), "--output_dir", str(self.engine),
            "--max_batch_size", str(options.max_batch_size),
            "--max_seq_len", str(length), "--max_input_len", str(length - 1),
            "--max_num_tokens", str(self._max_num_tokens(length)),
            "--workers", str(options.workers or options.world_size),
            # What in-flight batching stands on; KV reuse and chunked context need the last one.
            "--remove_input_padding", "enable", "--kv_cache_type", "paged", "--context_fmha", "enable",
            "--use_paged_context_fmha", "enable",
            "--gpt_attention_plugin", "auto", "--gemm_plugin", "auto",
        ]
        if options.quantization == "fp8":
            command += ["--use_fp8_context_fmha", "enable"]
        if options.gather_logits:
            command += ["--gather_all_token_logits", "--logits_dtype", "float32"]
        if options.lora:
            adapters = sorted(path.parent for path in options.lora.glob("*/adapter_config.json"))
            command += ["--lora_plugin", "auto", "--max_lora_rank", str(options.lora_rank),
                        "--lora_dir", *map(str, adapters)]
        if options.speculative != "none":
            command += ["--speculative_decoding_mode", SPECULATIVE[options.speculative],
                        "--max_draft_len", str(self._draft_len)]
        return command

    def _max_num_tokens(self, length: int) -> int:
        """Without chunked context a step must take the longest prompt."""
        wanted = int(self._options.max_num_tokens)
        return wanted if self._options.chunked_context else max(wanted, length)

    @property
    def _draft_len(self) -> int:
        return int(self._options.draft_len or DRAFT_LENGTHS[ENGINE])

    @property
    def _quantises(self) -> bool:
        options = self._options
        return bool(options.quantization != "none" or options.kv_cache_dtype != "auto")

    def _drafter(self) -> list[str]:
        options = self._options
        if options.speculative == "eagle":
            return ["--eagle_model_dir", str(options.speculative_model), "--max_draft_len", str(self._draft_len),
                    "--num_eagle_layers", str(EAGLE_LAYERS), "--max_non_leaves_per_layer", str(EAGLE_NON_LEAVES)]
        if options.speculative == "medusa":
            return ["--medusa_model_dir", str(options.speculative_model), "--num_medusa_heads", str(MEDUSA_HEADS)]
        return []

    def _script(self) -> Path:
        """quantize.py, or the convert_checkpoint.py of the model's family."""
        if self._quantises:
            return self._find("quantization/quantize.py")
        mode = self._options.speculative
        place = mode if mode in ("eagle", "medusa") else self._facts.converter()
        return self._find(f"{place}/convert_checkpoint.py")

    def _find(self, script: str) -> Path:
        named = self._options.examples
        for root in [named] if named else EXAMPLES:
            if (root / script).is_file():
                return Path(root / script)
        on_path = None if named else shutil.which(Path(script).name)
        if on_path:
            return Path(on_path)
        if self._options.dry_run:
            return (named or EXAMPLES[0]) / script
        places = ", ".join(str(root) for root in ([named] if named else EXAMPLES))
        raise LaunchError(f"There is no {script} in {places}: name the folder of TensorRT-LLM's examples (--examples).")

    def _describe(self) -> None:
        tokenizer_info.write(self._facts.folder, self._facts.end_ids, self.tokenizer_info)

    def _made_from(self) -> dict[str, Any]:
        return {"config": stamp.contents(self._options, self._facts)["model"], **stamp.machine()}


def check_checkpoint(folder: Path, world_size: int) -> None:
    """Raises LaunchError if ranks are missing."""
    _check_ranks(folder, world_size, "rank{}.safetensors", "checkpoint")


def check_engine(folder: Path, world_size: int) -> None:
    """Raises LaunchError for an engine that is half built or made for another number of GPUs."""
    _check_ranks(folder, world_size, "rank{}.engine", "engine")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    built_for = config.get("pretrained_config", {}).get("mapping", {}).get("world_size", world_size)
    if built_for != world_size:
        raise LaunchError(f"The engine in {folder} was built for {built_for} GPUs, not for {world_size}.")


def _check_ranks(folder: Path, world_size: int, pattern: str, kind: str) -> None:
    names = ["config.json", *(pattern.format(rank) for rank in range(world_size))]
    missing = [name for name in names if not (folder / name).is_file() or not (folder / name).stat().st_size]
    if missing:
        raise LaunchError(f"The {kind} in {folder} is half built: {', '.join(missing)} missing or empty. Give the same "
                          "command again: this step is made anew.")
