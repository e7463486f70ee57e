"""A stand-in with the arguments of TensorRT-LLM's examples/eagle/convert_checkpoint.py (1.1)."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tool import convert  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--workers", type=int, default=1)
parser.add_argument("--eagle_model_dir", required=True)
parser.add_argument("--max_draft_len", type=int, default=63)
parser.add_argument("--num_eagle_layers", type=int, default=4)
parser.add_argument("--max_non_leaves_per_layer", type=int, default=10)
convert(parser)
