"""Borders made of an array's own entries, sliding windows, and the transposes of both.

An axis of `n` entries with a border reads position `i` of -before to n + after - 1 from inside: edge
from the nearest entry, wrap from i mod n, reflect and symmetric from the mirror image in the first
or last entry, or just outside of it. A negative width crops; the formulas stay the same.

What is copied is a handful of *runs*: stretches of the border that read a stretch of the array,
forwards, backwards or one entry all along. The transpose adds each run to what it was read from. It
has two forms, chosen in `FoldBorder.evaluate`:

* gathers: for every combination of runs, one per axis, the range of the result that it reaches reads
  the cotangent (at an affine index, so through a strided view) and adds it. Combinations with an
  empty range do not exist. No atomics, and the same sums in every run.
* scatters: axis by axis, the cotangent is added at the positions that the border read.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple, final

import numpy as np

from gpujac import settings
from gpujac.backends.host import HOST
from gpujac.core.aval import Shape
from gpujac.core.op import Linear, Sample, catalogued

_CACHE = 1 << 14
_SHORT = 1 << 14  # entries of an axis up to which its positions are kept: 8 MB for the last 64
_FEW = 8  # runs along an axis up to which a launch for each beats an index
_AXES = 3  # axes whose combinations are taken together: 27 at most, where each is reflected once
Widths = tuple[tuple[int, int], ...]


class Run(NamedTuple):
    """Entries [start, stop) of a bordered axis, read from `source` on in steps of 1, -1 or 0."""

    start: int
    stop: int
    source: int
    step: int

    @property
    def outside(self) -> slice:
        """The entries of the bordered axis."""
        return slice(self.start, self.stop)

    @property
    def inside(self) -> slice:
        """The entries of the axis itself, in the order of `outside`; one where the step is 0."""
        end = self.source + (self.stop - self.start) * self.step
        if self.step == 0:
            return slice(self.source, self.source + 1)
        return slice(self.source, None if end < 0 else end, self.step)


def positions(mode: str, n: int, before: int, after: int) -> np.ndarray:
    """Which entry of an axis of length `n` each entry of the bordered axis is, read-only."""
    return (_kept if n + before + after <= _SHORT else _read)(mode, n, -before, n + after)


def _read(mode: str, n: int, start: int, stop: int) -> np.ndarray:
    """Which entry of an axis of length `n` the places from `start` to `stop` read."""
    i = np.arange(start, stop)
    if mode == "edge" or (n == 1 and mode == "reflect"):
        i = np.clip(i, 0, n - 1)
    elif mode == "wrap":
        i %= max(n, 1)
    else:
        period = 2 * n - 2 if mode == "reflect" else 2 * n
        i %= max(period, 1)
        i = np.minimum(i, period - i if mode == "reflect" else period - 1 - i)
    i.flags.writeable = False
    return i


_kept = lru_cache(64)(_read)


@lru_cache(_CACHE)
def runs_of(mode: str, n: int, before: int, after: int) -> tuple[Run, ...]:
    """The runs of a bordered axis, that of the array itself first."""
    total = n + before + after
    first = min(max(before, 0), total)  # a crop may reach beyond the array, into the other border
    last = max(total - max(after, 0), first)
    inner = [Run(first, last, first - before, 1)] if last > first else []
    sides = [_runs(_read(mode, n, a - before, b - before), a) for a, b in ((0, first), (last, total))]
    return (*inner, *sides[0], *sides[1])


def _runs(at: np.ndarray, start: int) -> list[Run]:
    """The runs of a border that begins at `start`: the loop is over them, not over entries."""
    found, k, steps = [], 0, np.diff(at)
    turns = np.flatnonzero(np.diff(steps)) + 1  # where a step differs from the one before
    while k < len(at):
        stop, step = k + 1, 1
        if stop < len(at) and abs(steps[k]) <= 1:
            step = int(steps[k])
            later = np.searchsorted(turns, k, "right")
            stop = int(turns[later]) + 1 if later < len(turns) else len(at)
        found.append(Run(start + k, start + stop, int(at[k]), step))
        k = stop
    return found


@dataclass(frozen=True)
class _Bordered(Linear):
    mode: str
    widths: Widths  # per trailing axis of the array

    @cached_property
    def axes(self) -> list[tuple[int, int, tuple[int, int]]]:
        """(axis from the end, its length without the border, widths) of each axis that changes."""
        inner = self.inner
        rank = len(inner)
        return [(i - rank, inner[i], w) for i, w in enumerate(self.widths) if w != (0, 0)]

    @property
    def inner(self) -> Shape:
        """The trailing shape without the border."""
        raise NotImplementedError

    @cached_property
    def runs(self) -> dict[int, tuple[Run, ...]]:
        """The runs of each axis that changes."""
        return {axis: runs_of(self.mode, n, *w) for axis, n, w in self.axes}


@final
@catalogued
@dataclass(frozen=True)
class Border(_Bordered):
    """The array with a border of its own entries; negative widths crop."""

    name = "border"
    copies = True

    @property
    def inner(self) -> Shape:
        return self.src

    def evaluate(self, be: Any, x: Any) -> Any:
        for axis, n, w in self.axes:
            if be.saturation_bytes is None or len(self.runs[axis]) > _FEW:
                x = be.take(x, positions(self.mode, n, *w), axis)
            else:  # on a device without an index, which would have to be uploaded
                x = _copied(be, x, axis, n + sum(w), self.runs[axis])
        return x

    @cached_property
    def transposed(self) -> Linear:
        return fold_border(self.src, self.mode, self.widths)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(border((4,), "reflect", ((2, 3),)), (4,), complex_ok=True),
            Sample(border((3, 2), "symmetric", ((3, 1), (2, 0))), (3, 2), complex_ok=True),
            Sample(border((3, 2), "edge", ((1, 2), (0, 1))), (2, 3, 2)),
            Sample(border((3,), "wrap", ((4, 2),)), (3,)),
            Sample(border((3, 4), "reflect", ((5, 9), (-1, 2))), (3, 4)),
            Sample(border((2,), "symmetric", ((17, -1),)), (2,)),
            Sample(border((1, 2), "reflect", ((2, 1), (0, 0))), (1, 2)),
        ]


@final
@catalogued
@dataclass(frozen=True)
class FoldBorder(_Bordered):
    """Each entry of a border added to the one it was read from, the border gone."""

    name = "fold_border"
    folds = True
    adds = True

    @property
    def inner(self) -> Shape:
        return self.dst

    def evaluate(self, be: Any, x: Any) -> Any:
        few = all([len(runs) <= _FEW for runs in self.runs.values()])
        return (gathered if few or settings.get("deterministic") else scattered)(be, self, x)

    @cached_property
    def transposed(self) -> Linear:
        return border(self.dst, self.mode, self.widths)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(fold_border((4,), "reflect", ((2, 3),)), (9,), complex_ok=True),
            Sample(fold_border((3, 2), "symmetric", ((3, 1), (2, 0))), (7, 4)),
            Sample(fold_border((3, 2), "edge", ((1, 2), (0, 1))), (2, 6, 3)),
            Sample(fold_border((3,), "wrap", ((4, -1),)), (6,)),
            Sample(fold_border((2, 2), "symmetric", ((17, 1), (-1, 2))), (20, 3)),
            Sample(fold_border((1, 2, 1, 2), "wrap", ((1, 0), (0, 1), (1, 0), (-1, 1))), (2, 3, 2, 2)),
        ]


def _copied(be: Any, x: Any, axis: int, size: int, runs: tuple[Run, ...]) -> Any:
    """`x` with runs of one axis copied to where they belong."""
    rest = (slice(None),) * (-1 - axis)
    at = len(x.shape) + axis
    out = be.empty((*x.shape[:at], size, *x.shape[at + 1 :]), x.dtype, x)
    for run in runs:
        out[(..., run.outside, *rest)] = x[(..., run.inside, *rest)]
    return out


def gathered(be: Any, op: FoldBorder, x: Any) -> Any:
    """The transpose of a border as gathers, accumulated over the combinations of runs."""
    groups = [op.axes[i : i + _AXES] for i in range(0, len(op.axes), _AXES)]
    for group in groups:
        x = _gathered(be, x, [axis for axis, _, _ in group], [n for _, n, _ in group], op.runs)
    return x


def _gathered(be: Any, x: Any, axes: list[int], sizes: list[int], runs: dict[int, tuple[Run, ...]]) -> Any:
    rank = -axes[0]
    shape = list(x.shape)
    for axis, n in zip(axes, sizes, strict=True):
        shape[axis] = n
    combinations = list(product(*[runs[axis] for axis in axes]))
    out, rest = None, combinations
    if combinations and all([_covers(r, n) for r, n in zip(combinations[0], sizes, strict=True)]):
        outside = _key(rank, axes, [r.outside for r in combinations[0]])
        out, rest = be.copy(x[outside]), combinations[1:]
    if out is None:
        out = be.zeros(tuple(shape), x.dtype, x)
    for combination in rest:
        piece = x[_key(rank, axes, [r.outside for r in combination])]
        for axis, run in zip(axes, combination, strict=True):
            if run.step == 0:
                piece = be.xp.sum(piece, axis=axis, keepdims=True)
        _add(be, out, _key(rank, axes, [r.inside for r in combination]), piece)
    return out


def _add(be: Any, out: Any, key: tuple, piece: Any) -> None:
    """`out[key] += piece`, on a device in one launch: Python would store the sum a second time."""
    if be.saturation_bytes is None:
        out[key] += piece
    else:
        part = out[key]
        part += piece


def _covers(run: Run, n: int) -> bool:
    """Whether a run reads the whole of an axis, in order."""
    return run.step == 1 and run.source == 0 and run.stop - run.start == n


def _key(rank: int, axes: list[int], parts: list[slice]) -> tuple:
    """A basic key of the last `rank` axes."""
    key = [slice(None)] * rank
    for axis, part in zip(axes, parts, strict=True):
        key[axis] = part
    return (..., *key)


def scattered(be: Any, op: FoldBorder, x: Any) -> Any:
    """The transpose of a border as one scatter-add per axis."""
    for axis, n, w in op.axes:
        at = len(x.shape) + axis
        out = be.zeros((*x.shape[:at], n, *x.shape[at + 1 :]), x.dtype, x)
        if n:
            be.add_at(out, positions(op.mode, n, *w), x, -1 - axis)
        x = out
    return x


@final
@catalogued
@dataclass(frozen=True)
class Windows(Linear):
    """All windows of `width` neighbours along the first axis of `src`, as a new last axis."""

    name = "windows"
    copies = True
    width: int

    def evaluate(self, be: Any, x: Any) -> Any:
        if be is HOST:  # a view, where other libraries copy
            return np.lib.stride_tricks.sliding_window_view(x, self.width, -len(self.src))
        rest = (slice(None),) * (len(self.src) - 1)
        count = self.dst[0]
        return be.stack(tuple([x[(..., slice(i, i + count), *rest)] for i in range(self.width)]), -1)

    @cached_property
    def transposed(self) -> Linear:
        return overlap_add(self.src, self.width)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(windows((5,), 3), (5,), complex_ok=True),
            Sample(windows((4, 2), 3), (2, 4, 2)),
            Sample(windows((3,), 1), (3,)),
        ]


@final
@catalogued
@dataclass(frozen=True)
class OverlapAdd(Linear):
    """Windows added back to where they were taken, overlaps adding up."""

    name = "overlap_add"
    folds = True
    adds = True
    width: int

    def evaluate(self, be: Any, x: Any) -> Any:
        rest = (slice(None),) * (len(self.dst) - 1)
        count = self.src[0]
        out = be.zeros(self.lead(x) + self.dst, x.dtype, x)
        if count < self.width:  # few wide windows: one addition for each
            order = tuple(range(len(x.shape)))
            at = len(x.shape) - len(self.src)
            x = be.permute(x, (*order[: at + 1], order[-1], *order[at + 1 : -1]))
            for i in range(count):
                _add(be, out, (..., slice(i, i + self.width), *rest), x[(..., i, slice(None), *rest)])
            return out
        for i in range(self.width):
            _add(be, out, (..., slice(i, i + count), *rest), x[(..., i)])
        return out

    @cached_property
    def transposed(self) -> Linear:
        return windows(self.dst, self.width)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(overlap_add((5,), 3), (3, 3), complex_ok=True),
            Sample(overlap_add((4, 2), 2), (2, 3, 2, 2)),
            Sample(overlap_add((4, 2), 3), (2, 2, 3)),
        ]


@lru_cache(_CACHE)
def border(src: Shape, mode: str, widths: Widths) -> Border:
    """A border in one of the modes edge, reflect, symmetric, wrap around the trailing axes `src`."""
    src, widths = _trimmed(src, widths)
    return Border(src, tuple(n + a + b for n, (a, b) in zip(src, widths, strict=True)), mode, widths)


@lru_cache(_CACHE)
def fold_border(dst: Shape, mode: str, widths: Widths) -> FoldBorder:
    """The transpose of `border(dst, mode, widths)`."""
    dst, widths = _trimmed(dst, widths)
    return FoldBorder(tuple(n + a + b for n, (a, b) in zip(dst, widths, strict=True)), dst, mode, widths)


def _trimmed(shape: Shape, widths: Widths) -> tuple[Shape, Widths]:
    """Only the trailing axes from the first changed one on belong to the op."""
    first = next((i for i, w in enumerate(widths) if w != (0, 0)), len(widths))
    return shape[first:], widths[first:]


@lru_cache(_CACHE)
def windows(src: Shape, width: int) -> Windows:
    """Windows along the first of the trailing axes `src`."""
    return Windows(src, (src[0] - width + 1, *src[1:], width), width)


@lru_cache(_CACHE)
def overlap_add(dst: Shape, width: int) -> OverlapAdd:
    """The transpose of `windows(dst, width)`."""
    return OverlapAdd((dst[0] - width + 1, *dst[1:], width), dst, width)
