"""A stand-in with the arguments of TensorRT-LLM's examples/medusa/convert_checkpoint.py (1.1)."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tool import convert  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--workers", type=int, default=1)
parser.add_argument("--medusa_model_dir", required=True)
parser.add_argument("--num_medusa_heads", type=int, default=4)
convert(parser)
