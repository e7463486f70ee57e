from __future__ import annotations

from pathlib import Path

import pytest

from launcher import triton
from launcher.errors import LaunchError

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
