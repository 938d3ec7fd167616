"""Gather and scatter-add on the device: which entry point, which strides, which grid.

Arrays are seen as (rows, the indexed axis, rest). Rows and rest are merged into as few axes as the
strides allow; where more than two are left, the operand is copied first. What is decided depends on
shapes, strides and dtypes only, and is decided once for each of them.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpujac import settings
from gpujac.backends import kernels
from gpujac.backends.kernels import Kernel
from gpujac.backends.layouts import Layout, c_order, layout, merged, span, steps
from gpujac.errors import DTypeError

GATHER, SCATTER_ADD = "ops/gather.cu", "ops/scatter_add.cu"
SUMMED = ("float32", "float64", "complex64", "complex128", "int32", "int64")
_ADDED = ("float16", "float32", "float64", "int32", "int64", "uint32", "uint64")  # by CuPy's add.at
_ANY_ORDER = ("int32", "int64")  # sums of whole numbers do not depend on their order
_THREADS = 256
_MOST_BLOCKS = 1 << 16  # along one axis of a grid; threads walk further in steps of the grid
# Entries up to which offsets have 32 bits: the last step of a thread may go a grid beyond the end.
LIMIT = 2**31 - _MOST_BLOCKS * _THREADS
_PLANS = 1 << 12


class Plan(NamedTuple):
    """One launch; `copied` says which of the arrays must be copied to C order before it."""

    kernel: Kernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    scalars: tuple
    copied: tuple[bool, ...]


def gather(be: Any, x: Any, index: Any, axis: int) -> Any:
    """`x` at `index` along one axis, in one launch.

    Args:
        be: the backend that owns the arrays.
        x: (lead..., size, rest...), any dtype of 1, 2, 4 or 8 bytes, or complex; any strides.
        index: whole numbers of any shape; negative ones count from the end, others wrap around.
        axis: of `x`.

    Returns:
        A new C-contiguous array (lead..., index shape..., rest...).

    Raises:
        IndexError: entries are asked of an axis that has none.
        DTypeError: the index is not made of whole numbers.
    """
    axis %= x.ndim
    index = _whole_numbers(be, index)
    out = be.empty(x.shape[:axis] + index.shape + x.shape[axis + 1 :], x.dtype, x)
    if not out.size:
        return out
    _check_not_empty("gather", x.shape, axis)
    plan = _gather_plan(layout(x), axis, layout(index), LIMIT)
    x, index = _in_order(be, plan, x, index)
    be.launch(plan.kernel, plan.grid, plan.block, (x, index, out, *plan.scalars))
    return out


def scatter_add(be: Any, buffer: Any, index: Any, values: Any, rest: int) -> None:
    """`buffer[..., index, <rest axes>] += values`, repeated entries of the index adding up.

    Args:
        be: the backend that owns the arrays.
        buffer: (lead..., size, rest...), any strides; written in place.
        index: whole numbers of any shape; negative ones count from the end, others wrap around.
        values: (lead..., index shape..., rest...), or what broadcasts to it.
        rest: axes after the indexed one.

    Raises:
        IndexError: values are added to an axis that has no entries.
        DTypeError: the index is not made of whole numbers.

    Cost:
        One launch. With `settings.deterministic` the index is sorted first (a few launches), and
        the sums are the same bit for bit in every run. Dtypes beside `SUMMED` are left to the
        library's own `add.at`; float16 is summed in float32 where the order must be fixed.
    """
    at = buffer.ndim - rest - 1
    index = _whole_numbers(be, index)
    shape = buffer.shape[:at] + index.shape + buffer.shape[at + 1 :]
    values = values if values.shape == shape else be.xp.broadcast_to(values, shape)
    if not values.size:
        return
    _check_not_empty("scatter_add", buffer.shape, at)
    if buffer.dtype.name not in SUMMED:
        _add_other_dtype(be, buffer, index, values, rest)
        return
    values = values if values.dtype == buffer.dtype else be.cast(values, buffer.dtype)
    ordered = settings.get("deterministic") and buffer.dtype.name not in _ANY_ORDER
    plan = _scatter_plan(layout(buffer), at, layout(index), layout(values), ordered, LIMIT)
    target, indices, values = _in_order(be, plan, buffer, index, values)
    arrays = (target, *(_sorted(be, indices, buffer.shape[at]) if ordered else (indices,)), values)
    be.launch(plan.kernel, plan.grid, plan.block, (*arrays, *plan.scalars))
    if target is not buffer:
        buffer[...] = target


def geometry(columns: int, rows: int, outer: int = 1) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Grid and block for `columns` entries side by side, `rows` of them, and that `outer` times.

    A block is as wide as the columns need, up to 256 threads, and the rest of it is rows. Threads
    walk over several rows where there is plenty of work, and over more where the grid ends.
    """
    wide = min(_THREADS, 1 << (columns - 1).bit_length())
    tall = _THREADS // wide
    each = min(8, max(1, columns * rows * outer >> 20))  # a million threads fill any device
    grid = -(-columns // wide), -(-rows // (tall * each)), outer
    return (min(grid[0], _MOST_BLOCKS), min(grid[1], _MOST_BLOCKS - 1), min(grid[2], _MOST_BLOCKS - 1)), (wide, tall)


# ---------------------------------------------------------------- before a launch


def _in_order(be: Any, plan: Plan, *arrays: Any) -> list:
    return [be.copy(x) if copied else x for x, copied in zip(arrays, plan.copied)]


def _sorted(be: Any, index: Any, size: int) -> tuple[Any, Any]:
    """The index without negative entries in rising order, and where each entry was; stable."""
    places = be.ravel(be.cast(index % size, np.int64), 0)
    order = be.argsort(places)
    return gather(be, places, order, 0), order


def _add_other_dtype(be: Any, buffer: Any, index: Any, values: Any, rest: int) -> None:
    if settings.get("deterministic") and buffer.dtype.kind == "f":
        whole = be.cast(buffer, np.float32)
        scatter_add(be, whole, index, values, rest)
        buffer[...] = be.cast(whole, buffer.dtype)
    else:
        add_plainly(be, buffer, index, values, rest)


def add_plainly(be: Any, buffer: Any, index: Any, values: Any, rest: int) -> None:
    """As `scatter_add` by the library's own `add.at`; dtypes that CuPy's lacks take one that it has."""
    key = (..., index, *(slice(None),) * rest)
    if buffer.dtype.kind == "c":
        be.xp.add.at(buffer.real, key, values.real)
        if values.dtype.kind == "c":
            be.xp.add.at(buffer.imag, key, values.imag)
    elif buffer.dtype.name in _ADDED:
        be.xp.add.at(buffer, key, values)
    else:
        whole = be.cast(buffer, np.int32)
        be.xp.add.at(whole, key, be.cast(values, np.int32))
        buffer[...] = be.cast(whole, buffer.dtype)


def _whole_numbers(be: Any, index: Any) -> Any:
    """The index as int32 or int64."""
    kind, size = index.dtype.kind, index.dtype.itemsize
    if kind == "i" and size >= 4:
        return index
    if kind not in "iu":
        raise DTypeError(f"an index array has whole numbers; this one is {index.dtype} {tuple(index.shape)}.")
    return be.cast(index, np.int32 if size < 4 else np.int64)


def _check_not_empty(what: str, shape: tuple[int, ...], axis: int) -> None:
    if not shape[axis]:
        raise IndexError(f"{what}: axis {axis} of shape {tuple(shape)} has no entries, but the index is not empty.")


# ---------------------------------------------------------------- plans


@lru_cache(_PLANS)
def _gather_plan(x: Layout, axis: int, index: Layout, limit: int) -> Plan:
    place, index_copied = _one_axis(index)
    seen, x_copied = _seen(((x, axis, axis + 1),))
    size, count = x.shape[axis], math.prod(index.shape)
    columns = count * seen.rest
    entries = columns * seen.rows0 * seen.rows1
    wide = max(entries, size, span(x), span(index)) >= limit
    kind = x.dtype.name if x.dtype.kind == "c" else f"word{8 * x.dtype.itemsize}"
    name = f"gather_{kind}_i{8 * index.dtype.itemsize}_{_bits(wide)}"
    scalars = (seen.rows0, seen.rows1, columns, size, seen.rest, seen.rest1, *seen.strides[0], place)
    return _plan(GATHER, name, seen, columns, scalars, wide, (*x_copied, index_copied))


@lru_cache(_PLANS)
def _scatter_plan(buffer: Layout, at: int, index: Layout, values: Layout, ordered: bool, limit: int) -> Plan:
    place, index_copied = _one_axis(index)
    end = at + len(index.shape)
    seen, (buffer_copied, values_copied) = _seen(((buffer, at, at + 1), (values, at, end)))
    size, count = buffer.shape[at], math.prod(index.shape)
    columns = count * seen.rest
    wide = max(columns * seen.rows0 * seen.rows1, *map(span, (buffer, index, values)), size) >= limit
    strides = (*seen.strides[0], *seen.strides[1])
    if ordered:  # the sorted index is new, so it has no size to wrap at and no stride
        name = f"scatter_add_ordered_{buffer.dtype.name}_{_bits(wide)}"
        scalars = (seen.rows0, seen.rows1, columns, seen.rest, seen.rest1, *strides)
    else:
        name = f"scatter_add_{buffer.dtype.name}_i{8 * index.dtype.itemsize}_{_bits(wide)}"
        scalars = (seen.rows0, seen.rows1, columns, size, seen.rest, seen.rest1, place, *strides)
    copied = (buffer_copied, index_copied, values_copied)
    return _plan(SCATTER_ADD, name, seen, columns, scalars, wide, copied)


def _plan(path: str, name: str, seen: "_Seen", columns: int, scalars: tuple, wide: bool, copied: tuple) -> Plan:
    number = np.int64 if wide else np.int32
    grid, block = geometry(columns, seen.rows1, seen.rows0)
    return Plan(kernels.kernel(path, name), grid, block, tuple([number(s) for s in scalars]), copied)


class _Seen(NamedTuple):
    """Arrays around the indexed axis: sizes, and of each the strides (row0, row1, middle, rest0, rest1)."""

    rows0: int
    rows1: int
    rest: int
    rest1: int
    strides: list[tuple]


def _seen(parts: tuple[tuple[Layout, int, int], ...]) -> tuple[_Seen, tuple[bool, ...]]:
    """How arrays are seen that agree but for axes [at, end), copying as few of them as it takes, last first."""
    for copies in range(len(parts) + 1):
        copied = tuple(k >= len(parts) - copies for k in range(len(parts)))
        found = _seen_as([(c_order(p[0]) if c else p[0], *p[1:]) for p, c in zip(parts, copied)])
        if found is not None:
            return found, copied
    raise AssertionError("arrays in C order are always seen as one axis of rows and one of rest")


def _seen_as(parts: list[tuple[Layout, int, int]]) -> _Seen | None:
    """None where two axes a side are too few, or where entries do not lie on a lattice."""
    middles, lead, rest = [], [], []
    for x, at, end in parts:
        own = steps(x)
        middle = merged(x.shape[at:end], [own[at:end]]) if own else []
        if own is None or len(middle) > 1:
            return None
        middles.append(middle[0][1] if middle else 0)
        lead.append(own[:at])
        rest.append(own[end:])
    x, at, end = parts[0]
    rows, others = _two_axes(x.shape[:at], lead), _two_axes(x.shape[end:], rest)
    if rows is None or others is None:
        return None
    (rows0, rows1, row_strides), (rest0, rest1, rest_strides) = rows, others
    strides = [(*a, m, *b) for a, m, b in zip(row_strides, middles, rest_strides)]
    return _Seen(rows0, rows1, rest0 * rest1, rest1, strides)


def _two_axes(shape: tuple[int, ...], strides: Sequence[Sequence[int]]) -> tuple | None:
    """(outer size, inner size, the two strides of each array), None where more axes are needed."""
    axes = merged(shape, strides)
    if len(axes) > 2:
        return None
    (n0, *outer), (n1, *inner) = [[1] + [0] * len(strides)] * (2 - len(axes)) + axes
    return n0, n1, list(zip(outer, inner))


def _one_axis(index: Layout) -> tuple[int, bool]:
    """The distance of the entries of an index, and whether it must be copied to have one."""
    strides = steps(index)
    axes = merged(index.shape, [strides]) if strides is not None else [[], []]
    if len(axes) > 1:
        return 1, True
    return (axes[0][1] if axes else 0), False


def _bits(wide: bool) -> str:
    return "o64" if wide else "o32"
