"""Blocks of arrays that move as a whole: when axes are rolled, and when one is added where it belongs."""

from functools import lru_cache
from itertools import product
from typing import Any

from gpujac.core.aval import Shape

Move = tuple[tuple, tuple]


@lru_cache(1 << 14)
def moves_of(src: Shape, shifts: Shape, axes: Shape) -> tuple[Move, ...]:
    """Keys of the result and of the operand for each block, trailing shape `src`, axes from the end."""
    total = dict.fromkeys(range(-len(src), 0), 0)
    for axis, shift in zip(axes, shifts, strict=True):
        total[axis] += shift
    parts = [_runs(n, shift) for n, shift in zip(src, total.values(), strict=True)]
    return tuple([((..., *[t for t, _ in ps]), (..., *[f for _, f in ps])) for ps in product(*parts)])


def _runs(n: int, shift: int) -> list[tuple[slice, slice]]:
    """(to, from) of the one or two runs of an axis of length `n`."""
    at = shift % n if n else 0
    if not at:
        return [(slice(None), slice(None))]
    return [(slice(at, None), slice(None, n - at)), (slice(None, at), slice(n - at, None))]


def add_to(out: Any, key: tuple, x: Any) -> None:
    """`out[key] += x` in one pass: Python would store the sum a second time. The key selects a view."""
    part = out[key]
    part += x
