"""Statistics of samples, and sequences: covariances, reductions that leave NaN out, correlate, unwrap, digitize."""

import math
import operator
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import create, fill, indexing, lookup, order, reduce, series, shape
from gpujac.backends.choose import backend_of, common_backend
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.source import asked_at
from gpujac.core.trace import concrete, is_mapped, payload
from gpujac.errors import ArgumentError, ConcretizationError, DispatchError, DTypeError, ShapeError
from gpujac.ops import elementwise as ew
from gpujac.ops.batching import hold
from gpujac.ops.contract import contract


# ---------------------------------------------------------------- covariances
def cov(m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None, fweights: Any = None,
        aweights: Any = None, *, dtype: Any = None) -> Any:  # fmt: skip
    """Covariance matrix of variables in rows (columns where not `rowvar`)."""
    x = _variables(_wide(c.lift(m, y), dtype), rowvar)
    if y is not None:
        x = shape.concatenate([x, _variables(_wide(c.lift(y, m), dtype), rowvar, short=True)], 0)
    ddof = (0 if bias else 1) if ddof is None else operator.index(ddof)
    weights = [_weights(w, x, whole) for w, whole in ((fweights, True), (aweights, False)) if w is not None]
    if not weights:
        total, d = x.shape[1], x - reduce.mean(x, 1, keepdims=True)
        return shape.squeeze(_outer_product(d, d) / _left(total - ddof))
    w = weights[0] if len(weights) == 1 else weights[0] * weights[1]
    total = reduce.sum(w)
    d = x - reduce.sum(x * w, 1, keepdims=True) / total
    free = total - ddof * (1.0 if aweights is None else reduce.sum(w * weights[-1]) / total) if ddof else total
    return shape.squeeze(_outer_product(d, d * w) / ew.maximum(free, 0.0))


def _wide(x: Any, dtype: Any) -> Any:
    """`x` in `dtype`; by default in at least double precision, as NumPy's covariances are."""
    if dtype is not None:
        return c.astype(x, dtype)
    x = c.floating(x)
    return c.astype(x, np.result_type(x.dtype, np.float64)) if isinstance(x.dtype, np.dtype) else x


def _weights(w: Any, x: Any, whole: bool) -> Any:
    """Weights of the columns of `x` in its real dtype; those that count observations are `whole` numbers."""
    w = c.lift(w, x)
    if shape_of(w) != (x.shape[1],):
        raise ShapeError(f"cov: weights of shapes {[shape_of(w)]} for {x.shape[1]} observations")
    values = payload(w)
    if values is not None:
        common_backend((values, payload(x)))
        if not hold(ew.greater_equal(w, 0)):
            raise ArgumentError(f"cov: {'fweights' if whole else 'aweights'} are negative somewhere; use 0 or more")
        if whole and kind(dtype_of(w)) in "fc" and not hold(ew.equal(w, ew.rint(w))):
            raise ArgumentError("cov: fweights count observations, so they are whole numbers; use aweights")
    return c.astype(w, reduce.real(x).dtype)


def _variables(x: Any, rowvar: bool, short: bool = False) -> Any:
    """Variables in rows; `short` says that one row stays one, as NumPy has it for the second array."""
    if len(x.shape) > 2:
        raise ShapeError(f"cov: an array of shape {tuple(x.shape)}; give a vector or a matrix")
    turned = not rowvar and len(x.shape) == 2 and not (short and x.shape[0] == 1)
    x = shape.atleast_2d(x)
    return shape.transpose(x) if turned else x


def _outer_product(x: Any, y: Any) -> Any:
    return contract("ij", "kj", "ik")(x, reduce.conj(y))


def _left(count: float) -> float:
    return float(max(count, 0))


def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    """Correlation coefficients; of one variable alone, 1."""
    found = cov(x, y, rowvar, dtype=dtype)
    if shape_of(found) == ():
        return found / found
    size = ew.sqrt(reduce.real(fill.diagonal(found)))
    found = found / shape.reshape(size, (-1, 1)) / size
    return found if kind(dtype_of(found)) == "c" else ew.clip(found, -1.0, 1.0)


# ---------------------------------------------------------------- without NaN
def _numbers(x: Any, where: Any) -> Any:
    keep = ew.logical_not(ew.isnan(x))
    return keep if where is c.NO_VALUE or where is True else ew.logical_and(keep, c.lift(where, x))


def _without(x: Any, neutral: float) -> Any:
    """`x` with a number where it is NaN; integers have none."""
    return ew.where(ew.isnan(x), neutral, x) if kind(x.dtype) in "fc" else x


def _spread_of(f: Any, x: Any, axis: Any, dtype: Any, out: Any, ddof: Any, keepdims: Any, where: Any, mean: Any,
               correction: Any) -> Any:  # fmt: skip
    """The variance or deviation `f` of the numbers; NaN where too few of them are left."""
    ddof = ddof if correction is c.NO_VALUE else correction
    if kind(x.dtype) not in "fc":
        return f(x, axis, dtype, out, ddof, keepdims, where=where, mean=mean)
    keep = _numbers(x, where)
    flags = c.astype(c.broadcast(keep, tuple(x.shape)), reduce.real(x).dtype)
    count = reduce.sum(flags, axis, keepdims=keepdims)
    few = ew.less_equal(count, ddof)
    free = ew.where(few, count - 1, ddof)  # one degree of freedom where the result is replaced
    y = f(ew.where(keep, x, 0.0), axis, dtype, out, free, keepdims, where=keep, mean=mean)
    return ew.where(few, math.nan, y)


def nanvar(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: Any = False, *,
           where: Any = c.NO_VALUE, mean: Any = c.NO_VALUE, correction: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Variance of the entries that are numbers."""
    return _spread_of(reduce.var, x, axis, dtype, out, ddof, keepdims, where, mean, correction)


def nanstd(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: Any = False, *,
           where: Any = c.NO_VALUE, mean: Any = c.NO_VALUE, correction: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Standard deviation of the entries that are numbers."""
    return _spread_of(reduce.std, x, axis, dtype, out, ddof, keepdims, where, mean, correction)


def nanprod(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False,
            initial: Any = c.NO_VALUE, where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Product of the entries that are numbers."""
    return reduce.prod(_without(x, 1.0), axis, dtype, out, keepdims, initial, where)


def nancumsum(x: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """Running sum, NaN counting as zero."""
    return reduce.cumsum(_without(x, 0.0), axis, dtype, out)


def nancumprod(x: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """Running product, NaN counting as one."""
    return reduce.cumprod(_without(x, 1.0), axis, dtype, out)


def nanquantile(a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
                method: str = "linear", keepdims: Any = False, **others: Any) -> Any:  # fmt: skip
    """Quantiles of the entries that are numbers; NaN where there are none. Differentiable in `a` and `q`."""
    c.refuse("nanquantile", out=out, **others)
    if method != "linear":
        raise DispatchError(f"nanquantile: method={method!r} is not supported on traced arrays; use 'linear'")
    a, q = c.promoted(*c.strong((lookup.ordered(c.lift(a, q)), lookup.in_range(c.lift(q, a), "nan"))))
    wanted = tuple(shape_of(q))
    if len(wanted) > 1:
        raise ShapeError(f"nanquantile: q of shape {wanted}; give a number or a vector")
    rank = len(a.shape)
    axes = c.axes_of(axis, rank, "nanquantile")
    kept = [i for i in range(-rank, 0) if i not in axes]
    size = math.prod([a.shape[i] for i in axes])
    lines = shape.reshape(shape.transpose(a, (*kept, *axes)), (*(a.shape[i] for i in kept), size))
    q = shape.reshape(q, (math.prod(wanted),))
    if size:
        y = _along_lines(order.sort(lines), reduce.sum(_numbers(lines, True), -1, keepdims=True), q)
    else:
        y = reduce.sum(lines, -1, keepdims=True) + math.nan * q
    y = shape.reshape(shape.moveaxis(y, -1, 0), (*wanted, *(a.shape[i] for i in kept)))
    if keepdims and keepdims is not c.NO_VALUE:
        y = shape.reshape(y, (*wanted, *(1 if i - rank in axes else n for i, n in enumerate(a.shape))))
    return y


def _along_lines(lines: Any, counts: Any, q: Any) -> Any:
    """Quantiles of sorted lines of which the first `counts` entries are numbers."""
    at = c.astype(counts, np.float64) * q - q  # (count - 1) q
    empty = ew.equal(counts, 0)
    at, lines = ew.where(empty, 0.0, at), ew.where(empty, 0.0, lines)  # a NaN here would spoil the derivatives of all
    low = ew.floor(ew.maximum(at, 0.0))
    last = ew.maximum(counts - 1, 0)
    first = c.astype(low, np.int64)
    second = ew.minimum(first + 1, last)
    below, above = (indexing.take_along_axis(lines, i, -1) for i in (first, second))
    share = c.astype(at - low, lines.dtype)
    return ew.where(empty, math.nan, lookup.between(below, above, share))


def nanpercentile(a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
                  method: str = "linear", keepdims: Any = False, **others: Any) -> Any:  # fmt: skip
    """Percentiles of the entries that are numbers."""
    return nanquantile(a, c.lift(q, a) / 100.0, axis, out, overwrite_input, method, keepdims, **others)


def nanmedian(a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False) -> Any:
    """Median of the entries that are numbers."""
    return nanquantile(a, 0.5, axis, out, overwrite_input, "linear", keepdims)


# ---------------------------------------------------------------- sequences
def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    """Cross-correlation of two vectors: sums of a[n + k] conj(v[n])."""
    a, v = c.together(a, v)
    if len(shape_of(a)) != 1 or len(shape_of(v)) != 1:
        raise ShapeError(f"correlate: needs two vectors, found shapes {shape_of(a)} and {shape_of(v)}")
    n, m = shape_of(a)[0], shape_of(v)[0]
    if n < m and mode == "same":  # NumPy turns the other way round, which moves the middle by one
        return shape.flip(reduce.conj(correlate(v, a, mode)))
    return series.convolve(a, reduce.conj(shape.flip(v)), mode)


def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: float = 2 * math.pi) -> Any:
    """Angles without jumps: multiples of the period are added, which have no derivative."""
    p = c.floating(c.lift(p))
    steps = reduce.diff(p, axis=axis)
    half = period / 2
    turns = ew.floor((steps + half) / period)
    turns = ew.where(ew.logical_and(ew.equal(turns * period, steps + half), ew.greater(steps, 0)), turns - 1, turns)
    limit = half if discont is None else discont
    jumps = ew.where(ew.less(reduce.absolute(steps), limit), 0.0, turns * -period)
    at = c.axis_of(axis, len(p.shape), "unwrap")
    widths = [(1, 0) if i - len(p.shape) == at else (0, 0) for i in range(len(p.shape))]
    return p + fill.bordered(reduce.cumsum(jumps, at), widths)


def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """The number of the bin of each entry; the edges rise or fall."""
    x, bins = c.strong(c.together(x, bins))
    if len(shape_of(bins)) != 1:
        raise ShapeError(f"digitize: needs a vector of edges, found shape {shape_of(bins)}")
    if "c" in (kind(dtype_of(x)), kind(dtype_of(bins))):
        raise DTypeError("digitize: complex numbers have no order; give their modulus or real part")
    side = "left" if right else "right"
    if not _falls(bins):
        return lookup.searchsorted(bins, x, side)
    return bins.shape[0] - lookup.searchsorted(shape.flip(bins), x, side)


def _falls(bins: Any) -> bool:
    """Whether the edges fall; an error where they do both."""
    if is_mapped(bins):
        raise ConcretizationError(
            "digitize: whether the edges rise or fall may differ between the lanes of vmap; use np.searchsorted, "
            "whose edges always rise" + asked_at()
        )
    edges = concrete(bins)
    xp = backend_of(edges).xp
    rises, falls = (bool(xp.any(found)) for found in (edges[:-1] < edges[1:], edges[:-1] > edges[1:]))
    if rises and falls:
        raise ArgumentError(f"digitize: the {edges.shape[0]} edges must rise or fall, and do both; sort them")
    return falls


def vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    """Powers of the entries of a vector, in columns."""
    if len(shape_of(x)) != 1:
        raise ShapeError(f"vander: needs a vector, found shape {shape_of(x)}")
    count = x.shape[0] if N is None else operator.index(N)
    if count < 0:
        raise ArgumentError(f"vander: N={count} is negative")
    if isinstance(x.dtype, np.dtype):
        x = c.astype(x, np.promote_types(x.dtype, int))
    columns = [create.ones_like(x)]
    while len(columns) < count:
        columns.append(columns[-1] * x if len(columns) > 1 else x)
    columns = columns[:count]
    if not columns:
        return x[:, None][:, :0]
    return shape.stack(columns if increasing else columns[::-1], -1)
