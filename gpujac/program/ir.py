"""The flat linear program: entries in order, each linear in the tangents it reads.

A variable is the position of the entry that defines it. Coefficients are computed at the first
sweep and kept; then the operands they came from are let go.
"""

import math
from typing import Any, NamedTuple

from gpujac.backends.chain import restricted
from gpujac.core.aval import Shape, item_bytes, kind
from gpujac.core.source import Line, line_at
from gpujac.ops.agree import coefficient

Var = int


class Input:
    """A tangent that enters the program."""

    __slots__ = ("shape", "dtype")
    reads: tuple = ()

    def __init__(self, shape: Shape, dtype: Any) -> None:
        self.shape = shape
        self.dtype = dtype


class Scale:
    """Sum over operands of coefficient times tangent, elementwise (all of one shape)."""

    __slots__ = ("op", "positions", "reads", "xs", "y", "coefs", "shape", "dtype")

    def __init__(self, op: Any, positions: tuple, reads: tuple, xs: Any, y: Any, coefs: Any,
                 shape: Shape, dtype: Any) -> None:
        self.op = op
        self.positions = positions
        self.reads = reads
        self.xs = xs
        self.y = y
        self.coefs = coefs
        self.shape = shape
        self.dtype = dtype

    def resolve(self) -> tuple:
        """Compute the coefficients, once."""
        xs, y, op, positions = self.xs, self.y, self.op, self.positions
        y = self if y is None else y  # not read then, but for its dtype
        if self.coefs is not None:  # another thread was faster, and the operands may be gone
            return self.coefs
        if len(positions) == 1:
            coefs: tuple = (coefficient(op, positions[0], xs, y),)
        else:
            coefs = tuple([coefficient(op, p, xs, y) for p in positions])
        self.coefs = coefs
        self.xs = self.y = None
        return coefs


class Apply:
    """A structural linear op of one tangent."""

    __slots__ = ("op", "reads", "shape", "dtype")

    def __init__(self, op: Any, reads: tuple, shape: Shape, dtype: Any) -> None:
        self.op = op
        self.reads = reads
        self.shape = shape
        self.dtype = dtype


class Gather:
    """An op that is linear in all the tangents it reads together."""

    __slots__ = ("op", "reads", "shape", "dtype")

    def __init__(self, op: Any, reads: tuple, shape: Shape, dtype: Any) -> None:
        self.op = op
        self.reads = reads
        self.shape = shape
        self.dtype = dtype


class Partial:
    """An op with constant operands, linear in the one tangent at `position`."""

    __slots__ = ("op", "position", "reads", "operands", "shape", "dtype")

    def __init__(self, op: Any, position: int, reads: tuple, operands: tuple, shape: Shape,
                 dtype: Any) -> None:
        self.op = op
        self.position = position
        self.reads = reads
        self.operands = operands  # None at `position`
        self.shape = shape
        self.dtype = dtype


class Chained:
    """A chain of elementwise entries as one op, applied to views of tangents and to coefficients.

    `op` takes the tangents in the order of `reads`, each through its `views` (ops that put axes of
    length one where it is repeated), then the coefficients. Where it has several results, `Pick`
    entries that follow say which is which variable. Only forward sweeps read it.
    """

    __slots__ = ("op", "reads", "views", "coefs", "shape", "dtype", "_parts", "_flat")

    def __init__(self, op: Any, reads: tuple, views: tuple, coefs: tuple, shape: Shape, dtype: Any) -> None:
        self.op = op
        self.reads = reads
        self.views = views
        self.coefs = coefs
        self.shape = shape
        self.dtype = dtype
        self._parts: dict[tuple, ChainedPart | None] = {}
        self._flat: tuple | None = None

    @property
    def keeps_places(self) -> bool:
        """Whether entry i of a result depends on entry i of each tangent and on nothing else."""
        return not self.op.chain.axes and not any(self.views) and self.op.shape == self.shape

    def part(self, present: tuple[int, ...]) -> "ChainedPart | None":
        """What is left where only the tangents at these positions are there; None: all zeros."""
        if present not in self._parts:
            count = len(self.reads)
            inputs = frozenset((*present, *range(count, count + len(self.coefs))))
            found = restricted(self.op.chain, inputs)
            self._parts[present] = None if found is None else ChainedPart(
                self.op.of(found.chain),
                tuple([i for i in found.inputs if i < count]),
                tuple([i - count for i in found.inputs if i >= count]),
                found.outputs,
            )  # fmt: skip
        return self._parts[present]

    def flat_coefs(self, flatten: Any) -> tuple:
        """The coefficients as numbers and vectors over the raveled entries, made once."""
        if self._flat is None:
            self._flat = tuple([flatten(c) for c in self.coefs])
        return self._flat


class ChainedPart(NamedTuple):
    """A chain without the tangents that are zero; positions among those of the whole."""

    op: Any
    reads: tuple[int, ...]
    coefs: tuple[int, ...]
    outputs: tuple[int, ...]


class Pick:
    """One of several results of the chain or of the held map that it reads."""

    __slots__ = ("which", "reads", "shape", "dtype")

    def __init__(self, which: int, reads: tuple, shape: Shape, dtype: Any) -> None:
        self.which = which
        self.reads = reads
        self.shape = shape
        self.dtype = dtype


class Held:
    """A linear function of several tangents. Several results are taken apart by `Pick` entries that
    follow; a single one is the variable itself.

    `map` has `forward` and `backward`: functions of lists, in which None is a zero (transforms/held.py).
    Shape and dtype are those of its largest result.
    """

    __slots__ = ("map", "picks", "reads", "shape", "dtype")

    def __init__(self, map: Any, reads: tuple, shape: Shape, dtype: Any) -> None:
        self.map = map
        count = len(map.dst)
        self.picks = 0 if count == 1 else count  # how many `Pick` entries follow
        self.reads = reads
        self.shape = shape
        self.dtype = dtype


def held_entries(first: Var, map: Any, reads: tuple) -> list:
    """The entry of a held map, which becomes variable `first`, and a `Pick` for each of several results."""
    if len(map.dst) == 1:
        (a,) = map.dst
        return [Held(map, reads, a.shape, a.dtype)]
    widest = max(map.dst, key=lambda a: math.prod(a.shape) * item_bytes(a.dtype))
    picks = [Pick(k, (first,), a.shape, a.dtype) for k, a in enumerate(map.dst)]
    return [Held(map, reads, *widest), *picks]


def held_results(first: Var, count: int) -> tuple[Var, ...]:
    """The variables of the results of a held map, whose entry is variable `first`."""
    return (first,) if count == 1 else tuple(range(first + 1, first + 1 + count))


class Program:
    """Entries, how many inputs come first, and the output variables (None: a zero)."""

    __slots__ = ("entries", "inputs", "outputs", "complex", "spots", "_live", "_last", "_widest")

    def __init__(self, entries: list, inputs: int, outputs: list) -> None:
        self.entries = entries
        self.inputs = inputs
        self.outputs = outputs
        self.complex = any(kind(d) == "c" for d in {e.dtype for e in entries})
        self.spots: list | None = None  # where the user's code made each entry, if that was recorded
        self._live: list[bool] | None = None
        self._last: list[list[Var]] | None = None
        self._widest = 0

    @property
    def lines(self) -> list[Line | None] | None:
        """For each entry the user's line that made it (None: an input); None where lines were not recorded."""
        return None if self.spots is None else [self.line(i) for i in range(len(self.entries))]

    def line(self, var: Var) -> Line | None:
        """The user's line that made an entry, if it is known."""
        spot = None if self.spots is None or var >= len(self.spots) else self.spots[var]
        return None if spot is None else line_at(*spot)

    def widest_bytes(self) -> int:
        """Bytes of the largest variable, for one row."""
        if not self._widest:
            kinds = {(e.shape, e.dtype) for e in self.entries}
            sizes = [math.prod(shape) * item_bytes(dtype) for shape, dtype in kinds]
            self._widest = max(sizes, default=1) or 1
        return self._widest

    def mixes(self) -> bool:
        """Whether some entry is not elementwise."""
        return not all([
            e.__class__ in (Scale, Pick) or (e.__class__ is Chained and e.keeps_places)
            for e in self.entries[self.inputs :]
        ])  # fmt: skip

    def live(self) -> list[bool]:
        """For each entry, whether an output depends on it."""
        if self._live is None:
            live = [False] * len(self.entries)
            for v in self.outputs:
                if v is not None:
                    live[v] = True
            for i in range(len(live) - 1, -1, -1):
                if live[i]:
                    for v in self.entries[i].reads:
                        live[v] = True
            self._live = live
        return self._live

    def last_reads(self) -> list[list[Var]]:
        """For each entry, the variables that no later live entry and no output reads."""
        if self._last is None:
            seen = {v for v in self.outputs if v is not None}
            live = self.live()
            last: list[list[Var]] = [[] for _ in self.entries]
            for i in range(len(self.entries) - 1, -1, -1):
                if live[i]:
                    for v in self.entries[i].reads:
                        if v not in seen:
                            seen.add(v)
                            last[i].append(v)
            self._last = last
        return self._last

    def shape(self, var: Var) -> Shape:
        """The shape of a variable."""
        return self.entries[var].shape
