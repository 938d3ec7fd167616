"""Linearize: run the function once and write its tangent half down as a linear program."""

from typing import Any

from numpy import ndarray

from gpujac.array.traced import TracedArray
from gpujac.backends.memory import thaw
from gpujac.core.aval import Shape, aval_of, dtype_of, shape_of
from gpujac.core.trace import Tracer
from gpujac.ops.agree import agreement
from gpujac.ops.elementwise import multiply
from gpujac.program.ir import Apply, Gather, Held, Input, Partial, Scale, held_entries, held_results
from gpujac.transforms.constants import kept
from gpujac.transforms.printing import describe
from gpujac.transforms.record import RecordTrace, RuleTrace
from gpujac.transforms.tangent import TangentTrace

_FIRST = (0,)
_UNREAD = tuple([(None,) * arity for arity in range(4)])
_READY = {"add", "subtract", "negative", "positive", "multiply"}  # slopes are operands or numbers


class LinearizeTrace(TangentTrace):
    """A trace whose tangents are variables of the program in `entries`."""

    __slots__ = ("entries", "frozen", "transform")
    writes = True

    def __init__(self, origin: str, transform: str = "vjp") -> None:
        super().__init__(origin)
        self.transform = transform  # what messages call it: grad, jacrev, ...
        self.entries: list = []
        self.frozen: list = []

    kept = kept

    def input(self, x: Any) -> TracedArray:
        """A tracer of `x` whose tangent enters the program."""
        shape, dtype = aval_of(x)
        self.entries.append(Input(shape, dtype))
        return TracedArray(self, x, len(self.entries) - 1, shape, dtype)

    def combine(self, op: Any, positions: tuple, ts: tuple, xs: tuple, y: Any, shape: Shape,
                dtype: Any) -> Any:
        entries = self.entries
        if op.name in _READY:
            c = xs[1 - positions[0]] if op is multiply and len(positions) == 1 else None
            if c.__class__ is float or (c.__class__ is ndarray and c.dtype is dtype):
                entries.append(Scale(op, positions, ts, None, None, (c,), shape, dtype))
                return len(entries) - 1
            entry = Scale(op, positions, ts, xs, y, None, shape, dtype)
            entry.resolve()
        else:  # what no slope reads is not kept
            if len(positions) == 1:
                if not op.reads_result[positions[0]]:
                    y = None
                elif not op.reads_operands:
                    xs = _UNREAD[len(xs)]
            elif True not in op.reads_result:
                y = None
            entry = Scale(op, positions, ts, xs, y, None, shape, dtype)
        entries.append(entry)
        return len(entries) - 1

    def apply(self, op: Any, t: Any, shape: Shape, dtype: Any) -> Any:
        self.entries.append(Apply(op, (t,), shape, dtype))
        return len(self.entries) - 1

    def gather(self, op: Any, ts: tuple, shape: Shape, dtype: Any) -> Any:
        self.entries.append(Gather(op, ts, shape, dtype))
        return len(self.entries) - 1

    def partial(self, op: Any, position: int, t: Any, operands: tuple, y: Any) -> Any:
        if len(operands) == 2:
            constants: tuple = (None, operands[1]) if position == 0 else (operands[0], None)
        else:
            constants = tuple([None if p == position else x for p, x in enumerate(operands)])
        self.entries.append(Partial(op, position, (t,), constants, shape_of(y), dtype_of(y)))
        return len(self.entries) - 1

    def rule(self, op: Any, primals: tuple, ts: tuple, operands: tuple, y: Any) -> Any:
        record = RecordTrace(self.origin, self.entries)
        try:
            tangents = tuple(None if t is None else record.tracer(t) for t in ts)
            result = op.jvp(primals, tangents, y)
            return self._written(record, result, y)
        finally:
            record.close()

    def called(self, op: Any, primals: tuple, ts: tuple) -> tuple[tuple, tuple]:
        if op.reverse:
            present = _FIRST if len(ts) == 1 else tuple([p for p, t in enumerate(ts) if t is not None])
            ys, held = op.linearize(primals, present)
            first = len(self.entries)
            reads = ts if len(present) == len(ts) else tuple([ts[p] for p in present])
            if not ys:  # nothing that a derivative could flow through
                return (), ()
            if len(ys) == 1:  # the usual case, without a look at sizes
                (a,) = held.dst
                self.entries.append(Held(held, reads, a.shape, a.dtype))
                return ys, (first,)
            self.entries += held_entries(first, held, reads)
            return ys, held_results(first, len(ys))
        record = RuleTrace(op.name, self.entries, kept=self.kept)
        try:
            ys, tangents = op.jvp(primals, tuple([None if t is None else record.tracer(t) for t in ts]))
            record.check_zeros(tangents)
            ys = tuple([record.opened(y) for y in ys])
            return ys, tuple([self._written(record, t, y) for t, y in zip(tangents, ys, strict=True)])
        finally:
            record.close()

    def _written(self, record: RecordTrace, t: Any, y: Any) -> Any:
        """The variable of a tangent that a rule returned, None where it is zero."""
        if not (isinstance(t, TracedArray) and t.owner is record) or t.aux is None:
            return None
        var, shape, dtype = t.aux, t.shape, t.dtype
        for step in agreement(shape, dtype, shape_of(y), dtype_of(y)):
            var = self.apply(step, var, shape_of(y), dtype_of(y))
        return var

    def add(self, ts: list, y: Any) -> Any:
        ones = (None,) * len(ts)
        positions = tuple(range(len(ts)))
        self.entries.append(Scale(None, positions, tuple(ts), None, None, ones, shape_of(y), dtype_of(y)))
        return len(self.entries) - 1

    def close(self) -> None:
        super().close()
        self.entries = []
        if self.frozen:
            thaw(self.frozen)
            self.frozen = []

    def describe(self, x: Tracer) -> str:
        """The repr of a tracer."""
        return describe(x)
