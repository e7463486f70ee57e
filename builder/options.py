"""What can be set, with defaults and reasons: the table OPTIONS is also what --help prints.

In: a command line. Out: `Options`, checked against the flow, or a LaunchError that names what does not fit. An option's
default may depend on the flow. It knows nothing about how something is built.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from launcher.errors import LaunchError

PYTORCH, ENGINE, CPU = FLOWS = ("pytorch", "engine", "cpu")
GPU = (PYTORCH, ENGINE)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"wanted a whole number from 1 on, found '{text}'")
    return int(text)


def fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"wanted a number between 0 and 1, found '{text}'")
    return value


def one_of(*known: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"wanted {', '.join(known)}; found '{text}'")
        return text

    return read


def on_off(text: str) -> bool:
    return one_of("on", "off")(text) == "on"


def folder(text: str) -> Path:
    path = Path(text).expanduser().resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return path


class Option(NamedTuple):
    flag: str
    read: Callable[[str], Any]
    default: Any
    why: str
    flows: Sequence[str] = FLOWS
    values: str = "N"

    @property
    def name(self) -> str:
        return self.flag[2:].replace("-", "_")


OPTIONS = (
    Option("--dtype", one_of("auto", "float16", "bfloat16", "float32"), "auto",
           "type of weights that are not quantised; auto is the checkpoint's own, which is what it was trained for",
           GPU, "TYPE"),
    Option("--quantization", one_of("none", "fp8", "nvfp4", "int8_sq", "int4_awq", "w4a8_awq", "int8_wo", "int4_wo"),
           "none", "quantise while building: fp8 from Ada and Hopper on, nvfp4 from Blackwell on, int4_awq elsewhere. "
           "The pytorch flow reads checkpoints that are quantised already (nvidia/…-FP8) and needs no option",
           (ENGINE,), "FORMAT"),
    Option("--kv-cache-dtype", one_of("auto", "fp8", "int8"), "auto",
           "fp8 doubles what the KV cache holds and costs little quality; auto does what the checkpoint says", GPU,
           "TYPE"),
    Option("--calibration-size", positive, 512,
           "texts that quantisation looks at: with more of them scales hardly change, and it takes longer", (ENGINE,)),
    Option("--tp", positive, 1, "GPUs that share each layer: as few as hold the model, since they talk in every layer",
           GPU),
    Option("--pp", positive, 1, "groups of GPUs that take layers in turn: where GPUs are not linked by NVLink, and for "
           "more GPUs than one machine has", GPU),
    Option("--max-batch-size", positive, 64,
           "requests that run at the same time. Steps take longer the more there are, so it also bounds the time "
           "between tokens; a server for batch work takes 256 and more"),
    Option("--max-seq-len", positive, None,
           "prompt and answer together, in tokens; without it what the model was trained for. Each running request may "
           "take so much KV cache: less lets more of them run"),
    Option("--max-num-tokens", positive, 8192,
           "tokens of one step. Prompts are read in pieces of this size: larger reads prompts faster, smaller keeps "
           "streams steadier and takes less memory", GPU),
    Option("--kv-cache-fraction", fraction, 0.9,
           "share of the memory left by the weights that the KV cache takes; the rest is for activations and CUDA "
           "graphs, so take 0.8 if loading ends with out of memory", GPU, "SHARE"),
    Option("--kv-reuse", on_off, True, "keep what prompts begin with (system prompts, conversations) for the next ones",
           FLOWS, "on|off"),
    Option("--chunked-context", on_off, True,
           "read long prompts in pieces between the steps of others, which otherwise stand still meanwhile", GPU,
           "on|off"),
    Option("--gather-logits", on_off, False,
           "for top_logprobs and logprobs of prompts, which the C++ backend has only as logits: a vocabulary of floats "
           "per token. The other flows have them without", (ENGINE,), "on|off"),
    Option("--lora", folder, None,
           "folder of LoRA adapters in Hugging Face's form (PEFT), each in a folder with its name", FLOWS, "DIR"),
    Option("--lora-rank", positive, 64, "the largest rank that adapters may have; it sizes their buffers", (ENGINE,)),
    Option("--guided-decoding", one_of("none", "xgrammar", "llguidance"), "xgrammar",
           "what enforces response_format and tools; all versions have xgrammar, llguidance is for the pytorch flow",
           GPU, "BACKEND"),
    Option("--speculative", one_of("none", "ngram", "eagle", "mtp", "draft_target", "lookahead", "medusa"), "none",
           "draft tokens inside the engine: faster answers for few requests at a time, slower ones for many", GPU,
           "MODE"),
    Option("--speculative-model", folder, None, "the model that drafts (eagle, draft_target, medusa)", GPU, "DIR"),
    Option("--draft-len", positive, None,
           "draft tokens of a step; without it 4 for a chain (pytorch flow), 63 for a tree (engine flow)", GPU),
    Option("--runner", one_of("numpy", "transformers"), "numpy",
           "numpy needs nothing else and knows Llama layouts; transformers knows all of Hugging Face's and needs torch",
           (CPU,), "RUNNER"),
    Option("--instances", positive, {PYTORCH: 1, CPU: 1, ENGINE: 16},
           "processes of openai_bls, 40 MB each. One serves hundreds of streams where the engine knows sessions. The "
           "C++ backend does not: there each serves one request at a time, so take as many as shall run together"),
    Option("--served-model-name", str, None, "what clients put into \"model\"; without it the model's own name", FLOWS,
           "NAME"),
    Option("--copy-model", on_off, False,
           "copy the weights into the repository, so that it can be moved; otherwise it names the folder they are in",
           (PYTORCH, CPU), "on|off"),
    Option("--examples", folder, None,
           "TensorRT-LLM's examples (convert_checkpoint.py); without it /app and PATH are searched", (ENGINE,), "DIR"),
    Option("--workers", positive, None, "ranks that are built at the same time; without it all, one on each GPU",
           (ENGINE,)),
)  # fmt: skip

MODES: Mapping[str, Sequence[str]] = {
    PYTORCH: ("none", "ngram", "eagle", "mtp", "draft_target"),
    ENGINE: ("none", "lookahead", "eagle", "medusa"),
}
"""Flow -> the kinds of speculative decoding that live inside its engine."""
WITH_DRAFTER = ("eagle", "draft_target", "medusa")
DRAFT_LENGTHS: Mapping[str, int] = {PYTORCH: 4, ENGINE: 63}


@dataclass(frozen=True)
class Options:
    """The command line, checked. `values` has every option of the flow by name."""

    model: str
    output: Path
    flow: str
    dry_run: bool
    values: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def work(self) -> Path:
        """What is made on the way; kept, so that an interrupted build goes on."""
        return self.output.with_name(self.output.name + ".build")

    @property
    def world_size(self) -> int:
        return int(self.tp * self.pp)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LaunchError(f"{message}; see ./build_engine.sh --help")


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog="./build_engine.sh",
        description="Writes a Triton model repository that serves MODEL over OpenAI's API, and prints the two lines "
        "that start it. What is done is not done again: after a failure the same command goes on.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=110),
        allow_abbrev=False,
    )
    made.add_argument("model", metavar="MODEL", help="folder of a Hugging Face model, or its id (org/name)")
    made.add_argument("output", metavar="OUTPUT_REPO", help="the folder to write; OUTPUT_REPO.build keeps what is made "
                      "on the way, and the logs")
    made.add_argument("--flow", type=one_of(*FLOWS), default=PYTORCH, metavar="FLOW",
                      help="pytorch: TensorRT-LLM 1.0 or newer reads the model as it is (default); engine: TensorRT "
                      "compiles it for NVIDIA's C++ backend, which ends with TensorRT-LLM 1.2; cpu: no GPU")
    made.add_argument("--dry-run", action="store_true", help="say what would be done, with every command")
    for option in OPTIONS:
        made.add_argument(option.flag, type=option.read, default=None, metavar=option.values, help=_help(option))
    return made


def _help(option: Option) -> str:
    flows = "" if tuple(option.flows) == FLOWS else f"[{', '.join(option.flows)}] "
    default = option.default
    if isinstance(default, Mapping):
        default = ", ".join(f"{flow} {value}" for flow, value in default.items())
    shown = {True: "on", False: "off"}.get(default, default) if isinstance(default, bool) else default
    told = "" if default is None else f" (default: {shown})"
    return (flows + option.why + told).replace("%", "%%")


def parse(arguments: Sequence[str]) -> Options:
    """Raises LaunchError for what does not fit together."""
    given = parser().parse_args(arguments)
    values: dict[str, Any] = {}
    for option in OPTIONS:
        value = getattr(given, option.name)
        if given.flow in option.flows:
            default = option.default.get(given.flow) if isinstance(option.default, Mapping) else option.default
            values[option.name] = default if value is None else value
        elif value is not None:
            raise LaunchError(f"{option.flag} has no meaning with --flow {given.flow}, only with "
                              f"{' and '.join(option.flows)}.")
    options = Options(given.model, Path(given.output).expanduser().absolute(), given.flow, given.dry_run, values)
    if given.flow in MODES:
        _check_gpu(options)
    return options


def _check_gpu(options: Options) -> None:
    if options.speculative not in MODES[options.flow]:
        raise LaunchError(f"--speculative {options.speculative} is not part of the {options.flow} flow, which has "
                          f"{', '.join(MODES[options.flow])}.")
    if (options.speculative in WITH_DRAFTER) != (options.speculative_model is not None):
        raise LaunchError(f"--speculative-model goes with --speculative {', '.join(WITH_DRAFTER)} and only with these.")
    if options.flow == ENGINE and options.guided_decoding == "llguidance":
        raise LaunchError("--guided-decoding llguidance: the C++ backend has xgrammar only.")
    if options.flow == ENGINE and options.lora and options.dtype != "float16":
        raise LaunchError("--lora needs --dtype float16: the C++ backend takes adapters in the model's own type, and "
                          "its tensor lora_weights is FP16.")
    if options.flow == ENGINE and options.quantization != "none" and options.speculative == "eagle":
        raise LaunchError("--speculative eagle with --quantization: TensorRT-LLM has no script that does both.")
