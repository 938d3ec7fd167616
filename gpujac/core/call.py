"""Ops that hold functions: any number of operands, a tuple of results, rules given by their maker."""

from typing import Any

from gpujac.core.op import Op
from gpujac.core.trace import top_trace


class Call(Op):
    """An op of flat operands that returns a tuple of results. Every method may bind other ops.

    `reverse`: the linear program holds `linearize`'s map as one entry, so that sweeps call its own
    functions in both directions; otherwise the `jvp` rule is written down entry by entry.
    """

    reverse = False

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]  # an instance attribute here

    def __call__(self, *operands: Any) -> tuple:
        top = top_trace(operands)
        return self.run(*operands) if top is None else top.call(self, operands)

    def run(self, *operands: Any) -> tuple:
        """The results where no transform looks on."""
        raise self.missing("evaluate")

    def jvp(self, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
        """Results and their tangents; an absent tangent is None."""
        raise self.missing("jvp")

    def linearize(self, primals: tuple, present: tuple[int, ...]) -> tuple[tuple, Any]:
        """Results, and the map (transforms/held.py) from the tangents at `present` to theirs."""
        raise self.missing("vjp")

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[tuple, tuple]:
        """Results and their mapped axes (from the end; None: unmapped) of physical operands."""
        raise self.missing("batch")
