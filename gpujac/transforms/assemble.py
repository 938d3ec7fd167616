"""Putting the rows of chunks together: one block per (output, input) pair.

Two ways: keep the chunks and join them (stack), or write each into its rows of a preallocated
block. Blocks are separate arrays, so one output's never pins the memory of another's.
"""

from typing import Any

import numpy as np

from gpujac.array.shape import concatenate
from gpujac.backends.choose import backend_of
from gpujac.core.aval import Shape
from gpujac.core.trace import Tracer
from gpujac.ops import indexing as ix
from gpujac.ops import structure as st
from gpujac.transforms.flatten import owned
from gpujac.transforms.hot import Hot
from gpujac.transforms.terms import STRUCTURED, Terms


class Side:
    """The basis side of a Jacobian: the leaves whose entries are the rows, one after another."""

    __slots__ = ("shapes", "sizes", "starts", "total")

    def __init__(self, leaves: list) -> None:
        self.shapes = [tuple(s) for s in leaves]
        self.sizes = [st.size_of(s) for s in self.shapes]
        self.starts = [0]
        for n in self.sizes:
            self.starts.append(self.starts[-1] + n)
        self.total = self.starts[-1]

    def overlap(self, leaf: int, start: int, stop: int) -> tuple[int, int]:
        """Rows of the chunk start..stop that belong to the leaf, as positions in the leaf."""
        base = self.starts[leaf]
        return max(start - base, 0), min(stop - base, self.sizes[leaf])


class Block:
    """One (row leaf, column leaf) block of a Jacobian while it is assembled."""

    __slots__ = ("rows", "shape", "dtype", "forward", "matrix", "parts", "like", "_before")

    def __init__(self, rows: int, shape: Shape, dtype: Any, forward: bool, like: Any) -> None:
        self.rows = rows  # entries of the row leaf
        self.shape = shape  # of the column leaf
        self.dtype = dtype
        self.forward = forward  # rows become the last axes of the result
        self.like = like
        self.matrix: Any = None
        self.parts: list = []
        self._before: tuple[int, Any] = (0, None)

    def begin(self) -> None:
        """Remember what is there before a chunk."""
        self._before = (len(self.parts), self.matrix)

    def undo(self) -> None:
        """Put away what the last chunk has left half made; rows in the matrix are written again."""
        count, self.matrix = self._before
        del self.parts[count:]

    def allocate(self) -> None:
        """Reserve the whole block, zeroed (untouched pages cost nothing)."""
        n = st.size_of(self.shape)
        be = backend_of(self.like)
        shape = (n, self.rows) if self.forward else (self.rows, n)
        self.matrix = be.zeros(shape, self.dtype, self.like)

    def target(self, start: int, stop: int) -> Any:
        """Rows start..stop of a leaf of the basis side of reverse mode, to be written by someone else."""
        if self.matrix is None:
            self.allocate()
        return self.matrix[start:stop].reshape(stop - start, *self.shape)

    def write(self, start: int, stop: int, part: Any, row: int) -> None:
        """Rows start..stop of the leaf from `part`, whose row `row` is the first of them."""
        if part is None or start >= stop:
            return
        if type(part) in STRUCTURED:
            self._write_structured(start, part, row, stop - start)
            return
        target = self.matrix[:, start:stop] if self.forward else self.matrix[start:stop, :]
        n = st.size_of(self.shape)
        be = backend_of(self.like)
        flat = be.reshape(part, (part.shape[0], n))[row : row + stop - start, :]
        target[...] = be.swap_last(flat) if self.forward else flat

    def _write_structured(self, start: int, hot: Any, row: int, count: int) -> None:
        if type(hot) is Terms:
            steps = (1, self.rows) if self.forward else (st.size_of(self.shape), 1)
            hot.write(self.matrix.reshape(-1), *steps, start, row, count)
            return
        first, last = max(hot.row, row), min(hot.row + hot.count, row + count)
        if first >= last:
            return
        line, column = start + first - row, hot.start + first - hot.row
        values = hot.vector()[first - hot.row : last - hot.row]
        at = (column, line) if self.forward else (line, column)
        backend_of(self.like).set_diagonal(self.matrix, *at, values)

    def keep(self, start: int, stop: int, part: Any, row: int, rows: int) -> None:
        """Keep rows for joining; traced values and plain ones alike."""
        if start >= stop:
            return
        if self.matrix is not None:  # earlier chunks were plain, this one is traced
            self.parts.append(self._written(start))
        if part is None:
            be = backend_of(self.like)
            part = be.zeros((stop - start, *self.shape), self.dtype, self.like)
        else:
            part = part.written() if type(part) in STRUCTURED else part
            if (row, stop - start) != (0, rows):
                src = tuple(part.shape)
                key = ((row, row + stop - start, 1), *((0, n, 1) for n in src[1:]))
                part = ix.slice_of(src, key)(part)
        self.parts.append(part)

    def _written(self, count: int) -> Any:
        """The first rows of the preallocated block, taken out of it."""
        matrix, self.matrix = self.matrix, None
        be = backend_of(matrix)
        rows = be.swap_last(matrix) if self.forward else matrix
        return be.reshape(rows[:count, :], (count, *self.shape))

    def result(self, leaf: Shape) -> Any:
        """The finished block: shape leaf + shape reversed mode, shape + leaf forward mode."""
        if self.matrix is not None:
            matrix, self.matrix = self.matrix, None
        elif self.parts:
            parts, self.parts = self.parts, []
            fresh = len(parts) > 1
            joined = concatenate(parts, 0) if fresh else parts[0]
            if not fresh and not self.forward:  # before it is reshaped: a view would have to be copied
                joined = owned(joined, [])
            del parts  # forward mode still has to turn the matrix, which takes as much again
            n = st.size_of(self.shape)
            flat = tuple(joined.shape)
            matrix = st.reshape(flat, (self.rows, n))(joined) if flat != (self.rows, n) else joined
            matrix = self._finished(matrix, fresh)
        else:
            be = backend_of(self.like)
            n = st.size_of(self.shape)
            matrix = be.zeros((n, self.rows) if self.forward else (self.rows, n), self.dtype, self.like)
        shape = (*self.shape, *leaf) if self.forward else (*leaf, *self.shape)
        return st.reshape(tuple(matrix.shape), shape)(matrix) if tuple(matrix.shape) != shape else matrix

    def _finished(self, matrix: Any, fresh: bool) -> Any:
        """In the order of the result, and owned."""
        if isinstance(matrix, Tracer):
            return st.permute(tuple(matrix.shape), (-1, -2))(matrix) if self.forward else matrix
        if self.forward:
            return backend_of(matrix).swap_order(matrix)
        if fresh:  # chunks that were transposed views join in their own order
            return np.ascontiguousarray(matrix) if type(matrix) is np.ndarray else matrix
        return matrix


class Grid:
    """The blocks of a Jacobian in arrays of its own: one row of blocks for each leaf of the basis side."""

    __slots__ = ("rows", "blocks", "forward")

    def __init__(self, rows: Side, columns: Side, dtypes: list, forward: bool, like: Any) -> None:
        self.rows, self.forward = rows, forward
        self.blocks = [
            [Block(n, shape, dtype, forward, like) for shape, dtype in zip(columns.shapes, dtypes, strict=True)]
            for n in rows.sizes
        ]

    def begin(self) -> None:
        """A chunk is about to be swept."""
        for row in self.blocks:
            for block in row:
                block.begin()

    def undo(self) -> None:
        """The chunk ran out of memory and is done again in halves."""
        for row in self.blocks:
            for block in row:
                block.undo()

    def targets(self, start: int, stop: int, plan: Any) -> list:
        """For each column leaf the rows start..stop of the result as one array, None where they are not that."""
        for i, row in enumerate(self.blocks):
            if self.forward or plan.assembly != "preallocate" or self.rows.overlap(i, start, stop)[1] <= 0:
                continue
            first, last = self.rows.overlap(i, start, stop)
            if last - first == stop - start:
                return [block.target(first, last) for block in row]
        return [None] * len(self.blocks[0])

    def store(self, parts: list, start: int, stop: int, plan: Any) -> None:
        """Rows start..stop of the basis, a part for each column leaf."""
        traced = any_traced(parts) or any(b.parts for row in self.blocks for b in row)
        write = plan.assembly == "preallocate" and not traced
        alone = plan.chunks == 1 and not traced  # a diagonal goes straight into its place
        for i, row in enumerate(self.blocks):
            first, last = self.rows.overlap(i, start, stop)
            if first >= last:
                continue
            offset = self.rows.starts[i] + first - start
            for block, part in zip(row, parts, strict=True):
                if write or (alone and type(part) in STRUCTURED):
                    if block.matrix is None:
                        block.allocate()
                    block.write(first, last, part, offset)
                else:
                    block.keep(first, last, part, offset, stop - start)

    def results(self) -> list[list]:
        """The finished blocks as (output, input) rows of arrays."""
        done = [[b.result(shape) for b in row] for row, shape in zip(self.blocks, self.rows.shapes, strict=True)]
        return [list(column) for column in zip(*done, strict=True)] if self.forward else done


def any_traced(parts: list) -> bool:
    """Whether rows belong to an outer transform, so that they cannot be written into a buffer."""
    return any(isinstance(p.values if type(p) is Hot else p, Tracer) for p in parts)  # terms are plain
