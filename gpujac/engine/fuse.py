"""Fusing a linear program: maximal groups of elementwise entries become one kernel each.

Entries are visited from last to first. An entry joins the group of its readers if all of them are in
one group. If others, after the end of that group, read it too, it joins as one more result of the
kernel; else it ends a group of its own. So nothing is computed twice and no group waits for itself.
Repeating, reordering or dropping axes costs nothing inside a group (strides do it); a sum may end one.
"""

import math
from typing import Any

from gpujac.backends.chain import DTYPES
from gpujac.core.aval import Shape, kind, shape_of
from gpujac.core.op import Mask
from gpujac.engine.builder import Builder, Map, Value, dtype_name, whole
from gpujac.ops import structure as st
from gpujac.ops.agree import Guarded
from gpujac.ops.chain import fused
from gpujac.program.ir import Apply, Chained, Gather, Held, Input, Partial, Pick, Program, Scale

_MOST_ARRAYS = 32  # read and written by one kernel
_MOST_TANGENTS = 6  # read by one kernel: until then all of them stay in memory
_MOST_COPIES = 64  # of a value below a spread, computed again for each
_STEPS = {st.Cast: "cast", st.Conj: "conj", st.Real: "real", st.Imag: "imag", st.Times1j: "times_1j"}


def fuse(program: Program) -> Program:
    """The same linear map in fewer entries, for forward sweeps only.

    Args:
        program: a linear program. Its coefficients are computed here.

    Returns:
        A new program, in which two or more elementwise launches that follow each other are one.

    Cost: one walk over the entries.
    """
    groups = _Groups(program)
    return _Written(program, groups).program()


def saves_launches(program: Program) -> bool:
    """Whether fusing has anything to gain: a look that costs far less than a plan.

    True where elementwise entries that launch follow each other, or one takes several launches; both
    directions are asked for at once (a spread one way is a sum the other way).
    """
    launching = [False] * len(program.entries)
    for i, entry in enumerate(program.entries):
        view = entry.__class__ is Apply and type(entry.op) is not st.Spread and _is_view(entry)
        if i < program.inputs or not (view or _is_sum(entry) or _is_spread(entry) or _is_elementwise(entry)):
            continue
        own = 0 if view else 1 if _is_spread(entry) else _launches(entry)
        before = any([launching[v] for v in entry.reads])
        if own > 1 or (own and before):
            return True
        launching[i] = bool(own) or before
    return False


def _is_spread(entry: Any) -> bool:
    return entry.__class__ is Apply and type(entry.op) is st.Spread


class _Group:
    """Entries that one kernel computes."""

    def __init__(self, root: int, domain: Shape) -> None:
        self.root = root
        self.domain = domain
        self.members: list[int] = []  # last first
        self.results: list[int] = [root]  # what others read
        self.maps: dict[int, Map] = {}
        self.arrays: set = set()  # what it would read
        self.launches = 0  # that it takes as separate operations


class _Groups:
    """Which entries run together."""

    def __init__(self, program: Program) -> None:
        self.entries, self.live = program.entries, program.live()
        self.of: dict[int, _Group] = {}
        readers: list[list[int]] = [[] for _ in self.entries]
        for i, (entry, live) in enumerate(zip(self.entries, self.live, strict=True)):
            if live:
                for v in entry.reads:
                    readers[v].append(i)
        ends = {v for v in program.outputs if v is not None}
        for i in range(len(self.entries) - 1, program.inputs - 1, -1):
            if self.live[i]:
                self._visit(i, readers[i], i in ends)
        self._dissolve()

    def _visit(self, i: int, readers: list[int], ends: bool) -> None:
        entry = self.entries[i]
        group = self._joined(i, entry, readers, ends)
        if group is None and (_is_sum(entry) or _is_elementwise(entry)):
            first = entry.reads[0]
            group = _Group(i, self.entries[first].shape if _is_sum(entry) else entry.shape)
            group.maps[i] = whole(group.domain)
            self._add(group, i, entry)

    def _joined(self, i: int, entry: Any, readers: list[int], ends: bool) -> _Group | None:
        """The group that an entry joins, or None."""
        view = _is_view(entry)
        groups = [self.of[r] for r in readers if r in self.of]
        if not groups or not (view or _is_elementwise(entry)):
            return None
        group = min(groups, key=lambda g: g.root)
        inside = [r for r in readers if self.of.get(r) is group]
        maps = {_source_map(self.entries[r], group.maps[r], entry.shape) for r in inside}
        (where, *others) = maps
        if others or (not view and _copies(group.domain, entry.shape) > _MOST_COPIES):
            return None
        outside = ends or len(inside) < len(readers)
        if outside and not self._may_be_result(group, entry, where, readers, inside):
            return None
        arrays = group.arrays - {(i, where)} | self._arrays(entry, where)
        tangents = sum([isinstance(key, tuple) for key in arrays])
        if len(arrays) + len(group.results) + outside > _MOST_ARRAYS or tangents > _MOST_TANGENTS:
            return None
        group.maps[i] = where
        group.results += [i] if outside else []
        self._add(group, i, entry)
        return group

    def _may_be_result(self, group: _Group, entry: Any, where: Map, readers: list[int], inside: list[int]) -> bool:
        """Whether a kernel may write this value too: whoever else reads it comes after the kernel."""
        whole_domain = entry.shape == group.domain and where == whole(group.domain)
        later = all([r in inside or self._place(r) > group.root for r in readers])
        return later and whole_domain and _is_elementwise(entry) and not _is_sum(self.entries[group.root])

    def _place(self, i: int) -> int:
        """The entry at whose place this one will run: the end of its group, if that is sure to stay."""
        group = self.of.get(i)
        return group.root if group is not None and group.launches > 1 else i

    def _add(self, group: _Group, i: int, entry: Any) -> None:
        group.arrays -= {(i, group.maps[i])}
        group.arrays |= self._arrays(entry, group.maps[i])
        group.members.append(i)
        group.launches += _launches(entry)
        self.of[i] = group

    def _arrays(self, entry: Any, where: Map) -> set:
        """Keys of the arrays that an entry reads, as long as none of its sources joins."""
        found: set = {(v, _source_map(entry, where, self.entries[v].shape)) for v in entry.reads}
        for c in entry.coefs if entry.__class__ is Scale else ():
            found |= {id(x) for x in _plain(c) if shape_of(x)}
        return found

    def _dissolve(self) -> None:
        """Forget groups that save no launch."""
        self.of = {i: group for i, group in self.of.items() if group.launches > 1}


def _is_sum(entry: Any) -> bool:
    return entry.__class__ is Apply and type(entry.op) is st.Sum and dtype_name(entry.dtype) in DTYPES


def _is_elementwise(entry: Any) -> bool:
    """Whether the entry is a step (or some) of a chain."""
    if dtype_name(entry.dtype) not in DTYPES:
        return False
    if entry.__class__ is Scale:
        coefs = entry.coefs if entry.coefs is not None else entry.resolve()
        return all([_fits(c, entry.dtype) for c in coefs])
    if entry.__class__ is not Apply or type(entry.op) not in _STEPS:
        return False
    before = getattr(entry.op, "before", entry.dtype)
    return dtype_name(before) in DTYPES


def _fits(c: Any, dtype: Any) -> bool:
    """Whether a coefficient becomes one of this dtype without losing an imaginary part."""
    if type(c) is Mask:
        return _fits(c.factor, dtype)
    if type(c) is Guarded:
        return _fits(c.value, dtype)
    if c is None or kind(dtype) == "c":
        return True
    return not isinstance(c, complex) and (isinstance(c, (int, float)) or kind(c.dtype) != "c")


def _is_view(entry: Any) -> bool:
    """Whether the entry only repeats, reorders or drops axes, or adds some of length one."""
    if entry.__class__ is not Apply:
        return False
    op = entry.op
    if type(op) in (st.Spread, st.Permute):
        return True
    return type(op) is st.Reshape and _without_ones(op.src) == _without_ones(op.dst)


def _without_ones(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)


def _source_map(entry: Any, where: Map, shape: Shape) -> Map:
    """Where the axes of what an entry reads (of this shape) lie in the domain."""
    op = getattr(entry, "op", None)
    if type(op) is st.Spread:
        gone = {a % len(where) for a in op.axes}
        return tuple(a for i, a in enumerate(where) if i not in gone)
    if type(op) is st.Permute:
        lead = len(where) - len(op.order)
        back: list[int | None] = [None] * len(op.order)
        for i, source in enumerate(op.order):
            back[source] = where[lead + i]
        return (*where[:lead], *back)
    if type(op) is st.Reshape:
        return _through_reshape(op, where)
    return where if not _is_sum(entry) else whole(shape)


def _through_reshape(op: Any, where: Map) -> Map:
    """The map of the source of a reshape that only adds and drops axes of length one."""
    lead = len(where) - len(op.dst)
    long = [a for a, n in zip(where[lead:], op.dst, strict=True) if n != 1]
    found = iter(long)
    return (*where[:lead], *(None if n == 1 else next(found) for n in op.src))


def _copies(domain: Shape, shape: Shape) -> int:
    return math.prod(domain) // max(math.prod(shape), 1)


def _plain(c: Any) -> tuple:
    """The arrays and numbers that a coefficient consists of."""
    if type(c) is Mask:
        return (c.keep, *_plain(c.factor))
    if type(c) is Guarded:
        return (c.value,)
    return () if c is None else (c,)


def _launches(entry: Any) -> int:
    """Launches that the entry takes alone."""
    if entry.__class__ is Scale:
        return sum([len(_plain(c)) for c in entry.coefs]) + len(entry.reads) - 1
    return int(type(entry.op) in (st.Cast, st.Conj, st.Times1j, st.Sum))


class _Written:
    """Writes the fused program out."""

    def __init__(self, program: Program, groups: _Groups) -> None:
        self.old, self.groups = program, groups
        self.entries: list = []
        self.new: dict[int, int] = {}

    def program(self) -> Program:
        """The new program."""
        for i, entry in enumerate(self.old.entries):
            group = self.groups.of.get(i)
            if i >= self.old.inputs and not self.groups.live[i]:
                continue
            if group is None:
                self._emit(i, self._copied(entry))
            elif group.root == i:
                self._emit_group(group)
        outputs = [None if v is None else self.new[v] for v in self.old.outputs]
        return Program(self.entries, self.old.inputs, outputs)

    def _emit(self, i: int, entry: Any) -> None:
        self.entries.append(entry)
        self.new[i] = len(self.entries) - 1

    def _copied(self, entry: Any) -> Any:
        kind_of = entry.__class__
        if kind_of is Input:
            return entry
        reads = tuple([self.new[v] for v in entry.reads])
        if kind_of is Scale:
            coefs = entry.coefs if entry.coefs is not None else entry.resolve()
            return Scale(entry.op, entry.positions, reads, None, None, coefs, entry.shape, entry.dtype)
        if kind_of is Partial:
            return Partial(entry.op, entry.position, reads, entry.operands, entry.shape, entry.dtype)
        if kind_of is Held:
            return Held(entry.map, reads, entry.shape, entry.dtype)
        if kind_of is Pick:
            return Pick(entry.which, reads, entry.shape, entry.dtype)
        assert kind_of in (Apply, Gather)
        return kind_of(entry.op, reads, entry.shape, entry.dtype)

    def _emit_group(self, group: _Group) -> None:
        chained = self._chained(group)
        self._emit(group.root, chained)
        if len(group.results) > 1:
            kernel = self.new[group.root]
            for k, i in enumerate(group.results):
                self._emit(i, Pick(k, (kernel,), self.old.entries[i].shape, self.old.entries[i].dtype))

    def _chained(self, group: _Group) -> Chained:
        root = self.old.entries[group.root]
        builder = Builder(len(group.domain))
        values: dict[int, Value] = {}
        for i in reversed(group.members):
            values[i] = self._value(builder, group, i, values)
        axes = root.op.axes if _is_sum(root) else ()
        chain = builder.chain([values[i] for i in group.results], axes)
        reads = tuple([self.new[v] for v in builder.reads])
        op = fused(chain, tuple(group.domain))
        return Chained(op, reads, tuple(builder.views), tuple(builder.coefs), root.shape, root.dtype)

    def _value(self, builder: Builder, group: _Group, i: int, values: dict[int, Value]) -> Value:
        """The value of one member, as steps of the chain."""
        entry, where = self.old.entries[i], group.maps[i]
        sources = []
        for v in entry.reads:
            value = values.get(v)
            if value is None:
                read = self.old.entries[v]
                value = builder.read(v, read.shape, read.dtype, _source_map(entry, where, read.shape))
            sources.append(value)
        if entry.__class__ is not Scale:
            return _applied(builder, entry, sources[0])
        total: Value | None = None
        for x, c in zip(sources, entry.coefs, strict=True):
            part = builder.scaled(builder.cast(x, dtype_name(entry.dtype)), c, entry.shape, where)
            total = part if total is None else builder.plus(total, part)
        assert total is not None
        return total


def _applied(builder: Builder, entry: Any, x: Value) -> Value:
    """A structural entry as a step; views and the sum at the end leave the value as it is."""
    name = _STEPS.get(type(entry.op))
    if name is None:
        return x
    dtype = dtype_name(entry.dtype)
    return builder.cast(x, dtype) if name == "cast" else builder.unary(name, x, dtype)
