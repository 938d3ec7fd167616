"""Rows of a Jacobian on their way into given memory: in order, once, flushed; from a device one chunk behind.

A target that lies in C order is written through a (rows, columns) view. Any other is written by slices of its
axes, which is all that is asked of it: zarr arrays and HDF5 datasets have no more.
"""

from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any

import numpy as np

from gpujac.backends.choose import backend_of, is_array
from gpujac.backends.mapped import write_back
from gpujac.core.aval import Shape, item_bytes
from gpujac.errors import ArgumentError
from gpujac.ops import structure as st
from gpujac.transforms.assemble import Block, Side, any_traced
from gpujac.transforms.given import check_untraced
from gpujac.transforms.hot import Hot
from gpujac.transforms.resume import Record, fingerprint

FLUSH_BYTES = 64 << 20  # between two flushes: large enough for a disk, small beside any memory


def boxes(shape: Shape, start: int, stop: int) -> Iterator[tuple[tuple, int, int]]:
    """Raveled positions start..stop of an array of `shape` as slices: (one slice per axis, start, stop)."""
    if start >= stop:
        return
    if len(shape) < 2:
        yield tuple([slice(start, stop) for _ in shape]), start, stop
        return
    width = st.size_of(shape[1:])
    line, whole = -(-start // width), stop // width  # lines that are covered whole
    if line > whole:  # inside of one line
        yield from _inside(shape, whole, start, stop, width)
        return
    yield from _inside(shape, line - 1, start, line * width, width)
    if line < whole:
        key = (slice(line, whole), *(slice(0, n) for n in shape[1:]))
        yield key, line * width, whole * width
    yield from _inside(shape, whole, whole * width, stop, width)


def _inside(shape: Shape, line: int, start: int, stop: int, width: int) -> Iterator[tuple[tuple, int, int]]:
    base = line * width
    for key, low, high in boxes(shape[1:], start - base, stop - base):
        yield (slice(line, line + 1), *key), low + base, high + base


class Target:
    """One array to write into, as the rows of its block."""

    __slots__ = ("array", "block", "leaf", "conjugate", "zeroed")

    def __init__(self, array: Any, block: Block, leaf: Shape, conjugate: bool, zeroed: bool) -> None:
        self.array, self.block = array, block
        self.leaf = leaf  # shape of the leaf whose entries are the rows
        self.conjugate = conjugate  # the adjoint of a holomorphic function is conj(f')
        self.zeroed = zeroed  # still as it was made, so that zeros need not be written
        n = st.size_of(block.shape)
        if _lies_in_order(array):
            plain = np.asarray(array) if isinstance(array, np.ndarray) else array
            block.matrix = plain.reshape((n, block.rows) if block.forward else (block.rows, n))

    def write(self, first: int, last: int, part: Any, row: int) -> None:
        """Rows first..last of the leaf from `part`, whose row `row` is the first of them."""
        block = self.block
        if block.matrix is None:
            self._write_boxes(first, last, self._dense(last - first, part, row))
            return
        rows = block.matrix[:, first:last] if block.forward else block.matrix[first:last, :]
        if not self.zeroed and not is_array(part):  # a diagonal only writes what is not zero
            rows[...] = 0
        block.write(first, last, part, row)
        if self.conjugate:
            rows[...] = st.CONJ(rows)

    def _dense(self, count: int, part: Any, row: int) -> Any:
        """Rows row..row + count of a part as a matrix."""
        block, n = self.block, st.size_of(self.block.shape)
        be = backend_of(block.like)
        if part is not None and is_array(part):
            rows = be.reshape(part, (part.shape[0], n))[row : row + count, :]
        else:
            some = Block(count, block.shape, block.dtype, False, block.like)
            some.allocate()
            some.write(0, count, part, row)
            rows = some.matrix
        rows = st.CONJ(rows) if self.conjugate else rows
        return rows if rows.dtype == block.dtype else be.cast(rows, block.dtype)

    def read(self, line: int) -> Any:
        """One row of the leaf, as it is in the array now."""
        block = self.block
        if block.matrix is not None:
            return block.matrix[:, line] if block.forward else block.matrix[line, :]
        ((key, _, _),) = boxes(self.leaf, line, line + 1)
        whole = tuple([slice(0, size) for size in block.shape])
        return self.array[(*whole, *key) if block.forward else (*key, *whole)]

    def _write_boxes(self, first: int, last: int, rows: Any) -> None:
        block = self.block
        be = backend_of(block.like)
        whole = tuple([slice(0, size) for size in block.shape])
        for key, low, high in boxes(self.leaf, first, last):
            box = tuple([k.stop - k.start for k in key])
            some = rows[low - first : high - first, :]
            if block.forward:
                self.array[(*whole, *key)] = be.reshape(be.swap_last(some), (*block.shape, *box))
            else:
                self.array[(*key, *whole)] = be.reshape(some, (*box, *block.shape))


def _lies_in_order(x: Any) -> bool:
    """Whether an array can be seen as rows and columns without a copy."""
    if isinstance(x, np.ndarray):
        return bool(x.flags.c_contiguous)
    return is_array(x) and backend_of(x).saturation_bytes is not None and bool(x.flags.c_contiguous)


class Sink:
    """The rows of a Jacobian, stored as they come; `with` it, what is on its way arrives and is flushed."""

    def __init__(self, what: str, arrays: list[list], targets: list[list[Target]], rows: Side,
                 fetcher: Any) -> None:  # fmt: skip
        self.what, self.rows = what, rows
        self.arrays = arrays  # by (output, input)
        self.targets = targets  # of the same arrays, by (row leaf, column leaf)
        self.fetcher = fetcher  # brings rows of a device to the host; None: they are where they are wanted
        self.record: Record | None = None
        self.start = self.done = 0
        self._flying: tuple | None = None  # the chunk that is on its way from the device
        self._unflushed = 0
        flat = [t for row in targets for t in row]
        self._flushed = [t.array for t in flat if callable(getattr(t.array, "flush", None))]
        self._row_bytes = max([sum([st.size_of(t.block.shape) * item_bytes(t.block.dtype) for t in row])
                               for row in targets] or [0])  # fmt: skip
        piecewise = self._flushed or any([t.block.matrix is None for t in flat])
        self._step = max(1, FLUSH_BYTES // max(self._row_bytes, 1)) if piecewise else max(rows.total, 1)

    def follow(self, record: Record) -> None:
        """Go on where a record says, and tell it from now on which rows are done."""
        done, digest = record.found()
        self.begin_at(done)
        if done and digest != self._digest():
            raise ArgumentError(
                f"{self.what}: resume={str(record.path)!r} says that {done} {self.lines} are done, but out does not "
                "hold them (was its file made anew, with mode='w+'?); give the array of that run, opened with 'r+', "
                "or remove the record to begin again"
            )
        self.record = record

    def begin_at(self, row: int) -> None:
        """Rows before `row` are there already."""
        if row > self.rows.total:
            raise ArgumentError(
                f"{self.what}: resume={row}, but the Jacobian has {self.rows.total} {self.lines} in all; give the "
                "first one to compute"
            )
        self.start = self.done = row

    def _digest(self) -> str:
        """A digest of the first, the middle and the last row that is done, read back."""
        lines = sorted({0, self.done // 2, self.done - 1}) if self.done else []
        found = []
        for line in lines:
            leaf = next(i for i, end in enumerate(self.rows.starts[1:]) if line < end)
            found += [target.read(line - self.rows.starts[leaf]) for target in self.targets[leaf]]
        return fingerprint(found)

    @property
    def lines(self) -> str:
        """What the rows of the basis are in the result."""
        return "columns" if any([t.block.forward for row in self.targets for t in row]) else "rows"

    def begin(self) -> None:
        """A chunk is about to be swept."""

    def undo(self) -> None:
        """A chunk ran out of memory: the one before it arrives now and gives its own back."""
        self._arrive()

    def store(self, parts: list, start: int, stop: int, plan: Any) -> None:
        """Rows start..stop of the basis, a part for each column leaf."""
        check_untraced(self.what, any_traced(parts))
        if self.fetcher is None:
            self._write(parts, start, stop)
            return
        before, self._flying = self._flying, (*self._sent(parts), start, stop)
        if before is not None:
            self._land(*before)

    def _sent(self, parts: list) -> tuple:
        """Parts queued for the host behind the sweep that makes them, and how to put them together there."""
        arrays = [p.vector() if type(p) is Hot else p for p in parts if p is not None]
        return self.fetcher.send([a if is_array(a) else a.dense() for a in arrays]), parts

    def _land(self, parcel: Any, parts: list, start: int, stop: int) -> None:
        """Wait for a chunk and write its rows."""
        found = iter(parcel.wait())
        landed = [None if p is None else _as_before(p, next(found)) for p in parts]
        self._write(landed, start, stop)

    def _arrive(self) -> None:
        before, self._flying = self._flying, None
        if before is not None:
            self._land(*before)

    def _write(self, parts: list, start: int, stop: int) -> None:
        for low in range(start, stop, self._step):
            high = min(low + self._step, stop)
            for i, row in enumerate(self.targets):
                first, last = self.rows.overlap(i, low, high)
                if first >= last:
                    continue
                offset = self.rows.starts[i] + first - start
                for target, part in zip(row, parts, strict=True):
                    target.write(first, last, part, offset)
            self.done = high
            self._unflushed += (high - low) * self._row_bytes
            if self._unflushed >= FLUSH_BYTES:
                self._flush()

    def _flush(self) -> None:
        """Rows that are done reach their files, and then the record says so."""
        self._unflushed = 0
        for x in self._flushed:
            write_back(x)
        if self.record is not None:
            self.record.write(self.done, self._digest())

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        if error is None:
            self._arrive()
            self._flush()
            if self.record is not None:
                self.record.drop()
            return
        with suppress(Exception):  # what stopped the run matters more; `done` says what has arrived
            self._arrive()
        self._flush()
        how = "the same call goes on there" if self.record is not None else f"resume={self.done} goes on there"
        error.add_note(
            f"gpujac: {self.done} of {self.rows.total} {self.lines} of the Jacobian are in out; the next is "
            f"{self.done}, and {how}"
        )


def _as_before(part: Any, values: Any) -> Any:
    """What stood for a part on the device, with its values on the host."""
    if type(part) is not Hot:
        return values
    return Hot(part.rows, part.row, part.start, part.count, values, part.shape, values.dtype, values)
