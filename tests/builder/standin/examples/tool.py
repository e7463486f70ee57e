"""What the stand-ins for TensorRT-LLM's scripts have in common: they take real arguments and write empty results."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path


def refuse_if_told() -> None:
    """STANDIN_FAIL names the script that shall fail; STANDIN_DROP the file that shall be missing."""
    if os.environ.get("STANDIN_FAIL") == Path(sys.argv[0]).name:
        print("CUDA out of memory")
        raise SystemExit(3)


def write_ranks(folder: str, pattern: str, count: int, config: dict[str, object]) -> None:
    target = Path(folder)
    target.mkdir(parents=True)
    names = [pattern.format(rank) for rank in range(count)]
    for name in names:
        if name != os.environ.get("STANDIN_DROP"):
            (target / name).write_text("weights")
    (target / "config.json").write_text(json.dumps(config | {"argv": sys.argv[1:]}))


def convert(parser: argparse.ArgumentParser) -> None:
    """The arguments that all scripts share that write a TensorRT-LLM checkpoint."""
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float16", "bfloat16", "float32"])
    parser.add_argument("--tp_size", type=int, default=1)
    parser.add_argument("--pp_size", type=int, default=1)
    parser.add_argument("--cp_size", type=int, default=1)
    refuse_if_told()
    given = parser.parse_args()
    assert (Path(given.model_dir) / "config.json").is_file()
    world = given.tp_size * given.pp_size
    write_ranks(given.output_dir, "rank{}.safetensors", world, {"mapping": {"world_size": world}})
