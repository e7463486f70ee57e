"""The two lines that start a written repository: Triton, and the gateway in front of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from builder.options import ENGINE, Options
from launcher import triton
from launcher.errors import LaunchError

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_SCRIPT = "/app/scripts/launch_triton_server.py"
"""In NVIDIA's images: starts one tritonserver per rank of an engine."""
HTTP_PORT = 8000


def lines(options: Options) -> list[str]:
    gateway = f"{shlex.quote(str(ROOT / 'serve.sh'))} --gateway-only on --upstream 127.0.0.1:{HTTP_PORT}"
    return [_triton(options), gateway]


def _triton(options: Options) -> str:
    repository = shlex.quote(str(options.output))
    if options.flow == ENGINE and options.world_size > 1:
        return f"python3 {LAUNCH_SCRIPT} --world_size={options.world_size} --model_repo={repository}"
    # Their configurations are complete: without the flag Triton starts every Python model twice to ask.
    arguments = f"--model-repository={repository} --disable-auto-complete-config --http-port={HTTP_PORT}"
    if options.dry_run:  # looking for Triton may write a folder of links
        return f"tritonserver {arguments}"
    try:
        found = triton.find(None, options.work / "backends")
    except LaunchError:
        return f"tritonserver {arguments}"
    if not found.environment or triton.CONTAINER_ROOT in found.server.parents:
        return f"{found.server} {arguments}"
    backends = shlex.quote(str(found.backends))
    return f"{_environment(found.environment)} {found.server} {arguments} --backend-directory={backends}"


def _environment(values: Mapping[str, str]) -> str:
    """Assignments for a shell. What only goes before the present value is written so."""
    told = []
    for name, value in values.items():
        present = os.environ.get(name)
        if present and value.endswith(f":{present}"):
            told.append(f"{name}={shlex.quote(value[: -len(present)])}\"${name}\"")
        else:
            told.append(f"{name}={shlex.quote(value)}")
    return " ".join(told)
