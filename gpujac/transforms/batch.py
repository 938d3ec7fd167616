"""The trace of vmap: every operation acts on all lanes at once."""

from collections.abc import Callable
from typing import Any

from numpy import ndarray

from gpujac import settings
from gpujac.array.shape import concatenate
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.backends.host import SCALARS
from gpujac.core.aval import Aval, dtype_of, shape_of
from gpujac.core.op import General, Linear
from gpujac.core.source import asked_at
from gpujac.core.taking import put_aside, put_back
from gpujac.core.trace import Trace, Tracer, only_lanes, rest, wake
from gpujac.errors import AxisError, ConcretizationError, MissingRuleError
from gpujac.ops import indexing as ix
from gpujac.ops.batching import aligned, as_shape, move_axis, stretch
from gpujac.ops.join import Stack, stack
from gpujac.transforms import flatten as fl
from gpujac.transforms.lanes import Lanes, warn_slow
from gpujac.transforms.printing import describe


class VmapTrace(Trace):
    """A trace whose tracers hold a physical array and its mapped axis, counted from the end.

    An axis of None means the same value in every lane. The mapped axis is left where it is.
    """

    __slots__ = ("size", "lanes", "start")
    transform = "vmap"
    batches = True

    def __init__(self, origin: str, size: int, lanes: Lanes | None = None, start: int = 0) -> None:
        super().__init__(origin)
        self.size = size
        self.lanes = lanes  # the call of vmap that this is a pass of; None: rows of a sweep
        self.start = start  # its first lane among those of the call

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
            raise self.leaked(*operands)
        values, axes = [], []
        for x in operands:
            mine = x.__class__ is TracedArray and x.owner is self
            values.append(x.value if mine else x)
            axes.append(x.aux if mine else None)
        return values, axes

    def unary(self, op: Any, x: Any) -> Any:
        if not self.alive:
            raise self.leaked(x)
        value = x.value
        if value.__class__ is ndarray:
            y = op.host(value)
            return TracedArray(self, y, x.aux, x.shape, y.dtype)
        y = op.host(value) if value.__class__ in HOST_TYPES else op(value)
        return TracedArray(self, y, x.aux, x.shape, dtype_of(y))

    def binary(self, op: Any, x: Any, y: Any) -> Any:
        a, b = x, y
        if x.__class__ is TracedArray and x.owner is self:
            axis, a = x.aux, x.value
            shape: Any = x.shape
            if y.__class__ is TracedArray and y.owner is self:
                if y.aux != axis:
                    return self.pointwise(op, (x, y))
                b = y.value
                if y.shape != shape:
                    shape = None
            elif y.__class__ not in SCALARS:
                if axis is None or y.__class__ is not ndarray or y.ndim >= -axis:
                    return self.pointwise(op, (x, y))
                shape = None
        elif x.__class__ in SCALARS:
            axis, shape, b = y.aux, y.shape, y.value
        else:
            return self.pointwise(op, (x, y))
        if axis is None:
            return self.pointwise(op, (x, y))
        # here no axis has to move
        if not self.alive:
            raise self.leaked(x, y)
        out = op.host(a, b) if a.__class__ in HOST_TYPES and b.__class__ in HOST_TYPES else op(a, b)
        if shape is None:
            at = len(out.shape) + axis
            shape = out.shape[:at] + out.shape[at + 1 :]
        return TracedArray(self, out, axis, shape, out.dtype)

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
            raise self.leaked(x)
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
        arrays = [v for v in values if v.__class__ not in SCALARS]
        values = [fl.array_of(v, arrays) for v in values]
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
        if type(op).batch is not General.batch:
            found = op.batch(self.size, tuple(values), tuple(axes))
            if found is not NotImplemented:
                return self.tracer(*found)
        return self.without_rule(op, operands, values, axes)

    def call(self, op: Any, operands: tuple) -> tuple:
        values, axes = self.split(operands)
        if all(a is None for a in axes):
            aside = put_aside(self.level)
            try:
                return self.passed(op(*values))
            finally:
                put_back(aside)
        if op.body and only_lanes(values):  # ordinary code, which may read captured lanes too
            return op.run(*operands)
        rest(self)
        try:
            found = op.batch_in(self, tuple(values), tuple(axes))
        finally:
            wake()
        if found is NotImplemented:
            return self.without_rule(op, operands, values, axes)
        ys, places = found
        op.check_captured(self.level, ys)
        return tuple([self.tracer(y, a) for y, a in zip(ys, places, strict=True)])

    def without_rule(self, op: Any, operands: tuple, values: list, axes: list) -> Any:
        """The result (a tuple where the op returns one) by the op's decomposition, else lane by lane."""
        found = op.decomposed(operands)
        if found is not NotImplemented:
            return found
        if settings.get("missing_batch_rule") == "raise":
            raise op.missing("batch")
        if self.lanes is None:
            warn_slow(self.origin, (op.name,))
        else:
            self.lanes.was_slow(op.name)
        found = looped(op, self.size, values, axes)
        if isinstance(found, tuple):
            return tuple([self.tracer(y, -len(shape_of(y))) for y in found])
        return self.tracer(found, -len(shape_of(found)))

    def concrete(self, x: Any) -> Any:
        if not self.alive:
            raise self.leaked(x)
        if x.aux is None:
            return x.value
        raise ConcretizationError(
            f"vmap of {self.origin}: Python asked for the value of a mapped array of shape {x.shape} "
            "(if, while, int(), .item(), a bound of a slice or of range, a boolean mask as index), but there is "
            "one value per lane; write a branch as gpujac.cond or np.where(condition, a, b), a loop as "
            "gpujac.while_loop or gpujac.fori_loop, a slice as gpujac.control.dynamic_slice, or use "
            "vmap(..., method=\"loop\"), which runs the function once per lane on plain values" + asked_at()
        )

    def boxed(self, value: Any) -> Any:
        return self.tracer(value, None)

    def describe(self, x: Tracer) -> str:
        """The repr of a tracer."""
        return describe(x)


def looped(op: Any, size: int, values: list, axes: list) -> Any:
    """The results of an op (one, or a tuple) called once per lane, the lanes in front."""
    lanes = [
        op(*(x if a is None else one_lane(x, a, lane) for x, a in zip(values, axes, strict=True)))
        for lane in range(size)
    ]
    if not lanes:
        return _no_lanes(op, values, axes)
    if not isinstance(lanes[0], tuple):
        return concatenate([with_axis(y, 0, values) for y in lanes], 0)
    return tuple([concatenate([with_axis(y, 0, values) for y in ys], 0) for ys in zip(*lanes, strict=True)])


def _no_lanes(op: Any, values: list, axes: list) -> Any:
    """The results of no lane at all: what the op says about their shapes."""
    avals = []
    for x, a in zip(values, axes, strict=True):
        shape = tuple(shape_of(x))
        avals.append(Aval(shape if a is None else shape[:a] + shape[len(shape) + a + 1 :], dtype_of(x)))
    try:
        found = op.infer(*avals)
    except MissingRuleError as error:
        raise MissingRuleError(
            f"vmap over no lanes: {op.name} has neither a batch rule nor one (infer) that tells the shape of a "
            "result that is never computed; write one of them, or do not map an axis of size 0"
        ) from error
    like = fl.like_among(values)
    if isinstance(found, Aval):
        return backend_of(like).zeros((0, *found.shape), found.dtype, like)
    return tuple([backend_of(like).zeros((0, *aval.shape), aval.dtype, like) for aval in found])


def _padded(value: Any, have: int, want: int) -> Any:
    """A batched operand with ones between the lanes and its leading axes, to reach `want`."""
    if have == want:
        return value
    shape = tuple(value.shape)
    return as_shape(value, (shape[0], *(1,) * (want - have), *shape[1:]))


def one_lane(x: Any, axis: int, lane: int) -> Any:
    """The entry `lane` of `x` along `axis` (from the end)."""
    src = tuple(x.shape[axis:])
    return ix.slice_of(src, (lane, *((0, n, 1) for n in src[1:])))(x)


def with_axis(y: Any, d: int, like: list, path: Callable[[], str] = str) -> Any:
    """`y` with an axis of length 1 at `d`."""
    y = fl.array_of(y, like)
    shape = tuple(y.shape)
    at = out_axis(d, len(shape) + 1, path)
    return as_shape(y, (*shape[:at], 1, *shape[at:]))


def out_axis(d: int, rank: int, path: str | Callable[[], str]) -> int:
    """The axis `d` of an output of this rank, counted from the front; `path` (or what it gives) is for messages."""
    if not -rank <= d < rank:
        path = path if isinstance(path, str) else path()
        raise AxisError(f"vmap: out_dims={d}, but output{path} has {rank} axes; use {-rank} to {rank - 1}")
    return d % rank
