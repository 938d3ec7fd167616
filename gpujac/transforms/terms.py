"""Sums of one-hot terms: rows of tangents that have a few entries each, known by row, column and value.

A diagonal (transforms/hot.py) becomes `Terms` where an op moves its entries elsewhere, or where it meets a
diagonal of other places. What an op does to places is not written down again here: it is asked for by
running the op on the positions themselves. NumPy arrays only; anything else is written out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.backends.host import HOST
from gpujac.core.aval import Shape, shape_of
from gpujac.core.op import Mask
from gpujac.ops.agree import Guarded, scale
from gpujac.ops.elementwise import guarded
from gpujac.ops.structure import Reshape, size_of
from gpujac.transforms.hot import Hot, TooWideError, rows_by_place

# Measured 2026-11 on one core of an AMD EPYC with NumPy 2.4 (docs/decisions/0029).
_ENTRY = 8  # dense entries that are swept in the time that one entry of a term takes, 1.2 ns and its share of joining
_STEP = 1 << 15  # dense entries that are swept in the 10 us that a step through terms takes at least
_SHARE = 32  # of the entries of a whole result, the part that its rows may have as terms: a fifth of its bytes
_ROW = 40  # entries that a matrix product takes in, in the time that a scaled row of the matrix takes for each of it
_MANY = 64  # terms that are joined into one, for each costs a few calls per step


def most_entries(rows: int, columns: int) -> int:
    """How many entries the rows of a whole result may have as terms."""
    return rows * columns // _SHARE


class Term:
    """Entries of the rows: `values[i]` (None: one) at row `rows[i]`, column `columns[i]`.

    `single`: no row has two of them.
    """

    __slots__ = ("rows", "columns", "values", "single")

    def __init__(self, rows: np.ndarray, columns: np.ndarray, values: Any, single: bool = True) -> None:
        self.rows, self.columns, self.values, self.single = rows, columns, values, single

    def vector(self, dtype: Any) -> np.ndarray:
        """The values as an array."""
        return np.ones(self.columns.shape, dtype) if self.values is None else self.values

    def signature(self) -> tuple:
        """A few of the places: most terms of other places differ in it."""
        r, c, n = self.rows, self.columns, len(self.columns)
        return n, int(r[0]), int(r[-1]), int(c[0]), int(c[n // 2]), int(c[-1])

    def same_places(self, other: "Term") -> bool:
        """Whether both have their values at the same places, in the same order."""
        return _equal(self.rows, other.rows) and _equal(self.columns, other.columns)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a is b or np.array_equal(a, b)


class Terms:
    """Rows that are sums of terms; immutable but for the sums that `added` builds up."""

    __slots__ = ("rows", "shape", "dtype", "most", "terms", "count", "open")

    def __init__(self, rows: int, shape: Shape, dtype: Any, most: int) -> None:
        self.rows, self.shape, self.dtype = rows, shape, dtype
        self.most = most  # not 0: the most entries it may have, and it is never written out
        self.terms: dict[tuple, Term] = {}
        self.count = 0  # entries
        self.open = False  # whether `added` may put more into it

    def of(self, terms: Any, shape: Shape | None = None, dtype: Any = None) -> "Terms":
        """The same rows with other terms."""
        made = Terms(self.rows, self.shape if shape is None else shape, dtype or self.dtype, self.most)
        for term in terms:
            made.put(term)
        return made

    def put(self, term: Term) -> None:
        """Take one more term in, together with the one that has the same places."""
        if not len(term.columns):
            return
        key = term.signature()
        old = self.terms.get(key)
        if old is None:
            self.terms[key] = term
        elif old.same_places(term):
            total = old.vector(self.dtype) + term.vector(self.dtype)
            self.terms[key] = Term(old.rows, old.columns, total, old.single)
            return
        else:
            self.terms[*key, id(term)] = term
        self.count += len(term.columns)

    def listed(self) -> list[Term]:
        """All terms."""
        return list(self.terms.values())

    def scaled(self, c: Any) -> Any:
        """Each row times the coefficients at its places."""
        if c is None:
            return self
        if type(c) is Mask:
            kept = self._changed(c.keep, lambda t, keep: np.where(keep, t.vector(self.dtype), 0))
            return scale(self.dense(), c) if kept is None else kept.scaled(c.factor)
        if type(c) is Guarded:  # a zero stays one only if it is whole
            whole = self if len(self.terms) < 2 and all([t.single for t in self.listed()]) else self.joined()
            found = whole._changed(c.value, lambda t, value: guarded(t.vector(self.dtype), value))
        else:
            found = self._changed(c, self._times)
        return scale(self.dense(), c) if found is None else found

    def _times(self, term: Term, c: Any) -> Any:
        if term.values is None and shape_of(c) != () and c.dtype == self.dtype:
            return c
        return term.vector(self.dtype) * c

    def _changed(self, c: Any, change: Callable[[Term, Any], Any]) -> "Terms | None":
        """The same places, values changed by those of `c` there; None where that is no array of NumPy's."""
        if c.__class__ not in HOST_TYPES:
            return None
        x: Any = c
        if shape_of(x) == ():
            return self.of([Term(t.rows, t.columns, change(t, c), t.single) for t in self.listed()])
        flat = (x if x.shape == self.shape else np.broadcast_to(x, self.shape)).reshape(-1)
        return self.of([Term(t.rows, t.columns, change(t, flat[t.columns]), t.single) for t in self.listed()])

    def entrywise(self, op: Any) -> "Terms":
        """An op of each entry by itself, as a cast is."""
        made = [Term(t.rows, t.columns, op(t.vector(self.dtype)), t.single) for t in self.listed()]
        return self.of(made, None, made[0].values.dtype if made else op(np.zeros(1, self.dtype)).dtype)

    def moved(self, to: np.ndarray, shape: Shape) -> "Terms":
        """Each entry moved to one of `shape` at most: `to` has, for each of mine, its position plus one, 0 for none."""
        to = np.asarray(to).reshape(-1)
        made = []
        for t in self.listed():
            columns = to[t.columns]
            if columns.all():
                made.append(Term(t.rows, columns - 1, t.values, t.single))
                continue
            kept = np.flatnonzero(columns)
            values = None if t.values is None else t.values[kept]
            made.append(Term(t.rows[kept], columns[kept] - 1, values, t.single))
        return self.of(made, shape)

    def repeated(self, of: np.ndarray, shape: Shape) -> "Terms":
        """Each entry copied to those of `shape` that read it: `of` has, for each, the position plus one, 0 for none."""
        of = np.asarray(of).reshape(-1)
        readers = np.argsort(of, kind="stable")
        counts = np.bincount(of, minlength=size_of(self.shape) + 1)
        first = (np.cumsum(counts) - counts)[1:]
        counts = counts[1:]
        made = []
        for t in self.listed():
            times = counts[t.columns]
            which = np.repeat(np.arange(len(times)), times)
            later = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
            columns = readers[first[t.columns[which]] + later]
            values = None if t.values is None else t.values[which]
            made.append(Term(t.rows[which], columns, values, t.single and bool((times <= 1).all())))
        return self.of(made, shape)

    def joined(self) -> "Terms":
        """The same rows as one term in which no place is named twice."""
        terms = self.listed()
        if not terms:
            return self
        places = np.concatenate([t.rows * size_of(self.shape) + t.columns for t in terms])
        values = np.concatenate([t.vector(self.dtype) for t in terms])
        order = np.argsort(places, kind="stable")
        places = places[order]
        starts = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]]))
        rows, columns = np.divmod(places[starts], size_of(self.shape))
        single = bool((rows[1:] != rows[:-1]).all())
        return self.of([Term(rows, columns, np.add.reduceat(values[order], starts), single)])

    def settled(self) -> Any:
        """These rows once they are complete: as they are, as one term, or written out where that is cheaper."""
        self.open = False
        most = self.most or self.rows * size_of(self.shape) // _ENTRY
        if self.count <= most and len(self.terms) <= _MANY:
            return self
        one = self.joined()
        return one if one.count <= most else one.dense()

    def dense(self) -> np.ndarray:
        """The rows written out: shape (rows, *shape), new memory."""
        if self.most:
            raise TooWideError
        return self.written()

    def written(self) -> np.ndarray:
        """`dense`, also where the sweep must not."""
        size = size_of(self.shape)
        flat = np.zeros(self.rows * size, self.dtype)
        self.write(flat, size, 1, 0, 0, self.rows)
        return flat.reshape(self.rows, *self.shape)

    def write(self, flat: np.ndarray, row_step: int, column_step: int, line: int, row: int, count: int) -> None:
        """Put rows row..row+count into an array that is zero there, the first of them as number `line`.

        An entry (line, column) stands at line * row_step + column * column_step.
        """
        parts = []
        for t in self.listed():
            rows, columns, values = t.rows, t.columns, t.vector(self.dtype)
            if row > 0 or count < self.rows:
                kept = np.flatnonzero((rows >= row) & (rows < row + count))
                rows, columns, values = rows[kept], columns[kept], values[kept]
            parts.append(((rows + (line - row)) * row_step + columns * column_step, values, t.single))
        if len(parts) == 1 and parts[0][2]:
            flat[parts[0][0]] = parts[0][1]
            return
        for places, _, _ in parts:  # a write that is tried again must not add to what the first one left
            flat[places] = 0
        for places, values, single in parts:
            if single:
                flat[places] += values
            else:
                np.add.at(flat, places, values)


def as_terms(hot: Any) -> Terms | None:
    """A diagonal as terms; None where it had better be written out, or is no array of NumPy's."""
    if type(hot) is Terms:
        return hot
    if not hot.most and hot.rows * size_of(hot.shape) < _STEP:
        return None
    if backend_of(hot.like) is not HOST or not (hot.values is None or type(hot.values) is np.ndarray):
        return None
    made = Terms(hot.rows, hot.shape, hot.dtype, hot.most)
    row, column = np.arange(hot.count) + hot.row, np.arange(hot.count) + hot.start
    made.put(Term(row, column, hot.values))
    return made


def added(a: Any, b: Any) -> Any:
    """The sum of diagonals and terms; None where it had better be made of the rows written out."""
    if type(a) is Hot and type(b) is Hot and a.same_places(b):
        return a.plus(b)
    one, other = as_terms(a), as_terms(b)
    if one is None or other is None:
        return None
    total = one if one.open else one.of(one.listed())
    total.open = True
    for term in other.listed():
        total.put(term)
    return total


def through(terms: Terms, op: Any) -> Terms | None:
    """What a structural op makes of terms; None where it mixes entries."""
    if not op.src and not op.dst:
        return terms.entrywise(op)
    shape = (*terms.shape[: len(terms.shape) - len(op.src)], *op.dst)
    if type(op) is Reshape:
        return terms.of(terms.listed(), shape)
    if op.folds:
        return terms.moved(op.transposed(_positions(shape)), shape)
    return terms.repeated(op(_positions(terms.shape)), shape) if op.copies else None


def through_partial(terms: Terms, entry: Any, shape: Shape, transpose: bool) -> Terms | None:
    """What an op with constant operands makes of terms, forward or transposed; None where it mixes entries.

    `shape`: of the result.
    """
    op, position, operands = entry.op, entry.position, entry.operands
    plain = all([x.__class__ in HOST_TYPES for p, x in enumerate(operands) if p != position])
    if not plain or not (op.copies or op.folds):
        return None

    def forward(x: Any) -> Any:
        return op(*(x if p == position else c for p, c in enumerate(operands)))

    def backward(x: Any) -> Any:
        return op.transpose(position, x, operands, shape if transpose else terms.shape)

    this, adjoint = (backward, forward) if transpose else (forward, backward)
    if op.copies if transpose else op.folds:
        return terms.moved(adjoint(_positions(shape)), shape)
    return terms.repeated(this(_positions(terms.shape)), shape)


def scales_few_rows(terms: Terms) -> bool:
    """Whether a contraction with a constant costs less as scaled rows of the constant, one for each entry."""
    return terms.count * _ROW <= terms.rows * size_of(terms.shape)


def rows_of_terms(terms: Terms, entry: Any, transpose: bool) -> Any:
    """A contraction with a constant applied to few terms: sums of scaled rows of the constant, as `rows_of`."""
    found = rows_by_place(entry, transpose) if scales_few_rows(terms) else None
    if found is None or type(found[0]) is not np.ndarray:
        return None
    size = size_of(terms.shape)
    constant, rest = found[0].reshape(size, -1), found[0].shape[found[1] :]
    out = np.zeros((terms.rows, constant.shape[1]), np.result_type(terms.dtype, constant))
    for t in terms.listed():
        rows = constant[t.columns]
        rows = rows if t.values is None else rows * t.values[:, None]
        if t.single:
            out[t.rows] += rows
        else:
            np.add.at(out, t.rows, rows)
    return out.reshape(terms.rows, *rest)


def _positions(shape: Shape) -> np.ndarray:
    """The positions of the entries plus one, so that 0 is none of them."""
    return np.arange(1, size_of(shape) + 1).reshape(shape)


STRUCTURED = frozenset((Hot, Terms))
