"""Which of several writes to one position comes last."""

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from gpujac.core.aval import Aval
from gpujac.core.op import General, Sample, catalogued
from gpujac.ops.batching import as_shape, both_to_front, like, shift_index
from gpujac.ops.elementwise import maximum


@final
@catalogued
@dataclass(frozen=True)
class LastWriter(General):
    """For each of `size` positions the last entry of the index that names it, else -1."""

    name = "last_writer"
    flat = True
    size: int

    def evaluate(self, be: Any, *operands: Any) -> Any:
        (index,) = operands
        return be.last_writer(index, self.size)

    def infer(self, *avals: Aval) -> Aval:
        return Aval((self.size,), np.dtype(np.intp))

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        (index,) = both_to_front(xs, axes)
        index = as_shape(index, (size, math.prod(index.shape[1:])))
        flat = shift_index(index, size, self.size)
        source = LastWriter(size * self.size)(as_shape(flat, (math.prod(flat.shape),)))
        source = as_shape(source, (size, self.size))
        rows = like(np.arange(size)[:, None] * index.shape[1], source)
        return maximum(source - rows, -1), -2

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(cls(4), (5,), kinds="n"), Sample(cls(3), (2, 2), kinds="n")]
