"""Overwriting parts of an array: cleared, or replaced by another array."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, final

from gpujac.core.aval import Aval, Shape
from gpujac.core.op import Joint, Linear, Sample, catalogued
from gpujac.ops.indexing import Key, as_slices, key_shape, pad, slice_of

_CACHE = 1 << 14


def _writable(be: Any, x: Any) -> Any:
    """A copy that can be written into: NumPy's scalars cannot."""
    if x.shape:
        return be.copy(x)
    out = be.zeros((), x.dtype, x)
    out[...] = x
    return out


@final
@catalogued
@dataclass(frozen=True)
class Clear(Linear):
    """The operand with zeros where the key points."""

    name = "clear"
    copies = folds = True
    in_place = True
    key: Key

    @cached_property
    def index(self) -> tuple:
        return (..., *as_slices(self.key))

    def evaluate(self, be: Any, x: Any) -> Any:
        out = _writable(be, x)
        out[self.index] = 0
        return out

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        if operands[0] is not out:
            out[...] = operands[0]
        out[self.index] = 0

    @cached_property
    def transposed(self) -> Linear:
        return self

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(clear((5,), ((1, 3, 1),)), (5,)), Sample(clear((2, 3), (1, (0, 3, 2))), (4, 2, 3))]


@final
@catalogued
@dataclass(frozen=True)
class SetSlice(Joint):
    """The first operand with the entries that the key selects replaced by the second."""

    name = "set_slice"
    in_place = True
    src: Shape
    key: Key

    @cached_property
    def index(self) -> tuple:
        return (..., *as_slices(self.key))

    def evaluate(self, be: Any, *operands: Any) -> Any:
        x, value = operands
        out = _writable(be, x)
        out[self.index] = value
        return out

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        x, value = operands
        if x is not out:
            out[...] = x
        out[self.index] = value

    def infer(self, *avals: Aval) -> Aval:
        return avals[0]

    @cached_property
    def parts(self) -> tuple:
        return clear(self.src, self.key), slice_of(self.src, self.key)

    def restricted(self, positions: tuple[int, ...]) -> Any:
        return self.parts[0] if positions == (0,) else pad(self.src, self.key)

    @property
    def ranks(self) -> tuple[int, ...]:
        return len(self.src), len(key_shape(self.key))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(set_slice((5,), ((1, 4, 1),)), (5,), (3,), complex_ok=True),
            Sample(set_slice((3, 4), (1, (0, 4, 2))), (3, 4), (2,)),
        ]


@lru_cache(_CACHE)
def clear(src: Shape, key: Key) -> Clear:
    """Zero the entries that `key` selects."""
    return Clear(src, src, key)


@lru_cache(_CACHE)
def set_slice(src: Shape, key: Key) -> SetSlice:
    """Replace the entries that `key` selects."""
    return SetSlice(src, key)
