"""Reductions and running sums with NumPy's signatures."""

import math
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import fill
from gpujac.array import shape as sh
from gpujac.array.create import zeros_like
from gpujac.array.views import check_alive, link
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.trace import Tracer, payload
from gpujac.errors import ArgumentError, DispatchError, ShapeError
from gpujac.ops import elementwise as ew
from gpujac.ops import indexing as ix
from gpujac.ops import reduce as rd
from gpujac.ops import running
from gpujac.ops import structure as st


def _keep(y: Any, x: Any, axes: tuple, keepdims: Any) -> Any:
    if not keepdims or keepdims is c.NO_VALUE:
        return y
    rank = len(x.shape)
    return sh.reshape(y, tuple(1 if i - rank in axes else n for i, n in enumerate(x.shape)))


def _masked(x: Any, where: Any, neutral: Any) -> Any:
    if where is c.NO_VALUE or where is None or where is True:
        return x
    return ew.where(c.lift(where, x), x, neutral)


def _is_simple(x: Any, keepdims: Any) -> bool:
    """A floating array with axes, of which none is kept."""
    return (not keepdims or keepdims is c.NO_VALUE) and x.shape != () and kind(x.dtype) in "fc"


def sum(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False,
        initial: Any = c.NO_VALUE, where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Sum of entries."""
    plain = axis is None and dtype is None and out is None and initial is c.NO_VALUE
    if plain and where is c.NO_VALUE and _is_simple(x, keepdims):  # what most calls ask
        return st.sum_all(x.shape)(x)
    if out is not None:
        c.refuse("sum", out=out)
    x = c.counted(x) if dtype is None else c.astype(x, dtype)
    axes = c.axes_of(axis, len(x.shape), "sum")
    x = _masked(x, where, 0)
    y = st.sum_over(tuple(x.shape), axes)(x) if axes else c.unshared(x)
    y = _keep(y, x, axes, keepdims)
    return y if initial is c.NO_VALUE or initial is None else y + initial


def mean(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *,
         where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Arithmetic mean."""
    if axis is None and dtype is None and out is None and where is c.NO_VALUE and _is_simple(x, keepdims):
        return st.sum_all(x.shape)(x) / math.prod(x.shape)
    x = c.floating(x) if dtype is None else c.astype(x, dtype)
    total = sum(x, axis, None, out, keepdims, where=where)
    return total / _count(x, axis, "mean", where, keepdims)


def _count(x: Any, axis: Any, what: str, where: Any = True, keepdims: Any = False) -> Any:
    """How many entries each result adds up."""
    if where is c.NO_VALUE or where is True or where is None:
        return math.prod([x.shape[a] for a in c.axes_of(axis, len(x.shape), what)])
    (flags,) = c.strong((c.lift(where, x),))
    flags = flags if kind(dtype_of(flags)) == "b" else ew.not_equal(flags, 0)
    return sum(c.astype(c.broadcast(flags, tuple(x.shape)), _real(x) if kind(x.dtype) == "c" else x.dtype),
               axis, keepdims=keepdims)  # fmt: skip


def var(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0,
        keepdims: Any = False, *, where: Any = c.NO_VALUE, mean: Any = c.NO_VALUE,
        correction: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Variance; `ddof` (or `correction`) is subtracted from the count."""
    c.refuse("var", out=out)
    d, n = _deviations(x, axis, dtype, where, mean, "var")
    squares = ew.square(d) if kind(d.dtype) != "c" else real(conj(d) * d)
    free = _kept(n, x, axis, keepdims) - (ddof if correction is c.NO_VALUE else correction)
    return sum(squares, axis, keepdims=keepdims, where=where) / _not_negative(free)


def std(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0,
        keepdims: Any = False, *, where: Any = c.NO_VALUE, mean: Any = c.NO_VALUE,
        correction: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Standard deviation; its derivative where all entries agree is zero."""
    c.refuse("std", out=out)
    d, n = _deviations(x, axis, dtype, where, mean, "std")
    free = _kept(n, x, axis, keepdims) - (ddof if correction is c.NO_VALUE else correction)
    size = vector_norm(_masked(d, where, 0), axis=axis, keepdims=keepdims)
    free = _not_negative(free)
    return size / (math.sqrt(free) if type(free) in (int, float) else ew.sqrt(free))


def _deviations(x: Any, axis: Any, dtype: Any, where: Any, center: Any, what: str) -> tuple[Any, Any]:
    """The entries less their mean, and how many there are, reduced axes kept."""
    x = c.floating(x) if dtype is None else c.astype(x, dtype)
    n = _count(x, axis, what, where, True)
    if center is c.NO_VALUE:
        entries = n if isinstance(n, int) else ew.maximum(n, 1)  # where none is left, any center will do
        center = sum(x, axis, keepdims=True, where=where) / entries
    return x - center, n


def _kept(n: Any, x: Any, axis: Any, keepdims: Any) -> Any:
    """A count with or without the reduced axes."""
    if shape_of(n) == ():
        return n
    if keepdims and keepdims is not c.NO_VALUE:
        return n
    axes = c.axes_of(axis, len(x.shape), "var")
    return sh.reshape(n, tuple(m for i, m in enumerate(x.shape) if i - len(x.shape) not in axes))


def _not_negative(n: Any) -> Any:
    return float(n if n > 0 else 0) if type(n) in (int, float) else ew.maximum(n, 0)


def vector_norm(x: Any, *, axis: Any = None, keepdims: Any = False, ord: Any = 2) -> Any:
    """Norm of the entries along `axis` taken as one vector."""
    axes = c.axes_of(axis, len(x.shape), "norm")
    x = c.floating(x)
    if ord == 2:
        y = rd.reduction(rd.Norm, tuple(x.shape), axes)(x) if axes else absolute(x)
        return _keep(y, x, axes, keepdims)
    size = absolute(x)
    if ord == math.inf:
        return max(size, axis, keepdims=keepdims)
    if ord == -math.inf:
        return min(size, axis, keepdims=keepdims)
    if ord == 0:
        return sum(c.astype(ew.not_equal(x, 0), dtype_of(size)), axis, keepdims=keepdims)
    if ord == 1:
        return sum(size, axis, keepdims=keepdims)
    return ew.power(sum(ew.power(size, ord), axis, keepdims=keepdims), 1.0 / ord)


def _extreme(cls: type, what: str, x: Any, axis: Any, keepdims: Any) -> Any:
    axes = c.axes_of(axis, len(x.shape), what)
    for a in axes:
        if x.shape[a] == 0:
            raise ShapeError(f"{what}: shape {x.shape} has no entries along axis {a}")
    return _keep(rd.reduction(cls, tuple(x.shape), axes)(x) if axes else c.unshared(x), x, axes, keepdims)


def max(x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = c.NO_VALUE,
        where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Largest entry; ties share the derivative evenly."""
    c.refuse("max", out=out)
    return _limited(rd.Max, "max", ew.maximum, x, axis, keepdims, initial, where)


def min(x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = c.NO_VALUE,
        where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Smallest entry; ties share the derivative evenly."""
    c.refuse("min", out=out)
    return _limited(rd.Min, "min", ew.minimum, x, axis, keepdims, initial, where)


def _limited(cls: type, what: str, pair: Any, x: Any, axis: Any, keepdims: Any, initial: Any,
             where: Any) -> Any:  # fmt: skip
    """An extreme entry among those that `where` keeps, and `initial`."""
    if where is not c.NO_VALUE and where is not True:
        if initial is c.NO_VALUE:
            raise ArgumentError(f"{what}: where= needs initial=, the result where nothing is left")
        x = _masked(x, where, initial)
    if initial is not c.NO_VALUE and math.prod(x.shape) == 0:
        return sum(x, axis, keepdims=keepdims) + initial  # of zeros, or of no entries
    y = _extreme(cls, what, x, axis, keepdims)
    return y if initial is c.NO_VALUE else pair(y, initial)


def prod(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False,
         initial: Any = c.NO_VALUE, where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Product of entries, as a tree of products: exact derivatives of every order at zeros."""
    c.refuse("prod", out=out)
    x = _masked(c.counted(x) if dtype is None else c.astype(x, dtype), where, 1)
    axes = c.axes_of(axis, len(x.shape), "prod")
    rank = len(x.shape)
    kept = [a for a in range(-rank, 0) if a not in axes]
    flat = sh.transpose(x, (*kept, *axes)) if axes else sh.expand_dims(x, -1)
    n = math.prod(x.shape[a] for a in axes)
    y = _product_tree(sh.reshape(flat, (*(x.shape[a] for a in kept), n)), n)
    y = _keep(y, x, axes, keepdims)
    return y if initial is c.NO_VALUE else y * initial


def _product_tree(x: Any, n: int) -> Any:
    if n == 0:
        return sum(x, -1) + 1
    while n > 1:
        half = n // 2
        paired = ix.slice_of((n,), ((0, half, 1),))(x) * ix.slice_of((n,), ((half, 2 * half, 1),))(x)
        if n % 2:
            paired = sh.concatenate([paired, ix.slice_of((n,), ((n - 1, n, 1),))(x)], -1)
        x, n = paired, half + n % 2
    return c.unshared(sh.reshape(x, x.shape[:-1]))


def logsumexp(x: Any, axis: Any = None, b: Any = None, keepdims: Any = False,
              return_sign: bool = False) -> Any:  # fmt: skip
    """log(sum(exp(x))) without overflow."""
    if b is not None or return_sign:
        raise DispatchError("logsumexp: b= and return_sign= are not supported on traced arrays")
    x = c.floating(x)
    axes = c.axes_of(axis, len(x.shape), "logsumexp")
    if 0 in [x.shape[a] for a in axes]:
        return sum(x, axis, keepdims=keepdims) - math.inf  # the logarithm of no sum
    return _keep(rd.reduction(rd.LogSumExp, tuple(x.shape), axes)(x), x, axes, keepdims)


def _truth(cls: type, what: str, x: Any, axis: Any, out: Any, keepdims: Any, where: Any) -> Any:
    c.refuse(what, out=out)
    axes = c.axes_of(axis, len(x.shape), what)
    x = x if kind(x.dtype) == "b" else ew.not_equal(x, 0)
    x = _masked(x, where, cls is rd.AllOf)
    if not isinstance(x, Tracer):
        return (
            cls(tuple(x.shape), axes)(x)
            if not keepdims or keepdims is c.NO_VALUE
            else _keep(cls(tuple(x.shape), axes)(x), x, axes, keepdims)
        )
    return _keep(rd.reduction(cls, tuple(x.shape), axes)(x), x, axes, keepdims)


def any(x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *,
        where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Whether any entry is nonzero."""
    return _truth(rd.AnyOf, "any", x, axis, out, keepdims, where)


def all(x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *,
        where: Any = c.NO_VALUE) -> Any:  # fmt: skip
    """Whether all entries are nonzero."""
    return _truth(rd.AllOf, "all", x, axis, out, keepdims, where)


def _arg(cls: type, what: str, x: Any, axis: Any, out: Any, keepdims: Any) -> Any:
    c.refuse(what, out=out)
    source = x
    if axis is None:
        x, axis = sh.ravel(x), 0
    a = c.axis_of(axis, len(x.shape), what)
    if x.shape[a] == 0:
        raise ShapeError(f"{what}: shape {x.shape} has no entries along axis {a}")
    y = rd.reduction(cls, tuple(x.shape), (a,))(x)
    if keepdims and keepdims is not c.NO_VALUE:
        shape = (1,) * len(source.shape) if x is not source else x.shape[:a] + (1,) + x.shape[len(x.shape) + a + 1 :]
        y = sh.reshape(y, shape) if isinstance(y, Tracer) else np.reshape(y, shape)
    return y


def argmax(x: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    """Position of the first largest entry."""
    return _arg(rd.Argmax, "argmax", x, axis, out, keepdims)


def argmin(x: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    """Position of the first smallest entry."""
    return _arg(rd.Argmin, "argmin", x, axis, out, keepdims)


def count_nonzero(x: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    """Number of nonzero entries."""
    flags = ew.not_equal(x, 0)
    flags = flags if isinstance(flags, Tracer) else np.asarray(flags) if isinstance(flags, np.generic) else flags
    return sum(c.astype(flags, np.int64), axis, keepdims=keepdims)


def cumsum(x: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """Running sum (of the raveled array by default)."""
    c.refuse("cumsum", out=out)
    x = c.counted(x if dtype is None else c.astype(x, dtype))
    if axis is None:
        x, axis = sh.ravel(x), 0
    return running.cumsum(tuple(x.shape), c.axis_of(axis, len(x.shape), "cumsum"), False)(x)


def cumprod(x: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """Running product, by doubling steps: exact derivatives of every order at zeros."""
    c.refuse("cumprod", out=out)
    x = c.counted(x if dtype is None else c.astype(x, dtype))
    if axis is None:
        x, axis = sh.ravel(x), 0
    a = c.axis_of(axis, len(x.shape), "cumprod")
    n, step = x.shape[a], 1
    rest = tuple((0, m, 1) for m in x.shape[a:][1:])
    src = tuple(x.shape[a:])
    while step < n:  # y[i] holds the product of the last 2 step entries up to i
        head = ix.slice_of(src, ((0, step, 1), *rest))(x)
        tail = ix.slice_of(src, ((step, n, 1), *rest))(x)
        x = sh.concatenate([head, tail * ix.slice_of(src, ((0, n - step, 1), *rest))(x)], a)
        step *= 2
    return c.unshared(x)


def cumulative_prod(x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None,
                    include_initial: bool = False) -> Any:  # fmt: skip
    """Running product; with `include_initial` a one comes first."""
    a = _running_axis(x, axis, "cumulative_prod")
    y = cumprod(x, a, dtype, out)
    if not include_initial:
        return y
    widths = [(1, 0) if i - len(y.shape) == a else (0, 0) for i in range(len(y.shape))]
    return fill.bordered(y, widths, [(1, 1)] * len(widths))


def _running_axis(x: Any, axis: Any, what: str) -> int:
    if axis is None and len(x.shape) > 1:
        raise ArgumentError(f"{what}: axis is needed for an array of more than one axis")
    return c.axis_of(0 if axis is None else axis, len(x.shape), what)


def cumulative_sum(x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None,
                   include_initial: bool = False) -> Any:  # fmt: skip
    """Running sum; with `include_initial` a zero comes first."""
    a = _running_axis(x, axis, "cumulative_sum")
    y = cumsum(x, a, dtype, out)
    if not include_initial:
        return y
    return fill.bordered(y, [(1, 0) if i - len(y.shape) == a else (0, 0) for i in range(len(y.shape))])


def diff(x: Any, n: int = 1, axis: int = -1, prepend: Any = c.NO_VALUE, append: Any = c.NO_VALUE) -> Any:
    """Differences of neighbors along `axis`."""
    c.check_alive(x)
    if n < 0:
        raise ArgumentError(f"diff: n={n} is negative")
    a = c.axis_of(axis, len(x.shape), "diff")
    ends = [(v, first) for v, first in ((prepend, True), (append, False)) if v is not c.NO_VALUE]
    for v, first in ends:
        shape = x.shape[:a] + (1,) + x.shape[len(x.shape) + a + 1 :]
        v = c.strong((c.lift(v, x), x))[0]
        v = c.broadcast(v, shape) if v.shape == () else v
        x = sh.concatenate([v, x] if first else [x, v], a)
    for _ in range(n):
        m = x.shape[a]
        src = tuple(x.shape[a:])
        rest = tuple((0, k, 1) for k in src[1:])
        after, before = ((1, m, 1), *rest), ((0, m - 1, 1), *rest)
        change = ew.not_equal if kind(x.dtype) == "b" else ew.subtract
        x = change(ix.slice_of(src, after)(x), ix.slice_of(src, before)(x))
    return x


def absolute(x: Any) -> Any:
    """Absolute value or modulus."""
    return rd.COMPLEX_ABS(x) if kind(dtype_of(x)) == "c" else ew.absolute(x)


def conj(x: Any) -> Any:
    """Complex conjugate."""
    check_alive(x)
    return st.CONJ(x) if kind(dtype_of(x)) == "c" else x


def real(x: Any) -> Any:
    """Real part: a view of `x`, as in NumPy."""
    check_alive(x)
    if kind(dtype_of(x)) != "c":
        return x
    y = _real_part(x, None)
    if isinstance(x, Tracer):
        link(x, y, None, (_real_part, _with_real))
    return y


def imag(x: Any) -> Any:
    """Imaginary part: a view of a complex `x`, as in NumPy."""
    c.check_alive(x)
    if kind(dtype_of(x)) != "c":
        return zeros_like(x)
    y = _imaginary_part(x, None)
    if isinstance(x, Tracer):
        link(x, y, None, (_imaginary_part, _with_imaginary))
    return y


def _real_part(x: Any, how: None) -> Any:
    return st.real(dtype_of(x), _real(x))(x)


def _imaginary_part(x: Any, how: None) -> Any:
    return st.imag(dtype_of(x), _real(x))(x)


def _with_real(x: Any, how: None, part: Any) -> Any:
    return part + st.times_1j(_real(x), dtype_of(x))(_imaginary_part(x, None))


def _with_imaginary(x: Any, how: None, part: Any) -> Any:
    return _real_part(x, None) + st.times_1j(_real(x), dtype_of(x))(part)


def _real(x: Any) -> Any:
    dtype = dtype_of(x)
    if isinstance(dtype, np.dtype):
        return np.zeros((), dtype).real.dtype
    xp = backend_of(payload(x)).xp
    return xp.float64 if dtype == xp.complex128 else xp.float32


def nonzero(x: Any) -> tuple:
    """Positions of the nonzero entries: plain integers, found from the values."""
    return tuple(c.true_positions(c.deciding("nonzero", x)))


def ptp(x: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    """Largest minus smallest entry."""
    return max(x, axis, out, keepdims) - min(x, axis, out, keepdims)
