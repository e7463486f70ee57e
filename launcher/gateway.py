"""Fills in the nginx template and runs nginx.

In: a folder with nginx.conf.template and gateway.js, the values for the template. Out: a running nginx. It knows
nothing about routes or OpenAI; those are in the template.

A placeholder is `@NAME@`; the template may use those of `values_for` and no others. Folders are given relative to
nginx's prefix, so the path of the checkout may contain spaces and quotes. The template says `daemon off;`: nginx stays
a child.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher import processes
from launcher.errors import LaunchError

TEMPLATE = "nginx.conf.template"
KEYS_FILE = "keys.conf"
SOURCE_LINK = "source"
LOG = "error.log"
NJS_MODULE = "ngx_http_js_module.so"
STOP_PATIENCE_S = 5
_PLACEHOLDER = re.compile(r"@([A-Z][A-Z0-9_]*)@")
_SYSTEM_FOLDERS = ("/usr/local/nginx/sbin", "/usr/local/sbin", "/usr/sbin", "/sbin")
_MODULE_FOLDERS = ("/usr/lib/nginx/modules", "/etc/nginx/modules", "/usr/lib64/nginx/modules")


@dataclass(frozen=True)
class Listen:
    """Where the gateway listens and which Triton is behind it."""

    host: str = "127.0.0.1"
    port: int = 9000
    triton: str = "127.0.0.1:8000"
    workers: int = 1
    max_body: str = "4m"
    api_keys: Sequence[str] = ()


@dataclass(frozen=True)
class Nginx:
    program: Path
    njs_module: Path


def find_nginx() -> Nginx:
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM_FOLDERS])
    program = shutil.which("nginx", path=path)
    if program is None:
        raise LaunchError("nginx is not installed (Debian, Ubuntu: apt-get install nginx libnginx-mod-http-js).")
    built = subprocess.run([program, "-V"], capture_output=True, text=True, check=False).stderr
    own_folder = re.findall(r"--modules-path=(\S+)", built)
    for folder in [*own_folder, *_MODULE_FOLDERS]:
        if Path(folder, NJS_MODULE).is_file():
            return Nginx(Path(program), Path(folder, NJS_MODULE))
    raise LaunchError("nginx has no njs module (Debian, Ubuntu: apt-get install libnginx-mod-http-js).")


def values_for(listen: Listen, njs_module: Path) -> dict[str, str]:
    """Everything a template may ask for."""
    return {
        "HOST": f"[{listen.host}]" if ":" in listen.host else listen.host,
        "PORT": str(listen.port),
        "TRITON": listen.triton,
        "RUN": ".",
        "JS_DIR": SOURCE_LINK,
        "MODULES": f'load_module "{njs_module}";',
        "WORKERS": str(listen.workers),
        "MAX_BODY": listen.max_body,
        "KEYS_FILE": KEYS_FILE,
    }


def render(template: str, values: Mapping[str, str]) -> str:
    """`template` with its placeholders filled; comment lines may talk about placeholders and stay as they are."""
    lines = template.split("\n")
    comment = [line.lstrip().startswith("#") for line in lines]
    used = {name for line, skip in zip(lines, comment, strict=True) if not skip for name in _PLACEHOLDER.findall(line)}
    unknown = sorted(used - set(values))
    if unknown:
        raise LaunchError(f"The gateway's template uses unknown placeholders: {', '.join(unknown)}.")
    return "\n".join(
        line if skip else _PLACEHOLDER.sub(lambda found: values[found[1]], line)
        for line, skip in zip(lines, comment, strict=True)
    )


def keys_map(api_keys: Sequence[str]) -> str:
    """The body of an nginx `map`, the SHA-256 of a key -> its name: the keys themselves are written nowhere.

    Without keys everybody has a name. Patterns, because 64 digits do not fit into the buckets of a map by default.
    """
    if not api_keys:
        return '"~." everybody;\n'
    hashes = (hashlib.sha256(key.encode()).hexdigest() for key in api_keys)
    return "".join(f'"~^{digest}$" default_key_{number};\n' for number, digest in enumerate(hashes, 1))


class Gateway:
    def __init__(self, child: processes.Child, host: str, port: int) -> None:
        self.child = child
        self._address = (reachable(host), port)

    def wait_until_listening(self, timeout_s: float = 10) -> None:
        deadline = time.monotonic() + timeout_s
        while not _accepts(self._address):
            if self.child.exit_code is not None:
                raise LaunchError(f"nginx did not start: {reason_in(self.child.log_lines())}.")
            if time.monotonic() > deadline:
                raise LaunchError(f"nginx did not listen within {timeout_s:.0f} s; its log is {self.child.log}.")
            time.sleep(0.02)

    @property
    def death(self) -> str | None:
        return self.child.death

    def restart(self) -> None:
        """With the same configuration; `wait_until_listening` comes next."""
        self.stop()
        self.child.start_again()

    def stop(self) -> None:
        self.child.stop(STOP_PATIENCE_S, ask=signal.SIGTERM)


def start(nginx: Nginx, source: Path, run: Path, listen: Listen) -> Gateway:
    """Writes configuration and keys to `run` (made anew), has nginx check them and starts it."""
    template = source / TEMPLATE
    if not template.is_file():
        raise LaunchError(f"The gateway's template {template} is missing.")
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    (run / SOURCE_LINK).symlink_to(source.resolve())
    _write_private(run / KEYS_FILE, keys_map(listen.api_keys))
    configuration = render(template.read_text(encoding="utf-8"), values_for(listen, nginx.njs_module))
    (run / "nginx.conf").write_text(configuration, encoding="utf-8")
    command = [str(nginx.program), "-p", f"{run}/", "-c", "nginx.conf", "-e", LOG]
    environment = processes.child_environment()
    checked = subprocess.run([*command, "-t", "-q"], env=environment, capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        raise LaunchError(f"nginx refuses its configuration: {reason_in(checked.stderr.splitlines())}.")
    return Gateway(processes.start("nginx", command, environment, run / LOG, run), listen.host, listen.port)


def reachable(host: str) -> str:
    """The address at which a client on this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(host, host)


def reason_in(log: Sequence[str]) -> str:
    grave = [line for line in log if re.search(r"\[(emerg|alert|crit)\]", line)]
    told = (grave or list(log) or ["no message"])[0]
    return re.sub(r"^.*?\[\w+\]\s*(\d+#\d+:\s*)?", "", told).strip().rstrip(".")


def _accepts(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=1):
            return True
    except OSError:
        return False


def _write_private(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as stream:
        stream.write(text)
