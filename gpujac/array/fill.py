"""Shapes, continued: repeating, padding, diagonals, triangles, coordinate matrices."""

import operator
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array.shape import moveaxis, ravel, reshape
from gpujac.array.views import viewing
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, kind
from gpujac.core.trace import Tracer, payload
from gpujac.errors import ArgumentError, ArgumentTypeError, DispatchError, ShapeError
from gpujac.ops import diagonal as dg
from gpujac.ops import elementwise as ew
from gpujac.ops import indexing as ix
from gpujac.ops import structure as st


def tile(x: Any, reps: Any) -> Any:
    """`x` repeated as a whole along each axis."""
    counts = tuple(operator.index(r) for r in (reps if isinstance(reps, (tuple, list)) else (reps,)))
    rank = max(len(counts), len(x.shape))
    counts = (1,) * (rank - len(counts)) + counts
    shape = (1,) * (rank - len(x.shape)) + tuple(x.shape)
    wide = reshape(x, tuple(m for n in shape for m in (1, n)))
    wide = c.broadcast(wide, tuple(m for r, n in zip(counts, shape, strict=True) for m in (r, n)))
    return c.unshared(reshape(wide, tuple(r * n for r, n in zip(counts, shape, strict=True))))


def repeat(x: Any, repeats: Any, axis: Any = None) -> Any:
    """Each entry of `x` repeated along `axis` (raveled by default)."""
    if isinstance(repeats, Tracer):
        raise ArgumentTypeError("repeat: the counts decide the shape and cannot be traced")
    if axis is None:
        x, axis = ravel(x), 0
    a = c.axis_of(axis, len(x.shape), "repeat")
    n = x.shape[a]
    counts = c.on_host(repeats)
    index = np.repeat(np.arange(n), counts if counts.ndim and counts.size == n else int(counts.ravel()[0]))
    return ix.take(n, -a - 1)(x, c.placed(index, x))


def _pad_widths(pad_width: Any, rank: int) -> list:
    if isinstance(pad_width, dict):
        full = [(0, 0)] * rank
        for axis, w in pad_width.items():
            full[axis] = (w, w) if isinstance(w, int) else tuple(w)
        return full
    return [tuple(int(n) for n in row) for row in np.broadcast_to(np.asarray(pad_width), (rank, 2))]


def pad(x: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0, **options: Any) -> Any:
    """`x` with a border of constants, or of its own entries (edge, wrap, reflect, symmetric)."""
    widths = _pad_widths(pad_width, len(x.shape))
    if any(n < 0 for row in widths for n in row):
        raise ArgumentError(f"pad: pad_width={pad_width} has negative entries")
    if mode in ("edge", "wrap", "reflect", "symmetric") and not options:
        return _repeated_border(x, widths, mode)
    if mode != "constant" or options:
        asked = ", ".join((f"mode={mode!r}", *options))
        raise DispatchError(
            f"pad: {asked} is not supported on traced arrays; use 'constant', 'edge', 'wrap', 'reflect' or 'symmetric'"
        )
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, widths, strict=True))
    key = tuple((a, a + n, 1) for n, (a, _) in zip(x.shape, widths, strict=True))
    padded = ix.pad(shape, key)(x)
    if isinstance(constant_values, (int, float, complex)) and constant_values == 0:
        return padded
    return _bordered(padded, key, shape, constant_values)


def _repeated_border(x: Any, widths: list, mode: str) -> Any:
    """A border of entries of `x`: one gather per axis, at the positions that NumPy pads with."""
    for i, (before, after) in enumerate(widths):
        if before or after:
            n = x.shape[i]
            positions = np.pad(np.arange(n), (before, after), mode)  # type: ignore[call-overload]  # mode is a str
            x = ix.take(n, len(x.shape) - 1 - i)(x, c.placed(positions, x))
    return c.unshared(x)


def _bordered(padded: Any, key: tuple, shape: tuple, values: Any) -> Any:
    """The padded array with constants in its border, axis after axis as NumPy fills it."""
    if not isinstance(values, Tracer) and np.ndim(values) > 0:
        pairs = [tuple(row) for row in np.broadcast_to(np.asarray(values), (len(shape), 2))]
    else:
        pairs = [(values, values)] * len(shape)
    index = np.zeros(shape, np.intp)  # 0: inside; 2 i + 1 and 2 i + 2: written by axis i
    for i, (start, stop, _) in enumerate(key):
        lane = np.moveaxis(index, i, 0)
        lane[:start], lane[stop:] = 2 * i + 1, 2 * i + 2
    for i, pair in enumerate(pairs):
        for side, value in enumerate(pair):
            mask = index == 2 * i + 1 + side
            if mask.any():
                padded = ew.where(_like_flags(mask, padded), _weak_value(value, padded), padded)
    return padded


def _weak_value(value: Any, x: Any) -> Any:
    return value if type(value) in (int, float, complex) else c.astype(value, x.dtype)


def _like_flags(mask: np.ndarray, x: Any) -> Any:
    """A plain mask as an array of the library of `x`."""
    target = payload(x)
    if target is None:  # recorded without values
        return mask
    be = backend_of(target)
    return be.asarray(mask, np.bool if isinstance(dtype_of(x), np.dtype) else be.xp.bool, target)


@viewing
def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonals of the matrices along two axes, as a new last axis."""
    rank = len(x.shape)
    if rank < 2:
        raise ShapeError(f"diagonal: an array of {rank} axes has no diagonal")
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    return dg.diagonal(tuple(x.shape[-2:]), max(0, -offset), max(0, offset))(x)


def diag(v: Any, k: int = 0) -> Any:
    """The diagonal of a matrix, or a matrix with a given diagonal."""
    if len(v.shape) == 2:
        return diagonal(v, k)
    n = v.shape[0] + abs(k)
    return dg.from_diagonal((n, n), max(0, -k), max(0, k), v.shape[0])(v)


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None,
          out: Any = None) -> Any:  # fmt: skip
    """The sum along the diagonals."""
    c.refuse("trace", out=out)
    d = diagonal(x, offset, axis1, axis2)
    d = d if dtype is None else c.astype(d, dtype)
    return st.sum_over(tuple(d.shape), (-1,))(d)


def _triangle(x: Any, keep: np.ndarray) -> Any:
    return ew.where(_like_flags(keep, x), x, False if kind(dtype_of(x)) == "b" else 0)


def _tri(x: Any, k: int) -> np.ndarray:
    """Where a matrix of the last two axes of `x` is on or below diagonal `k`."""
    rows, columns = tuple(x.shape[-2:]) if len(x.shape) > 1 else (x.shape[0], x.shape[0])
    return np.tri(rows, columns, k) != 0


def tril(x: Any, k: int = 0) -> Any:
    """The lower triangle, zeros above diagonal `k`."""
    return _triangle(x, _tri(x, k))


def triu(x: Any, k: int = 0) -> Any:
    """The upper triangle, zeros below diagonal `k`."""
    return _triangle(x, ~_tri(x, k - 1))


def meshgrid(*xi: Any, indexing: str = "xy", sparse: bool = False, copy: bool = True) -> tuple:
    """Coordinate matrices from coordinate vectors."""
    rank = len(xi)
    swap = indexing == "xy" and rank > 1
    shapes = []
    for i in range(rank):
        at = {0: 1, 1: 0}.get(i, i) if swap else i
        shapes.append(tuple(-1 if j == at else 1 for j in range(rank)))
    parts = [reshape(c.lift(x), s) for x, s in zip(xi, shapes, strict=True)]
    if copy:
        parts = [c.unshared(p) for p in parts]
    if sparse:
        return tuple(parts)
    full = c.broadcast_shapes(*(p.shape for p in parts))
    return tuple(c.broadcast(p, full) for p in parts)
