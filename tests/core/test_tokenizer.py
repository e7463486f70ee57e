"""Loading tokenizers, as models do that are connected side by side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY_CHAT = ROOT / "model_repository" / "tensorrt_llm" / "tiny-chat"
# In a process of its own: what transformers imports is imported once. One that is slow makes threads meet there.
SIDE_BY_SIDE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from preprocessing import tokenizer

sys.setswitchinterval(1e-5)
with ThreadPoolExecutor(4) as pool:
    for found in pool.map(tokenizer.load, [Path(sys.argv[1])] * 4):
        assert found.end_ids
"""


def test_several_threads_load_at_a_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIDE_BY_SIDE, str(TINY_CHAT)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
