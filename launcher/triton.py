"""Finds a Triton Inference Server, starts it and stops it.

In: a model repository and ports. Out: a running server on 127.0.0.1, ready to answer. It knows nothing about models.

Each instance of a Python model is a process of its own, the stub. Triton does not notice when one dies: it goes on
saying that it is ready, requests in flight hang, new ones fail, and only a new Triton cures that. So a dead stub counts
as the death of Triton.

Three places are looked at: the path the user names, NVIDIA's container (`tritonserver` on PATH), the nvidia-pytriton
wheel. The wheel carries server and Python backend, but the backend wants the stub program for the running Python
beside its own library: a folder of links arranges that without writing into site-packages.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from launcher import opener, processes
from launcher.errors import LaunchError

CONTAINER_ROOT = Path("/opt/tritonserver")
SHARED_MEMORY = Path("/dev/shm")
EXIT_TIMEOUT_S = 10
"""How long Triton lets requests in flight finish when it is told to stop."""
STOP_PATIENCE_S = EXIT_TIMEOUT_S + 10
RESTART_PATIENCE_S = 3
"""After a death: requests that wait for a dead process never finish, and every second is one without service."""
HTTP_THREADS = 32
"""Each has room for 278 responses that it has not sent yet; what comes on top Triton loses (docs/decisions.md). Its own
default of 8 has to serve a quarter of the streams each."""
STUB = "triton_python_backend_stub"
TRACES = ("--trace-config=mode=opentelemetry", "--trace-config=level=TIMESTAMPS", "--trace-config=rate=0")
"""With a rate of 0 requests are traced that have a `traceparent`: the gateway decides. Health checks have none."""
_COLLECTOR_PATIENCE = "OTEL_EXPORTER_OTLP_TIMEOUT"
"""Triton does not end before a collector that says nothing has had that time, more than once; its own default is 10 s.
With a unit, because OpenTelemetry's libraries do not agree on the one that is meant."""
PYTHON_TAG = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Installation:
    """A server program, its folder of backends, and the environment both need."""

    server: Path
    backends: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def find(named: str | None, links: Path) -> Installation:
    """`named` is the user's choice or None; `links` is a folder of ours that may be written anew."""
    server = Path(named) if named else _server_in_container() or _server_in_wheel()
    if not os.access(server, os.X_OK) or server.is_dir():
        raise LaunchError(f"{server} is not a tritonserver program.")
    root = server.resolve().parent.parent
    if (root / "python_backend_stubs").is_dir():
        return Installation(server, _linked_backends(root, links), _wheel_environment())
    return Installation(server, root / "backends", _virtual_environment())


def libpython() -> Path:
    """The shared library of the running Python; the backend's stub program is linked against it."""
    name = f"libpython{PYTHON_TAG}.so.1.0"
    variables = [sysconfig.get_config_var(key) for key in ("LIBDIR", "MULTIARCH", "LIBPL")]
    libdir, multiarch, libpl = (str(value or "") for value in variables)
    folders = [Path(libdir), Path(libdir, multiarch), Path(sys.base_prefix, "lib"), Path(libpl), *_loader_folders(name)]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    package = f"libpython{PYTHON_TAG}"
    raise LaunchError(f"Triton's Python backend needs {name} (Debian, Ubuntu: apt-get install {package}).")


class Triton:
    """A server started by `start`; `stop` ends it with its stub processes and shared-memory regions."""

    def __init__(
        self, child: processes.Child, http_port: int, region_prefix: str, *, models_change: bool = False
    ) -> None:
        self.child = child
        self._models_change = models_change
        self.http_port = http_port
        self._region_prefix = region_prefix
        self._stubs: list[processes.Process] = []

    def is_ready(self) -> bool:
        return self._says_yes("/v2/health/ready")

    def _says_yes(self, path: str) -> bool:
        try:
            with opener.direct().open(f"http://127.0.0.1:{self.http_port}{path}", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def wait_until_ready(self, timeout_s: float, progress: Callable[[str], None]) -> None:
        started = time.monotonic()
        told = started
        while not self.is_ready():
            now = time.monotonic()
            if self.child.exit_code is not None:
                raise LaunchError(
                    f"Triton did not start: {reason_in(self.child.log_lines())} (the whole log: {self.child.log})."
                )
            if now - started > timeout_s:
                raise LaunchError(f"Triton was not ready within {timeout_s:.0f} s; its log is {self.child.log}.")
            if now - told >= 10:
                progress("still loading the models")
                told = now
            time.sleep(0.05)
        self._stubs = self.child.group(STUB)

    @property
    def death(self) -> str | None:
        """What of it has died since it was ready, in words; None if nothing has."""
        if self.child.death is not None:
            return self.child.death
        if self._models_change:
            self._follow_models()
        dead = next((stub for stub in self._stubs if not stub.is_running), None)
        return None if dead is None else f"Triton's process for {_model_of(dead)} ended"

    def _follow_models(self) -> None:
        """A process of a model that was unloaded may go: Triton says that it is not ready, or there is a newer one.

        The newer one may have been seen before the older one ended: Triton loads a model while it still unloads it.
        """
        self._stubs += [stub for stub in self.child.group(STUB) if stub.is_running and stub not in self._stubs]
        newest: dict[str, int] = {}
        for stub in self._stubs:
            newest[_instance_of(stub)] = max(stub.started, newest.get(_instance_of(stub), 0))
        self._stubs = [stub for stub in self._stubs if stub.is_running or not self._may_go(stub, newest)]

    def _may_go(self, stub: processes.Process, newest: Mapping[str, int]) -> bool:
        if stub.started < newest[_instance_of(stub)]:
            return True
        return not self._says_yes(f"/v2/models/{quote(_model_of(stub).removeprefix('model '))}/ready")

    def restart(self) -> None:
        """On the same ports, with the same repository; `wait_until_ready` comes next."""
        self._stubs = []
        self.stop(RESTART_PATIENCE_S)
        self.child.start_again()

    def stop(self, patience_s: float = STOP_PATIENCE_S) -> None:
        server = self.child.pid
        self.child.stop(patience_s)
        remove_regions(self._region_prefix)
        refusals_of(server).unlink(missing_ok=True)


def start(
    installation: Installation,
    repository: Path,
    run: Path,
    http_port: int,
    metrics_port: int,
    grpc_port: int | None = None,
    load_at_start: Sequence[str] | None = None,
    trace_url: str | None = None,
    extra_arguments: Sequence[str] = (),
) -> Triton:
    """Starts the server and returns at once; its log is `run`/triton.log.

    Args:
        load_at_start: the models to begin with, if others are loaded on request; None: all, and no requests.
        trace_url: where it sends spans of its own; None: it makes none.
    """
    prefix = _fresh_region_prefix(run / "triton.regions")
    grpc = ["--allow-grpc=false"] if grpc_port is None else ["--grpc-address=127.0.0.1", f"--grpc-port={grpc_port}"]
    control = [] if load_at_start is None else ["--model-control-mode=explicit"]
    control += [f"--load-model={name}" for name in load_at_start or ()]
    command = [
        str(installation.server),
        f"--model-repository={_shell_safe(repository, run)}",
        f"--backend-directory={_shell_safe(installation.backends, run)}",
        "--disable-auto-complete-config",  # the configurations are complete; asking would start every model twice
        "--http-address=127.0.0.1",
        f"--http-port={http_port}",
        f"--http-thread-count={HTTP_THREADS}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={metrics_port}",
        *grpc,
        *control,
        *([] if trace_url is None else [*TRACES, f"--trace-config=opentelemetry,url={trace_url}"]),
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        *extra_arguments,
    ]
    patience = {} if trace_url is None else {_COLLECTOR_PATIENCE: os.environ.get(_COLLECTOR_PATIENCE, "2s")}
    environment = processes.child_environment({**installation.environment, **patience})
    leftovers = [SHARED_MEMORY / prefix, refusals_of(processes.PID)]
    child = processes.start("Triton", command, environment, run / "triton.log", run, leftovers)
    return Triton(child, http_port, prefix, models_change=load_at_start is not None)


def refusals_of(server: int | str) -> Path:
    """What openai_bls keeps for all its instances under a tritonserver; it tidies up by itself unless it is killed."""
    return Path(tempfile.gettempdir(), f"openai_bls.{server}.refusals")


def _model_of(stub: processes.Process) -> str:
    """A stub's first argument is .../model/version/model.py."""
    parts = Path(stub.command[1]).parts if len(stub.command) > 1 else ()
    return f"model {parts[-3]}" if len(parts) >= 3 else "a model"


def _instance_of(stub: processes.Process) -> str:
    """Its eighth one is the name of the model's instance."""
    return stub.command[8] if len(stub.command) > 8 else f"of process {stub.pid}"


def _shell_safe(path: Path, run: Path) -> str:
    """`path` as seen from `run`, where the server works: the backend starts its stubs through a shell, unquoted."""
    return str(path.relative_to(run) if path.is_relative_to(run) else path)


_FAILED_MODEL = re.compile(r"^\|\s*(\S+)\s*\|\s*\S+\s*\|\s*UNAVAILABLE:?\s*(?:Internal:\s*)?(.*?)\s*\|\s*$")
_LOG_HEAD = re.compile(r"^[EWF]\d{4} [\d:.]+ \d+ [\w.]+:\d+\] \"?")


def reason_in(log: Sequence[str]) -> str:
    """The line of a Triton log that tells why it ended: a model's failure, else the last error, else the last line."""
    failures = [f"model {found[1]}: {_first_line(found[2])}" for line in log if (found := _FAILED_MODEL.match(line))]
    if failures:
        return failures[0]
    errors = [line for line in log if line[:1] in "EF" and _LOG_HEAD.match(line)]
    other = [line for line in log if line.strip() and line[:1] not in "+|"]
    last = (errors or other or ["it wrote nothing"])[-1]
    return _LOG_HEAD.sub("", last).strip().rstrip('".')


def remove_regions(prefix: str) -> None:
    """Removes the shared memory of a server that did not get to tidy up after itself."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def _first_line(text: str) -> str:
    return text.split("\\n")[0].split("  At:")[0].strip().rstrip(".")


def _fresh_region_prefix(record: Path) -> str:
    """A prefix no other server has. It is recorded, so that the next start can tidy up after a crash."""
    if record.exists():
        remove_regions(record.read_text(encoding="ascii"))
    prefix = f"openai_bls_{secrets.token_hex(6)}_"
    record.write_text(prefix, encoding="ascii")
    return prefix


def _server_in_container() -> Path | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), str(CONTAINER_ROOT / "bin")])
    found = shutil.which("tritonserver", path=path)
    return Path(found) if found and CONTAINER_ROOT.is_dir() else None


def _server_in_wheel() -> Path:
    package = importlib.util.find_spec("pytriton")
    if package is None or package.origin is None:
        raise LaunchError("No Triton server found: install nvidia-pytriton or name one with --tritonserver.")
    return Path(package.origin).parent / "tritonserver" / "bin" / "tritonserver"


def _linked_backends(root: Path, links: Path) -> Path:
    stub = root / "python_backend_stubs" / PYTHON_TAG / STUB
    if not stub.is_file():
        raise LaunchError(f"This Triton has no Python backend for Python {PYTHON_TAG}: use Python 3.10, 3.11 or 3.12.")
    backend = root / "backends" / "python"
    shutil.rmtree(links, ignore_errors=True)
    (links / "python").mkdir(parents=True)
    for file in (backend / "libtriton_python.so", backend / "triton_python_backend_utils.py", stub):
        (links / "python" / file.name).symlink_to(file)
    return links


def _wheel_environment() -> dict[str, str]:
    library = libpython()
    return {
        **_virtual_environment(),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(library.parent), os.environ.get("LD_LIBRARY_PATH")])),
    }


def _virtual_environment() -> dict[str, str]:
    """Leads the backend's stub to our packages.

    The wheel's stub runs an isolated Python that ignores PYTHONPATH, but looks for its home along PATH as every Python
    does, and so finds pyvenv.cfg. The container's stub takes PYTHONPATH.
    """
    path = os.pathsep.join([str(Path(sys.prefix, "bin")), os.environ.get("PATH", os.defpath)])
    return {"PATH": path, "PYTHONPATH": sysconfig.get_path("purelib")}


def _loader_folders(library: str) -> list[Path]:
    """The folders where the dynamic loader knows `library`."""
    ldconfig = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if ldconfig is None:
        return []
    listing = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False).stdout
    matching = [line for line in listing.splitlines() if line.split()[:1] == [library]]
    return [Path(line.split("=>")[-1].strip()).parent for line in matching]
