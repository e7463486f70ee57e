"""A stand-in with the arguments of TensorRT-LLM's examples/quantization/quantize.py (1.1)."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tool import convert  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--qformat", default="full_prec", choices=[
    "nvfp4", "fp8", "int8_sq", "int4_awq", "w4a8_awq", "int8_wo", "int4_wo", "full_prec"])
parser.add_argument("--calib_dataset", default="cnn_dailymail")
parser.add_argument("--calib_size", type=int, default=512)
parser.add_argument("--kv_cache_dtype", default=None, choices=["int8", "fp8", None])
parser.add_argument("--medusa_model_dir", default=None)
parser.add_argument("--num_medusa_heads", type=int, default=4)
convert(parser)
