"""Nonlinear reductions over trailing axes: max, min, logsumexp, norm, argmax, any, all."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, final

import numpy as np

from gpujac.core.aval import Aval, Shape, dtype_of, kind
from gpujac.core.op import General, Sample, catalogued
from gpujac.ops import elementwise as ew
from gpujac.ops.structure import CONJ, cast, real, spread, sum_over

_CACHE = 1 << 14


@dataclass(frozen=True)
class Reduction(General):
    """A reduction of the trailing axes `src` over `axes` (counted from the end)."""

    nonlinear = True
    leading: ClassVar[bool] = True
    src: Shape
    axes: Shape

    @property
    def dst(self) -> Shape:
        gone = {a % len(self.src) for a in self.axes}
        return tuple(n for i, n in enumerate(self.src) if i not in gone)

    def infer(self, *avals: Aval) -> Aval:
        (x,) = avals
        return Aval(x.shape[: len(x.shape) - len(self.src)] + self.dst, x.dtype)

    def widen(self, y: Any) -> Any:
        """A result of the reduction repeated along the reduced axes."""
        shape = tuple(y.shape)
        dst = shape[: len(shape) - len(self.dst)] + self.src
        return spread(shape, dst, self.axes)(y)

    def add_up(self, x: Any) -> Any:
        """The plain sum over the same axes."""
        return sum_over(tuple(x.shape), self.axes)(x)

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        raise self.missing("batch")  # acts under leading axes: the trace moves the axis there

    @classmethod
    def samples(cls) -> list[Sample]:
        def make(src: Shape, axes: Shape) -> Any:
            return reduction(cls, src, axes)

        return [
            Sample(make((4,), (-1,)), (4,)),
            Sample(make((2, 3), (-2,)), (2, 3)),
            Sample(make((2, 3), (-2,)), (4, 2, 3)),
            Sample(make((2, 3), (-2, -1)), (2, 3)),
        ]


class _Extreme(Reduction):
    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # ties share evenly: d max = mean of the tangents at the entries that attain it
        (x,), (t,) = primals, tangents
        wins = ew.equal(x, self.widen(result))
        count = self.add_up(cast(wins.dtype, x.dtype)(wins))
        return ew.divide(self.add_up(ew.where(wins, t, 0)), ew.where(ew.equal(count, 0), 1, count))


@final
@catalogued
@dataclass(frozen=True)
class Max(_Extreme):
    """The largest entry."""

    name = "max"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.max(operands[0], axis=self.axes)


@final
@catalogued
@dataclass(frozen=True)
class Min(_Extreme):
    """The smallest entry."""

    name = "min"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.min(operands[0], axis=self.axes)


@final
@catalogued
@dataclass(frozen=True)
class LogSumExp(Reduction):
    """log of the sum of exponentials, shifted by the maximum."""

    name = "logsumexp"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        xp, (x,) = be.xp, operands
        top = xp.max(x, axis=self.axes, keepdims=True)
        top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
        total = xp.sum(xp.exp(x - top), axis=self.axes, keepdims=True)
        with np.errstate(divide="ignore"):  # log(0) = -inf where every entry is -inf
            y = xp.log(total) + top
        return be.reshape(y, tuple(x.shape[: len(x.shape) - len(self.src)]) + self.dst)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # d logsumexp(x) = sum softmax(x) dx
        (x,), (t,) = primals, tangents
        finite = ew.where(ew.isfinite(result), result, 0.0)
        return self.add_up(ew.multiply(t, ew.exp(ew.subtract(x, self.widen(finite)))))


@final
@catalogued
@dataclass(frozen=True)
class Norm(Reduction):
    """Euclidean norm; its derivative at zero is zero."""

    name = "norm"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        xp, (x,) = be.xp, operands
        size = xp.abs(x)
        return xp.sqrt(xp.sum(size * size, axis=self.axes))

    def infer(self, *avals: Aval) -> Aval:
        found = super().infer(*avals)
        return Aval(found.shape, real_dtype(found.dtype))

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # d |x| = Re <x, dx> / |x|, and 0 at x = 0
        (x,), (t,) = primals, tangents
        zero = ew.equal(result, 0)
        unit = ew.where(zero, 0.0, ew.divide(1.0, ew.where(zero, 1.0, result)))
        if kind(x.dtype) == "c":
            t = real(x.dtype, result.dtype)(t * CONJ(x))
            return self.add_up(t) * unit
        return self.add_up(t * x) * unit

    @classmethod
    def samples(cls) -> list[Sample]:
        return [*super().samples(), Sample(reduction(cls, (3,), (-1,)), (3,), kinds="c")]


def real_dtype(dtype: Any) -> Any:
    """The dtype of sizes of numbers of `dtype`."""
    return np.zeros((), dtype).real.dtype if kind(dtype) == "c" else dtype


class _Flat(Reduction):
    flat = True
    result_dtype: ClassVar[Any] = np.dtype(np.bool)

    def infer(self, *avals: Aval) -> Aval:
        return Aval(super().infer(*avals).shape, self.result_dtype)


@final
@catalogued
@dataclass(frozen=True)
class AnyOf(_Flat):
    """Whether any entry is true."""

    name = "any"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.any(operands[0], axis=self.axes)


@final
@catalogued
@dataclass(frozen=True)
class AllOf(_Flat):
    """Whether every entry is true."""

    name = "all"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.all(operands[0], axis=self.axes)


@dataclass(frozen=True)
class _Arg(_Flat):
    result_dtype = np.dtype(np.intp)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(reduction(cls, (4,), (-1,)), (4,)), Sample(reduction(cls, (2, 3), (-2,)), (4, 2, 3))]


@final
@catalogued
@dataclass(frozen=True)
class Argmax(_Arg):
    """Position of the first largest entry along one axis."""

    name = "argmax"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.argmax(operands[0], axis=self.axes[0])


@final
@catalogued
@dataclass(frozen=True)
class Argmin(_Arg):
    """Position of the first smallest entry along one axis."""

    name = "argmin"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.argmin(operands[0], axis=self.axes[0])


@final
@catalogued
@dataclass(frozen=True)
class ComplexAbs(General):
    """Modulus of complex entries; its derivative at zero is zero."""

    name = "complex_abs"
    nonlinear = True
    leading: ClassVar[bool] = True

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.abs(operands[0])

    def infer(self, *avals: Aval) -> Aval:
        return Aval(avals[0].shape, real_dtype(avals[0].dtype))

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # d |z| = Re(conj(z) dz) / |z|
        (z,), (t,) = primals, tangents
        zero = ew.equal(result, 0)
        unit = ew.where(zero, 0.0, ew.divide(1.0, ew.where(zero, 1.0, result)))
        return real(dtype_of(z), dtype_of(result))(t * CONJ(z)) * unit

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(COMPLEX_ABS, (2, 3), kinds="c")]


COMPLEX_ABS = ComplexAbs()


def reduction(cls: Any, src: Shape, axes: Shape) -> Any:
    """The reduction `cls` over `axes` of the trailing axes they reach."""
    return _interned(cls, src, axes)


@lru_cache(_CACHE)
def _interned(cls: Any, src: Shape, axes: Shape) -> Any:
    reach = max((-a for a in axes), default=0)
    return cls(src[len(src) - reach :], axes)


