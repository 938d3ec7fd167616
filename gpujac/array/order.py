"""Sorting, and functions that write into their first argument."""

import math
import operator
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import indexing, reduce, shape
from gpujac.backends.choose import HOST_TYPES
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.trace import Tracer, concrete
from gpujac.errors import ArgumentError, DTypeError, MutationError, ShapeError
from gpujac.ops import elementwise as ew
from gpujac.ops.order import ARGSORT


def argsort(x: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None,
            descending: bool = False) -> Any:  # fmt: skip
    """Positions that sort `x` along `axis` (raveled if None); equal entries keep their order."""
    if order is not None:
        raise ArgumentError("argsort: order= is for structured arrays")
    _check_real(x, "argsort")
    if axis is None:
        x, axis = shape.ravel(x), -1
    if descending:  # of equal entries the first comes first in both directions
        back = argsort(shape.flip(x, axis), axis)
        return x.shape[axis] - 1 - shape.flip(back, axis)
    moved = shape.moveaxis(x, c.axis_of(axis, len(x.shape), "argsort"), -1)
    return shape.moveaxis(ARGSORT(moved), -1, axis)


def sort(x: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None,
         descending: bool = False) -> Any:  # fmt: skip
    """`x` in order along `axis` (raveled if None); the derivative follows the entries."""
    if axis is None:
        x, axis = shape.ravel(x), -1
    positions = argsort(x, axis, kind, order, stable=stable, descending=descending)
    return indexing.take_along_axis(x, positions, axis)


def argpartition(x: Any, kth: Any, axis: Any = -1, kind: Any = None, order: Any = None) -> Any:
    """Positions that put entry `kth` along `axis` in its place: those that sort all entries do."""
    _check_kth(x, kth, axis, "argpartition")
    return argsort(x, axis)


def partition(x: Any, kth: Any, axis: Any = -1, kind: Any = None, order: Any = None) -> Any:
    """`x` with entry `kth` along `axis` in its place: in order, as NumPy leaves the rest open."""
    _check_kth(x, kth, axis, "partition")
    return sort(x, axis)


def _check_kth(x: Any, kth: Any, axis: Any, what: str) -> None:
    n = math.prod(x.shape) if axis is None else x.shape[c.axis_of(axis, len(x.shape), what)]
    for k in kth if isinstance(kth, (tuple, list)) else (kth,):
        if not -n <= operator.index(k) < n:
            raise ArgumentError(f"{what}: kth={k} is out of range for {n} entries; use {-n} to {n - 1}")


def _check_real(x: Any, what: str) -> None:
    if kind(x.dtype) == "c":
        raise DTypeError(f"{what}: complex entries have no order; sort their modulus or real part")


def median(x: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
           keepdims: Any = False) -> Any:  # fmt: skip
    """The middle entry, or the mean of the two in the middle."""
    c.refuse("median", out=out)
    rank = len(x.shape)
    axes = c.axes_of(axis, rank, "median")
    kept = [a for a in range(-rank, 0) if a not in axes]
    if not axes:
        return c.unshared(c.floating(x))
    n = math.prod([x.shape[a] for a in axes])
    flat = shape.reshape(shape.transpose(c.floating(x), (*kept, *axes)), (*(x.shape[a] for a in kept), n))
    if n == 0:
        raise ShapeError(f"median: shape {tuple(x.shape)} has no entries along axis {axis}")
    ordered = sort(flat)
    last = ordered[..., n - 1]  # NaN, if there is one, which spoils the whole line
    y = ew.where(ew.isnan(last), last, reduce.mean(ordered[..., (n - 1) // 2 : n // 2 + 1], -1))
    return shape.reshape(y, tuple(1 if i - rank in axes else m for i, m in enumerate(x.shape))) if keepdims else y


# Functions that write: the first argument must be a traced array.
def _writable(x: Any, what: str) -> Tracer:
    if isinstance(x, Tracer):
        return x
    raise MutationError(
        f"{what} would write a traced value into a plain array of shape {shape_of(x)}: make the "
        "array with np.zeros_like(u), where u is a traced input"
    )


def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = True) -> None:
    """Write `src` into `dst`, where a condition holds."""
    x = _writable(dst, "copyto")
    src = c.lift(src, x)
    c.check_casting("copyto", dtype_of(src), x.dtype, casting)
    indexing.setitem(x, ..., src if where is True else ew.where(c.lift(where, x), src, x))


def putmask(a: Any, mask: Any, values: Any) -> None:
    """Write `values` of the shape of `a` (or a number) where the mask holds."""
    x, values = _writable(a, "putmask"), c.lift(values, a)
    if shape_of(values) not in ((), tuple(x.shape)):
        raise ShapeError(f"putmask: values of shape {shape_of(values)} for an array of shape {tuple(x.shape)}")
    indexing.setitem(x, ..., ew.where(c.lift(mask, x), values, x))


def put(a: Any, ind: Any, v: Any, mode: str = "raise") -> None:
    """Write at positions of the raveled array."""
    x = _writable(a, "put")
    if mode not in ("raise", "wrap", "clip"):
        raise ArgumentError(f"put: mode={mode!r} is not one of 'raise', 'wrap', 'clip'")
    ind, size = concrete(c.lift(ind)), math.prod(x.shape)
    ind = np.asarray(ind) if type(ind) in HOST_TYPES else ind
    if mode == "clip":
        ind = ew.clip(ind, 0, size - 1)
    elif mode == "raise" and isinstance(ind, np.ndarray) and np.any((ind < -size) | (ind >= size)):
        raise IndexError(f"put: an index is out of bounds for {size} entries; use {-size} to {size - 1}")
    ind = ind % max(size, 1)
    steps = [math.prod(x.shape[i + 1 :]) for i in range(len(x.shape))]
    indexing.setitem(x, tuple(ind // max(step, 1) % max(n, 1) for step, n in zip(steps, x.shape, strict=True)), v)


def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    """Write at `indices` along `axis`, the other axes matched."""
    x = _writable(arr, "put_along_axis")
    a = c.axis_of(axis, len(x.shape), "put_along_axis") + len(x.shape)
    key = [np.arange(n).reshape((-1,) + (1,) * (len(x.shape) - i - 1)) for i, n in enumerate(x.shape)]
    key[a] = indices
    indexing.setitem(x, tuple(key), values)


def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """Write along the main diagonal."""
    x = _writable(a, "fill_diagonal")
    if len(x.shape) < 2 or wrap:
        raise ArgumentError("fill_diagonal: give an array of at least two axes and wrap=False")
    n = operator.index(min(x.shape))
    indexing.setitem(x, (np.arange(n),) * len(x.shape), val)
