"""Linear functions that a program holds as functions: applying one to tangents or cotangents, rows included."""

from collections.abc import Callable
from typing import Any

from numpy import ndarray

from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES
from gpujac.core.aval import Aval, Shape, shape_of
from gpujac.core.trace import top_trace
from gpujac.ops.batching import move_axis, stretch
from gpujac.transforms.batch import VmapTrace
from gpujac.transforms.record import RecordTrace


class HeldMap:
    """A linear function of several arrays with several results, and its transpose.

    `forward` takes a list with one tangent for each of `src` and returns one for each of `dst`;
    `backward` takes cotangents of `dst` and returns those of `src`. None is a zero everywhere.
    Both see the arrays without rows: what is swept in rows is mapped over them.
    """

    __slots__ = ("name", "forward", "backward", "src", "dst")

    def __init__(self, name: str, forward: Callable[[list], list], backward: Callable[[list], list],
                 src: tuple[Aval, ...], dst: tuple[Aval, ...]) -> None:  # fmt: skip
        self.name = name
        self.forward = forward
        self.backward = backward
        self.src = src
        self.dst = dst

    @property
    def transposed(self) -> "HeldMap":
        """The map of cotangents."""
        return HeldMap(self.name, self.backward, self.forward, self.dst, self.src)

    def restricted(self, present: tuple[int, ...]) -> "HeldMap":
        """The map of the tangents at these positions alone, the others zero."""
        count = len(self.src)

        def forward(ts: list) -> list:
            given = dict(zip(present, ts, strict=True))
            return self.forward([given.get(p) for p in range(count)])

        def backward(cts: list) -> list:
            found = self.backward(cts)
            return [found[p] for p in present]

        return HeldMap(self.name, forward, backward, tuple([self.src[p] for p in present]), self.dst)


def apply_held(map: HeldMap, ts: list) -> list:
    """The results of a held map; arrays may have rows (one more axis in front). None is a zero."""
    present = tuple([p for p, t in enumerate(ts) if t is not None])
    if not present:
        return [None] * len(map.dst)
    top = top_trace(tuple([ts[p] for p in present]))
    if isinstance(top, RecordTrace):
        part = map if len(present) == len(ts) else map.restricted(present)
        return top.held(part, [ts[p] for p in present])
    return over_rows(map.forward, ts, [a.shape for a in map.src], map.name)


def pull_held(map: HeldMap, cts: list) -> list:
    """The transpose of a held map; as `apply_held`."""
    if len(cts) == 1 and cts[0].__class__ is ndarray and cts[0].ndim == len(map.dst[0].shape):
        return map.backward(cts)
    for ct, a in zip(cts, map.dst, strict=True):
        if ct.__class__ not in HOST_TYPES or len(shape_of(ct)) != len(a.shape):
            return apply_held(map.transposed, cts)
    return map.backward(cts)  # the usual case: nothing is traced, and nothing has rows


def over_rows(f: Callable[[list], list], arrays: list, shapes: list[Shape], origin: str) -> list:
    """`f` of a list of arrays (None: a zero) that may each have rows in front of their shape."""
    wide = [x is not None and len(shape_of(x)) > len(s) for x, s in zip(arrays, shapes, strict=True)]
    if not any(wide):
        return f(arrays)
    rows = shape_of(arrays[wide.index(True)])[0]
    trace = VmapTrace(origin, rows)
    try:
        mapped = [
            trace.tracer(x, -len(shape_of(x))) if w else x for x, w in zip(arrays, wide, strict=True)
        ]
        return [None if y is None else _with_rows(trace, y) for y in f(mapped)]
    finally:
        trace.close()


def _with_rows(trace: VmapTrace, y: Any) -> Any:
    """A result with its rows in front."""
    mine = isinstance(y, TracedArray) and y.owner is trace
    value, axis = (y.value, y.aux) if mine else (y, None)
    if axis is None:
        return stretch(value, None, trace.size)
    return move_axis(value, axis, -len(shape_of(value)))
