"""The table of decompositions: ops written with other functions, for transforms without a rule of theirs.

Nothing imports this file: gpujac/ops/__init__.py loads it by name, at the first need of an entry.
"""

from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import create, lookup, order, reduce
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.decompose import own
from gpujac.ops import elementwise as ew
from gpujac.ops import indexing as ix
from gpujac.ops.composite import search_sorted


@own("interp")
def interp(op: Any, x: Any, points: Any, values: Any) -> Any:
    """The line through the two points around `x`; the ends stay constant."""
    n = shape_of(points)[0]
    take = ix.take(n, 0)
    right = search_sorted("right")(points, x)
    if n == 1:
        return take(values, right * 0)
    left = ew.minimum(ew.maximum(right - 1, 0), n - 2)
    x0, x1 = take(points, left), take(points, left + 1)
    f0, f1 = take(values, left), take(values, left + 1)
    # Functions, not operators: an array of array-api-strict refuses a traced one on its right.
    gap = ew.subtract(x1, x0)  # zero only where two points coincide at the end: x is at or behind both there,
    f0 = ew.where(ew.equal(gap, 0), f1, f0)  # and the last of equal points counts
    gap = ew.where(ew.equal(gap, 0), 1.0, gap)
    y = _line(ew.subtract(x, x0), ew.subtract(x, x1), f0, f1, gap)
    y = ew.where(ew.greater(x, points[n - 1]), values[n - 1], y)
    return ew.where(ew.less(x, points[0]), values[0], y)


def _line(after: Any, before: Any, f0: Any, f1: Any, gap: Any) -> Any:
    """The line from `f0` to `f1`, so far behind its start and its end; infinity and NaN spread as NumPy has it.

    At its ends, and between equal values, a line has the value there; from an infinite start it is
    measured from its end.
    """
    f0 = ew.where(ew.logical_and(ew.equal(before, 0), ew.logical_not(ew.isfinite(f0))), f1, f0)
    level = ew.logical_or(ew.equal(after, 0), ew.equal(f0, f1))
    endless = ew.logical_not(ew.isfinite(f0))
    flat = ew.logical_and(level, ew.logical_or(endless, ew.logical_not(ew.isfinite(f1))))
    slope = ew.divide(ew.subtract(ew.where(flat, 0.0, f1), ew.where(flat, 0.0, f0)), gap)
    from_end = ew.logical_and(endless, ew.logical_not(level))
    return ew.add(ew.where(from_end, f1, f0), ew.multiply(slope, ew.where(from_end, before, after)))


@own("searchsorted")
def searchsorted(op: Any, a: Any, v: Any) -> Any:
    """Bisection of all entries at once: as many steps as the length of `a` has binary digits."""
    n = shape_of(a)[0]
    low = create.zeros_like(v, dtype=np.intp)
    high = low + n
    for _ in range(n.bit_length()):
        middle = (low + high) // 2
        entry = ix.take(n, 0)(a, ew.minimum(middle, n - 1))
        before = _less(entry, v) if op.side == "left" else ew.logical_not(_less(v, entry))
        go = ew.logical_and(before, ew.less(low, high))
        low, high = ew.where(go, middle + 1, low), ew.where(go, high, middle)
    return low


def _less(x: Any, y: Any) -> Any:
    """NumPy's order of numbers: NaN is behind all of them."""
    smaller = ew.less(x, y)
    if kind(dtype_of(x)) not in "fc" or kind(dtype_of(y)) not in "fc":
        return smaller
    return ew.logical_or(smaller, ew.logical_and(ew.isnan(y), ew.logical_not(ew.isnan(x))))


@own("quantile")
def quantile(op: Any, x: Any, q: Any) -> Any:
    """The sorted entries around position q (n - 1), mixed as the method says."""
    n = shape_of(x)[-1]
    position = q * (n - 1)
    if op.method == "nearest":
        position = ew.rint(position)
    left = ew.ceil(position) if op.method == "higher" else ew.floor(position)
    index = ew.minimum(ew.maximum(c.astype(left, np.intp), 0), n - 1)
    ordered = order.sort(x)
    y = ix.take(n, 0)(ordered, index)
    if op.method in ("linear", "midpoint"):
        weight = ew.subtract(position, left)
        if op.method == "midpoint":
            weight = ew.where(ew.greater(weight, 0), 0.5, weight)
        after = ix.take(n, 0)(ordered, ew.minimum(index + 1, n - 1))
        y = lookup.between(y, after, weight)
    missing = reduce.any(ew.isnan(x), -1)  # one NaN spoils the quantiles of its row
    missing = missing[(..., *(None,) * len(shape_of(q)))] if shape_of(q) and shape_of(missing) else missing
    return ew.where(missing, np.nan, y)
