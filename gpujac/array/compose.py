"""NumPy functions that are short compositions of others, so they need no rule of their own."""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import fill, indexing, linalg, reduce, shape
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.errors import ArgumentError, ShapeError
from gpujac.ops import elementwise as ew

_LN2 = math.log(2.0)


# Elementwise.
def float_power(x: Any, y: Any) -> Any:
    """`x` to the power `y` in at least double precision."""
    x, y = c.together(x, y)
    wide = np.result_type(c.common_dtype(x, y), np.float64)
    return ew.power(c.astype(x, wide) if shape_of(x) else x * wide.type(1), y)


def heaviside(x: Any, y: Any) -> Any:
    """0 below zero, 1 above it, `y` at zero."""
    return ew.where(ew.equal(x, 0), y, ew.where(ew.greater(x, 0), 1.0, x * 0))


def logaddexp2(x: Any, y: Any) -> Any:
    """log2(2**x + 2**y) without overflow."""
    x, y = c.together(x, y)
    return ew.logaddexp(x * _LN2, y * _LN2) / _LN2


def divmod(x: Any, y: Any) -> tuple:
    """Floor quotient and remainder."""
    return ew.floor_divide(x, y), ew.remainder(x, y)


def modf(x: Any) -> tuple:
    """Fractional and integral parts, both with the sign of `x`."""
    whole = ew.trunc(x)
    return x - whole, whole


def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """For each entry the choice of the first condition that holds."""
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = ew.where(*c.together(condition, choice, result))
    return result


# Reductions that leave out NaN.
def _without_nan(x: Any, neutral: float) -> Any:
    return ew.where(ew.isnan(x), neutral, x) if kind(x.dtype) in "fc" else x


def nansum(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False,
           initial: Any = c.NO_VALUE, where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Sum of the entries that are numbers."""
    return reduce.sum(_without_nan(x, 0.0), axis, dtype, out, keepdims, initial, where)


def nanmean(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *,
            where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Mean of the entries that are numbers."""
    keep = ew.logical_not(ew.isnan(x))
    if where is not c.NO_VALUE:
        keep = ew.logical_and(keep, c.lift(where, x))
    return reduce.mean(_without_nan(x, 0.0), axis, dtype, out, keepdims, where=keep)


def nanmax(x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = c.NO_VALUE,
           where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Largest entry that is a number; NaN where none is."""
    return _extreme_number(reduce.max, -math.inf, x, axis, out, keepdims, initial, where)


def nanmin(x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = c.NO_VALUE,
           where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Smallest entry that is a number; NaN where none is."""
    return _extreme_number(reduce.min, math.inf, x, axis, out, keepdims, initial, where)


def _extreme_number(f: Callable, neutral: float, x: Any, axis: Any, out: Any, keepdims: Any, initial: Any,
                    where: Any) -> Any:  # fmt: skip
    y = f(_without_nan(x, neutral), axis, out, keepdims, initial, where)
    if initial is not c.NO_VALUE or kind(x.dtype) not in "fc":
        return y
    return ew.where(reduce.all(ew.isnan(x), axis, keepdims=keepdims), math.nan, y)


def trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> Any:
    """Integral along `axis` by the trapezoidal rule."""
    if x is not None:
        x = c.lift(x, y)
        dx = reduce.diff(x, axis=axis if len(shape_of(x)) > 1 else -1)
        if len(shape_of(x)) == 1:
            at = c.axis_of(axis, len(y.shape), "trapezoid")
            dx = shape.reshape(dx, (-1,) + (1,) * (-1 - at))
    y = shape.moveaxis(y, axis, -1)
    pairs = shape.moveaxis(y[..., 1:] + y[..., :-1], -1, axis)
    return reduce.sum(dx * pairs / 2.0, axis)


def ediff1d(x: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """Differences of neighbors of the raveled array, with more before and behind."""
    parts = [to_begin, reduce.diff(shape.ravel(x)), to_end]
    parts = [shape.ravel(shape.atleast_1d(p)) for p in parts if p is not None]
    return shape.concatenate(parts)


# Shapes.
def dstack(tup: Any) -> Any:
    """Arrays joined along a third axis."""
    return shape.concatenate([shape.atleast_3d(x) for x in tup], 2)


def append(x: Any, values: Any, axis: Any = None) -> Any:
    """`values` behind `x` along `axis` (both raveled by default)."""
    x, values = c.strong(c.together(x, values))
    x, values = (shape.atleast_1d(v) if axis is None else v for v in (x, values))
    return shape.concatenate([x, values], axis)


def block(arrays: Any) -> Any:
    """Nested lists of blocks as one array: the innermost lists join the last axis."""
    depth, at = 0, arrays
    while isinstance(at, list):
        depth, at = depth + 1, at[0]
    return _joined(arrays, depth, max(depth, _deepest(arrays)))


def _deepest(arrays: Any) -> int:
    if isinstance(arrays, list):
        return max(_deepest(x) for x in arrays)
    return len(shape_of(arrays))


def _joined(arrays: Any, depth: int, rank: int) -> Any:
    if not isinstance(arrays, list):
        x = shape.atleast_1d(arrays)
        return shape.reshape(x, (1,) * (rank - len(x.shape)) + tuple(x.shape))
    return shape.concatenate([_joined(x, depth - 1, rank) for x in arrays], -depth)


def hsplit(x: Any, indices_or_sections: Any) -> list:
    """Parts side by side: along axis 1, or axis 0 of a vector."""
    return shape.split(x, indices_or_sections, 0 if len(x.shape) == 1 else 1)


def vsplit(x: Any, indices_or_sections: Any) -> list:
    """Parts on top of each other: along axis 0."""
    return shape.split(x, indices_or_sections, 0)


def dsplit(x: Any, indices_or_sections: Any) -> list:
    """Parts along axis 2."""
    return shape.split(x, indices_or_sections, 2)


def fliplr(x: Any) -> Any:
    """`x` reversed along axis 1."""
    return shape.flip(x, 1)


def flipud(x: Any) -> Any:
    """`x` reversed along axis 0."""
    return shape.flip(x, 0)


def rot90(x: Any, k: int = 1, axes: tuple = (0, 1)) -> Any:
    """`x` turned by `k` quarter turns in the plane of two axes."""
    first, second = axes
    k = k % 4
    if k == 2:
        return shape.flip(x, (first, second))
    if k == 1:
        return shape.swapaxes(shape.flip(x, second), first, second)
    return shape.flip(shape.swapaxes(x, first, second), second) if k == 3 else x


def rollaxis(x: Any, axis: int, start: int = 0) -> Any:
    """`x` with one axis moved before another."""
    rank = len(x.shape)
    axis = c.axis_of(axis, rank, "rollaxis") + rank
    start = start + rank if start < 0 else start
    return shape.moveaxis(x, axis, start - 1 if axis < start else start)


def diagflat(v: Any, k: int = 0) -> Any:
    """A matrix with the raveled array on a diagonal."""
    return fill.diag(shape.ravel(v), k)


def delete(x: Any, obj: Any, axis: Any = None) -> Any:
    """`x` without the entries at plain positions along `axis` (raveled by default)."""
    if axis is None:
        x, axis = shape.ravel(x), 0
    kept = np.delete(np.arange(x.shape[axis]), obj if isinstance(obj, slice) else c.on_host(c.deciding("delete", obj)))
    return indexing.take(x, kept, axis)


def compress(condition: Any, x: Any, axis: Any = None, out: Any = None) -> Any:
    """The entries along `axis` where a plain condition holds."""
    c.refuse("compress", out=out)
    flags = c.deciding("compress", c.lift(condition))
    return indexing.take(x, c.true_positions(backend_of(flags).ravel(flags, 0))[0], axis)


def extract(condition: Any, x: Any) -> Any:
    """The entries of the raveled array where a condition with plain values holds."""
    flags = c.deciding("extract", c.lift(condition))
    return compress(backend_of(flags).ravel(flags, 0), x)


# Products.
def kron(x: Any, y: Any) -> Any:
    """Kronecker product: every entry of `x` times the whole of `y`."""
    x, y = (shape.atleast_1d(v) for v in (x, y))
    rank = max(len(x.shape), len(y.shape))
    m, n = ((1,) * (rank - len(v.shape)) + tuple(v.shape) for v in (x, y))
    x = shape.reshape(x, tuple(k for a in m for k in (a, 1)))
    y = shape.reshape(y, tuple(k for b in n for k in (1, b)))
    return shape.reshape(x * y, tuple(a * b for a, b in zip(m, n, strict=True)))


def matrix_power(x: Any, n: int) -> Any:
    """Square matrices to an integer power, by repeated squaring."""
    n = operator.index(n)
    if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"matrix_power: the last two axes of shape {tuple(x.shape)} are not square")
    if n == 0:
        return x * 0 + c.astype(c.placed(np.eye(x.shape[-1]), x), dtype_of(x))
    base = linalg.inv(x) if n < 0 else x
    result, n = None, abs(n)
    while n:
        if n % 2:
            result = base if result is None else linalg.matmul(result, base)
        n //= 2
        base = linalg.matmul(base, base) if n else base
    return result


def multi_dot(arrays: Any) -> Any:
    """The product of several matrices, in the cheapest order."""
    xs = list(c.together(*arrays))
    if len(xs) < 2:
        raise ArgumentError("multi_dot: give at least two arrays")
    letters = [chr(97 + i) + chr(98 + i) for i in range(len(xs))]
    if len(shape_of(xs[0])) == 1:
        letters[0] = letters[0][1]
    if len(shape_of(xs[-1])) == 1:
        letters[-1] = letters[-1][0]
    joined = "".join(letters)
    kept = "".join(s for s in joined if joined.count(s) == 1)
    return linalg.einsum(",".join(letters) + "->" + kept, *xs)
