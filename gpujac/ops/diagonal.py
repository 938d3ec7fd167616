"""Diagonals of matrices in the last two axes: read and write, each the other's transpose."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, final

from gpujac.core.aval import Shape
from gpujac.core.op import Linear, Sample, catalogued

_CACHE = 1 << 14


@final
@catalogued
@dataclass(frozen=True)
class Diagonal(Linear):
    """Entries [row + i, column + i] of the last two axes."""

    name = "diagonal"
    copies = folds = True
    row: int
    column: int

    def evaluate(self, be: Any, x: Any) -> Any:
        flat = be.ravel(x, len(x.shape) - 2)
        step, count = self.src[1] + 1, self.dst[0]
        start = self.row * self.src[1] + self.column if count else 0
        return flat[..., start : start + max(count - 1, 0) * step + min(count, 1) : step]

    @cached_property
    def transposed(self) -> Linear:
        return FromDiagonal(self.dst, self.src, self.row, self.column)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(diagonal((3, 4), 0, 1), (3, 4), complex_ok=True),
            Sample(diagonal((4, 3), 2, 0), (2, 4, 3)),
        ]


@final
@catalogued
@dataclass(frozen=True)
class FromDiagonal(Linear):
    """A zero matrix of shape `dst` with the operand at [row + i, column + i]."""

    name = "from_diagonal"
    copies = folds = True
    row: int
    column: int

    def evaluate(self, be: Any, x: Any) -> Any:
        buffer = be.zeros(self.lead(x) + self.dst, x.dtype, x)
        be.set_diagonal(buffer, self.row, self.column, x)
        return buffer

    @cached_property
    def transposed(self) -> Linear:
        return Diagonal(self.dst, self.src, self.row, self.column)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(diagonal((3, 4), 0, 1).transposed, (3,), complex_ok=True),
            Sample(diagonal((4, 3), 2, 0).transposed, (5, 2)),
        ]


@lru_cache(_CACHE)
def diagonal(src: Shape, row: int, column: int) -> Diagonal:
    """The diagonal that starts at [row, column] of the last two axes."""
    count = max(0, min(src[0] - row, src[1] - column))
    return Diagonal(src, (count,), row, column)


@lru_cache(_CACHE)
def from_diagonal(dst: Shape, row: int, column: int, count: int) -> FromDiagonal:
    """Write a vector of length `count` along a diagonal of a zero matrix."""
    return FromDiagonal((count,), dst, row, column)
