"""What a sweep of rows does, settled once: NumPy calls in order, each with the memory it writes to.

A plan belongs to the part of a linear program that runs on written-out rows, pushed forward. It holds
slots, steps and shapes, and no array: coefficients are data, which a replay (engine/replay.py) fetches
from the program at hand. Rows are the first axis of every array, and nothing depends on their number.

A variable is a slot: memory of its own, or a view of another slot, which costs nothing. An entry writes
into an operand that nobody reads afterwards, if it is elementwise; sums build up in the memory of one of
their terms. Which memory slots share is settled in engine/memory.py.
"""

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from gpujac.backends.choose import HOST_TYPES
from gpujac.backends.host import HOST
from gpujac.core.aval import Shape, item_bytes
from gpujac.core.op import Mask
from gpujac.engine.memory import assigned
from gpujac.ops.agree import Guarded
from gpujac.program.ir import Apply, Gather, Partial, Program, Scale

_LEAD = 2  # rows of the arrays that views are tried out on: what is a view of two rows is one of any number


class Slot(NamedTuple):
    """An array of the sweep: rows in front of `shape`."""

    shape: Shape
    dtype: Any
    base: int | None = None  # the slot that it is a view of
    view: Callable | None = None  # what makes it from the array of that slot
    constant: tuple | None = None  # (entry, what of it), of which there is one for all rows


class Step(NamedTuple):
    """One NumPy call: `run` on the arrays of `slots`, the last of which it writes."""

    run: Callable
    slots: tuple[int, ...]


class Plan(NamedTuple):
    """The steps of a sweep and its memory.

    `given`: the slots that are filled before the first step, by variable; `outputs`: for each wanted
    variable its slot; `own`: the slots of wanted variables whose memory may be replaced by that of the
    result; `places`: for each slot with memory the number of its block; `blocks`: bytes of each, per row.
    """

    slots: tuple[Slot, ...]
    steps: tuple[Step, ...]
    given: dict[int, int]
    outputs: dict[int, int]
    own: frozenset[int]
    places: dict[int, int]
    blocks: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of all blocks per row: what is live, for they are shared by what is never live at once."""
        return sum(self.blocks)


def unplannable(program: Program) -> str | None:
    """Why sweeps of this program cannot be planned, None where they can."""
    live = program.live()
    for i, entry in enumerate(program.entries):
        if i < program.inputs or not live[i]:
            continue
        kind = entry.__class__
        if kind not in (Scale, Apply, Gather, Partial):
            return f"variable {i} is the result of a function that the program holds"
        for c in _constants(entry):
            if c.__class__ not in HOST_TYPES:
                return f"a coefficient of variable {i} is traced, or an array of another library"
    return None


def _constants(entry: Any) -> list:
    """The arrays and numbers that an entry multiplies with, or looks up."""
    if entry.__class__ is Partial:
        return [x for x in entry.operands if x is not None]
    if entry.__class__ is not Scale:
        return []
    found = []
    for c in entry.coefs if entry.coefs is not None else entry.resolve():
        parts = (c.keep, c.factor) if type(c) is Mask else (c.value,) if type(c) is Guarded else (c,)
        found += [x for x in parts if x is not None]
    return found


def settle(program: Program, given: Collection[int], planned: list[int], wanted: Collection[int],
           replaced: bool) -> Plan:  # fmt: skip
    """The plan of some entries.

    Args:
        program: a linear program for which `unplannable` has found nothing; its coefficients are computed.
        given: variables whose rows are written out before the sweep.
        planned: the entries to run, in order; each reads given and planned ones only, or zeros.
        wanted: variables that are asked for afterwards.
        replaced: whether results are written into memory of the caller's where they can be.

    Returns:
        The plan.

    Cost: about 10 us for each entry.
    """
    return _Settling(program, given, planned, wanted).plan(replaced)


class _Written:
    """The step of an op that writes its result."""

    __slots__ = ("op",)

    def __init__(self, op: Any) -> None:
        self.op = op

    def __call__(self, *arrays: Any) -> None:
        self.op.write(HOST, arrays[-1], *arrays[:-1])


class _Accumulated:
    """The step of an op that adds its result to what is there."""

    __slots__ = ("op",)

    def __init__(self, op: Any) -> None:
        self.op = op

    def __call__(self, *arrays: Any) -> None:
        self.op.accumulate(HOST, arrays[-1], *arrays[:-1])


def _selected(t: Any, drop: Any, out: Any) -> None:
    """`t`, zero where `drop` holds."""
    if t is not out:
        np.copyto(out, t)
    np.copyto(out, 0, where=drop)


def _guarded(t: Any, c: Any, zeros: Any, out: Any) -> None:
    """`t * c`, zero where `t` is."""
    np.equal(t, 0, zeros)
    with np.errstate(invalid="ignore", over="ignore"):
        np.multiply(t, c, out)
    np.copyto(out, 0, where=zeros)


class _Settling:
    """Walks the entries once; `lead` arrays with real strides tell views from copies."""

    def __init__(self, program: Program, given: Collection[int], planned: list[int],
                 wanted: Collection[int]) -> None:  # fmt: skip
        self.entries, self.planned, self.wanted = program.entries, planned, wanted
        end = len(self.entries)
        self.last = dict.fromkeys(wanted, end)  # variable -> the last entry that reads it
        self.reads: dict[int, int] = {}  # variable -> how often it is read
        for i in planned:
            for v in self.entries[i].reads:
                self.last[v] = max(self.last.get(v, -1), i)
                self.reads[v] = self.reads.get(v, 0) + 1
        self.waiting: dict[int, tuple[Any, list[int]]] = {}  # variable -> op and operands: added when it is read
        self.slots: list[Slot] = []
        self.tried: list[Any] = []  # per slot an array of its strides, without its entries
        self.ends: list[int] = []  # per slot with memory: the last entry that reads it or a view of it
        self.steps: list[Step] = []
        self.of: dict[int, int] = {}  # variable -> slot
        widest = max([math.prod(e.shape) * item_bytes(e.dtype) for e in self.entries], default=1)
        self.nowhere = np.empty(_LEAD * max(widest, 16), np.uint8)  # never touched
        for v in given:
            self.of[v] = self._fresh(self.entries[v].shape, self.entries[v].dtype)
            self.ends[self.of[v]] = self.last.get(v, -1)
        self.given = dict(self.of)

    def plan(self, replaced: bool) -> Plan:
        """All entries, then the memory."""
        for i in self.planned:
            self._entry(i, self.entries[i])
        outputs = {v: self.of[v] for v in self.wanted}
        inputs = set(self.given.values())
        taken = list(outputs.values())
        own = frozenset([s for s in taken if self.slots[s].base is None and s not in inputs and taken.count(s) == 1])
        own = own if replaced else frozenset()
        places, blocks = assigned(self.slots, self.steps, inputs, taken, own)
        return Plan(tuple(self.slots), tuple(self.steps), self.given, outputs, own, places, blocks)

    def _entry(self, i: int, entry: Any) -> None:
        reads: list[Any] = [self.of.get(v) for v in entry.reads]  # None: a zero
        if entry.__class__ is Scale:
            slot: int | None = self._scale(i, entry, reads)
        elif entry.__class__ is Apply:
            slot = self._apply(i, entry.op, reads[0], entry)
        elif entry.__class__ is Gather:
            present = tuple([p for p, s in enumerate(reads) if s is not None])
            op = entry.op if len(present) == len(reads) else entry.op.restricted(present)
            slot = self._write(i, op, [reads[p] for p in present], entry)
        else:
            assert entry.__class__ is Partial
            operands = [self._constant(i, ("operand", k)) for k in range(len(entry.operands)) if k != entry.position]
            operands.insert(entry.position, reads[0])
            slot = self._write(i, entry.op, operands, entry)
        if slot is None:
            return
        self.of[i] = slot
        root = self._root(slot)
        self.ends[root] = max(self.ends[root], self.last.get(i, -1))

    # slots

    def _fresh(self, shape: Shape, dtype: Any) -> int:
        """Memory of its own."""
        count = _LEAD * math.prod(shape)
        lead = self.nowhere[: count * item_bytes(dtype)].view(dtype).reshape(_LEAD, *shape)
        return self._put(Slot(shape, dtype), lead)

    def _put(self, slot: Slot, tried: Any) -> int:
        self.slots.append(slot)
        self.tried.append(tried)
        self.ends.append(-1)
        return len(self.slots) - 1

    def _constant(self, i: int, what: tuple) -> int:
        return self._put(Slot((), None, constant=(i, *what)), None)

    def _root(self, slot: int) -> int:
        """The slot that owns the memory."""
        while (base := self.slots[slot].base) is not None:
            slot = base
        return slot

    def _step(self, run: Callable, *slots: int) -> int:
        self.steps.append(Step(run, slots))
        return slots[-1]

    def _may_write(self, slot: int, i: int, entry: Any, others: list) -> bool:
        """Whether entry `i` may put its result where an operand is: nothing reads that again."""
        mine = self.slots[slot]
        if mine.base is not None or mine.shape != entry.shape or mine.dtype != entry.dtype:
            return False
        return self.ends[slot] <= i and slot not in [self._root(s) for s in others]

    # entries

    def _apply(self, i: int, op: Any, read: Any, entry: Any) -> int | None:
        tried = op.view(self.tried[read])
        if tried is None:
            return self._write(i, op, [read], entry)
        return self._put(Slot(entry.shape, entry.dtype, read, op.view), tried)

    def _write(self, i: int, op: Any, operands: list[int], entry: Any) -> int | None:
        """An op that needs memory; None where it is left to the only entry that reads it, a sum."""
        if op.accumulates and self._is_term(i):
            self.waiting[i] = op, operands
            for s in operands:
                self.ends[self._root(s)] = max(self.ends[self._root(s)], self.last[i])
            return None
        first = operands[0]
        if op.in_place and self._may_write(first, i, entry, operands[1:]):
            return self._step(_Written(op), *operands, first)
        return self._step(_Written(op), *operands, self._fresh(entry.shape, entry.dtype))

    def _is_term(self, i: int) -> bool:
        """Whether a variable is nothing but a term of one sum."""
        reader = self.last.get(i, -1)
        if self.reads.get(i) != 1 or reader >= len(self.entries) or self.entries[reader].__class__ is not Scale:
            return False
        sum_of = self.entries[reader]
        others = [v for v in sum_of.reads if v != i and (v in self.of or v in self.waiting or v > i)]
        return bool(others) and sum_of.coefs[sum_of.reads.index(i)] is None

    def _scale(self, i: int, entry: Any, reads: list) -> int:
        """A sum of products: in the memory of a term that nothing reads again, or in memory of its own."""
        late = [self.waiting.pop(v) for v in entry.reads if v in self.waiting]
        kept = [s for _, operands in late for s in operands]  # read after the sum has begun
        terms = [(s, k) for k, s in enumerate(reads) if s is not None]
        if len(terms) == 1 and not late and entry.coefs[terms[0][1]] is None:
            return terms[0][0]
        if len(terms) > 1 and self._rather(i, entry, terms, kept):
            terms[:2] = terms[1], terms[0]
        total, terms = self._begun(i, entry, terms, late, kept)
        for n, (s, k) in enumerate(terms):
            part = self._product(i, entry, s, k, None, [x for x, _ in terms[n + 1 :]] + [total, *kept])
            self._step(np.add, total, part, total)
        for op, operands in late:
            self._step(_Accumulated(op), *operands, total)
        return total

    def _begun(self, i: int, entry: Any, terms: list, late: list, kept: list) -> tuple[int, list]:
        """The sum of the first terms, and those that are left."""
        others = [s for s, _ in terms[1:]] + kept
        if terms and (entry.coefs[terms[0][1]] is not None or self._may_write(terms[0][0], i, entry, others)):
            (first, k), *rest = terms
            return self._product(i, entry, first, k, None, others), rest
        total = self._fresh(entry.shape, entry.dtype)
        if len(terms) < 2:
            op, operands = late.pop(0)
            self._step(_Written(op), *operands, total)
            return total, terms
        (first, _), (second, k), *rest = terms
        part = self._product(i, entry, second, k, total, [s for s, _ in rest] + [first, *kept])
        self._step(np.add, first, part, total)
        return total, rest

    def _rather(self, i: int, entry: Any, terms: list, kept: list) -> bool:
        """Whether the sum had better begin with its second term: that one's memory is free, or has a factor."""
        (a, k), (b, m) = terms[:2]
        mine, other = [
            self._may_write(s, i, entry, [x for x, n in terms if n != at] + kept) for s, at in ((a, k), (b, m))
        ]
        if mine or other:
            return other and not mine
        return entry.coefs[k] is None and entry.coefs[m] is not None

    def _product(self, i: int, entry: Any, t: int, k: int, out: int | None, others: list) -> int:
        """A term times its coefficient, in `out` where it needs memory; itself where there is none."""
        c = entry.coefs[k]
        if c is None:
            return t
        if self._may_write(t, i, entry, others):
            out = t
        elif out is None:
            out = self._fresh(entry.shape, entry.dtype)
        if type(c) is Guarded:
            zeros = self._fresh(entry.shape, np.dtype(bool))
            return self._step(_guarded, t, self._constant(i, ("value", k)), zeros, out)
        if type(c) is not Mask:
            return self._step(np.multiply, t, self._constant(i, ("coef", k)), out)
        self._step(_selected, t, self._constant(i, ("drop", k)), out)
        if c.factor is not None:
            self._step(np.multiply, out, self._constant(i, ("factor", k)), out)
        return out


def fetched(program: Program, constant: tuple) -> Any:
    """A constant of the program at hand."""
    i, what, k = constant
    entry = program.entries[i]
    if what == "operand":
        x = entry.operands[k]
        return x if isinstance(x, np.ndarray) else np.asarray(x)[()]
    c = entry.coefs[k]
    if what == "drop":
        return np.equal(c.keep, 0)
    return c if what == "coef" else c.value if what == "value" else c.factor
