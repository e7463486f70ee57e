"""Steps in order, each done once: after a failure the same command goes on where it ended.

A step is a command or a function that makes one folder or file. When it has succeeded, a note beside the result says
from what it was made; a step whose note says the same is not done again. A result without its note is half made: it is
removed and made anew.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.errors import LaunchError

TAIL = 15
"""Lines of a failed command's log that are shown."""


@dataclass(frozen=True)
class Step:
    """`made_from` is what the result depends on besides the command; `check` raises LaunchError for a bad result."""

    title: str
    result: Path
    command: Sequence[str] = ()
    function: Callable[[], None] | None = None
    made_from: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None

    @property
    def note(self) -> Path:
        return self.result.with_name(self.result.name + ".done")

    @property
    def log(self) -> Path:
        return self.result.with_name(self.result.name + ".log")

    def told(self) -> str:
        return shlex.join(self.command) if self.command else f"(write {self.result})"

    def ingredients(self) -> str:
        return json.dumps({"command": list(self.command), **self.made_from}, indent=1, sort_keys=True, default=str)

    def is_done(self) -> bool:
        return self.note.is_file() and self.result.exists() and self.note.read_text() == self.ingredients()


def run(steps: Sequence[Step], tell: Callable[[str], None]) -> None:
    """Raises LaunchError for the first step that fails."""
    redo = False
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.title}"
        if step.is_done() and not redo:
            tell(f"{head}: done before")
            continue
        redo = True  # what comes later was made from what is made now
        tell(f"{head} …")
        started = time.monotonic()
        _make(step)
        tell(f"{head}: {time.monotonic() - started:.0f} s")


def show(steps: Sequence[Step], tell: Callable[[str], None]) -> None:
    """What `run` would do."""
    for number, step in enumerate(steps, 1):
        tell(f"[{number}/{len(steps)}] {step.title}{' (done before)' if step.is_done() else ''}")
        tell(f"    {step.told()}")


def _make(step: Step) -> None:
    step.note.unlink(missing_ok=True)
    _remove(step.result)
    step.result.parent.mkdir(parents=True, exist_ok=True)
    try:
        if step.command:
            _call(step)
        elif step.function:
            step.function()
        if not step.result.exists():
            raise LaunchError(f"{step.title}: it went well, but there is no {step.result}.")
        step.check()
    except OSError as error:
        raise LaunchError(f"{step.title}: {error}.") from error
    step.note.write_text(step.ingredients())


def _call(step: Step) -> None:
    with step.log.open("w", encoding="utf-8") as log:
        log.write(step.told() + "\n")
        log.flush()
        try:
            status = subprocess.run(list(step.command), stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        except FileNotFoundError:
            raise LaunchError(f"{step.title}: there is no {step.command[0]}.") from None
    if status:
        tail = "\n".join(step.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:])
        raise LaunchError(f"{step.title} failed with status {status} (the whole log: {step.log}):\n{tail}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
