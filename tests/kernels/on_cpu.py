"""A backend of NumPy arrays whose kernels run on the CPU, in an order and on a grid that a test chooses."""

import mmap
import os
import shutil
from typing import Any

import numpy as np

from gpujac.backends import launches, shim
from gpujac.backends.host import Host

_NORESERVE = 0x4000  # Linux's MAP_NORESERVE, which Python names from 3.13 on
# Without g++ these tests skip, but in continuous integration they fail.
NO_COMPILER = shutil.which("g++") is None and not os.environ.get("CI")
WHY = "kernels are compiled with g++ (in continuous integration its absence is a failure)"


def sparse_zeros(size: int, dtype: str) -> np.ndarray:
    """Zeros of any size: only the pages that are written take memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    return np.frombuffer(mmap.mmap(-1, size * np.dtype(dtype).itemsize, flags=flags), dtype)


class OnCpu(Host):
    """NumPy's backend with kernels; new memory is poisoned, and what ran is written down."""

    def __init__(self, seed: int = 0, grid: tuple | None = None, block: tuple | None = None) -> None:
        self.seed, self.grid, self.block = seed, grid, block
        self.names: list[str] = []

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> np.ndarray:
        return np.full(shape, np.nan if np.dtype(dtype).kind in "fc" else 77).astype(dtype)

    def take(self, x: Any, index: Any, axis: int) -> Any:
        return launches.gather(self, x, index, axis)

    def add_at(self, buffer: Any, index: Any, values: Any, rest: int) -> None:
        launches.scatter_add(self, buffer, index, values, rest)

    def launch(self, kernel: Any, grid: tuple, block: tuple, args: tuple, shared: int = 0) -> None:
        self.names.append(kernel.name)
        shim.launch(kernel, self.grid or grid, self.block or block, args, shared, self.seed)
