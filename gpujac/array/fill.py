"""Shapes, continued: repeating, constants around an array, diagonals, triangles, coordinate matrices."""

import operator
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array.shape import concatenate, moveaxis, ravel, reshape
from gpujac.array.views import viewing
from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.backends.host import SCALARS
from gpujac.core.aval import dtype_of, kind
from gpujac.core.trace import Tracer, payload
from gpujac.errors import ArgumentTypeError, ShapeError
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


def bordered(x: Any, widths: Any, values: Any = None) -> Any:
    """`x` with constants around it, zeros by default; a negative width crops.

    `widths`: (before, after) per axis; `values`: pairs like it. Corners belong to the later axis.
    """
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, widths, strict=True))
    x = _cropped(x, widths)
    widths = [(max(a, 0), max(b, 0)) for a, b in widths]
    if values is None or all([_is_zero(v) for pair in values for v in pair]):
        key = tuple((a, a + n, 1) for n, (a, _) in zip(x.shape, widths, strict=True))
        return ix.pad(shape, key)(x) if tuple(x.shape) != shape else x
    for axis, (pair, ends) in enumerate(zip(widths, values, strict=True)):
        sides = [_block(v, x, axis, n) if n else None for v, n in zip(ends, pair, strict=True)]
        x = joined(sides[0], x, sides[1], axis)
    return x


def joined(before: Any, x: Any, after: Any, axis: int) -> Any:
    """`x` between two arrays along an axis, either of which may be None."""
    parts = [p for p in (before, x, after) if p is not None]
    return concatenate(parts, axis) if len(parts) > 1 else x


def _cropped(x: Any, widths: Any) -> Any:
    """`x` without the entries that negative widths take away."""
    if all([n >= 0 for pair in widths for n in pair]):
        return x
    key = tuple((max(-a, 0), n - max(-b, 0), 1) for n, (a, b) in zip(x.shape, widths, strict=True))
    return ix.slice_of(tuple(x.shape), key)(x)


def _is_zero(value: Any) -> bool:
    return type(value) in SCALARS and value == 0


def _block(value: Any, x: Any, axis: int, width: int) -> Any:
    """`value` in the shape of `x` but for `width` entries along an axis."""
    target = payload(x)
    if type(value) not in SCALARS:
        value = c.astype(value, x.dtype)
    elif target is None or type(target) in HOST_TYPES:
        value = np.asarray(value, x.dtype)
    else:
        value = backend_of(target).asarray(value, x.dtype, target)
    shape = list(x.shape)
    shape[axis] = width
    return c.broadcast(value, tuple(shape))


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
    parts = [reshape(x, s) for x, s in zip(c.arrays(*xi), shapes, strict=True)]
    if copy:
        parts = [c.unshared(p) for p in parts]
    if sparse:
        return tuple(parts)
    full = c.broadcast_shapes(*(p.shape for p in parts))
    return tuple(c.broadcast(p, full) for p in parts)
