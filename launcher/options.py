"""The command line as one table: flag, type, default, help; each flag is also an environment variable.

In: arguments and environment. Out: an `argparse.Namespace` with checked values. A new option is a new row; one that
only sets a parameter of a model names it in `parameter` and needs nothing else.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PREFIX = "OPENAI_BLS_"
COLLECTOR = r"https?://(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[A-Za-z0-9._~/-]*)?"
TRACES = "/v1/traces"
"""Where collectors take OTLP."""


def positive(text: str) -> int:
    return _between(text, 1, 1_000_000)


def port(text: str) -> int:
    return _between(text, 1, 65535)


def seconds(text: str) -> int:
    return _between(text, 1, 86_400)


def grace(text: str) -> int:
    return _between(text, 0, 86_400)


def size(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[kmg]?", text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512k or 16m")
    return text.lower()


def host(text: str) -> str:
    if not re.fullmatch(r"[\w.:-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address")
    return text


def rate(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,5}/[sm]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate such as 10/s or 30/m")
    return text


def addresses(text: str) -> list[str]:
    return _listed(text, r"(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}", "HOST:PORT")


def origins(text: str) -> list[str]:
    return _listed(text, r"\*|https?://[A-Za-z0-9._-]+(?::\d{1,5})?", "* or an origin such as https://chat.example.org")


def prefixes(text: str) -> list[str]:
    """Without the slash at the end, so "/" becomes nothing."""
    found = _listed(text, r"/|(?:/[A-Za-z0-9_-]+)+", "a path such as /v1")
    return list(dict.fromkeys(prefix.rstrip("/") for prefix in found))


def _listed(text: str, pattern: str, wanted: str) -> list[str]:
    """The parts between commas."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = next((part for part in parts if not re.fullmatch(pattern, part)), None if parts else text)
    if wrong is not None:
        raise argparse.ArgumentTypeError(f"{wrong!r} is not {wanted}")
    return parts


def place(text: str) -> str:
    """A file or folder, by a path that is the same for other processes."""
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"there is no {text!r}")
    return str(Path(text).absolute())


def engine_url(text: str) -> str:
    """The error does not show it: it may hold a password."""
    if not re.fullmatch(r"https?://[^\s?#]+", text):
        raise argparse.ArgumentTypeError("wanted an address such as http://10.0.0.5:8000")
    return text


def collector(text: str) -> str:
    """Of OpenTelemetry, for OTLP over HTTP; the path that it is taken at is added where it is missing.

    The error does not show it: it may hold a password, which is not taken because Triton would show it to all.
    """
    if text != "off" and not re.fullmatch(COLLECTOR, text):
        raise argparse.ArgumentTypeError(
            "wanted off, or an address such as http://127.0.0.1:4318, without user or password"
        )
    return text if text == "off" or text.endswith(TRACES) else text.rstrip("/") + TRACES


def share(text: str) -> str:
    if not re.fullmatch(r"0|1|[01]?\.\d{1,9}", text) or float(text) > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
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
    alone: str | None = None
    """The value of the flag when it is given without one."""
    secret: bool = False
    """Whether its value must not stay in the process listing."""
    further: tuple[str, ...] = ()
    """Variables of others that give it as well, if its own does not."""

    @property
    def name(self) -> str:
        return self.flag.lstrip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


OPTIONS = (
    Option("--model", str, None, "folder of a model, or a Hugging Face id such as org/name; without it the small "
           "model that ships with the server", "DIR|ID"),
    Option("--served-model-name", str, None, "what clients call the model; without it the folder's name or the id",
           "NAME"),
    Option("--lora", place, None, "LoRA adapters: a folder of them, or a list like NVIDIA's multi_lora.json "
           "(docs/lora.md)", "DIR|FILE", ("openai_bls", "lora")),
    Option("--lora-separator", str, None, "between the model's name and an adapter's; without it _lora_", "TEXT",
           ("openai_bls", "lora_separator")),
    Option("--embedding-model", str, None, "model for /v1/embeddings: folder of a sentence-transformers checkpoint, a "
           "Hugging Face id, or default (the hidden states of the model that writes); without it there are no "
           "embeddings", "DIR|ID|default"),
    Option("--models-file", str, None, "several models instead of --model: a JSON file of them (docs/models.md); the "
           "engines that it names are made of the ones here", "FILE"),
    Option("--model-control", one_of("off", "on"), "off", "on lets clients load and unload models (POST "
           "/v1/models/{id}/load and unload)", "on|off", alone="on"),
    Option("--engine-url", engine_url, None, "Triton that has the engine, such as http://10.0.0.5:8000, instead of one "
           "here; the tokenizer is --model's (docs/transports.md)", "URL", ("openai_bls", "engine_url"), secret=True),
    Option("--runner", one_of("numpy", "transformers"), None, "what computes the model; without it the engine's own "
           "default", "numpy|transformers", ("tensorrt_llm", "runner")),
    Option("--max-batch-size", positive, None, "how many sequences the engine runs at a time; without it the engine's "
           "own default", "N", ("tensorrt_llm", "max_batch_size")),
    Option("--instances", positive, "1", "how many processes serve OpenAI requests", "N"),
    Option("--sessions", one_of("on", "off"), "on", "off hides the engine's session extension, as if it were any other "
           "engine", "on|off"),
    Option("--tool-parser", str, None, "how the model writes tool calls: a family of docs/tools.md, or none; without "
           "it recognised from the chat template", "NAME", ("openai_bls", "tool_parser")),
    Option("--reasoning-parser", str, None, "how the model writes its thoughts: think, granite, mistral, harmony or "
           "none; without it recognised from the chat template", "NAME", ("openai_bls", "reasoning_parser")),
    Option("--stream-interval", positive, None, "tokens of a stream that go out as one chunk, for less work per token; "
           "the first one goes out at once; without it 1", "TOKENS", ("openai_bls", "stream_interval")),
    Option("--max-requests", positive, None, "requests, running and waiting, that a process serves at a time; more are "
           "refused with 429; without it 512", "N", ("openai_bls", "max_requests")),
    Option("--max-queue-seconds", seconds, None, "how long a request may wait for the engine's first news of it; "
           "without it 60", "SECONDS", ("openai_bls", "max_queue_seconds")),
    Option("--max-request-seconds", seconds, None, "how long a request may take in all; without it 1800", "SECONDS",
           ("openai_bls", "max_request_seconds")),
    Option("--keep-alive-seconds", seconds, None, "of silence on a stream until the comment \": keep-alive\" is sent; "
           "without it none is", "SECONDS", ("openai_bls", "keep_alive_seconds")),
    Option("--health-seconds", seconds, None, "how long a token proves that the engine works, and how long one may "
           "take that health asks for; without it 1", "SECONDS", ("openai_bls", "health_seconds")),
    Option("--drain-seconds", grace, "30", "how long running requests may go on after SIGTERM; 0: not at all",
           "SECONDS"),
    Option("--host", host, "127.0.0.1", "address of the OpenAI server; 0.0.0.0 opens it to the network (Triton itself "
           "stays on 127.0.0.1)", "ADDRESS"),
    Option("--port", port, "9000", "port of the OpenAI server", "PORT"),
    Option("--triton-http-port", port, "8000", "port of Triton's own HTTP endpoints", "PORT"),
    Option("--triton-metrics-port", port, "8002", "port of Triton's metrics", "PORT"),
    Option("--triton-grpc-port", port, None, "port of Triton's gRPC endpoints; without it they are off", "PORT"),
    Option("--upstream", addresses, None, "other Tritons with openai_bls, HOST:PORT (several: separated by commas); "
           "each request goes to the one with the fewest", "ADDRESSES"),
    Option("--gateway-only", one_of("on", "off"), "off", "start no Triton: the gateway alone, in front of --upstream",
           "on|off", alone="on"),
    Option("--upstream-retry", seconds, "5", "how long a Triton that failed is left alone when there are several",
           "SECONDS"),
    Option("--upstream-timeout", seconds, None, "of silence after which a Triton counts as dead; without it 30 more "
           "than --max-queue-seconds", "SECONDS"),
    Option("--api-key", str, None, "clients must send this key (several: separated by commas); prefer the variable, "
           "which no process listing shows", "KEY", secret=True),
    Option("--api-keys-file", str, None, "file of keys, one a line: name:key or name:sha256:DIGEST; read anew when it "
           "changes", "FILE"),
    Option("--restricted-api", str, None, "groups of routes (inference, embedding, model-repository, metrics, health) "
           "that want a header of their own, rows separated by semicolons; prefer the variable",
           "'GROUPS HEADER VALUE'", secret=True),
    Option("--restricted-api-file", str, None, "file of such rows, one a line; read anew when it changes", "FILE"),
    Option("--rate-limit", rate, None, "how many requests a key (without keys: an address) may send in a second or "
           "minute; without it as many as it likes", "N/s|N/m"),
    Option("--rate-burst", positive, "20", "how many requests above --rate-limit may come at once", "N"),
    Option("--concurrent-requests", positive, None, "how many requests a key (without keys: an address) may have at a "
           "time; without it as many as it likes", "N"),
    Option("--max-body", size, "4m", "largest request body", "SIZE"),
    Option("--max-header", size, "8k", "largest request line or header", "SIZE"),
    Option("--header-timeout", seconds, "15", "how long a client may take to send the request line and all headers",
           "SECONDS"),
    Option("--body-timeout", seconds, "15", "how long a client may pause while it sends a body", "SECONDS"),
    Option("--send-timeout", seconds, "30", "a client that has not read a third of --send-buffer within this time is "
           "cut off", "SECONDS"),
    Option("--send-buffer", size, "128k", "how much of an answer may wait in the kernel for a slow client", "SIZE"),
    Option("--max-backlog", size, "8m", "how much of an answer may wait in the gateway for a slow client; past that "
           "the client is cut off", "SIZE"),
    Option("--max-connections", positive, "4096", "requests at a time in all, each with its connection", "N"),
    Option("--max-connections-per-address", positive, "1024", "requests at a time from one address", "N"),
    Option("--requests-per-connection", positive, "1000", "requests after which a connection is closed", "N"),
    Option("--cors-origins", origins, None, "web pages that may call the server from a browser: * or origins such as "
           "https://chat.example.org (several: separated by commas); without it none", "ORIGINS"),
    Option("--route-prefixes", prefixes, "/v1,/", "what the routes begin with (several: separated by commas)", "PATHS"),
    Option("--metrics", one_of("off", "open", "key"), "off", "Triton's metrics at GET /metrics: not there, open, or "
           "for those with an API key", "off|open|key"),
    Option("--metrics-upstream", addresses, None, "HOST:PORT of the Triton whose metrics these are; without it the one "
           "that is started", "ADDRESS"),
    Option("--trace-url", collector, None, "OpenTelemetry collector that gets a trace of each request, such as "
           "http://127.0.0.1:4318 (docs/traces.md); off: none; without it as OTEL_EXPORTER_OTLP_ENDPOINT says",
           "URL|off", ("openai_bls", "trace_url"),
           further=("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")),
    Option("--trace-ratio", share, None, "the share of requests that are traced, of those whose client has not decided "
           "that in a traceparent header; without it 1", "SHARE", ("openai_bls", "trace_ratio")),
    Option("--trace-triton", one_of("on", "off"), "on", "Triton's own spans in these traces", "on|off"),
    Option("--page", one_of("on", "off"), "on", "the page at the root, to try the server with a browser", "on|off"),
    Option("--tls-cert", str, None, "certificate (with its chain) for HTTPS and HTTP/2; read anew when it changes",
           "FILE"),
    Option("--tls-key", str, None, "its private key", "FILE"),
    Option("--workers", positive, "1", "nginx worker processes", "N"),
    Option("--reload-grace", seconds, "600", "how long streams may go on after keys or certificate were read anew",
           "SECONDS"),
    Option("--run-dir", str, None, "folder for logs, configurations and links; without it .run/PORT in the checkout",
           "DIR"),
    Option("--access-log", str, "on", "a line of JSON for each request (docs/logs.md): on (access.log in --run-dir), "
           "off, a file, or - (standard output as well, which then has nothing else)", "on|off|FILE|-"),
    Option("--log-prompts", size, None, "how much of each request's body the access log shows, such as 4k; without it "
           "nothing that was said", "SIZE"),
    Option("--max-log", size, "16m", "a log that is longer is emptied; what was in it is kept once, beside it", "SIZE"),
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
        description="Starts the OpenAI server: Triton with the models, nginx in front. SIGTERM stops it when running "
        "requests have finished, Ctrl-C at once (exit code 0). A part that dies is restarted; if it keeps dying, the "
        "exit code is 1.",
        epilog="Each option can be given as the environment variable named beside it.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
        allow_abbrev=False,
    )
    for option in OPTIONS:
        default = f"default {option.default}; " if option.default is not None else ""
        made.add_argument(
            option.flag,
            nargs="?" if option.alone else None,
            const=option.alone,
            type=_reported_as(option),
            default=next(filter(None, map(environment.get, (option.variable, *option.further))), option.default),
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
    """argparse names the flag in its error; a bad value may as well come from a variable, so all are named."""
    variables = " or ".join((option.variable, *option.further))

    def checked(text: str) -> Any:
        try:
            return option.kind(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error} (or {variables})") from None

    return checked
