"""One table of names: NumPy's function or ufunc name -> the function that serves traced arrays."""

from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import (
    compose,
    create,
    factor,
    fill,
    indexing,
    linalg,
    lookup,
    order,
    padding,
    reduce,
    series,
    shape,
    special,
    statistics,
)
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.op import POINTWISE
from gpujac.core.trace import Tracer, concrete, payload
from gpujac.errors import ArgumentError, ArgumentTypeError, DispatchError
from gpujac.ops import elementwise as ew
from gpujac.ops.batching import hold
from gpujac.ops.elementwise import POINTWISE_ALIASES


def where(condition: Any, x: Any = None, y: Any = None, /) -> Any:
    """`x` where the condition holds, else `y`; with one argument the positions where it holds."""
    if x is None and y is None:
        return reduce.nonzero(condition)
    if x is None or y is None:
        raise ArgumentTypeError("where: give both x and y, or neither")
    condition, x, y = c.together(condition, x, y)
    flag = condition if kind(dtype_of(condition)) == "b" else ew.not_equal(condition, 0)
    return ew.where(flag, x, y)


def clip(x: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None,
         max: Any = None) -> Any:  # fmt: skip
    """`x` limited to [a_min, a_max]; the derivative passes inside the closed interval."""
    c.refuse("clip", out=out)
    low = a_min if min is None or min is c.NO_VALUE else min
    high = a_max if max is None or max is c.NO_VALUE else max
    low, high = (None if v is c.NO_VALUE else v for v in (low, high))
    x, low, high = c.together(x, low, high)
    if low is None and high is None:
        return c.unshared(x)
    if kind(dtype_of(x)) in "iu" and (low is None or high is None):
        return ew.minimum(x, high) if low is None else ew.maximum(x, low)
    low = -np.inf if low is None else low
    high = np.inf if high is None else high
    if shape_of(low) or shape_of(high) or isinstance(low, Tracer) or isinstance(high, Tracer):
        x = c.astype(x, c.common_dtype(x, low, high))
    return ew.clip(x, low, high)


def conj(x: Any) -> Any:
    """Complex conjugate, a copy."""
    return c.unshared(reduce.conj(x))


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """The values in another dtype."""
    y = c.astype(x, dtype)
    return c.unshared(y) if copy and y is x else y


def sign(x: Any) -> Any:
    """-1, 0 or 1; z/|z| for complex numbers."""
    if kind(dtype_of(x)) != "c":
        return ew.sign(x)
    size = reduce.absolute(x)
    zero = ew.equal(size, 0)
    return ew.where(zero, 0, x / ew.where(zero, 1, size))


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether entries agree within tolerances."""
    near = ew.less_equal(reduce.absolute(a - b), atol + rtol * reduce.absolute(b))
    near = ew.logical_or(near, ew.equal(a, b))
    return ew.logical_or(near, ew.logical_and(ew.isnan(a), ew.isnan(b))) if equal_nan else near


def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all entries agree within tolerances."""
    return bool(backend_of(concrete(a)).xp.all(isclose(concrete(a), concrete(b), rtol, atol, equal_nan)))


def array_equal(a: Any, b: Any, equal_nan: bool = False) -> bool:
    """Whether shapes and values are the same."""
    if shape_of(a) != shape_of(b):
        return False
    same = ew.equal(a, b)
    if equal_nan:
        same = ew.logical_or(same, ew.logical_and(ew.isnan(a), ew.isnan(b)))
    same = concrete(same)
    return bool(backend_of(same).xp.all(same))


def nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """`x` with NaN and infinities replaced (derivative zero there)."""
    if not copy:
        raise DispatchError("nan_to_num: copy=False is not supported on traced arrays; assign the result")
    limits = backend_of(payload(x)).xp.finfo(x.dtype)
    x = ew.where(ew.isnan(x), nan, x)
    x = ew.where(ew.equal(x, np.inf), limits.max if posinf is None else posinf, x)
    return ew.where(ew.equal(x, -np.inf), limits.min if neginf is None else neginf, x)


def round(x: Any, decimals: int = 0, out: Any = None) -> Any:
    """Nearest even value; the derivative is zero."""
    c.refuse("round", out=out)
    if kind(dtype_of(x)) in "iu" and decimals >= 0:
        return c.unshared(x)
    return ew.rint(x) if decimals == 0 else ew.rint(x * 10.0**decimals) / 10.0**decimals


def real_if_close(x: Any, tol: float = 100) -> Any:
    """The real part of `x` where every imaginary part is close to zero, else `x`."""
    c.check_alive(x)
    if kind(dtype_of(x)) != "c":
        return x
    limit = tol * np.finfo(x.dtype).eps if tol > 1 else tol
    close = concrete(reduce.all(ew.less(ew.absolute(reduce.imag(x)), limit)))
    return reduce.real(x) if close else x


def _inexact(x: Any) -> Any:
    """`x` in the floating dtype in which NumPy's elementwise functions take its integers."""
    dtype = dtype_of(x)
    if kind(dtype) in "fc" or not isinstance(dtype, np.dtype):
        return x
    return c.astype(x, np.sqrt(np.zeros((), dtype)).dtype)


def fabs(x: Any) -> Any:
    """Absolute value in a floating dtype."""
    return ew.absolute(_inexact(x))


def degrees(x: Any) -> Any:
    """Radians as degrees."""
    return _inexact(x) * (180.0 / np.pi)


def radians(x: Any) -> Any:
    """Degrees as radians."""
    return _inexact(x) * (np.pi / 180.0)


def angle(z: Any, deg: bool = False) -> Any:
    """Argument of complex numbers."""
    a = ew.arctan2(reduce.imag(z), reduce.real(z))
    return degrees(a) if deg else a


def average(x: Any, axis: Any = None, weights: Any = None, returned: bool = False, *,
            keepdims: Any = False) -> Any:  # fmt: skip
    """Mean, weighted if weights of the shape of `x` or of its axis are given."""
    x = c.floating(x)
    if weights is None:
        y = reduce.mean(x, axis, keepdims=keepdims)
        total = y * 0 + x.size / max(y.size, 1) if returned else None
        return (y, total) if returned else y
    weights = c.lift(weights, x)
    if shape_of(weights) != x.shape and len(shape_of(weights)) == 1 and axis is not None:
        at = c.axis_of(axis, len(x.shape), "average")
        weights = shape.reshape(weights, (-1,) + (1,) * (-1 - at))
    total = reduce.sum(c.broadcast(weights, x.shape), axis, keepdims=keepdims)
    if payload(total) is not None and not hold(ew.not_equal(total, 0)):
        raise ArgumentError(f"average: weights of shape {shape_of(weights)} add up to zero, which no mean has")
    y = reduce.sum(x * weights, axis, keepdims=keepdims) / total
    return (y, total) if returned else y


def flatnonzero(x: Any) -> Any:
    """Positions of the nonzero entries in the raveled array."""
    return reduce.nonzero(shape.ravel(x))[0]


def argwhere(x: Any) -> Any:
    """Positions of the nonzero entries, one row per entry."""
    return shape.stack(reduce.nonzero(shape.atleast_1d(x)), 1)[:, : len(x.shape)]


def shares_memory(a: Any, b: Any, /, max_work: Any = None) -> bool:
    """Whether writes into one can reach the other: both are views of one traced array."""
    return isinstance(a, Tracer) and isinstance(b, Tracer) and _root(a) is _root(b)


def _root(x: Tracer) -> Tracer:
    while x.origin is not None:
        x = x.origin[0]
    return x


def _info(name: str) -> Any:
    def answer(*args: Any, **kwargs: Any) -> Any:
        plain = [_Empty(a) if isinstance(a, Tracer) else a for a in args]
        return getattr(np, name)(*(p.array if isinstance(p, _Empty) else p for p in plain), **kwargs)

    answer.__name__ = name
    answer.__doc__ = f"NumPy's {name}, asked of shape and dtype alone."
    return answer


class _Empty:
    """A plain array with the shape and dtype of a traced one and no data."""

    def __init__(self, x: Tracer) -> None:
        name = x.dtype if isinstance(x.dtype, np.dtype) else str(x.dtype).rpartition(".")[2]  # of other libraries
        self.array = np.broadcast_to(np.zeros((), name), x.shape)


def _from_module(module: Any, names: str) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names.split()}


TABLE: dict[str, Any] = {
    **{name: op for name, op in POINTWISE.items() if name not in ("guarded", "logistic", *special.NAMES)},
    **{alias: POINTWISE[name] for alias, name in POINTWISE_ALIASES.items()},
    **_from_module(shape, """reshape ravel transpose matrix_transpose swapaxes moveaxis squeeze expand_dims
        broadcast_to broadcast_arrays concatenate stack vstack hstack column_stack atleast_1d atleast_2d atleast_3d
        array_split split unstack flip roll"""),
    **_from_module(fill, "tile repeat diagonal diag trace tril triu meshgrid"),
    "pad": padding.pad,
    **_from_module(reduce, """sum mean var std max min prod any all argmax argmin count_nonzero cumsum
        cumulative_sum cumprod cumulative_prod diff absolute conj real imag nonzero ptp"""),
    **_from_module(indexing, "take take_along_axis"),
    **_from_module(lookup, "interp searchsorted quantile percentile"),
    **_from_module(series, "gradient convolve bincount polyval"),
    **_from_module(statistics, """cov corrcoef nanvar nanstd nanprod nancumsum nancumprod nanquantile nanpercentile
        nanmedian correlate unwrap digitize vander"""),
    **_from_module(order, "argsort argpartition sort partition median copyto putmask put put_along_axis fill_diagonal"),
    **_from_module(linalg, "matmul dot vecdot vdot inner outer tensordot einsum cross"),
    **_from_module(create, """zeros_like ones_like empty_like full_like copy asarray ascontiguousarray array full
        linspace"""),
    **_from_module(compose, """float_power heaviside logaddexp2 divmod modf select nansum nanmean nanmax
        nanmin trapezoid ediff1d dstack append block hsplit vsplit dsplit fliplr flipud rot90 rollaxis
        diagflat delete compress extract kron"""),
    **{f.__name__: f for f in (where, clip, sign, fabs, isclose, allclose, array_equal, nan_to_num, round,
                               degrees, radians, angle, average, flatnonzero, argwhere, real_if_close)},
    **{name: _info(name) for name in """shape ndim size isscalar result_type can_cast iscomplexobj
        isrealobj""".split()},
    "may_share_memory": shares_memory,
    "shares_memory": shares_memory,
    "asanyarray": create.asarray,
    "astype": astype,
    "abs": reduce.absolute,
    "conj": conj,
    "conjugate": conj,
    "fix": ew.trunc,
    "amax": reduce.max,
    "amin": reduce.min,
    "around": round,
    "deg2rad": radians,
    "rad2deg": degrees,
    "permute_dims": shape.transpose,
    "concat": shape.concatenate,
}  # fmt: skip
LINALG: dict[str, Any] = {
    **_from_module(compose, "matrix_power multi_dot"),
    **_from_module(linalg, "solve inv norm matrix_norm matmul outer tensordot vecdot cross"),
    **_from_module(factor, "det slogdet cholesky eigh eigvalsh svd svdvals qr pinv lstsq cond"),
    "vector_norm": lambda x, /, *, axis=None, keepdims=False, ord=2: reduce.vector_norm(
        x, axis=axis, keepdims=keepdims, ord=ord
    ),
    "matrix_transpose": shape.matrix_transpose,
    "diagonal": lambda x, /, *, offset=0: fill.diagonal(x, offset, -2, -1),
    "trace": lambda x, /, *, offset=0, dtype=None: fill.trace(x, offset, -2, -1, dtype),
}
SCIPY: dict[str, Any] = {
    **{name: POINTWISE[name] for name in special.NAMES},
    **_from_module(special, "softmax log_softmax psi polygamma zeta"),
    "logsumexp": reduce.logsumexp,
    "expit": ew.logistic,
    "logistic": ew.logistic,
}
