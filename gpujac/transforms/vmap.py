"""Vectorization: a function of one example becomes a function of a batch."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from gpujac import ranges, settings, trees
from gpujac.array.shape import concatenate
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES, WRITABLE, is_array
from gpujac.backends.host import SCALARS
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.op import General, Linear
from gpujac.core.op_ranges import watched
from gpujac.core.trace import Trace, Tracer
from gpujac.errors import (
    ArgumentError,
    ArgumentTypeError,
    AxisError,
    ConcretizationError,
    ShapeError,
    StructureError,
)
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
        op(*(x if a is None else _one_lane(x, a, lane) for x, a in zip(values, axes, strict=True)))
        for lane in range(size)
    ]
    return concatenate([_with_axis(y, 0, values) for y in lanes], 0)


def _padded(value: Any, have: int, want: int) -> Any:
    """A batched operand with ones between the lanes and its leading axes, to reach `want`."""
    if have == want:
        return value
    shape = tuple(value.shape)
    return as_shape(value, (shape[0], *(1,) * (want - have), *shape[1:]))


def vmap(f: Callable, in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *,
         chunk_size: int | None = None, axis_size: int | None = None, method: str = "batch") -> Callable:  # fmt: skip
    """`f` applied to every slice of its arguments at once.

    Args:
        f: callable of one example (pytrees of arrays).
        in_dims: axis to map, or None, for each positional argument: an int, or a tuple whose
            entries are ints, None or prefixes of the argument's pytree (dicts match by key).
        out_dims: where the mapped axis goes in each output (None: the output is not mapped).
        randomness: "error"; the other modes come with gpujac.random.
        chunk_size: lanes per pass (int ≥ 1), or None for one pass.
        axis_size: number of lanes, needed only if nothing is mapped.
        method: "batch" runs `f` once on batched values; "loop" runs it once per lane, on plain
            values, so that it may branch on them.

    Returns:
        A function of batched arguments; keyword arguments pass through unmapped.

    Raises:
        AxisError, ShapeError, StructureError: dims that do not fit the arguments.
        ConcretizationError: `f` branches on a mapped value.

    Cost: one run of `f` per chunk, each op over all lanes of the chunk.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.vmap(lambda x, y: x @ y, in_dims=(0, None))(np.eye(2), np.array([3.0, 4.0]))
        array([3., 4.])
    """
    fl.check_callable("vmap", f)
    _check_options(in_dims, randomness, chunk_size, axis_size, method)

    @wraps(f, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def batched(*args: Any, **kwargs: Any) -> Any:
        call = _Call(f, args, kwargs, in_dims, out_dims, axis_size)
        token = ranges.push("vmap", ranges.TRANSFORM, call.size)
        try:
            step = 1 if method == "loop" else chunk_size
            if method == "loop" or (step is not None and step < call.size):
                return call.chunked(step or 1, method == "loop")
            return call.once(0, call.size)
        finally:
            ranges.pop(token)

    return batched


def _check_options(in_dims: Any, randomness: Any, chunk_size: Any, axis_size: Any, method: Any) -> None:
    if isinstance(in_dims, bool) or not (in_dims is None or isinstance(in_dims, (int, np.integer, tuple, list))):
        raise ArgumentTypeError(
            f"vmap: in_dims={in_dims!r} is a {type(in_dims).__name__}; give an int or a tuple with an "
            "entry per argument"
        )
    if randomness != "error":
        options = ("error", "same", "different")
        hint = "only 'error' is available yet" if randomness in options else f"choose from {options}"
        raise ArgumentError(f"vmap: randomness={randomness!r}: {hint}")
    for name, value in (("chunk_size", chunk_size), ("axis_size", axis_size)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise ArgumentTypeError(f"vmap: {name}={value!r} is no integer; give an int or None")
        if value < (1 if name == "chunk_size" else 0):
            low = 1 if name == "chunk_size" else 0
            raise ArgumentError(f"vmap: {name}={value} must be at least {low}, or None")
    if method not in ("batch", "loop"):
        raise ArgumentError(f"vmap: method={method!r} is neither 'batch' nor 'loop'")


class _Call:
    """One call of a vmapped function: checked leaves and dims."""

    def __init__(self, f: Any, args: tuple, kwargs: dict, in_dims: Any, out_dims: Any,
                 axis_size: int | None) -> None:
        self.f, self.kwargs, self.out_dims = f, kwargs, out_dims
        self.leaves, self.spec = trees.flatten(args)
        fl.check_devices(self.leaves)
        dims = list(in_dims) if isinstance(in_dims, list) else in_dims
        prefix = tuple(dims) if isinstance(dims, list) else dims
        self.dims = trees.broadcast_prefix(prefix, args, "vmap: in_dims") if args else []
        paths = None
        sizes: dict[int, str] = {}
        for i, (x, d) in enumerate(zip(self.leaves, self.dims, strict=True)):
            if d is None:
                continue
            paths = paths or trees.flatten_paths(args)
            self.dims[i] = axis = _in_axis(x, d, f"args{paths[i]}")
            sizes.setdefault(x.shape[axis], f"args{paths[i]}")
        self.size = self._lanes(sizes, axis_size)

    def _lanes(self, sizes: dict[int, str], axis_size: int | None) -> int:
        if len(sizes) > 1:
            found = ", ".join(f"{n} in {path}" for n, path in sizes.items())
            raise ShapeError(f"vmap: mapped axes must have the same size, found {found}")
        if sizes:
            (size,) = sizes
            if axis_size is not None and axis_size != size:
                raise ShapeError(f"vmap: axis_size={axis_size}, but the mapped axes have size {size}")
            return size
        if axis_size is None:
            raise ArgumentError(
                "vmap: nothing is mapped: give at least one array with an integer in_dims, or axis_size"
            )
        return axis_size

    def once(self, start: int, stop: int) -> Any:
        """One pass over the lanes start to stop."""
        trace = watched(VmapTrace)(fl.name_of(self.f), stop - start)
        whole = (start, stop) == (0, self.size)
        try:
            tracers = [
                _unmapped(trace, x) if d is None else trace.tracer(x if whole else _lanes(x, d, start, stop), d)
                for x, d in zip(self.leaves, self.dims, strict=True)
            ]
            result = fl.call(self.f, trees.unflatten(self.spec, tracers), self.kwargs)
            return self._finish(result, trace)
        finally:
            trace.close()

    def _finish(self, result: Any, trace: VmapTrace) -> Any:
        leaves, spec = trees.flatten(result)
        dims = _out_prefix(self.out_dims, result)
        paths = trees.spec_paths(spec)
        done = [_out(y, d, trace, self.leaves, p) for y, d, p in zip(leaves, dims, paths, strict=True)]
        return trees.unflatten(spec, [fl.owned(y, self.leaves) for y in done])

    def chunked(self, step: int, loop: bool) -> Any:
        """Several passes whose results are joined along the mapped axis."""
        if self.size == 0:
            return self.once(0, 0)
        parts: list = []
        for index, start in enumerate(range(0, self.size, step)):
            token = ranges.push("chunk", ranges.CHUNK, index)
            try:
                stop = min(start + step, self.size)
                parts.append(self._lane(start) if loop else self.once(start, stop))
            finally:
                ranges.pop(token)
        dims = _out_prefix(self.out_dims, parts[0])
        flats = [trees.flatten(p)[0] for p in parts]
        spec = trees.flatten(parts[0])[1]
        joined = []
        for i, d in enumerate(dims):
            pieces = [flat[i] for flat in flats]
            joined.append(pieces[0] if d is None else concatenate(pieces, d))
        return trees.unflatten(spec, joined)

    def _lane(self, lane: int) -> Any:
        """One lane on plain values, with the mapped axis put back into its outputs."""
        args = [x if d is None else _one_lane(x, d, lane) for x, d in zip(self.leaves, self.dims, strict=True)]
        result = fl.call(self.f, trees.unflatten(self.spec, args), self.kwargs)
        leaves, spec = trees.flatten(result)
        dims = _out_prefix(self.out_dims, result)
        done = [
            fl.owned(y, [], False) if d is None else _with_axis(y, d, self.leaves)
            for y, d in zip(leaves, dims, strict=True)
        ]
        return trees.unflatten(spec, done)


def _in_axis(x: Any, d: int, path: str) -> int:
    """The mapped axis of one leaf, counted from the end."""
    if not isinstance(x, Tracer) and not is_array(x):
        raise ArgumentTypeError(
            f"vmap: in_dims={d}, but leaf {path} is a {type(x).__name__}, not an array; use None to "
            "leave it unmapped"
        )
    rank = len(shape_of(x))
    if not -rank <= d < rank:
        valid = f"use {-rank} to {rank - 1}, or None to leave it unmapped" if rank else "use None"
        raise AxisError(f"vmap: in_dims={d}, but leaf {path} has shape {tuple(shape_of(x))}; {valid}")
    return d - rank if d >= 0 else d


def _unmapped(trace: VmapTrace, x: Any) -> Any:
    """An argument without a mapped axis; plain arrays are watched, so that a mapped index reads them."""
    if type(x) in WRITABLE and not isinstance(x, Tracer) and x.ndim and x.dtype.kind in "biufc":
        return trace.tracer(x, None)
    return x


def _key(x: Any, axis: int, start: int, stop: int) -> tuple[tuple, tuple]:
    src = tuple(x.shape[axis:])
    return src, ((start, stop, 1), *((0, n, 1) for n in src[1:]))


def _lanes(x: Any, axis: int, start: int, stop: int) -> Any:
    return ix.slice_of(*_key(x, axis, start, stop))(x)


def _one_lane(x: Any, axis: int, lane: int) -> Any:
    src = tuple(x.shape[axis:])
    return ix.slice_of(src, (lane, *((0, n, 1) for n in src[1:])))(x)


def _with_axis(y: Any, d: int, like: list) -> Any:
    y = fl.array_of(y, like)
    shape = tuple(y.shape)
    at = _out_axis(d, len(shape) + 1, "")
    return as_shape(y, (*shape[:at], 1, *shape[at:]))


def _out_prefix(out_dims: Any, result: Any) -> list:
    if isinstance(out_dims, tuple) and len(out_dims) == 1 and not isinstance(result, (tuple, list)):
        out_dims = out_dims[0]  # torch's rule: (d,) is fine for one output
    return trees.broadcast_prefix(out_dims, result, "vmap: out_dims")


def _out_axis(d: int, rank: int, path: str) -> int:
    if not -rank <= d < rank:
        raise AxisError(f"vmap: out_dims={d}, but output{path} has {rank} axes; use {-rank} to {rank - 1}")
    return d % rank


def _out(y: Any, d: Any, trace: VmapTrace, like: list, path: str) -> Any:
    """One output with its mapped axis where out_dims wants it."""
    mine = isinstance(y, TracedArray) and y.owner is trace
    value, axis = (y.value, y.aux) if mine else (y, None)
    if not mine:  # a constant of the function's
        value = fl.owned(value, [], False)
    if d is None:
        if axis is not None:
            raise StructureError(
                f"vmap: out_dims=None for output{path}, but it differs between lanes; give an axis"
            )
        return value
    if not isinstance(value, Tracer) and not is_array(value):
        raise ArgumentTypeError(
            f"vmap: output{path} is a {type(value).__name__}, not an array; use out_dims=None for it"
        )
    if axis is None:
        value = fl.array_of(value, like)
        value, axis = stretch(value, None, trace.size), -1 - len(shape_of(value))
    rank = len(value.shape)
    return move_axis(value, axis, _out_axis(d, rank, path) - rank)
