"""Factorizations of the last two axes: Cholesky, eigenvalues, singular values, QR, pseudoinverse.

An op has one result. Those with several (`Eigh`, `Svd`, `Qr`) join them, raveled, along one last
axis; `unpacked` takes them apart. Matrices that must be Hermitian are made so, (a + aᴴ)/2, as part
of the function: gradients are Hermitian, too.

Where eigenvalues or singular values repeat, single vectors have no derivative: the quotients by their
gaps are NaN there. They are quotients of tangents, for which zero stays zero, so functions of the values
alone have the derivative that they should have.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from gpujac.core.aval import Aval, Shape, kind
from gpujac.core.op import Sample, catalogued
from gpujac.ops import elementwise as ew
from gpujac.ops.batching import as_shape, like
from gpujac.ops.contract import contract
from gpujac.ops.determinant import MatrixFunction
from gpujac.ops.diagonal import diagonal, from_diagonal
from gpujac.ops.indexing import slice_of
from gpujac.ops.join import concat
from gpujac.ops.linalg import SolveTriangular, adjoint
from gpujac.ops.reduce import real_dtype
from gpujac.ops.structure import CONJ, real, reshape

_product = contract("ij", "jk", "ik")
_LOWER, _UPPER_ADJOINT = SolveTriangular(), SolveTriangular(lower=False, adjoint=True)
_NARROW = 0.6  # off the diagonal of samples: matrices with four on the diagonal stay positive definite


def unpacked(y: Any, shapes: tuple[Shape, ...]) -> list:
    """The results of trailing shapes `shapes` that lie one after another in the last axis of `y`."""
    found, start, total = [], 0, y.shape[-1]
    for shape in shapes:
        size = math.prod(shape)
        part = slice_of((total,), ((start, start + size, 1),))(y)
        found.append(reshape((size,), shape)(part) if len(shape) != 1 else part)
        start += size
    return found


def _packed(parts: list, ranks: tuple[int, ...]) -> Any:
    """Arrays with so many trailing axes each, raveled and joined along one last axis."""
    flat = []
    for x, rank in zip(parts, ranks, strict=True):
        lead = tuple(x.shape[: len(x.shape) - rank])
        flat.append(as_shape(x, (*lead, math.prod(x.shape[len(lead) :]))))
    return concat(tuple([(x.shape[-1],) for x in flat]), -1)(*flat)


def _pack(be: Any, like: Any, parts: list, ranks: tuple[int, ...]) -> Any:
    """The same for arrays of a backend, in the dtype of `like`."""
    flat = []
    for x, rank in zip(parts, ranks, strict=True):
        x = x if x.dtype == like.dtype else be.cast(x, like.dtype)
        flat.append(be.ravel(x, len(x.shape) - rank))
    return be.xp.concat(flat, axis=-1)


def _hermitian(x: Any) -> Any:
    return (x + adjoint(x)) * 0.5


def _plain_hermitian(be: Any, x: Any) -> Any:
    other = be.swap_last(x)
    return (x + (be.xp.conj(other) if kind(x.dtype) == "c" else other)) * 0.5


def _eye(n: int, x: Any) -> Any:
    return like(np.eye(n), x)


def _row(x: Any) -> Any:
    """A vector as a matrix of one row, to broadcast over rows."""
    n = x.shape[-1]
    return reshape((n,), (1, n))(x)


def _column(x: Any) -> Any:
    n = x.shape[-1]
    return reshape((n,), (n, 1))(x)


def _off_diagonal(x: Any, gaps: Any) -> Any:
    """x / gaps off the diagonal, zero on it."""
    n, _ = gaps.shape[-2:]
    eye = _eye(n, gaps)
    return _quotient(ew.where(ew.equal(eye, 0), x, 0), gaps + eye)


def _sum_of(x: Any, s: Any, y: Any, t: Any) -> Any:
    """x s + y t, by functions: a plain array of array-api-strict refuses a traced one on its right."""
    return ew.add(ew.multiply(x, s), ew.multiply(y, t))


def _quotient(x: Any, gaps: Any) -> Any:
    """x / gaps; where a gap is zero it is NaN, which later products do not warn of, but a zero stays zero."""
    return ew.divide(x, ew.where(ew.equal(gaps, 0), math.nan, gaps))


# ---------------------------------------------------------------- Hermitian matrices


@final
@catalogued
@dataclass(frozen=True)
class Cholesky(MatrixFunction):
    """The lower triangle l with l lᴴ = (a + aᴴ)/2."""

    name = "cholesky"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        found = None if be.matrices is None else be.matrices.cholesky(be, operands[0])
        return be.xp.linalg.cholesky(_plain_hermitian(be, operands[0])) if found is None else found

    def shape(self, m: int, n: int) -> Shape:
        return m, n

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # dl = l half(inv(l) da inv(l)ᴴ), half: the lower triangle and half of the diagonal
        (t,) = tangents
        inner = adjoint(_LOWER(result, adjoint(_LOWER(result, _hermitian(t)))))
        n, _ = t.shape[-2:]
        return _product(result, inner * like(np.tri(n) - 0.5 * np.eye(n), result))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(CHOLESKY, (3, 3), kinds="m", low=-_NARROW, high=_NARROW),
            Sample(CHOLESKY, (3, 2, 2), kinds="M", low=-_NARROW, high=_NARROW),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Eigvalsh(MatrixFunction):
    """The eigenvalues of (a + aᴴ)/2, rising."""

    name = "eigvalsh"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.linalg.eigvalsh(_plain_hermitian(be, operands[0]))

    def infer(self, *avals: Aval) -> Aval:
        found = super().infer(*avals)
        return Aval(found.shape, real_dtype(found.dtype))

    def shape(self, m: int, n: int) -> Shape:
        return (n,)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # dw = diag(vᴴ da v)
        (a,), (t,) = primals, tangents
        n, _ = a.shape[-2:]
        _, v = unpacked(EIGH(a), ((n,), (n, n)))
        found = diagonal((n, n), 0, 0)(_product(_product(adjoint(v), _hermitian(t)), v))
        return real(found.dtype, result.dtype)(found) if kind(found.dtype) == "c" else found

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(EIGVALSH, (3, 3)),
            Sample(EIGVALSH, (2, 2, 2), kinds="c"),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Eigh(MatrixFunction):
    """Eigenvalues w and eigenvectors v of (a + aᴴ)/2, packed."""

    name = "eigh"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        (a,) = operands
        w, v = be.xp.linalg.eigh(_plain_hermitian(be, a))
        return _pack(be, a, [w, v], (1, 2))

    def shape(self, m: int, n: int) -> Shape:
        return (n + n * n,)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # p = vᴴ da v: dw = diag(p), dv = v (p_ij / (w_j - w_i)), vectors turned as little as they can
        (a,), (t,) = primals, tangents
        n, _ = a.shape[-2:]
        w, v = unpacked(result, ((n,), (n, n)))
        p = _product(_product(adjoint(v), _hermitian(t)), v)
        turn = _off_diagonal(p, _row(w) - _column(w))
        return _packed([diagonal((n, n), 0, 0)(p), _product(v, turn)], (1, 2))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(EIGH, (3, 3)), Sample(EIGH, (2, 2, 2), kinds="m")]


# ---------------------------------------------------------------- rectangular matrices


def svd_shapes(m: int, n: int) -> tuple[Shape, ...]:
    """Trailing shapes of u, s and vᴴ."""
    k = min(m, n)
    return (m, k), (k,), (k, n)


@final
@catalogued
@dataclass(frozen=True)
class Svdvals(MatrixFunction):
    """The singular values, falling."""

    name = "svdvals"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        la = be.xp.linalg
        own = getattr(la, "svdvals", None)  # the standard's name, which CuPy lacks
        return la.svd(operands[0], compute_uv=False) if own is None else own(operands[0])

    def infer(self, *avals: Aval) -> Aval:
        found = super().infer(*avals)
        return Aval(found.shape, real_dtype(found.dtype))

    def shape(self, m: int, n: int) -> Shape:
        return (min(m, n),)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # ds = Re diag(uᴴ da v)
        (a,), (t,) = primals, tangents
        u, _, vh = unpacked(SVD(a), svd_shapes(*a.shape[-2:]))
        _, k = u.shape[-2:]
        found = diagonal((k, k), 0, 0)(_product(_product(adjoint(u), t), adjoint(vh)))
        return real(found.dtype, result.dtype)(found) if kind(found.dtype) == "c" else found

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(SVDVALS, (3, 2)),
            Sample(SVDVALS, (2, 2, 3), kinds="c"),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Svd(MatrixFunction):
    """u, s and vᴴ with a = u diag(s) vᴴ, as few vectors as there are values, packed."""

    name = "svd"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        (a,) = operands
        u, s, vh = be.xp.linalg.svd(a, full_matrices=False)
        return _pack(be, a, [u, s, vh], (2, 1, 2))

    def shape(self, m: int, n: int) -> Shape:
        k = min(m, n)
        return (m * k + k + k * n,)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # p = uᴴ da v: ds = Re diag(p); uᴴ du = (p s + s pᴴ) / gaps, vᴴ dv = (s p + pᴴ s) / gaps,
        # gap_ij = s_j² - s_i²; the part of du outside of u is that of da v / s, and so for dv
        (a,), (t,) = primals, tangents
        m, n = a.shape[-2:]
        u, s, vh = unpacked(result, svd_shapes(m, n))
        k, v = s.shape[-1], adjoint(vh)
        p = _product(_product(adjoint(u), t), v)
        ph, gaps = adjoint(p), (_row(s) - _column(s)) * (_row(s) + _column(s))
        ds, turn = diagonal((k, k), 0, 0)(p), _off_diagonal(_sum_of(p, _row(s), ph, _column(s)), gaps)
        if kind(a.dtype) == "c":  # a phase that u and v share: all of it is given to u
            phase = _quotient((ds - CONJ(ds)) * 0.5, s)
            turn, ds = turn + from_diagonal((k, k), 0, 0, k)(phase), (ds + CONJ(ds)) * 0.5
        du, dv = _product(u, turn), _product(v, _off_diagonal(_sum_of(p, _column(s), ph, _row(s)), gaps))
        if m > k:
            du = du + _outside(u, _product(t, v), s)
        if n > k:
            dv = dv + _outside(v, _product(adjoint(t), u), s)
        return _packed([du, ds, adjoint(dv)], (2, 1, 2))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(SVD, (3, 2)), Sample(SVD, (2, 2, 3))]


def _outside(u: Any, t: Any, s: Any) -> Any:
    """(1 - u uᴴ) t / s."""
    t = _quotient(t, _row(s))
    return t - _product(u, _product(adjoint(u), t))


@final
@catalogued
@dataclass(frozen=True)
class Qr(MatrixFunction):
    """q and r of a matrix that is not wider than it is high, packed."""

    name = "qr"

    def evaluate(self, be: Any, *operands: Any) -> Any:
        (a,) = operands
        q, r = be.xp.linalg.qr(a)
        return _pack(be, a, [q, r], (2, 2))

    def shape(self, m: int, n: int) -> Shape:
        return (m * n + n * n,)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # x = da inv(r), c = qᴴ x = w + dr inv(r), w skew with the lower triangle of c:
        # dr = (c - w) r, dq = x - q (c - w)
        (a,), (t,) = primals, tangents
        m, n = a.shape[-2:]
        q, r = unpacked(result, ((m, n), (n, n)))
        on = diagonal((n, n), 0, 0)(r)  # where it is zero there is no derivative: NaN, for this matrix alone
        on = ew.where(ew.equal(on, 0), math.nan, 0.0 * on)
        x = adjoint(_UPPER_ADJOINT(ew.add(r, from_diagonal((n, n), 0, 0, n)(on)), adjoint(t)))
        c = _product(adjoint(q), x)
        lower = c * like(np.tri(n, k=-1), r)
        upper = c - lower + adjoint(lower)
        if kind(a.dtype) == "c":  # the diagonal of r is real
            on = upper * _eye(n, r)
            upper = upper - (on - CONJ(on)) * 0.5
        return _packed([x - _product(q, upper), _product(upper, r)], (2, 2))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(QR, (2, 2, 2), kinds="m"), Sample(QR, (3, 2)), Sample(QR, (3, 2), kinds="c")]


@final
@catalogued
@dataclass(frozen=True)
class Pinv(MatrixFunction):
    """The pseudoinverse; singular values up to `rcond` times the largest count as zero."""

    name = "pinv"
    rcond: float

    def evaluate(self, be: Any, *operands: Any) -> Any:
        xp, (a,) = be.xp, operands
        if 0 in a.shape[-2:]:
            return be.zeros((*a.shape[:-2], *self.shape(*a.shape[-2:])), a.dtype, a)
        u, s, vh = xp.linalg.svd(a, full_matrices=False)
        small = s <= xp.max(s, axis=-1, keepdims=True) * self.rcond
        inverse = be.cast(xp.where(small, xp.zeros_like(s), 1 / xp.where(small, xp.ones_like(s), s)), a.dtype)
        u, v = (be.swap_last(xp.conj(x) if kind(a.dtype) == "c" else x) for x in (u, vh))
        return be.matmul(v * inverse[..., None, :], u)

    def shape(self, m: int, n: int) -> Shape:
        return n, m

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # dp = -p da p + p pᴴ daᴴ (1 - a p) + (1 - p a) daᴴ pᴴ p, for a rank that does not change
        (a,), (t,), p = primals, tangents, result
        th, ph = adjoint(t), adjoint(p)
        change = -_product(_product(p, t), p)
        one, two = _product(_product(p, ph), th), _product(th, _product(ph, p))
        inside = _product(one, _product(a, p)) + _product(_product(p, a), two)
        return change + one + two - inside

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(pinv(1e-15), (3, 2)),
            Sample(pinv(1e-15), (2, 2, 3), kinds="c"),
        ]


def pinv(rcond: float) -> Pinv:
    """The pseudoinverse with that cut-off."""
    return Pinv(float(rcond))


CHOLESKY, EIGVALSH, EIGH = Cholesky(), Eigvalsh(), Eigh()
SVDVALS, SVD, QR = Svdvals(), Svd(), Qr()
