"""What something was built from: versions, options, the model's own configuration.

In: options and facts. Out: a JSON file beside the result. Engines work only with the TensorRT-LLM and on the kind of
GPU they were built with, so both are in it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from builder.model import Facts
from builder.options import Options

FILE = "built.json"
ROOT = Path(__file__).resolve().parent.parent


def version_of_package(name: str) -> str:
    """Empty if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def gpus() -> list[str]:
    """Names of this machine's GPUs; none if that cannot be found out."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = subprocess.run(["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"], capture_output=True,
                           text=True, check=False)
    return [line.strip() for line in asked.stdout.splitlines() if line.strip()] if asked.returncode == 0 else []


def machine() -> dict[str, Any]:
    """What compiled results depend on."""
    return {"tensorrt_llm": version_of_package("tensorrt_llm"), "gpus": gpus()}


def contents(options: Options, facts: Facts) -> dict[str, Any]:
    return {
        "openai_bls": _own_version(),
        "flow": options.flow,
        "model": {"folder": str(facts.folder), "name": facts.name,
                  "config_sha256": _digest(facts.folder / "config.json")},
        "options": {name: value if isinstance(value, int | float | str | None) else str(value)
                    for name, value in options.values.items()},
        "python": platform.python_version(),
        **machine(),
    }


def write(target: Path, options: Options, facts: Facts) -> None:
    target.write_text(json.dumps(contents(options, facts), indent=2) + "\n", encoding="utf-8")


def _own_version() -> str:
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
