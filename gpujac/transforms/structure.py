"""Whether all rows of a Jacobian are swept at once as lists of entries (transforms/terms.py), and what that takes."""

import math
from typing import Any

from gpujac.core.aval import item_bytes
from gpujac.program.ir import Apply, Gather, Partial, Program, Scale

# Nanoseconds, measured 2026-11 on one core of an AMD EPYC (docs/decisions/0029).
_STEP_NS = 6000  # a step through terms,
_TERM_NS = 3000  # and each of them
_MANY = 64  # as which they are joined
_DENSE_NS = 1000  # a step through rows that are written out,
_NUMBERS_PER_NS = 3  # and what it does to them
_ENTRY_BYTES = 2 * 24  # an entry: row, column and value, twice while a step is under way


def terms_pay(program: Program, reverse: bool, rows: int, chunks: int) -> int:
    """About how many bytes a row takes as terms where that beats `chunks` sweeps of it written out, else 0."""
    if rows * program.widest_bytes() // (4 * _NUMBERS_PER_NS) + chunks * _DENSE_NS < _STEP_NS + _TERM_NS:
        return 0  # not even if every variable were the widest, of four bytes a number
    entries, live = program.entries, program.live()
    size = steps = 0
    for entry, alive in zip(entries[program.inputs :], live[program.inputs :], strict=True):
        if alive:
            if not _moves(entry):
                return 0
            steps += 1
            size += math.prod(entry.shape)
    widths = _widths(program, live, reverse)
    terms_ns = steps * _STEP_NS + sum([min(w, _MANY) for w in widths]) * _TERM_NS
    if chunks * steps * _DENSE_NS + rows * size // _NUMBERS_PER_NS < terms_ns or not program.mixes():
        return 0
    return math.ceil(min(max(widths), rows) * (_ENTRY_BYTES + max([item_bytes(e.dtype) for e in entries])))


def _moves(entry: Any) -> bool:
    """Whether an entry moves and scales numbers, so that rows with few of them stay so."""
    kind = entry.__class__
    if kind is Apply:
        op = entry.op
        return op.copies or op.folds or not (op.src or op.dst)
    return kind is Scale or kind is Gather or (kind is Partial and (entry.op.copies or entry.op.folds))


def _widths(program: Program, live: list[bool], reverse: bool) -> list[float]:
    """For each variable, at most about how many entries a row has there."""
    entries = program.entries
    widths = [0.0] * len(entries)
    if not reverse:
        widths[: program.inputs] = [1.0] * program.inputs
        for i in range(program.inputs, len(entries)):
            if live[i]:
                widths[i] = sum([widths[v] for v in entries[i].reads]) * _growth(entries, i, False)
        return widths
    for v in program.outputs:
        if v is not None:
            widths[v] = 1.0
    for i in range(len(entries) - 1, program.inputs - 1, -1):
        if live[i]:
            for v in entries[i].reads:
                widths[v] += widths[i] * _growth(entries, i, True)
    return widths


def _growth(entries: list, i: int, reverse: bool) -> float:
    """How many entries a structural op makes of one, on average."""
    entry = entries[i]
    if entry.__class__ is Scale or entry.__class__ is Gather or (entry.op.copies and entry.op.folds):
        return 1.0
    here, there = math.prod(entries[entry.reads[0]].shape), math.prod(entry.shape)
    if reverse:
        here, there = there, here
    return max(1.0, there / max(here, 1))
