from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def read(tmp_path: Path, **parameters: str) -> Any:
    from settings import Settings

    config = {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    args = {"model_config": json.dumps(config), "model_repository": str(tmp_path), "model_name": "openai_bls"}
    return Settings.read(args)


def test_the_limits_that_nobody_set(tmp_path: Path) -> None:
    usual = read(tmp_path, max_requests="", max_queue_seconds="${max_queue_seconds}", drain_file="")
    assert usual.max_requests >= 256
    assert (usual.patience.queue, usual.patience.request, usual.patience.keep_alive) == (60, 1800, None)
    assert (usual.health_seconds, usual.drain_file) == (1, None)


def test_limits_as_they_are_set(tmp_path: Path) -> None:
    values = {"max_queue_seconds": "2", "max_request_seconds": "0.5", "keep_alive_seconds": "15", "health_seconds": "3"}
    found = read(tmp_path, max_requests="7", drain_file="/run/draining", **values)
    assert (found.max_requests, found.health_seconds, found.drain_file) == (7, 3, Path("/run/draining"))
    assert (found.patience.queue, found.patience.request, found.patience.keep_alive) == (2, 0.5, 15)


@pytest.mark.parametrize("value", ["0", "-1", "1e3", "x", "0.0", "nan"])
@pytest.mark.parametrize("name", ["max_requests", "max_queue_seconds", "max_request_seconds", "health_seconds"])
def test_impossible_limits(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        read(tmp_path, **{name: value})
