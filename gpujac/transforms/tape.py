"""The operations of a function at one point, written down without their results, to be done again.

The function runs once, in Python, under a `TapeTrace`; its tape is played as often as needed. So what
the function drew at random or decided by a value is the same each time, and what it does on the side
happens once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from gpujac.array.traced import TracedArray
from gpujac.backends.host import SCALARS
from gpujac.core.aval import aval_of, dtype_of, is_differentiable, shape_of
from gpujac.core.trace import Trace, Tracer
from gpujac.ops.naming import Named
from gpujac.transforms.printing import describe

Policy = Callable[[str, str | None], bool]


class ValuelessError(Exception):
    """An operand without a value: a linear function is being recorded, which has no residuals."""


def stripped(x: Any) -> Any:
    """`x` without the levels that differentiate: an array, or one mapped by the vmaps around it."""
    while isinstance(x, Tracer):
        if not x.owner.alive:
            raise x.owner.leaked(x)
        if x.owner.batches:
            inner = stripped(x.value)
            return inner if x.aux is None else TracedArray(x.owner, inner, x.aux, x.shape, x.dtype)
        if x.value is None:
            raise ValuelessError
        x = x.value
    return x


class Step(NamedTuple):
    """One operation: the slots it reads, the slots of its results, and whether those are saved."""

    op: Any
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    several: bool  # whether it returns a tuple
    saved: bool


class _Seen(NamedTuple):
    """An array met while recording, so that it is found again: what it was, and its slot."""

    array: Any  # keeps the id its own; a weak reference for results
    payload: tuple  # of a traced array, which may be written into behind its name
    copy: Any  # of a plain result that the function could write into
    slot: int


class TapeTrace(Trace):
    """A trace whose tracers hold a value without derivatives and the slot of the tape it came from.

    A tracer without a slot (aux None) is a constant made inside the function.
    """

    __slots__ = ("steps", "slots", "operands", "saved", "count", "policy", "kept", "_seen")
    transform = "checkpoint"

    def __init__(self, origin: str, policy: Policy, kept: Callable) -> None:
        super().__init__(origin)
        self.steps: list[Step] = []
        self.slots: dict[int, Any] = {}  # constants by slot
        self.operands: dict[int, Any] = {}  # arrays of outside by slot: arguments, then captured ones
        self.saved: dict[int, Any] = {}  # results that the policy keeps, by slot
        self.count = 0
        self.policy = policy
        self.kept = kept  # keeps a constant safe from writes
        self._seen: dict[int, _Seen] = {}

    def input(self, x: Any) -> TracedArray:
        """The tracer of an argument."""
        own = x.detached() if isinstance(x, TracedArray) else self.kept(x)
        value, slot = stripped(own), self._new()
        self.operands[slot] = own
        return TracedArray(self, value, slot, *aval_of(value))

    def _new(self) -> int:
        self.count += 1
        return self.count - 1

    def _slot(self, x: Any) -> tuple[Any, int]:
        """The value and the slot of an operand."""
        if x.__class__ is TracedArray and x.owner is self and x.aux is not None:
            return x.value, x.aux
        if isinstance(x, Tracer) and x.owner is self:
            x = x.value  # a constant made inside
        seen = self._seen.get(id(x))
        if seen is not None and _is_unchanged(seen, x):
            return stripped(x), seen.slot
        if isinstance(x, Tracer):
            return self._captured(x)
        slot = self._new()
        self.slots[slot] = x = x if x.__class__ in SCALARS else self._constant(x, slot)
        return x, slot

    def _constant(self, x: Any, slot: int) -> Any:
        kept = self.kept(x)
        if kept is x:  # a copy is compared with nothing: its original may change
            self._seen[id(x)] = _Seen(x, (), None, slot)
        return kept

    def _captured(self, x: Any) -> tuple[Any, int]:
        """A traced array that the function did not get as an argument."""
        value, slot = stripped(x), self._new()
        self.operands[slot] = x.detached()
        self._seen[id(x)] = _Seen(x, (x.owner, x.value, x.aux), None, slot)
        return value, slot

    def bind(self, op: Any, operands: tuple) -> tuple[Any, tuple[int, ...]]:
        """The result of an operation and the slots it read."""
        if not self.alive:
            raise self.leaked(*operands)
        values, reads = zip(*[self._slot(x) for x in operands], strict=True)
        return op(*values), reads

    def pointwise(self, op: Any, operands: tuple) -> Any:
        y, reads = self.bind(op, operands)
        slot = self._new()
        if op.flat:
            self.steps.append(Step(op, reads, (slot,), False, False))
            self._remember(y, slot)
            return y
        shape, dtype = aval_of(y)
        label = op.label if op.__class__ is Named else None
        saved = is_differentiable(dtype) and bool(self.policy(op.name, label))
        self.steps.append(Step(op, reads, (slot,), False, saved))
        if saved:
            self.saved[slot] = y
        return TracedArray(self, y, slot, shape, dtype)

    def _remember(self, y: Any, slot: int) -> None:
        """Know a comparison's result again, as long as it lives and nobody writes into it.

        Else it becomes a constant, as do scalars and arrays of a device.
        """
        if isinstance(y, Tracer):
            self._seen[id(y)] = _Seen(y, (y.owner, y.value, y.aux), None, slot)
        elif y.__class__ is np.ndarray:
            key, seen = id(y), self._seen
            seen[key] = _Seen(ref(y, lambda _: seen.pop(key, None)), (), y.copy(), slot)

    joint = pointwise

    def general(self, op: Any, operands: tuple) -> Any:
        if op.composite:  # its derivative is that of its parts, of which no saved result of the whole is one
            if not self.alive:
                raise self.leaked(*operands)
            found = op.decomposed(operands)
            if found is not NotImplemented:
                return found
        return TapeTrace.pointwise(self, op, operands)

    def unary(self, op: Any, x: Any) -> Any:
        return TapeTrace.pointwise(self, op, (x,))

    def binary(self, op: Any, x: Any, y: Any) -> Any:
        return TapeTrace.pointwise(self, op, (x, y))

    linear = unary

    def call(self, op: Any, operands: tuple) -> tuple:
        ys, reads = self.bind(op, operands)
        op.check_captured(self.level, ys)
        slots = tuple([self._new() for _ in ys])
        self.steps.append(Step(op, reads, slots, True, False))
        return tuple([TracedArray(self, y, s, *aval_of(y)) for y, s in zip(ys, slots, strict=True)])

    def applied(self, f: Callable, x: Tracer) -> TracedArray:
        """A function of one array that no level may look into, as one step."""
        y, reads = self.bind(f, (x,))
        slot = self._new()
        self.steps.append(Step(f, reads, (slot,), False, False))
        return TracedArray(self, y, slot, x.shape, x.dtype)

    def concrete(self, x: Any) -> Any:
        if not self.alive:
            raise self.leaked(x)
        return x.value

    def boxed(self, value: Any) -> Any:
        return TracedArray(self, value, None, shape_of(value), dtype_of(value))

    def describe(self, x: Tracer) -> str:
        """The repr of a tracer."""
        return describe(x)

    def close(self) -> None:
        super().close()
        self._seen.clear()


def _is_unchanged(seen: _Seen, x: Any) -> bool:
    if seen.copy is not None:
        return seen.array() is x and np.array_equal(seen.copy, x, equal_nan=x.dtype.kind in "fc")
    if seen.array is not x:
        return False
    return not seen.payload or all([a is b for a, b in zip(seen.payload, (x.owner, x.value, x.aux), strict=True)])


class HandOutTrace(Trace):
    """A trace that hands out a saved result in the place of the next operation's own."""

    __slots__ = ("given",)
    transform = "checkpoint"

    def __init__(self, origin: str) -> None:
        super().__init__(origin)
        self.given: Any = None

    def wrapped(self, value: Any) -> TracedArray:
        """The tracer of a value."""
        return TracedArray(self, value, None, *aval_of(value))

    def opened(self, x: Any) -> Any:
        """What a tracer of this trace holds; anything else as it is."""
        return x.value if x.__class__ is TracedArray and x.owner is self else x

    def call(self, op: Any, operands: tuple) -> tuple:
        return tuple([self.wrapped(y) for y in op(*[self.opened(x) for x in operands])])

    def _one(self, op: Any, operands: tuple) -> Any:
        given, self.given = self.given, None
        if given is not None:
            return self.wrapped(given)
        y = op(*[self.opened(x) for x in operands])
        return y if op.flat else self.wrapped(y)

    def unary(self, op: Any, x: Any) -> Any:
        return self._one(op, (x,))

    def pointwise(self, op: Any, operands: tuple) -> Any:
        return self._one(op, operands)

    def linear(self, op: Any, x: Any) -> Any:
        return self._one(op, (x,))

    def joint(self, op: Any, operands: tuple) -> Any:
        return self._one(op, operands)

    def general(self, op: Any, operands: tuple) -> Any:
        return self._one(op, operands)

    def concrete(self, x: Any) -> Any:
        return x.value

    def boxed(self, value: Any) -> Any:
        return self.wrapped(value)

    def describe(self, x: Tracer) -> str:
        """The repr of a tracer."""
        return describe(x)


class Tape:
    """The steps between the operands and some results, dead ones left out."""

    __slots__ = ("operands", "steps", "drops", "constants", "count", "results", "saved")

    def __init__(self, trace: TapeTrace, results: list[int]) -> None:
        needed, steps, last = set(results), [], set(results)
        for step in reversed(trace.steps):
            if not needed.isdisjoint(step.writes):
                needed.update(step.reads)
                steps.append(step)
        self.steps = steps[::-1]
        self.saved = [step.writes[0] for step in self.steps if step.saved]  # the last of the results
        last.update(self.saved)
        self.drops: list[tuple[int, ...]] = []  # slots that no later step reads
        for step in steps:
            self.drops.append(tuple({*step.reads, *step.writes} - last))
            last.update(step.reads)
        self.drops.reverse()
        self.operands = [slot for slot in trace.operands if slot in needed]
        self.constants = {slot: x for slot, x in trace.slots.items() if slot in needed}
        self.count = trace.count
        self.results = [*results, *self.saved]

    def play(self, operands: list, saved: list | None = None, hand: HandOutTrace | None = None) -> list:
        """The results, from values of the operands; saved ones handed out where they are given."""
        slots: list[Any] = [None] * self.count
        for slot, x in self.constants.items():
            slots[slot] = x
        for slot, x in zip(self.operands, operands, strict=True):
            slots[slot] = x
        given = iter(saved or ())
        for step, drop in zip(self.steps, self.drops, strict=True):
            xs = [slots[v] for v in step.reads]
            handed = hand is not None and step.saved
            y = _handed(step.op, xs, next(given), hand) if handed else step.op(*xs)
            for slot, part in zip(step.writes, y if step.several else (y,), strict=True):
                slots[slot] = part
            for slot in drop:
                slots[slot] = None
        return [slots[v] for v in self.results]


def _handed(op: Any, xs: list, given: Any, hand: Any) -> Any:
    """A result that is known, with the tangent that its operation gives it."""
    if not any([isinstance(x, Tracer) and x.owner.level > hand.level for x in xs]):
        return given  # nothing here is differentiated
    hand.given = given
    return _under(op(*[_over(x, hand) for x in xs]), hand)


def _over(x: Any, hand: HandOutTrace) -> Any:
    """An operand whose value the handing-out trace sees."""
    if isinstance(x, Tracer) and x.owner.level > hand.level:
        return TracedArray(x.owner, hand.wrapped(x.value), x.aux, x.shape, x.dtype)
    return x


def _under(y: Any, hand: HandOutTrace) -> Any:
    """A result without the handing-out trace, which its derivative alone needs."""
    if isinstance(y, Tracer) and y.owner is not hand:
        return TracedArray(y.owner, hand.opened(y.value), y.aux, y.shape, y.dtype)
    return hand.opened(y)
