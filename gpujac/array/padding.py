"""Arrays with a border, in every mode of NumPy's pad, and sliding windows.

Beyond NumPy, negative widths crop in the modes constant, edge, empty, reflect, symmetric and wrap: the
result is that of the border without the crop, cut. Beyond the array's own length reflections repeat.
"""

import math
import operator
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import fill, order, reduce, shape
from gpujac.array.views import read_only, viewing
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.trace import Tracer, payload
from gpujac.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from gpujac.ops import elementwise as ew
from gpujac.ops import indexing as ix
from gpujac.ops import window as wd

_OPTIONS = {
    "constant": "constant_values", "edge": "", "empty": "", "linear_ramp": "end_values", "maximum": "stat_length",
    "mean": "stat_length", "median": "stat_length", "minimum": "stat_length", "reflect": "reflect_type",
    "symmetric": "reflect_type", "wrap": "",
}  # fmt: skip
_CROPPING = ("constant", "edge", "empty", "reflect", "symmetric", "wrap")


def pad(array: Any, pad_width: Any, mode: Any = "constant", **options: Any) -> Any:
    """`array` with a border; see the module for negative widths. With "empty" the border is zero."""
    x = c.lift(array)
    widths = _pad_widths(pad_width, len(x.shape))
    if callable(mode):
        return _by_function(x, widths, mode, options)
    _check(x, widths, mode, options)
    y = _MODES.get(mode, _from_inside)(x, widths, mode, **options)
    if isinstance(y, Tracer):
        return c.unshared(y) if y is x else y
    be = backend_of(y)
    return be.copy(y) if be.shares_memory(y, x) else y


def cropping(theirs: Callable) -> Callable:
    """A library's pad of plain arrays, with ours where a width is negative."""

    @wraps(theirs)
    def plain(array: Any, pad_width: Any, mode: Any = "constant", **options: Any) -> Any:
        if _has_negative(pad_width):
            return pad(array, pad_width, mode, **options)
        return theirs(array, pad_width, mode, **options)

    return plain


def _has_negative(widths: Any) -> bool:
    if isinstance(widths, dict):
        widths = list(widths.values())
    if isinstance(widths, (list, tuple)):
        return any([_has_negative(w) for w in widths])
    return bool(np.any(widths < 0)) if isinstance(widths, (int, np.integer, np.ndarray)) else False


def _pad_widths(pad_width: Any, rank: int) -> list[tuple[int, int]]:
    """(before, after) for each axis, from every form that NumPy takes."""
    if isinstance(pad_width, dict):
        full = [(0, 0)] * rank
        for axis, w in pad_width.items():
            before, after = w if isinstance(w, (tuple, list)) else (w, w)
            full[c.axis_of(axis, rank, "pad")] = operator.index(before), operator.index(after)
        return full
    found = np.asarray(pad_width)
    if found.dtype.kind not in "iu":
        raise ArgumentTypeError(f"pad: pad_width={pad_width!r} is not made of whole numbers")
    try:
        return [(int(a), int(b)) for a, b in np.broadcast_to(found, (rank, 2))]
    except ValueError:
        raise ShapeError(
            f"pad: pad_width={pad_width!r} for an array of {rank} axes; give a number, a pair, or a pair per axis"
        ) from None


def _pairs(values: Any, x: Any, what: str) -> list[tuple]:
    """(before, after) values for each axis of `x`; entries may be traced."""
    rank, values = len(x.shape), _beside(values, x)
    if not isinstance(values, (Tracer, list, tuple)) and shape_of(values) == ():
        _check_kind(values, x, what)
        return [(values, values)] * rank
    if not c.holds_tracer(values):
        values = np.asarray(values) if isinstance(values, (list, tuple)) else values
    table = c.lift(values)
    _check_kind(table, x, what)
    if not _is_per_axis(tuple(table.shape), rank):
        raise ShapeError(f"pad: {what} of shape {tuple(table.shape)}; give a number, a pair, or a pair per axis")
    if isinstance(table, np.ndarray):
        table = np.broadcast_to(table, (rank, 2))
    else:
        table = shape.broadcast_to(table, (rank, 2))
    return [(table[i, 0], table[i, 1]) for i in range(rank)]


def _is_per_axis(shape: tuple, rank: int) -> bool:
    """Whether an array of that shape broadcasts to a pair for each axis."""
    return len(shape) <= 2 and all([n in (1, m) for n, m in zip(shape[::-1], (2, rank), strict=False)])


def _check_kind(values: Any, x: Any, what: str) -> None:
    if kind(dtype_of(values)) == "c" and kind(x.dtype) != "c":
        raise DTypeError(f"pad: {what} are complex for an array of {x.dtype}; give their real part")


def _beside(values: Any, x: Any) -> Any:
    """Traced numbers in a nested list as arrays of the library of `x`, like those that they stand by."""
    if isinstance(values, (list, tuple)):
        return [_beside(v, x) for v in values]
    target = payload(x)
    return c.onto(values, target) if isinstance(values, Tracer) and target is not None else values


def _check(x: Any, widths: list, mode: Any, options: dict) -> None:
    if mode not in _OPTIONS:
        raise ArgumentError(f"pad: mode={mode!r} is not one of {', '.join(map(repr, _OPTIONS))}, or a function")
    unknown = sorted(set(options) - {_OPTIONS[mode]})
    if unknown:
        raise ArgumentError(f"pad: {unknown[0]}= is no option of mode={mode!r}")
    if mode not in _CROPPING and any([n < 0 for pair in widths for n in pair]):
        names = ", ".join(map(repr, _CROPPING))
        raise ArgumentError(f"pad: pad_width={widths} crops where it is negative, which only {names} do, not {mode!r}")
    for i, (n, pair) in enumerate(zip(x.shape, widths, strict=True)):
        if n + sum(pair) < 0 or n + min(pair) < 0:
            raise ShapeError(f"pad: pad_width={pair} crops more than axis {i} of shape {tuple(x.shape)} has")
        if n == 0 and pair != (0, 0) and mode not in ("constant", "empty"):
            raise ShapeError(
                f"pad: axis {i} of shape {tuple(x.shape)} has no entries to make a border of; only 'constant' and "
                "'empty' extend it"
            )


# ---------------------------------------------------------------- one function per mode


def _constant(x: Any, widths: list, mode: str, constant_values: Any = 0) -> Any:
    return fill.bordered(x, widths, _pairs(constant_values, x, "constant_values"))


def _empty(x: Any, widths: list, mode: str) -> Any:
    return fill.bordered(x, widths)


def _from_inside(x: Any, widths: list, mode: str, reflect_type: str = "even") -> Any:
    """A border of the array's own entries."""
    if reflect_type not in ("even", "odd"):
        raise ArgumentError(f"pad: reflect_type={reflect_type!r} is neither 'even' nor 'odd'")
    if reflect_type == "odd":
        for axis, (n, w) in enumerate(zip(x.shape, widths, strict=True)):
            x = _odd(x, axis, n, w, mode) if w != (0, 0) and math.prod(x.shape) else _even(x, axis, w, mode)
        return x
    return wd.border(tuple(x.shape), mode, tuple(widths))(x) if any(map(any, widths)) else x


def _even(x: Any, axis: int, w: tuple, mode: str) -> Any:
    widths = tuple(w if i == axis else (0, 0) for i in range(len(x.shape)))
    return wd.border(tuple(x.shape), mode, widths)(x) if w != (0, 0) else x


def _odd(x: Any, axis: int, n: int, w: tuple, mode: str) -> Any:
    """Point reflections in the first and last entry: even ones with a sign, and multiples of both ends.

    With f(-i) = 2 f(0) - f(i) and f(n - 1 + i) = 2 f(n - 1) - f(n - 1 - i) the array goes on for ever
    as a periodic part and a straight line; "symmetric" reflects between entries instead.
    """
    if n == 1:  # NumPy repeats the one entry
        return _even(x, axis, w, "edge")
    i = np.arange(-w[0], n + w[1])
    period = 2 * n - 2 if mode == "reflect" else 2 * n
    turns = 2.0 * (i // period)
    mirrored = i % period >= n
    tail = (1,) * (len(x.shape) - axis - 1)

    def along(weights: np.ndarray) -> Any:
        weights = weights.reshape(-1, *tail)
        return c.astype(c.placed(weights, x), x.dtype)

    key = [(0, m, 1) for m in x.shape]
    first, last = (
        ix.slice_of(tuple(x.shape), (*key[:axis], (at, at + 1, 1), *key[axis + 1 :]))(x) for at in (0, n - 1)
    )
    even = _even(x, axis, w, mode) * along(np.where(mirrored, -1.0, 1.0))
    return even + last * along(turns + 2.0 * mirrored) - first * along(turns)


def _ramp(x: Any, widths: list, mode: str, end_values: Any = 0) -> Any:
    for axis, (w, ends) in enumerate(zip(widths, _pairs(end_values, x, "end_values"), strict=True)):
        sides: list = []
        for at, width, end in zip((0, x.shape[axis] - 1), w, ends, strict=True):
            steps = np.arange(width) / max(width, 1)
            steps = steps if at == 0 and not sides else steps[::-1]
            sides.append(_slope(x, axis, at, end, steps) if width else None)
        x = fill.joined(sides[0], x, sides[1], axis)
    return x


def _slope(x: Any, axis: int, at: int, end: Any, steps: np.ndarray) -> Any:
    """Entries from `end` towards entry `at` of `x`."""
    edge = _part(x, axis, at, at + 1)
    weights = c.placed(steps.reshape(-1, *(1,) * (len(x.shape) - axis - 1)), x)
    whole = kind(dtype_of(x)) in "iu"
    y = (edge - end) * (weights if whole else c.astype(weights, x.dtype)) + end
    return c.astype(ew.floor(y) if whole else y, x.dtype)


def _part(x: Any, axis: int, start: int, stop: int) -> Any:
    key = [(0, n, 1) for n in x.shape]
    key[axis] = (start, stop, 1)
    return ix.slice_of(tuple(x.shape), tuple(key))(x)


_STATISTICS: dict[str, Callable] = {
    "maximum": reduce.max, "minimum": reduce.min, "mean": reduce.mean, "median": order.median,
}  # fmt: skip


def _statistic(x: Any, widths: list, mode: str, stat_length: Any = None) -> Any:
    lengths = [(None, None)] * len(x.shape) if stat_length is None else _lengths(stat_length, len(x.shape), mode)
    for axis, (w, (left, right)) in enumerate(zip(widths, lengths, strict=True)):
        if w == (0, 0):
            continue
        n = x.shape[axis]
        sides: list = [None, None]
        for k, (start, stop) in enumerate(((0, n if left is None else left), (0 if right is None else n - right, n))):
            if w[k]:
                y = _statistic_of(_part(x, axis, max(start, 0), min(stop, n)), axis, mode)
                sides[k] = c.broadcast(y, tuple(w[k] if i == axis else m for i, m in enumerate(x.shape)))
        x = fill.joined(sides[0], x, sides[1], axis)
    return x


def _lengths(stat_length: Any, rank: int, mode: str) -> list[tuple]:
    table = np.asarray(stat_length)
    if not _is_per_axis(table.shape, rank):
        raise ShapeError(f"pad: stat_length of shape {table.shape}; give a number, a pair, or a pair per axis")
    found = [(operator.index(a), operator.index(b)) for a, b in np.broadcast_to(table, (rank, 2))]
    least = min([n for pair in found for n in pair], default=1)
    if least < 1:
        raise ArgumentError(f"pad: stat_length={stat_length} leaves nothing to take the {mode} of; use 1 or more")
    return found


def _statistic_of(x: Any, axis: int, mode: str) -> Any:
    y = _STATISTICS[mode](x, axis=axis, keepdims=True)
    if dtype_of(y) == dtype_of(x):
        return y
    return c.astype(ew.rint(y), x.dtype)  # means of whole numbers


def _by_function(x: Any, widths: list, function: Callable, options: dict) -> Any:
    """A border that `function(vector, widths, axis, options)` writes into each line of zeros around `x`."""
    padded = fill.bordered(x, widths)
    padded = c.unshared(padded) if isinstance(padded, Tracer) else backend_of(padded).copy(padded)
    for axis, w in enumerate(widths):
        lines = shape.moveaxis(padded, axis, -1)
        for index in np.ndindex(*lines.shape[:-1]):
            function(lines[(*index, Ellipsis)], w, axis, options)
    return padded


_MODES: dict[str, Callable] = {
    "constant": _constant, "empty": _empty, "linear_ramp": _ramp, **dict.fromkeys(_STATISTICS, _statistic),
}  # fmt: skip


# ---------------------------------------------------------------- windows


def sliding_window_view(x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False,
                        writeable: bool = False) -> Any:  # fmt: skip
    """Windows of neighbours along the given axes, one new axis at the end for each of them.

    A write into them raises, also with `writeable` where they overlap.
    """
    y = _apart(x, window_shape, axis)
    return _one_each(x, window_shape, axis) if writeable and math.prod(y.shape) == math.prod(x.shape) else y


def _windows(x: Any, window_shape: Any, axis: Any) -> Any:
    widths = tuple(np.atleast_1d(np.asarray(window_shape)).tolist())
    if not all([type(w) is int for w in widths]):
        raise ArgumentTypeError(f"sliding_window_view: window_shape={window_shape!r} is not made of whole numbers")
    rank = len(x.shape)
    if axis is None:
        if len(widths) != rank:
            raise ShapeError(f"sliding_window_view: window_shape={widths} for {rank} axes; give one length per axis")
        axes = tuple(range(rank))
    else:
        axes = tuple(c.axis_of(a, rank, "sliding_window_view") + rank for a in np.atleast_1d(axis))
        if len(widths) != len(axes):
            raise ShapeError(f"sliding_window_view: window_shape={widths} for axis={axis}; give one length per axis")
    y = x
    for a, w in zip(axes, widths, strict=True):
        if not 1 <= w <= y.shape[a]:
            raise ShapeError(
                f"sliding_window_view: a window of {w} along axis {a} of shape {tuple(x.shape)}; use 1 to {y.shape[a]}"
            )
        y = wd.windows(tuple(y.shape[a:]), w)(y)
    return y


_apart, _one_each = read_only(_windows), viewing(_windows)
