"""The linear program as a device sweeps it: turned forward, elementwise entries fused.

Fused entries are run forward only, so a reverse sweep is recorded first: `pull` on tracers without
values writes the transposed program down, whose forward sweep is the reverse sweep of the first.
"""

import math

import numpy as np

from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.core.aval import shape_of
from gpujac.core.trace import Tracer, payload
from gpujac.engine.fuse import fuse, saves_launches
from gpujac.program.ir import Input, Program
from gpujac.program.rewrite import rewritten
from gpujac.program.simplify import has_writes, merge_writes
from gpujac.transforms.record import RecordTrace
from gpujac.transforms.sweep import pull

_SINGLE_BYTES = 16 << 20  # of a variable: moving it three times takes as long as planning an entry
_F64 = np.dtype(np.float64)  # of an input that nothing reads


def fuses(arrays: list) -> bool:
    """Whether sweeps at these values run as fused kernels: a device of theirs has them, and no transform
    that differentiates looks on, which would only see the elementary operations again."""
    found = False
    for x in arrays:
        while isinstance(x, Tracer):
            if not x.owner.batches:
                return False
            x = x.value
        found = found or backend_of(x).fuses
    return found


def pays_for_one_sweep(program: Program, leaves: list) -> bool:
    """Whether a plan is worth its while for a single sweep, as a gradient is: for large arrays on a
    device, where each entry that is fused away saves more than the planning of one costs."""
    if not leaves or type(payload(leaves[0])) in HOST_TYPES:
        return False
    inner = payload(leaves[0])
    lanes = math.prod(shape_of(inner)) // max(math.prod(shape_of(leaves[0])), 1)
    return program.widest_bytes() * max(lanes, 1) >= _SINGLE_BYTES


def gains(program: Program) -> bool:
    """Whether a plan has fewer launches than the program: most networks are products and single steps."""
    return has_writes(program) or saves_launches(program)


def planned(program: Program, forward: bool) -> Program:
    """The program whose forward sweep is the sweep of `program` in either direction, fused.

    Cost: a walk over the entries, two for reverse.
    """
    program = rewritten(merge_writes(program))
    return fuse(program if forward else rewritten(transposed(program)))


def transposed(program: Program) -> Program:
    """The transposed program: one input per output of `program` (unused where that is a zero)."""
    entries: list = []
    for v in program.outputs:
        shape, dtype = ((), _F64) if v is None else (program.entries[v].shape, program.entries[v].dtype)
        entries.append(Input(shape, dtype))
    count = len(entries)
    trace = RecordTrace("transpose", entries)
    try:
        seeds = [(v, trace.tracer(k)) for k, v in enumerate(program.outputs) if v is not None]
        cts = pull(program, seeds)
    finally:
        trace.close()
    mine = [ct.aux if isinstance(ct, TracedArray) and ct.owner is trace else None for ct in cts]
    return Program(entries, count, mine)
