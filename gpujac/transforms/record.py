"""Recording a linear function without values: tracers that are variables of a program."""

from collections.abc import Callable, Iterable
from typing import Any

from numpy import ndarray

from gpujac.array.traced import TracedArray
from gpujac.backends.choose import backend_of
from gpujac.core.aval import Aval, Shape, aval_of, dtype_of, kind, shape_of
from gpujac.core.op import Op
from gpujac.core.trace import Trace, Tracer, payload
from gpujac.errors import ConcretizationError, MissingRuleError
from gpujac.ops.agree import agreement, coefficient
from gpujac.ops.elementwise import multiply
from gpujac.program.ir import Apply, Gather, Partial, Scale, held_entries, held_results
from gpujac.transforms.printing import describe
from gpujac.transforms.tangent import WRITABLE


class RecordTrace(Trace):
    """A trace whose tracers have a shape and dtype but no value; it appends to `entries`.

    A tracer without a variable (aux None) is a constant, which has a value. `kept` keeps constants
    safe from writes where the code that is recorded is a user's; None: nobody writes into them.
    """

    __slots__ = ("entries", "kept")
    transform = "linear_transpose"
    writes = True

    def __init__(self, origin: str, entries: list, kept: Callable | None = None) -> None:
        super().__init__(origin)
        self.entries = entries
        self.kept = kept

    def tracer(self, var: int) -> TracedArray:
        """The tracer of a variable that exists."""
        entry = self.entries[var]
        return TracedArray(self, None, var, entry.shape, entry.dtype)

    def emit(self, entry: Any) -> TracedArray:
        """Append an entry; returns its tracer."""
        if not self.alive:
            raise self.leaked()
        self.entries.append(entry)
        return TracedArray(self, None, len(self.entries) - 1, entry.shape, entry.dtype)

    def unary(self, op: Any, x: Any) -> Any:
        return self.pointwise(op, (x,))

    def binary(self, op: Any, x: Any, y: Any) -> Any:
        if op is multiply and self.alive:  # with a plain array of the same shape and dtype: what most rules do
            place = 0
            if y.__class__ is TracedArray:
                place, x, y = 1, y, x
            if y.__class__ is ndarray and y.dtype is x.dtype and y.shape == x.shape and _is_var(self, x):
                c = y if self.kept is None else self.kept(y)
                return self.emit(Scale(op, (place,), (x.aux,), None, None, (c,), x.shape, x.dtype))
            if place:
                x, y = y, x
        return self.pointwise(op, (x, y))

    def pointwise(self, op: Any, operands: tuple) -> Any:
        operands = self._opened(operands)
        if not any(_is_var(self, x) for x in operands):
            return self.boxed(op(*operands))
        if op.flat:  # a comparison or a rounding needs the value
            raise self.valueless()
        traced = [p for p, x in enumerate(operands) if _is_var(self, x)]
        fixed = [p for p in range(len(operands)) if p not in traced]
        if not op.jointly and not (len(traced) == 1 and _linear_at(op, traced[0])):
            raise self.not_linear(op)
        if op.jointly:
            self._check_zero(op, [operands[p] for p in fixed if not _selects(op, p)])
        aval = _pointwise_aval(op, operands)
        operands = self._safe(operands)
        values = tuple(None if p in traced else x for p, x in enumerate(operands))
        witness = _Typed(aval)
        coefs = tuple(coefficient(op, p, values, witness) for p in traced)  # of what is known: no traced operand
        reads = tuple(self._agreed(operands[p], aval) for p in traced)
        return self.emit(Scale(op, tuple(traced), reads, None, None, coefs, *aval))

    def _opened(self, operands: tuple) -> tuple:
        """The operands with constants of this trace as what they hold."""
        if not self.alive:
            raise self.leaked(*operands)
        for x in operands:
            if x.__class__ is TracedArray and not x.owner.alive:
                raise x.owner.leaked(x)
        return tuple([self.opened(x) for x in operands])

    def _safe(self, operands: tuple) -> tuple:
        """The operands with constants as they are now, for an entry that reads them later."""
        kept = self.kept
        if kept is None:
            return operands
        return tuple([kept(x) if x.__class__ in WRITABLE and not _is_var(self, x) else x for x in operands])

    def _agreed(self, x: Any, aval: Aval) -> int:
        for op in agreement(x.shape, x.dtype, aval.shape, aval.dtype):
            x = self.emit(Apply(op, (x.aux,), *op.infer(aval_of(x))))
        return x.aux

    def _check_zero(self, op: Op, constants: list) -> None:
        for c in constants:
            target = payload(c)
            if target is None or bool(backend_of(target).xp.any(target != 0)):
                raise self.not_linear(op)

    def not_linear(self, op: Op) -> MissingRuleError:
        """The error for an op that is not linear in what it reads."""
        return MissingRuleError(
            f"{self.transform} of {self.origin}: {op.name} is not linear in its traced operands; "
            "a linear function uses its argument only in sums, products with constants and "
            "structural operations"
        )

    def linear(self, op: Any, x: Any) -> Any:
        if not self.alive:
            raise self.leaked(x)
        if x.aux is None:
            return self.boxed(op(x.value))
        return self.emit(Apply(op, (x.aux,), *op.infer(aval_of(x))))

    def joint(self, op: Any, operands: tuple) -> Any:
        operands = self._opened(operands)
        if not any(_is_var(self, x) for x in operands):
            return self.boxed(op(*operands))
        traced = tuple(p for p, x in enumerate(operands) if _is_var(self, x))
        self._check_zero(op, [x for p, x in enumerate(operands) if p not in traced])
        aval = op.infer(*(aval_of(x) for x in operands))
        part = op if len(traced) == len(operands) else op.restricted(traced)
        reads = tuple(operands[p].aux for p in traced)
        single = len(traced) == 1 and part is not op
        return self.emit((Apply if single else Gather)(part, reads, *aval))

    def general(self, op: Any, operands: tuple) -> Any:
        operands = self._opened(operands)
        if not any(_is_var(self, x) for x in operands):
            return self.boxed(op(*operands))
        if op.composite:
            found = op.decomposed(operands)
            if found is not NotImplemented:
                return found
        traced = [p for p, x in enumerate(operands) if _is_var(self, x)]
        if len(traced) != 1 or traced[0] not in op.linear_in:
            raise self.not_linear(op)
        (p,) = traced
        aval = op.infer(*(aval_of(x) for x in operands))
        constants = tuple(None if q == p else x for q, x in enumerate(self._safe(operands)))
        return self.emit(Partial(op, p, (operands[p].aux,), constants, *aval))

    def call(self, op: Any, operands: tuple) -> tuple:
        operands = self._opened(operands)
        if not any(_is_var(self, x) for x in operands):
            return self.passed(op(*operands))
        if op.composite:
            found = op.decomposed(operands)
            if found is not NotImplemented:
                return found
        return op.record(self, self._safe(operands))

    def held(self, map: Any, ts: list) -> list:
        """The results of a held map of tangents, each of which is a variable of this trace."""
        first = len(self.entries)
        self.entries += held_entries(first, map, tuple([t.aux for t in ts]))
        return [self.tracer(v) for v in held_results(first, len(map.dst))]

    def opened(self, x: Any) -> Any:
        """A constant of this trace as what it holds; everything else as it is."""
        return x.value if x.__class__ is TracedArray and x.owner is self and x.aux is None else x

    def is_variable(self, x: Any) -> bool:
        """Whether `x` is a tracer of this trace without a value."""
        return _is_var(self, x)

    def concrete(self, x: Any) -> Any:
        if not self.alive:
            raise self.leaked(x)
        if x.aux is None:
            return x.value
        raise self.valueless()

    def describe(self, x: Tracer) -> str:
        """The repr of a tracer."""
        return describe(x)

    def valueless(self) -> ConcretizationError:
        """The error for reading a value."""
        return ConcretizationError(
            f"{self.transform} of {self.origin}: a linear function is recorded without values, so "
            "Python cannot branch on one or read it; use gpujac.vjp at a point instead"
        )

    def boxed(self, value: Any) -> Any:
        return TracedArray(self, value, None, shape_of(value), dtype_of(value))


class RuleTrace(RecordTrace):
    """A trace that records a rule which somebody wrote: linear in tangents, or in cotangents."""

    __slots__ = ("reads",)
    transform = "the rule"

    def __init__(self, origin: str, entries: list, reads: str = "tangents", kept: Callable | None = None) -> None:
        super().__init__(origin, entries, kept)
        self.reads = reads

    def not_linear(self, op: Op) -> MissingRuleError:
        return MissingRuleError(
            f"{self.origin}: its rule applies {op.name} to {self.reads}, in which it must be linear: "
            f"{self.reads} may be added, multiplied by values that do not depend on them, and moved about"
        )

    def valueless(self) -> ConcretizationError:
        return ConcretizationError(
            f"{self.origin}: its rule asks for the value of one of its {self.reads} (if, while, a comparison, "
            f"float()), but it is recorded as a linear function of them, without values"
        )

    def check_zeros(self, results: Iterable) -> None:
        """Raise for a result of the rule that is a constant other than zero."""
        for t in results:
            constant = self.opened(t)
            if constant is None or _is_var(self, t):
                continue
            target = payload(constant)
            if target is None or bool(backend_of(target).xp.any(target != 0)):
                raise MissingRuleError(
                    f"{self.origin}: its rule returned a value that does not depend on the {self.reads} and is "
                    f"not zero; a rule is linear in the {self.reads}"
                )


class _Typed:
    """Stands for a result that has no value yet, where only its dtype is asked."""

    __slots__ = ("shape", "dtype")

    def __init__(self, aval: Aval) -> None:
        self.shape, self.dtype = aval


def _is_var(trace: Trace, x: Any) -> bool:
    return x.__class__ is TracedArray and x.owner is trace and x.aux is not None


def _linear_at(op: Any, position: int) -> bool:
    return bool(op.linear) and op.linear[position]


def _selects(op: Any, position: int) -> bool:
    return op.name == "where" and position == 0


def _pointwise_aval(op: Any, operands: tuple) -> Aval:
    """Shape and dtype of the result, with one lane standing for each operand."""
    shape = _broadcast([shape_of(x) for x in operands])
    kinds = [x for p, x in enumerate(operands) if not _selects(op, p)]
    strong = [dtype_of(x) for x in kinds if type(x) not in (int, float, complex, bool)]
    weak = [x for x in kinds if type(x) in (int, float, complex, bool)]
    arrays = [x for x in kinds if payload(x) is not None and type(x) not in (int, float, complex, bool)]
    target = payload(arrays[0]) if arrays else 0.0
    if all(d == strong[0] for d in strong) and (kind(strong[0]) == "c" or not any(type(x) is complex for x in weak)):
        return Aval(shape, strong[0])
    return Aval(shape, backend_of(target).xp.result_type(*strong, *weak))


def _broadcast(shapes: list[Shape]) -> Shape:
    rank = max(len(s) for s in shapes)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    return tuple(next((n for n in column if n != 1), 1) for column in zip(*padded, strict=True))
