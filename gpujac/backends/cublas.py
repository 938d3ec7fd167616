"""Matrices of more rows than a kernel of ours takes: cuBLAS's and cuSOLVER's factors, kept and used again.

The libraries read matrices column by column. Factors lie as `matrices.lu_factor` says, so that a row
of ours is a column of theirs, and right-hand sides are copied column by column. Many matrices are one
call of cuBLAS's batched routines; few and large ones are a call of cuSOLVER's each, as CuPy decides,
too. No routine's report is read back: that would wait for the device.
"""

import math
from typing import Any

import numpy as np

_LETTERS = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}


def factor(be: Any, a: Any) -> Any:
    """LU factors of (..., n, n), n >= 1, in the form of `matrices.lu_factor`."""
    n, lead = a.shape[-1], a.shape[:-2]
    count = math.prod(lead)
    factors = be.empty((*lead, n + 1, n), a.dtype, a)
    factors[..., :n, :] = be.swap_last(a)
    pivots, info = be.empty((*lead, n), np.int32, a), be.empty((count,), np.int32, a)
    letter = _LETTERS[a.dtype.name]
    if _is_batched(count, n):
        library, handle = be.cublas()
        call, places = getattr(library, letter + "getrfBatched"), _addresses(be, factors, lead)
        call(handle, n, places.data.ptr, n, pivots.data.ptr, info.data.ptr, count)
    else:
        library, handle = be.cusolver()
        size = getattr(library, letter + "getrf_bufferSize")(handle, n, n, factors.data.ptr, n)
        work, call = be.empty((size,), a.dtype, a), getattr(library, letter + "getrf")
        for k in range(count):
            call(handle, n, n, _at(factors, k), n, work.data.ptr, _at(pivots, k, 1), info.data.ptr)
    factors[..., n, :] = pivots
    return factors


def solve(be: Any, factors: Any, b: Any, vector: bool, adjoint: bool) -> Any:
    """x with a x = b or aᴴ x = b; a new array, `matrices.lu_solve` says of what shape."""
    n = factors.shape[-1]
    factors = factors if factors.flags.c_contiguous else be.copy(factors)
    lead, x = _columns(be, factors.shape[:-2], b, vector)
    if math.prod(factors.shape[:-2]) == 1:  # all right-hand sides are columns of one matrix
        one = be.reshape(x, (math.prod(x.shape[:-1]), n))
        _solve_in_place(be, be.reshape(factors, (n + 1, n)), one, (), adjoint)
    else:
        _solve_in_place(be, factors, x, lead, adjoint)
    return be.reshape(x, (*lead, n)) if vector else be.swap_last(x)


def _solve_in_place(be: Any, factors: Any, x: Any, lead: tuple[int, ...], adjoint: bool) -> None:
    """Right-hand sides (*lead, k, n) become solutions; the leading axes of the factors are spread over `lead`."""
    n, columns, count = factors.shape[-1], x.shape[-2], math.prod(lead)
    swaps = factors[..., n, :]
    swaps = be.cast(swaps.real if swaps.dtype.kind == "c" else swaps, np.int32)
    swaps = be.copy(be.xp.broadcast_to(swaps, (*lead, n)))
    letter, library = _LETTERS[factors.dtype.name], be.cublas()[0]
    operation = _operation(library, factors.dtype, adjoint)
    if _is_batched(count, n):
        info = np.empty(1, np.int32)  # on the host: whether arguments were refused
        places = _addresses(be, factors, lead), _addresses(be, x, lead)
        getattr(library, letter + "getrsBatched")(
            be.cublas()[1], operation, n, columns, places[0].data.ptr, n, swaps.data.ptr, places[1].data.ptr, n,
            info.ctypes.data, count,
        )  # fmt: skip
        return
    library, handle = be.cusolver()
    call, report = getattr(library, letter + "getrs"), be.empty((1,), np.int32, factors)
    own = factors.shape[:-2]
    for k, m in enumerate(np.broadcast_to(np.arange(math.prod(own)).reshape(own), lead).ravel().tolist()):
        call(handle, operation, n, columns, _at(factors, m), n, _at(swaps, k, 1), _at(x, k), n, report.data.ptr)


def triangular_solve(be: Any, a: Any, b: Any, lower: bool, adjoint: bool, unit: bool) -> Any:
    """x with t x = b or tᴴ x = b for a triangle t of `a`, (..., n, k); a new array."""
    n = a.shape[-1]
    a = be.copy(be.swap_last(a))
    lead, x = _columns(be, a.shape[:-2], b, False)
    if not x.size:
        return be.swap_last(x)
    library, handle = be.cublas()
    one = np.ones(1, a.dtype)
    uplo = library.CUBLAS_FILL_MODE_LOWER if lower else library.CUBLAS_FILL_MODE_UPPER
    diagonal = library.CUBLAS_DIAG_UNIT if unit else library.CUBLAS_DIAG_NON_UNIT
    places = _addresses(be, a, lead), _addresses(be, x, lead)
    getattr(library, _LETTERS[a.dtype.name] + "trsmBatched")(
        handle, library.CUBLAS_SIDE_LEFT, uplo, _operation(library, a.dtype, adjoint), diagonal, n, x.shape[-2],
        one.ctypes.data, places[0].data.ptr, n, places[1].data.ptr, n, math.prod(lead),
    )  # fmt: skip
    return be.swap_last(x)


def _is_batched(count: int, n: int) -> bool:
    """CuPy's own rule for its determinants: the batched routines are slow for few large matrices."""
    return count * 65536 >= n * n


def _operation(library: Any, dtype: Any, adjoint: bool) -> int:
    if not adjoint:
        return library.CUBLAS_OP_N
    return library.CUBLAS_OP_C if dtype.kind == "c" else library.CUBLAS_OP_T


def _columns(be: Any, lead: tuple[int, ...], b: Any, vector: bool) -> tuple[tuple[int, ...], Any]:
    """All leading axes, and a new array (..., k, n) with the right-hand sides as its rows."""
    core = 1 if vector else 2
    lead = np.broadcast_shapes(lead, b.shape[: b.ndim - core])
    rows = be.reshape(b, (*b.shape[:-1], 1, b.shape[-1])) if vector else be.swap_last(b)
    x = be.empty((*lead, *rows.shape[-2:]), b.dtype, b)
    x[...] = rows
    return lead, x


def _at(x: Any, k: int, core: int = 2) -> int:
    """The address of matrix (or row) number k of a C-contiguous array."""
    return x.data.ptr + k * math.prod(x.shape[x.ndim - core :]) * x.itemsize


def _addresses(be: Any, x: Any, lead: tuple[int, ...]) -> Any:
    """The addresses of the matrices of a C-contiguous array, spread over leading axes, on the device."""
    step, own = math.prod(x.shape[-2:]) * x.itemsize, x.shape[:-2]
    start = x.data.ptr
    found = be.xp.arange(start, start + math.prod(own) * step, step, dtype=np.uintp)
    return found if own == lead else be.copy(be.xp.broadcast_to(found.reshape(own), lead))
