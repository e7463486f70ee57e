"""One measurement: load on a target for some seconds, and what it took."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import usage
from bench.build import LOAD
from bench.figures import Figures
from bench.target import PROMPT, Target

TOKENS = 128
BUSY = 0.7
"""Share of a core above which the load generator may be what limits the throughput."""


@dataclass(frozen=True)
class Load:
    """
    Attributes:
        streams: requests under way at any time.
        seconds: that are measured, after `warm_up`.
        think: most seconds between an answer and the next request, drawn at random: without it streams fall into step
            with each other and with the engine.
        requests: most that are sent; None: as many as there is time for.
        record: a file for each gap and each first text, with its time (load/load.cc).
    """

    streams: int
    seconds: float
    tokens: int = TOKENS
    warm_up: float = 1.0
    think: float = 0.0
    requests: int | None = None
    prompt: str = PROMPT
    prompt_ids: int = 30
    record: Path | None = None


class LoadError(Exception):
    """The load generator did not do its work."""


@dataclass
class Generator:
    """A load generator at work."""

    process: subprocess.Popen[str]

    def wait_for(self, word: str) -> None:
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != word:
            raise LoadError("the load generator ended before its time")

    def result(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.read())
        return found


@contextmanager
def generating(target: Target, load: Load) -> Iterator[Generator]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as body:
        body.write(target.body(load.tokens, load.prompt, load.prompt_ids))
        body.flush()
        options: dict[str, Any] = {
            "--host": target.host, "--port": target.port, "--path": target.path, "--body": body.name,
            "--dialect": target.dialect, "--streams": load.streams, "--seconds": load.seconds,
            "--warm-up": load.warm_up, "--tokens": load.tokens, "--think": load.think,
        }  # fmt: skip
        if target.table is not None:
            options["--table"] = target.table
        if load.requests is not None:
            options["--requests"] = load.requests
        if load.record is not None:
            options["--record"] = load.record
        if target.header:
            options["--header"] = target.header
        command = [str(LOAD), *(str(part) for pair in options.items() for part in pair)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield Generator(process)
            finally:
                process.kill()


def measure(target: Target, load: Load) -> Figures:
    """Puts the load on the target.

    Raises:
        LoadError
    """
    with generating(target, load) as generator:
        generator.wait_for("begin")
        before, began = usage.cpu_seconds(target.pids), time.monotonic()
        generator.wait_for("end")
        after, seconds = usage.cpu_seconds(target.pids), time.monotonic() - began
        memory = usage.by_program(usage.pss(target.pids))
        found = generator.result()
    spent = {pid: after[pid] - before[pid] for pid in after if pid in before}
    return Figures.of(target.name, load.streams, found, seconds, usage.by_program(spent), memory)


def ceiling(streams: int, folder: Path, port: int, seconds: float = 2.0) -> Figures:
    """The load generator against a server that does nothing but write."""
    target = Target("nothing but writes", "127.0.0.1", port, "/", "openai", more={"user": "@end"})
    with subprocess.Popen([str(LOAD), "--serve", str(port), "--events", str(TOKENS)]) as server:
        try:
            time.sleep(0.2)
            return measure(target, Load(streams, seconds))
        finally:
            server.kill()
