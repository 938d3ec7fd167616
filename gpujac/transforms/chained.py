"""A chain of elementwise entries in a forward sweep: absent tangents, one-hot ones, dense ones."""

from typing import Any

from gpujac.core.aval import shape_of
from gpujac.ops import indexing as ix
from gpujac.ops import structure as st
from gpujac.program.ir import Chained, ChainedPart
from gpujac.transforms.hot import Hot


def push_chained(entry: Chained, ts: list) -> Any:
    """The tangent of the result in one launch, None where it is zero; of several results a list."""
    present = tuple([p for p, v in enumerate(entry.reads) if ts[v] is not None])
    part = entry.part(present)
    if part is None:
        return None
    tangents = [ts[entry.reads[p]] for p in part.reads]
    hot = next((t for t in tangents if type(t) is Hot), None)
    if hot is not None and entry.keeps_places and all(type(t) is Hot and t.same_places(hot) for t in tangents):
        found = _pushed_hot(entry, part, tangents, hot)
    else:
        wide = [_viewed(t, entry.views[p]) for t, p in zip(tangents, part.reads, strict=True)]
        found = part.op(*wide, *[entry.coefs[k] for k in part.coefs])
    count = len(entry.op.chain.outputs)
    if count == 1:
        return found
    results: list = [None] * count
    for k, y in zip(part.outputs, found if len(part.outputs) > 1 else (found,), strict=True):
        results[k] = y
    return results


def _viewed(t: Any, ops: tuple) -> Any:
    t = t.shared_dense() if type(t) is Hot else t
    for op in ops:
        t = op(t)
    return t


def _pushed_hot(entry: Chained, part: ChainedPart, tangents: list, hot: Hot) -> Any:
    """Rows of a diagonal stay one: the chain is applied to its values alone."""
    flat = entry.flat_coefs(lambda c: _raveled(c, hot.shape))
    picked = [_window(flat[k], hot, st.size_of(hot.shape)) for k in part.coefs]
    # ones are passed as a number where a coefficient says how many there are, for the one result
    wide = len(part.outputs) == 1 and any(shape_of(c) == (hot.count,) for c in picked)
    values = [1.0 if t.values is None and wide else t.vector() for t in tangents]
    found = part.op.over((hot.count,))(*values, *picked)
    return tuple([_like(hot, y) for y in found]) if isinstance(found, tuple) else _like(hot, found)


def _like(hot: Hot, values: Any) -> Hot:
    return Hot(hot.rows, hot.row, hot.start, hot.count, values, hot.shape, values.dtype, hot.like)


def _raveled(c: Any, shape: tuple) -> Any:
    """A coefficient as a number or as a vector over the raveled entries of `shape`."""
    if shape_of(c) == ():
        return c
    for op in st.spread_steps(tuple(c.shape), shape):
        c = op(c)
    return c if len(c.shape) == 1 else st.reshape(tuple(c.shape), (st.size_of(shape),))(c)


def _window(c: Any, hot: Hot, size: int) -> Any:
    if shape_of(c) == () or hot.count == size:
        return c
    return ix.slice_of((size,), ((hot.start, hot.start + hot.count, 1),))(c)
