"""NumPy: the CPU backend, and the elementwise functions that NumPy spells differently or lacks."""

import math
import operator
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpujac.backends.chain import Chain, interpret
from gpujac.errors import BackendError


def _divide(x: Any, y: Any) -> Any:
    try:
        return x / y
    except ZeroDivisionError:  # Python floats only: arrays give inf or nan, as NumPy does
        return np.divide(x, y)


def _power(x: Any, y: Any) -> Any:
    if type(x) in PYTHON_SCALARS and type(y) in PYTHON_SCALARS:
        return np.power(float(x) if type(x) is int else x, y)  # (-1.0) ** 0.5 is nan here
    return x**y


def _logistic(x: Any) -> Any:
    # 1 / (1 + exp(-x)) without overflow: exp only of -|x|
    z = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, z).astype(z.dtype)[()] / (1 + z)


def _where(condition: Any, x: Any, y: Any) -> Any:
    return np.where(condition, x, y)[()]


def _clip(x: Any, low: Any, high: Any) -> Any:
    return np.minimum(np.maximum(x, low), high)


def _sinc(x: Any) -> Any:
    return np.sinc(x)[()]


def _guarded(t: Any, c: Any) -> Any:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(t == 0, np.zeros((), np.result_type(t)), t * c)[()]


def _identity(x: Any) -> Any:
    return x


_add_up: Any = np.add.reduce  # a third of np.sum's overhead; its stubs differ between NumPy's versions
PYTHON_SCALARS = frozenset((float, int, complex, bool))
NUMPY_SCALARS = frozenset(
    t for t in np.sctypeDict.values() if isinstance(t, type) and issubclass(t, (np.number, np.bool))
)
SCALARS = PYTHON_SCALARS | NUMPY_SCALARS
TYPES = SCALARS | {np.ndarray, np.memmap}

_SPECIAL = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": _divide,
    "negative": operator.neg,
    "power": _power,
    "guarded": _guarded,
    "logistic": _logistic,
    "where": _where,
    "clip": _clip,
    "sinc": _sinc,
    "copy": _identity,
}


# Functions of scipy.special. It is not imported here: whoever calls one has SciPy loaded, or CuPy's version.
OF_SCIPY = frozenset(
    """zeta digamma gammaln gamma betaln erf erfc erfinv erfcinv erfcx ndtr ndtri log_ndtr logit xlogy xlog1py
    entr rel_entr kl_div""".split()
)


def _of_scipy(name: str) -> Any:
    def function(*xs: Any) -> Any:
        module = sys.modules.get("scipy.special")
        if module is None:
            raise BackendError(f"{name} is a function of SciPy's; import gpujac.scipy.special first")
        return getattr(module, name)(*xs)

    return function


_SPECIAL |= {name: _of_scipy(name) for name in OF_SCIPY}


class Host:
    """The NumPy backend."""

    name = "numpy"
    xp: Any = np
    saturation_bytes: int | None = None
    fuses = False  # no kernels here: a chain would be as many passes as its steps
    matrices = None

    def chain(self, chain: Chain, shape: tuple[int, ...], operands: tuple) -> Any:
        return interpret(self, chain, shape, operands)

    def function(self, name: str) -> Any:
        return _SPECIAL.get(name) or getattr(np, name)

    def asarray(self, value: Any, dtype: Any, like: Any) -> Any:
        return np.asarray(value, dtype=dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        return np.zeros(shape, dtype)

    def ones(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        return np.ones(shape, dtype)

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        return np.empty(shape, dtype)

    def ravel(self, x: Any, lead: int) -> Any:
        x = np.asarray(x)
        return x.reshape(x.shape[:lead] + (math.prod(x.shape[lead:]),))

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        return x.reshape(shape)

    def permute(self, x: Any, axes: tuple[int, ...]) -> Any:
        return x.transpose(axes)

    def sum(self, x: Any, axes: tuple[int, ...]) -> Any:
        return _add_up(x, axis=axes)

    def spread(self, x: Any, inner: tuple[int, ...], shape: tuple[int, ...]) -> Any:
        if inner != x.shape:
            x = x.reshape(inner)
        if math.prod(shape) > 4096:  # a view: the copy would cost more than it saves
            return np.broadcast_to(x, shape)
        out = np.empty(shape, x.dtype)
        out[...] = x
        return out

    def cast(self, x: Any, dtype: Any) -> Any:
        return np.asarray(x).astype(dtype)[()]

    def swap_last(self, x: Any) -> Any:
        return x.swapaxes(-1, -2)

    def matmul(self, x: Any, y: Any) -> Any:
        return x @ y

    def matmul_transposed(self, x: Any, y: Any) -> Any:
        if x.ndim == 2 and y.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous:
            return (y @ x.T).T  # rows that lie as columns stay so: a quarter faster
        return x @ y.swapaxes(-1, -2)

    def solve(self, a: Any, b: Any) -> Any:
        return np.linalg.solve(a, b)

    def argsort(self, x: Any) -> Any:
        return np.argsort(x, axis=-1, stable=True)

    def stack(self, xs: tuple, axis: int) -> Any:
        first = np.asarray(xs[0])
        if first.ndim == 0:
            return np.array(xs, np.result_type(*xs))
        return np.stack(xs, axis)

    def cumsum(self, x: Any, axis: int) -> Any:
        return np.cumsum(x, axis=axis)

    def take(self, x: Any, index: Any, axis: int) -> Any:
        return np.asarray(x).take(index, axis=axis)

    def add_at(self, buffer: Any, index: Any, values: Any, rest: int) -> None:
        size = buffer.shape[buffer.ndim - rest - 1]
        index = np.asarray(index)
        key = (..., index, *(slice(None),) * rest)
        if index.size <= 1 or np.max(np.bincount(index.ravel() % size, minlength=1)) <= 1:
            buffer[key] += values
        elif buffer.ndim == 1 and buffer.dtype == np.float64:
            buffer += np.bincount(index.ravel() % size, np.ravel(values), size)
        else:
            np.add.at(buffer, key, values)

    def last_writer(self, index: Any, size: int) -> Any:
        source = np.full(size, -1, np.intp)
        source[index.ravel()] = np.arange(index.size)
        return source

    def set_diagonal(self, matrix: Any, row: int, column: int, values: Any) -> None:
        count, width = values.shape[-1], matrix.shape[-1]
        if count:
            flat = matrix.reshape((*matrix.shape[:-2], matrix.shape[-2] * width))  # a view: the matrix is C-contiguous
            flat[..., row * width + column :: width + 1][..., :count] = values

    def all_finite(self, x: Any) -> bool | None:
        if type(x) is np.float64 or type(x) is float:
            return math.isfinite(x)
        if np.asarray(x).dtype.kind == "f" and math.isfinite(_add_up(x, axis=None)):
            return True  # a finite sum has finite terms; an infinite one may have overflowed
        return bool(np.isfinite(x).all())

    def copy(self, x: Any) -> Any:
        return np.array(x, order="C") if type(x) is np.ndarray else np.array(x, order="C")[()]

    def is_whole(self, x: Any) -> bool:
        return x.base is None and x.flags.c_contiguous

    def shares_memory(self, x: Any, y: Any) -> bool:
        return bool(np.may_share_memory(x, y))

    def blank(self, x: Any) -> Any:
        return x if isinstance(x, np.ndarray) else None

    def kept(self, constant: Any) -> Any:
        return constant.copy()

    def check_devices(self, xs: Sequence[Any]) -> None:
        return

    def swap_order(self, x: Any) -> Any:
        return x.T.copy()  # always new: x may be a view of a constant of the user's

    def memory_free_bytes(self) -> int | None:
        try:
            return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (ValueError, OSError, AttributeError):
            return None

    def fetcher(self) -> Any:
        return None

    def peak(self) -> Any:
        return None


HOST = Host()
