"""Entries of a linear program replaced by fewer that do the same, before a wide sweep.

One walk from first to last. An entry is written as what it says of new variables; then it is dropped
where it changes nothing, joined with the one that it reads, or found to be there already:

- dead entries are left out;
- identities (a reshape to the same shape, a factor of one) are their operand;
- two structural entries that follow each other are one (`ops/composed.py`);
- a factor behind a reordering of entries goes before it, where it meets the factors that are there;
- pads that are added up are written into one array;
- the same operation on the same variables with the same coefficients is done once.

No tangent is multiplied that was not before, so a zero stays zero. What is left out is arithmetic that
was done twice or on ones: results are equal bit for bit, but for sums of overlapping pads, which may be
added in another order.
"""

from collections.abc import Callable
from typing import Any

from gpujac.backends.host import SCALARS
from gpujac.core.aval import shape_of
from gpujac.core.op import Mask
from gpujac.core.source import Spot
from gpujac.core.trace import Tracer
from gpujac.ops.agree import SPECIAL, Guarded
from gpujac.ops.composed import MOVES, VIEWS, composed, is_identity
from gpujac.ops.indexing import Pad, Place, place
from gpujac.program.ir import Apply, Chained, Gather, Held, Input, Partial, Pick, Program, Scale


def rewritten(program: Program) -> Program:
    """The same linear map with fewer entries; `program` itself where there is nothing to leave out.

    Args:
        program: any linear program but one that is fused; its coefficients are computed here.

    Returns:
        A program of the same inputs and outputs. Lines of the user's code stay with their entries.

    Cost: a look of half a microsecond per entry; where that finds something, a walk of a few
    microseconds per entry, and for a factor that changes places a copy of it.
    """
    if not _may_shrink(program):
        return program
    walk = _Walk(program)
    found = walk.program()
    return found if walk.changed else program


class _Walk:
    """The new entries so far, and what old variables are called among them."""

    def __init__(self, program: Program) -> None:
        self.old = program
        self.live = program.live()
        self.readers = _count_readers(program, self.live)
        self.entries: list = []
        self.spots: list[Spot | None] = []
        self.alone: list[bool] = []  # for each new variable, whether one entry reads it and no output is it
        self.new: list[int] = [0] * len(program.entries)
        self.known: dict[Any, int] = {}
        self.kept: list = []  # keeps the ids in the keys of `known` from being given away
        self.changed = False

    def program(self) -> Program:
        """The new program; call it once."""
        spots = self.old.spots
        for i, entry in enumerate(self.old.entries):
            if i >= self.old.inputs and not self.live[i]:
                self.changed = True
                continue
            self.new[i] = self._visited(entry, None if spots is None else spots[i], self.readers[i] == 1)
        outputs = [None if v is None else self.new[v] for v in self.old.outputs]
        program = Program(self.entries, self.old.inputs, outputs)
        program.spots = None if spots is None else self.spots
        if self.changed and not all(program.live()[program.inputs :]):  # what was joined with its reader
            return _Walk(program).program()
        return program

    def _visited(self, entry: Any, spot: Spot | None, alone: bool) -> int:
        """The new variable of an entry."""
        rule = _RULES.get(entry.__class__)
        if rule is None:  # an input, or what later entries count on to come right before them
            return self._emitted(_renamed(entry, self.new), spot, alone)
        origin = self._origin(entry)
        before = None if origin is None else self.known.get(origin)
        if before is not None:  # its coefficients need not even be computed
            self.changed = True
            self.alone[before] = False
            return before
        v = self._written(rule, entry, spot, alone)
        if origin is not None:
            self.known[origin] = v
        return v

    def _origin(self, entry: Any) -> Any:
        """What tells two elementwise entries whose coefficients are not computed: op, operands and result."""
        if entry.__class__ is not Scale or entry.coefs is not None:
            return None
        self.kept.append((entry.xs, entry.y))
        reads = tuple([self.new[v] for v in entry.reads])
        return entry.op, entry.positions, reads, tuple([_name(x) for x in entry.xs]), _name(entry.y)

    def _written(self, rule: Callable, entry: Any, spot: Spot | None, alone: bool) -> int:
        """The variable of an entry after its rule has looked at it."""
        found = rule(self, _renamed(entry, self.new), alone)
        if found.__class__ is int:  # nothing was left of it: its readers read what it read
            self.changed = True
            self.alone[found] = self.alone[found] and alone
            return int(found)
        key = _key(found)
        before = self.known.get(key)
        if before is not None:
            self.changed = True
            self.alone[before] = False
            return before
        self.known[key] = len(self.entries)
        self.kept.append(found)
        return self._emitted(found, spot, alone)

    def _emitted(self, entry: Any, spot: Spot | None, alone: bool) -> int:
        self.entries.append(entry)
        self.spots.append(spot)
        self.alone.append(alone)
        return len(self.entries) - 1

    # ---------------------------------------------------------------- rules: the variable, or the entry to write

    def apply(self, entry: Apply, alone: bool) -> Any:
        """A structural op: nothing, one with what it reads, or itself."""
        if is_identity(entry.op):
            return entry.reads[0]
        before = self.entries[entry.reads[0]]
        if before.__class__ is not Apply or not (self.alone[entry.reads[0]] or _is_view(entry, before)):
            return entry
        op = composed(entry.op, before.op)
        if op is None:
            return entry
        self.changed = True
        joined = Apply(op, before.reads, entry.shape, entry.dtype)
        return joined.reads[0] if is_identity(op) else joined

    def scale(self, entry: Scale, alone: bool) -> Any:
        """An elementwise entry: nothing, pads that are added up, a factor that goes further up, or itself."""
        if len(entry.reads) > 1:
            return self._placed(entry)
        (v,), (c,) = entry.reads, entry.coefs
        before = self.entries[v]
        if _is_one(c) and before.shape == entry.shape and before.dtype == entry.dtype:
            return v
        moved = self._moved_up(entry, c, before) if self.alone[v] and before.__class__ is Apply else None
        return entry if moved is None else moved

    def _moved_up(self, entry: Scale, c: Any, before: Apply) -> Any:
        """c * P(x) as P(c' * x), where x is a multiple already and P a reordering."""
        (v,) = before.reads
        source = self.entries[v]
        if type(before.op) not in MOVES or source.__class__ is not Scale or len(source.reads) > 1 or not self.alone[v]:
            return None
        if c.__class__ in SPECIAL or before.dtype != entry.dtype or source.dtype != entry.dtype:
            return None
        if shape_of(c) != ():
            if isinstance(c, Tracer) or tuple(c.shape) != tuple(entry.shape):
                return None
            c = before.op.transposed(c)  # at its own size, once
        self.changed = True
        factor = Scale(None, (0,), (v,), None, None, (c,), source.shape, source.dtype)
        return Apply(before.op, (self._emitted(factor, None, True),), entry.shape, entry.dtype)

    def _placed(self, entry: Scale) -> Any:
        """A sum of pads as one array that all are written into."""
        pads = [v for v in entry.reads if self.alone[v] and self._keys(v)]
        if len(pads) < 2 or not all([c is None for c in entry.coefs]) or len(set(pads)) < len(pads):
            return entry
        if any([self.entries[v].dtype != entry.dtype or self.entries[v].shape != entry.shape for v in pads]):
            return entry
        ranks = {len(self.entries[v].op.dst) for v in pads}
        if len(ranks) > 1:
            return entry
        self.changed = True
        keys = tuple([key for v in pads for key in self._keys(v)])
        reads = tuple([read for v in pads for read in self.entries[v].reads])
        whole = Gather(place(self.entries[pads[0]].op.dst, keys), reads, entry.shape, entry.dtype)
        rest = [v for v in entry.reads if v not in pads]
        if not rest:
            return whole
        sources = (*rest, self._emitted(whole, None, True))
        return Scale(None, tuple(range(len(sources))), sources, None, None, (None,) * len(sources), entry.shape,
                     entry.dtype)  # fmt: skip

    def _keys(self, v: int) -> tuple:
        """Where a pad or a placement writes; nothing for any other entry."""
        entry = self.entries[v]
        kind = entry.__class__
        if kind is Apply and type(entry.op) is Pad:
            return (entry.op.key,)
        return entry.op.keys if kind is Gather and type(entry.op) is Place and not entry.op.is_stack else ()

    def same(self, entry: Any, alone: bool) -> Any:
        """An entry of which only a second one is looked for."""
        return entry


_RULES: dict[type, Callable[[_Walk, Any, bool], Any]] = {
    Apply: _Walk.apply, Scale: _Walk.scale, Gather: _Walk.same, Partial: _Walk.same,
}  # fmt: skip


def _may_shrink(program: Program) -> bool:
    """Whether a walk may leave something out: a look at neighbours, without coefficients."""
    entries, seen = program.entries, set()
    if not all(program.live()[program.inputs :]):
        return True
    for entry in entries[program.inputs :]:
        kind = entry.__class__
        if kind is Pick or kind is Held:
            continue
        before = entries[entry.reads[0]].__class__
        if kind is Apply and (before is Apply or is_identity(entry.op)):
            return True
        if kind is Scale:
            one = len(entry.reads) == 1 and entry.coefs is not None and _is_one(entry.coefs[0])
            if one or before is Apply:
                return True
        key = (id(entry.op), entry.reads)
        if key in seen:
            return True
        seen.add(key)
    return False


def _count_readers(program: Program, live: list[bool]) -> list[int]:
    """How many live entries read each variable; outputs count twice, since they stay whatever is joined."""
    counts = [0] * len(program.entries)
    for entry, lives in zip(program.entries, live, strict=True):
        if lives:
            for v in entry.reads:
                counts[v] += 1
    for v in program.outputs:
        if v is not None:
            counts[v] += 2
    return counts


def _is_view(second: Apply, first: Apply) -> bool:
    return type(second.op) in VIEWS and type(first.op) in (*VIEWS, Pad)


def _is_one(c: Any) -> bool:
    return c is None or (c.__class__ in (int, float) and c == 1)


def _renamed(entry: Any, new: list[int]) -> Any:
    """The entry as it reads the new variables."""
    kind = entry.__class__
    if kind is Input:
        return entry
    reads = tuple([new[v] for v in entry.reads])
    if kind is Scale:
        coefs = entry.coefs if entry.coefs is not None else entry.resolve()
        return Scale(entry.op, entry.positions, reads, None, None, coefs, entry.shape, entry.dtype)
    if kind is Partial:
        return Partial(entry.op, entry.position, reads, entry.operands, entry.shape, entry.dtype)
    if kind is Held:
        return Held(entry.map, reads, entry.shape, entry.dtype)
    if kind is Pick:
        return Pick(entry.which, reads, entry.shape, entry.dtype)
    assert kind is not Chained, "a fused program is not rewritten"
    return kind(entry.op, reads, entry.shape, entry.dtype)


def _key(entry: Any) -> Any:
    """What two entries have in common that compute the same."""
    kind = entry.__class__
    if kind is Scale:
        return kind, entry.reads, tuple([_name(c) for c in entry.coefs]), entry.dtype
    if kind is Partial:
        return kind, id(entry.op), entry.position, entry.reads, tuple([_name(x) for x in entry.operands])
    return kind, id(entry.op), entry.reads  # ops are interned: two that are equal are most often one


def _name(c: Any) -> Any:
    """A coefficient in a key: numbers by value and type, arrays by who they are."""
    if c is None or c.__class__ in SCALARS:
        return c.__class__, repr(c)
    if c.__class__ is Mask:
        return Mask, _name(c.keep), _name(c.factor)
    return (Guarded, _name(c.value)) if c.__class__ is Guarded else id(c)
