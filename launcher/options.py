"""The command line as one table: flag, type, default, help; each flag is also an environment variable.

In: arguments and environment. Out: an `argparse.Namespace` with checked values. A new option is a new row; one that
only sets a parameter of a model names it in `parameter` and needs nothing else.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

PREFIX = "OPENAI_BLS_"


def positive(text: str) -> int:
    return _between(text, 1, 1_000_000)


def port(text: str) -> int:
    return _between(text, 1, 65535)


def seconds(text: str) -> int:
    return _between(text, 1, 86_400)


def size(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[kmg]?", text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512k or 16m")
    return text.lower()


def host(text: str) -> str:
    if not re.fullmatch(r"[\w.:-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address")
    return text


def setting(text: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"(\w+)\.(\w+)=(.*)", text, re.DOTALL)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not MODEL.PARAMETER=VALUE")
    return found[1], found[2], found[3]


def one_of(*choices: str) -> Callable[[str], str]:
    def choice(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return choice


def _between(text: str, lowest: int, highest: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or not lowest <= int(text) <= highest:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
    return int(text)


@dataclass(frozen=True)
class Option:
    flag: str
    kind: Callable[[str], Any]
    default: str | None
    help: str
    metavar: str = "TEXT"
    parameter: tuple[str, str] | None = None
    """(model, key) of the config.pbtxt parameter that this option sets when it is given."""

    @property
    def name(self) -> str:
        return self.flag.lstrip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


OPTIONS = (
    Option("--model", str, None, "folder of a model, or a Hugging Face id such as org/name; without it the small "
           "built-in checkpoint", "DIR|ID"),
    Option("--served-model-name", str, None, "what clients call the model; without it the folder's name or the id",
           "NAME"),
    Option("--runner", one_of("numpy", "transformers"), None, "what computes the model; without it the engine's own "
           "default", "numpy|transformers", ("tensorrt_llm", "runner")),
    Option("--max-batch-size", positive, None, "how many sequences the engine runs at a time; without it the engine's "
           "own default", "N", ("tensorrt_llm", "max_batch_size")),
    Option("--instances", positive, "1", "how many processes serve OpenAI requests", "N"),
    Option("--sessions", one_of("on", "off"), "on", "off hides the engine's session extension, as if it were any other "
           "engine", "on|off"),
    Option("--host", host, "127.0.0.1", "address of the OpenAI server; 0.0.0.0 opens it to the network (Triton itself "
           "stays on 127.0.0.1)", "ADDRESS"),
    Option("--port", port, "9000", "port of the OpenAI server", "PORT"),
    Option("--triton-http-port", port, "8000", "port of Triton's own HTTP endpoints", "PORT"),
    Option("--triton-metrics-port", port, "8002", "port of Triton's metrics", "PORT"),
    Option("--triton-grpc-port", port, None, "port of Triton's gRPC endpoints; without it they are off", "PORT"),
    Option("--api-key", str, None, "clients must send this key (several: separated by commas); prefer the variable, "
           "which no process listing shows", "KEY"),
    Option("--max-body", size, "4m", "largest request body", "SIZE"),
    Option("--workers", positive, "1", "nginx worker processes", "N"),
    Option("--run-dir", str, None, "folder for logs, configurations and links; without it .run/PORT in the checkout",
           "DIR"),
    Option("--start-timeout", seconds, "300", "how long loading the model may take", "SECONDS"),
    Option("--tritonserver", str, None, "a tritonserver program; without it NVIDIA's container or the nvidia-pytriton "
           "package is found", "FILE"),
)  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, as every other error of the launcher; the usage is a screenful that hides it."""
        self.exit(2, f"error: {message}; see ./serve.sh --help.\n")


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """An option given as an environment variable is a default: the command line wins, and both are checked alike."""
    made = _Parser(
        prog="./serve.sh",
        description="Starts the OpenAI server: Triton with the models, nginx in front. Ctrl-C or SIGTERM stops it "
        "(exit code 0). A part that dies is restarted; if it keeps dying, the exit code is 1.",
        epilog="Each option can be given as the environment variable named beside it.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
        allow_abbrev=False,
    )
    for option in OPTIONS:
        default = f"default {option.default}; " if option.default is not None else ""
        made.add_argument(
            option.flag,
            type=_reported_as(option),
            default=environment.get(option.variable) or option.default,
            metavar=option.metavar,
            help=f"{option.help} ({default}{option.variable})".replace("%", "%%"),
        )
    made.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="MODEL.PARAMETER=VALUE",
        help="set any parameter of a model's config.pbtxt; may be given several times",
    )
    return made


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    return parser(environment).parse_args(arguments)


def parameters(options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Model -> key -> value, of the options that were given and of --set, which comes last and so wins."""
    rows = [(*o.parameter, getattr(options, o.name)) for o in OPTIONS if o.parameter is not None]
    given = [(model, key, str(value)) for model, key, value in rows if value is not None]
    result: dict[str, dict[str, str]] = {}
    for model, key, value in [*given, *options.set]:
        result.setdefault(model, {})[key] = value
    return result


def _reported_as(option: Option) -> Callable[[str], Any]:
    """argparse names the flag in its error; a bad value may as well come from the variable, so both are named."""

    def checked(text: str) -> Any:
        try:
            return option.kind(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error} (or {option.variable})") from None

    return checked
