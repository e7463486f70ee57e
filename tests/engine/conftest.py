"""Fixtures: the small checkpoint and engines on it, without Triton."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import tiny_checkpoint
from engine.checkpoint import Checkpoint
from engine.engine import Engine
from engine.numpy_runner import NumpyRunner
from engine.settings import Settings
from tests.engine.client import Client


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint.make(folder)
    return folder


@pytest.fixture(scope="session")
def runner(tiny: Path) -> NumpyRunner:
    return NumpyRunner(Checkpoint(tiny))


@pytest.fixture
def make_client(runner: NumpyRunner) -> Iterator[Callable[..., Client]]:
    """Engines with settings of one's own, closed at the end of the test."""
    engines: list[Engine] = []

    def make(a_runner: Any = runner, publish: Any = lambda stats: None, folder: str = "folder",
             **settings: Any) -> Client:
        engine = Engine(a_runner, Settings(**settings), folder, publish)
        engine.start()
        engines.append(engine)
        return Client(engine)

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()
