"""What must hold before anything is started.

In: values. Out: nothing, or a LaunchError that says in one sentence what is wrong and what to do.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import LaunchError

SUPPORTED_PYTHON = ((3, 10), (3, 12))
SHM_BASE_MB = 64
"""Both models, their message queues and the requests in flight."""
SHM_PER_INSTANCE_MB = 8


@dataclass(frozen=True)
class Endpoint:
    """A port somebody wants to listen on, and the option that changes it."""

    option: str
    host: str
    port: int


def python_version(version: tuple[int, int] = (sys.version_info.major, sys.version_info.minor)) -> None:
    lowest, highest = SUPPORTED_PYTHON
    if not lowest <= version <= highest:
        raise LaunchError(f"Python {version[0]}.{version[1]} is not supported: use Python 3.10, 3.11 or 3.12.")


def ports(endpoints: Sequence[Endpoint]) -> None:
    """All different, all free."""
    seen: dict[int, Endpoint] = {}
    for endpoint in endpoints:
        other = seen.setdefault(endpoint.port, endpoint)
        if other is not endpoint:
            both = f"{other.option} and {endpoint.option} are both {endpoint.port}"
            raise LaunchError(f"{both}: give them different ports.")
    for endpoint in endpoints:
        _port_is_free(endpoint)


def _port_is_free(endpoint: Endpoint) -> None:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((endpoint.host, endpoint.port))
            probe.listen(1)
        except OSError as error:
            raise LaunchError(_why_not(endpoint, error)) from None


def _why_not(endpoint: Endpoint, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {endpoint.port} is in use: choose another one with {endpoint.option}."
    if error.errno == errno.EACCES:
        return f"You may not listen on port {endpoint.port}: choose one above 1023 with {endpoint.option}."
    place = f"{endpoint.host} port {endpoint.port}"
    return f"Nothing can listen on {place} ({error.strerror}): see --host and {endpoint.option}."


def shared_memory(instances: int, folder: Path = Path("/dev/shm")) -> None:
    needed = SHM_BASE_MB + SHM_PER_INSTANCE_MB * instances
    try:
        usage = os.statvfs(folder)
    except OSError:
        raise LaunchError(f"{folder} does not exist, but Triton's Python backend needs shared memory.") from None
    free = usage.f_bavail * usage.f_frsize // 2**20
    if free < needed:
        raise LaunchError(
            f"{folder} has {free} MB free, but {needed} MB are needed: make room there, or give a container more "
            f"with docker run --shm-size={max(256, 2 * needed)}m."
        )
