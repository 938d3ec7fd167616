"""Running a plan: a pool of memory for some number of rows, and the steps bound to it.

A pool outlives the sweep that it was made for (engine/reuse.py); it holds nothing but its own memory.
A replay belongs to one program at one point and is dropped with it.
"""

from typing import Any

import numpy as np

from gpujac.core.aval import item_bytes
from gpujac.engine.plan import Plan, fetched
from gpujac.program.ir import Program

_LINE = 64  # bytes of a cache line: where blocks begin


class Pool:
    """The memory of a plan for up to `rows` rows, and its arrays for each number of rows met so far."""

    __slots__ = ("plan", "rows", "nbytes", "_blocks", "_arrays")

    def __init__(self, plan: Plan, rows: int) -> None:
        self.plan, self.rows = plan, rows
        self._blocks = [_aligned(size * rows) for size in plan.blocks]
        self.nbytes = sum([b.nbytes for b in self._blocks])
        self._arrays: dict[int, list] = {}

    def arrays(self, rows: int) -> list:
        """An array for each slot with memory and each view, the first `rows` rows; None for constants."""
        found = self._arrays.get(rows)
        if found is None:
            if len(self._arrays) > 1:  # whole chunks and one last shorter one
                self._arrays.clear()
            found = self._arrays[rows] = self._made(rows)
        return found

    def _made(self, rows: int) -> list:
        arrays: list[Any] = []
        for k, slot in enumerate(self.plan.slots):
            if slot.view is not None and slot.base is not None:
                base = arrays[slot.base]
                arrays.append(None if base is None else slot.view(base))
            elif slot.constant is not None or self.plan.places[k] < 0:
                arrays.append(None)
            else:
                arrays.append(_shaped(self._blocks[self.plan.places[k]], slot, rows))
        return arrays


def _aligned(size: int) -> np.ndarray:
    """Memory that begins at a cache line."""
    block = np.empty(size + _LINE, np.uint8)
    start = -block.ctypes.data % _LINE
    return block[start : start + size]


def _shaped(block: np.ndarray, slot: Any, rows: int) -> np.ndarray:
    count = rows * int(np.prod(slot.shape, dtype=np.int64))
    return block[: count * item_bytes(slot.dtype)].view(slot.dtype).reshape(rows, *slot.shape)


class Replay:
    """The steps of a plan with the coefficients of one program, run for chunk after chunk."""

    __slots__ = ("plan", "pool", "_constants", "_bound", "_moving")

    def __init__(self, program: Program, pool: Pool) -> None:
        self.plan, self.pool = pool.plan, pool
        slots = self.plan.slots
        self._constants = {k: fetched(program, s.constant) for k, s in enumerate(slots) if s.constant is not None}
        self._bound: dict[int, tuple[list, list]] = {}
        self._moving = _dependents(self.plan)

    def given(self, rows: int) -> dict[int, np.ndarray]:
        """For each given variable the array that its rows are to be written into."""
        arrays, _ = self._at(rows)
        return {v: arrays[s] for v, s in self.plan.given.items()}

    def run(self, rows: int, targets: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Sweep `rows` rows; the arrays of the wanted variables, valid until the next run.

        `targets`: for some of the wanted variables C-contiguous arrays to write into instead.
        """
        arrays, steps = self._at(rows)
        for v, slot in self.plan.outputs.items():
            if slot in self._moving:
                self._move(arrays, steps, slot, self._target(targets.get(v), slot, rows))
        for run, operands in steps:
            run(*operands)
        return {v: arrays[s] for v, s in self.plan.outputs.items()}

    def _target(self, target: Any, slot: int, rows: int) -> np.ndarray:
        """The memory of an output: the caller's, or new where that does not fit."""
        want = self.plan.slots[slot]
        if target is not None and target.dtype == want.dtype and target.flags.c_contiguous:
            return target
        return np.empty((rows, *want.shape), want.dtype)

    def _at(self, rows: int) -> tuple[list, list]:
        """Arrays by slot and bound steps for a number of rows."""
        if rows not in self._bound:
            arrays = list(self.pool.arrays(rows))
            for k, c in self._constants.items():
                arrays[k] = c
            steps = [(s.run, tuple([arrays[k] for k in s.slots])) for s in self.plan.steps]
            self._bound[rows] = arrays, steps
        return self._bound[rows]

    def _move(self, arrays: list, steps: list, slot: int, target: np.ndarray) -> None:
        """Let a slot be other memory, and with it all its views and the steps that touch them."""
        arrays[slot] = target
        views, touched = self._moving[slot]
        for k in views:
            view = self.plan.slots[k]
            assert view.view is not None
            assert view.base is not None
            arrays[k] = view.view(arrays[view.base])
        for n in touched:
            step = self.plan.steps[n]
            steps[n] = (step.run, tuple([arrays[k] for k in step.slots]))


def _dependents(plan: Plan) -> dict[int, tuple[list[int], list[int]]]:
    """For each slot whose memory may be replaced: its views in order, and the steps that touch any of them."""
    found = {}
    for slot in plan.own:
        mine = {slot}
        views = []
        for k, s in enumerate(plan.slots):
            if s.base in mine:
                mine.add(k)
                views.append(k)
        found[slot] = (views, [n for n, step in enumerate(plan.steps) if mine.intersection(step.slots)])
    return found
