"""The adjoint of a linear function: recorded without values, swept in reverse."""

from collections.abc import Callable
from typing import Any

from gpujac import ranges, trees
from gpujac.array import reduce
from gpujac.array.traced import TracedArray
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.op_ranges import watched
from gpujac.errors import StructureError
from gpujac.program.ir import Input, Program
from gpujac.transforms import flatten as fl
from gpujac.transforms.constants import Constants, Watched, check_unwritten, watch
from gpujac.transforms.record import RecordTrace
from gpujac.transforms.sweep import pull


def linear_transpose(f: Callable, *examples: Any) -> Callable:
    """The adjoint (transpose) of a linear function, as a function.

    Args:
        f: a function linear in all its arguments together; it is run once, without values.
        *examples: pytrees of arrays; only shapes and dtypes are used.

    Returns:
        `ft(ct)` → tuple with one pytree per argument, the adjoint under Re⟨a, b⟩.

    Raises:
        MissingRuleError: an op of `f` is not linear in what it reads.
        ConcretizationError: `f` reads a value.
        MutationError: a large array that `f` captured was written into before a call of `ft`.

    Cost: one recording; each call is one transposed sweep. Captured arrays of up to 32 kB are copied.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> ft = gj.linear_transpose(lambda x: x[1:] - x[:-1], np.zeros(3))
        >>> ft(np.array([1.0, 10.0]))[0]
        array([-1., -9., 10.])
    """
    fl.check_callable("linear_transpose", f)
    token = ranges.push("linear_transpose", ranges.TRANSFORM)
    try:
        point = fl.Point("linear_transpose", examples)
        out, program, constants = _recorded(f, point)
    finally:
        ranges.pop(token)
    avals = [Input(shape_of(y), dtype_of(y)) for y in out.leaves]
    like = fl.like_among(point.leaves) if point.leaves else 0.0

    def transposed(ct: Any, /) -> tuple:
        """Cotangents of the arguments from one of the output."""
        cure = "what was recorded is no longer that function; transpose it again, or give the function a copy"
        check_unwritten("linear_transpose", constants, cure)
        flat = trees.match(out.spec, ct, "linear_transpose: cotangent")
        names = ("cotangent", "output")
        cts = fl.matched("linear_transpose", names, out.spec, flat, avals, like)
        seeds = [(v, c) for v, c in zip(program.outputs, cts, strict=True) if v is not None]
        token = ranges.push("sweep", ranges.REPLAY)
        try:
            results = pull(program, seeds)
        finally:
            ranges.pop(token)
        flat = [fl.zeros_of(x) if r is None else r for r, x in zip(results, point.leaves, strict=True)]
        return point.result(fl.owned_all(flat, cts))

    return transposed


def _recorded(f: Callable, point: fl.Point) -> tuple[fl.Outputs, Program, Watched]:
    """The outputs of a linear function, its program, without values, and the constants that may change."""
    entries: list = [Input(shape_of(x), dtype_of(x)) for x in point.leaves]
    frozen = Constants()
    trace = watched(RecordTrace)(fl.name_of(f), entries, frozen.kept)
    try:
        tracers = [trace.tracer(i) for i in range(len(entries))]
        out = fl.Outputs("linear_transpose", fl.call(f, point.args(tracers), {}), False, trace)
        reads = []
        for y in out.leaves:
            mine = isinstance(y, TracedArray) and y.owner is trace
            reads.append(y.aux if mine else None)
            constant = y.value if mine else y
            if reads[-1] is None and bool(reduce.any(constant != 0) if shape_of(constant) else constant != 0):
                raise StructureError(
                    f"linear_transpose: an output of {fl.name_of(f)} is a nonzero constant, so the "
                    "function is not linear"
                )
        program = Program(entries, len(point.leaves), reads)
        program.spots = trace.spots
        return out, program, watch(frozen.frozen)
    finally:
        trace.close()
        frozen.close()
