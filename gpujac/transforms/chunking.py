"""How many rows of the basis one sweep carries, and what that costs in memory."""

import math
import os
from typing import Any, NamedTuple

import numpy as np

from gpujac import settings
from gpujac.core.aval import item_bytes
from gpujac.core.trace import payload
from gpujac.errors import ArgumentError, ArgumentTypeError
from gpujac.ops.contract import Contract
from gpujac.program.ir import Chained, Partial, Program, Scale
from gpujac.transforms.structure import terms_pay

_SMALL = 8  # rows that always go in one pass
_CONTRACTION_ROWS = 256  # matrix products want tall operands
_CONTRACTION_BYTES = 16 << 20  # as long as one buffer stays below this


class Plan(NamedTuple):
    """What a Jacobian call decided.

    `mode`: "rev" or "fwd"; `rows`: basis vectors in all; `chunk_size`: per sweep (None: one pass);
    `chunks`: number of sweeps; `assembly`: "stack" or "preallocate"; `row_bytes`: live bytes of
    the sweep per row. `peak_bytes` is None before the sweeps; at their end it is the most memory that
    they held at once: on a device as CuPy's pool gave it out, the result included where it lies there,
    on the CPU as planned, `row_bytes` for each row of the largest chunk, without the result.
    `structured`: all rows are swept at once as lists of entries, no row is written out before the result.
    `sweep`: "planned" where rows are swept by steps settled beforehand in memory that is kept, else
    "interpreted", with the reason.
    """

    mode: str
    rows: int
    chunk_size: int | None
    chunks: int
    assembly: str
    row_bytes: int
    peak_bytes: int | None = None
    structured: bool = False
    sweep: str = "interpreted"


ONE_ROW = Plan("rev", 1, None, 1, "stack", 0)  # a scalar function: no basis axis at all


def check_chunk_size(what: str, chunk_size: Any, name: str = "chunk_size") -> None:
    """Raise unless chunk_size is None, "auto" or an int of at least 1."""
    if chunk_size is None or (isinstance(chunk_size, str) and chunk_size == "auto"):
        return
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, (int, np.integer)):
        raise ArgumentTypeError(
            f'{what}: {name}={chunk_size!r} is a {type(chunk_size).__name__}; give an int of at least 1, '
            'None for one pass, or "auto"'
        )
    if chunk_size < 1:
        raise ArgumentError(f'{what}: {name}={chunk_size} must be at least 1, None or "auto"')


def check_assembly(what: str, assembly: Any) -> None:
    """Raise unless assembly is one of the three words."""
    if not isinstance(assembly, str) or assembly not in ("auto", "stack", "preallocate"):
        raise ArgumentError(f'{what}: assembly={assembly!r}; choose "auto", "stack" or "preallocate"')


def plan(mode: str, program: Program, rows: int, chunk_size: Any, assembly: str, memory: int | None,
         reported: bool = False, lanes: bool = False, saturation: int | None = None,
         terms: bool = False) -> Plan:  # fmt: skip
    """Settle the chunk size and the assembly for `rows` basis vectors.

    The scan of live bytes runs only where a cap or a report asks for it. `lanes`: values belong
    to outer transforms, whose mapped axes count. `saturation`: bytes of one buffer that keep a
    device busy; None on the CPU, where the cache decides. `terms`: the values are plain arrays of
    NumPy's, so that rows may be swept as terms.
    """
    wide = _outer_lanes(program) if lanes else 1
    if chunk_size is None:
        k = rows
    else:
        k = int(chunk_size) if chunk_size != "auto" else _auto(program, rows, wide, saturation)
    if terms and (chunk_size is None or chunk_size == "auto") and rows > _SMALL:
        row = terms_pay(program, mode == "rev", rows, -(-rows // k))
        if row and (memory is None or row * rows <= memory):
            return Plan(mode, rows, None, 1, "stack" if assembly == "auto" else assembly, row, structured=True)
    live = 0
    if memory is not None or reported:
        live = live_bytes(program, mode == "rev") * wide
    if memory is not None:
        k = min(k, max(1, memory // max(live, 1)))
    k = max(1, min(k, rows))
    chunks = -(-rows // k) if rows else 0
    if assembly == "auto":
        assembly = "preallocate" if chunks > 1 else "stack"
    return Plan(mode, rows, k if chunks > 1 else None, chunks, assembly, live)


def _auto(program: Program, rows: int, wide: int, saturation: int | None) -> int:
    """On the CPU three of the widest buffers in half the L2 cache; on a device one that saturates it."""
    if rows <= _SMALL or not program.mixes():
        return rows
    widest = program.widest_bytes() * wide
    if saturation is not None:
        return max(1, saturation // max(widest, 1))
    k = max(1, l2_bytes() // 2 // (3 * max(widest, 1)))
    if any([e.__class__ is Partial and type(e.op) is Contract for e in program.entries]):
        k = max(k, min(_CONTRACTION_ROWS, _CONTRACTION_BYTES // max(widest, 1)))
    return max(1, k)


def replanned(before: Plan, row_bytes: int, assembly: str, memory: int | None) -> Plan:
    """The plan of planned sweeps, which hold `row_bytes` for each row and write straight into the result."""
    k = before.chunk_size or before.rows
    if memory is not None:
        k = max(1, min(k, memory // row_bytes))
    chunks = -(-before.rows // k)
    return before._replace(chunk_size=k if chunks > 1 else None, chunks=chunks, row_bytes=row_bytes, sweep="planned",
                           assembly="preallocate" if assembly == "auto" else assembly)  # fmt: skip


def live_bytes(program: Program, reverse: bool) -> int:
    """The most bytes of tangents alive at once during one sweep of one row."""
    size = [math.prod(e.shape) * item_bytes(e.dtype) for e in program.entries]
    order = range(len(size) - 1, -1, -1) if reverse else range(len(size))
    alive, peak = 0, 0
    last = program.last_reads()
    started: set[int] = set()
    live = program.live()
    for i in order:
        if i >= program.inputs and not live[i]:
            continue  # no sweep computes what no output reads
        if reverse:  # an entry's cotangent dies once read; those it feeds come alive
            if i not in started:
                alive += size[i]
            fresh = [v for v in set(program.entries[i].reads) if v not in started]
            started.update(fresh)
            alive += sum(size[v] for v in fresh)
            peak = max(peak, alive)
            alive -= size[i] if i >= program.inputs else 0
        else:
            alive += size[i]
            peak = max(peak, alive)
            alive -= sum(size[v] for v in last[i])
    return peak


def _outer_lanes(program: Program) -> int:
    """How many lanes of outer vmaps one logical row stands for."""
    best = 1
    for e in program.entries:
        constants: tuple = ()
        if e.__class__ is Scale:
            constants = (e.y, *(e.xs or ()), *(e.coefs or ()))
        elif e.__class__ is Partial:
            constants = e.operands
        elif e.__class__ is Chained:
            constants = e.coefs
        best = max([best, *(_lanes(x) for x in constants)])
    return best


def _lanes(x: Any) -> int:
    inner = payload(x)
    if inner is x or inner is None:
        return 1
    physical = math.prod(getattr(inner, "shape", ()))
    logical = math.prod(getattr(x, "shape", ()))
    return max(1, physical // max(logical, 1))


_L2: list[int] = []


def l2_bytes() -> int:
    """Size of the L2 cache of one core, 1 MB where the system does not tell."""
    if not _L2:
        try:
            found = os.sysconf("SC_LEVEL2_CACHE_SIZE")
        except (ValueError, OSError, AttributeError):
            found = 0
        _L2.append(found if found > 0 else 1 << 20)
    return _L2[0]


def memory_cap(what: str, memory: Any) -> int | None:
    """The cap in bytes that the argument sets, checked; None where it sets none."""
    return settings.parse_bytes(memory, f"{what}: memory")


def cap_now(memory: int | None) -> int | None:
    """The cap of a call: the argument's, else that of the setting as it is now."""
    return settings.get("memory") if memory is None else memory
