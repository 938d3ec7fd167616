"""Structural linear ops on trailing axes: sum and spread, reshape, permute, flip, roll, cast.

Families close under transposition: sum <-> spread, reshape <-> reshape, permute <-> permute.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, final

import numpy as np

from gpujac.core.aval import Aval, Shape, kind
from gpujac.core.op import Linear, Sample, catalogued
from gpujac.ops.rolled import add_to, moves_of

_F32, _F64, _C128 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.complex128)
_CACHE = 1 << 14  # entries per factory: plain parameters -> interned op


@final
@catalogued
@dataclass(frozen=True)
class Sum(Linear):
    """Adds the entries along `axes` (counted from the end); those axes disappear."""

    name = "sum"
    folds = True
    adds = True
    axes: Shape

    def evaluate(self, be: Any, x: Any) -> Any:
        return be.sum(x, self.axes)

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        np.add.reduce(operands[0], axis=self.axes, out=out)

    @cached_property
    def transposed(self) -> Linear:
        return spread(self.dst, self.src, self.axes)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(sum_over((2, 3), (-1,)), (2, 3), complex_ok=True),
            Sample(sum_over((2, 3), (-2,)), (4, 2, 3), complex_ok=True),
            Sample(sum_over((2, 3), (-2, -1)), (2, 3)),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Spread(Linear):
    """Repeats the array along new axes `axes` of `dst` (counted from the end)."""

    name = "spread"
    copies = True
    axes: Shape

    @cached_property
    def inner(self) -> Shape:
        """The trailing shape with ones at the new axes."""
        rank = len(self.dst)
        new = {a % rank for a in self.axes}
        return tuple(1 if i in new else n for i, n in enumerate(self.dst))

    def evaluate(self, be: Any, x: Any) -> Any:
        lead = self.lead(x)
        return be.spread(x, lead + self.inner, lead + self.dst)

    def view(self, x: Any) -> Any:
        lead = self.lead(x)
        return np.broadcast_to(x.reshape(lead + self.inner), lead + self.dst)  # new axes of length one: never a copy

    @cached_property
    def transposed(self) -> Linear:
        return sum_over(self.dst, self.axes)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(spread((3,), (2, 3), (-2,)), (3,), complex_ok=True),
            Sample(spread((3,), (3, 4), (-1,)), (2, 3)),
            Sample(spread((), (3,), (-1,)), ()),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Reshape(Linear):
    """The same entries in C order under another trailing shape."""

    name = "reshape"
    copies = folds = True

    def evaluate(self, be: Any, x: Any) -> Any:
        return be.reshape(x, self.lead(x) + self.dst)

    def view(self, x: Any) -> Any:
        with suppress(ValueError):  # raised where the entries do not lie in that order
            return x.reshape(self.lead(x) + self.dst, copy=False)
        return None

    @cached_property
    def transposed(self) -> Linear:
        return reshape(self.dst, self.src)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(reshape((2, 3), (3, 2)), (2, 3), complex_ok=True),
            Sample(reshape((2, 3), (6,)), (4, 2, 3)),
            Sample(reshape((), (1, 1)), ()),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Permute(Linear):
    """Trailing axes in another order: `order[i]` is the source of result axis i, from the end."""

    name = "permute"
    copies = folds = True
    views = True
    order: Shape

    def evaluate(self, be: Any, x: Any) -> Any:
        extra = len(x.shape) - len(self.src)
        rank = len(x.shape)
        return be.permute(x, (*range(extra), *(rank + a for a in self.order)))

    @cached_property
    def transposed(self) -> Linear:
        rank = len(self.order)
        back = sorted(range(-rank, 0), key=lambda i: self.order[i])
        return permute(self.dst, tuple(back))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(permute((2, 3, 4), (-1, -3, -2)), (2, 3, 4), complex_ok=True),
            Sample(permute((2, 3), (-1, -2)), (5, 2, 3)),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Flip(Linear):
    """Entries in reverse order along `axes`."""

    name = "flip"
    copies = folds = True
    views = True
    axes: Shape

    def evaluate(self, be: Any, x: Any) -> Any:
        return be.xp.flip(x, axis=self.axes)

    @cached_property
    def transposed(self) -> Linear:
        return self

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(flip((2, 3), (-1,)), (2, 3), complex_ok=True),
            Sample(flip((2, 3), (-1, -2)), (4, 2, 3)),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Roll(Linear):
    """Entries moved cyclically by `shifts` along `axes`."""

    name = "roll"
    accumulates = True
    copies = folds = True
    shifts: Shape
    axes: Shape

    def evaluate(self, be: Any, x: Any) -> Any:
        return be.xp.roll(x, self.shifts, axis=self.axes)

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        for target, source in moves_of(self.src, self.shifts, self.axes):
            out[target] = operands[0][source]

    def accumulate(self, be: Any, out: Any, *operands: Any) -> None:
        for target, source in moves_of(self.src, self.shifts, self.axes):
            add_to(out, target, operands[0][source])

    @cached_property
    def transposed(self) -> Linear:
        return roll(self.src, tuple(-s for s in self.shifts), self.axes)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(roll((4,), (1,), (-1,)), (4,), complex_ok=True),
            Sample(roll((2, 3), (1, -2), (-2, -1)), (4, 2, 3)),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Cast(Linear):
    """The same values in another floating dtype; complex to real takes the real part."""

    name = "cast"
    before: Any
    after: Any

    def evaluate(self, be: Any, x: Any) -> Any:
        if kind(self.before) == "c" and kind(self.after) != "c":
            return be.cast(be.xp.real(x), self.after)
        return be.cast(x, self.after)

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        (x,) = operands
        out[...] = x.real if kind(self.before) == "c" and kind(self.after) != "c" else x

    def infer(self, *avals: Aval) -> Aval:
        return Aval(avals[0].shape, self.after)

    @cached_property
    def transposed(self) -> Linear:
        return cast(self.after, self.before)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(cast(_F64, _F32), (2, 3), double=True), Sample(cast(_C128, _F64), (2, 3), kinds="c")]


@final
@catalogued
@dataclass(frozen=True)
class Conj(Linear):
    """Complex conjugate: real-linear, its own transpose under Re<a, b>."""

    name = "conj"
    in_place = True

    def evaluate(self, be: Any, x: Any) -> Any:
        return be.xp.conj(x)

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        np.conjugate(operands[0], out)

    @cached_property
    def transposed(self) -> Linear:
        return self

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(CONJ, (2, 3), kinds="c")]


@final
@catalogued
@dataclass(frozen=True)
class Real(Linear):
    """Real part of a complex array."""

    name = "real"
    views = True
    before: Any
    after: Any

    def evaluate(self, be: Any, x: Any) -> Any:
        return be.xp.real(x)

    def infer(self, *avals: Aval) -> Aval:
        return Aval(avals[0].shape, self.after)

    @cached_property
    def transposed(self) -> Linear:
        return cast(self.after, self.before)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(real(_C128, _F64), (2, 3), kinds="c")]


@final
@catalogued
@dataclass(frozen=True)
class Imag(Linear):
    """Imaginary part of a complex array."""

    name = "imag"
    views = True
    before: Any
    after: Any

    def evaluate(self, be: Any, x: Any) -> Any:
        return be.xp.imag(x)

    def infer(self, *avals: Aval) -> Aval:
        return Aval(avals[0].shape, self.after)

    @cached_property
    def transposed(self) -> Linear:
        # Re(conj(i ct) (a + i b)) = ct b
        return times_1j(self.after, self.before)

    def depends(self, *patterns: Any) -> Any:
        return patterns[0]

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(imag(_C128, _F64), (2, 3), kinds="c")]


@final
@catalogued
@dataclass(frozen=True)
class Times1j(Linear):
    """A real array as an imaginary one: the transpose of the imaginary part."""

    name = "times_1j"
    before: Any
    after: Any

    def evaluate(self, be: Any, x: Any) -> Any:
        return be.cast(x, self.after) * 1j

    def infer(self, *avals: Aval) -> Aval:
        return Aval(avals[0].shape, self.after)

    @cached_property
    def transposed(self) -> Linear:
        return imag(self.after, self.before)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(times_1j(_F64, _C128), (2, 3), double=True)]


@lru_cache(_CACHE)
def sum_over(src: Shape, axes: Shape) -> Sum:
    """The sum over `axes` (negative) of arrays with trailing shape `src`."""
    src, axes = trimmed(src, axes)
    gone = {a % len(src) for a in axes} if src else set()
    return Sum(src, tuple(n for i, n in enumerate(src) if i not in gone), axes)


@lru_cache(_CACHE)
def sum_all(src: Shape) -> Sum:
    """The sum of all entries of an array of shape `src`."""
    return sum_over(src, tuple(range(-len(src), 0)))


@lru_cache(_CACHE)
def spread(src: Shape, dst: Shape, axes: Shape) -> Spread:
    """Repeat along the new axes `axes` of `dst`."""
    return Spread(src, dst, axes)


@lru_cache(_CACHE)
def reshape(src: Shape, dst: Shape) -> Reshape:
    """C-order reshape of the trailing axes; common leading axes are left out of the op."""
    return Reshape(src, dst)


@lru_cache(_CACHE)
def permute(src: Shape, order: Shape) -> Permute:
    """Reorder the trailing axes."""
    rank = len(src)
    return Permute(src, tuple(src[a + rank] for a in order), order)


@lru_cache(_CACHE)
def flip(src: Shape, axes: Shape) -> Flip:
    """Reverse along `axes`."""
    src, axes = trimmed(src, axes)
    return Flip(src, src, axes)


@lru_cache(_CACHE)
def roll(src: Shape, shifts: Shape, axes: Shape) -> Roll:
    """Cyclic shift along `axes`."""
    src, axes = trimmed(src, axes)
    return Roll(src, src, shifts, axes)


@lru_cache(_CACHE, typed=True)  # dtypes of two libraries hash alike
def cast(before: Any, after: Any) -> Cast:
    """Change of floating dtype."""
    return Cast((), (), before, after)


@lru_cache(_CACHE, typed=True)  # dtypes of two libraries hash alike
def real(before: Any, after: Any) -> Real:
    """Real part, from dtype `before` to dtype `after`."""
    return Real((), (), before, after)


@lru_cache(_CACHE, typed=True)  # dtypes of two libraries hash alike
def imag(before: Any, after: Any) -> Imag:
    """Imaginary part, from dtype `before` to dtype `after`."""
    return Imag((), (), before, after)


@lru_cache(_CACHE, typed=True)  # dtypes of two libraries hash alike
def times_1j(before: Any, after: Any) -> Times1j:
    """A real array times i."""
    return Times1j((), (), before, after)


def trimmed(src: Shape, axes: Shape) -> tuple[Shape, Shape]:
    """Only the trailing axes from the first touched one on belong to the op."""
    reach = max((-a for a in axes), default=0)
    return src[len(src) - reach :], axes


CONJ = Conj((), ())


@lru_cache(_CACHE)
def spread_steps(src: Shape, dst: Shape) -> tuple[Linear, ...]:
    """The ops that broadcast `src` to `dst` by NumPy's rule: drop ones, then spread."""
    pad = len(dst) - len(src)
    padded = (1,) * pad + src
    new = tuple(
        i - len(dst) for i, (a, b) in enumerate(zip(padded, dst, strict=True))
        if i < pad or (a == 1 and b != 1)
    )  # fmt: skip
    kept = tuple(n for i, n in enumerate(dst) if i - len(dst) not in new)
    steps: list[Linear] = []
    if kept != src:
        steps.append(reshape(src, kept))
    if new:
        steps.append(spread(kept, dst, new))
    return tuple(steps)


def size_of(shape: Shape) -> int:
    """Number of entries."""
    return math.prod(shape)
