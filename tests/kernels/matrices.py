"""Kernels of small matrices against NumPy: what the tests and the sanitizers run for each entry point.

Results are not exact, so matrices are well conditioned and compared in double precision; what is exact
(row swaps, zeros of a singular matrix, entries that must not be read) is checked for equality.
"""

import re
from collections.abc import Iterator

import numpy as np

from gpujac.backends import matrices as mt
from tests.kernels.on_cpu import OnCpu

# Rows, and leading axes that fill several blocks, one of them in part, or none.
SHAPES = ((1, (140,)), (2, (2, 35)), (3, (2, 3)), (4, ()), (7, (5,)), (8, (1, 1)), (9, (0,)), (17, (3,)), (32, (2,)))
TOLERANCE = {"float32": 2e-4, "complex64": 2e-4, "float64": 1e-11, "complex128": 1e-11}
GRIDS = (None, (1, 1), (3, 2), (200, 1))
LINES = (None, (1,), (3,), (200,))  # of kernels that count blocks along x alone
WIDE = {"f": np.float64, "c": np.complex128}


def numbers(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random numbers, complex ones with an imaginary part."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def matrices(dtype: str, lead: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
    """Well-conditioned matrices whose largest entries are off the diagonal, so that rows have to move."""
    rng = np.random.default_rng(seed + n)
    order = rng.permutation(n)
    return (numbers(dtype, (*lead, n, n), seed) / (3 * np.sqrt(n)) + np.eye(n)[order]).astype(dtype)


def positive(dtype: str, lead: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
    """Matrices whose Hermitian part is positive definite, and that are not Hermitian themselves."""
    a = numbers(dtype, (*lead, n, n), seed)
    return (a @ adjoint(a) / n + np.eye(n) + 0.1 * (a - adjoint(a))).astype(dtype)


def adjoint(a: np.ndarray) -> np.ndarray:
    """The conjugate transpose."""
    return np.conj(np.swapaxes(a, -1, -2))


def wide(x: np.ndarray) -> np.ndarray:
    """The same numbers in double precision."""
    return x.astype(WIDE[x.dtype.kind])


def layouts(x: np.ndarray) -> Iterator[np.ndarray]:
    """Stacks of matrices with these values, in every order in memory that matters, and some parts of them."""
    yield x
    yield np.swapaxes(np.ascontiguousarray(np.swapaxes(x, -1, -2)), -1, -2)
    yield np.asfortranarray(x)
    if x.ndim > 2:
        yield x[::-1]
        yield np.repeat(x, 2, 0)[1::2]
        yield np.broadcast_to(x[:1], x.shape)


def close(found: np.ndarray, wanted: np.ndarray, what: str, factor: float = 1.0) -> None:
    """Fails unless the two agree to the precision of the dtype of what was found."""
    assert found.shape == wanted.shape, f"{what}: shape {found.shape}, wanted {wanted.shape}"
    if found.size:
        bound = factor * TOLERANCE[found.dtype.name] * max(1.0, float(np.max(np.abs(wanted))))
        assert np.max(np.abs(found - wanted)) <= bound, f"{what}: {found}\nwanted {wanted}"


def check_factors(a: np.ndarray, factors: np.ndarray) -> None:
    """The factors multiply to the matrix with its rows in the order of the swaps; pivots were the largest."""
    n = a.shape[-1]
    assert factors.flags.c_contiguous
    assert factors.shape == (*a.shape[:-2], n + 1, n)
    for at in np.ndindex(a.shape[:-2]):
        both, swaps, rows = wide(factors[at])[:n].T, factors[at][n].real, np.arange(n)
        assert np.array_equal(factors[at][n], np.round(swaps))
        for k, p in enumerate(swaps.astype(int) - 1):
            assert k <= p < n
            rows[[k, p]] = rows[[p, k]]
        lower = np.tril(both, -1) + np.eye(n)
        assert np.max(np.abs(lower)) <= (1.0 if a.dtype.kind == "f" else 1.415)  # by |re| + |im|
        close((lower @ np.triu(both)).astype(a.dtype), wide(a[at])[rows], "L U")


def run_factor(name: str, seed: int = 0) -> int:
    """One entry point of lu.cu over sizes, leading axes, layouts and grids; how many cases that is."""
    what, dtype = re.fullmatch(r"(lu_\w+)_(\w+\d+)", name).groups()
    cases = 0
    for n, lead in SHAPES:
        for j, a in enumerate(layouts(matrices(dtype, lead, n, seed))):
            be = OnCpu(seed + cases, LINES[(j + n) % len(LINES)])
            cases += 1
            if not a.size or (what != "lu_factor" and j):
                continue
            if what == "lu_factor":
                check_factors(a, mt.lu_factor(be, a))
            elif what == "lu_det":
                close(mt.det(be, a), np.linalg.det(wide(a)), name)
            else:
                close(mt.slogdet(be, a), np.stack(np.linalg.slogdet(wide(a)), -1), name)
            assert be.names[-1] == name
    return cases + _run_singular(what, dtype, seed)


def _run_singular(what: str, dtype: str, seed: int) -> int:
    for a in (np.zeros((3, 3)), np.ones((2, 4, 4)), np.outer([1.0, 2, 4], [4.0, 1, 2])):
        a, be = a.astype(dtype), OnCpu(seed)
        if what == "lu_factor":
            factors = mt.lu_factor(be, a)
            check_factors(a, factors)
            assert np.all(factors[..., a.shape[-1] - 1, a.shape[-1] - 1] == 0)
            assert np.all(factors[..., a.shape[-1], 0] == 1 + np.argmax(np.abs(a[..., 0]), -1)), "the first of equals"
        elif what == "lu_det":
            assert np.all(mt.det(be, a) == 0)
        else:
            found = mt.slogdet(be, a)
            assert np.all(found[..., 0] == 0)
            assert np.all(found[..., 1] == -np.inf)
    return 3


def sides(dtype: str, lead: tuple[int, ...], n: int, seed: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Right-hand sides: vectors and matrices, strided, shared and with axes that the matrices do not have."""
    b = numbers(dtype, (*lead, n), seed)
    yield b, True
    yield numbers(dtype, (3, *lead, n), seed), True
    yield np.moveaxis(numbers(dtype, (n, *lead), seed), 0, -1), True
    yield numbers(dtype, (*lead, n, 4), seed), False
    yield np.swapaxes(numbers(dtype, (2, *lead, 3, n), seed), -1, -2)[..., ::-1], False
    yield np.broadcast_to(numbers(dtype, (n, 1), seed), (*lead, n, 2)), False
    yield numbers(dtype, (2, *lead, n, 2), seed), False


def run_solve(name: str, seed: int = 0) -> int:
    """One entry point of solve.cu over sizes, leading axes, layouts and grids; how many cases that is."""
    kind, dtype = re.fullmatch(r"(lu|triangular)_solve_(\w+\d+)", name).groups()
    cases = 0
    for n, lead in SHAPES:
        a = matrices(dtype, lead, n, seed) if kind == "lu" else numbers(dtype, (*lead, n, n), seed)
        factors = mt.lu_factor(OnCpu(), a) if kind == "lu" and a.size else None
        for j, (b, vector) in enumerate(sides(dtype, lead, n, seed)):
            be = OnCpu(seed + cases, GRIDS[(j + n) % len(GRIDS)])
            if kind == "lu" and a.size:
                _check_lu(be, a, list(layouts(factors))[j % 3 * (len(lead) > 0)], b, vector, j % 2 == 1)
            elif kind == "triangular" and not vector:
                _check_triangle(be, a, b, cases)
            assert set(be.names) <= {name}
            cases += 1
    return cases


def _check_lu(be: OnCpu, a: np.ndarray, factors: np.ndarray, b: np.ndarray, vector: bool, turned: bool) -> None:
    x = mt.lu_solve(be, factors, b, vector, turned)
    assert x.dtype == b.dtype
    agrees(adjoint(wide(a)) if turned else wide(a), x, b, vector)


def _check_triangle(be: OnCpu, a: np.ndarray, b: np.ndarray, case: int) -> None:
    """With NaN in all entries that must not be read."""
    lower, turned, unit = case % 2 == 0, case // 2 % 2 == 0, case // 4 % 2 == 0
    n = a.shape[-1]
    keep = np.tri(n, k=-int(unit), dtype=bool)
    keep = keep if lower else keep.T
    a = (a / (3 * np.sqrt(n)) + np.eye(n)).astype(a.dtype)
    t = np.where(keep, wide(a), np.eye(n))
    x = mt.triangular_solve(be, np.where(keep, a, np.nan).astype(a.dtype), b, lower, turned, unit)
    agrees(adjoint(t) if turned else t, x, b, False)


def agrees(m: np.ndarray, x: np.ndarray, b: np.ndarray, vector: bool) -> None:
    """x is NumPy's solution of m @ x = b."""
    column = (lambda v: wide(v)[..., None]) if vector else wide
    wanted = np.linalg.solve(np.broadcast_to(m, (*column(x).shape[:-2], *m.shape[-2:])), np.broadcast_to(
        column(b), column(x).shape))  # fmt: skip
    close(x, wanted[..., 0] if vector else wanted, "solution", 10)


def run_cholesky(name: str, seed: int = 0) -> int:
    """One entry point of cholesky.cu over sizes, leading axes, layouts and grids; how many cases that is."""
    (dtype,) = re.fullmatch(r"cholesky_(\w+\d+)", name).groups()
    cases = 0
    for n, lead in SHAPES:
        for j, a in enumerate(layouts(positive(dtype, lead, n, seed))):
            be = OnCpu(seed + cases, LINES[(j + n) % len(LINES)])
            cases += 1
            if a.size:
                found = mt.cholesky(be, a)
                close(found, np.linalg.cholesky((wide(a) + adjoint(wide(a))) / 2), name)
                assert not np.any(np.triu(found, 1))
                assert be.names == [name]
    mixed = positive(dtype, (3,), 4, seed)
    mixed[1] -= 3 * np.eye(4, dtype=dtype)
    found = mt.cholesky(OnCpu(seed), mixed)
    assert np.isnan(found[1]).all(), "all of a factor that does not exist is NaN"
    assert np.isfinite(found[[0, 2]]).all()
    return cases + 1
