"""The generated batching rule: a function and its rules over all lanes at once, still with its rules.

What vmap does to a function with rules when a transform below looks on: the function, its forward
and its backward half run under vmap, and the cotangent of an operand that all lanes share is the sum
over the lanes.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpujac import trees
from gpujac.array.reduce import sum as total
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import is_array
from gpujac.backends.host import SCALARS
from gpujac.control.custom_call import CustomCall
from gpujac.control.masks import follow
from gpujac.core.aval import Aval, dtype_of, is_differentiable, shape_of
from gpujac.core.taking import put_back
from gpujac.core.trace import Tracer
from gpujac.errors import MissingRuleError, StructureError
from gpujac.ops.batching import move_axis, stretch
from gpujac.transforms import flatten as fl
from gpujac.transforms.batch import VmapTrace


class _Closed:
    """The closed trace of a forward half whose residuals are functions or objects.

    What they hold belongs to that trace, so the backward half opens it again instead of a new one.
    """

    __slots__ = ("trace", "lock")

    def __init__(self, trace: VmapTrace) -> None:
        self.trace = trace
        self.lock = threading.RLock()


def _may_hold(leaf: Any) -> bool:
    """Whether a residual is neither an array nor plain data, so that traced arrays may be inside."""
    return not isinstance(leaf, (Tracer, str, bytes, type(trees.LEAF))) and not is_array(leaf)


class LanesCall(CustomCall):
    """`inner` over all lanes; operands and results are physical.

    `out_axes`, where the results have their lanes, is settled by the first call. The function, its forward
    half and its tangent rule may each leave them elsewhere; what is recorded of one may be done by another.
    """

    body = True

    def __init__(self, inner: CustomCall, trace: VmapTrace, axes: Sequence[int | None]) -> None:
        self.inner = inner
        self.axes = tuple(axes)
        self.size = trace.size
        self.replaced = trace  # whose masks of lanes that take part are those of a call
        self.lanes, self.start = trace.lanes, trace.start  # random draws of the rules follow the vmap's mode
        self.out_axes: tuple[int | None, ...] | None = None
        super().__init__(inner.name)
        self.reverse, self.pushes = inner.reverse, inner.pushes

    def lacks(self, mode: str) -> MissingRuleError:
        return self.inner.lacks(mode)

    def captured(self) -> MissingRuleError:
        return self.inner.captured()

    def run(self, *xs: Any) -> tuple:
        trace = self._opened()
        aside = follow(self.replaced, trace)
        try:
            return self._settled(trace, self.inner.run(*self._tracers(trace, xs, self.axes)), xs)
        finally:
            put_back(aside)
            trace.close()

    def record(self, trace: Any, operands: tuple) -> tuple:
        self.refuse_twice(trace, operands)
        return self.run(*operands)

    def refuse_twice(self, trace: Any, operands: tuple) -> None:
        self.inner.refuse_twice(trace, operands)

    def forward(self, xs: tuple) -> tuple[tuple, Any]:
        trace = self._opened()
        aside = follow(self.replaced, trace)
        try:
            ys, residuals = self.inner.forward(tuple(self._tracers(trace, xs, self.axes)))
            results = self._settled(trace, ys, xs)
            leaves, spec = trees.flatten(residuals)
            parts = [_physical(trace, r) for r in leaves]
        finally:
            put_back(aside)
            trace.close()
        closed = _Closed(trace) if any([_may_hold(r) for r in leaves]) else None
        return results, (spec, [value for value, _ in parts], [axis for _, axis in parts], closed)

    def backward(self, residuals: Any, cts: list, src: Sequence[Aval], dst: Sequence[Aval],
                 present: Sequence[int]) -> list:  # fmt: skip
        *_, closed = residuals
        if closed is None:
            return self._backward(self._opened(), residuals, cts, src, dst, present)
        with closed.lock:  # one thread at a time: there is one place among the open transforms
            closed.trace.reopen()
            return self._backward(closed.trace, residuals, cts, src, dst, present)

    def _backward(self, trace: VmapTrace, residuals: Any, cts: list, src: Sequence[Aval], dst: Sequence[Aval],
                  present: Sequence[int]) -> list:  # fmt: skip
        spec, values, places, _ = residuals
        out = self.out_axes
        assert out is not None  # residuals are those of a call
        aside = follow(self.replaced, trace)
        try:
            kept = trees.unflatten(spec, self._tracers(trace, values, places))
            found = self.inner.backward(
                kept, self._tracers(trace, cts, out), _one_lane(src, self.axes), _one_lane(dst, out), present
            )
            return [
                None if t is None else self._reduced(*_physical(trace, t), axis)
                for t, axis in zip(found, self.axes, strict=True)
            ]
        finally:
            put_back(aside)
            trace.close()

    def tangents(self, xs: tuple, ts: tuple) -> tuple[tuple, tuple]:
        trace = self._opened()
        aside = follow(self.replaced, trace)
        try:
            lanes, moving = self._tracers(trace, xs, self.axes), self._tracers(trace, ts, self.axes)
            ys, dys = self.inner.tangents(tuple(lanes), tuple(moving))
            results = self._settled(trace, ys, xs)
            assert self.out_axes is not None
            return results, tuple([
                None if t is None else self._placed(*_physical(trace, t), axis)
                for t, axis in zip(dys, self.out_axes, strict=True)
            ])  # fmt: skip
        finally:
            put_back(aside)
            trace.close()

    def batch_in(self, trace: Any, xs: tuple, axes: tuple) -> tuple[tuple, tuple]:
        return generated(self, trace, xs, axes)

    def _opened(self) -> VmapTrace:
        return VmapTrace(self.name, self.size, self.lanes, self.start)

    def _tracers(self, trace: VmapTrace, xs: Sequence[Any], axes: Sequence[int | None]) -> list:
        return [x if a is None or x is None else trace.tracer(x, a) for x, a in zip(xs, axes, strict=True)]

    def _settled(self, trace: VmapTrace, ys: tuple, xs: tuple) -> tuple:
        """Results, with their lanes where those of the first call have them.

        Those that carry tangents have some always: each lane has a cotangent of its own.
        """
        parts = [_physical(trace, y) for y in ys]
        if self.out_axes is None:
            self.out_axes = tuple([
                -1 - len(shape_of(y)) if axis is None and is_differentiable(dtype_of(y)) else axis for y, axis in parts
            ])  # fmt: skip
        return tuple([
            self._placed(y, axis, target, xs) for (y, axis), target in zip(parts, self.out_axes, strict=True)
        ])  # fmt: skip

    def _placed(self, value: Any, axis: int | None, target: int | None, others: Sequence[Any] = ()) -> Any:
        """A value with its lanes at `target`; `others` tell the library of a number."""
        if axis == target:
            return value
        if target is None:
            raise StructureError(
                f"{self.name}: vmap found a result that is the same in every lane, and a rule returned another one "
                "for each; the function and its rules must agree on what depends on a mapped argument"
            )
        if axis is None:
            value = stretch(_array(value, others), None, self.size)
            axis = -len(shape_of(value))
        return move_axis(value, axis, target)

    def _reduced(self, value: Any, axis: int | None, target: int | None) -> Any:
        """The cotangent of an operand: that of a shared one is the sum over the lanes."""
        if target is not None:
            return self._placed(value, axis, target)
        return value * self.size if axis is None else total(value, axis=axis)


def generated(call: CustomCall, trace: Any, xs: tuple, axes: tuple) -> tuple[tuple, tuple]:
    """Results and their mapped axes: the call over all lanes, with its rules for the traces below."""
    lanes = LanesCall(call, trace, axes)
    ys = lanes(*xs)
    assert lanes.out_axes is not None
    return ys, lanes.out_axes


def _array(x: Any, others: Sequence[Any]) -> Any:
    """A number as an array, of the library of the others."""
    if x.__class__ not in SCALARS:
        return x
    found = fl.array_of(x, list(others))
    return np.asarray(found) if found.__class__ in SCALARS else found


def _physical(trace: VmapTrace, y: Any) -> tuple[Any, int | None]:
    mine = y.__class__ is TracedArray and y.owner is trace
    return (y.value, y.aux) if mine else (y, None)


def _one_lane(avals: Sequence[Aval], axes: Sequence[int | None]) -> list[Aval]:
    """Shapes and dtypes without the mapped axes."""
    return [
        a if axis is None else Aval((*a.shape[:axis], *a.shape[len(a.shape) + axis + 1 :]), a.dtype)
        for a, axis in zip(avals, axes, strict=True)
    ]
