"""Ops that hold functions: any number of operands, a tuple of results, rules given by their maker."""

from typing import Any

from gpujac.core.op import Op
from gpujac.core.taking import put_aside, put_back
from gpujac.core.trace import Tracer, top_trace
from gpujac.errors import MissingRuleError


class Call(Op):
    """An op of flat operands that returns a tuple of results. Every method may bind other ops.

    `reverse`: the linear program holds `linearize`'s map as one entry, so that sweeps call its own
    functions in both directions; otherwise the `jvp` rule is written down entry by entry.
    `body`: where no lower trace looks on, vmap runs `run` itself on its own traced operands.
    """

    reverse = False
    body = False
    composite = False  # whether derivatives are left to its decomposition

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *operands: Any) -> tuple:
        top = top_trace(operands)
        return self.run(*operands) if top is None else top.call(self, operands)

    def in_branch(self, top: Any, operands: tuple) -> tuple:
        """The results where some lanes of vmaps only watch: its code goes by those that its operands may have."""
        aside = put_aside(top.level + 1)
        try:
            found: tuple = top.call(self, operands)
            return found
        finally:
            put_back(aside)

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

    def batch_in(self, trace: Any, xs: tuple, axes: tuple) -> tuple[tuple, tuple]:
        """`batch` for a trace of vmap, for those that ask it for more than its size."""
        return self.batch(trace.size, xs, axes)

    def record(self, trace: Any, operands: tuple) -> tuple:
        """The results where a linear function is recorded without values, in the tracers of `trace`."""
        raise trace.not_linear(self)

    def check_captured(self, level: int, results: tuple) -> None:
        """Raise where a rule brought back a value of the trace of this level: it was not an operand.

        The trace gave the rule values of lower levels only; what the rule made of its own tracers
        would be counted as a constant.
        """
        for y in results:
            if isinstance(y, Tracer) and y.owner.level >= level:
                raise self.captured()

    def captured(self) -> MissingRuleError:
        """The error for a rule that reads a traced value which is no operand."""
        return MissingRuleError(
            f"{self.name}: its function or a rule of it used a traced value from outside (a variable of an "
            "enclosing function, a global, an attribute), which has no rule: its derivative would be lost. "
            "Pass that value as one more argument"
        )
