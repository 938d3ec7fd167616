"""Putting arrays together: concatenate and stack, linear in all operands at once."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, final

from gpujac.core.aval import Aval, Shape
from gpujac.core.op import Joint, Sample, catalogued
from gpujac.ops.indexing import place, slice_of

_CACHE = 1 << 14
_LONG = 64  # ops of more operands are not interned: their keys would fill the cache


def _whole(shape: Shape) -> tuple:
    return tuple((0, n, 1) for n in shape)


@final
@catalogued
@dataclass(frozen=True)
class Concat(Joint):
    """Operands one after another along `axis` (from the end); `shapes` are their trailing ones."""

    name = "concat"
    shapes: tuple[Shape, ...]
    axis: int

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.concat(operands, axis=self.axis)

    @cached_property
    def dst(self) -> Shape:
        shape = list(self.shapes[0])
        shape[self.axis] = sum(s[self.axis] for s in self.shapes)
        return tuple(shape)

    @cached_property
    def keys(self) -> tuple:
        keys, start = [], 0
        for shape in self.shapes:
            key = list(_whole(self.dst))
            key[self.axis] = (start, start + shape[self.axis], 1)
            start += shape[self.axis]
            keys.append(tuple(key))
        return tuple(keys)

    def infer(self, *avals: Aval) -> Aval:
        lead = avals[0].shape[: len(avals[0].shape) - len(self.shapes[0])]
        return Aval(lead + self.dst, avals[0].dtype)

    @cached_property
    def parts(self) -> tuple:
        return tuple(slice_of(self.dst, k) for k in self.keys)

    def restricted(self, positions: tuple[int, ...]) -> Any:
        return place(self.dst, tuple(self.keys[p] for p in positions))

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        return tuple(len(s) for s in self.shapes)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(concat(((2,), (3,)), -1), (2,), (3,), complex_ok=True),
            Sample(concat(((2, 3), (1, 3), (2, 3)), -2), (2, 3), (1, 3), (2, 3)),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Stack(Joint):
    """`count` operands of one shape along a new axis `axis` (from the end of the result)."""

    name = "stack"
    src: Shape
    axis: int
    count: int

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.stack(operands, self.axis)

    @cached_property
    def dst(self) -> Shape:
        at = len(self.src) + 1 + self.axis
        return (*self.src[:at], self.count, *self.src[at:])

    @cached_property
    def keys(self) -> tuple:
        at = len(self.src) + 1 + self.axis
        whole = _whole(self.src)
        return tuple((*whole[:at], i, *whole[at:]) for i in range(self.count))

    def infer(self, *avals: Aval) -> Aval:
        lead = avals[0].shape[: len(avals[0].shape) - len(self.src)]
        return Aval(lead + self.dst, avals[0].dtype)

    @cached_property
    def parts(self) -> tuple:
        return tuple(slice_of(self.dst, k) for k in self.keys)

    def restricted(self, positions: tuple[int, ...]) -> Any:
        return place(self.dst, tuple(self.keys[p] for p in positions))

    @property
    def ranks(self) -> tuple[int, ...]:
        return (len(self.src),) * self.count

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(stack((), -1, 3), (), (), (), complex_ok=True),
            Sample(stack((2, 3), -2, 2), (2, 3), (2, 3)),
            Sample(stack((3,), -1, 2), (3,), (3,)),
        ]


def concat(shapes: tuple[Shape, ...], axis: int) -> Concat:
    """Concatenate along `axis`; only the trailing axes from `axis` on belong to the op."""
    trailing = tuple([s[axis:] for s in shapes])
    return _concat(trailing, axis) if len(shapes) <= _LONG else Concat(trailing, axis)


@lru_cache(_CACHE)
def _concat(shapes: tuple[Shape, ...], axis: int) -> Concat:
    return Concat(shapes, axis)


@lru_cache(_CACHE)
def stack(src: Shape, axis: int, count: int) -> Stack:
    """Stack along a new axis."""
    return Stack(src, axis, count)
