"""Matrix products whose rows do not depend on how many rows there are, and the number of BLAS threads.

In: FP32 [T, K] and a weight [N, K]. Out: FP32 [T, N], each row with the same bits for every T.
OpenBLAS takes other paths, with other rounding, for one row, for deep products and for columns that fill no vector. So:
one row is computed as two, the weight is kept in blocks, and zeros make its width a multiple of 16. A block is small
enough that few rows meet OpenBLAS's kernel for small products, which does not repack the weight: five times faster at
two rows than one large product. Tried on OpenBLAS 0.3.23 (AVX-512); where a BLAS behaves otherwise, the results are
still right, only their last bits may then depend on T.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

DEPTH = 256
WIDTH = 512
LANES = 16  # floats of the widest vector

_SETTERS = ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads64_",
            "openblas_set_num_threads")


class Linear:
    """y = x W^T + b."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None):
        self.shape = weight.shape
        self._bias = bias
        width, depth = -(-len(weight) // LANES) * LANES, weight.shape[1]
        if width > len(weight):
            weight = np.concatenate([weight, np.zeros((width - len(weight), depth), weight.dtype)])
        self._width = width
        self._columns = [slice(start, min(start + WIDTH, width)) for start in range(0, width, WIDTH)]
        self._depths = [slice(start, min(start + DEPTH, depth)) for start in range(0, depth, DEPTH)]
        self._blocks = [[np.ascontiguousarray(weight[columns, part].T, np.float32) for columns in self._columns]
                        for part in self._depths]

    @property
    def nbytes(self) -> int:
        """Of the weight as it is kept."""
        return sum(block.nbytes for part in self._blocks for block in part)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        rows = len(x)
        if rows == 1:
            x = np.concatenate([x, x])
        total = self._product(x, 0)
        for part in range(1, len(self._depths)):
            total += self._product(x, part)
        total = total[:rows, : self.shape[0]]
        if self._bias is not None:
            total += self._bias
        return total

    def _product(self, x: np.ndarray, part: int) -> np.ndarray:
        piece = x[:, self._depths[part]]
        if len(self._columns) == 1:
            return piece @ self._blocks[part][0]
        product = np.empty((len(x), self._width), np.float32)
        for columns, block in zip(self._columns, self._blocks[part], strict=True):
            np.matmul(piece, block, out=product[:, columns])
        return product


def set_threads(count: int) -> bool:
    """Sets the threads of the OpenBLAS that numpy has loaded; False if there is none to be found.

    The environment variable would be too late: Triton's stub imports numpy before the model.
    """
    for path in _loaded_openblas():
        library = ctypes.CDLL(path)
        for name in _SETTERS:
            if hasattr(library, name):
                getattr(library, name)(ctypes.c_int(count))
                return True
    return False


def _loaded_openblas() -> list[str]:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "openblas" in line}
    return sorted(paths)
