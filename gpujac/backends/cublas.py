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
    one = math.prod(factors.shape[:-2]) == 1  # one matrix: all right-hand sides are its columns
    inner = () if one else lead
    count, columns = math.prod(inner), (math.prod(lead) if one else 1) * x.shape[-2]
    swaps = factors[..., n, :]
    swaps = be.cast(swaps.real if swaps.dtype.kind == "c" else swaps, np.int32)
    swaps = swaps if one else be.copy(be.xp.broadcast_to(swaps, (*inner, n)))
    letter = _LETTERS[factors.dtype.name]
    if _is_batched(count, n):
        library, handle = be.cublas()
        info = np.empty(1, np.int32)  # on the host: whether arguments were refused
        places = _addresses(be, factors, inner), _addresses(be, x, inner)
        getattr(library, letter + "getrsBatched")(
            handle, _operation(library, factors.dtype, adjoint), n, columns, places[0].data.ptr, n, swaps.data.ptr,
            places[1].data.ptr, n, info.ctypes.data, count,
        )  # fmt: skip
    else:
        library, handle = be.cusolver()
        call, info = getattr(library, letter + "getrs"), be.empty((1,), np.int32, factors)
        operation = _operation(be.cublas()[0], factors.dtype, adjoint)
        which = np.broadcast_to(np.arange(math.prod(factors.shape[:-2])).reshape(factors.shape[:-2]), inner).ravel()
        for k, m in enumerate(which):
            call(handle, operation, n, columns, _at(factors, int(m)), n, _at(swaps, k, 1),
                 x.data.ptr + k * columns * n * x.itemsize, n, info.data.ptr)  # fmt: skip
    return be.reshape(x, (*lead, n)) if vector else be.swap_last(x)


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
    return found if own == lead or not lead else be.copy(be.xp.broadcast_to(found.reshape(own), lead))
