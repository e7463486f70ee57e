"""The command behind serve.sh: checks, starts the server, proves that it works, tells how to use it, waits.

In: the command line (options.py). Out: the server, until Ctrl-C or SIGTERM; what dies of it is restarted (stack.py).
SIGTERM, which supervisors send, lets running requests finish; Ctrl-C, a closed terminal and a second signal do not.
Exit codes: 0 after a requested stop, 1 when the server could not be started or kept dying, 2 for a wrong command line.
No error shows a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from launcher import access, checks, gateway, model, models, options, probe
from launcher.errors import LaunchError
from launcher.repository import EMBEDDING_MODEL, ENGINE_MODEL, FRONT_MODEL
from launcher.stack import Settings, Stack, default_run_dir

KEY_VARIABLE = "OPENAI_API_KEY"
SAME_MODEL = "default"
BEYOND_THE_QUEUE_S = 30
"""For so much longer than a request may wait in a queue a Triton may be silent."""
ACCESS_LOG = "access.log"
STANDARD_OUTPUT = "-"
KEY_OPTION_VARIABLE = f"{options.PREFIX}API_KEY"


class StopRequested(BaseException):
    """Ctrl-C, SIGTERM or a closed terminal, raised wherever the launcher happens to be."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.may_drain = number == signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = options.parse(arguments, os.environ)
    hide_secrets(arguments)
    # Standard output is either for people or for those who read lines of JSON.
    output = sys.stderr if chosen.access_log == STANDARD_OUTPUT else sys.stdout
    teller = elapsed_teller(output)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _request_stop)
    try:
        return _serve(chosen, teller, output)
    except StopRequested:
        return 0
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def _serve(chosen: argparse.Namespace, tell: Callable[[str], None], output: TextIO) -> int:
    checks.python_version()
    settings = settings_for(chosen, tell)
    stack = Stack(settings, tell)
    try:
        stack.start()
        tell("asking for a first completion")
        door = probe.Door(stack.base_url, stack.own_headers, gateway.trusting(settings.rules.tls_cert))
        working = probe.wait_until_working(door, settings.start_timeout_s, stack.check_alive)
        tell(f"ready: {stack.base_url} serves the model {working.model}")
        if settings.rules.page == "on":
            tell(f"a page to try it with: {stack.url}/")
        print(examples(stack.base_url, working, with_key=settings.rules.asks_for_keys), file=output, flush=True)
        stack.watch()
    except StopRequested as stop:
        if stop.may_drain and chosen.drain_seconds:
            tell(f"draining: running requests have {chosen.drain_seconds} s to finish (a second signal stops at once)")
            stack.drain(chosen.drain_seconds)
        raise
    finally:
        _ignore_further_signals()
        if stack.children:
            tell(f"stopping {' and '.join(child.name for child in reversed(stack.children))}")
        stack.stop()
    return 0


def settings_for(chosen: argparse.Namespace, tell: Callable[[str], None]) -> Settings:
    """Everything the user asked for, with the model found and checked."""
    parameters = options.parameters(chosen)
    if chosen.model:
        found = model.resolve(chosen.model, tell)
        parameters.setdefault(ENGINE_MODEL, {}).setdefault("checkpoint", str(found.folder))
        front = parameters.setdefault(FRONT_MODEL, {})
        front.setdefault("tokenizer_dir", str(found.folder))
        front.setdefault("served_model_name", chosen.served_model_name or found.name)
    elif chosen.served_model_name:
        parameters.setdefault(FRONT_MODEL, {}).setdefault("served_model_name", chosen.served_model_name)
    if chosen.embedding_model:
        add_embeddings(parameters, chosen, tell)
    engines = add_models(parameters, chosen) if chosen.models_file else None
    made_of = None if engines is None else {engine.name: engine.source for engine in engines}
    if chosen.engine_url:
        made_of = engines_beside(parameters, chosen)
    if chosen.model_control == "on":
        parameters.setdefault(FRONT_MODEL, {})["model_control"] = "on"
    if chosen.sessions == "off" and not parameters.get(FRONT_MODEL, {}).get("tokenizer_dir"):
        raise LaunchError("--sessions off needs --model: only an engine with sessions can tell where its tokenizer is.")
    if chosen.runner == "transformers" and importlib.util.find_spec("torch") is None:
        raise LaunchError(f"--runner transformers needs torch: {sys.executable} -m pip install torch.")
    if chosen.gateway_only == "on" and not chosen.upstream:
        raise LaunchError("--gateway-only needs --upstream: the Tritons to stand in front of.")
    run_dir = Path(chosen.run_dir) if chosen.run_dir else default_run_dir(chosen.port)
    return Settings(
        run_dir=run_dir,
        host=chosen.host,
        port=chosen.port,
        triton_http_port=chosen.triton_http_port,
        triton_metrics_port=chosen.triton_metrics_port,
        triton_grpc_port=chosen.triton_grpc_port,
        parameters=parameters,
        instances=chosen.instances,
        sessions=chosen.sessions == "on",
        engines=made_of,
        load_at_start=load_at_start(engines) if chosen.model_control == "on" else None,
        workers=chosen.workers,
        rules=rules(chosen),
        upstreams=chosen.upstream or (),
        gateway_only=chosen.gateway_only == "on",
        metrics_upstream=chosen.metrics_upstream and chosen.metrics_upstream[0],
        trace_url=chosen.trace_url if traces(chosen) and chosen.trace_triton == "on" else None,
        tritonserver=chosen.tritonserver,
        start_timeout_s=chosen.start_timeout,
        max_log=chosen.max_log,
        access_log=access_log(chosen.access_log, run_dir),
        access_log_shown=chosen.access_log == STANDARD_OUTPUT,
        log_prompts=gateway.bytes_of(chosen.log_prompts or "0"),
    )


def access_log(chosen: str, run_dir: Path) -> Path | None:
    """Where it is kept; one that is shown is kept as well."""
    if chosen in ("on", STANDARD_OUTPUT):
        return run_dir / ACCESS_LOG
    return None if chosen == "off" else Path(chosen).absolute()


def add_models(parameters: dict[str, dict[str, str]], chosen: argparse.Namespace) -> list[models.Engine]:
    """Has the engines made that the models file names. What is set for one of ours holds for all made of it."""
    for option in ("model", "served_model_name", "embedding_model", "lora", "lora_separator"):
        if getattr(chosen, option):
            raise LaunchError(f"--{option.replace('_', '-')} and --models-file do not go together: the file says it.")
    if chosen.sessions == "off":
        raise LaunchError("--sessions off serves one model: leave out --models-file.")
    file = Path(chosen.models_file).absolute()
    parameters.setdefault(FRONT_MODEL, {})["models_file"] = str(file)
    engines = models.engines(file)
    usual = {source: parameters.pop(source, {}) for source in (ENGINE_MODEL, EMBEDDING_MODEL)}
    for engine in engines:
        own = {} if engine.checkpoint is None else {"checkpoint": engine.checkpoint}
        parameters[engine.name] = {**own, **usual[engine.source], **parameters.get(engine.name, {})}
    return engines


def engines_beside(parameters: dict[str, dict[str, str]], chosen: argparse.Namespace) -> dict[str, str]:
    """What is made here if the engine is in another Triton: at most the embedding model."""
    if chosen.models_file:
        raise LaunchError("--engine-url and --models-file do not go together: the file says it.")
    if not parameters[FRONT_MODEL].get("tokenizer_dir"):
        raise LaunchError("--engine-url needs --model: the tokenizer has to be here.")
    parameters.pop(ENGINE_MODEL, None)
    return {EMBEDDING_MODEL: EMBEDDING_MODEL} if EMBEDDING_MODEL in parameters else {}


def load_at_start(engines: list[models.Engine] | None) -> list[str]:
    """The Triton models to begin with, where others may follow."""
    return ["*"] if engines is None else [FRONT_MODEL, *(engine.name for engine in engines if engine.loaded)]


def add_embeddings(
    parameters: dict[str, dict[str, str]], chosen: argparse.Namespace, tell: Callable[[str], None]
) -> None:
    """Has the model `embedding` loaded, with a model of its own or the one that writes."""
    front = parameters.setdefault(FRONT_MODEL, {})
    front.setdefault("embedding_engine", EMBEDDING_MODEL)
    own = parameters.setdefault(EMBEDDING_MODEL, {})
    if chosen.embedding_model == SAME_MODEL:
        own.setdefault("checkpoint", parameters.get(ENGINE_MODEL, {}).get("checkpoint", ""))
        own.setdefault("runner", parameters.get(ENGINE_MODEL, {}).get("runner", "numpy"))
        return
    if importlib.util.find_spec("torch") is None:
        raise LaunchError(f"--embedding-model needs torch: {sys.executable} -m pip install torch.")
    found = model.resolve(chosen.embedding_model, tell)
    own.setdefault("checkpoint", str(found.folder))
    front.setdefault("embedding_tokenizer_dir", str(found.folder))
    front.setdefault("embedding_model_name", found.name)


def rules(chosen: argparse.Namespace) -> gateway.Rules:
    """What the gateway shall allow; a secret that was asked for and is empty must not open it."""
    if (chosen.tls_cert is None) != (chosen.tls_key is None):
        raise LaunchError("--tls-cert and --tls-key belong together: give both.")
    if chosen.gateway_only == "on" and chosen.metrics != "off" and not chosen.metrics_upstream:
        raise LaunchError("--metrics with --gateway-only needs --metrics-upstream: the Triton whose metrics these are.")
    keys = api_keys(chosen.api_key, os.environ)
    if chosen.restricted_api is not None and not access.read_restrictions(chosen.restricted_api, None):
        raise LaunchError("--restricted-api is empty: give it a value, or leave it out.")
    names = {each.name for each in dataclasses.fields(gateway.Rules)}
    values = {name: value for name, value in vars(chosen).items() if name in names and value is not None}
    files = ("api_keys_file", "restricted_api_file", "tls_cert", "tls_key")
    paths = {name: Path(str(values[name])).absolute() for name in files if name in values}
    values["trace_ratio"] = (chosen.trace_ratio or "1") if traces(chosen) else None
    if chosen.max_queue_seconds is not None:
        values.setdefault("upstream_timeout", chosen.max_queue_seconds + BEYOND_THE_QUEUE_S)
    return gateway.Rules(**values | paths | {"api_keys": keys})


def traces(chosen: argparse.Namespace) -> bool:
    return chosen.trace_url not in (None, "off")


def api_keys(given: str | None, environment: Mapping[str, str]) -> list[str]:
    """The keys that clients may use. One that was asked for and is empty must not open the server to everybody."""
    keys = [key.strip() for key in (given or "").split(",") if key.strip()]
    if not keys and (given is not None or KEY_OPTION_VARIABLE in environment):
        raise LaunchError(f"The API key is empty: give --api-key or {KEY_OPTION_VARIABLE} a value, or leave it out.")
    return keys


def hide_secrets(arguments: Sequence[str]) -> None:
    """If one is on the command line, where `ps` shows it: starts the launcher again with it in the environment."""
    secret = [option for option in options.OPTIONS if option.secret]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in secret:
        parser.add_argument(option.flag)
    found, rest = parser.parse_known_args(arguments)
    given = {option.variable: getattr(found, option.name) for option in secret}
    if any(value is not None for value in given.values()):
        os.environ.update({variable: value for variable, value in given.items() if value is not None})
        os.execv(sys.executable, [sys.executable, "-m", "launcher.serve", *rest])


def examples(url: str, working: probe.Working, with_key: bool) -> str:
    """What to paste next: one curl command and one Python program."""
    path, attribute, prompt = (
        ("chat/completions", "chat.completions", {"messages": [{"role": "user", "content": "Hello!"}]})
        if working.chat
        else ("completions", "completions", {"prompt": "Once upon a time"})
    )
    body = {"model": working.model, **prompt, "max_tokens": 32}
    header = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if with_key else ""
    key = f'os.environ["{KEY_VARIABLE}"]' if with_key else '"none"'
    imports = "import os\n\nfrom openai import OpenAI" if with_key else "from openai import OpenAI"
    call = ", ".join(f"{name}={value!r}" for name, value in body.items())
    text = "message.content" if working.chat else "text"
    return f"""
{f"# first: export {KEY_VARIABLE}=... (a key of this server)" if with_key else "# from a shell"}
curl {url}/{path} -H "Content-Type: application/json"{header} -d {shlex.quote(json.dumps(body))}

# from Python (pip install openai)
{imports}

client = OpenAI(base_url="{url}", api_key={key})
answer = client.{attribute}.create({call})
print(answer.choices[0].{text})

Ctrl-C stops the server.
"""


def elapsed_teller(output: TextIO) -> Callable[[str], None]:
    started = time.monotonic()

    def tell(step: str) -> None:
        with contextlib.suppress(OSError):  # nobody may be reading any more; the server serves on
            print(f"[{time.monotonic() - started:6.1f} s] {step}", file=output, flush=True)

    return tell


def _request_stop(number: int, frame: FrameType | None) -> NoReturn:
    raise StopRequested(number)


def _ignore_further_signals() -> None:
    """Stopping takes bounded time; a second Ctrl-C must not interrupt it half way."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
