"""One-hot tangents: rows of the standard basis kept as a diagonal while entries are pointwise.

A `Hot` stands for `rows` tangents of one variable. Row `row + i` is zero but for entry
`start + i` of the raveled variable, where it holds `values[i]` (None: one), for i < count.
"""

from typing import Any

import numpy as np

from gpujac.backends.choose import backend_of
from gpujac.core.aval import Shape, dtype_of, kind, shape_of
from gpujac.core.op import Mask
from gpujac.core.trace import Tracer
from gpujac.ops import diagonal as dg
from gpujac.ops import elementwise as ew
from gpujac.ops import indexing as ix
from gpujac.ops import structure as st
from gpujac.ops.agree import Guarded, plus, scale, times
from gpujac.ops.contract import Contract
from gpujac.program.ir import Partial

_SMALL = 16  # entries of an array whose rows are written out at once


def raveled_range(shape: Shape, key: tuple) -> tuple[int, int] | None:
    """The raveled positions that a basic key selects, if they follow each other without a gap."""
    first = next((i for i, k in enumerate(key) if not isinstance(k, int)), len(key))
    tail = key[first + 1 :]
    if any(k != (0, n, 1) for k, n in zip(tail, shape[first + 1 :], strict=True)):
        return None
    start = 0
    for k, n in zip(key[:first], shape[:first], strict=True):
        start = start * n + k
    if first == len(key):
        return start, start + 1
    low, high, step = key[first]
    width = st.size_of(shape[first + 1 :])
    base = start * shape[first]
    return ((base + low) * width, (base + high) * width) if step == 1 else None


class TooWideError(Exception):
    """Raised where all rows of a Jacobian at once would have to be written out in the middle of a sweep."""


class Hot:
    """Rows of a diagonal; immutable."""

    __slots__ = ("rows", "row", "start", "count", "values", "shape", "dtype", "like", "most", "_dense")

    def __init__(self, rows: int, row: int, start: int, count: int, values: Any, shape: Shape,
                 dtype: Any, like: Any, most: int = 0) -> None:
        self.rows, self.row, self.start, self.count = rows, row, start, count
        self.values = values
        self.shape = shape
        self.dtype = dtype
        self.like = like  # an array of the backend and device at hand
        self.most = most  # not 0: the most entries its sums may have, and it is never written out
        self._dense: Any = None

    def with_values(self, values: Any) -> "Hot":
        """The same places, other values."""
        return self.changed(values, self.shape, self.dtype)

    def changed(self, values: Any, shape: Shape, dtype: Any) -> "Hot":
        """The same places in rows of another shape, other values."""
        return Hot(self.rows, self.row, self.start, self.count, values, shape, dtype, self.like, self.most)

    def vector(self) -> Any:
        """The values as an array of length `count`."""
        if self.values is not None:
            return self.values
        return backend_of(self.like).ones((self.count,), self.dtype, self.like)

    def scaled(self, c: Any) -> "Hot":
        """Each row times the coefficient at its place."""
        if c is None:
            return self
        if type(c) is Mask:
            kept = self.with_values(scale(self.vector(), Mask(self.pick(c.keep))))
            return kept.scaled(c.factor)
        if type(c) is Guarded:
            return self.with_values(ew.guarded(self.vector(), self.pick(c.value)))
        picked = self.pick(c)
        if self.values is None and shape_of(picked) == (self.count,) and dtype_of(picked) == self.dtype:
            return self.with_values(picked)
        return self.with_values(scale(self.vector(), picked))

    def pick(self, c: Any) -> Any:
        """The entries of a coefficient at the places of the rows."""
        if shape_of(c) == ():
            return c
        for op in st.spread_steps(tuple(c.shape), self.shape):
            c = op(c)
        size = st.size_of(self.shape)
        flat = st.reshape(tuple(c.shape), (size,))(c) if len(c.shape) != 1 else c
        if self.count == size:
            return flat
        return ix.slice_of((size,), ((self.start, self.start + self.count, 1),))(flat)

    def window(self, start: int, stop: int, shape: Shape) -> Any:
        """The rows seen through raveled positions start..stop, which form an array of `shape`.

        None where no row is left; dense where the array is small, since a diagonal costs more then.
        """
        low, high = max(self.start, start), min(self.start + self.count, stop)
        if low >= high:
            return None
        values = self.values
        if values is not None and high - low != self.count:
            key = ((low - self.start, high - self.start, 1),)
            values = ix.slice_of((self.count,), key)(values)
        row = self.row + low - self.start
        seen = Hot(self.rows, row, low - start, high - low, values, shape, self.dtype, self.like, self.most)
        return seen if stop - start > _SMALL or self.most else seen.dense()

    def same_places(self, other: "Hot") -> bool:
        """Whether both have their values at the same places."""
        mine = (self.rows, self.row, self.start, self.count)
        return mine == (other.rows, other.row, other.start, other.count)

    def plus(self, other: "Hot") -> "Hot":
        """The sum of two with the same places."""
        return self.with_values(plus(self.vector(), other.vector()))

    def shared_dense(self) -> Any:
        """The rows written out once for several readers that only read; kept as long as this diagonal."""
        if self._dense is None:
            self._dense = self.dense()
        return self._dense

    def dense(self) -> Any:
        """The rows written out: shape (rows, *shape), new memory."""
        if self.most:
            raise TooWideError
        return self.written()

    def written(self) -> Any:
        """`dense`, also where the sweep must not."""
        size = st.size_of(self.shape)
        op = dg.from_diagonal((self.rows, size), self.row, self.start, self.count)
        full = (self.rows, *self.shape)
        matrix = op(self.vector())
        return matrix if matrix.shape == full else st.reshape((self.rows, size), full)(matrix)


def rows_of(hot: Hot, entry: Any, transpose: bool) -> Any:
    """A contraction with a constant applied to one-hot rows: scaled rows of the constant.

    None where the contraction is not of that form.
    """
    found = rows_by_place(entry, transpose)
    if found is None:
        return None
    rows = _scaled_rows(hot, *found)
    own = rows is not entry.operands[1 - entry.position]
    return rows if own or isinstance(rows, Tracer) else backend_of(rows).copy(rows)


def scales_rows(entry: Any) -> bool:
    """Whether an entry, forward, makes scaled rows of a constant from one-hot rows."""
    return entry.__class__ is Partial and rows_by_place(entry, False) is not None


def rows_into(hot: Hot, entry: Any, out: Any) -> bool:
    """`rows_of`, forward, into an array of NumPy's; False where the contraction is not of that form."""
    found = rows_by_place(entry, False) if entry.__class__ is Partial else None
    if found is None:
        return False
    constant, width = found
    constant = constant.reshape(st.size_of(hot.shape), *constant.shape[width:])[hot.start : hot.start + hot.count]
    if hot.count != hot.rows:
        out.fill(0)
    rows = out[hot.row : hot.row + hot.count]
    if hot.values is None:
        rows[...] = constant
    else:
        np.multiply(constant, hot.values.reshape(hot.count, *(1,) * (constant.ndim - 1)), out=rows)
    return True


def rows_by_place(entry: Any, transpose: bool) -> tuple[Any, int] | None:
    """The constant of a contraction with the axes of one-hot rows first, and their number."""
    op = entry.op
    if type(op) is not Contract:
        return None
    mine, theirs = (op.left, op.right) if entry.position == 0 else (op.right, op.left)
    before, after = (op.out, mine) if transpose else (mine, op.out)
    constant = entry.operands[1 - entry.position]
    if sorted(theirs) != sorted(before + after) or len(constant.shape) != len(theirs):
        return None
    order = tuple(theirs.index(letter) - len(theirs) for letter in before + after)
    shape = tuple(constant.shape)
    if order != tuple(range(-len(theirs), 0)):
        constant = st.permute(shape, order)(constant)
    if transpose and kind(constant.dtype) == "c":
        constant = st.CONJ(constant)
    return constant, len(before)


def _scaled_rows(hot: Hot, constant: Any, width: int) -> Any:
    rest = tuple(constant.shape[width:])
    size = st.size_of(hot.shape)
    if width != 1:
        constant = st.reshape(tuple(constant.shape), (size, *rest))(constant)
    if hot.count != size:
        key = ((hot.start, hot.start + hot.count, 1), *((0, n, 1) for n in rest))
        constant = ix.slice_of((size, *rest), key)(constant)
    if hot.values is not None:
        column = st.reshape((hot.count,), (hot.count,) + (1,) * len(rest))(hot.values)
        constant = times(constant, column)
    if hot.count != hot.rows:
        key = ((hot.row, hot.row + hot.count, 1), *((0, n, 1) for n in rest))
        constant = ix.pad((hot.rows, *rest), key)(constant)
    return constant
