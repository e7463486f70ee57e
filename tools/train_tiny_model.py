#!/usr/bin/env python3
"""Reproduces the tiny model: `tools/train_tiny_model.py FOLDER`. Needs requirements-test.txt. --help lists the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# glibc gives large blocks back to the system at once; taking them anew for each operation makes the CPU five times
# slower. It reads this when a process starts.
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "200000000"}


def main() -> None:
    if not _KEEP_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **_KEEP_MEMORY})
    from tools.tiny_model import train
    train.main()


if __name__ == "__main__":  # also keeps the workers, which import this file, from training
    main()
