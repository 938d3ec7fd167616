"""Determinants of the last two axes, and what all functions of matrices share."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from gpujac.backends.host import HOST
from gpujac.core.aval import Aval, Shape, kind
from gpujac.core.op import General, Sample, catalogued
from gpujac.ops import elementwise as ew
from gpujac.ops.batching import as_shape, stretch
from gpujac.ops.contract import contract
from gpujac.ops.indexing import pad, slice_of
from gpujac.ops.linalg import INV, adjoint
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
    product = ew.multiply(flipped, t)  # a plain array of array-api-strict refuses a traced one on its right
    return sum_over(tuple(product.shape), (-2, -1))(product)


def _scaled(size: Any, x: Any) -> Any:
    """Matrices times one number each."""
    return ew.multiply(reshape((), (1, 1))(size), x)


@final
@catalogued
@dataclass(frozen=True)
class Det(MatrixFunction):
    """The determinant."""

    name = "det"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        found = None if be.matrices is None else be.matrices.det(be, operands[0])
        return be.xp.linalg.det(operands[0]) if found is None else found

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
        u, s, v, turned = _turned(be, a)
        return be.matmul(v * be.cast(_products(be, s), a.dtype)[..., None, :], u) * turned

    def shape(self, m: int, n: int) -> Shape:
        return m, n

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        return COFACTOR_CHANGE(primals[0], tangents[0])

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(ADJUGATE, (3, 3), kinds="m", complex_ok=True), Sample(ADJUGATE, (2, 2, 2), kinds="m")]


def _turned(be: Any, a: Any) -> tuple:
    """uᴴ, s, v and det(u vᴴ) of matrices a = u diag(s) vᴴ."""
    xp = be.xp
    u, s, vh = xp.linalg.svd(a, full_matrices=False)
    turned = xp.linalg.det(u) * xp.linalg.det(vh)
    u, v = (be.swap_last(xp.conj(x) if kind(a.dtype) == "c" else x) for x in (u, vh))
    return u, s, v, turned[..., None, None]


def _products(be: Any, s: Any) -> Any:
    """For each entry of the last axis the product of all others."""
    xp, n = be.xp, s.shape[-1]
    return xp.prod(xp.where(be.asarray(np.eye(n, dtype=bool), xp.bool, s), 1.0, s[..., None, :]), axis=-1)


def _products_but_two(be: Any, s: Any) -> Any:
    """For each two entries i, j of the falling values `s` the product of all others; zero for i = j.

    With i < j it is the product without j, divided by the larger s_i. Where that is zero there are at least
    two zeros, and only the last two entries may have a product without them.
    """
    xp, n = be.xp, s.shape[-1]
    larger = s[..., :, None]
    zero = larger == 0
    found = _products(be, s)[..., None, :] / xp.where(zero, 1.0, larger)
    last = np.zeros((n, n), bool)
    last[-2:, -1:] = n > 1
    rest = xp.prod(s[..., : max(n - 2, 0)], axis=-1)[..., None, None]
    nothing = xp.zeros_like(found)
    found = xp.where(zero, xp.where(be.asarray(last, xp.bool, s), rest, nothing), found)
    found = xp.where(be.asarray(np.triu(np.ones((n, n), bool), 1), xp.bool, s), found, nothing)
    return found + be.swap_last(found)


@final
@catalogued
@dataclass(frozen=True)
class CofactorChange(General):
    """The derivative of the adjugate at `a` along `t`, also where `a` is singular."""

    name = "cofactor_change"
    linear_in = (1,)
    nonlinear = True
    leading: ClassVar[bool] = False

    def evaluate(self, be: Any, *operands: Any) -> Any:
        # adj(u diag(s) vᴴ) = det(u vᴴ) v adj(diag(s)) uᴴ. With p_ij the product of all values but two, and
        # e = uᴴ t v, the change of adj(diag(s)) has -p_ij e_ij off the diagonal and sum_k p_ik e_kk on it.
        a, t = operands
        u, s, v, turned = _turned(be, a)
        weights = be.cast(_products_but_two(be, s), a.dtype)
        inside = be.matmul(be.matmul(u, t), v)
        eye = be.asarray(np.eye(a.shape[-1]), a.dtype, a)
        on = be.matmul(weights, be.xp.sum(inside * eye, axis=-1)[..., None]) * eye
        return be.matmul(be.matmul(v, on - weights * inside), u) * turned

    def infer(self, *avals: Aval) -> Aval:
        a, t = avals
        return Aval(np.broadcast_shapes(a.shape, t.shape), t.dtype)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # of tr(inv(a) t) adj(a) - adj(a) t inv(a): the next derivative needs an inverse, and is NaN without one
        (a, t), (da, dt) = primals, tangents
        change = None if dt is None else self(a, dt)
        if da is None:
            return change
        inverse, adjugate = inverse_or_nan(a), ADJUGATE(a)
        turn, both = self(a, da), _product(_product(inverse, da), inverse)
        found = ew.subtract(_scaled(_trace_of_product(inverse, t), turn), _product(_product(turn, t), inverse))
        found = ew.subtract(found, _scaled(_trace_of_product(both, t), adjugate))
        found = ew.add(found, _product(_product(adjugate, t), both))
        return found if change is None else ew.add(found, change)

    def transpose(self, position: int, ct: Any, operands: tuple, shape: Shape) -> Any:
        return self(adjoint(operands[0]), ct)

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        (a, t), (i, j) = xs, axes
        t = stretch(t, j, size)
        if i is not None:
            a = stretch(a, i, size)
            a = as_shape(a, (size, *(1,) * (len(t.shape) - len(a.shape)), *a.shape[1:]))
        result = self(a, t)
        return result, -len(result.shape)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(COFACTOR_CHANGE, (3, 3), (3, 3), kinds="mf", complex_ok=True),
            Sample(COFACTOR_CHANGE, (4, 2, 2), (4, 2, 2), kinds="mf"),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Slogdet(MatrixFunction):
    """Sign of the determinant and logarithm of its size, packed."""

    name = "slogdet"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        (a,) = operands
        found = None if be.matrices is None else be.matrices.slogdet(be, a)
        if found is not None:
            return found
        sign, size = be.xp.linalg.slogdet(a)
        return be.stack((sign, be.cast(size, a.dtype)), -1)

    def shape(self, m: int, n: int) -> Shape:
        return (2,)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # d log det(a) = tr(inv(a) da): its real part moves the size, its imaginary part turns the sign
        (a,), (t,) = primals, tangents
        sign = slice_of((2,), (0,))(result)
        change = _trace_of_product(inverse_or_nan(a, sign), t)
        if kind(a.dtype) != "c":
            return pad((2,), (1,))(change)
        turned = ew.multiply(sign, (change - CONJ(change)) * 0.5)
        return pad((2,), (0,))(turned) + pad((2,), (1,))((change + CONJ(change)) * 0.5)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(SLOGDET, (3, 3), kinds="m"), Sample(SLOGDET, (2, 2, 2), kinds="M")]


def inverse_or_nan(a: Any, sign: Any = None) -> Any:
    """The inverse, and NaN for a singular matrix, which alone would be an error for a whole stack of them.

    `sign`: that of the determinant, where it is known.
    """
    sign = slice_of((2,), (0,))(SLOGDET(a)) if sign is None else sign
    return INV(ew.where(reshape((), (1, 1))(ew.equal(sign, 0)), math.nan, a))


DET, ADJUGATE, COFACTOR_CHANGE, SLOGDET = Det(), Adjugate(), CofactorChange(), Slogdet()
