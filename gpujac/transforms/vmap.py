"""Vectorization: a function of one example becomes a function of a batch."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np

from gpujac import ranges, trees
from gpujac.array.shape import concatenate
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import WRITABLE, is_array
from gpujac.core.aval import is_one_of, shape_of
from gpujac.core.finite import on_host
from gpujac.core.op_ranges import watched
from gpujac.core.trace import Tracer, only_lanes, payload
from gpujac.errors import (
    ArgumentError,
    ArgumentTypeError,
    AxisError,
    ConcretizationError,
    ShapeError,
    StructureError,
)
from gpujac.ops import indexing as ix
from gpujac.ops.batching import move_axis, stretch
from gpujac.transforms import flatten as fl
from gpujac.transforms.batch import VmapTrace, one_lane, out_axis, with_axis
from gpujac.transforms.halving import in_chunks
from gpujac.transforms.lanes import MODES, Lanes, LaneTrace


def vmap(f: Callable, in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *,
         chunk_size: int | None = None, axis_size: int | None = None, method: str = "batch") -> Callable:  # fmt: skip
    """`f` applied to every slice of its arguments at once.

    Args:
        f: callable of one example (pytrees of arrays).
        in_dims: axis to map, or None, for each positional argument: an int, or a tuple whose
            entries are ints, None or prefixes of the argument's pytree (dicts match by key). Leaves
            that are no arrays need None. None alone needs `axis_size`.
        out_dims: where the mapped axis goes in each output: an int, or a prefix of the output's
            pytree; None hands an output through that is the same in all lanes (any object).
        randomness: what gpujac.random does with a key, or a wrapped generator, that is not mapped:
            "error", one draw for all lanes ("same") or one per lane ("different").
        chunk_size: lanes per pass (int ≥ 1), or None for one pass.
        axis_size: number of lanes, needed only if nothing is mapped.
        method: "batch" runs `f` once on batched values; "loop" runs it once per lane, on plain
            values, so that it may branch on them.

    Returns:
        A function of batched arguments; keyword arguments pass through unmapped. Its arrays are new.

    Raises:
        AxisError, ShapeError, StructureError, ArgumentTypeError: dims that do not fit the
            arguments or the outputs.
        ArgumentError: an option out of its set; nothing to map and no `axis_size`.
        ConcretizationError: `f` branches on a mapped value.

    Cost: one run of `f` per chunk, each op over all lanes of the chunk.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.vmap(lambda x, y: x @ y, in_dims=(0, None))(np.eye(2), np.array([3.0, 4.0]))
        array([3., 4.])
    """
    fl.check_callable("vmap", f)
    _check_dims(in_dims, out_dims)
    _check_options(randomness, chunk_size, axis_size, method)

    @wraps(f, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def batched(*args: Any, **kwargs: Any) -> Any:
        call = _Call(f, args, kwargs, in_dims, out_dims, axis_size)
        token = ranges.push("vmap", ranges.TRANSFORM, call.size)
        try:
            return call.run(randomness, chunk_size, method == "loop")
        finally:
            ranges.pop(token)

    return batched


def _check_dims(in_dims: Any, out_dims: Any) -> None:
    if isinstance(in_dims, bool) or not (in_dims is None or isinstance(in_dims, (int, np.integer, tuple))):
        raise ArgumentTypeError(
            f"vmap: in_dims={in_dims!r} is a {type(in_dims).__name__}; give an int or a tuple with an "
            "entry per argument"
        )
    for name, dims in (("in_dims", in_dims), ("out_dims", out_dims)):
        leaves, spec = trees.flatten_none(dims)
        for d, path in zip(leaves, trees.spec_paths(spec), strict=True):
            if d is not None and (isinstance(d, bool) or not isinstance(d, (int, np.integer))):
                raise ArgumentTypeError(
                    f"vmap: {name}{path}={d!r} has type {type(d).__name__}; use an int, or None, or a "
                    "container of such of the same kind as what it belongs to"
                )


def _check_options(randomness: Any, chunk_size: Any, axis_size: Any, method: Any) -> None:
    if randomness not in MODES:
        raise ArgumentError(f"vmap: randomness={randomness!r}: choose from {MODES}")
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


_TOO_LARGE = object()


class _Call:
    """One call of a vmapped function: checked leaves and dims."""

    def __init__(self, f: Any, args: tuple, kwargs: dict, in_dims: Any, out_dims: Any,
                 axis_size: int | None) -> None:
        self.f, self.kwargs, self.out_dims = f, kwargs, out_dims
        self.leaves, self.spec = trees.flatten(args)
        fl.check_devices(self.leaves)
        self.dims = trees.broadcast_prefix(in_dims, args, "vmap: in_dims") if args else []
        sizes: dict[int, Callable[[], str]] = {}
        for i, (x, d) in enumerate(zip(self.leaves, self.dims, strict=True)):
            if d is None:
                continue
            path = partial(_path, self.spec, i)  # a message asks for it, a call that works does not
            self.dims[i] = axis = _in_axis(x, d, path)
            sizes.setdefault(x.shape[axis], path)
        self.size = self._lanes(sizes, axis_size)

    def _lanes(self, sizes: dict[int, Callable[[], str]], axis_size: int | None) -> int:
        if len(sizes) > 1:
            found = ", ".join(f"{n} in args{path()}" for n, path in sizes.items())
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

    def run(self, randomness: str, chunk_size: int | None, loop: bool) -> Any:
        """All lanes, in one pass or in several, and one warning for the ops that were slow."""
        step = 1 if loop else chunk_size
        whole = self.size == 0 or (not loop and (step is None or step >= self.size))
        passes = 1 if whole else -(-self.size // (step or 1))
        lanes = Lanes(fl.name_of(self.f), self.size, randomness, passes)
        if loop and whole:
            result = self._without_lanes(lanes)
        else:
            result = self._at_once(lanes, step) if whole else self.chunked(lanes, step or 1, loop)
        if result is _TOO_LARGE:
            lanes = Lanes(lanes.origin, self.size, randomness, 2)
            result = self.chunked(lanes, self.size // 2, False, self.size)
        lanes.end()
        return result

    def _without_lanes(self, lanes: Lanes) -> Any:
        """method="loop" over no lanes: the function runs on a batch of none, for the shapes of its outputs."""
        try:
            return self.once(lanes, 0, 0)
        except ConcretizationError as error:
            raise ConcretizationError(
                f'vmap of {lanes.origin}: with method="loop" and 0 lanes there is no value that the function could '
                "branch on or read; it is run on an empty batch, to learn the shapes of its outputs. Do not call it "
                "without lanes, or write its branches with gpujac.cond or np.where"
            ) from error

    def _at_once(self, lanes: Lanes, step: int | None) -> Any:
        """All lanes in one pass; _TOO_LARGE where memory ran out and halves of them may still fit.

        That takes leave for chunks, and no random number drawn that a second pass would miss.
        """
        try:
            return self.once(lanes, 0, self.size)
        except MemoryError:
            if step is None or self.size < 2 or lanes.tape.untaped:
                raise
        return _TOO_LARGE

    def once(self, lanes: Lanes, start: int, stop: int) -> Any:
        """One pass over the lanes start to stop."""
        code = getattr(self.f, "__code__", None)
        whole = (start, stop) == (0, self.size)
        trace = watched(VmapTrace)(lanes.origin, stop - start, lanes, start)  # nothing may raise before the `try`
        try:
            trace.code = trace.source = code
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
        done = [
            _out(y, d, trace, self.leaves, partial(_path, spec, i))
            for i, (y, d) in enumerate(zip(leaves, dims, strict=True))
        ]
        return trees.unflatten(spec, [fl.owned(y, self.leaves) for y in done])

    def chunked(self, lanes: Lanes, step: int, loop: bool, tried: int | None = None) -> Any:
        """Several passes whose results are joined along the mapped axis; `tried` lanes at once were too many."""
        parts: list = []

        def work(index: int, start: int, stop: int) -> None:
            token = ranges.push("chunk", ranges.CHUNK, index)
            try:
                lanes.begin()
                parts.append(self._lane(lanes, start) if loop else self.once(lanes, start, stop))
            finally:
                ranges.pop(token)

        in_chunks(self.size, step, work, lambda *_: None, lambda: "one lane alone does not fit", first=tried)
        dims = _out_prefix(self.out_dims, parts[0])
        first, spec = trees.flatten(parts[0])
        flats = [first, *(trees.match(spec, part, "vmap: the output of a later lane") for part in parts[1:])]
        joined = [
            _agreed(pieces, loop, partial(_path, spec, i)) if d is None else concatenate(pieces, d)
            for i, (d, pieces) in enumerate(zip(dims, zip(*flats), strict=True))
        ]
        return trees.unflatten(spec, joined)

    def _lane(self, lanes: Lanes, lane: int) -> Any:
        """One lane on plain values, with the mapped axis put back into its outputs."""
        args = [x if d is None else _own_lane(x, d, lane) for x, d in zip(self.leaves, self.dims, strict=True)]
        own = [x for x, d in zip(args, self.dims, strict=True) if d is not None]
        trace = LaneTrace(lanes, lane, [x for x in own if is_one_of("iu", x)])  # keys, numbers of keys
        try:
            result = fl.call(self.f, trees.unflatten(self.spec, args), self.kwargs)
        finally:
            trace.close()
        leaves, spec = trees.flatten(result)
        done = []
        for i, (y, d) in enumerate(zip(leaves, _out_prefix(self.out_dims, result), strict=True)):
            path = partial(_path, spec, i)
            if d is not None:
                _check_array(y, path)
            done.append(fl.owned(y, [], False) if d is None else with_axis(y, d, self.leaves, path))
        return trees.unflatten(spec, done)


def _path(spec: Any, leaf: int) -> str:
    """Where a leaf stands in its tree, for messages."""
    return trees.spec_paths(spec)[leaf]


def _in_axis(x: Any, d: int, path: Callable[[], str]) -> int:
    """The mapped axis of one leaf, counted from the end."""
    if not isinstance(x, Tracer) and not is_array(x):
        raise ArgumentTypeError(
            f"vmap: in_dims={d}, but leaf args{path()} is a {type(x).__name__}, not an array; use None to "
            "leave it unmapped"
        )
    rank = len(shape_of(x))
    if not -rank <= d < rank:
        valid = f"use {-rank} to {rank - 1}, or None to leave it unmapped" if rank else "use None"
        raise AxisError(f"vmap: in_dims={d}, but leaf args{path()} has shape {tuple(shape_of(x))}; {valid}")
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


def _own_lane(x: Any, axis: int, lane: int) -> Any:
    """A lane as plain values of its own: writes reach no caller, and a key has memory that no other has."""
    part = one_lane(x, axis, lane)
    plain = isinstance(part, Tracer) or is_array(part)  # an entry of an array of objects may be anything
    return fl.private(part) if plain and not isinstance(part, np.generic) else part


def _out_prefix(out_dims: Any, result: Any) -> list:
    if isinstance(out_dims, tuple) and len(out_dims) == 1 and not isinstance(result, (tuple, list)):
        out_dims = out_dims[0]  # torch's rule: (d,) is fine for one output
    return trees.broadcast_prefix(out_dims, result, "vmap: out_dims")


def _out(y: Any, d: Any, trace: VmapTrace, like: list, path: Callable[[], str]) -> Any:
    """One output with its mapped axis where out_dims wants it."""
    mine = isinstance(y, TracedArray) and y.owner is trace
    value, axis = (y.value, y.aux) if mine else (y, None)
    if not mine:  # a constant of the function's
        value = fl.owned(value, [], False)
    if d is None:
        if axis is not None:
            raise _differs(path)
        return value
    _check_array(value, path)
    if axis is None:
        value = fl.array_of(value, like)
        value, axis = stretch(value, None, trace.size), -1 - len(shape_of(value))
    rank = len(value.shape)
    return move_axis(value, axis, out_axis(d, rank, path) - rank)


def _agreed(pieces: tuple, loop: bool, path: Callable[[], str]) -> Any:
    """One output under out_dims=None of passes one after the other; numbers that differ have no place there.

    The passes of a loop know their lane: equal values of theirs may have different derivatives.
    """
    first = pieces[0]
    if all([y is first for y in pieces]):
        return first
    if loop and not only_lanes(pieces):
        raise StructureError(
            f"vmap: out_dims=None for output{path()}, which each lane computes anew from differentiated values: "
            'method="loop" cannot tell whether lanes agree in their derivatives, too; give an axis, or compute it '
            "outside of the function"
        )
    if isinstance(first, (bool, int, float, complex)) or is_array(payload(first)):
        have = on_host(payload(first))
        for other in map(payload, pieces[1:]):
            if type(other) is not type(payload(first)):
                raise _differs(path)
            found = on_host(other)
            if found.shape != have.shape or not ((found == have) | ((found != found) & (have != have))).all():
                raise _differs(path)
    return first


def _differs(path: Callable[[], str]) -> StructureError:
    return StructureError(f"vmap: out_dims=None for output{path()}, but it differs between lanes; give an axis")


def _check_array(y: Any, path: Callable[[], str]) -> None:
    """Raise for an output that cannot have a mapped axis."""
    if not isinstance(y, Tracer) and not is_array(y):
        raise ArgumentTypeError(
            f"vmap: output{path()} is a {type(y).__name__}, not an array; use out_dims=None for it"
        )
