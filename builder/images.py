"""NVIDIA's images of Triton with TensorRT-LLM, and what each flow needs of them.

From Triton's release compatibility matrix (docs/introduction/compatibility.md), as of 26.08. That release is the first
in it without a row for TensorRT-LLM.
"""

from __future__ import annotations

import re

IMAGES = {
    "26.07": "1.2.1", "26.06": "1.2.1", "26.05": "1.2.1", "26.04": "1.2.1", "26.03": "1.2.0",
    "26.02": "1.1.0", "26.01": "1.1.0", "25.12": "1.1.0", "25.11": "1.0.3", "25.10": "1.0.0", "25.09": "1.0.0",
    "25.08": "0.21.0", "25.07": "0.20.0", "25.06": "0.20.0", "25.05": "0.19.0", "25.04": "0.18.2", "25.03": "0.18.0",
    "25.02": "0.17.0", "25.01": "0.17.0",
}
"""Tag of nvcr.io/nvidia/tritonserver:TAG-trtllm-python-py3 -> its TensorRT-LLM."""

PYTORCH_FROM = (1, 0)
ENGINE_UNTIL = (1, 2)
"""From the line of 1.3 trtllm-build, the C++ runtime and Triton's tensorrtllm backend were removed (July 2026)."""


def version_of(text: str) -> tuple[int, int]:
    """Major and minor of "1.2.1", "1.0.0rc4" and the like; (0, 0) of anything else."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def name(tag: str) -> str:
    return f"nvcr.io/nvidia/tritonserver:{tag}-trtllm-python-py3"


def with_pytorch_flow() -> str:
    return _told([tag for tag, version in IMAGES.items() if version_of(version) >= PYTORCH_FROM])


def with_engine_flow() -> str:
    return _told([tag for tag, version in IMAGES.items() if version_of(version) <= ENGINE_UNTIL])


def _told(tags: list[str]) -> str:
    newest, oldest = tags[0], tags[-1]
    return f"{name(newest)} (TensorRT-LLM {IMAGES[newest]}) and those back to {oldest} ({IMAGES[oldest]})"
