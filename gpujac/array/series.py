"""Functions of sequences along one axis: gradient, convolve, bincount, polyval, windows."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import linalg, reduce, shape
from gpujac.array.padding import pad, sliding_window_view
from gpujac.backends.choose import backend_of
from gpujac.core.aval import kind, shape_of
from gpujac.core.trace import concrete
from gpujac.errors import ArgumentError, DispatchError, ShapeError
from gpujac.ops import indexing as ix


def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Central differences inside and one-sided ones at both ends, along each axis."""
    if edge_order != 1:
        raise DispatchError("gradient: edge_order=2 is not supported on traced arrays; use 1")
    f = c.floating(f)
    axes = c.axes_of(axis, len(f.shape), "gradient")
    spacings = varargs if len(varargs) == len(axes) else (varargs or (1.0,)) * len(axes)
    if len(spacings) != len(axes):
        raise ArgumentError(f"gradient: {len(varargs)} spacings for {len(axes)} axes")
    slopes = [_slope(f, c.lift(h, f), a) for h, a in zip(spacings, axes, strict=True)]
    return slopes[0] if len(axes) == 1 and (axis is not None or len(f.shape) == 1) else tuple(slopes)


def _slope(f: Any, h: Any, axis: int) -> Any:
    n = f.shape[axis]
    if n < 2:
        raise ShapeError(f"gradient: shape {tuple(f.shape)} has fewer than 2 entries along axis {axis}")
    y = shape.moveaxis(f, axis, -1)
    steps = reduce.diff(y) / (reduce.diff(h) if shape_of(h) else h)
    ends = steps[..., :1], steps[..., -1:]
    if shape_of(h):  # second-order weights for uneven spacing
        left, right = reduce.diff(h)[:-1], reduce.diff(h)[1:]
        inner = (steps[..., :-1] * right + steps[..., 1:] * left) / (left + right)
    else:
        inner = (y[..., 2:] - y[..., :-2]) / (2.0 * h)
    return shape.moveaxis(shape.concatenate([ends[0], inner, ends[1]], -1), -1, axis)


def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    """Discrete convolution of two vectors."""
    a, v = c.together(a, v)
    if len(shape_of(a)) != 1 or len(shape_of(v)) != 1 or 0 in (a.shape[0], v.shape[0]):
        raise ShapeError(f"convolve: needs two vectors that are not empty, found {shape_of(a)} and {shape_of(v)}")
    if a.shape[0] < v.shape[0]:
        a, v = v, a
    m = v.shape[0]
    if mode not in ("full", "same", "valid"):
        raise ArgumentError(f"convolve: mode={mode!r} is not one of 'full', 'same', 'valid'")
    before = {"full": m - 1, "same": m // 2, "valid": 0}[mode]
    after = {"full": m - 1, "same": (m - 1) // 2, "valid": 0}[mode]
    return linalg.matmul(sliding_window_view(pad(a, (before, after)), m), shape.flip(v))


def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """Sums of the weights by plain integer labels."""
    labels = concrete(c.lift(x))
    xp = backend_of(labels).xp
    if weights is None:
        return xp.bincount(labels, minlength=minlength)
    weights = c.floating(c.lift(weights, labels))
    if kind(weights.dtype) == "f" and isinstance(weights.dtype, np.dtype):
        weights = c.astype(weights, np.float64)
    if shape_of(weights) != labels.shape or labels.ndim != 1:
        raise ShapeError(
            f"bincount: labels {labels.shape} and weights {shape_of(weights)} must be vectors of one length"
        )
    least, most = (int(xp.min(labels)), int(xp.max(labels))) if shape_of(labels) != (0,) else (0, -1)
    if least < 0:
        raise ArgumentError(f"bincount: label {least} is negative")
    size = max(most + 1, minlength)
    return ix.scatter_add(size, 0, 1)(weights, labels)


def polyval(p: Any, x: Any) -> Any:
    """The polynomial with coefficients `p`, highest power first, at `x`."""
    p, y = c.lift(p, x), 0.0
    for i in range(shape_of(p)[0]):
        y = y * x + p[i]
    return y


class Joiner:
    """NumPy's `r_` and `c_`, which join traced arrays too."""

    def __init__(self, plain: Any, columns: bool, place: Callable | None = None) -> None:
        """`place` puts traced numbers onto the device of the library, if it has one."""
        self.plain, self.columns, self.place = plain, columns, place

    def __getitem__(self, key: Any) -> Any:
        items = key if isinstance(key, tuple) else (key,)
        if not any(c.holds_tracer(x) for x in items):
            return self.plain[key]
        items = tuple(self._plain(x) for x in items)
        items = items if self.place is None else tuple(self.place(x) for x in items)
        parts = [self._part(x) for x in c.strong(c.together(*items))]
        return shape.concatenate(parts, -1 if self.columns else 0)

    def _plain(self, x: Any) -> Any:
        """An item of the brackets, a slice as the array that it stands for."""
        if isinstance(x, str):
            raise DispatchError(f"r_[{x!r}, ...]: the axis strings are not supported on traced arrays")
        return self.plain[x] if isinstance(x, slice) else x

    def _part(self, x: Any) -> Any:
        x = shape.atleast_1d(x)
        return shape.reshape(x, (-1, 1)) if self.columns and len(x.shape) == 1 else x

    def __len__(self) -> int:
        return 0
