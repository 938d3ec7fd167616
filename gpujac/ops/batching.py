"""Small helpers of the batching rules: mapped axes to the front, indices per lane."""

from typing import Any

import numpy as np

from gpujac.backends.choose import backend_of
from gpujac.core.trace import payload
from gpujac.ops.structure import permute, reshape, spread


def as_shape(x: Any, shape: tuple) -> Any:
    """`x` in C order under another shape."""
    return x if x.shape == shape else reshape(x.shape, tuple(shape))(x)


def reorder(x: Any, order: tuple) -> Any:
    """`x` with result axis i taken from axis order[i] (counted from the front)."""
    rank = len(x.shape)
    return permute(x.shape, tuple(a - rank for a in order))(x)


def move_axis(x: Any, source: int, target: int) -> Any:
    """`x` with axis `source` (from the end) at position `target` (from the end)."""
    if source == target:
        return x
    rank = len(x.shape)
    order = [a for a in range(-rank, 0) if a != source]
    order.insert(target + rank, source)
    return permute(x.shape, tuple(order))(x)


def both_to_front(xs: tuple, axes: tuple) -> tuple:
    """Every operand with its mapped axis first."""
    return tuple(move_axis(x, a, -len(x.shape)) for x, a in zip(xs, axes, strict=True))


def shift_index(index: Any, lanes: int, size: int) -> Any:
    """Index (lanes, ...) into `size` positions, made to address (lanes * size) positions."""
    offsets = np.arange(lanes).reshape((lanes,) + (1,) * (len(index.shape) - 1)) * size
    target = payload(index)
    return index % size + backend_of(target).asarray(offsets, index.dtype, target)


def stretch(x: Any, axis: int | None, size: int) -> Any:
    """`x` with its mapped axis first; an unmapped operand is repeated for every lane."""
    if axis is None:
        shape = tuple(x.shape)
        return spread(shape, (size, *shape), (-1 - len(shape),))(x)
    return move_axis(x, axis, -len(x.shape))
