"""Two structural ops that follow each other as one, and ops that change nothing.

The table is by the type of the second op: a program is made shorter before a wide sweep, where each
entry that is left out saves a pass over the rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac.core.aval import Shape
from gpujac.core.op import Linear
from gpujac.ops import structure as st
from gpujac.ops.indexing import Key, Pad, Slice, slice_of

MOVES = frozenset((st.Reshape, st.Permute, st.Flip, st.Roll))  # they only reorder entries: the transpose undoes them
VIEWS = frozenset((st.Reshape, st.Permute, Slice))  # often no work at all, so that doing two at once is never dearer


def is_identity(op: Linear) -> bool:
    """Whether the result of a structural op is always its operand."""
    found = _NOTHING.get(type(op))
    return found is not None and found(op)


def composed(second: Linear, first: Linear) -> Linear | None:
    """One op that does `first` and then `second`; None where there is none.

    No arithmetic changes: entries are moved, or cast where the dtype between holds every value.
    """
    rule = _RULES.get(type(second))
    return None if rule is None else rule(second, first)


def _same(shape: Shape) -> Linear:
    return st.reshape(shape, shape)


def _reshape(second: st.Reshape, first: Linear) -> Linear | None:
    if type(first) is not st.Reshape:
        return None
    more = len(second.src) - len(first.dst)
    if more >= 0:
        return st.reshape(second.src[:more] + first.src, second.dst)
    return st.reshape(first.src, first.dst[:-more] + second.dst)


def _permute(second: st.Permute, first: Linear) -> Linear | None:
    if type(first) is not st.Permute:
        return None
    rank = max(len(second.order), len(first.order))
    before, behind = ((*range(-rank, -len(o)), *o) for o in (first.order, second.order))
    lead = second.src[: rank - len(first.src)]  # axes that only the second touches
    return st.permute(lead + first.src, tuple([before[a] for a in behind]))


def _flip(second: st.Flip, first: Linear) -> Linear | None:
    if type(first) is not st.Flip:
        return None
    src = max(second.src, first.src, key=len)
    axes = set(second.axes) ^ set(first.axes)
    return st.flip(src, tuple(sorted(axes))) if axes else _same(src)


def _roll(second: st.Roll, first: Linear) -> Linear | None:
    if type(first) is not st.Roll:
        return None
    total: dict[int, int] = {}
    for op in (first, second):
        for axis, shift in zip(op.axes, op.shifts, strict=True):
            total[axis] = total.get(axis, 0) + shift
    return st.roll(max(second.src, first.src, key=len), tuple(total.values()), tuple(total))


def _cast(second: st.Cast, first: Linear) -> Linear | None:
    if type(first) is not st.Cast or not all([isinstance(d, np.dtype) for d in (first.before, first.after)]):
        return None
    # only where the dtype between holds every value of the first: what it rounds must stay rounded
    return st.cast(first.before, second.after) if np.can_cast(first.before, first.after, "safe") else None


def _conj(_: st.Conj, first: Linear) -> Linear | None:
    return _same(()) if type(first) is st.Conj else None


def _slice(second: Slice, first: Linear) -> Linear | None:
    if type(first) is Pad and first.key == second.key and first.dst == second.src:  # exactly what was written there
        return _same(first.src)
    if type(first) is not Slice:
        return None
    more = len(second.key) - len(first.dst)
    lead = second.src[: max(more, 0)]  # axes that only the second touches
    keys = iter((*[(0, n, 1) for n in first.dst[: max(-more, 0)]], *second.key))
    key: Key = (
        *[next(keys) for _ in lead],
        *[k if isinstance(k, int) else _within(k, next(keys)) for k in first.key],
    )
    return slice_of(lead + first.src, key)


def _within(outer: tuple[int, int, int], inner: Any) -> Any:
    """The part `inner` of the entries that the triple `outer` selects, as a part of the whole axis."""
    start, _, step = outer
    if isinstance(inner, int):
        return start + inner * step
    first, last, stride = inner
    count = len(range(first, last, stride))
    if not count:
        return 0, 0, 1
    begin, stride = start + first * step, step * stride
    end = begin + (count - 1) * stride + (1 if stride > 0 else -1)
    return begin, end, stride


_RULES: dict[type, Callable[[Any, Linear], Linear | None]] = {
    st.Reshape: _reshape, st.Permute: _permute, st.Flip: _flip, st.Roll: _roll, st.Cast: _cast, st.Conj: _conj,
    Slice: _slice,
}  # fmt: skip
_NOTHING: dict[type, Callable[[Any], bool]] = {
    st.Reshape: lambda op: op.src == op.dst,
    st.Permute: lambda op: op.order == tuple(range(-len(op.order), 0)),
    st.Roll: lambda op: not any([n and s % n for n, s in zip([op.src[a] for a in op.axes], op.shifts, strict=True)]),
    st.Cast: lambda op: bool(op.before == op.after),
    Slice: lambda op: all([k == (0, n, 1) for k, n in zip(op.key, op.src, strict=True)]),
}
