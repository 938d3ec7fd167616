"""Cases for the kernels of indexing: gather and scatter-add on odd, strided and large arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpujac import settings
from gpujac.backends.host import HOST
from profiling.gpu_device import Device

ATOMIC_RTOL = {"float32": 1e-4, "float64": 1e-11, "complex64": 1e-4, "complex128": 1e-11}
DTYPES = ("float32", "float64", "complex64", "complex128")
LONG = 2**31 + 1000  # more entries than a 32-bit index counts

Build = Callable[["Device", np.random.Generator], "Job"]


@dataclass(frozen=True)
class Job:
    """One case made ready: the call on the device, what it must return, and what it moves.

    `bytes` counts every byte that must be read or written at least once.
    """

    call: Callable[[], Any]
    expected: Any
    bytes: int
    rtol: float = 0.0


@dataclass(frozen=True)
class KernelCase:
    """A named case; `build` makes it ready, `timed` ones are large enough to measure."""

    name: str
    build: Build
    timed: bool = False
    needs_bytes: int = 0


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return random numbers of the dtype."""
    values = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        return (values + 1j * rng.standard_normal(shape)).astype(dtype)
    return values.astype(dtype)


def gather(shape: tuple[int, ...], axis: int, count: int, dtype: str = "float64",
           view: Callable[[Any], Any] = lambda x: x, integer: str = "int64") -> Build:  # fmt: skip
    """Return a case that reads `count` positions along an axis of a view of random numbers."""

    def build(dev: Device, rng: np.random.Generator) -> Job:
        x = numbers(rng, shape, dtype)
        index = rng.integers(0, max(1, view(x).shape[axis]), count if view(x).shape[axis] else 0, integer)
        expected = np.take(view(x), index, axis)
        source, places = view(dev.array(x)), dev.array(index)
        moved = 2 * expected.nbytes + index.nbytes
        return Job(lambda: dev.backend.take(source, places, axis), expected, moved)

    return build


def gather_end(size: int) -> Build:
    """Return a case that reads the last entries of `size`, and the first five."""

    def build(dev: Device, rng: np.random.Generator) -> Job:
        x = dev.xp.zeros(size, np.float32)
        tail = np.arange(1, 1001, dtype=np.float32)
        x[-1000:] = dev.array(tail)
        index = np.concatenate([np.arange(size - 1000, size), np.arange(5)])
        expected = np.concatenate([tail, np.zeros(5, np.float32)])
        places = dev.array(index)
        return Job(lambda: dev.backend.take(x, places, -1), expected, 2 * expected.nbytes + index.nbytes)

    return build


def scatter(shape: tuple[int, ...], rest: int, count: int, dtype: str = "float64", spots: int | None = None,
            integer: str = "int64", in_order: bool = False) -> Build:  # fmt: skip
    """Return a case that adds `count` rows at positions of an axis; `spots` many differ.

    `in_order` asks for the deterministic kernel, which must equal NumPy bit for bit.
    """

    def build(dev: Device, rng: np.random.Generator) -> Job:
        at = len(shape) - rest - 1
        index = rng.integers(0, max(1, spots or shape[at]), count if shape[at] else 0, integer)
        values = numbers(rng, (*shape[:at], len(index), *shape[at + 1 :]), dtype)
        wide = dtype if in_order else "complex128" if dtype.startswith("complex") else "float64"
        expected = np.zeros(shape, wide)
        HOST.add_at(expected, index, values.astype(wide), rest)
        added, places = dev.array(values), dev.array(index)

        def call() -> Any:
            buffer = dev.backend.zeros(shape, np.dtype(dtype), added)
            ordered = in_order and settings.kernels != "off"  # CuPy alone has no order to keep
            with settings.override(deterministic=ordered):
                dev.backend.add_at(buffer, places, added, rest)
            return buffer

        moved = values.nbytes + index.nbytes + 2 * expected.astype(dtype).nbytes
        return Job(call, expected.astype(dtype), moved, 0.0 if in_order else ATOMIC_RTOL[dtype])

    return build


def scatter_end(size: int) -> Build:
    """Return a case that adds at the end of `size` entries; the result is that end."""

    def build(dev: Device, rng: np.random.Generator) -> Job:
        index = np.concatenate([np.arange(size - 1000, size), [size - 1, 0]])
        places, ones = dev.array(index), dev.array(np.ones(len(index), np.float32))

        def call() -> Any:
            buffer = dev.backend.zeros((size,), np.dtype(np.float32), ones)
            dev.backend.add_at(buffer, places, ones, 0)
            return buffer[-1000:]

        expected = np.ones(1000, np.float32)
        expected[-1] = 2
        return Job(call, expected, 4 * size)

    return build


def gather_cases(small: bool) -> list[KernelCase]:
    """Odd shapes in every dtype, strided views, and large ones."""
    large, rows = (2000, 7) if small else (2**25, 2**18)
    odd = [(0, 3), (3, 0), (1, 1), (3, 31), (2, 1025), (5, 10_007 if not small else 307)]
    return [
        *(KernelCase(f"{shape} axis -1 {dtype}", gather(shape, -1, 97, dtype)) for shape in odd for dtype in DTYPES),
        *(KernelCase(f"{shape} axis -2", gather(shape, -2, 97)) for shape in odd),
        KernelCase("transposed", gather((257, 33), -1, 1000, view=lambda x: x.T)),
        KernelCase("every third, backwards", gather((64, 999), -1, 500, view=lambda x: x[::2, ::-3])),
        KernelCase("one row spread over 64", gather((1, 333), -1, 500, view=lambda x: np.broadcast_to(x, (64, 333)))),
        KernelCase("32-bit positions", gather((9, 501), -1, 700, integer="int32")),
        KernelCase(f"{large} random entries float32", gather((large,), -1, large, "float32"), timed=True),
        KernelCase(f"{large} random entries float64", gather((large,), -1, large, "float64"), timed=True),
        KernelCase(f"64 entries in each of {rows} rows float32", gather((rows, 128), -1, 64, "float32"), timed=True),
        KernelCase(f"{rows} rows of 128 float32", gather((rows, 128), -2, rows, "float32"), timed=True),
        KernelCase("beyond 2^31 entries", gather_end(5000 if small else LONG), needs_bytes=0 if small else 12 * 2**30),
    ]


def scatter_cases(small: bool) -> list[KernelCase]:
    """Odd shapes in every dtype, few and many collisions, atomic and in order, and large ones."""
    large, rows = (2000, 7) if small else (2**25, 2**18)
    odd = [(0, 3), (1, 1), (3, 31), (2, 1025), (5, 10_007 if not small else 307)]
    return [
        *(KernelCase(f"{shape} {dtype}", scatter(shape, 0, 97, dtype)) for shape in odd for dtype in DTYPES),
        *(KernelCase(f"{shape} rows", scatter(shape, 1, 97)) for shape in odd),
        KernelCase("all into one entry", scatter((4, 50), 0, 3001, spots=1)),
        *(KernelCase(f"in order {shape} {dtype}", scatter(shape, 0, 997, dtype, in_order=True))
          for shape in odd[2:] for dtype in DTYPES),
        KernelCase(f"in order {large} into 1000 float32", scatter((1000,), 0, large, "float32", in_order=True),
                   timed=True),
        KernelCase("32-bit positions", scatter((9, 501), 0, 700, integer="int32")),
        KernelCase(f"{large} into {large} float32", scatter((large,), 0, large, "float32"), timed=True),
        KernelCase(f"{large} into {large} float64", scatter((large,), 0, large, "float64"), timed=True),
        KernelCase(f"{large} into 1000 float32", scatter((1000,), 0, large, "float32"), timed=True),
        KernelCase(f"{rows} rows of 128 float32", scatter((rows, 128), 1, rows, "float32"), timed=True),
        KernelCase("beyond 2^31 entries", scatter_end(5000 if small else LONG), needs_bytes=0 if small else 24 * 2**30),
    ]  # fmt: skip
