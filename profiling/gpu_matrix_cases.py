"""Cases for the kernels of small matrices (solve, inv, cholesky, det), and for larger ones by library."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpujac.ops import determinant, factor, linalg
from profiling.gpu_device import Device
from profiling.gpu_kernel_cases import DTYPES, Build, Job, KernelCase, numbers

RTOL = {"float32": 5e-4, "complex64": 5e-4, "float64": 1e-10, "complex128": 1e-10}


def matrices(rng: np.random.Generator, count: int, n: int, dtype: str) -> np.ndarray:
    """Return well-conditioned matrices whose rows have to move."""
    return (numbers(rng, (count, n, n), dtype) / (3 * n**0.5) + np.eye(n)[::-1]).astype(dtype)


def solve(count: int, n: int, dtype: str, columns: int = 1) -> Build:
    """Return a case that factors and solves; the factors are written once and read once."""

    def build(dev: Device, rng: np.random.Generator) -> Job:
        a, b = matrices(rng, count, n, dtype), numbers(rng, (count, n, columns), dtype)
        expected = np.linalg.solve(a, b)
        ours = dev.array(a), dev.array(b)
        return Job(lambda: linalg.solve(*ours, False), expected, 3 * a.nbytes + 2 * b.nbytes, RTOL[dtype])

    return build


def function(op: Any, oracle: Any, count: int, n: int, dtype: str, positive: bool = False) -> Build:
    """Return a case of one function of matrices."""

    def build(dev: Device, rng: np.random.Generator) -> Job:
        a = matrices(rng, count, n, dtype)
        if positive:
            a = a @ np.conj(np.swapaxes(a, -1, -2))
        expected, ours = oracle(a), dev.array(a)
        return Job(lambda: op(ours), expected, a.nbytes + expected.nbytes, RTOL[dtype])

    return build


def matrix_cases(small: bool) -> list[KernelCase]:
    """Every size of a group of lanes in every dtype, many small matrices timed, and larger ones."""
    many = 100 if small else 200_000
    named = (
        ("inv", linalg.INV, np.linalg.inv, False), ("det", determinant.DET, np.linalg.det, False),
        ("cholesky", factor.CHOLESKY, np.linalg.cholesky, True),
    )  # fmt: skip
    return [
        *(KernelCase(f"solve 67 of {n} {dtype}", solve(67, n, dtype, 3))
          for n in (1, 3, 8, 17, 32) for dtype in DTYPES),
        *(KernelCase(f"{name} 67 of {n} {dtype}", function(op, oracle, 67, n, dtype, positive))
          for name, op, oracle, positive in named for n in (2, 9, 32) for dtype in DTYPES),
        *(KernelCase(f"solve {many} of 8 {dtype}", solve(many, 8, dtype), timed=True) for dtype in DTYPES[:2]),
        KernelCase(f"solve {many // 10} of 32 float64", solve(many // 10, 32, "float64"), timed=True),
        *(KernelCase(f"{name} {many} of 8 float64", function(op, oracle, many, 8, "float64", positive), timed=True)
          for name, op, oracle, positive in named),
        KernelCase("solve by cuBLAS, 50 of 64 float64", solve(50, 64, "float64"), timed=True),
        KernelCase("solve by cuSOLVER, 1 of 400 complex128", solve(1, 400, "complex128", 2)),
    ]  # fmt: skip
