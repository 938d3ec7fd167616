"""Discrete Fourier transforms: linear ops without factors, in dtypes that a transform changes or keeps.

The complex transform is its own family: the adjoint of the sum with exp(-i...) is the one with
exp(+i...). That of real arrays, which keeps half of the spectrum, has an adjoint of its own, since the
half that is not kept is not there to be weighed.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, final

import numpy as np

from gpujac.core.aval import Aval, Shape
from gpujac.core.op import Linear, Sample, catalogued
from gpujac.core.pattern import Pattern

_CACHE = 1 << 12
_F64, _C128 = np.dtype(np.float64), np.dtype(np.complex128)


@dataclass(frozen=True)
class _Mixing(Linear):
    """Every entry of the result depends on the whole line or plane that it was made of."""

    @property
    def lines(self) -> Shape:
        """The axes of a line or plane."""
        raise NotImplementedError

    def flops(self, shapes: tuple[Shape, ...], result: Shape) -> int:
        wide = max(shapes[0], result, key=math.prod)  # 5 n log2 n for each line of n, as for complex numbers
        return round(5 * math.prod(wide) * math.log2(max(math.prod([wide[axis] for axis in self.lines]), 1)))

    def depends(self, *patterns: Any) -> Any:
        (p,) = patterns
        reached = p.bits.any(axis=self.lines, keepdims=True)
        return Pattern(np.broadcast_to(reached, (*p.bits.shape[: p.bits.ndim - len(self.src)], *self.dst)))


@final
@catalogued
@dataclass(frozen=True)
class Fourier(_Mixing):
    """Sums of x_j exp(∓ 2πi jk/n) along `axes` of a complex array; minus unless `inverse`."""

    name = "fourier"
    axes: Shape
    inverse: bool

    @property
    def lines(self) -> Shape:
        return self.axes

    def evaluate(self, be: Any, x: Any) -> Any:
        if self.inverse:
            return be.xp.fft.ifftn(x, axes=self.axes, norm="forward")
        return be.xp.fft.fftn(x, axes=self.axes)

    @cached_property
    def transposed(self) -> Linear:
        return fourier(self.src, self.axes, not self.inverse)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(fourier((5,), (-1,), False), (5,), kinds="c"),
            Sample(fourier((2, 3), (-2, -1), True), (2, 3), kinds="c"),
            Sample(fourier((4, 2), (-2,), False), (3, 4, 2), kinds="c"),
        ]


@final
@catalogued
@dataclass(frozen=True)
class RealFourier(_Mixing):
    """The first half of the spectrum of a real array along `axis`."""

    name = "real_fourier"
    axis: int
    before: Any
    after: Any

    @property
    def lines(self) -> Shape:
        return (self.axis,)

    def evaluate(self, be: Any, x: Any) -> Any:
        return be.xp.fft.rfft(x, axis=self.axis)

    def infer(self, *avals: Aval) -> Aval:
        return Aval(super().infer(*avals).shape, self.after)

    @cached_property
    def transposed(self) -> Linear:
        return RealFourierAdjoint(self.dst, self.src, self.axis, self.after, self.before)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(real_fourier((5,), -1, _F64, _C128), (5,), double=True),
            Sample(real_fourier((4, 2), -2, _F64, _C128), (3, 4, 2), double=True),
            Sample(real_fourier((1,), -1, _F64, _C128), (1,), double=True),
        ]


@final
@catalogued
@dataclass(frozen=True)
class RealFourierAdjoint(_Mixing):
    """Re Σ_k y_k exp(2πi jk/n) over the half of a spectrum that `RealFourier` keeps."""

    name = "real_fourier_adjoint"
    axis: int
    before: Any
    after: Any

    @property
    def lines(self) -> Shape:
        return (self.axis,)

    def evaluate(self, be: Any, x: Any) -> Any:
        n = self.dst[self.axis]
        rest = (slice(None),) * (-1 - self.axis)
        # the inverse counts each frequency twice, but the first, and for even n the last
        twice = (..., slice(1, (n + 1) // 2), *rest)
        half = be.copy(x)
        half[twice] = half[twice] * 0.5
        return be.xp.fft.irfft(half, n=n, axis=self.axis, norm="forward")

    def infer(self, *avals: Aval) -> Aval:
        return Aval(super().infer(*avals).shape, self.after)

    @cached_property
    def transposed(self) -> Linear:
        return RealFourier(self.dst, self.src, self.axis, self.after, self.before)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(real_fourier((5,), -1, _F64, _C128).transposed, (3,), kinds="c"),
            Sample(real_fourier((4, 2), -2, _F64, _C128).transposed, (2, 3, 2), kinds="c"),
        ]


@lru_cache(_CACHE)
def fourier(src: Shape, axes: Shape, inverse: bool) -> Fourier:
    """The transform of the trailing axes `src` along `axes` (from the end)."""
    src = src[len(src) - max(-a for a in axes) :]
    return Fourier(src, src, axes, inverse)


@lru_cache(_CACHE, typed=True)  # dtypes of two libraries hash alike
def real_fourier(src: Shape, axis: int, before: Any, after: Any) -> RealFourier:
    """The transform of real arrays of dtype `before` to complex ones of dtype `after`."""
    src = src[axis:]
    return RealFourier(src, (src[0] // 2 + 1, *src[1:]), axis, before, after)
