"""The whole server: model repository, Triton, nginx, started in this order and stopped in the reverse one.

In: `Settings`. Out: a running `Stack` with its addresses. Both ./serve.sh and the tests start servers through this:

    with Stack(Settings(run_dir=tmp, port=18200, triton_http_port=18201, triton_metrics_port=18202)) as stack:
        requests.get(f"{stack.url}/v1/models")

`watch` keeps it running: Triton or nginx, whichever dies, is started anew on the same ports while the other one stays.
Without Triton clients get 503 with Retry-After from nginx, without nginx no connection; streams in flight end.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from launcher import checks, gateway, logs, processes, repository, triton
from launcher.drain import Drain
from launcher.errors import LaunchError

CUT_OFF_PATIENCE_S = 3
"""How long openai_bls may take to end what still runs when the grace is over."""

ROOT = Path(__file__).resolve().parent.parent

STANDARD_OUTPUT = 1
LOCK = "lock"
"""A folder that has it is a run folder."""
GATEWAY_FOLDER = "gateway"
REPOSITORY_FOLDER = "model_repository"
WRITTEN_ANEW = (GATEWAY_FOLDER, REPOSITORY_FOLDER)
"""Folders in the run folder that each start removes first."""

MOST_DEATHS = 3
DEATHS_WITHIN_S = 300
"""With so many deaths in so short a time something is wrong that a restart does not cure: a model that crashes on what
clients keep asking, a machine short of memory. Ending tells whoever watches the server; going on would look like a
server that is slow. Only time in service counts, or a model that loads for minutes could die for ever."""


@dataclass(frozen=True)
class Settings:
    run_dir: Path
    """Logs, configurations and links are written here; one server per folder."""
    host: str = "127.0.0.1"
    port: int = 9000
    triton_http_port: int = 8000
    triton_metrics_port: int = 8002
    triton_grpc_port: int | None = None
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Model name -> parameter -> value; only parameters that the model's config.pbtxt has."""
    instances: int = 1
    sessions: bool = True
    engines: Mapping[str, str] | None = None
    """Triton model -> the engine here that it is made of; None: each engine under its own name."""
    load_at_start: Sequence[str] | None = None
    """Triton models that are loaded when it starts, others on request; None: all are, and none on request."""
    workers: int = 1
    rules: gateway.Rules = field(default_factory=gateway.Rules)
    upstreams: Sequence[str] = ()
    """host:port of Tritons that are run elsewhere."""
    gateway_only: bool = False
    """Nothing is started but nginx, in front of `upstreams`."""
    metrics_upstream: str | None = None
    tritonserver: str | None = None
    trace_url: str | None = None
    """Where Triton sends spans of its own; None: it makes none."""
    triton_arguments: Sequence[str] = ()
    start_timeout_s: float = 300
    max_log: str = "16m"
    """A log that is longer is emptied, and kept once beside the new one."""
    access_log: Path | None = None
    """Gets a line for each request."""
    access_log_shown: bool = False
    """On standard output as well."""
    log_prompts: int = 0
    """Bytes of a request's body that the access log shows."""
    models: Path = ROOT / "model_repository"
    gateway: Path = ROOT / "gateway"

    def endpoints(self) -> list[checks.Endpoint]:
        """Only the gateway may listen beyond this machine."""
        local = "127.0.0.1"
        found = [checks.Endpoint("--port", self.host, self.port)]
        if self.gateway_only:
            return found
        found += [
            checks.Endpoint("--triton-http-port", local, self.triton_http_port),
            checks.Endpoint("--triton-metrics-port", local, self.triton_metrics_port),
        ]
        if self.triton_grpc_port is not None:
            found.append(checks.Endpoint("--triton-grpc-port", local, self.triton_grpc_port))
        return found


def silent(step: str) -> None:
    """A teller for callers that want no progress."""


class Stack:
    def __init__(self, settings: Settings, tell: Callable[[str], None] = silent) -> None:
        self.settings = settings
        self._tell = tell
        self._lock: IO[str] | None = None
        self._triton: triton.Triton | None = None
        self._gateway: gateway.Gateway | None = None
        self._follower: logs.Follower | None = None
        self._not_reloaded = ""  # why the gateway's files could not be read anew
        front = settings.parameters.get(repository.FRONT_MODEL, {})
        self._drain = Drain(Path(front.get("drain_file") or settings.run_dir.resolve() / "draining"))

    @property
    def url(self) -> str:
        """The gateway, without a path."""
        scheme = "http" if self.settings.rules.tls_cert is None else "https"
        return f"{scheme}://{_bracketed(gateway.reachable(self.settings.host))}:{self.settings.port}"

    @property
    def base_url(self) -> str:
        """What OpenAI's clients call the base URL."""
        return self.url + self.settings.rules.route_prefixes[0]

    @property
    def own_headers(self) -> dict[str, str]:
        """Let the launcher's own requests in, whatever others have to send."""
        return {} if self._gateway is None else self._gateway.own_headers()

    @property
    def triton_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.triton_http_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.triton_metrics_port}/metrics"

    @property
    def children(self) -> list[processes.Child]:
        return [part.child for part in (self._triton, self._gateway) if part is not None]

    def start(self) -> None:
        """Returns when Triton is ready and nginx listens; on failure nothing is left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        settings, run = self.settings, self.settings.run_dir.resolve()
        self._check()
        self._claim(run)
        nginx = gateway.find_nginx()
        if not settings.gateway_only:
            self._start_triton(run)
        self._tell(f"starting nginx (logs: {run / GATEWAY_FOLDER})")
        if settings.access_log is not None and settings.access_log_shown:
            self._follower = logs.Follower(settings.access_log, STANDARD_OUTPUT)
        self._gateway = gateway.start(nginx, settings.gateway, run / GATEWAY_FOLDER, self._listen())
        self._gateway.wait_until_listening()

    def _start_triton(self, run: Path) -> None:
        settings = self.settings
        installation = triton.find(settings.tritonserver, run / "backends")
        self._drain.end()
        repository.assemble(
            settings.models,
            run / REPOSITORY_FOLDER,
            self._parameters(),
            settings.instances,
            settings.sessions,
            settings.engines,
        )
        self._tell(f"starting Triton and loading the models (log: {run / 'triton.log'})")
        ports = (settings.triton_http_port, settings.triton_metrics_port, settings.triton_grpc_port)
        self._triton = triton.start(
            installation,
            run / REPOSITORY_FOLDER,
            run,
            *ports,
            load_at_start=settings.load_at_start,
            trace_url=settings.trace_url,
            extra_arguments=settings.triton_arguments,
        )
        self._triton.wait_until_ready(settings.start_timeout_s, self._tell)

    def _parameters(self) -> dict[str, Mapping[str, str]]:
        front = self.settings.parameters.get(repository.FRONT_MODEL, {})
        return {**self.settings.parameters, repository.FRONT_MODEL: {**front, "drain_file": str(self._drain.file)}}

    def _listen(self) -> gateway.Listen:
        settings = self.settings
        own = [] if settings.gateway_only else [f"127.0.0.1:{settings.triton_http_port}"]
        return gateway.Listen(
            host=settings.host,
            port=settings.port,
            upstreams=[*own, *settings.upstreams],
            metrics_upstream=settings.metrics_upstream or f"127.0.0.1:{settings.triton_metrics_port}",
            workers=settings.workers,
            rules=settings.rules,
            access_log=settings.access_log,
            log_prompts=settings.log_prompts,
        )

    def _check(self) -> None:
        checks.python_version()
        checks.ports(self.settings.endpoints())
        if not self.settings.gateway_only:
            checks.shared_memory(self.settings.instances)

    def _claim(self, run: Path) -> None:
        """One server per run folder: the lock goes away with the process, however it ends."""
        try:
            run.mkdir(mode=logs.PRIVATE_FOLDER, parents=True, exist_ok=True)
            _check_that_it_may_be_written_anew(run)
            self._lock = (run / LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LaunchError(f"Another server runs in {run}: choose another folder with --run-dir.") from None
        except OSError as error:
            raise LaunchError(f"The folder {run} cannot be used ({error.strerror}): see --run-dir.") from None

    def check_alive(self) -> None:
        """Raises if Triton, a process of one of its models or nginx has ended."""
        dead = self._dead_part()
        if dead is not None:
            raise LaunchError(f"{dead.death}; its log is {dead.child.log}.")

    def watch(self, interval_s: float = 0.5) -> None:
        """Restarts whatever dies, for as long as that helps; then raises. To be called in the main thread."""
        deaths: deque[float] = deque(maxlen=MOST_DEATHS)
        restarting_s = 0.0
        while True:
            dead = self._dead_part()
            if dead is None:
                self._follow_files()
                self._empty_long_logs()
                time.sleep(interval_s)
                continue
            noticed = time.monotonic()
            deaths.append(noticed - restarting_s)
            if len(deaths) == MOST_DEATHS and deaths[-1] - deaths[0] <= DEATHS_WITHIN_S:
                raise LaunchError(
                    f"{dead.death} in spite of {MOST_DEATHS - 1} restarts within {DEATHS_WITHIN_S // 60} minutes; "
                    f"its log is {dead.child.log}."
                )
            self._restart(dead)
            restarting_s += time.monotonic() - noticed

    def _follow_files(self) -> None:
        """Keys and certificate may change while the gateway runs."""
        try:
            if self._gateway is not None and self._gateway.reload_if_changed():
                self._not_reloaded = ""
                self._tell("keys and certificate were read anew")
        except (LaunchError, OSError) as error:
            reason = str(error) if isinstance(error, LaunchError) else f"{error}."
            if reason != self._not_reloaded:  # it is tried again and again
                self._tell(f"{reason} The gateway goes on with the keys and the certificate that it has.")
            self._not_reloaded = reason

    def _empty_long_logs(self) -> None:
        most = gateway.bytes_of(self.settings.max_log)
        for child in self.children:
            logs.empty_if_longer(child.log, most)
        access_log = self.settings.access_log
        if access_log is not None and logs.empty_if_longer(access_log, most) and self._follower is not None:
            self._follower.emptied()

    def _dead_part(self) -> triton.Triton | gateway.Gateway | None:
        return next((part for part in (self._triton, self._gateway) if part is not None and part.death), None)

    def _restart(self, part: triton.Triton | gateway.Gateway) -> None:
        started = time.monotonic()
        self._tell(f"{part.death}; restarting {part.child.name} (the log so far: {part.child.old_log})")
        part.restart()
        if isinstance(part, triton.Triton):
            part.wait_until_ready(self.settings.start_timeout_s, self._tell)
        else:
            part.wait_until_listening()
        self._tell(f"{part.child.name} is ready again after {time.monotonic() - started:.1f} s")

    def drain(self, grace_s: float) -> None:
        """Lets running requests finish, but not for longer than so; new ones are refused. `stop` comes next.

        nginx ends before Triton, which would wait for the connections that nginx keeps to it.
        """
        if self._gateway is None:
            return
        deadline = time.monotonic() + grace_s
        self._gateway.refuse()
        if self._triton is not None:
            self._drain.begin()
        self._wait_for_requests(self._gateway, grace_s)
        if self._triton is not None and not self._drain.is_over():
            self._drain.cut_off()
            self._wait_for_requests(self._gateway, CUT_OFF_PATIENCE_S)
        left_s = max(deadline - time.monotonic(), gateway.STOP_PATIENCE_S)
        self._gateway.child.stop(left_s, ask=signal.SIGQUIT)

    def _wait_for_requests(self, door: gateway.Gateway, at_most_s: float) -> None:
        """Those of the Triton here, and those of other Tritons that go through the gateway."""
        deadline = time.monotonic() + at_most_s
        while time.monotonic() < deadline and self._dead_part() is None:
            if door.is_idle() and (self._triton is None or self._drain.is_over()):
                return
            time.sleep(0.05)

    def stop(self) -> None:
        """First the gateway, so that no request comes in while Triton lets the running ones finish."""
        for part in (self._gateway, self._triton):
            if part is not None:
                part.stop()
        self._gateway = self._triton = None
        if self._follower is not None:
            self._follower.stop()
            self._follower = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _check_that_it_may_be_written_anew(run: Path) -> None:
    """What a server before this one made is removed, what anybody else did must not be: a checkout has such names."""
    foreign = [] if (run / LOCK).exists() else [name for name in WRITTEN_ANEW if (run / name).exists()]
    if foreign:
        raise LaunchError(f"{run / foreign[0]} is not of this server: choose another folder with --run-dir.")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def default_run_dir(port: int) -> Path:
    """Inside the checkout if it may be written to, one per port, so that several servers can run."""
    base = ROOT if os.access(ROOT, os.W_OK) else Path.home() / ".cache" / "openai-bls"
    return base / ".run" / str(port)
