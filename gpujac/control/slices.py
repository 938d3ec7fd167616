"""Slices of a fixed size at a place that may differ between the lanes of vmap."""

import operator
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import indexing
from gpujac.array import shape as sh
from gpujac.backends.choose import is_array
from gpujac.control import masks
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.trace import Tracer
from gpujac.errors import ArgumentTypeError, DTypeError, ShapeError
from gpujac.ops import elementwise as ew
from gpujac.ops import indexing as ix
from gpujac.transforms import flatten as fl


def dynamic_slice(x: Any, start: Any, sizes: Any) -> Any:
    """The part of `x` of shape `sizes` that begins at `start`.

    Args:
        x: array (n0, n1, ...).
        start: an integer per axis (a bare one for a single axis); under vmap they may differ
            between lanes. Negative ones count from the end; a part that would reach beyond an end
            is moved back inside.
        sizes: the shape of the part, Python ints.

    Returns:
        A new array of shape `sizes`.

    Raises:
        ShapeError: not one start and one size per axis, or a size beyond that of `x`.

    Cost: one copy of the part; for starts that differ between lanes one gather per axis.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> part = lambda x, i: gj.control.dynamic_slice(x, i, 2)
        >>> gj.vmap(part, in_dims=(None, 0))(np.arange(5.0), np.array([0, 2, 9]))
        array([[0., 1.],
               [2., 3.],
               [3., 4.]])
    """
    shape = _shape_of("dynamic_slice", x)
    sizes = _sizes(shape, sizes)
    starts = _starts("dynamic_slice", shape, start, sizes)
    if not any([isinstance(s, Tracer) for s in starts]):
        return _fixed(x, shape, starts, sizes)
    taken = False
    for axis, (s, k) in enumerate(zip(starts, sizes, strict=True)):
        if k == shape[axis]:
            continue
        if not isinstance(s, Tracer):
            whole = [(0, n, 1) for n in shape_of(x)]
            whole[axis] = (s, s + k, 1)
            x = _cut(x, tuple(whole))
        else:
            x, taken = indexing.take(x, ew.add(_range(k, s), s), axis), True
    return x if taken else fl.private(x)  # what was taken is new


def dynamic_update_slice(x: Any, update: Any, start: Any) -> Any:
    """`x` with the part that begins at `start` replaced by `update`.

    Args:
        x: array (n0, n1, ...).
        update: array of as many axes, no longer than `x` along any.
        start: as in `dynamic_slice`.

    Returns:
        A new array of the shape and dtype of `x`.

    Raises:
        ShapeError: not one start per axis, or an update that is larger than `x`. DTypeError: an
        update of another dtype.

    Cost: one copy of `x`; for starts that differ between lanes one gather per axis and lane.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> put = lambda i: gj.control.dynamic_update_slice(np.zeros(4), np.array([1.0, 2.0]), i)
        >>> gj.vmap(put)(np.array([0, 2]))
        array([[1., 2., 0., 0.],
               [0., 0., 1., 2.]])
    """
    shape = _shape_of("dynamic_update_slice", x)
    sizes = _shape_of("dynamic_update_slice", update, "update")
    if len(sizes) != len(shape) or any([k > n for k, n in zip(sizes, shape, strict=True)]):
        raise ShapeError(f"dynamic_update_slice: update has shape {sizes}, which does not fit into {shape}")
    if dtype_of(update) != dtype_of(x):
        raise DTypeError(f"dynamic_update_slice: update is {dtype_of(update)}, but x is {dtype_of(x)}; cast one")
    starts = _starts("dynamic_update_slice", shape, start, sizes)
    if 0 in sizes:
        return fl.private(x)
    inside: Any = None  # where the update covers x, entry by entry
    for axis, (s, k) in enumerate(zip(starts, sizes, strict=True)):
        if k == shape[axis]:
            continue
        behind = len(shape) - axis - 1
        at = ew.subtract(_range(shape[axis], s if isinstance(s, Tracer) else x), s)
        update = indexing.take(update, ew.clip(at, 0, k - 1), axis)
        covered = ew.logical_and(ew.greater_equal(at, 0), ew.less(at, k))
        covered = sh.reshape(covered, (shape[axis],) + (1,) * behind) if behind else covered
        inside = covered if inside is None else ew.logical_and(inside, covered)
    return fl.private(update) if inside is None else ew.where(inside, update, x)


def _shape_of(what: str, x: Any, name: str = "x") -> tuple:
    if not isinstance(x, Tracer) and not is_array(x):
        raise ArgumentTypeError(f"{what}: {name} is a {type(x).__name__}, not an array")
    return tuple(shape_of(x))


def _sizes(shape: tuple, sizes: Any) -> tuple:
    try:
        found = tuple([operator.index(k) for k in (sizes if isinstance(sizes, (tuple, list)) else (sizes,))])
    except TypeError:
        raise ArgumentTypeError(f"dynamic_slice: sizes={sizes!r} must be ints, one per axis") from None
    if len(found) != len(shape) or any([not 0 <= k <= n for k, n in zip(found, shape, strict=True)]):
        raise ShapeError(f"dynamic_slice: sizes={found} of an array of shape {shape}; give one per axis, each from 0 "
                         "to its length")  # fmt: skip
    return found


def _starts(what: str, shape: tuple, start: Any, sizes: tuple) -> list:
    """Where the part begins along each axis, inside of the array."""
    wanted = start if isinstance(start, (tuple, list)) else (start,)
    if len(wanted) != len(shape):
        raise ShapeError(f"{what}: {len(wanted)} starts for an array of shape {shape}; give one per axis")
    starts = []
    for axis, (s, n, k) in enumerate(zip(wanted, shape, sizes, strict=True)):
        s = masks.integer(what, f"start[{axis}]", s)
        if isinstance(s, Tracer):
            starts.append(ew.clip(ew.where(ew.less(s, 0), ew.add(s, n), s), 0, n - k))
        else:
            starts.append(min(max(s + n if s < 0 else s, 0), n - k))
    return starts


def _range(n: int, like: Any) -> Any:
    return c.placed(np.arange(n), like)


def _fixed(x: Any, shape: tuple, starts: list, sizes: tuple) -> Any:
    key = tuple([(s, s + k, 1) for s, k in zip(starts, sizes, strict=True)])
    return fl.private(_cut(x, key)) if shape else fl.private(x)


def _cut(x: Any, key: tuple) -> Any:
    return ix.slice_of(tuple(shape_of(x)), key)(x)
