"""The command behind serve.sh: checks, starts the server, proves that it works, tells how to use it, waits.

In: the command line (options.py). Out: the server, until Ctrl-C or SIGTERM; what dies of it is restarted (stack.py).
Exit codes: 0 after a requested stop, 1 when the server could not be started or kept dying, 2 for a wrong command line.
No error shows a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
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
from typing import NoReturn

from launcher import checks, model, options, probe
from launcher.errors import LaunchError
from launcher.repository import ENGINE_MODEL, FRONT_MODEL
from launcher.stack import Settings, Stack, default_run_dir

KEY_VARIABLE = "OPENAI_API_KEY"
KEY_OPTION_VARIABLE = f"{options.PREFIX}API_KEY"


class StopRequested(BaseException):
    """Ctrl-C, SIGTERM or a closed terminal, raised wherever the launcher happens to be."""


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = options.parse(arguments, os.environ)
    hide_key(arguments)
    teller = elapsed_teller()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _request_stop)
    try:
        return _serve(chosen, teller)
    except StopRequested:
        return 0
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def _serve(chosen: argparse.Namespace, tell: Callable[[str], None]) -> int:
    checks.python_version()
    settings = settings_for(chosen, tell)
    stack = Stack(settings, tell)
    try:
        stack.start()
        tell("asking for a first completion")
        key = settings.api_keys[0] if settings.api_keys else None
        working = probe.wait_until_working(f"{stack.url}/v1", key, settings.start_timeout_s, stack.check_alive)
        tell(f"ready: {stack.url}/v1 serves the model {working.model}")
        print(examples(f"{stack.url}/v1", working, with_key=key is not None), flush=True)
        stack.watch()
    finally:
        _ignore_further_signals()
        if stack.children:
            tell("stopping nginx and Triton")
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
    if chosen.sessions == "off" and not parameters.get(FRONT_MODEL, {}).get("tokenizer_dir"):
        raise LaunchError("--sessions off needs --model: only an engine with sessions can tell where its tokenizer is.")
    if chosen.runner == "transformers" and importlib.util.find_spec("torch") is None:
        raise LaunchError(f"--runner transformers needs torch: {sys.executable} -m pip install torch.")
    return Settings(
        run_dir=Path(chosen.run_dir) if chosen.run_dir else default_run_dir(chosen.port),
        host=chosen.host,
        port=chosen.port,
        triton_http_port=chosen.triton_http_port,
        triton_metrics_port=chosen.triton_metrics_port,
        triton_grpc_port=chosen.triton_grpc_port,
        parameters=parameters,
        instances=chosen.instances,
        sessions=chosen.sessions == "on",
        api_keys=api_keys(chosen.api_key, os.environ),
        workers=chosen.workers,
        max_body=chosen.max_body,
        tritonserver=chosen.tritonserver,
        start_timeout_s=chosen.start_timeout,
    )


def api_keys(given: str | None, environment: Mapping[str, str]) -> list[str]:
    """The keys that clients may use. One that was asked for and is empty must not open the server to everybody."""
    keys = [key.strip() for key in (given or "").split(",") if key.strip()]
    if not keys and (given is not None or KEY_OPTION_VARIABLE in environment):
        raise LaunchError(f"The API key is empty: give --api-key or {KEY_OPTION_VARIABLE} a value, or leave it out.")
    return keys


def hide_key(arguments: Sequence[str]) -> None:
    """If the key is on the command line, where `ps` shows it: starts the launcher again with it in the environment."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--api-key")
    found, rest = parser.parse_known_args(arguments)
    if found.api_key is not None:
        os.environ["OPENAI_BLS_API_KEY"] = found.api_key
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
{f'# first: export {KEY_VARIABLE}=... (a key of this server)' if with_key else '# from a shell'}
curl {url}/{path} -H "Content-Type: application/json"{header} -d {shlex.quote(json.dumps(body))}

# from Python (pip install openai)
{imports}

client = OpenAI(base_url="{url}", api_key={key})
answer = client.{attribute}.create({call})
print(answer.choices[0].{text})

Ctrl-C stops the server.
"""


def elapsed_teller() -> Callable[[str], None]:
    started = time.monotonic()

    def tell(step: str) -> None:
        with contextlib.suppress(OSError):  # nobody may be reading any more; the server serves on
            print(f"[{time.monotonic() - started:6.1f} s] {step}", flush=True)

    return tell


def _request_stop(number: int, frame: FrameType | None) -> NoReturn:
    raise StopRequested


def _ignore_further_signals() -> None:
    """Stopping takes bounded time; a second Ctrl-C must not interrupt it half way."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
