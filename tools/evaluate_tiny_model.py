#!/usr/bin/env python3
"""What the tiny model can do: `tools/evaluate_tiny_model.py FOLDER`. It needs the server's requirements only."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.tiny_model.evaluate import main  # noqa: E402

if __name__ == "__main__":
    main()
