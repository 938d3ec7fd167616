"""The linear program as a table: for each entry what it computes, of what, how large, and from which line.

`bytes` is one row's tangent, `kept` what the entry holds between sweeps (coefficients and constants, each
array counted where it comes first), `flops` what one row of a sweep costs: for an elementwise entry one
product per coefficient and one sum less than it has operands, for others what the op says (`Op.flops`: 2 k m n
for a matrix product, the number of terms for a sum, 5 n log2 n for a Fourier transform, 0 where numbers are
only moved). A held function's flops are unknown (`?`).
"""

import math
from pathlib import PurePath
from typing import Any

from gpujac.core.aval import item_bytes, name_of, shape_of
from gpujac.core.op import Mask
from gpujac.core.trace import payload
from gpujac.ops.agree import Guarded
from gpujac.program.ir import Chained, Held, Input, Partial, Pick, Program, Scale
from gpujac.program.kept import arrays_of

_HEAD = ("var", "operation", "of", "shape", "dtype", "bytes", "kept", "flops", "line")
_RIGHT = frozenset(("bytes", "kept", "flops"))


def table(program: Program) -> str:
    """One line of text per entry under a line of headings; numbers are aligned on the right."""
    seen: set[int] = set()
    rows = [_HEAD, *[_row(program, i, seen) for i in range(len(program.entries))]]
    widths = [max([len(row[k]) for row in rows]) for k in range(len(_HEAD))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if name in _RIGHT else text.ljust(width)
            for text, width, name in zip(row, widths, _HEAD, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(program: Program, i: int, seen: set[int]) -> tuple[str, ...]:
    entry = program.entries[i]
    work = flops(program, i)
    return (
        f"v{i}", _operation(entry), " ".join([f"v{v}" for v in entry.reads]), str(tuple(entry.shape)),
        name_of(entry.dtype), str(_bytes(entry)), str(_kept(entry, seen)), "?" if work is None else str(work),
        _line(program, i),
    )  # fmt: skip


def _operation(entry: Any) -> str:
    kind = entry.__class__
    if kind is Input:
        return "input"
    if kind is Pick:
        return f"result {entry.which}"
    if kind is Held:
        return f"call {entry.map.name}"
    if kind is Scale and entry.op is None:
        return "sum" if all([c is None for c in entry.coefs or ()]) else "scale"
    return f"{entry.op.name}, operand {entry.position}" if kind is Partial else entry.op.name


def _line(program: Program, i: int) -> str:
    line = program.line(i)
    return "" if line is None else f"{PurePath(line.file).name}:{line.number}  {line.text}".rstrip()


def _bytes(entry: Any) -> int:
    return math.prod(entry.shape) * item_bytes(entry.dtype)


def residual_bytes(program: Program) -> int:
    """Bytes that the program holds between sweeps, an array that several entries hold counted once."""
    seen: set[int] = set()
    return sum([_kept(entry, seen) for entry in program.entries])


def _kept(entry: Any, seen: set[int]) -> int:
    """Bytes of the arrays that an entry holds and that were not `seen` before."""
    total = 0
    for x in _held_arrays(entry):
        found = payload(x)
        if found is None or id(found) in seen or not shape_of(found):
            continue
        seen.add(id(found))
        total += math.prod(shape_of(found)) * item_bytes(found.dtype)
    return total


def _held_arrays(entry: Any) -> list:
    kind = entry.__class__
    if kind is Scale:
        coefs = entry.coefs if entry.coefs is not None else entry.resolve()
        parts = [(c.keep, c.factor) if c.__class__ is Mask else (c,) for c in coefs]
        return [c.value if c.__class__ is Guarded else c for part in parts for c in part if c is not None]
    if kind is Partial:
        return [x for x in entry.operands if x is not None]
    if kind is Held:
        return arrays_of(entry)
    return list(entry.coefs) if kind is Chained else []


def total_flops(program: Program) -> int | None:
    """Operations of one row of a sweep; None where a held function's are unknown."""
    found = [flops(program, i) for i in range(len(program.entries))]
    known = [n for n in found if n is not None]
    return sum(known) if len(known) == len(found) else None


def flops(program: Program, i: int) -> int | None:
    """Floating-point operations of an entry for one row; None for a held function."""
    entry: Any = program.entries[i]
    kind = entry.__class__
    if kind in (Input, Pick):
        return 0
    if kind is Held:
        return None
    size = math.prod(entry.shape)
    if kind is Scale:
        coefs = entry.coefs if entry.coefs is not None else entry.resolve()
        return size * (sum([c is not None for c in coefs]) + len(coefs) - 1)
    if kind is Chained:
        return size * len(entry.op.chain.steps)
    shapes = [tuple(program.entries[v].shape) for v in entry.reads]
    if kind is Partial:
        (t,) = shapes
        shapes = [t if x is None else tuple(shape_of(x)) for x in entry.operands]
    return entry.op.flops(tuple(shapes), tuple(entry.shape))
