"""The shipped model's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "model_repository" / "tensorrt_llm" / "tiny-chat"


@pytest.fixture(scope="session")
def tiny_chat() -> Path:
    return FOLDER
