"""Small matrices on the device: LU with kept factors, solves, Cholesky, inverses and determinants.

Matrices of up to 32 rows run in kernels of ours, one launch each; larger ones in cuBLAS's batched
routines (`cublas.py`) where the factors are kept, else in the library's own functions. A singular
matrix gives infinities and NaN, as the library's functions do: nothing waits for the device to look.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpujac.backends import cublas, kernels
from gpujac.backends.kernels import Kernel
from gpujac.backends.layouts import Layout, c_order, layout, merged, steps

LU, SOLVE, CHOLESKY = "ops/lu.cu", "ops/solve.cu", "ops/cholesky.cu"
DTYPES = ("float32", "float64", "complex64", "complex128")
LARGEST = 32  # rows: one per lane of a warp
_THREADS = 128
_SHARED_BYTES = 24 << 10  # of a block: two or more fit on every multiprocessor
_MOST_BLOCKS = 1 << 16
_PLANS = 1 << 10


class Solving(NamedTuple):
    """What is solved: with kept factors, or else with a triangle of the matrix."""

    factors: bool
    adjoint: bool
    lower: bool = True
    unit: bool = False


class _Plan(NamedTuple):
    """One launch; `copied` says which of the operands are copied to C order before it, leading axes spread."""

    kernel: Kernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    scalars: tuple
    shared_bytes: int
    copied: tuple[bool, ...]


def has_factors(a: Any) -> bool:
    """Whether `lu_factor` keeps the factors of these matrices."""
    return a.dtype.name in DTYPES and a.size > 0


def lu_factor(be: Any, a: Any) -> Any:
    """LU factors with partial pivoting.

    Args:
        be: the backend that owns the arrays.
        a: (..., n, n), n >= 1, one of `DTYPES`, any strides.

    Returns:
        A new C-contiguous array (..., n + 1, n): row j < n has column j of L, below its unit diagonal,
        and of U; row n the number, from 1, of the row that changed places with row k at step k.

    Cost:
        One launch for n <= 32, else about five.
    """
    if a.shape[-1] > LARGEST:
        return cublas.factor(be, a)
    plan = _factor_plan(LU, "lu_factor", layout(a))
    factors = be.empty((*a.shape[:-2], a.shape[-1] + 1, a.shape[-1]), a.dtype, a)
    return _launched(be, plan, (a,), factors)


def lu_solve(be: Any, factors: Any, b: Any, vector: bool, adjoint: bool) -> Any:
    """x with a x = b, or aᴴ x = b with `adjoint`, from the factors of `a`.

    Args:
        be: the backend that owns the arrays.
        factors: (..., n + 1, n), what `lu_factor` gave.
        b: (..., n) if `vector`, else (..., n, k), of the same dtype; leading axes broadcast.
        vector: whether b has one core axis.
        adjoint: whether the matrix is conjugated and transposed.

    Returns:
        A new array of the shape that b and the leading axes of the factors give.

    Cost:
        One launch for n <= 32, without copies unless leading axes lie in memory as more than three.
    """
    n = factors.shape[-1]
    if n > LARGEST and b.size:
        return cublas.solve(be, factors, b, vector, adjoint)
    return _solve(be, factors, b, vector, Solving(True, adjoint))


def triangular_solve(be: Any, a: Any, b: Any, lower: bool, adjoint: bool, unit: bool) -> Any:
    """x with t x = b, or tᴴ x = b with `adjoint`, for a triangle t of `a`; leading axes broadcast.

    Args:
        be: the backend that owns the arrays.
        a: (..., n, n), of which one triangle is read.
        b: (..., n, k), of the same dtype.
        lower: which triangle.
        adjoint: whether it is conjugated and transposed.
        unit: whether its diagonal counts as ones.

    Returns:
        A new array (..., n, k).

    Cost:
        One launch for n <= 32, else about five.
    """
    if a.shape[-1] > LARGEST:
        return cublas.triangular_solve(be, a, b, lower, adjoint, unit)
    return _solve(be, a, b, False, Solving(False, adjoint, lower, unit))


def cholesky(be: Any, a: Any) -> Any | None:
    """The lower triangle l with l lᴴ = (a + aᴴ)/2; None for matrices that have no kernel."""
    if not _is_small(a):
        return None
    return _launched(be, _factor_plan(CHOLESKY, "cholesky", layout(a)), (a,), be.empty(a.shape, a.dtype, a))


def inv(be: Any, a: Any) -> Any | None:
    """The inverse by the factors; None for matrices that have no kernel."""
    if not _is_small(a):
        return None
    return lu_solve(be, lu_factor(be, a), be.xp.eye(a.shape[-1], dtype=a.dtype), False, False)


def det(be: Any, a: Any) -> Any | None:
    """The determinant by the factors; None for matrices that have no kernel."""
    return _of_factors(be, a, "lu_det", ())


def slogdet(be: Any, a: Any) -> Any | None:
    """Sign and logarithm of the size side by side, (..., 2); None for matrices that have no kernel."""
    return _of_factors(be, a, "lu_slogdet", (2,))


# ---------------------------------------------------------------- before a launch


def _is_small(a: Any) -> bool:
    return has_factors(a) and a.shape[-1] <= LARGEST


def _of_factors(be: Any, a: Any, name: str, shape: tuple[int, ...]) -> Any | None:
    if not _is_small(a):
        return None
    out = be.empty((*a.shape[:-2], *shape), a.dtype, a)
    count, n = math.prod(a.shape[:-2]), a.shape[-1]
    kernel = kernels.kernel(LU, f"{name}_{a.dtype.name}")
    args = (lu_factor(be, a), out, np.int64(count), np.int32(n))
    be.launch(kernel, (min(-(-count // _THREADS), _MOST_BLOCKS),), (_THREADS,), args)
    return out


def _solve(be: Any, t: Any, b: Any, vector: bool, what: Solving) -> Any:
    lead = np.broadcast_shapes(t.shape[:-2], b.shape[: b.ndim - (1 if vector else 2)])
    b = b if b.dtype == t.dtype else be.cast(b, t.dtype)
    x = be.empty(lead + b.shape[b.ndim - (1 if vector else 2) :], b.dtype, b)
    if not x.size:
        return x
    t = be.xp.broadcast_to(t, lead + t.shape[-2:])
    b = be.xp.broadcast_to(b, x.shape)
    return _launched(be, _solve_plan(layout(t), layout(b), layout(x), vector, what), (t, b), x)


def _launched(be: Any, plan: _Plan, operands: tuple, out: Any) -> Any:
    arrays = [be.copy(x) if copied else x for x, copied in zip(operands, plan.copied, strict=True)]
    be.launch(plan.kernel, plan.grid, plan.block, (*arrays, out, *plan.scalars), plan.shared_bytes)
    return out


# ---------------------------------------------------------------- plans


@lru_cache(_PLANS)
def _factor_plan(path: str, name: str, a: Layout) -> _Plan:
    n, size = a.shape[-1], a.dtype.itemsize
    own, copied = steps(a), False
    axes = merged(a.shape[:-2], [own[:-2]]) if own else []
    if own is None or len(axes) > 1:
        count, copied, own = math.prod(a.shape[:-2]), True, [n, 1]
        stride = n * n
    else:
        count, stride = axes[0] if axes else (1, 0)
    groups, _ = _groups(n, size, 1)
    scalars = (np.int64(count), np.int32(n), np.int32(_lanes(n)),
               *(np.int64(s) for s in (stride, *own[-2:])))  # fmt: skip
    grid = (min(-(-count // groups), _MOST_BLOCKS),)
    kernel = kernels.kernel(path, f"{name}_{a.dtype.name}")
    return _Plan(kernel, grid, (groups * _lanes(n),), scalars, groups * n * (n | 1) * size, (copied,))


@lru_cache(_PLANS)
def _solve_plan(t: Layout, b: Layout, x: Layout, vector: bool, what: Solving) -> _Plan:
    seen, copied = _as_axes(t, b, x, vector, what)
    n, size = t.shape[-1], t.dtype.itemsize
    groups, sharing = _groups(n, size, seen.columns)
    here, matrices = groups // sharing, seen.outer * seen.inner
    blocks = min(-(-matrices // here), _MOST_BLOCKS)
    across = min(-(-seen.columns // (sharing * 8)), max(1, 4096 // blocks))  # a column is little work
    scalars = (
        *(np.int64(s) for s in (matrices, seen.inner, seen.columns)),
        *(np.int32(s) for s in (n, _lanes(n), sharing, what.lower, what.unit, what.adjoint)),
        *(np.int64(s) for strides in seen.strides for s in strides),
    )
    name = "lu_solve" if what.factors else "triangular_solve"
    kernel = kernels.kernel(SOLVE, f"{name}_{t.dtype.name}")
    shared_bytes = here * n * ((n | 1) * size + 4)
    return _Plan(kernel, (blocks, across), (groups * _lanes(n),), scalars, shared_bytes, copied)


class _Axes(NamedTuple):
    """Two axes of matrices, one of columns, and the strides of t, b and x along these and along rows."""

    outer: int
    inner: int
    columns: int
    strides: tuple[tuple[int, ...], ...]


def _as_axes(t: Layout, b: Layout, x: Layout, vector: bool, what: Solving) -> tuple[_Axes, tuple[bool, bool]]:
    """How leading axes are seen, copying an operand (the right-hand sides, then all) where they are too many."""
    kept = t.strides[-2:] == (t.shape[-1] * t.dtype.itemsize, t.dtype.itemsize) or not what.factors
    for copied in ((False, False), (False, True), (True, False), (True, True)):
        if not (kept or copied[0]):  # factors are read as they were made
            continue
        seen_t, seen_b = (c_order(y) if c else y for y, c in zip((t, b), copied))
        found = _seen(seen_t, seen_b, x, vector, what.factors)
        if found is not None:
            return found, copied
    raise AssertionError("arrays in C order are always seen as one axis of matrices")


def _seen(t: Layout, b: Layout, x: Layout, vector: bool, factors: bool) -> _Axes | None:
    """None where the leading axes are too many, or where entries do not lie on a lattice."""
    core = 1 if vector else 2
    ts, bs, xs = steps(t), steps(b), steps(x)
    if ts is None or bs is None or xs is None:
        return None
    axes = merged(x.shape[: len(x.shape) - core], [ts[:-2], bs[: len(bs) - core], xs[: len(xs) - core]])
    columns = [1, 0, 0, 0] if vector else [x.shape[-1], 0, bs[-1], xs[-1]]
    if vector:  # right-hand sides that share their matrix are columns of one
        shared = [axis for axis in axes if axis[1] == 0]
        if shared:
            columns = max(shared)
            axes.remove(columns)
    if len(axes) > 2:
        return None
    (outer, *far), (inner, *near) = [[1, 0, 0, 0]] * (2 - len(axes)) + axes
    entries = (ts[-1], ts[-2]) if factors else (ts[-2], ts[-1])  # factors lie column by column
    rows = (entries, (columns[2], bs[-core]), (columns[3], xs[-core]))
    strides = tuple([(far[k], near[k], *rows[k]) for k in range(3)])
    return _Axes(outer, inner, columns[0], strides)


def _lanes(n: int) -> int:
    """Threads that work on one matrix: the power of two that holds its rows."""
    return 1 << (n - 1).bit_length()


def _groups(n: int, size: int, columns: int) -> tuple[int, int]:
    """Groups of threads in a block, and how many of them share a matrix; whole warps, within shared memory."""
    lanes = _lanes(n)
    groups = _THREADS // lanes
    sharing = min(groups, 1 << (columns - 1).bit_length())
    while groups * lanes > 32 and groups // sharing * n * ((n | 1) * size + 4) > _SHARED_BYTES:
        groups //= 2
        sharing = min(sharing, groups)
    return groups, sharing
