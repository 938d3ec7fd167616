"""Linear algebra on the last two axes: solve and inv."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

from gpujac.core.aval import Aval, Shape, kind
from gpujac.core.op import General, Sample, catalogued
from gpujac.ops.batching import as_shape, reorder, stretch
from gpujac.ops.contract import contract
from gpujac.ops.structure import CONJ, permute


def adjoint(a: Any) -> Any:
    """The conjugate transpose."""
    a = permute(tuple(a.shape), (*range(-len(a.shape), -2), -1, -2))(a)
    return CONJ(a) if kind(a.dtype) == "c" else a


@final
@catalogued
@dataclass(frozen=True)
class Solve(General):
    """x with a @ x = b; `vector` says that b has one core axis, not two."""

    name = "solve"
    linear_in = (1,)
    nonlinear = True
    leading: ClassVar[bool] = False
    vector: bool

    def evaluate(self, be: Any, *operands: Any) -> Any:
        a, b = operands
        if not self.vector:
            if len(a.shape) == 2 and len(b.shape) > 2:  # one factorization, all lanes as columns
                return self._fold(be, a, b)
            return be.solve(a, b)
        if len(a.shape) == 2 and len(b.shape) > 1:  # (lead, n): the lead axes are the columns
            rows = be.reshape(b, (-1, b.shape[-1]))
            return be.reshape(be.swap_last(be.solve(a, be.swap_last(rows))), b.shape)
        if len(b.shape) == 1 and len(a.shape) == 2:
            return be.solve(a, b)
        x = be.solve(a, be.reshape(b, (*b.shape, 1)))
        return be.reshape(x, tuple(x.shape[:-1]))

    def flops(self, shapes: tuple[Shape, ...], result: Shape) -> int:
        return 2 * math.prod(result) * shapes[0][-1]  # two triangles; their factors are found once per sweep

    def _fold(self, be: Any, a: Any, b: Any) -> Any:
        lead, (n, columns) = tuple(b.shape[:-2]), b.shape[-2:]
        rank = len(b.shape)
        wide = be.permute(b, (rank - 2, *range(rank - 2), rank - 1))
        x = be.solve(a, be.reshape(wide, (n, -1)))
        x = be.reshape(x, (n, *lead, columns))
        return be.permute(x, (*range(1, rank - 1), 0, rank - 1))

    def infer(self, *avals: Aval) -> Aval:
        a, b = avals
        core = 1 if self.vector else 2
        lead = max(a.shape[:-2], b.shape[: len(b.shape) - core], key=len)
        return Aval(lead + b.shape[len(b.shape) - core :], b.dtype)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        # a dx = db - da x
        (a, _), (da, db) = primals, tangents
        right = None
        if da is not None:
            out = "i" if self.vector else "ik"
            right = -contract("ij", "j" if self.vector else "jk", out)(da, result)
        if db is not None:
            right = db if right is None else db + right
        return self(a, right)

    def transpose(self, position: int, ct: Any, operands: tuple, shape: Shape) -> Any:
        return self(adjoint(operands[0]), ct)

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        (a, b), (i, j) = xs, axes
        b = stretch(b, j, size)
        if i is None:
            result = self(a, b)
            return result, -len(result.shape)
        a = stretch(a, i, size)
        lead_a, lead_b = len(a.shape) - 2, len(b.shape) - (1 if self.vector else 2)
        if lead_a == 1 and lead_b > 1:  # (B, n, n) against (B, lead..., n): the lead are columns
            return self._as_columns(a, b, lead_b), -len(b.shape)
        if lead_a < lead_b:
            a = as_shape(a, (size, *(1,) * (lead_b - lead_a), *a.shape[1:]))
        result = self(a, b)
        return result, -len(result.shape)

    def _as_columns(self, a: Any, b: Any, lead: int) -> Any:
        rank = len(b.shape)
        wide = reorder(b, (0, lead, *range(1, lead), *range(lead + 1, rank)))
        shape = tuple(wide.shape)
        flat = as_shape(wide, (*shape[:2], math.prod(shape[2:])))
        x = as_shape(SOLVE_MATRIX(a, flat), shape)
        return reorder(x, (0, *range(2, lead + 1), 1, *range(lead + 1, rank)))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(SOLVE_VECTOR, (2, 2), (2,), kinds="mf", complex_ok=True),
            Sample(SOLVE_MATRIX, (3, 3), (3, 2), kinds="mf", complex_ok=True),
            Sample(SOLVE_VECTOR, (4, 2, 2), (4, 2), kinds="mf"),
            Sample(SOLVE_MATRIX, (2, 2), (4, 2, 3), kinds="mf"),
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
        return be.xp.linalg.inv(operands[0])

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


INV = Inv()
SOLVE_VECTOR, SOLVE_MATRIX = Solve(True), Solve(False)
