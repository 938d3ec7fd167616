"""Running sums along one axis."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, final

import numpy as np

from gpujac.core.aval import Shape
from gpujac.core.op import Linear, Sample, catalogued
from gpujac.ops.structure import trimmed

_CACHE = 1 << 14


@final
@catalogued
@dataclass(frozen=True)
class Cumsum(Linear):
    """Running sum along `axis`; `reverse` runs from the end."""

    name = "cumsum"
    adds = True
    axis: int
    reverse: bool

    def evaluate(self, be: Any, x: Any) -> Any:
        if self.reverse:
            return be.xp.flip(be.cumsum(be.xp.flip(x, axis=self.axis), self.axis), axis=self.axis)
        return be.cumsum(x, self.axis)

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        x = operands[0]
        if self.reverse:
            x, out = np.flip(x, self.axis), np.flip(out, self.axis)
        np.add.accumulate(x, axis=self.axis, out=out)

    @cached_property
    def transposed(self) -> Linear:
        return cumsum(self.src, self.axis, not self.reverse)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(cumsum((4,), -1, False), (4,), complex_ok=True),
            Sample(cumsum((3, 2), -2, True), (5, 3, 2)),
        ]


@lru_cache(_CACHE)
def cumsum(src: Shape, axis: int, reverse: bool) -> Cumsum:
    """Running sum along `axis`."""
    src, (axis,) = trimmed(src, (axis,))
    return Cumsum(src, src, axis, reverse)
