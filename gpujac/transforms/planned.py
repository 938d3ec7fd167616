"""The sweeps of a Jacobian as planned steps, on the CPU.

Rows begin structured (a diagonal, terms) and are swept as ever while they are; that part is the head of a
sweep. Where a variable has to be written out, it is written into planned memory, and everything that is
computed from there on is the steps of a plan (engine/plan.py), without a rule in between.

Which variables are structured depends on the seeds, so there is a plan for each such state. Nearly always
it is the same one for all chunks.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from gpujac.core.aval import item_bytes
from gpujac.engine import reuse
from gpujac.engine.plan import Plan, settle, unplannable
from gpujac.engine.replay import Replay
from gpujac.ops.structure import size_of
from gpujac.program.ir import Apply, Partial, Program
from gpujac.transforms.hot import Hot, rows_into, scales_rows
from gpujac.transforms.sweep import push_entry
from gpujac.transforms.terms import STRUCTURED, Terms, scales_few_rows

_ZERO, _STRUCTURED, _WRITTEN, _PLANNED = range(4)  # states of a variable in a sweep

# An entry costs about 25 us to transpose and to plan; one pass over 256 kB that is not made, or is made in
# memory that is at hand, saves about as much (2026-11, one core of an AMD EPYC; docs/decisions/0030).
_ENTRY_BYTES = 256_000
# Measured the same day: up to here what a step saves is more than what its writes beside the cache cost. In wider
# chunks arrays are large, an interpreter's overhead is nothing, and freed memory comes back warm from malloc.
MOST_ROWS = 16


class Route(NamedTuple):
    """What is swept how: states by variable, the entries of the head, what they hand over, the plan of the rest."""

    states: bytes
    head: tuple[int, ...]
    plan: Plan


def pays(program: Program, rows: int) -> bool:
    """Whether the rows of one sweep move so many bytes that planning the sweep costs less than it saves."""
    moved = sum([math.prod(e.shape) * item_bytes(e.dtype) for e in program.entries])
    return rows * moved >= _ENTRY_BYTES * len(program.entries)


class PlannedSweep:
    """Sweeps of one linear program that is pushed forward.

    `replaced`: results may be written into memory of the caller's.
    """

    def __init__(self, program: Program, replaced: bool) -> None:
        self.program, self.replaced = program, replaced
        self.kept = reuse.kept_for((replaced, *reuse.key_of(program)))
        self.outputs = {v for v in program.outputs if v is not None}
        self.route: Route | None = self.kept.latest
        self.replays: dict[tuple[bytes, int], Replay] = {}

    def row_bytes(self, seeds: list) -> int:
        """Bytes that the steps hold for each row; 0 where nothing is left to plan.

        The first time for a program a few rows are swept to see what becomes of `seeds`.
        """
        if not self.kept.row_bytes:
            self.kept.row_bytes = self._routed(seeds)[0].plan.row_bytes
        return self.kept.row_bytes

    def sweep(self, seeds: list, rows: int, targets: dict[int, Any]) -> list:
        """The rows of the outputs, valid until the next sweep; None is a zero, as in `push`.

        `targets`: for some variables arrays to write into. Where one of them comes back, it holds the rows.
        """
        _, ts, replay = self._headed(seeds, rows)
        if replay is None:
            return [None if v is None else ts[v] for v in self.program.outputs]
        found = replay.run(rows, targets)
        return [None if v is None else found.get(v, ts[v]) for v in self.program.outputs]

    def close(self) -> None:
        """Hand the memory back."""
        for replay in self.replays.values():
            reuse.given_back(self.kept, replay.pool)
        self.replays.clear()

    def drop(self) -> None:
        """Let the memory go: there was too little of it."""
        self.replays.clear()

    def _headed(self, seeds: list, rows: int) -> tuple[Route, list, Replay | None]:
        """The head of a sweep, done: what it computed, and the replay whose given rows are filled."""
        if self.route is not None:
            replay = self._replay(self.route, rows)
            ts = self._head(self.route, seeds, {} if replay is None else replay.given(rows))
            if ts is not None:
                return self.route, ts, replay
        self.route, ts = self._routed(seeds)
        self.kept.latest = self.route
        replay = self._replay(self.route, rows)
        if replay is not None:
            for v, out in replay.given(rows).items():
                _write_out(ts[v], out)
        return self.route, ts, replay

    def _replay(self, route: Route, rows: int) -> Replay | None:
        """The replay of a route's plan with memory for so many rows at least; None where it has no steps."""
        if not route.plan.outputs:
            return None
        found = self.replays.get((route.states, rows))
        if found is None:
            larger = [r for (states, most), r in self.replays.items() if states == route.states and most >= rows]
            found = larger[0] if larger else Replay(self.program, reuse.taken(self.kept, route.plan, rows))
            if not larger:
                self.replays[route.states, rows] = found
        return found

    def _head(self, route: Route, seeds: list, given: dict[int, Any]) -> list | None:
        """Run the entries of a known head into `given`; None where a variable is not what the route has it to be."""
        entries, states = self.program.entries, route.states
        ts: list[Any] = [None] * len(entries)
        ts[: len(seeds)] = seeds
        if any([(s is None) != (states[v] == _ZERO) for v, s in enumerate(seeds)]):
            return None
        for i in route.head:
            entry, t = entries[i], ts[entries[i].reads[0]]
            if i in given and i not in self.outputs and type(t) is Hot and rows_into(t, entry, given[i]):
                continue
            t = push_entry(entry, ts)
            if states[i] != _WRITTEN and type(t) is Terms:
                t = t.settled()
            if _state(t) != states[i] and not (states[i] == _WRITTEN and type(t) in STRUCTURED):
                return None
            ts[i] = t
        for v, out in given.items():
            if ts[v] is not None:
                _write_out(ts[v], out)
        return ts

    def _routed(self, seeds: list) -> tuple[Route, list]:
        """The head of a sweep where no route is known, and the route that it showed."""
        program = self.program
        entries, live = program.entries, program.live()
        ts: list[Any] = [None] * len(entries)
        ts[: len(seeds)] = seeds
        states = bytearray(len(entries))
        states[: len(seeds)] = bytes([_state(t) for t in seeds])
        for i in range(program.inputs, len(entries)):
            if not live[i]:
                continue
            state = max([states[v] for v in entries[i].reads])
            if state == _STRUCTURED and _mixes(entries[i], ts):
                states[i] = _PLANNED  # its operand is written out, and a step does the rest
            elif state == _STRUCTURED:
                t = push_entry(entries[i], ts)
                ts[i] = t.settled() if type(t) is Terms else t
                states[i] = _state(ts[i])
            elif state:
                states[i] = _PLANNED
        found = self.kept.plans.get(bytes(states))
        if found is None:
            found = self.kept.plans.setdefault(bytes(states), self._settled(bytes(states)))
        return found, ts

    def _settled(self, states: bytes) -> Route:
        """The route of these states."""
        program = self.program
        entries, live = program.entries, program.live()
        planned = [i for i, s in enumerate(states) if s == _PLANNED]
        given = sorted({v for i in planned for v in entries[i].reads if states[v] in (_STRUCTURED, _WRITTEN)})
        wanted = list(dict.fromkeys([v for v in program.outputs if v is not None and states[v] == _PLANNED]))
        head = [
            i for i in range(program.inputs, len(states))
            if live[i] and states[i] != _PLANNED and any([states[v] for v in entries[i].reads])
        ]  # fmt: skip
        return Route(states, tuple(head), settle(program, given, planned, wanted, self.replaced))


def reason_against(program: Program, rows: int, chunk: int) -> str | None:
    """Why sweeps of a program, before it is transposed, are interpreted; None where they are planned.

    `rows` are swept in all, `chunk` of them at a time.
    """
    if not 1 < chunk <= MOST_ROWS:
        return f"chunks of 2 to {MOST_ROWS} rows gain by planning, these have {chunk}"
    if not program.mixes():
        return "it is elementwise"
    if not pays(program, rows):
        return "it is small"
    return unplannable(program)


def _mixes(entry: Any, ts: list) -> bool:
    """Whether what an entry makes of structured rows is none, and not scaled rows of a constant either."""
    op = entry.op
    if entry.__class__ is Apply:
        return bool(op.src or op.dst) and not (op.copies or op.folds)
    if entry.__class__ is not Partial or op.copies or op.folds:
        return False
    t = ts[entry.reads[0]]
    return not (scales_rows(entry) and (type(t) is Hot or scales_few_rows(t)))


def _state(t: Any) -> int:
    return _ZERO if t is None else _STRUCTURED if type(t) in STRUCTURED else _WRITTEN


def _write_out(t: Any, out: np.ndarray) -> None:
    """Rows of any kind written into planned memory."""
    if type(t) is Hot:
        size = size_of(t.shape)
        out.fill(0)
        flat = out.reshape(t.rows * size)
        first = t.row * size + t.start
        flat[first : first + (t.count - 1) * (size + 1) + 1 : size + 1] = 1 if t.values is None else t.values
    elif type(t) is Terms:
        size = size_of(t.shape)
        out.fill(0)
        t.write(out.reshape(t.rows * size), size, 1, 0, 0, t.rows)
    else:
        out[...] = t
