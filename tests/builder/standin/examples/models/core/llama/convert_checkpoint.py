"""A stand-in with the arguments of TensorRT-LLM's examples/models/core/llama/convert_checkpoint.py (1.1)."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from tool import convert  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--workers", type=int, default=1)
parser.add_argument("--use_weight_only", action="store_true")
parser.add_argument("--weight_only_precision", default="int8",
                    choices=["int8", "int4", "int8_gptq", "int4_gptq", "int4_awq"])
parser.add_argument("--int8_kv_cache", action="store_true")
parser.add_argument("--fp8_kv_cache", action="store_true")
parser.add_argument("--use_parallel_embedding", action="store_true")
parser.add_argument("--load_model_on_cpu", action="store_true")
convert(parser)
