"""Where the rows of one Jacobian go: into given arrays, to the host, or (no sink) into arrays of ours."""

from typing import Any

import numpy as np

from gpujac.backends.choose import backend_of
from gpujac.core.aval import shape_of
from gpujac.transforms import given
from gpujac.transforms.assemble import Block, Side
from gpujac.transforms.chunking import Plan
from gpujac.transforms.options import Options
from gpujac.transforms.resume import Record, fingerprint
from gpujac.transforms.sink import Sink, Target


def sink_for(options: Options, linear: Any, rows: Side, columns: Side, forward: bool, like: Any) -> Sink | None:
    """What takes the rows where `out` is given; None where they are on the host, as asked, in arrays of ours.

    Raises where a given array does not fit: nothing has been swept yet.
    """
    out, what = options.out, options.what
    to_host = not given.is_given(out) or given.is_on_host(what, out)
    fetcher = backend_of(like).fetcher() if to_host else None
    if not given.is_given(out) and fetcher is None:
        return None
    point, values = linear.point, linear.values
    dtypes = [[given.block_dtype(what, forward, y, x) for x in point.leaves] for y in values]
    if given.is_given(out):
        given.check_untraced(what, any([given.is_traced(y) for y in values]))
        arrays = given.matched(what, out, linear, dtypes, like)
    else:
        arrays = [[np.zeros((*shape_of(y), *shape_of(x)), dtype) for x, dtype in zip(point.leaves, row, strict=True)]
                  for y, row in zip(values, dtypes, strict=True)]  # fmt: skip
    by_rows = [list(column) for column in zip(*arrays, strict=True)] if forward else arrays
    near = like if fetcher is None else np.zeros(())
    conjugate = options.holomorphic and not forward
    targets = [
        [Target(x, Block(n, shape, x.dtype, forward, near), leaf, conjugate, zeroed=not given.is_given(out))
         for x, shape in zip(row, columns.shapes, strict=True)]
        for row, n, leaf in zip(by_rows, rows.sizes, rows.shapes, strict=True)
    ]  # fmt: skip
    return Sink(what, arrays, targets, rows, fetcher)


def begun(sink: Sink, options: Options, linear: Any, plan: Plan) -> Plan:
    """The plan of the rows that are left, after `resume` has told the sink where to begin."""
    resume = options.resume
    if resume is None:
        return plan
    if isinstance(resume, (int, np.integer)):
        sink.begin_at(int(resume))
    else:
        sink.follow(Record(options.what, resume, _facts(sink, linear, plan)))
    return left(plan, sink.start)


def left(plan: Plan, first: int) -> Plan:
    """The plan of the rows from `first` on."""
    step = plan.chunk_size or max(plan.rows, 1)
    return plan._replace(chunks=-(-(plan.rows - first) // step)) if first else plan


def _facts(sink: Sink, linear: Any, plan: Plan) -> dict[str, Any]:
    """What must be the same when rows are added to those of an earlier run."""
    blocks = [[list(x.shape), str(x.dtype)] for row in sink.arrays for x in row]
    return {
        "mode": plan.mode,
        "rows": plan.rows,
        "chunk_size": plan.chunk_size,
        "blocks": blocks,
        "point": fingerprint(linear.point.leaves),
        "output": fingerprint(linear.values),
    }
