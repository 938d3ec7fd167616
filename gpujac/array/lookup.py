"""Functions that look values up in sorted ones: interp, searchsorted, quantile, percentile."""

import math
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import shape
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.trace import payload
from gpujac.errors import ArgumentError, DispatchError, DTypeError, ShapeError
from gpujac.ops import composite
from gpujac.ops import elementwise as ew
from gpujac.ops.batching import hold

_METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """Piecewise linear interpolation through the points (xp, fp), xp increasing; float64.

    At a point of `xp` the derivative by x is that of the piece to its right (at the last, to its left).
    """
    x, xp, fp = c.strong(c.together(x, xp, fp))
    if len(shape_of(xp)) != 1 or shape_of(xp) != shape_of(fp) or shape_of(xp) == (0,):
        raise ShapeError(f"interp: needs two vectors of one length, found xp {shape_of(xp)} and fp {shape_of(fp)}")
    if period is not None:
        raise DispatchError(
            "interp: period= is not supported on traced arrays; extend the points by one period on both "
            "sides and give x modulo the period"
        )
    if "c" in (kind(dtype_of(x)), kind(dtype_of(xp)), kind(dtype_of(fp))):
        raise DispatchError("interp: complex numbers are not supported; interpolate real and imaginary part")
    x, xp, fp = (c.astype(v, np.float64) for v in (x, xp, fp))
    y = composite.INTERP(x, xp, fp)
    y = y if left is None else ew.where(ew.less(x, xp[0]), left, y)
    return y if right is None else ew.where(ew.greater(x, xp[-1]), right, y)


def searchsorted(a: Any, v: Any, side: Any = "left", sorter: Any = None) -> Any:
    """Positions in the sorted vector `a` where the entries of `v` would be inserted; they carry no derivative."""
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted: side={side!r} is neither 'left' nor 'right'")
    a, v = c.strong(c.together(a, v))
    if len(shape_of(a)) != 1:
        raise ShapeError(f"searchsorted: needs a sorted vector, found shape {shape_of(a)}")
    if sorter is not None and shape_of(c.lift(sorter)) != shape_of(a):
        raise ShapeError(f"searchsorted: sorter of shape {shape_of(c.lift(sorter))} for {shape_of(a)[0]} entries")
    return composite.search_sorted(side)(a if sorter is None else a[c.lift(sorter)], v)


def quantile(a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
             method: str = "linear", keepdims: Any = False, **others: Any) -> Any:  # fmt: skip
    """Quantiles `q` (0 to 1, any shape, first in the result) along axes; the derivative follows the entries."""
    c.refuse("quantile", out=out, **others)
    if method not in _METHODS:
        raise DispatchError(f"quantile: method={method!r} is not supported on traced arrays; use one of {_METHODS}")
    a, q = c.strong((ordered(c.lift(a, q)), in_range(c.lift(q, a), "")))
    own = dtype_of(a)
    a, q = c.promoted(a, q)
    rank, wide = len(shape_of(a)), tuple(shape_of(a))
    axes = c.axes_of(axis, rank, "quantile")
    kept = [i for i in range(-rank, 0) if i not in axes]
    count = math.prod(wide[i] for i in axes)
    if count == 0:
        raise ShapeError(f"quantile: shape {wide} has no entries along axis {axis}")
    flat = shape.reshape(shape.transpose(a, (*kept, *axes)), (*(wide[i] for i in kept), count))
    y = composite.quantile(method)(flat, q)
    y = c.astype(y, own) if method in ("lower", "higher", "nearest") else y  # an entry, not a mixture
    k = len(shape_of(q))
    y = shape.moveaxis(y, tuple(range(-k, 0)), tuple(range(k))) if k else y
    if not keepdims:
        return y
    ones = tuple(1 if i - rank in axes else n for i, n in enumerate(wide))
    return shape.reshape(y, (*shape_of(q), *ones))


def percentile(a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
               method: str = "linear", keepdims: Any = False, **others: Any) -> Any:  # fmt: skip
    """Percentiles `q` (0 to 100): see `quantile`."""
    return quantile(a, c.lift(q, a) / 100.0, axis, out, overwrite_input, method, keepdims, **others)


def ordered(x: Any) -> Any:
    """`x` in a floating dtype; complex numbers have no order."""
    if kind(dtype_of(x)) == "c":
        raise DTypeError(f"quantile: needs real numbers, found {dtype_of(x)}; give their modulus or real part")
    return c.floating(x)


def in_range(q: Any, prefix: str) -> Any:
    """`q`, refused where one of its values, in a lane of a vmap that takes part, is no share."""
    if payload(q) is None:  # recorded without values
        return q
    ordered(q)
    if not hold(ew.logical_and(ew.greater_equal(q, 0), ew.less_equal(q, 1))):
        raise ArgumentError(f"{prefix}quantile: q must be from 0 to 1 ({prefix}percentile: from 0 to 100)")
    return q


def between(below: Any, above: Any, share: Any) -> Any:
    """`below` + `share` of the way to `above`; an infinite neighbour of no weight does not matter.

    Functions, not operators: an array of array-api-strict refuses a traced one on its right.
    """
    level = ew.logical_or(ew.equal(share, 0), ew.equal(below, above))
    endless = ew.isinf(below)
    flat = ew.logical_and(level, ew.logical_or(endless, ew.isinf(above)))
    gap = ew.subtract(ew.where(flat, 0, above), ew.where(flat, 0, below))
    from_above = ew.logical_and(endless, ew.logical_not(level))
    weight = ew.where(from_above, ew.subtract(share, 1), share)
    return ew.add(ew.where(from_above, above, below), ew.multiply(gap, weight))
