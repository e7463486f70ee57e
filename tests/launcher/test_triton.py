from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from launcher import triton
from launcher.errors import LaunchError
from launcher.processes import Child

FAILED_MODEL = """\
I0101 10:00:00.000000 12 server.cc:674]
+------------+---------+-------------------------------------------+
| Model      | Version | Status                                    |
+------------+---------+-------------------------------------------+
| fine       | 1       | READY                                     |
| openai_bls | 1       | UNAVAILABLE: Internal: ValueError: no file |
|            |         |                                           |
|            |         | At:                                       |
+------------+---------+-------------------------------------------+
error: creating server: Internal - failed to load all models
"""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (FAILED_MODEL, "model openai_bls: ValueError: no file"),
        ('E0101 10:00:00.000000 12 main.cc:3] "Address already in use"\nI0101 nothing', "Address already in use"),
        ("tritonserver: error while loading shared libraries: libz.so.1\n", "tritonserver: error while loading "
         "shared libraries: libz.so.1"),
        ("", "it wrote nothing"),
    ],
)  # fmt: skip
def test_the_reason_in_a_log(log: str, reason: str) -> None:
    assert triton.reason_in(log.splitlines()) == reason


def wheel(root: Path, python: str = triton.PYTHON_TAG) -> Path:
    """What matters of the wheel's folder; returns the server."""
    for name in (
        "bin/tritonserver",
        "backends/python/libtriton_python.so",
        "backends/python/triton_python_backend_utils.py",
        f"python_backend_stubs/{python}/triton_python_backend_stub",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch(0o755)
    return root / "bin" / "tritonserver"


def test_the_wheel_gets_a_folder_of_links(tmp_path: Path) -> None:
    found = triton.find(str(wheel(tmp_path / "wheel")), tmp_path / "links")
    assert found.backends == tmp_path / "links"
    assert sorted(file.name for file in (found.backends / "python").iterdir() if file.is_symlink()) == [
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    ]
    assert found.environment["LD_LIBRARY_PATH"].split(":")[0] == str(triton.libpython().parent)


def test_a_server_elsewhere_keeps_its_own_backends(tmp_path: Path) -> None:
    server = tmp_path / "opt" / "bin" / "tritonserver"
    server.parent.mkdir(parents=True)
    server.touch(0o755)
    assert triton.find(str(server), tmp_path / "links").backends == tmp_path / "opt" / "backends"


@pytest.mark.parametrize("name", ["missing", "."])
def test_something_that_is_no_server(tmp_path: Path, name: str) -> None:
    with pytest.raises(LaunchError, match="is not a tritonserver program"):
        triton.find(str(tmp_path / name), tmp_path / "links")


def test_a_wheel_for_other_pythons(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="has no Python backend for Python"):
        triton.find(str(wheel(tmp_path, python="2.7")), tmp_path / "links")


def test_a_missing_libpython_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: str(tmp_path))
    monkeypatch.setattr("sys.base_prefix", str(tmp_path))
    monkeypatch.setattr(triton, "_loader_folders", lambda library: [])
    with pytest.raises(LaunchError, match=rf"apt-get install libpython{triton.PYTHON_TAG}\)"):
        triton.libpython()


def test_regions_of_the_last_server_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "SHARED_MEMORY", tmp_path)
    record = tmp_path / "record"
    first = triton._fresh_region_prefix(record)
    for name in (f"{first}1", f"{first}2", "somebody_else"):
        (tmp_path / name).touch()
    assert triton._fresh_region_prefix(record) != first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["record", "somebody_else"]


@dataclass
class Stub:
    """A model's process."""

    pid: int
    started: int
    instance: str
    is_running: bool = True

    @property
    def command(self) -> tuple[str, ...]:
        model = self.instance.rsplit("_", 2)[0]
        return ("stub", f"repository/{model}/1/model.py", "region", "1", "1", "9", "python", "336", self.instance, "x")


@dataclass
class Server:
    """A Triton that lives."""

    stubs: list[Stub]
    death: str | None = None

    def group(self, program: str) -> list[Stub]:
        return list(self.stubs)


def test_a_process_may_go_after_its_successor_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    old, other = Stub(1, 10, "engine_0_0"), Stub(2, 10, "engine_0_1")
    server = Server([old, other])
    running = triton.Triton(cast(Child, server), 1, "", models_change=True)
    monkeypatch.setattr(running, "_says_yes", lambda path: True)
    assert running.death is None
    new = Stub(3, 20, "engine_0_0")
    server.stubs.append(new)
    assert running.death is None  # Triton loads the model while it still unloads it
    old.is_running = False
    assert running.death is None
    other.is_running = False  # another instance has no successor
    assert running.death == "Triton's process for model engine ended"
    other.is_running, new.is_running = True, False
    assert running.death == "Triton's process for model engine ended"
