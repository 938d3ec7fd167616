"""Which slots of a plan share memory: lifetimes, and blocks given out by a linear scan."""

import math
from collections.abc import Collection, Sequence
from typing import Any

from gpujac.core.aval import item_bytes


def assigned(slots: Sequence[Any], steps: Sequence[Any], first: Collection[int], last: Collection[int],
             own: Collection[int]) -> tuple[dict[int, int], tuple[int, ...]]:  # fmt: skip
    """A block for each slot with memory, such that no two that are live at once share one.

    Args:
        slots, steps: those of a plan.
        first: the slots that are filled before the first step.
        last: the slots that are read after the last step.
        own: slots that get a block each which nothing else uses.

    Returns:
        (places, blocks): slot -> number of its block, and the bytes of each block per row. Blocks of
        `own` slots are not among them: -1 stands for memory that is asked for only if it is needed.

    Cost: a walk over the steps; for each slot a look at the free blocks.
    """
    begins, ends = lifetimes(slots, steps, first, last)
    scan = _Scan()
    places = dict.fromkeys(own, -1)
    leaving: dict[int, list[int]] = {}
    for slot in sorted(begins, key=lambda s: (begins[s], s)):
        if slot in places:
            continue
        for step in [s for s in leaving if s < begins[slot]]:
            for gone in leaving.pop(step):
                scan.free.append(places[gone])
        places[slot] = scan.taken(math.prod(slots[slot].shape) * item_bytes(slots[slot].dtype))
        leaving.setdefault(ends[slot], []).append(slot)
    return places, tuple(scan.blocks)


def lifetimes(slots: Sequence[Any], steps: Sequence[Any], first: Collection[int],
              last: Collection[int]) -> tuple[dict[int, int], dict[int, int]]:  # fmt: skip
    """For each slot with memory the step that fills it (-1: before all) and the last that reads it or a view of it."""
    root: list[int] = []
    for k, slot in enumerate(slots):
        root.append(k if slot.base is None else root[slot.base])
    begins = dict.fromkeys(first, -1)
    ends = dict(begins)
    for n, step in enumerate(steps):
        for s in step.slots:
            if slots[s].constant is None:
                begins.setdefault(root[s], n)
                ends[root[s]] = n
    for s in last:
        begins.setdefault(root[s], -1)
        ends[root[s]] = len(steps)
    return begins, ends


class _Scan:
    """Blocks so far, and those that nothing uses."""

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.free: list[int] = []

    def taken(self, size: int) -> int:
        """The free block that fits best: the smallest that is large enough, else the largest, grown; else a new one."""
        if not self.free:
            self.blocks.append(size)
            return len(self.blocks) - 1
        fitting = [b for b in self.free if self.blocks[b] >= size]
        best = min(fitting, key=lambda b: self.blocks[b]) if fitting else max(self.free, key=lambda b: self.blocks[b])
        self.free.remove(best)
        self.blocks[best] = max(self.blocks[best], size)
        return best
