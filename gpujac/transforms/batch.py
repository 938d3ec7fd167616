"""The trace of vmap: every operation acts on all lanes at once."""

import warnings
from typing import Any

from gpujac import settings
from gpujac.array.shape import concatenate
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES
from gpujac.backends.host import SCALARS
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.op import General, Linear
from gpujac.core.trace import Trace, Tracer
from gpujac.errors import AxisError, ConcretizationError
from gpujac.ops import indexing as ix
from gpujac.ops.batching import aligned, as_shape, move_axis, stretch
from gpujac.ops.join import Stack, stack
from gpujac.transforms import flatten as fl
from gpujac.transforms.printing import describe_batched


class VmapTrace(Trace):
    """A trace whose tracers hold a physical array and its mapped axis, counted from the end.

    An axis of None means the same value in every lane. The mapped axis is left where it is.
    """

    __slots__ = ("size",)
    transform = "vmap"
    batches = True

    def __init__(self, origin: str, size: int) -> None:
        super().__init__(origin)
        self.size = size

    def tracer(self, value: Any, axis: int | None) -> TracedArray:
        """The tracer of a physical array."""
        shape = tuple(shape_of(value))
        if axis is not None:
            at = len(shape) + axis
            shape = shape[:at] + shape[at + 1 :]
        return TracedArray(self, value, axis, shape, dtype_of(value))

    def split(self, operands: tuple) -> tuple[list, list]:
        """Physical values and mapped axes."""
        if not self.alive:
            raise self.leaked()
        values, axes = [], []
        for x in operands:
            mine = x.__class__ is TracedArray and x.owner is self
            values.append(x.value if mine else x)
            axes.append(x.aux if mine else None)
        return values, axes

    def unary(self, op: Any, x: Any) -> Any:
        if not self.alive:
            raise self.leaked()
        value = x.value
        y = op.host(value) if value.__class__ in HOST_TYPES else op(value)
        return TracedArray(self, y, x.aux, x.shape, dtype_of(y))

    def binary(self, op: Any, x: Any, y: Any) -> Any:
        if x.__class__ is TracedArray and x.owner is self:
            same = y.__class__ is TracedArray and y.owner is self and y.aux == x.aux
            if same:
                y = y.value
            if same or y.__class__ in SCALARS:  # no axis has to move
                if not self.alive:
                    raise self.leaked()
                axis = x.aux
                if axis is not None:
                    x = x.value
                    both = x.__class__ in HOST_TYPES and y.__class__ in HOST_TYPES
                    out = op.host(x, y) if both else op(x, y)
                    shape = out.shape
                    at = len(shape) + axis
                    return TracedArray(self, out, axis, shape[:at] + shape[at + 1 :], out.dtype)
                return self.tracer(op(x.value, y), None)
        return self.pointwise(op, (x, y))

    def pointwise(self, op: Any, operands: tuple) -> Any:
        values, axes = self.split(operands)
        right = [-a - 1 for a in axes if a is not None]  # logical axes right of the mapped one
        if not right:
            return self.tracer(op(*values), None)
        k = right[0]
        ranks = [len(shape_of(x)) for x in operands]
        if len(right) > 1 and any(r != k for r in right):
            k = self._target(axes, ranks)
        y = op(*(aligned(v, a, r, k) for v, a, r in zip(values, axes, ranks, strict=True)))
        return self.tracer(y, -k - 1)

    def _target(self, axes: list, ranks: list) -> int:
        """The place of the mapped axis in the operand of the highest rank."""
        best = max((p for p, a in enumerate(axes) if a is not None), key=lambda p: ranks[p])
        return -axes[best] - 1

    def linear(self, op: Linear, x: Any) -> Any:
        if not self.alive:
            raise self.leaked()
        value, axis = x.value, x.aux
        if axis is None:
            return self.tracer(op(value), None)
        right = -axis - 1
        if right < len(op.src):  # the mapped axis stands among the op's own: move it left of them
            value = move_axis(value, axis, -len(value.shape))
            right = len(value.shape) - 1
        return self.tracer(op(value), -(right - len(op.src) + len(op.dst)) - 1)

    def joint(self, op: Any, operands: tuple) -> Any:
        values, axes = self.split(operands)
        if all(a is None for a in axes):
            return self.tracer(op(*values), None)
        if type(op) is Stack and op.src == () and all(a == -1 for a in axes):
            return self.tracer(stack((self.size,), -2, op.count)(*values), -1)
        ranks = [len(shape_of(x)) for x in operands]
        top = max(r - k for r, k in zip(ranks, op.ranks, strict=True))
        wide = [
            _padded(stretch(v, a, self.size), r - k, top)
            for v, a, r, k in zip(values, axes, ranks, op.ranks, strict=True)
        ]
        y = op(*wide)
        return self.tracer(y, -len(y.shape))

    def general(self, op: Any, operands: tuple) -> Any:
        values, axes = self.split(operands)
        if all(a is None for a in axes):
            return self.tracer(op(*values), None)
        if op.leading:
            (value,), (axis,) = values, axes
            y = op(move_axis(value, axis, -len(value.shape)))
            return self.tracer(y, -len(y.shape))
        if type(op).batch is General.batch and self.size and settings.get("missing_batch_rule") == "loop":
            y = _looped(op, self.size, values, axes)
            return self.tracer(y, -len(y.shape))
        y, axis = op.batch(self.size, tuple(values), tuple(axes))
        return self.tracer(y, axis)

    def call(self, op: Any, operands: tuple) -> tuple:
        values, axes = self.split(operands)
        if all(a is None for a in axes):
            return tuple([self.tracer(y, None) for y in op(*values)])
        ys, places = op.batch(self.size, tuple(values), tuple(axes))
        return tuple([self.tracer(y, a) for y, a in zip(ys, places, strict=True)])

    def concrete(self, x: Any) -> Any:
        if not self.alive:
            raise self.leaked()
        if x.aux is None:
            return x.value
        raise ConcretizationError(
            f"vmap of {self.origin}: Python asked for the value of a mapped array of shape {x.shape} "
            "(if, while, int(), .item(), a boolean mask as index), but there is one value per lane; "
            "write the branch as np.where(condition, a, b), or use vmap(..., method=\"loop\"), which "
            "runs the function once per lane on plain values"
        )

    def boxed(self, value: Any) -> Any:
        return self.tracer(value, None)

    def describe(self, x: Tracer) -> str:
        """The repr of a tracer."""
        return describe_batched(x, self.size)


def _looped(op: Any, size: int, values: list, axes: list) -> Any:
    """An op without a batch rule, lane by lane, the lanes in front; it says that this is slow."""
    warnings.warn(
        f"vmap: {op.name} has no batch rule, so it runs once per lane, which is slow; write its "
        'batch rule, or set settings.missing_batch_rule="raise" to have an error instead',
        RuntimeWarning,
        stacklevel=2,
    )
    lanes = [
        op(*(x if a is None else one_lane(x, a, lane) for x, a in zip(values, axes, strict=True)))
        for lane in range(size)
    ]
    return concatenate([with_axis(y, 0, values) for y in lanes], 0)


def _padded(value: Any, have: int, want: int) -> Any:
    """A batched operand with ones between the lanes and its leading axes, to reach `want`."""
    if have == want:
        return value
    shape = tuple(value.shape)
    return as_shape(value, (shape[0], *(1,) * (want - have), *shape[1:]))


def one_lane(x: Any, axis: int, lane: int) -> Any:
    src = tuple(x.shape[axis:])
    return ix.slice_of(src, (lane, *((0, n, 1) for n in src[1:])))(x)


def with_axis(y: Any, d: int, like: list) -> Any:
    y = fl.array_of(y, like)
    shape = tuple(y.shape)
    at = out_axis(d, len(shape) + 1, "")
    return as_shape(y, (*shape[:at], 1, *shape[at:]))


def out_axis(d: int, rank: int, path: str) -> int:
    if not -rank <= d < rank:
        raise AxisError(f"vmap: out_dims={d}, but output{path} has {rank} axes; use {-rank} to {rank - 1}")
    return d % rank
