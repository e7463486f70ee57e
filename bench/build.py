"""Compiles the synthetic engine and the load generator, if a compiler is there and the sources have changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILT = HERE / "build"
FLAGS = ("-std=c++17", "-O2", "-Wall", "-Wextra")
LIBRARY = ("-shared", "-fPIC", "-fvisibility=hidden", "-pthread")
ENGINE = BUILT / "libtriton_synthetic.so"
LOAD = BUILT / "load"


class BuildError(Exception):
    """There is no compiler, or it failed."""


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "g++") or shutil.which("clang++")


def build() -> None:
    """Makes `ENGINE` and `LOAD`.

    Raises:
        BuildError
    """
    _compile(HERE / "engine", ENGINE, *LIBRARY)
    _compile(HERE / "load", LOAD)


def _compile(sources: Path, target: Path, *flags: str) -> None:
    newest = max(file.stat().st_mtime for file in sources.iterdir())
    if target.exists() and target.stat().st_mtime > newest:
        return
    program = compiler()
    if program is None:
        raise BuildError("No C++ compiler was found (Debian, Ubuntu: apt-get install g++; or set CXX).")
    BUILT.mkdir(exist_ok=True)
    fresh = target.with_suffix(f".{os.getpid()}")  # two builds at a time do not disturb each other
    files = [str(file) for file in sorted(sources.glob("*.cc"))]
    made = subprocess.run([program, *FLAGS, *flags, "-o", str(fresh), *files], capture_output=True, text=True)
    if made.returncode:
        raise BuildError(f"{program} failed:\n{made.stderr}")
    fresh.replace(target)
