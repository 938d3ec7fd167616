"""Reading and writing parts of arrays: slices, takes, and their transposes.

A basic key is a tuple with one entry per trailing axis of the operand: an int, or a
(start, stop, step) triple as `slice.indices` gives it.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, final

import numpy as np

from gpujac.backends.choose import backend_of
from gpujac.core.aval import Aval, Shape
from gpujac.core.op import General, Joint, Linear, Sample, catalogued
from gpujac.ops.batching import as_shape, both_to_front, reorder, shift_index
from gpujac.ops.rolled import add_to
from gpujac.ops.structure import spread

_CACHE = 1 << 14
_LONG = 64  # ops of more operands are not interned: their keys would fill the cache
Key = tuple


def as_slices(key: Key) -> tuple:
    """A basic key as NumPy takes it."""
    parts: list = []
    for k in key:
        if isinstance(k, int):
            parts.append(k)
        else:
            start, stop, step = k
            parts.append(slice(start, None if stop < 0 else stop, step))
    return tuple(parts)


def key_shape(key: Key) -> Shape:
    """The shape that a basic key selects."""
    return tuple(len(range(*k)) for k in key if not isinstance(k, int))


@final
@catalogued
@dataclass(frozen=True)
class Slice(Linear):
    """The entries that a basic key selects; integer positions drop their axis."""

    name = "slice"
    copies = folds = True
    views = True
    key: Key

    @cached_property
    def index(self) -> tuple:
        return as_slices(self.key)

    def evaluate(self, be: Any, x: Any) -> Any:
        if len(x.shape) == len(self.src):
            return x[self.index]  # without an Ellipsis: scalars stay scalars
        return x[(..., *self.index)]

    @cached_property
    def transposed(self) -> Linear:
        return pad(self.src, self.key)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(slice_of((5,), ((1, 4, 1),)), (5,), complex_ok=True),
            Sample(slice_of((5,), ((4, -1, -2),)), (5,)),
            Sample(slice_of((3, 4), (1, (0, 4, 2))), (2, 3, 4)),
            Sample(slice_of((3,), (2,)), (3,)),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Pad(Linear):
    """Zeros of shape `dst` with the operand written where the key points."""

    name = "pad"
    accumulates = True
    copies = folds = True
    key: Key

    @cached_property
    def index(self) -> tuple:
        return (..., *as_slices(self.key))

    def evaluate(self, be: Any, x: Any) -> Any:
        buffer = be.zeros(self.lead(x) + self.dst, x.dtype, x)
        buffer[self.index] = x
        return buffer

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        out.fill(0)
        out[self.index] = operands[0]

    def accumulate(self, be: Any, out: Any, *operands: Any) -> None:
        add_to(out, self.index, operands[0])

    @cached_property
    def transposed(self) -> Linear:
        return slice_of(self.dst, self.key)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(pad((5,), ((1, 4, 1),)), (3,), complex_ok=True),
            Sample(pad((3, 4), (1, (3, -1, -2))), (6, 2)),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Place(Joint):
    """Zeros of shape `dst` to which each operand is added where its key points."""

    name = "place"
    accumulates = True
    dst: Shape
    keys: tuple[Key, ...]

    @cached_property
    def indices(self) -> tuple:
        return tuple((..., *as_slices(k)) for k in self.keys)

    @cached_property
    def is_stack(self) -> bool:
        """Whether the operands are the entries of a vector, in order."""
        return self.dst == (len(self.keys),) and all(k == (i,) for i, k in enumerate(self.keys))

    def evaluate(self, be: Any, *operands: Any) -> Any:
        if self.is_stack:
            return be.stack(operands, -1)
        first = operands[0]
        lead = first.shape[: len(first.shape) - self.ranks[0]]
        buffer = be.zeros(lead + self.dst, first.dtype, first)
        for index, piece in zip(self.indices, operands, strict=True):
            buffer[index] += piece
        return buffer

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        out.fill(0)
        self.accumulate(be, out, *operands)

    def accumulate(self, be: Any, out: Any, *operands: Any) -> None:
        for index, piece in zip(self.indices, operands, strict=True):
            add_to(out, index, piece)

    def infer(self, *avals: Aval) -> Aval:
        lead = avals[0].shape[: len(avals[0].shape) - self.ranks[0]]
        return Aval(lead + self.dst, avals[0].dtype)

    @cached_property
    def parts(self) -> tuple:
        return tuple(slice_of(self.dst, k) for k in self.keys)

    def restricted(self, positions: tuple[int, ...]) -> Any:
        return place(self.dst, tuple(self.keys[p] for p in positions))

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        return tuple(len(key_shape(k)) for k in self.keys)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(place((5,), (((0, 3, 1),), ((2, 5, 1),))), (3,), (3,), complex_ok=True),
            Sample(place((3, 2), ((0, (0, 2, 1)), (1, 1))), (2,), ()),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Take(General):
    """Entries of `x` at integer positions along one axis of length `size`, `rest` axes after it."""

    name = "take"
    copies = True
    linear_in = (0,)
    indexes = True
    size: int
    rest: int

    def evaluate(self, be: Any, *operands: Any) -> Any:
        x, index = operands
        return be.take(x, index, -1 - self.rest)

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        # the positions were checked when the function ran; with mode="raise" NumPy would buffer the result
        np.take(operands[0], operands[1], axis=-1 - self.rest, out=out, mode="wrap")

    def backend(self, operands: tuple) -> Any:
        return backend_of(operands[0])  # a NumPy index reads an array of any library

    def infer(self, *avals: Aval) -> Aval:
        x, index = avals
        at = len(x.shape) - 1 - self.rest
        return Aval(x.shape[:at] + index.shape + x.shape[at + 1 :], x.dtype)

    def transpose(self, position: int, ct: Any, operands: tuple, shape: Shape) -> Any:
        return scatter_add(self.size, self.rest, len(operands[1].shape))(ct, operands[1])

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        (x, index), (x_axis, index_axis) = xs, axes
        if x_axis is None:  # the mapped axis of the index lands between the axes of the result
            return self(x, index), index_axis - self.rest
        if index_axis is None:
            x = both_to_front((x,), (x_axis,))[0]
            result = self(x, index)
            return result, -len(result.shape)
        x, index = both_to_front((x, index), (x_axis, index_axis))
        at = len(x.shape) - 1 - self.rest
        if at == 1:  # (B, size, rest) at (B, ...): one take in the flattened first two axes
            merged = as_shape(x, (size * self.size, *x.shape[2:]))
            result = take(size * self.size, self.rest)(merged, shift_index(index, size, self.size))
            return result, -len(result.shape)
        return self._batch_with_lead(size, x, index, at)

    def _batch_with_lead(self, size: int, x: Any, index: Any, at: int) -> tuple[Any, int]:
        # (B, lead..., n, rest) at (B, ...): move lead behind the taken axis, take, move it back
        lead = at - 1
        order = (0, at, *range(1, at), *range(at + 1, len(x.shape)))
        merged = reorder(x, order)
        merged = as_shape(merged, (size * self.size, *merged.shape[2:]))
        result = take(size * self.size, lead + self.rest)(merged, shift_index(index, size, self.size))
        width = len(index.shape) - 1
        back = (0, *range(1 + width, 1 + width + lead), *range(1, 1 + width),
                *range(1 + width + lead, len(result.shape)))  # fmt: skip
        return reorder(result, back), -len(result.shape)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(take(3, 0), (3,), (4,), kinds="fn", complex_ok=True),
            Sample(take(3, 1), (2, 3, 2), (3,), kinds="fn"),
            Sample(take(3, 0), (3,), (2, 2), kinds="fn"),
            Sample(take(3, 1), (3, 2), (), kinds="fn"),
            Sample(take(3, 1), (2, 4, 3, 2), (4,), kinds="fn"),
        ]


@final
@catalogued
@dataclass(frozen=True)
class ScatterAdd(General):
    """Zeros with `size` positions along one axis to which `ct` is added at integer positions."""

    name = "scatter_add"
    accumulates = True
    folds = True
    adds = True
    linear_in = (0,)
    indexes = True
    size: int
    rest: int
    width: int  # axes of the index

    def evaluate(self, be: Any, *operands: Any) -> Any:
        ct, index = operands
        at = len(ct.shape) - self.rest - self.width
        shape = ct.shape[:at] + (self.size,) + ct.shape[at + self.width :]
        buffer = be.zeros(shape, ct.dtype, ct)
        be.add_at(buffer, index, ct, self.rest)
        return buffer

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        out.fill(0)
        self.accumulate(be, out, *operands)

    def accumulate(self, be: Any, out: Any, *operands: Any) -> None:
        be.add_at(out, operands[1], operands[0], self.rest)

    def backend(self, operands: tuple) -> Any:
        return backend_of(operands[0])  # a NumPy index writes into an array of any library

    def infer(self, *avals: Aval) -> Aval:
        ct = avals[0]
        at = len(ct.shape) - self.rest - self.width
        return Aval(ct.shape[:at] + (self.size,) + ct.shape[at + self.width :], ct.dtype)

    def transpose(self, position: int, ct: Any, operands: tuple, shape: Shape) -> Any:
        return take(self.size, self.rest)(ct, operands[1])

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        (ct, index), (ct_axis, index_axis) = xs, axes
        if index_axis is None:
            result = self(both_to_front((ct,), (ct_axis,))[0], index)
            return result, -len(result.shape)
        if ct_axis is None:
            (index,) = both_to_front((index,), (index_axis,))
            ct = spread(ct.shape, (size, *ct.shape), (-1 - len(ct.shape),))(ct)
        else:
            ct, index = both_to_front((ct, index), (ct_axis, index_axis))
        lead = len(ct.shape) - 1 - self.rest - self.width
        order = (0, *range(1 + lead, 1 + lead + self.width), *range(1, 1 + lead),
                 *range(1 + lead + self.width, len(ct.shape)))  # fmt: skip
        merged = reorder(ct, order)
        flat = scatter_add(size * self.size, lead + self.rest, self.width + 1)
        out = flat(merged, shift_index(index, size, self.size))
        out = as_shape(out, (size, self.size, *out.shape[1:]))
        back = (0, *range(2, 2 + lead), 1, *range(2 + lead, len(out.shape)))
        result = reorder(out, back)
        return result, -len(result.shape)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(scatter_add(4, 0, 1), (3,), (3,), kinds="fn", complex_ok=True),
            Sample(scatter_add(3, 1, 1), (2, 4, 2), (4,), kinds="fn"),
            Sample(scatter_add(3, 0, 2), (2, 2), (2, 2), kinds="fn"),
            Sample(scatter_add(3, 1, 2), (3, 2, 2, 4), (2, 2), kinds="fn"),
        ]


@lru_cache(_CACHE)
def slice_of(src: Shape, key: Key) -> Slice:
    """Read the entries of the trailing axes `src` that `key` selects."""
    return Slice(src, key_shape(key), key)


@lru_cache(_CACHE)
def pad(dst: Shape, key: Key) -> Pad:
    """Write into zeros of trailing shape `dst` where `key` points."""
    return Pad(key_shape(key), dst, key)


def place(dst: Shape, keys: tuple[Key, ...]) -> Any:
    """Add several pieces into zeros; one piece is a pad."""
    if len(keys) == 1:
        return pad(dst, keys[0])
    return _place(dst, keys) if len(keys) <= _LONG else Place(dst, keys)


@lru_cache(_CACHE)
def _place(dst: Shape, keys: tuple[Key, ...]) -> Place:
    return Place(dst, keys)


@lru_cache(_CACHE)
def take(size: int, rest: int) -> Take:
    """Take along the axis of length `size` that `rest` axes follow."""
    return Take(size, rest)


@lru_cache(_CACHE)
def scatter_add(size: int, rest: int, width: int) -> ScatterAdd:
    """The transpose of a take with an index of `width` axes."""
    return ScatterAdd(size, rest, width)
