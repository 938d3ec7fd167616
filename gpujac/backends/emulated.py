"""The emulated GPU: CuPy's backend over host memory, with counted launches, for machines without one.

>>> import numpy as np
>>> from gpujac.backends import emulated
>>> x = emulated.array(np.ones(3))
>>> with emulated.counting() as n:
...     y = x * x + 1
>>> n.launches, n.allocations, n.syncs
(2, 2, 0)
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from gpujac.backends import counts, shim
from gpujac.backends.counts import counting, launched
from gpujac.backends.cupy import CuPy, cupy
from gpujac.backends.emulated_array import CURRENT, EmulatedArray, array, host, run, wrap
from gpujac.backends.emulated_cublas import LIBRARY
from gpujac.backends.emulated_names import NAMESPACE
from gpujac.backends.emulated_stream import EmulatedLane
from gpujac.backends.fetch import Fetcher
from gpujac.backends.host import HOST
from gpujac.backends.kernels import Kernel

__all__ = ["BACKEND", "EmulatedArray", "array", "counting", "device", "host", "memory_limit", "wrap"]

_DEVICES = [1]  # how many devices the emulation has


@contextmanager
def device(number: int) -> Iterator[None]:
    """Make another emulated device the current one, as `with cupy.cuda.Device(number):` does."""
    before, CURRENT[0] = CURRENT[0], number
    _DEVICES[0] = max(_DEVICES[0], number + 1)
    try:
        yield
    finally:
        CURRENT[0] = before


def memory_limit(most_bytes: int) -> AbstractContextManager[None]:
    """Refuse new arrays beyond `most_bytes` held at once, with CuPy's own OutOfMemoryError.

    Example:
        >>> from gpujac.backends import emulated
        >>> with emulated.memory_limit(100):
        ...     emulated.array([0.0] * 20)
        Traceback (most recent call last):
        cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 160 bytes (allocated so far: 0 bytes, ...
    """
    return counts.memory_limit(most_bytes, cupy.cuda.memory.OutOfMemoryError)


class Emulated(CuPy):
    """CuPy's backend with the emulated namespace and kernels that run on the CPU."""

    name = "emulated"
    xp: Any = NAMESPACE

    def cublas(self) -> tuple[Any, int]:
        return LIBRARY, 0

    def cusolver(self) -> tuple[Any, int]:
        return LIBRARY, 0

    def of_scipy(self, name: str) -> Any:
        return partial(_of_scipy, name)

    def memory_free_bytes(self) -> int | None:
        return HOST.memory_free_bytes()

    def fetcher(self) -> Any:
        return Fetcher(EmulatedLane())

    def peak(self) -> Any:
        return counts.peak()

    def problem(self) -> str | None:
        return None

    def describe(self) -> str:
        return "emulated CuPy arrays in main memory, without a GPU"

    def synchronize(self) -> None:
        """Nothing is ever queued here."""

    def mark(self) -> Any:
        return perf_counter()

    def elapsed_s(self, start: Any, end: Any) -> float:
        return float(end - start)

    def current_device(self) -> int:
        return CURRENT[0]

    def devices(self) -> int:
        return _DEVICES[0]

    def _start(self, kernel: Kernel, grid: tuple, block: tuple, args: tuple, shared: int) -> None:
        values = tuple([host(x) if isinstance(x, EmulatedArray) else x for x in args])
        launched(kernel.name, [x for x in values if isinstance(x, np.ndarray) and x.ndim])
        shim.launch(kernel, grid, block, values, shared)


def _of_scipy(name: str, *xs: Any) -> Any:
    """A special function of emulated arrays, by SciPy."""
    return run(name, HOST.function(name), xs, {})


BACKEND = Emulated()
TYPES: frozenset[type] = frozenset((EmulatedArray,))
