"""Vectorization: a function of one example becomes a function of a batch."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from gpujac import ranges, trees
from gpujac.array.shape import concatenate
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import WRITABLE, is_array
from gpujac.core.aval import shape_of
from gpujac.core.op_ranges import watched
from gpujac.core.trace import Tracer
from gpujac.errors import (
    ArgumentError,
    ArgumentTypeError,
    AxisError,
    ShapeError,
    StructureError,
)
from gpujac.ops import indexing as ix
from gpujac.ops.batching import move_axis, stretch
from gpujac.transforms import flatten as fl
from gpujac.transforms.batch import VmapTrace, one_lane, out_axis, with_axis


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
        args = [x if d is None else one_lane(x, d, lane) for x, d in zip(self.leaves, self.dims, strict=True)]
        result = fl.call(self.f, trees.unflatten(self.spec, args), self.kwargs)
        leaves, spec = trees.flatten(result)
        dims = _out_prefix(self.out_dims, result)
        done = [
            fl.owned(y, [], False) if d is None else with_axis(y, d, self.leaves)
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


def _out_prefix(out_dims: Any, result: Any) -> list:
    if isinstance(out_dims, tuple) and len(out_dims) == 1 and not isinstance(result, (tuple, list)):
        out_dims = out_dims[0]  # torch's rule: (d,) is fine for one output
    return trees.broadcast_prefix(out_dims, result, "vmap: out_dims")


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
    return move_axis(value, axis, out_axis(d, rank, path) - rank)
