"""Making a linear program shorter before a wide sweep.

A sweep over many rows reads and writes every entry once per row, so elementwise entries that
follow each other are merged first: their coefficients are multiplied at their own size, once.
"""

from typing import Any

from gpujac.ops.agree import SPECIAL, plus, times
from gpujac.ops.indexing import Pad, Slice, place
from gpujac.ops.overwrite import SetSlice
from gpujac.program.ir import Apply, Gather, Held, Input, Partial, Pick, Program, Scale
from gpujac.program.rewrite import rewritten
from gpujac.program.writes import Writes, widened

_MOST_SOURCES = 2  # a merged entry may read this many variables
_ABSENT = object()


def simplified(program: Program) -> Program:
    """The same linear map in fewer entries, for a sweep that is wide enough to pay for the look.

    First what need not be done at all is left out (program/rewrite.py), then chains and sums of elementwise
    entries are merged: an entry goes into its reader where that saves a pass over the rows, because it has
    one source or one reader.

    Args:
        program: a linear program, not a fused one.

    Returns:
        A well-formed program (docs/linear_programs.md) of the same inputs and outputs; `program` itself
        where there is nothing to gain.

    Cost: a walk or two, and one multiplication per merged coefficient, at its own size.
    """
    program = rewritten(program)
    return _Collapsed(program).program() if _has_something_to_merge(program.entries) else program


def merge_writes(program: Program) -> Program:
    """The same linear map with writes into one array merged, elementwise entries left alone."""
    if not has_writes(program):
        return program
    return _Collapsed(program, scales=False).program()


def has_writes(program: Program) -> bool:
    """Whether an array is written into."""
    return any([_is_write(entry) for entry in program.entries])


def _has_something_to_merge(entries: list) -> bool:
    """Whether an elementwise entry reads another, or an array is written into."""
    for entry in entries:
        if entry.__class__ is Scale:
            for v in entry.reads:
                if entries[v].__class__ is Scale:
                    return True
        elif _is_write(entry):
            return True
    return False


def _is_write(entry: Any) -> bool:
    return entry.__class__ is Gather and type(entry.op) is SetSlice


class _Collapsed:
    """Walks the program once; `terms` holds what is not written out yet."""

    def __init__(self, program: Program, scales: bool = True) -> None:
        self.old = program
        self.scales = scales  # whether elementwise entries are merged
        self.entries: list = []
        self.new: dict[int, int] = {}  # old variable -> new one, where written out
        self.terms: dict[int, dict[int, Any]] = {}  # old variable -> {source: coefficient}
        self.writes: dict[int, Writes] = {}  # old variable -> the writes that made it
        self.live = program.live()
        self.readers = self._count_readers()

    def _count_readers(self) -> list[int]:
        counts = [0] * len(self.old.entries)
        for entry, live in zip(self.old.entries, self.live, strict=True):
            if live:
                for v in entry.reads:
                    counts[v] += 1
        return counts

    def program(self) -> Program:
        """The shorter program."""
        for i, entry in enumerate(self.old.entries):
            if i < self.old.inputs or self.live[i]:
                self._visit(i, entry)
        outputs = [None if v is None else self._written(v) for v in self.old.outputs]
        return Program(self.entries, self.old.inputs, outputs)

    def _visit(self, i: int, entry: Any) -> None:
        if entry.__class__ is not Scale:
            if not self._kept_as_write(i, entry):
                self._emit(i, self._copied(entry))
            return
        coefs = entry.coefs if entry.coefs is not None else entry.resolve()
        if not self.scales:
            self._emit_scale(i, entry, coefs)
            return
        if len(coefs) == 1 and coefs[0].__class__ not in SPECIAL:
            merged = self._chained(entry.reads[0], coefs[0])
            if len(merged) == 1 or self.readers[i] == 1:
                self.terms[i] = merged
                return
        elif all([c is None or c.__class__ not in SPECIAL for c in coefs]):
            merged = self._merged(entry.reads, coefs)
            if len(merged) == 1 or (len(merged) <= _MOST_SOURCES and self.readers[i] == 1):
                self.terms[i] = merged
                return
        self._emit_scale(i, entry, coefs)

    def _emit_scale(self, i: int, entry: Any, coefs: tuple) -> None:
        reads = tuple(self._written(v) for v in entry.reads)
        self._emit(i, Scale(entry.op, entry.positions, reads, None, None, coefs, entry.shape, entry.dtype))

    def _chained(self, v: int, c: Any) -> dict[int, Any]:
        """The terms of one variable times a coefficient."""
        terms = self.terms.get(v)
        if terms is None:
            return {v: c}
        return {source: c if inner is None else times(inner, c) for source, inner in terms.items()}

    def _merged(self, reads: tuple, coefs: tuple) -> dict[int, Any]:
        merged: dict[int, Any] = {}
        for v, c in zip(reads, coefs, strict=True):
            terms = self.terms.get(v)
            if terms is None:
                merged[v] = _plus(merged.get(v, _ABSENT), c)
                continue
            for source, inner in terms.items():
                merged[source] = _plus(merged.get(source, _ABSENT), _times(inner, c))
        return merged

    def _kept_as_write(self, i: int, entry: Any) -> bool:
        """Keep a write for later, or read what one put there; False for any other entry."""
        kind = entry.__class__
        op: Any = getattr(entry, "op", None)
        if kind is Apply and type(op) is Pad:
            self.writes[i] = Writes(entry.shape, widened(op.key, entry.shape), entry.reads[0])
            return True
        array = self.writes.get(entry.reads[0]) if entry.reads else None
        if array is None or entry.reads[0] in self.new:
            return False
        if _is_write(entry):
            longer = array.extended(widened(op.key, entry.shape), entry.reads[1])
            if longer is not None:
                self.writes[i] = longer
            return longer is not None
        if kind is Apply and type(op) is Slice:
            value = array.value_at(widened(op.key, array.shape))
            if value is not None and self.old.entries[value].shape == entry.shape:
                self.terms[i] = self.terms.get(value, {value: None})
                return True
        return False

    def _written(self, v: int) -> int:
        """The new variable of an old one, written out at first need, as are those it reads."""
        waiting = [] if v in self.new else [v]  # a list, not recursion: chains may be long
        while waiting:
            top = waiting[-1]
            missing = [s for s in self._sources(top) if s not in self.new]
            if not missing:
                self._write_out(waiting.pop())
            waiting += missing
        return self.new[v]

    def _sources(self, v: int) -> list[int]:
        """What a variable that is not written out will read."""
        if v in self.new:
            return []
        return self.writes[v].listed()[1] if v in self.writes else list(self.terms[v])

    def _write_out(self, v: int) -> None:
        if v in self.new:  # something else that waited has read it too
            return
        old = self.old.entries[v]
        reads = tuple([self.new[source] for source in self._sources(v)])
        if v in self.writes:
            keys = self.writes[v].listed()[0]
            kind = Gather if len(keys) > 1 else Apply
            self._emit(v, kind(place(old.shape, keys), reads, old.shape, old.dtype))
            return
        positions, coefs = tuple(range(len(reads))), tuple(self.terms[v].values())
        self._emit(v, Scale(None, positions, reads, None, None, coefs, old.shape, old.dtype))

    def _emit(self, v: int, entry: Any) -> None:
        self.entries.append(entry)
        self.new[v] = len(self.entries) - 1

    def _copied(self, entry: Any) -> Any:
        kind = entry.__class__
        if kind is Input:
            return entry
        reads = tuple([self._written(v) for v in entry.reads])
        if kind is Partial:
            return Partial(entry.op, entry.position, reads, entry.operands, entry.shape, entry.dtype)
        if kind is Held:
            return Held(entry.map, reads, entry.shape, entry.dtype)
        if kind is Pick:
            return Pick(entry.which, reads, entry.shape, entry.dtype)
        assert kind in (Apply, Gather)
        return kind(entry.op, reads, entry.shape, entry.dtype)


def _times(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else times(a, b)


def _plus(a: Any, b: Any) -> Any:
    if a is _ABSENT:
        return b
    return plus(1.0 if a is None else a, 1.0 if b is None else b)
