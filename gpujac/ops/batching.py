"""Small helpers of the batching rules: mapped axes to the front, indices per lane."""

from typing import Any

import numpy as np

from gpujac.backends.choose import backend_of
from gpujac.core import taking
from gpujac.core.trace import is_mapped, payload
from gpujac.ops.elementwise import logical_not, logical_or, where
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
    return index % size + like(offsets, index)


def harmless(x: Any, value: Any = 0) -> Any:
    """`x`, with `value`, which no op refuses, in the lanes that only watch the code at work."""
    lanes = taking.mask()
    if lanes is None or not is_mapped(x):
        return x
    return where(lanes, x, like(value, x) if isinstance(value, np.ndarray) else value)


def hold(flags: Any) -> bool:
    """Whether flags are true in every lane that takes part in the code at work; also where they have no values."""
    lanes = taking.mask()
    if lanes is not None and is_mapped(flags):
        flags = logical_or(flags, logical_not(lanes))
    values = payload(flags)
    if values is None or isinstance(values, bool):  # recorded without values, or a number's
        return values is not False
    return bool(backend_of(values).xp.all(values))


def like(constant: np.ndarray, x: Any) -> Any:
    """A constant of NumPy's as an array of the library, device and dtype of `x`."""
    target = payload(x)
    return backend_of(target).asarray(constant, x.dtype, target)


def stretch(x: Any, axis: int | None, size: int) -> Any:
    """`x` with its mapped axis first; an unmapped operand is repeated for every lane."""
    if axis is None:
        shape = tuple(x.shape)
        return spread(shape, (size, *shape), (-1 - len(shape),))(x)
    return move_axis(x, axis, -len(x.shape))


def aligned(value: Any, axis: int | None, rank: int, k: int) -> Any:
    """An operand with its mapped axis (or a one in its place) left of the last k logical axes.

    `rank`: how many axes it has besides the mapped one.
    """
    if axis is None:
        if rank <= k:
            return value
        shape = tuple(value.shape)
        return as_shape(value, (*shape[: rank - k], 1, *shape[rank - k :]))
    if -axis - 1 == k:
        return value
    if rank < k:
        value = move_axis(value, axis, -len(value.shape))
        shape = tuple(value.shape)
        return as_shape(value, (shape[0], *(1,) * (k - rank), *shape[1:]))
    return move_axis(value, axis, -k - 1)
