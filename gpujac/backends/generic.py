"""Any array-API namespace: the standard alone, gaps filled by composition."""

import math
from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np

from gpujac.backends.chain import Chain, interpret
from gpujac.errors import MissingRuleError

_RENAMED = {
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "arctan2": "atan2",
    "power": "pow",
    "absolute": "abs",
    "conjugate": "conj",
    "rint": "round",
    "invert": "bitwise_invert",
    "left_shift": "bitwise_left_shift",
    "right_shift": "bitwise_right_shift",
}


class Generic:
    """A backend over the namespace `xp` of an array-API library (array-api-strict, torch, ...)."""

    saturation_bytes: int | None = None

    fuses = False  # no kernels here: a chain would be as many passes as its steps
    matrices = None

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.name = xp.__name__

    def chain(self, chain: Chain, shape: tuple[int, ...], operands: tuple) -> Any:
        return interpret(self, chain, shape, operands)

    def function(self, name: str) -> Any:
        if name == "where":
            return _Where(self)
        own = _COMPOSED.get(name)
        if own is not None:
            return _Composed(self, own)
        found = getattr(self.xp, _RENAMED.get(name, name), None)
        if found is None:
            raise MissingRuleError(
                f"{name}: the array namespace {self.name} has no such function; "
                "convert the arrays to NumPy or CuPy"
            )
        return found if name in _UNARY else _Composed(self, _plain(found))

    def lift(self, operands: tuple, like: Any = None) -> list:
        """Operands as arrays of one dtype, Python and NumPy scalars promoted weakly."""
        xp = self.xp
        like = self.sample(operands) if like is None else like
        arrays = [x for x in operands if isinstance(x, type(like))]
        dtype = xp.result_type(*arrays) if arrays else xp.bool
        return [
            x if type(x) is type(like) else self.asarray(x, self._weak(x, dtype), like)
            for x in operands
        ]

    def sample(self, operands: tuple) -> Any:
        """The first operand that is an array of this library."""
        for x in operands:
            if not isinstance(x, (int, float, complex, np.generic, np.ndarray)):
                return x
        raise TypeError(f"no operand belongs to {self.name}")

    def _weak(self, x: Any, dtype: Any) -> Any:
        if isinstance(x, (bool, np.bool)):
            return self.xp.bool
        kinds = "integral" if isinstance(x, (int, np.integer)) else "real floating"
        if dtype == self.xp.bool:  # nothing to be weak beside
            return self.xp.int64 if kinds == "integral" else self.xp.float64
        if kinds == "integral" or not self.xp.isdtype(dtype, "integral"):
            if isinstance(x, (complex, np.complexfloating)) and not self.xp.isdtype(
                dtype, "complex floating"
            ):
                return self.xp.complex128 if dtype == self.xp.float64 else self.xp.complex64
            return dtype
        return self.xp.float64

    def asarray(self, value: Any, dtype: Any, like: Any) -> Any:
        if isinstance(value, (np.generic, np.ndarray)):
            value = value.tolist()
        return self.xp.asarray(value, dtype=dtype, device=like.device)

    def zeros(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        return self.xp.zeros(shape, dtype=dtype, device=like.device)

    def ones(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        return self.xp.ones(shape, dtype=dtype, device=like.device)

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        return self.xp.empty(shape, dtype=dtype, device=like.device)

    def ravel(self, x: Any, lead: int) -> Any:
        return self.xp.reshape(x, x.shape[:lead] + (math.prod(x.shape[lead:]),))

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        return self.xp.reshape(x, shape)

    def permute(self, x: Any, axes: tuple[int, ...]) -> Any:
        return self.xp.permute_dims(x, axes)

    def sum(self, x: Any, axes: tuple[int, ...]) -> Any:
        return self.xp.sum(x, axis=axes, dtype=x.dtype)

    def spread(self, x: Any, inner: tuple[int, ...], shape: tuple[int, ...]) -> Any:
        return self.xp.broadcast_to(self.xp.reshape(x, inner), shape)

    def cast(self, x: Any, dtype: Any) -> Any:
        if self.xp.isdtype(x.dtype, "complex floating") and not self.xp.isdtype(
            dtype, "complex floating"
        ):
            x = self.xp.real(x)
        return self.xp.astype(x, dtype)

    def swap_last(self, x: Any) -> Any:
        return self.xp.matrix_transpose(x)

    def matmul(self, x: Any, y: Any) -> Any:
        return self.xp.matmul(x, y)

    def matmul_transposed(self, x: Any, y: Any) -> Any:
        return self.xp.matmul(x, self.xp.matrix_transpose(y))

    def solve(self, a: Any, b: Any) -> Any:
        return self.xp.linalg.solve(a, b)

    def argsort(self, x: Any) -> Any:
        return self.xp.argsort(x, axis=-1, stable=True)

    def stack(self, xs: tuple, axis: int) -> Any:
        return self.xp.stack(xs, axis=axis)

    def cumsum(self, x: Any, axis: int) -> Any:
        return self.xp.cumulative_sum(x, axis=axis, dtype=x.dtype)

    def take(self, x: Any, index: Any, axis: int) -> Any:
        index = self.index(index, x)
        flat = self.xp.reshape(index, (-1,))
        taken = self.xp.take(x, flat, axis=axis)
        at = len(x.shape) + axis
        return self.xp.reshape(taken, x.shape[:at] + index.shape + x.shape[at + 1 :])

    def index(self, index: Any, like: Any) -> Any:
        """An index array of NumPy or of this library as one of this library."""
        return self.asarray(index, self.xp.int64, like) if isinstance(index, np.ndarray) else index

    def add_at(self, buffer: Any, index: Any, values: Any, rest: int) -> None:
        # the standard has no scatter: one write per position, correct and slow
        at = len(buffer.shape) - rest - 1
        flat = self.xp.reshape(values, values.shape[:at] + (-1,) + values.shape[len(values.shape) - rest :])
        tail = (slice(None),) * rest
        for position, target in enumerate(_integers(index)):
            buffer[(..., target, *tail)] += flat[(..., position, *tail)]

    def last_writer(self, index: Any, size: int) -> Any:
        source = np.full(size, -1, np.intp)
        targets = _integers(index)
        source[targets] = np.arange(len(targets))
        return source

    def set_diagonal(self, matrix: Any, row: int, column: int, values: Any) -> None:
        for i in range(values.shape[-1]):
            matrix[..., row + i, column + i] = values[..., i]

    def all_finite(self, x: Any) -> bool | None:
        if isinstance(x, (int, float, complex)):
            return math.isfinite(abs(x))
        return bool(self.xp.all(self.xp.isfinite(x)))

    def copy(self, x: Any) -> Any:
        return self.xp.asarray(x, copy=True)

    def is_whole(self, x: Any) -> bool:
        return False  # the standard does not tell

    def shares_memory(self, x: Any, y: Any) -> bool:
        return True  # for all we know

    def blank(self, x: Any) -> Any:
        return None

    def kept(self, constant: Any) -> Any:
        return self.copy(constant)

    def check_devices(self, xs: Sequence[Any]) -> None:
        return

    def swap_order(self, x: Any) -> Any:
        return self.xp.asarray(self.xp.matrix_transpose(x), copy=True)

    def memory_free_bytes(self) -> int | None:
        return None

    def fetcher(self) -> Any:
        return None

    def peak(self) -> Any:
        return None


def _integers(index: Any) -> list[int]:
    """The entries of an index array as Python integers, in C order."""
    if isinstance(index, np.ndarray):
        return [int(i) for i in index.ravel()]
    flat = array_api_compat.array_namespace(index).reshape(index, (-1,))
    return [int(flat[i]) for i in range(flat.shape[0])]


class _Where:
    """Selection: the condition keeps its dtype, the two choices agree on one."""

    def __init__(self, backend: Generic) -> None:
        self.backend = backend

    def __call__(self, condition: Any, x: Any, y: Any) -> Any:
        be, xp = self.backend, self.backend.xp
        like = be.sample((x, y, condition))
        flag = condition if type(condition) is type(like) else be.asarray(condition, xp.bool, like)
        x, y = be.lift((x, y), like)
        dtype = xp.result_type(x, y)
        return xp.where(xp.astype(flag, xp.bool), xp.astype(x, dtype), xp.astype(y, dtype))


class _Composed:
    """A function of the backend and its lifted operands."""

    def __init__(self, backend: Generic, f: Any) -> None:
        self.backend = backend
        self.f = f

    def __call__(self, *operands: Any) -> Any:
        return self.f(self.backend.xp, *self.backend.lift(operands))


def _plain(function: Any) -> Any:
    return lambda xp, *xs: function(*xs)


def _fmod(xp: Any, x: Any, y: Any) -> Any:
    size = xp.remainder(xp.abs(x), xp.abs(y))
    return xp.where(x < 0, -size, size)


def _guarded(xp: Any, t: Any, c: Any) -> Any:
    return xp.where(t == 0, xp.zeros_like(t * c), t * c)


def _sinc(xp: Any, x: Any) -> Any:
    z = xp.where(x == 0, xp.ones_like(x), math.pi * x)
    return xp.where(x == 0, xp.ones_like(x), xp.sin(z) / z)


def _logistic(xp: Any, x: Any) -> Any:
    z = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, xp.ones_like(z), z) / (1 + z)


def _fmax(xp: Any, x: Any, y: Any) -> Any:
    return xp.where(xp.isnan(x), y, xp.where(xp.isnan(y), x, xp.maximum(x, y)))


def _fmin(xp: Any, x: Any, y: Any) -> Any:
    return xp.where(xp.isnan(x), y, xp.where(xp.isnan(y), x, xp.minimum(x, y)))


def _cbrt(xp: Any, x: Any) -> Any:
    root = xp.pow(xp.abs(x), xp.asarray(1 / 3, dtype=x.dtype))
    # one Newton step: pow(x, 1/3) is off by a few units in the last place
    better = root - (root * root * root - xp.abs(x)) / xp.where(root == 0, xp.ones_like(x), 3 * root * root)
    return xp.sign(x) * better


_COMPOSED = {
    "fmod": _fmod,
    "guarded": _guarded,
    "sinc": _sinc,
    "logistic": _logistic,
    "fmax": _fmax,
    "fmin": _fmin,
    "cbrt": _cbrt,
    "clip": lambda xp, x, low, high: xp.minimum(xp.maximum(x, low), high),
    "exp2": lambda xp, x: xp.exp(x * math.log(2.0)),
    "divide": lambda xp, x, y: xp.divide(x, y),
    "copy": lambda xp, x: x,
}
_UNARY = frozenset(
    "sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh exp expm1 log log2 "
    "log10 log1p sqrt square reciprocal absolute negative positive sign floor ceil rint trunc "
    "isnan isinf isfinite logical_not signbit conjugate invert".split()
)
