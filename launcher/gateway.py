"""Fills in the nginx templates and runs nginx.

In: a folder with nginx.conf.template, its *.conf, gateway.js, openapi.json and page/; what the gateway shall allow.
Out: a running nginx, which takes new keys and certificates while it runs. It knows nothing about routes or OpenAI;
those are in the templates.

A placeholder is `@NAME@`; the templates may use those of `values_for` and no others. Folders are given relative to
nginx's prefix, so the path of the checkout may contain spaces and quotes. The template says `daemon off;`: nginx stays
a child.
"""

from __future__ import annotations

import json
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launcher import access, logs, processes
from launcher.errors import LaunchError

TEMPLATE = "nginx.conf.template"
OPENAPI = "openapi.json"
PAGE = "page"
"""Folder of the page's files."""
SOURCE_LINK = "source"
LOG = "error.log"
ACCESS_LOG_LINK = "access.log"
"""In the run folder; it leads to wherever the log is wanted."""
TEMPORARY_RECORD = "temporary.folder"
TEMPORARY_PREFIX = "openai_bls.nginx."
NJS_MODULE = "ngx_http_js_module.so"
STOP_PATIENCE_S = 5
SPARE_CONNECTIONS = 256
"""Beyond those of the requests: idle ones, health checks, those that are being refused."""
HOPS = "hops"
"""The folder of the hops' sockets; they are numbered from 1."""
RUNNING = "running"
"""The socket at which nginx says how many requests run."""
DRAINING = "draining"
"""While a file of that name exists, requests are refused (draining.conf)."""
HOP_PATIENCE = "1d"
"""A hop itself looks whether its Triton is silent; an answer that it holds may take as long as requests may take."""
HOP_BACKLOG = 4096
"""Requests that come at once and that the hop, in the same worker, has not looked at yet."""
IDLE_CONNECTIONS = 256
"""To each Triton."""
LEAST_HTTP2_WINDOW = 65536
"""With less nginx refuses what a client sends before it has seen how much it may send."""
LONGEST_RETRY_AFTER_S = 120
"""OpenAI's clients do not try again at all if they are told to wait longer."""
_PLACEHOLDER = re.compile(r"@([A-Z][A-Z0-9_]*)@")
_SYSTEM_FOLDERS = ("/usr/local/nginx/sbin", "/usr/local/sbin", "/usr/sbin", "/sbin")
_MODULE_FOLDERS = ("/usr/lib/nginx/modules", "/etc/nginx/modules", "/usr/lib64/nginx/modules")
_ON, _OFF = "", "# "
"""What a placeholder at the beginning of a line becomes."""


@dataclass(frozen=True)
class Rules:
    """What the gateway allows, to whom and how much; docs/gateway.md explains each."""

    api_keys: Sequence[str] = ()
    api_keys_file: Path | None = None
    restricted_api: str = ""
    restricted_api_file: Path | None = None
    rate_limit: str | None = None
    rate_burst: int = 20
    concurrent_requests: int | None = None
    max_body: str = "4m"
    max_header: str = "8k"
    header_timeout: int = 15
    body_timeout: int = 15
    send_timeout: int = 30
    send_buffer: str = "128k"
    max_backlog: str = "8m"
    max_connections: int = 4096
    max_connections_per_address: int = 1024
    requests_per_connection: int = 1000
    cors_origins: Sequence[str] = ()
    route_prefixes: Sequence[str] = ("/v1", "")
    metrics: str = "off"
    page: str = "on"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    reload_grace: int = 600
    upstream_retry: int = 5
    upstream_timeout: int = 90
    trace_ratio: str | None = None
    """Of requests without a trace of their own; None: no traces, and what clients say of theirs stays here."""

    @property
    def followed(self) -> list[Path]:
        """The files that are read anew when they change."""
        files = (self.api_keys_file, self.restricted_api_file, self.tls_cert, self.tls_key)
        return [file for file in files if file is not None]

    @property
    def asks_for_keys(self) -> bool:
        return bool(self.api_keys or self.api_keys_file)


@dataclass(frozen=True)
class Listen:
    """Where the gateway listens and which Tritons are behind it."""

    host: str = "127.0.0.1"
    port: int = 9000
    upstreams: Sequence[str] = ("127.0.0.1:8000",)
    metrics_upstream: str = "127.0.0.1:8002"
    workers: int = 1
    rules: Rules = field(default_factory=Rules)
    access_log: Path | None = None
    log_prompts: int = 0
    """Bytes of a request's body that the access log shows."""


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


def values_for(listen: Listen, njs_module: Path, temporary: Path) -> dict[str, str]:
    """Everything a template may ask for.

    Args:
        temporary: a folder that nginx's workers can reach, whoever they run as.
    """
    rules = listen.rules
    hops = len(resolved(listen.upstreams)) > 1
    connections = (4 if hops else 2) * rules.max_connections + SPARE_CONNECTIONS
    return {
        "HOST": f"[{listen.host}]" if ":" in listen.host else listen.host,
        "PORT": str(listen.port),
        "RUN": ".",
        "JS_DIR": SOURCE_LINK,
        "TEMPORARY": str(temporary),
        "HOPS": str(temporary / HOPS),
        "UPSTREAM_TIMEOUT": str(rules.upstream_timeout),
        "ACCESS_LOG": _OFF if listen.access_log is None else _ON,
        "ACCESS_LOG_LINK": ACCESS_LOG_LINK,
        "LOG_PROMPTS": str(listen.log_prompts or ""),
        "MODULES": f'load_module "{njs_module}";',
        "WORKERS": str(listen.workers),
        "WORKER_CONNECTIONS": str(connections),
        "FILES": str(min(connections + SPARE_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
        "MAX_CONNECTIONS": str(rules.max_connections),
        "MAX_CONNECTIONS_PER_ADDRESS": str(rules.max_connections_per_address),
        "REQUESTS_PER_CONNECTION": str(rules.requests_per_connection),
        "MAX_BODY": rules.max_body,
        "BODY_BUFFER": str(2 * bytes_of(rules.max_body)),
        "HTTP2_WINDOW": str(max(LEAST_HTTP2_WINDOW, 2 * bytes_of(rules.max_body))),
        "MAX_HEADER": rules.max_header,
        "HEADER_TIMEOUT": str(rules.header_timeout),
        "BODY_TIMEOUT": str(rules.body_timeout),
        "SEND_TIMEOUT": str(rules.send_timeout),
        "SEND_BUFFER": rules.send_buffer,
        "MAX_BACKLOG": str(bytes_of(rules.max_backlog)),
        "RELOAD_GRACE": str(rules.reload_grace),
        "RATE": _OFF if rules.rate_limit is None else _ON,
        "RATE_LIMIT": _nginx_rate(rules.rate_limit or "1/s"),
        "RATE_BURST": str(rules.rate_burst),
        "RATE_RETRY_AFTER": str(_seconds_between(rules.rate_limit or "1/s")),
        "CONCURRENT": _OFF if rules.concurrent_requests is None else _ON,
        "CONCURRENT_REQUESTS": str(rules.concurrent_requests),
        "PREFIXES": "|".join(rules.route_prefixes),
        "METRICS": rules.metrics,
        "PAGE": _ON if rules.page == "on" else _OFF,
        "TRACE": _OFF if rules.trace_ratio is None else _ON,
        "TRACE_RATIO": rules.trace_ratio or "",
        "METRICS_SERVER": listen.metrics_upstream,
        "TLS": _OFF if rules.tls_cert is None else _ON,
        "LISTEN_TLS": "" if rules.tls_cert is None else " ssl http2",
    }


def bytes_of(size: str) -> int:
    """4m → 4194304"""
    return int(size.rstrip("kmg")) * {"k": 2**10, "m": 2**20, "g": 2**30}.get(size[-1], 1)


def _nginx_rate(rate: str) -> str:
    """10/s → 10r/s"""
    return rate.replace("/", "r/")


def _seconds_between(rate: str) -> int:
    """How long until a client that was too fast may send its next request."""
    count, unit = rate.split("/")
    return min(LONGEST_RETRY_AFTER_S, -(-{"s": 1, "m": 60}[unit] // int(count)))


def included_files(listen: Listen, pass_key: str, temporary: Path) -> dict[str, str]:
    """The files that the template includes and that are lists: name → text. Reads the files of secrets.

    Args:
        pass_key: a key for the launcher itself, where clients need one.
        temporary: as for `values_for`.
    """
    rules = listen.rules
    keys = access.read_keys(rules.api_keys, rules.api_keys_file)
    restrictions = access.read_restrictions(rules.restricted_api, rules.restricted_api_file)
    own = [access.Key("launcher", access.digest_of(pass_key, "the launcher's own key"))] if keys else []
    return {
        "keys.conf": access.keys_map([*keys, *own]),
        "group_headers.conf": access.headers_map(restrictions),
        "group_values.conf": access.values_map(restrictions, pass_key),
        "origins.conf": _origins(rules.cors_origins),
        **_triton_files(resolved(listen.upstreams), rules, temporary / HOPS),
    }


def _triton_files(tritons: Sequence[str], rules: Rules, folder: Path) -> dict[str, str]:
    """How one Triton, or several behind hops, are asked; `folder` is that of the hops' sockets."""
    if len(tritons) == 1:
        return {
            "upstreams.conf": f"server {tritons[0]};\nkeepalive {IDLE_CONNECTIONS};\n",
            "hops.conf": f"proxy_read_timeout {rules.upstream_timeout}s;\n",
            "others.conf": "",
            "tritons.conf": "",
        }
    hops = {number: f'"unix:{folder}/{number}"' for number in range(1, len(tritons) + 1)}
    servers = {hop: f"server {hop} max_fails=1 fail_timeout={rules.upstream_retry}s;\n" for hop in hops.values()}
    parts = [
        f"upstream triton_{number} {{\nserver {tritons[number - 1]};\nkeepalive {IDLE_CONNECTIONS};\n}}\n"
        f"server {{\nlisten {hop} backlog={HOP_BACKLOG};\nset $triton triton_{number};\ninclude ./hop.conf;\n}}\n"
        f"upstream other_than_{number} {{\nleast_conn;\n"
        f"{''.join(line for other, line in servers.items() if other != hop)}}}\n"
        for number, hop in hops.items()
    ]
    return {
        "upstreams.conf": "".join(servers.values()),
        "hops.conf": f"proxy_read_timeout {HOP_PATIENCE};\n" + "".join(parts),
        "others.conf": "".join(f"{hop} other_than_{number};\n" for number, hop in hops.items()),
        "tritons.conf": "".join(f"{hop} {tritons[number - 1]};\n" for number, hop in hops.items()),
    }


def resolved(addresses: Sequence[str]) -> list[str]:
    """Each Triton once: host:port with names resolved, which may stand for several. nginx reports unknown ones."""
    found = [place for address in addresses for place in _places(address)]
    return list(dict.fromkeys(found))


def _places(address: str) -> list[str]:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, OverflowError):
        return [address]
    hosts = dict.fromkeys(str(place[0]) for *_, place in found)
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts]


def _origins(allowed: Sequence[str]) -> str:
    """Origin → what Access-Control-Allow-Origin says."""
    rows = ('"~." "*";' if origin == "*" else f'"{origin}" $http_origin;' for origin in allowed)
    return "".join(f"{row}\n" for row in rows)


def openapi_module(document: str, prefixes: Sequence[str]) -> str:
    """A njs module that has the description; workers of nginx may not be able to read files of ours."""
    described = json.loads(document)
    described["servers"] = [{"url": prefix or "/"} for prefix in prefixes]
    text = json.dumps(described, separators=(",", ":"))
    return f"export default {{text: () => {json.dumps(text)}}};\n"


def page_module(files: Mapping[str, str]) -> str:
    """A njs module with the text of each of the page's files; the root is its index.html."""
    answer = "r => texts[r.variables.page_file || 'index.html'] || ''"
    return f"const texts = {json.dumps(files)};\nexport default {{text: {answer}}};\n"


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


class Gateway:
    """A running nginx."""

    def __init__(self, child: processes.Child, files: _Files, command: Sequence[str]) -> None:
        self.child = child
        self._files = files
        self._command = command
        self._address = (reachable(files.listen.host), files.listen.port)

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
        self._end()
        self._files.remove_sockets()
        self.child.start_again()

    def reload_if_changed(self) -> bool:
        """Takes over keys and certificates whose files have changed; streams that run go on.

        Raises:
            LaunchError: they cannot be used; nginx goes on with what it had.
        """
        found = self._files.stamps()
        if found == self._files.used:
            return False
        self._files.write_lists()
        _check(self._command)
        if self.child.exit_code is None:
            os.kill(self.child.pid, signal.SIGHUP)
        self._files.used = found  # not before: what failed is tried again
        return True

    def refuse(self) -> None:
        """Nothing new is taken from now on: 503, ready as well. What runs goes on."""
        (self._files.temporary / DRAINING).touch()

    def is_idle(self) -> bool:
        """Whether no request runs; also if nobody is there to say."""
        try:
            told = _ask(self._files.temporary / HOPS / RUNNING)
        except OSError:
            return True
        writing = re.search(r"Writing: (\d+)", told)
        return writing is not None and int(writing[1]) <= 1  # this question

    def own_headers(self) -> dict[str, str]:
        """What the launcher's own requests send: its key, and for each restricted group the group's header."""
        return self._files.own_headers()

    def stop(self) -> None:
        self._end()
        self._files.remove_temporary()

    def _end(self) -> None:
        self.child.stop(STOP_PATIENCE_S, ask=signal.SIGTERM)


class _Files:
    """The run folder of a gateway, and the files of the user that it depends on."""

    def __init__(self, source: Path, run: Path, listen: Listen) -> None:
        self.listen = listen
        self.pass_key = secrets.token_hex(32)
        self.temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
        self.temporary.chmod(0o711)
        self._source = source
        self._run = run
        self.used = self.stamps()

    def write(self, njs_module: Path) -> None:
        """Makes the folder anew."""
        self._tidy_up_after_a_crash()
        shutil.rmtree(self._run, ignore_errors=True)
        self._run.mkdir(mode=logs.PRIVATE_FOLDER, parents=True)
        (self._run / TEMPORARY_RECORD).write_text(str(self.temporary), encoding="utf-8")
        (self._run / SOURCE_LINK).symlink_to(self._source.resolve())
        values = values_for(self.listen, njs_module, self.temporary)
        for template in [self._source / TEMPLATE, *sorted(self._source.glob("*.conf"))]:
            text = render(template.read_text(encoding="utf-8"), values)
            (self._run / template.name.removesuffix(".template")).write_text(text, encoding="utf-8")
        rules = self.listen.rules
        document = (self._source / OPENAPI).read_text(encoding="utf-8")
        (self._run / "openapi.js").write_text(openapi_module(document, rules.route_prefixes), encoding="utf-8")
        page = sorted((self._source / PAGE).glob("*.*"))
        texts = {file.name: render(file.read_text(encoding="utf-8"), values) for file in page}
        (self._run / "page.js").write_text(page_module(texts), encoding="utf-8")
        links = (("tls.crt", rules.tls_cert), ("tls.key", rules.tls_key), (ACCESS_LOG_LINK, self.listen.access_log))
        for name, file in links:
            if file is not None:
                (self._run / name).symlink_to(file.absolute())
        if self.listen.access_log is not None:
            logs.make(self.listen.access_log)
        self.write_lists()

    def _tidy_up_after_a_crash(self) -> None:
        record = self._run / TEMPORARY_RECORD
        if record.is_file():
            left = Path(record.read_text(encoding="utf-8"))
            if left.name.startswith(TEMPORARY_PREFIX):
                shutil.rmtree(left, ignore_errors=True)

    def remove_sockets(self) -> None:
        """Those that a killed nginx has left are in the way of the next one."""
        for socket_file in (self.temporary / HOPS).glob("*"):
            socket_file.unlink(missing_ok=True)

    def remove_temporary(self) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)

    def write_lists(self) -> None:
        for name, text in included_files(self.listen, self.pass_key, self.temporary).items():
            _write_private(self._run / name, text)

    def own_headers(self) -> dict[str, str]:
        rules = self.listen.rules
        restrictions = access.read_restrictions(rules.restricted_api, rules.restricted_api_file)
        own = {"Authorization": f"Bearer {self.pass_key}"} if rules.asks_for_keys else {}
        return {each.header: self.pass_key for each in restrictions} | own

    def stamps(self) -> list[tuple[int, int, int] | None]:
        """What tells whether a followed file is another one than before."""
        return [_stamp(file) for file in self.listen.rules.followed]


def start(nginx: Nginx, source: Path, run: Path, listen: Listen) -> Gateway:
    """Writes configuration and keys to `run` (made anew), has nginx check them and starts it."""
    if not (source / TEMPLATE).is_file():
        raise LaunchError(f"The gateway's template {source / TEMPLATE} is missing.")
    files = _Files(source, run, listen)
    command = [str(nginx.program), "-p", f"{run}/", "-c", "nginx.conf", "-e", LOG]
    try:
        files.write(nginx.njs_module)
        _check(command)
        child = processes.start("nginx", command, processes.child_environment(), run / LOG, run)
    except BaseException:
        files.remove_temporary()
        raise
    return Gateway(child, files, command)


def _check(command: Sequence[str]) -> None:
    environment = processes.child_environment()
    checked = subprocess.run([*command, "-t", "-q"], env=environment, capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        raise LaunchError(f"nginx refuses its configuration: {reason_in(checked.stderr.splitlines())}.")


def trusting(certificate: Path | None) -> ssl.SSLContext | None:
    """For the launcher's own requests: trusts this very certificate, whatever name the server is called by."""
    if certificate is None:
        return None
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


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


def _ask(socket_file: Path) -> str:
    """The answer of a server at a Unix socket that ends it by closing the connection."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        connection.connect(str(socket_file))
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with connection.makefile("r", encoding="ascii", errors="replace") as answer:
            return answer.read()


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _write_private(file: Path, text: str) -> None:
    """As a whole or not at all: on a full disk the old list stays."""
    draft = file.with_name(f"{file.name}.draft")
    private = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, logs.PRIVATE)
    with os.fdopen(private, "w", encoding="ascii") as stream:
        stream.write(text)
    draft.replace(file)
