from __future__ import annotations

import socket
from collections import namedtuple
from pathlib import Path

import pytest

from launcher import checks
from launcher.errors import LaunchError


@pytest.mark.parametrize("version", [(3, 9), (3, 13), (4, 0), (2, 7)])
def test_other_pythons_are_refused(version: tuple[int, int]) -> None:
    with pytest.raises(LaunchError, match="is not supported: use Python 3.10, 3.11 or 3.12."):
        checks.python_version(version)


@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12)])
def test_supported_pythons(version: tuple[int, int]) -> None:
    checks.python_version(version)


def test_a_port_in_use_names_its_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError, match=f"Port {port} is in use: choose another one with --this."):
            checks.ports([checks.Endpoint("--this", "127.0.0.1", port)])
    checks.ports([checks.Endpoint("--this", "127.0.0.1", port)])


def test_a_port_in_use_on_all_addresses() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError, match="is in use"):
            checks.ports([checks.Endpoint("--this", "127.0.0.1", port)])


def test_equal_ports_name_both_options() -> None:
    same = [checks.Endpoint("--a", "127.0.0.1", 1), checks.Endpoint("--b", "127.0.0.1", 1)]
    with pytest.raises(LaunchError, match="--a and --b are both 1: give them different ports."):
        checks.ports(same)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(LaunchError, match="Nothing can listen on 192.0.2.1 port 9000"):
        checks.ports([checks.Endpoint("--port", "192.0.2.1", 9000)])


def test_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["f_bavail", "f_frsize"])
    monkeypatch.setattr("os.statvfs", lambda folder: usage(64 * 256, 4096))
    with pytest.raises(LaunchError, match="has 64 MB free, but 80 MB are needed: .* --shm-size=256m."):
        checks.shared_memory(2)
    monkeypatch.setattr("os.statvfs", lambda folder: usage(80 * 256, 4096))
    checks.shared_memory(2)


def test_no_shared_memory_at_all(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="does not exist"):
        checks.shared_memory(1, tmp_path / "missing")
