"""Every kernel of a `.cu` file against NumPy, entry by entry: what the tests and the sanitizers run.

Entries of the arrays are small whole numbers, so sums are exact in any order and results must be
equal, not close.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from gpujac import settings
from gpujac.backends import kernels, launches
from gpujac.backends import matrices as mt
from tests.kernels import matrices
from tests.kernels.on_cpu import OnCpu

# What stands for a word of a width: the kernels only move the bytes.
MOVED = {
    "word8": ("int8", "uint8", "bool"),
    "word16": ("float16", "int16"),
    "word32": ("float32", "int32", "uint32"),
    "word64": ("float64", "int64"),
    "complex64": ("complex64",),
    "complex128": ("complex128",),
}
SHAPE = (3, 4, 5, 2)
GRIDS = ((None, None), ((1, 1, 1), (1, 1)), ((2, 3, 2), (8, 4)), ((40, 11, 3), (16, 16)))


def numbers(dtype: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Small whole numbers of a dtype, complex ones with an imaginary part."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, shape)
    return (x + 1j * rng.integers(-9, 10, shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def layouts(x: np.ndarray) -> Iterator[np.ndarray]:
    """Arrays of the same rank that lie in memory in every way that matters."""
    yield x
    yield x.T
    yield x.transpose(2, 0, 3, 1)  # more than two axes on a side, which do not merge
    yield np.asfortranarray(x)
    yield x[::-1, ::2, :, ::-1]
    yield x[:, 1:, 2:4]
    yield np.broadcast_to(x[:1, :, :1], x.shape)
    yield np.broadcast_to(x[0, 0, 0, 0], x.shape)


def indices(size: int, dtype: str) -> Iterator[np.ndarray]:
    """Indices of every rank: repeated, negative, strided, out of range, none at all."""
    rng = np.random.default_rng(size)
    many = rng.integers(-size, size, (4, 6)).astype(dtype)
    yield many[0]
    yield many.T
    yield many[0, ::-2]
    yield many[::2, ::-3]
    yield np.broadcast_to(many[:, :1], (4, 3))
    yield np.asarray(size - 1, dtype)
    yield np.array([-size - 1, size, 3 * size], dtype)  # wrap around, as CuPy's
    yield np.zeros(5, dtype)
    yield np.zeros((0, 2), dtype)


@contextmanager
def offsets(bits: str) -> Iterator[None]:
    """Offsets of 64 bits for arrays of any size where `bits` is "o64"."""
    before = launches.LIMIT
    launches.LIMIT = 0 if bits == "o64" else before
    try:
        yield
    finally:
        launches.LIMIT = before


def check_gather(be: OnCpu, x: np.ndarray, index: np.ndarray, axis: int) -> None:
    """One gather is what NumPy takes, in shape, dtype, order and every entry."""
    found, wanted = be.take(x, index, axis), x.take(index, axis=axis, mode="wrap")
    assert found.flags.c_contiguous
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def twin(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of `x` with the same strides, and all the memory that it lies in, gaps included."""
    if not x.flags.writeable:  # broadcast: entries share memory
        x = x.copy()
    low, high = np.lib.array_utils.byte_bounds(x) if x.size else (0, 0)
    memory = np.full(high - low, 0x5A, np.uint8)
    offset = x.__array_interface__["data"][0] - low if x.size else 0
    copy = np.ndarray(x.shape, x.dtype, memory, offset, x.strides)
    copy[...] = x
    return copy, memory


def check_scatter_add(be: OnCpu, target: np.ndarray, index: np.ndarray, axis: int, seed: int = 1) -> None:
    """One scatter-add is NumPy's `add.at`, into the same memory and nowhere else."""
    shape = target.shape[:axis] + index.shape + target.shape[axis + 1 :]
    values = numbers(target.dtype.name, shape, seed)
    for given in (values, values.copy(order="F"), np.broadcast_to(numbers(target.dtype.name, ()), shape)):
        (found, memory), (wanted, wanted_memory) = twin(target), twin(target)
        np.add.at(wanted, (slice(None),) * axis + (index % target.shape[axis],), given)
        be.add_at(found, index, given, target.ndim - axis - 1)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(memory, wanted_memory)


def run_gather(name: str, seed: int = 0) -> int:
    """One entry point of gather over layouts, indices, axes and grids; how many cases that is."""
    kind, index_bits, offset_bits = re.fullmatch(r"gather_(\w+)_i(32|64)_(o32|o64)", name).groups()
    cases = 0
    with offsets(offset_bits):
        for k, x in enumerate(x for dtype in MOVED[kind] for x in layouts(numbers(dtype))):
            axis = k % x.ndim
            for j, index in enumerate(indices(x.shape[axis], f"int{index_bits}")):
                be = OnCpu(seed + cases, *GRIDS[(j + k) % len(GRIDS)])
                check_gather(be, x, index, axis)
                assert be.names == [name] * (index.size > 0)
                cases += 1
    return cases


def run_scatter_add(name: str, seed: int = 0) -> int:
    """One entry point of scatter-add over layouts, indices, axes and grids; how many cases that is."""
    found = re.fullmatch(r"scatter_add_(ordered_)?([a-z]+\d+)_(?:i(32|64)_)?(o32|o64)", name)
    ordered, dtype, index_bits, offset_bits = found.groups()
    cases = 0
    with offsets(offset_bits), settings.override(deterministic=bool(ordered)):
        for k, x in enumerate(layouts(numbers(dtype))):
            axis = k % x.ndim
            for j, index in enumerate(indices(x.shape[axis], f"int{index_bits or 64}")):
                be = OnCpu(seed + cases, *GRIDS[(j + k) % len(GRIDS)])
                check_scatter_add(be, x, index, axis)
                assert {n for n in be.names if n.startswith("scatter")} == ({name} if index.size else set())
                cases += 1
    return cases


# How each entry point of a `.cu` file is run on the CPU: called with its name and a seed.
RUNS: dict[str, Callable[[str, int], int]] = {
    launches.GATHER: run_gather,
    launches.SCATTER_ADD: run_scatter_add,
    mt.LU: matrices.run_factor,
    mt.SOLVE: matrices.run_solve,
    mt.CHOLESKY: matrices.run_cholesky,
}


def entry_points() -> list[tuple[str, str]]:
    """(file, entry point) of all `.cu` files that are run here."""
    return [(path, name) for path in RUNS for name in kernels.entries(path)]
