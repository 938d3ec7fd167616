"""The kinds of operation: what each owes, and how calling one binds it to the highest trace.

Four kinds cover all that is computed with arrays (a fifth, `core/call.py`, holds functions):

* `Pointwise`: elementwise with broadcasting; one slope per operand is its whole derivative.
* `Linear`: linear in its one operand and structural (no constants); names its transpose.
* `Joint`: linear in all operands together (concatenate, write a slice).
* `General`: the rest. Linear in some operands when the others are fixed (`linear_in`: contraction,
  take), or nonlinear with a `jvp` rule.

Static parameters count axes from the end; an op acts on trailing axes and leaves any extra
leading axes alone.
"""

import dis
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from gpujac.backends.choose import HOST_TYPES, backend_of, common_backend
from gpujac.backends.host import HOST, PYTHON_SCALARS
from gpujac.core import decompose, pattern
from gpujac.core.aval import Aval, Shape
from gpujac.core.trace import Tracer, top_trace
from gpujac.errors import MissingRuleError

Slope = Callable[..., Any] | None


class Sample:
    """One way to call an op in the tests: operand shapes and where values are drawn from."""

    __slots__ = ("call", "shapes", "low", "high", "complex_ok", "kinds", "double")

    def __init__(self, call: Any, *shapes: Shape, low: float = -2.0, high: float = 2.0,
                 complex_ok: bool = False, kinds: str = "", double: bool = False) -> None:
        self.call = call  # the op
        self.shapes = shapes
        self.low = low
        self.high = high
        self.complex_ok = complex_ok
        # per operand: "f" float, "s" in ascending order, "m" well-conditioned matrices, "M" complex ones, "c" always
        # complex, "b" bool, "i" integers from 0 to 2, "n" from -3 to 2, "t" from 2 to 4, "k" words of 32 bits
        self.kinds = kinds or "f" * len(shapes)
        self.double = double  # the op itself names double precision


class Mask:
    """A coefficient that selects: the tangent (times `factor`) where `keep` holds, zero elsewhere.

    Selecting instead of multiplying by zero keeps an infinite tangent out of the other branch.
    """

    __slots__ = ("keep", "factor")

    def __init__(self, keep: Any, factor: Any = None) -> None:
        self.keep = keep
        self.factor = factor


class Op:
    """An operation on arrays; instances are immutable and interned by their factories."""

    name: str
    flat: bool = False  # the derivative is zero everywhere, results are never traced
    adds: ClassVar[bool] = False  # whether the entries of the first operand are added to others
    copies: ClassVar[bool] = False  # whether each entry of the result is one of the first operand, or zero
    folds: ClassVar[bool] = False  # whether each entry of the first operand goes to one of the result, or to none
    accumulates: ClassVar[bool] = False  # whether it has an `accumulate`
    in_place: ClassVar[bool] = False  # whether `write` may get its first operand itself as `out`
    refuses: ClassVar[dict[str, str]] = {}  # rule -> why this op cannot have it

    def evaluate(self, be: Any, *operands: Any) -> Any:
        """The result on concrete arrays of the backend `be` (`be.xp` is its namespace)."""
        raise self.missing("evaluate")

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        """Put the result on concrete arrays into `out`, an array of its shape and dtype that overlaps none of them."""
        out[...] = self.evaluate(be, *operands)

    def accumulate(self, be: Any, out: Any, *operands: Any) -> None:
        """Add the result on concrete arrays to `out`, an array of its shape and dtype that overlaps none of them."""
        raise self.missing("accumulate")

    def infer(self, *avals: Aval) -> Aval:
        """Shape and dtype of the result from those of the operands."""
        raise self.missing("infer")

    def depends(self, *patterns: Any) -> Any:
        """Dependence of the result; dense unless the op knows better."""
        raise self.missing("depends")

    @classmethod
    def samples(cls) -> list[Sample]:
        """Calls that the op tests make."""
        return []

    def flops(self, shapes: tuple[Shape, ...], result: Shape) -> int:
        """Floating-point operations on operands of these shapes; 0 where numbers are only moved."""
        return math.prod(shapes[0]) if self.adds else 0

    def decomposed(self, operands: tuple) -> Any:
        """The result by the op's decomposition into others, NotImplemented where there is none."""
        found = decompose.find(self.name)
        return NotImplemented if found is None else found(self, *operands)

    def missing(self, rule: str) -> MissingRuleError:
        """The error for a rule that this op does not have."""
        reason = self.refuses.get(rule, "no such rule is written")
        if rule in ("batch", "jvp", "transpose"):
            reason += decompose.switched_off(self.name)
        return MissingRuleError(f"{self.name} has no {rule} rule: {reason}")


@dataclass(frozen=True, eq=False)
class Pointwise(Op):
    """An elementwise op. `slopes[p](*operands, result)` is d result / d operand p; None means 1.

    `flat`: the derivative is zero everywhere, results are never traced. `singular`: a slope can
    be infinite or NaN inside the domain. `linear`: linear in operand p when the others are fixed;
    `jointly`: linear in all operands together.
    """

    name: str
    arity: int
    slopes: tuple[Slope, ...] = ()
    flat: bool = False
    singular: bool = False
    tame: Any = None  # tame(*operands): a singular op whose slopes are finite for these operands
    linear: tuple[bool, ...] = ()
    jointly: bool = False
    low: float = -2.0
    high: float = 2.0
    complex_ok: bool = False
    kinds: str = ""
    result: str = ""  # kind of the result where it is not that of the operands: "b" or "i"
    host: Any = None
    reads_result: tuple[bool, ...] = ()  # per operand: whether its slope reads the result
    reads_operands: bool = True  # whether any slope reads an operand
    refuses: Any = field(default_factory=dict)  # type: ignore[misc]  # an instance field here too

    def __reduce__(self) -> tuple:
        return pointwise_named, (self.name,)  # pickled by registry name

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return common_backend(operands).function(self.name)(*operands)

    def infer(self, *avals: Aval) -> Aval:
        shape = np.broadcast_shapes(*(a.shape for a in avals))
        return Aval(shape, np.dtype(bool) if self.result == "b" else np.result_type(*(a.dtype for a in avals)))

    def depends(self, *patterns: Any) -> Any:
        return pattern.union(patterns, np.broadcast_shapes(*(p.shape for p in patterns)))

    def samples(self) -> list[Sample]:  # type: ignore[override]  # the op is its own table row
        shapes: list[tuple] = [((3,),) * self.arity, ((2, 3),) * self.arity]
        if self.arity == 2:
            shapes += [((2, 3), (3,)), ((2, 1), (1, 3)), ((), (3,))]
        if self.arity == 3:
            shapes += [((3,), (2, 3), ())]
        return [
            Sample(self, *s, low=self.low, high=self.high, complex_ok=self.complex_ok, kinds=self.kinds)
            for s in shapes
        ]


class Unary(Pointwise):
    """A pointwise op of one operand."""

    def __call__(self, x: Any) -> Any:
        if isinstance(x, Tracer):
            return x.owner.unary(self, x)
        if type(x) in HOST_TYPES:
            return self.host(x)
        return backend_of(x).function(self.name)(x)


class Binary(Pointwise):
    """A pointwise op of two operands."""

    def __call__(self, x: Any, y: Any) -> Any:
        if isinstance(x, Tracer):
            if isinstance(y, Tracer) and y.owner.level > x.owner.level:
                return y.owner.binary(self, x, y)
            return x.owner.binary(self, x, y)
        if isinstance(y, Tracer):
            return y.owner.binary(self, x, y)
        if type(x) in HOST_TYPES and type(y) in HOST_TYPES:
            return self.host(x, y)
        return common_backend((x, y)).function(self.name)(x, y)


class Ternary(Pointwise):
    """A pointwise op of three operands."""

    def __call__(self, x: Any, y: Any, z: Any) -> Any:
        operands = (x, y, z)
        top = top_trace(operands)
        if top is not None:
            return top.pointwise(self, operands)
        return common_backend(operands).function(self.name)(x, y, z)


_CLASSES = {1: Unary, 2: Binary, 3: Ternary}
POINTWISE: dict[str, Pointwise] = {}  # every pointwise op by name


def pointwise_named(name: str) -> Pointwise:
    """The pointwise op called `name`: what unpickling one gives."""
    return POINTWISE[name]


def _read_by(slope: Callable) -> set[int]:
    """Which of its arguments the code of a slope reads: what it does not read need not be kept."""
    names = slope.__code__.co_varnames[: slope.__code__.co_argcount]
    loaded: set[str] = set()
    for instruction in dis.get_instructions(slope):
        if instruction.opname.startswith("LOAD"):
            found = instruction.argval  # newer Pythons load two at once
            loaded.update(found if isinstance(found, tuple) else (str(found),))
    return {i for i, name in enumerate(names) if name in loaded}


def pointwise(name: str, arity: int, **fields: Any) -> Any:
    """Define (and register) the pointwise op called `name`."""

    def absent(*_: Any) -> Any:
        raise op.missing("slope")

    if not fields.get("flat"):
        slopes = fields.get("slopes", ())
        fields["slopes"] = (*slopes, *(absent,) * (arity - len(slopes)))
    read = [_read_by(slope) for slope in fields.get("slopes", ()) if slope is not None]
    fields["reads_result"] = tuple([s is not None and arity in _read_by(s) for s in fields.get("slopes", ())])
    fields["reads_operands"] = "tame" in fields or any([p < arity for ps in read for p in ps])
    op = _CLASSES[arity](name=name, arity=arity, host=HOST.function(name), **fields)
    POINTWISE[name] = op
    decompose.declare(name, complete=True)
    return op


def with_shapes(operands: tuple) -> tuple:
    """The operands with Python numbers as NumPy scalars, which have a shape and a dtype."""
    for x in operands:
        if x.__class__ in PYTHON_SCALARS:
            return tuple([np.asarray(v)[()] if v.__class__ in PYTHON_SCALARS else v for v in operands])
    return operands


STRUCTURAL: list[type] = []  # every class of structural or general op


def catalogued(cls: type[Op]) -> type[Op]:
    """Class decorator: list the op class in the catalogue that tests and docs walk."""
    STRUCTURAL.append(cls)
    decompose.declare(cls.name, not _asks(cls))
    return cls


def _asks(cls: Any) -> bool:
    """Whether some transform lacks a rule of this class of op; one whose `batch` gives up is in the table itself."""
    return issubclass(cls, General) and (cls.composite or (cls.batch is General.batch and not cls.leading))


@dataclass(frozen=True)
class Linear(Op):
    """A structural linear op: trailing axes of shape `src` become trailing axes `dst`."""

    src: Shape
    dst: Shape
    views: ClassVar[bool] = False  # whether the result on a NumPy array is always a view of it

    def view(self, x: Any) -> Any:
        """The result on a NumPy array as a view of it, None where it needs memory of its own."""
        return self.evaluate(HOST, x) if self.views else None

    def __call__(self, x: Any) -> Any:
        if isinstance(x, Tracer):
            return x.owner.linear(self, x)
        if x.__class__ in PYTHON_SCALARS:  # structural ops ask for a shape
            x = np.asarray(x)[()]
        return self.evaluate(backend_of(x), x)

    def lead(self, x: Any) -> Shape:
        """The leading axes of `x` that this op leaves alone."""
        return x.shape[: len(x.shape) - len(self.src)]

    def infer(self, *avals: Aval) -> Aval:
        (x,) = avals
        return Aval(x.shape[: len(x.shape) - len(self.src)] + self.dst, x.dtype)

    @cached_property
    def transposed(self) -> Any:
        """The adjoint, another op."""
        raise self.missing("transpose")

    def depends(self, *patterns: Any) -> Any:
        # structural ops only move, drop and add entries: run them on the bits themselves
        (p,) = patterns
        bits = self.evaluate(HOST, p.bits.astype(np.float32))
        return pattern.Pattern(np.asarray(bits) != 0)


@dataclass(frozen=True)
class Joint(Op):
    """An op linear in all operands together; `parts[p]` is the transpose for operand p."""

    def __call__(self, *operands: Any) -> Any:
        top = top_trace(operands)
        if top is not None:
            return top.joint(self, operands)
        operands = with_shapes(operands)
        return self.evaluate(common_backend(operands), *operands)

    @cached_property
    def parts(self) -> tuple:
        """For each operand the linear op that takes the cotangent of the result to its own."""
        raise self.missing("transpose")

    def restricted(self, positions: tuple[int, ...]) -> Any:
        """The op of the operands at `positions` alone, the others zero."""
        raise self.missing("restricted")

    @property
    def ranks(self) -> tuple[int, ...]:
        """How many trailing axes of each operand belong to the op."""
        raise self.missing("batch")

    def depends(self, *patterns: Any) -> Any:
        bits = [p.bits.astype(np.float32) for p in patterns]
        return pattern.Pattern(self.evaluate(HOST, *bits) != 0)


@dataclass(frozen=True)
class General(Op):
    """An op with constants or a nonlinear one.

    `linear_in` names the operands it is linear in when the others are fixed; `transpose` serves
    those. A nonlinear op gives `jvp`; a multilinear one needs none.
    """

    linear_in: ClassVar[tuple[int, ...]] = ()
    nonlinear: ClassVar[bool] = False
    leading: ClassVar[bool] = False  # one operand, whose extra leading axes the op leaves alone
    indexes: ClassVar[bool] = False  # the last operand is an index array, which may be NumPy's
    composite: ClassVar[bool] = False  # a derivative rule that it owes is left to its decomposition

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        without_jvp = cls.nonlinear and cls.jvp is General.jvp and "jvp" not in cls.refuses
        without_transpose = bool(cls.linear_in) and cls.transpose is General.transpose
        without_transpose = without_transpose and "transpose" not in cls.refuses
        cls.composite = not cls.flat and (without_jvp or without_transpose)

    def __call__(self, *operands: Any) -> Any:
        top = top_trace(operands)
        if top is not None:
            return top.general(self, operands)
        operands = with_shapes(operands)
        return self.evaluate(self.backend(operands), *operands)

    def backend(self, operands: tuple) -> Any:
        """The backend that evaluates: that of all operands."""
        return common_backend(operands)

    def jvp(self, primals: tuple, tangents: tuple, result: Any) -> Any:
        """The tangent of the result; absent tangents are None."""
        raise self.missing("jvp")

    def transpose(self, position: int, ct: Any, operands: tuple, shape: Shape) -> Any:
        """The cotangent of operand `position` (of trailing shape `shape`), None there."""
        raise self.missing("transpose")

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        """The op on physical operands with mapped axes (counted from the end, None: unmapped)."""
        raise self.missing("batch")

    def depends(self, *patterns: Any) -> Any:
        avals = [Aval(p.shape, np.dtype(np.float64)) for p in patterns]
        return pattern.dense(patterns, self.infer(*avals).shape)
