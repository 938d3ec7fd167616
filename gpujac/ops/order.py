"""Order of entries: the positions that would sort the last axis."""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from gpujac.core.aval import Aval
from gpujac.core.op import General, Sample, catalogued


@final
@catalogued
@dataclass(frozen=True)
class Argsort(General):
    """Positions that sort the last axis; equal entries keep their order."""

    name = "argsort"
    flat = True
    leading: ClassVar[bool] = True

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.argsort(operands[0])

    def infer(self, *avals: Aval) -> Aval:
        return Aval(avals[0].shape, np.dtype(np.intp))

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(ARGSORT, (4,)), Sample(ARGSORT, (2, 3))]


ARGSORT = Argsort()
