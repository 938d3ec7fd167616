"""Shapes: reshape, transpose, squeeze, broadcast, join, split, flip, roll."""

import math
import operator
from functools import wraps
from itertools import pairwise
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array.views import layout, read_only, viewing, viewing_where_shared
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.trace import Tracer
from gpujac.errors import ArgumentError, AxisError, ShapeError
from gpujac.ops import indexing as ix
from gpujac.ops import join
from gpujac.ops import structure as st


def _new_shape(old: tuple, shape: Any) -> tuple:
    several = isinstance(shape, (tuple, list)) or (isinstance(shape, np.ndarray) and shape.ndim)
    new = tuple(operator.index(n) for n in (shape if several else (shape,)))
    total = math.prod(old)
    if -1 in new:
        known = math.prod(n for n in new if n != -1)
        if new.count(-1) > 1 or known == 0 or total % known:
            raise ShapeError(f"reshape: cannot turn shape {old} into {new}")
        new = tuple(total // known if n == -1 else n for n in new)
    if math.prod(new) != total:
        raise ShapeError(f"reshape: cannot turn shape {old} ({total} entries) into {new}")
    return new


@viewing_where_shared
def reshape(x: Any, shape: Any = None, order: str = "C", *, newshape: Any = None,
            copy: bool | None = None) -> Any:  # fmt: skip
    """The entries of `x` under another shape."""
    shape = newshape if shape is None else shape
    if order != "C" and _order(x, order) == "F":
        new = _new_shape(x.shape, shape)
        return transpose(reshape(transpose(x), new[::-1]))
    new = _new_shape(x.shape, shape)
    return st.reshape(tuple(x.shape), new)(x) if new != x.shape else x


def ravel(x: Any, order: str = "C") -> Any:
    """`x` as one axis; a copy unless the entries follow each other in memory already."""
    order = order if order == "C" else _order(x, order)
    shape = (-1,) if x.shape != () else (1,)
    have = layout(x) if isinstance(x, Tracer) else None
    if have is None or (have.flags.c_contiguous if order == "C" else have.flags.f_contiguous):
        return reshape(x, shape, order)
    return c.unshared(reshape(x, shape, order))


def _order(x: Any, order: str) -> str:
    """The order "C" or "F" that is meant; "A" and "K" ask how `x` lies in memory."""
    if order not in ("C", "F", "A", "K"):
        raise ArgumentError(f"reshape: order={order!r} is not one of 'C', 'F', 'A'")
    if order in ("C", "F") or len(x.shape) < 2:
        return "F" if order == "F" else "C"
    have = layout(x) if isinstance(x, Tracer) else x
    flags = getattr(have, "flags", None)
    if flags is None or flags.c_contiguous:
        return "C"
    if flags.f_contiguous:
        return "F"
    steps = [abs(step) for step in have.strides]
    if order == "A" or steps == sorted(steps, reverse=True):
        return "C"
    if steps == sorted(steps):
        return "F"
    raise ArgumentError(
        f"ravel: order='K' of an array of shape {tuple(x.shape)} whose axes lie in memory in another order "
        "than 'C' or 'F'; name one of those"
    )


@viewing
def transpose(x: Any, axes: Any = None) -> Any:
    """`x` with its axes reordered (reversed by default)."""
    rank = len(x.shape)
    if axes is None:
        order = tuple(range(-1, -rank - 1, -1))
    else:
        order = tuple(c.axis_of(a, rank, "transpose") for a in axes)
        if sorted(order) != list(range(-rank, 0)):
            raise AxisError(f"transpose: axes={tuple(axes)} is no permutation of {rank} axes")
    return _permute(x, order)


def _permute(x: Any, order: tuple) -> Any:
    rank = len(order)
    fixed = 0
    while fixed < rank and order[fixed] == fixed - rank:
        fixed += 1
    if fixed == rank:
        return x
    return st.permute(tuple(x.shape[fixed:]), order[fixed:])(x)


@viewing
def matrix_transpose(x: Any, /) -> Any:
    """`x` with its last two axes swapped."""
    return swapaxes(x, -1, -2)


@viewing
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """`x` with two axes exchanged."""
    rank = len(x.shape)
    a, b = c.axis_of(axis1, rank, "swapaxes"), c.axis_of(axis2, rank, "swapaxes")
    order = list(range(-rank, 0))
    order[a], order[b] = order[b], order[a]
    return _permute(x, tuple(order))


@viewing
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """`x` with axes moved to new positions."""
    rank = len(x.shape)
    src = [c.axis_of(a, rank, "moveaxis") for a in (source if isinstance(source, (tuple, list)) else [source])]
    dst = [
        c.axis_of(a, rank, "moveaxis")
        for a in (destination if isinstance(destination, (tuple, list)) else [destination])
    ]
    if len(src) != len(dst):
        raise AxisError(f"moveaxis: {len(src)} source axes but {len(dst)} destinations")
    order = [a for a in range(-rank, 0) if a not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d + rank, s)
    return _permute(x, tuple(order))


@viewing
def squeeze(x: Any, axis: Any = None) -> Any:
    """`x` without axes of length one."""
    shape, rank = x.shape, len(x.shape)
    axes = [i - rank for i, n in enumerate(shape) if n == 1] if axis is None else c.axes_of(axis, rank, "squeeze")
    for a in axes:
        if shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} of shape {shape} has length {shape[a]}, not 1")
    return reshape(x, tuple(n for i, n in enumerate(shape) if i - rank not in axes))


@viewing
def expand_dims(x: Any, axis: Any) -> Any:
    """`x` with new axes of length one."""
    new = axis if isinstance(axis, (tuple, list)) else (axis,)
    rank = len(x.shape) + len(new)
    at = {c.axis_of(a, rank, "expand_dims") for a in new}
    rest = iter(x.shape)
    return reshape(x, tuple(1 if i - rank in at else next(rest) for i in range(rank)))


@read_only
def broadcast_to(x: Any, shape: Any, subok: bool = False) -> Any:
    """`x` repeated to `shape` by NumPy's rule."""
    new = tuple(shape) if isinstance(shape, (tuple, list)) else (operator.index(shape),)
    have = tuple(shape_of(x))
    fits = len(have) <= len(new) and all(m in (1, n) for m, n in zip(have[::-1], new[::-1], strict=False))
    if not fits:
        raise ShapeError(f"broadcast_to: shape {have} does not broadcast to {new}")
    return c.broadcast(x, new)


def broadcast_arrays(*xs: Any, subok: bool = False) -> tuple:
    """All operands broadcast to one shape."""
    arrays = c.strong(c.together(*xs))
    shape = c.broadcast_shapes(*(shape_of(x) for x in arrays))
    if all([shape_of(x) == shape for x in arrays]):
        return tuple(arrays)
    return tuple(broadcast_to(x, shape) for x in arrays)


def _sequence(arrays: Any, what: str) -> list:
    if isinstance(arrays, Tracer):
        arrays = unstack(arrays)
    xs = list(arrays)
    if not xs:
        raise ArgumentError(f"{what}: need at least one array")
    dtype = getattr(xs[0], "dtype", None)
    if dtype is not None and all([getattr(x, "dtype", None) is dtype for x in xs]):
        return xs  # what nearly every call passes: nothing to promote
    xs = list(c.together(*xs))
    return c.strong(c.promoted(*xs)) if len(xs) > 1 else xs


def _cast(what: str, x: Any, dtype: Any, casting: str) -> Any:
    c.check_casting(what, dtype_of(x), dtype, casting)
    return c.astype(x, dtype)


def concatenate(arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None,
                casting: str = "same_kind") -> Any:  # fmt: skip
    """Arrays one after another along `axis` (None: raveled)."""
    c.refuse("concatenate", out=out)
    xs = _sequence(arrays, "concatenate")
    if axis is None:
        xs, axis = [ravel(x) for x in xs], 0
    if dtype is not None:
        xs = [_cast("concatenate", x, dtype, casting) for x in xs]
    rank = len(shape_of(xs[0]))
    if rank == 0:
        raise ShapeError("concatenate: zero-dimensional arrays cannot be joined; use stack")
    a = c.axis_of(axis, rank, "concatenate")
    shapes = tuple(tuple(shape_of(x)) for x in xs)
    for s in shapes:
        if len(s) != rank or any(m != n for i, (m, n) in enumerate(zip(s, shapes[0], strict=True)) if i - rank != a):
            raise ShapeError(f"concatenate: shapes {list(shapes)} differ outside axis {a + rank}")
    if len(xs) == 1:
        return c.unshared(xs[0])
    return join.concat(shapes, a)(*xs)


def stack(arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None,
          casting: str = "same_kind") -> Any:  # fmt: skip
    """Arrays of one shape along a new axis."""
    if out is not None:
        c.refuse("stack", out=out)
    xs = _sequence(arrays, "stack")
    if dtype is not None:
        xs = [_cast("stack", x, dtype, casting) for x in xs]
    src = tuple(shape_of(xs[0]))
    for x in xs:
        if x.shape != src:
            raise ShapeError(f"stack: all arrays need one shape, found {src} and {shape_of(x)}")
    a = c.axis_of(axis, len(src) + 1, "stack")
    at = len(src) + 1 + a
    return join.stack(src[at:], a, len(xs))(*xs)


def vstack(tup: Any, **kwargs: Any) -> Any:
    """Rows on top of each other."""
    return concatenate([atleast_2d(x) for x in tup], 0, **kwargs)


def hstack(tup: Any, **kwargs: Any) -> Any:
    """Arrays side by side."""
    xs = [atleast_1d(x) for x in tup]
    return concatenate(xs, 0 if len(shape_of(xs[0])) == 1 else 1, **kwargs)


def column_stack(tup: Any) -> Any:
    """1-d arrays as columns."""
    xs = [x if len(shape_of(x)) > 1 else reshape(x, (-1, 1)) for x in map(c.lift, tup)]
    return concatenate(xs, 1)


def _each(function: Any) -> Any:
    """A function of one array as one of several, which gives a tuple."""

    @wraps(function)
    def of_all(*xs: Any) -> Any:
        results = tuple(function(c.strong([c.lift(x)])[0]) for x in xs)
        return results[0] if len(results) == 1 else results

    return of_all


@_each
def atleast_1d(x: Any) -> Any:
    """`x` with at least one axis."""
    return reshape(x, (1,)) if x.shape == () else x


@_each
def atleast_2d(x: Any) -> Any:
    """`x` with at least two axes."""
    return reshape(x, (1,) * (2 - len(x.shape)) + tuple(x.shape)) if len(x.shape) < 2 else x


@_each
def atleast_3d(x: Any) -> Any:
    """`x` with at least three axes; a matrix gets its new axis last, a vector one on each side."""
    if len(x.shape) < 3:
        shape = (1, *x.shape, 1) if len(x.shape) == 1 else (*x.shape, *(1,) * (3 - len(x.shape)))
        return reshape(x, shape)
    return x


def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> list:
    """`x` cut into parts, nearly equal ones for a number of sections."""
    n = x.shape[c.axis_of(axis, len(x.shape), "array_split")]
    if isinstance(indices_or_sections, (tuple, list, np.ndarray)):
        bounds = [slice(None).indices(n)[0], *(slice(0, int(i)).indices(n)[1] for i in indices_or_sections), n]
    else:
        parts = operator.index(indices_or_sections)
        if parts < 1:
            raise ArgumentError(f"split: {parts} sections; use at least 1")
        size, extra = divmod(n, parts)
        bounds = [0]
        for i in range(parts):
            bounds.append(bounds[-1] + size + (i < extra))
    return [_cut(x, a, b, axis) for a, b in pairwise(bounds)]


@viewing
def _cut(x: Any, start: int, stop: int, axis: int) -> Any:
    a = c.axis_of(axis, len(x.shape), "split")
    src = tuple(x.shape[a:])
    key = ((start, max(start, stop), 1), *((0, n, 1) for n in src[1:]))
    return ix.slice_of(src, key)(x)


def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list:
    """`x` cut into equal parts or at the given positions."""
    if not isinstance(indices_or_sections, (tuple, list, np.ndarray)):
        n = x.shape[c.axis_of(axis, len(x.shape), "split")]
        if n % operator.index(indices_or_sections):
            raise ShapeError(f"split: length {n} is not divisible into {indices_or_sections} equal parts")
    return array_split(x, indices_or_sections, axis)


def unstack(x: Any, /, *, axis: int = 0) -> tuple:
    """The slices of `x` along `axis`."""
    a = c.axis_of(axis, len(x.shape), "unstack")
    parts = [_cut(x, i, i + 1, a) for i in range(x.shape[a])]
    return tuple(squeeze(p, a) for p in parts)


@viewing
def flip(x: Any, axis: Any = None) -> Any:
    """`x` reversed along `axis` (all axes by default)."""
    axes = c.axes_of(axis, len(x.shape), "flip")
    return st.flip(tuple(x.shape), axes)(x) if axes else x


def roll(x: Any, shift: Any, axis: Any = None) -> Any:
    """`x` shifted cyclically."""
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), x.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(axes) == 1:
        axes = axes * len(shifts)
    if len(shifts) != len(axes):
        raise ShapeError(f"roll: {len(shifts)} shifts for {len(axes)} axes")
    at = tuple(c.axis_of(a, len(x.shape), "roll") for a in axes)
    return st.roll(tuple(x.shape), tuple(operator.index(s) for s in shifts), at)(x)
