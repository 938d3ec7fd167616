"""Ops that libraries compute in one call and whose rules are left to their decompositions.

Each owes values and the rules for what it can do itself; where a batching or derivative rule is
missing, the transform runs the decomposition (array/decompositions.py) instead.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import numpy as np

from gpujac.core.aval import Aval
from gpujac.core.op import General, Sample, catalogued
from gpujac.ops.batching import move_axis

_CACHE = 1 << 10


@final
@catalogued
@dataclass(frozen=True)
class Interp(General):
    """Piecewise linear interpolation: at `x` through the points (`xp`, `fp`), constant outside of them."""

    name = "interp"
    nonlinear = True

    def evaluate(self, be: Any, *operands: Any) -> Any:
        native = getattr(be.xp, "interp", None)
        return self.decomposed(operands) if native is None else native(*operands)

    def infer(self, *avals: Aval) -> Aval:
        return Aval(avals[0].shape, avals[2].dtype)

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        x, points, values = xs
        if axes[1] is not None or axes[2] is not None:
            return NotImplemented
        return self(x, points, values), axes[0]

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(INTERP, (5,), (4,), (4,), kinds="fsf", double=True),
            Sample(INTERP, (2, 1), (3,), (3,), kinds="fsf", double=True),
        ]


INTERP = Interp()


@final
@catalogued
@dataclass(frozen=True)
class Quantile(General):
    """Quantiles `q` (any shape) of the entries along the last axis; the axes of `q` take its place."""

    name = "quantile"
    nonlinear = True
    method: str

    def evaluate(self, be: Any, *operands: Any) -> Any:
        x, q = operands
        native = getattr(be.xp, "quantile", None)
        if native is None:
            return self.decomposed(operands)
        y = native(x, q, axis=-1, method=self.method)
        k = len(q.shape)
        return be.permute(y, (*range(k, len(y.shape)), *range(k))) if k else y

    def infer(self, *avals: Aval) -> Aval:
        x, q = avals
        return Aval(x.shape[:-1] + q.shape, x.dtype)

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        (x, q), (i, j) = xs, axes
        if j is not None:
            return NotImplemented
        y = self(move_axis(x, i, -len(x.shape)), q)
        return y, -len(y.shape)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(quantile("linear"), (5,), (2,), low=0.05, high=0.95),
            Sample(quantile("linear"), (2, 4), (), low=0.05, high=0.95),
            Sample(quantile("midpoint"), (2, 4), (3,), low=0.05, high=0.95),
        ]


@lru_cache(_CACHE)
def quantile(method: str) -> Quantile:
    """The op of quantiles by a method of NumPy's."""
    return Quantile(method)


@final
@catalogued
@dataclass(frozen=True)
class SearchSorted(General):
    """Positions in the sorted vector of the first operand where the second's entries would be inserted."""

    name = "searchsorted"
    flat = True
    side: str

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.xp.searchsorted(*operands, side=self.side)

    def infer(self, *avals: Aval) -> Aval:
        return Aval(avals[1].shape, np.dtype(np.intp))

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        if axes[0] is not None:
            return NotImplemented
        return self(*xs), axes[1]

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(search_sorted("left"), (4,), (5,), kinds="sf"),
            Sample(search_sorted("right"), (4,), (2, 3), kinds="sf"),
        ]


@lru_cache(_CACHE)
def search_sorted(side: str) -> SearchSorted:
    """The op of insertion positions, before ("left") or after ("right") equal entries."""
    return SearchSorted(side)
