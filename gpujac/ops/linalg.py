"""Linear algebra on the last two axes: solve, its kept factors, triangular solve, and inv."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np

from gpujac.backends.choose import backend_of
from gpujac.core.aval import Aval, Shape, kind
from gpujac.core.op import General, Sample, catalogued
from gpujac.core.trace import payload
from gpujac.ops import elementwise as ew
from gpujac.ops.batching import as_shape, like, reorder, stretch
from gpujac.ops.contract import contract
from gpujac.ops.structure import CONJ, permute


def adjoint(a: Any) -> Any:
    """The conjugate transpose."""
    a = permute(tuple(a.shape), (*range(-len(a.shape), -2), -1, -2))(a)
    return CONJ(a) if kind(a.dtype) == "c" else a


@final
@catalogued
@dataclass(frozen=True)
class LuFactor(General):
    """The factors of a matrix, in one array (..., n + 1, n): what only Solve reads, and no derivative goes through."""

    name = "lu_factor"
    flat = True
    leading: ClassVar[bool] = True
    refuses = dict.fromkeys(("generic", "numpy"), "the library has no LU factors; Solve does without")

    def evaluate(self, be: Any, *operands: Any) -> Any:
        if be.matrices is None:
            raise self.missing("generic")
        return be.matrices.lu_factor(be, operands[0])

    def infer(self, *avals: Aval) -> Aval:
        (a,) = avals
        return Aval((*a.shape[:-2], a.shape[-1] + 1, a.shape[-1]), a.dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(LU_FACTOR, (3, 3), kinds="m", complex_ok=True), Sample(LU_FACTOR, (4, 2, 2), kinds="m")]


@dataclass(frozen=True)
class LinearSolve(General):
    """x with m @ x = b for a matrix m that is made of the first operand; linear in the second one, b."""

    linear_in = (1,)
    nonlinear = True
    leading: ClassVar[bool] = False
    vector: bool  # whether b has one core axis, not two

    def flops(self, shapes: tuple[Shape, ...], result: Shape) -> int:
        return 2 * math.prod(result) * shapes[0][-1]  # two triangles; their factors are found once

    def infer(self, *avals: Aval) -> Aval:
        a, b = avals[:2]
        core = 1 if self.vector else 2
        lead = max(a.shape[:-2], b.shape[: len(b.shape) - core], key=len)
        return Aval(lead + b.shape[len(b.shape) - core :], b.dtype)

    def changed(self, da: Any, a: Any) -> Any:
        """The tangent of m for the tangent `da` of the first operand `a`."""
        raise NotImplementedError

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # m dx = db - dm x
        (a, _, *kept), (da, db, *_) = primals, tangents
        right = None
        if da is not None:
            out = "i" if self.vector else "ik"
            right = -contract("ij", "j" if self.vector else "jk", out)(self.changed(da, a), result)
        if db is not None:
            right = db if right is None else db + right
        return self(a, right, *kept)

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        (a, b, *kept), (i, j, *others) = xs, axes
        b = stretch(b, j, size)
        if i is None:
            result = self(a, b, *kept)
            return result, -len(result.shape)
        a, *kept = [stretch(x, k, size) for x, k in zip((a, *kept), (i, *others), strict=True)]
        lead_a, lead_b = len(a.shape) - 2, len(b.shape) - (1 if self.vector else 2)
        if lead_a == 1 and lead_b > 1 and not kept:  # (B, n, n) against (B, lead..., n): the lead are columns
            return self._as_columns(a, b, lead_b), -len(b.shape)
        if lead_a < lead_b:
            ones = (1,) * (lead_b - lead_a)
            a, *kept = [as_shape(x, (size, *ones, *x.shape[1:])) for x in (a, *kept)]
        result = self(a, b, *kept)
        return result, -len(result.shape)

    def _as_columns(self, a: Any, b: Any, lead: int) -> Any:
        rank = len(b.shape)
        wide = reorder(b, (0, lead, *range(1, lead), *range(lead + 1, rank)))
        shape = tuple(wide.shape)
        flat = as_shape(wide, (*shape[:2], math.prod(shape[2:])))
        x = as_shape(replace(self, vector=False)(a, flat), shape)
        return reorder(x, (0, *range(2, lead + 1), 1, *range(lead + 1, rank)))


@final
@catalogued
@dataclass(frozen=True)
class Solve(LinearSolve):
    """x with a @ x = b, or aᴴ @ x = b if `adjoint`. A third operand holds the factors of a, where they are kept.

    The factors say nothing that `a` does not: a derivative goes through `a` alone.
    """

    name = "solve"
    adjoint: bool = False

    def evaluate(self, be: Any, *operands: Any) -> Any:
        a, b, *kept = operands
        if kept and be.matrices is not None:
            return be.matrices.lu_solve(be, kept[0], b, self.vector, self.adjoint)
        a = _plain_adjoint(be, a) if self.adjoint else a
        if not self.vector:
            if len(a.shape) == 2 and len(b.shape) > 2:  # one factorization, all lanes as columns
                return _folded(be, a, b)
            return be.solve(a, b)
        if len(a.shape) == 2 and len(b.shape) > 1:  # (lead, n): the lead axes are the columns
            rows = be.reshape(b, (-1, b.shape[-1]))
            return be.reshape(be.swap_last(be.solve(a, be.swap_last(rows))), b.shape)
        if len(b.shape) == 1 and len(a.shape) == 2:
            return be.solve(a, b)
        x = be.solve(a, be.reshape(b, (*b.shape, 1)))
        return be.reshape(x, tuple(x.shape[:-1]))

    def changed(self, da: Any, a: Any) -> Any:
        return adjoint(da) if self.adjoint else da

    def transpose(self, position: int, ct: Any, operands: tuple, shape: Shape) -> Any:
        a, _, *kept = operands
        return Solve(self.vector, not self.adjoint)(a, ct, *kept)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(SOLVE_VECTOR, (2, 2), (2,), kinds="mf", complex_ok=True),
            Sample(SOLVE_MATRIX, (3, 3), (3, 2), kinds="mf", complex_ok=True),
            Sample(SOLVE_VECTOR, (4, 2, 2), (4, 2), kinds="mf"),
            Sample(SOLVE_MATRIX, (2, 2), (4, 2, 3), kinds="mf"),
            Sample(Solve(False, True), (3, 3), (3, 2), kinds="mf"),
            Sample(Solve(True, True), (2, 2, 2), (2, 2), kinds="Mc"),
        ]


def _plain_adjoint(be: Any, a: Any) -> Any:
    a = be.swap_last(a)
    return be.xp.conj(a) if kind(a.dtype) == "c" else a


def _folded(be: Any, a: Any, b: Any) -> Any:
    lead, (n, columns) = tuple(b.shape[:-2]), b.shape[-2:]
    rank = len(b.shape)
    wide = be.permute(b, (rank - 2, *range(rank - 2), rank - 1))
    x = be.solve(a, be.reshape(wide, (n, -1)))
    x = be.reshape(x, (n, *lead, columns))
    return be.permute(x, (*range(1, rank - 1), 0, rank - 1))


def solve(a: Any, b: Any, vector: bool) -> Any:
    """x with a @ x = b; where the library of `a` keeps factors, they are found once for all derivatives."""
    target = payload(a)
    op = SOLVE_VECTOR if vector else SOLVE_MATRIX
    matrices = None if target is None else backend_of(target).matrices
    return op(a, b) if matrices is None or not matrices.has_factors(target) else op(a, b, LU_FACTOR(a))


@final
@catalogued
@dataclass(frozen=True)
class SolveTriangular(LinearSolve):
    """x with t @ x = b, or tᴴ @ x = b if `adjoint`, for a triangle t of a; `unit`: its diagonal counts as ones."""

    name = "solve_triangular"
    vector: bool = False
    lower: bool = True
    adjoint: bool = False
    unit: bool = False

    def evaluate(self, be: Any, *operands: Any) -> Any:
        a, b = operands
        if be.matrices is not None and be.matrices.has_factors(a):
            return be.matrices.triangular_solve(be, a, b, self.lower, self.adjoint, self.unit)
        t = (be.xp.tril if self.lower else be.xp.triu)(a, k=(-1 if self.lower else 1) * self.unit)
        if self.unit:
            t = t + be.asarray(np.eye(a.shape[-1]), a.dtype, a)
        return SOLVE_MATRIX.evaluate(be, _plain_adjoint(be, t) if self.adjoint else t, b)

    def changed(self, da: Any, a: Any) -> Any:
        *_, n = da.shape
        mask = np.tri(n, k=-int(self.unit))
        da = ew.multiply(da, like(mask if self.lower else mask.T, a))
        return adjoint(da) if self.adjoint else da

    def transpose(self, position: int, ct: Any, operands: tuple, shape: Shape) -> Any:
        return replace(self, adjoint=not self.adjoint)(operands[0], ct)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(SolveTriangular(), (3, 3), (3, 2), kinds="mf", complex_ok=True),
            Sample(SolveTriangular(lower=False), (3, 3), (3, 2), kinds="mf", complex_ok=True),
            Sample(SolveTriangular(adjoint=True, unit=True), (4, 2, 2), (4, 2, 1), kinds="mf"),
            Sample(SolveTriangular(lower=False, adjoint=True), (2, 2), (4, 2, 3), kinds="mf"),
            Sample(SolveTriangular(adjoint=True), (2, 2), (2, 1), kinds="Mc"),
        ]


@final
@catalogued
@dataclass(frozen=True)
class Inv(General):
    """The inverse matrix."""

    name = "inv"
    nonlinear = True
    leading: ClassVar[bool] = True

    def evaluate(self, be: Any, *operands: Any) -> Any:
        found = None if be.matrices is None else be.matrices.inv(be, operands[0])
        return be.xp.linalg.inv(operands[0]) if found is None else found

    def infer(self, *avals: Aval) -> Aval:
        return avals[0]

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # d inv(a) = -inv(a) da inv(a)
        (t,) = tangents
        product = contract("ij", "jk", "ik")
        return -product(product(result, t), result)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(INV, (3, 3), kinds="m", complex_ok=True),
            Sample(INV, (4, 2, 2), kinds="m"),
        ]


INV, LU_FACTOR = Inv(), LuFactor()
SOLVE_VECTOR, SOLVE_MATRIX = Solve(True), Solve(False)
