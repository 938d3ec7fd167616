"""Sweeps that stop at the first NaN or infinity: what `settings.debug_nans` makes of pull and push.

A program is swept entry by entry, each as a program of its own, so that every rule is the one that plain
sweeps use. Diagonals are written out, reads of parts are written back one by one, nothing is fused.
"""

import copy
from collections.abc import Callable
from typing import Any

from gpujac.core.finite import check
from gpujac.core.op import Mask
from gpujac.core.op_ranges import unchecked
from gpujac.ops.agree import Guarded, plus
from gpujac.program.ir import Held, Input, Partial, Pick, Program, Scale
from gpujac.transforms.hot import Hot


def checked_pull(pull: Callable, program: Program, seeds: list[tuple[int, Any]]) -> list[Any]:
    """What `pull` gives, every cotangent checked."""
    entries = program.entries
    cts: list[Any] = [None] * len(entries)
    for var, ct in seeds:
        _add(cts, var, ct.dense() if type(ct) is Hot else ct)
    for i in range(len(entries) - 1, program.inputs - 1, -1):
        if entries[i].__class__ is Pick:  # waits for the entry that it takes apart
            continue
        step, picks = _step(program, i)
        given = [(v, cts[i + v - step.inputs]) for v in step.outputs if v is not None]
        given = [(v, ct) for v, ct in given if ct is not None]
        if given:
            with unchecked(program.spots, i):
                parts = pull(step, given)
            for k, part in enumerate(parts):
                what = f"the cotangent of operand {_position(entries[i], k)} of {_name(entries[i])}"
                _check(program, i, what, "reverse", [ct for _, ct in given], part)
                if part is not None:
                    _add(cts, entries[i].reads[k], part)
        cts[i : i + 1 + picks] = [None] * (1 + picks)
    return cts[: program.inputs]


def checked_push(push: Callable, program: Program, tangents: list[Any]) -> list[Any]:
    """What `push` gives, every tangent checked."""
    entries, live = program.entries, program.live()
    ts: list[Any] = [t.dense() if type(t) is Hot else t for t in tangents]
    ts += [None] * (len(entries) - len(ts))
    for i in range(program.inputs, len(entries)):
        reads = [ts[v] for v in entries[i].reads]
        if not live[i] or entries[i].__class__ is Pick or all(t is None for t in reads):
            continue
        step, _ = _step(program, i)
        with unchecked(program.spots, i):
            results = push(step, reads)
        for v, y in zip(step.outputs, results, strict=True):
            given = [t for t in reads if t is not None]
            _check(program, i, f"the tangent of {_name(entries[i])}", "forward", given, y)
            if v is not None:
                ts[i + v - step.inputs] = y
    return [None if v is None else ts[v] for v in program.outputs]


def _step(program: Program, i: int) -> tuple[Program, int]:
    """Entry `i` (with the `Pick` entries of a held map) as a program, and how many of those there are."""
    entries, entry = program.entries, program.entries[i]
    count = len(entry.reads)
    if entry.__class__ is Scale and entry.coefs is None:
        operands = entry.xs, entry.y
        with unchecked(program.spots, i):  # kept in the program, not in the copy
            entry.resolve()
        entry.xs, entry.y = operands  # they tell whether a slope was infinite or its operand
    inputs = [Input(entries[v].shape, entries[v].dtype) for v in entry.reads]
    own = [_reading(entry, tuple(range(count)))]
    if entry.__class__ is Held:
        own += [_reading(entries[i + 1 + k], (count,)) for k in range(entry.picks)]
    outputs: list = [count] if len(own) == 1 else list(range(count + 1, count + len(own)))
    step = Program([*inputs, *own], count, outputs)
    step.complex = program.complex
    return step, len(own) - 1


def _reading(entry: Any, reads: tuple) -> Any:
    twin = copy.copy(entry)
    twin.reads = reads
    return twin


def _add(cts: list, var: int, part: Any) -> None:
    cts[var] = part if cts[var] is None else plus(cts[var], part)


def _name(entry: Any) -> str:
    if entry.__class__ is Held:
        return entry.map.name
    return "a sum" if entry.op is None else entry.op.name


def _position(entry: Any, k: int) -> int:
    if entry.__class__ is Scale:
        return entry.positions[k]
    return entry.position if entry.__class__ is Partial else k


def _number(c: Any) -> Any:
    """What multiplies, of a coefficient that may also select."""
    if c.__class__ is Mask:
        return c.factor
    return c.value if c.__class__ is Guarded else c


def _check(program: Program, i: int, what: str, way: str, given: list, part: Any) -> None:
    """Raise where `part`, which entry `i` made of `given`, has a new NaN or infinity."""
    entry = program.entries[i]
    known: list = [("tangent" if way == "forward" else "cotangent", x) for x in given]
    if entry.__class__ is Scale:
        coefs = [_number(c) for c in entry.coefs]
        operands = [(f"operand {p}", x) for p, x in enumerate(entry.xs or ()) if x is not None]
        operands += [] if entry.y is None else [("value", entry.y)]
        known += [*operands, *[(f"slope at operand {p}", c) for p, c in zip(entry.positions, coefs, strict=True)]]
        given = [*given, *([x for _, x in operands] or coefs)]  # where none are kept, slopes are operands
    elif entry.__class__ is Partial:
        operands = [(f"operand {p}", x) for p, x in enumerate(entry.operands) if x is not None]
        known, given = known + operands, [*given, *[x for _, x in operands]]
    where = f"entry {i} of the {way} sweep"
    check(what, given, part, known, entry.__class__ is Scale, where, lambda: program.line(i))
