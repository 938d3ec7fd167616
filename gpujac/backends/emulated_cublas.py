"""cuBLAS's and cuSOLVER's factorizations on host memory, by address, as the emulated backend calls them.

Names, arguments and their order are those of CuPy's bindings; matrices lie column by column.
"""

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpujac.backends.counts import launched

_DTYPES = {"s": "float32", "d": "float64", "c": "complex64", "z": "complex128"}


class Library:
    """The routines `<letter><name>` of cuBLAS and cuSOLVER that gpujac calls, and their constants."""

    CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C = range(3)
    CUBLAS_SIDE_LEFT = 0
    CUBLAS_FILL_MODE_LOWER, CUBLAS_FILL_MODE_UPPER = range(2)
    CUBLAS_DIAG_NON_UNIT, CUBLAS_DIAG_UNIT = range(2)

    def __getattr__(self, name: str) -> Callable:
        letter, routine = name[0], _ROUTINES.get(name[1:])
        if routine is None or letter not in _DTYPES:
            raise AttributeError(name)
        return partial(_called, name, routine, np.dtype(_DTYPES[letter]))


def _called(name: str, routine: Callable, dtype: np.dtype, *args: Any) -> Any:
    with np.errstate(all="ignore"):  # a device does not warn
        touched, result = routine(dtype, *args)
    if touched:
        launched(name, touched)
    return result


def _memory(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> np.ndarray:
    dtype = np.dtype(dtype)
    count = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    buffer = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    return np.ndarray(shape, dtype, buffer, 0, tuple([s * dtype.itemsize for s in strides]))


def _matrix(address: int, rows: int, columns: int, ld: int, dtype: Any) -> np.ndarray:
    return _memory(address, (rows, columns), (1, ld), dtype)


def _vector(address: int, size: int, dtype: Any) -> np.ndarray:
    return _memory(address, (size,), (1,), dtype)


def _size(x: np.ndarray) -> np.ndarray:
    return np.abs(x.real) + np.abs(x.imag)


def _factor(a: np.ndarray, pivots: np.ndarray) -> int:
    """LU in place; 0, or the number of a pivot that is zero."""
    found = 0
    for k in range(len(a)):
        p = k + int(np.argmax(_size(a[k:, k])))
        pivots[k] = p + 1
        a[[k, p]] = a[[p, k]]
        if a[k, k] == 0:
            found = found or k + 1
            continue
        a[k + 1 :, k] /= a[k, k]
        a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 :])
    return found


def _substitute(t: np.ndarray, b: np.ndarray, up: bool, unit: bool) -> None:
    for k in range(len(t) - 1, -1, -1) if up else range(len(t)):
        if not unit:
            b[k] /= t[k, k]
        rest = slice(0, k) if up else slice(k + 1, None)
        b[rest] -= np.outer(t[rest, k], b[k])


def _operated(a: np.ndarray, operation: int) -> np.ndarray:
    return (a, a.T, a.conj().T)[operation]


def _solve(a: np.ndarray, pivots: np.ndarray, b: np.ndarray, operation: int) -> None:
    swaps = [(k, int(p) - 1) for k, p in enumerate(pivots)]
    t = _operated(a, operation)
    if operation == Library.CUBLAS_OP_N:
        for k, p in swaps:
            b[[k, p]] = b[[p, k]]
    _substitute(t, b, False, operation == Library.CUBLAS_OP_N)
    _substitute(t, b, True, operation != Library.CUBLAS_OP_N)
    if operation != Library.CUBLAS_OP_N:
        for k, p in reversed(swaps):
            b[[k, p]] = b[[p, k]]


def _getrf_buffer(dtype: Any, handle: int, m: int, n: int, a: int, lda: int) -> tuple:
    return (), m * n


def _getrf(dtype: Any, handle: int, m: int, n: int, a: int, lda: int, work: int, pivots: int, info: int) -> tuple:
    matrix = _matrix(a, m, n, lda, dtype)
    _vector(info, 1, np.int32)[0] = _factor(matrix, _vector(pivots, n, np.int32))
    return [matrix, matrix], None


def _getrs(dtype: Any, handle: int, operation: int, n: int, columns: int, a: int, lda: int, pivots: int, b: int,
           ldb: int, info: int) -> tuple:  # fmt: skip
    matrix, right = _matrix(a, n, n, lda, dtype), _matrix(b, n, columns, ldb, dtype)
    _solve(matrix, _vector(pivots, n, np.int32), right, operation)
    _vector(info, 1, np.int32)[0] = 0
    return [matrix, right, right], None


def _getrf_batched(dtype: Any, handle: int, n: int, places: int, lda: int, pivots: int, info: int,
                   count: int) -> tuple:  # fmt: skip
    touched = []
    for k, place in enumerate(_vector(places, count, np.uintp)):
        matrix = _matrix(int(place), n, n, lda, dtype)
        _vector(info, count, np.int32)[k] = _factor(matrix, _vector(pivots, count * n, np.int32)[k * n : k * n + n])
        touched += [matrix, matrix]
    return touched, None


def _getrs_batched(dtype: Any, handle: int, operation: int, n: int, columns: int, places: int, lda: int, pivots: int,
                   b_places: int, ldb: int, info: int, count: int) -> tuple:  # fmt: skip
    touched = []
    all_pivots = _vector(pivots, count * n, np.int32).reshape(count, n)
    pairs = zip(_vector(places, count, np.uintp), _vector(b_places, count, np.uintp), strict=True)
    for k, (place, target) in enumerate(pairs):
        matrix, right = _matrix(int(place), n, n, lda, dtype), _matrix(int(target), n, columns, ldb, dtype)
        _solve(matrix, all_pivots[k], right, operation)
        touched += [matrix, right, right]
    _vector(info, 1, np.int32)[0] = 0
    return touched, None


def _trsm_batched(dtype: Any, handle: int, side: int, uplo: int, operation: int, diagonal: int, n: int, columns: int,
                  alpha: int, places: int, lda: int, b_places: int, ldb: int, count: int) -> tuple:  # fmt: skip
    touched = []
    lower, unit = uplo == Library.CUBLAS_FILL_MODE_LOWER, diagonal == Library.CUBLAS_DIAG_UNIT
    pairs = zip(_vector(places, count, np.uintp), _vector(b_places, count, np.uintp), strict=True)
    for place, target in pairs:
        matrix, right = _matrix(int(place), n, n, lda, dtype), _matrix(int(target), n, columns, ldb, dtype)
        right *= _vector(alpha, 1, dtype)[0]
        _substitute(_operated(matrix, operation), right, lower == (operation != Library.CUBLAS_OP_N), unit)
        touched += [matrix, right, right]
    return touched, None


_ROUTINES: dict[str, Callable] = {
    "getrf_bufferSize": _getrf_buffer, "getrf": _getrf, "getrs": _getrs, "getrfBatched": _getrf_batched,
    "getrsBatched": _getrs_batched, "trsmBatched": _trsm_batched,
}  # fmt: skip
LIBRARY = Library()
