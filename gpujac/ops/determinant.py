"""Determinants of the last two axes, and what all functions of matrices share."""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from gpujac.backends.host import HOST
from gpujac.core.aval import Aval, Shape, kind
from gpujac.core.op import General, Sample, catalogued
from gpujac.ops.contract import contract
from gpujac.ops.indexing import pad, slice_of
from gpujac.ops.linalg import INV
from gpujac.ops.structure import CONJ, permute, reshape, sum_over

_product = contract("ij", "jk", "ik")


@dataclass(frozen=True)
class MatrixFunction(General):
    """A nonlinear function of square or rectangular matrices, leading axes left alone."""

    nonlinear = True
    leading: ClassVar[bool] = True

    def infer(self, *avals: Aval) -> Aval:
        (a,) = avals
        return Aval((*a.shape[:-2], *self.shape(*a.shape[-2:])), a.dtype)

    def shape(self, m: int, n: int) -> Shape:
        """The trailing shape of the result for an m by n matrix."""
        raise NotImplementedError


def _trace_of_product(a: Any, t: Any) -> Any:
    """tr(a t)."""
    rank = len(a.shape)
    flipped = permute(tuple(a.shape), (*range(-rank, -2), -1, -2))(a)
    return sum_over(tuple(t.shape), (-2, -1))(flipped * t)


@final
@catalogued
@dataclass(frozen=True)
class Det(MatrixFunction):
    """The determinant."""

    name = "det"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.linalg.det(operands[0])

    def shape(self, m: int, n: int) -> Shape:
        return ()

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # d det(a) = tr(adj(a) da), also where a is singular
        (a,), (t,) = primals, tangents
        return _trace_of_product(ADJUGATE(a), t)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(DET, (3, 3), complex_ok=True), Sample(DET, (2, 2, 2), kinds="m")]


@final
@catalogued
@dataclass(frozen=True)
class Adjugate(MatrixFunction):
    """The transposed matrix of cofactors, det(a) inv(a) where there is an inverse."""

    name = "adjugate"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        (a,) = operands
        if be is HOST:
            size = np.linalg.det(a)
            if np.all(size != 0):
                return np.linalg.inv(a) * size[..., None, None]
        xp = be.xp
        u, s, vh = xp.linalg.svd(a, full_matrices=False)
        n = a.shape[-1]
        others = xp.where(be.asarray(np.eye(n, dtype=bool), xp.bool, a), 1.0, s[..., None, :])
        sizes = be.cast(xp.prod(others, axis=-1), a.dtype)
        turned = xp.linalg.det(u) * xp.linalg.det(vh)
        u, v = (be.swap_last(xp.conj(x) if kind(a.dtype) == "c" else x) for x in (u, vh))
        return be.matmul(v * sizes[..., None, :], u) * turned[..., None, None]

    def shape(self, m: int, n: int) -> Shape:
        return m, n

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # d adj(a) = tr(inv(a) da) adj(a) - adj(a) da inv(a)
        (a,), (t,) = primals, tangents
        inverse = INV(a)
        size = _trace_of_product(inverse, t)
        return reshape((), (1, 1))(size) * result - _product(_product(result, t), inverse)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(ADJUGATE, (3, 3), kinds="m", complex_ok=True), Sample(ADJUGATE, (2, 2, 2), kinds="m")]


@final
@catalogued
@dataclass(frozen=True)
class Slogdet(MatrixFunction):
    """Sign of the determinant and logarithm of its size, packed."""

    name = "slogdet"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        (a,) = operands
        sign, size = be.xp.linalg.slogdet(a)
        return be.stack((sign, be.cast(size, a.dtype)), -1)

    def shape(self, m: int, n: int) -> Shape:
        return (2,)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # d log det(a) = tr(inv(a) da): its real part moves the size, its imaginary part turns the sign
        (a,), (t,) = primals, tangents
        change = _trace_of_product(INV(a), t)
        if kind(a.dtype) != "c":
            return pad((2,), (1,))(change)
        sign = slice_of((2,), (0,))(result)
        turned = sign * (change - CONJ(change)) * 0.5
        return pad((2,), (0,))(turned) + pad((2,), (1,))((change + CONJ(change)) * 0.5)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(SLOGDET, (3, 3), kinds="m"), Sample(SLOGDET, (2, 2, 2), kinds="M")]


DET, ADJUGATE, SLOGDET = Det(), Adjugate(), Slogdet()
