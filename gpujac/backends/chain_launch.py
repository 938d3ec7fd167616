"""Running a chain on the device: axes merged, a layout chosen, arguments packed, one launch.

All that depends on shapes and strides alone is worked out once and kept, so that a repeated launch
costs a look-up. Sums are deterministic: which entries a thread adds depends on shapes only.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpujac.backends import codegen
from gpujac.backends.chain import Chain, Shape, domain, sum_of, typed
from gpujac.backends.codegen import STRIDE, UNIT, ZERO, Access
from gpujac.backends.kernels import Kernel
from gpujac.errors import KernelError

_THREADS = 256  # per block
_BLOCKS = 4096  # enough to fill a device several times over
_MOST_Y = 65535  # of the second grid axis
_SHORT = 1024  # columns up to which a row belongs to some lanes of a warp, not to a block
_PART = 16384  # columns per part where few rows are very long
_MANY_ROWS = 4096  # from here on one thread per row keeps the device busy
_NARROW = 1 << 30  # offsets and counts below this leave room for one more stride in 32 bits


class Operand(NamedTuple):
    """What of an array the preparation needs; strides in entries."""

    dtype: Any
    shape: Shape
    strides: Shape


class Prepared(NamedTuple):
    """A launch that waits for its arrays; `kernel` is None where there is nothing to compute."""

    shape: Shape
    dtypes: tuple
    kernel: Kernel | None
    grid: tuple[int, int]
    block: tuple[int, int]
    numbers: tuple
    parts: int  # per row: above one, a second launch adds them up


def run(be: Any, chain: Chain, shape: Shape, operands: tuple) -> Any:
    """What the chain gives over a domain of trailing shape `shape`, in one or two launches.

    Operands are arrays of the backend or numbers (passed by value). Leading axes in front of
    `shape` broadcast and are kept. The result is a new C-contiguous array, or a tuple of them.
    """
    operands = typed(operands, chain.inputs)
    key = tuple([None if isinstance(x, np.generic) else (x.dtype, x.shape, x.strides) for x in operands])
    todo = prepared(chain, shape, key)
    if todo.kernel is None:
        ys = [be.zeros(todo.shape, dtype, operands[0]) for dtype in todo.dtypes]
    else:
        own = (*todo.shape, todo.parts) if todo.parts > 1 else todo.shape
        ys = [be.empty(own, dtype, operands[0]) for dtype in todo.dtypes]
        be.launch(todo.kernel, todo.grid, todo.block, (*operands, *ys, *todo.numbers))
    if todo.parts > 1:
        return run(be, sum_of(chain.results[0]), (todo.parts,), (ys[0],))
    return ys[0] if len(ys) == 1 else tuple(ys)


@lru_cache(1 << 12)
def prepared(chain: Chain, shape: Shape, key: tuple) -> Prepared:
    """The launch for operands with these dtypes, shapes and strides in bytes (None: a number)."""
    operands = [None if k is None else Operand(k[0], k[1], _in_entries(*k)) for k in key]
    _check(chain, operands)
    full = domain(shape, tuple([x for x in operands if x is not None]))
    rank = len(full)
    gone = {a % rank for a in chain.axes} if chain.axes else set()
    kept = tuple(n for i, n in enumerate(full) if i not in gone)
    if not math.prod(full):
        return Prepared(kept, _dtypes(chain), None, (0, 0), (0, 0), (), 1)
    strides = [None if x is None else _broadcast(x, full) for x in operands]
    if gone:
        return _sum(chain, full, sorted(gone), kept, strides)
    return _map(chain, full, strides)


def _dtypes(chain: Chain) -> tuple:
    return tuple([np.dtype(name) for name in chain.results])


def _in_entries(dtype: Any, shape: Shape, strides: Shape) -> Shape:
    if any(s % dtype.itemsize for s in strides):
        raise KernelError(
            f"a generated kernel was asked to read an array of {dtype} and shape {tuple(shape)} with strides "
            f"{tuple(strides)} bytes, which are no whole numbers of entries; copy the array first"
        )
    return tuple(s // dtype.itemsize for s in strides)


def _check(chain: Chain, operands: list) -> None:
    for k, (x, name) in enumerate(zip(operands, chain.inputs, strict=True)):
        if x is not None and x.dtype != np.dtype(name):
            raise KernelError(f"input {k} of a generated kernel is {name}, but the array is {x.dtype}; cast it first")


def _broadcast(x: Operand, full: Shape) -> Shape:
    """Strides over the whole domain, zero along repeated axes."""
    pad = len(full) - len(x.shape)
    own = [0 if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True)]
    if any(n not in (1, m) for n, m in zip(x.shape, full[pad:], strict=True)):
        raise KernelError(f"an operand of shape {tuple(x.shape)} does not fit the domain {full} of a generated kernel")
    return (*(0,) * pad, *own)


def _merged(sizes: list[int], strides: list) -> tuple[list[int], list]:
    """Axes of size one dropped, neighbours joined wherever every operand steps through them evenly."""
    axes: list[tuple[int, list]] = []
    for axis, n in enumerate(sizes):
        steps: list = [None if s is None else s[axis] for s in strides]
        if n == 1:
            continue
        if axes and all([a == b * n for a, b in zip(axes[-1][1], steps, strict=True) if a is not None]):
            axes[-1] = (axes[-1][0] * n, steps)
        else:
            axes.append((n, steps))
    axes = axes or [(1, [None if s is None else 0 for s in strides])]
    return [n for n, _ in axes], [
        None if s is None else tuple(steps[k] for _, steps in axes) for k, s in enumerate(strides)
    ]


def _map(chain: Chain, full: Shape, strides: list) -> Prepared:
    """A column per thread, the rows walked."""
    result = tuple(math.prod(full[i + 1 :]) for i in range(len(full)))
    sizes, steps = _merged(list(full), [*strides, result])
    steps.pop()
    rows, columns = (sizes[:1], sizes[1:]) if len(sizes) > 1 else ([1], sizes)
    split = len(sizes) - len(columns)
    pairs = [None if s is None else (s[:split] or (0,), s[split:]) for s in steps]
    width = min(_THREADS, 1 << max(math.prod(columns) - 1, 0).bit_length())
    across = -(-math.prod(columns) // width)
    down = -(-rows[0] // (_THREADS // width))
    grid = (across, max(1, min(down, _BLOCKS // across, _MOST_Y)))
    return _filled(chain, "map", full, (rows, columns), pairs, grid, (width, _THREADS // width), 1)


def _sum(chain: Chain, full: Shape, gone: list[int], kept: Shape, strides: list) -> Prepared:
    """Rows are the kept axes, columns the summed ones."""
    stay = [i for i in range(len(full)) if i not in gone]
    sides = []
    for axes in (stay, gone):
        sides.append(_merged([full[i] for i in axes], [None if s is None else [s[i] for i in axes] for s in strides]))
    (rows, outer), (columns, inner) = sides
    pairs = [None if a is None else (a, b) for a, b in zip(outer, inner, strict=True)]
    count, length = math.prod(rows), math.prod(columns)
    if count >= _MANY_ROWS and _lies_along_rows(pairs):
        lanes = 1  # neighbouring threads read neighbouring rows
    elif length <= _SHORT:
        lanes = min(32, 1 << (length - 1).bit_length())
    else:
        parts = min(-(-length // _PART), -(-2048 // count), 1024)
        grid = (min(count, _BLOCKS), parts)
        return _filled(chain, "block", kept, (rows, columns), pairs, grid, (_THREADS, 1), parts)
    height = _THREADS // lanes
    grid = (min(-(-count // height), _BLOCKS), 1)
    return _filled(chain, "lanes", kept, (rows, columns), pairs, grid, (lanes, height), 1)


def _lies_along_rows(pairs: list) -> bool:
    """Whether the operands that depend on both sides have their entries next to each other by row."""
    both = [p for p in pairs if p is not None and any(p[0]) and any(p[1])]
    return bool(both) and all(abs(p[0][-1]) == 1 and abs(p[1][-1]) != 1 for p in both)


def _filled(chain: Chain, kind: str, shape: Shape, sides: tuple, pairs: list, grid: tuple, block: tuple,
            parts: int) -> Prepared:  # fmt: skip
    """The prepared launch: the layout's letters, the kernel, and sizes and strides as arguments."""
    rows, columns = sides
    letters = tuple(None if p is None else Access(_letters(p[0]), _letters(p[1])) for p in pairs)
    wide = _is_wide(rows, columns, pairs)
    layout = codegen.Layout(kind, wide, len(rows), len(columns), letters)
    numbers = [math.prod(rows), math.prod(columns), *rows[1:], *columns[1:]]
    numbers += [pairs[k][side][axis] for k, side, axis in codegen.strides_used(layout)]
    integer = np.int64 if wide else np.int32
    return Prepared(
        shape, _dtypes(chain), codegen.kernel(chain, layout), grid, block,
        tuple([integer(n) for n in numbers]), parts,
    )  # fmt: skip


def _letters(strides: tuple) -> str:
    return "".join([ZERO if s == 0 else UNIT if s == 1 else STRIDE for s in strides])


def _is_wide(rows: list, columns: list, pairs: list) -> bool:
    """Whether some offset or count does not fit 32 bits."""
    spans = [math.prod(rows) * math.prod(columns)]
    for p in pairs:
        if p is not None:
            sides = zip((*rows, *columns), (*p[0], *p[1]), strict=True)
            spans.append(sum(abs(s) * (n - 1) for n, s in sides))
    return max(spans) >= _NARROW
