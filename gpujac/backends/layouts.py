"""How arrays lie in memory, and how few axes their strides leave: what plans of launches are made from."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Layout(NamedTuple):
    """How an array lies in memory, strides in bytes."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype


def layout(x: Any) -> Layout:
    """How `x` lies in memory."""
    return Layout(x.shape, x.strides, x.dtype)


def steps(x: Layout) -> list[int] | None:
    """Strides in entries; None where they are no whole numbers of entries."""
    size = x.dtype.itemsize
    return None if any(s % size for s in x.strides) else [s // size for s in x.strides]


def c_order(x: Layout) -> Layout:
    """The layout of a copy in C order."""
    strides = [math.prod(x.shape[k + 1 :]) * x.dtype.itemsize for k in range(len(x.shape))]
    return Layout(x.shape, tuple(strides), x.dtype)


def span(x: Layout) -> int:
    """Entries from the lowest to the highest address of an array."""
    return sum(abs(s) * (n - 1) for s, n in zip(x.strides, x.shape)) // x.dtype.itemsize + 1


def merged(shape: tuple[int, ...], strides: Sequence[Sequence[int]]) -> list[list[int]]:
    """[size, stride in each array] per axis; neighbours that can be one axis are, and axes of one entry go."""
    found: list[list[int]] = []
    for n, *given in zip(shape, *strides):
        if n == 1:
            continue
        if found and all(outer == n * inner for outer, inner in zip(found[-1][1:], given)):
            found[-1] = [found[-1][0] * n, *given]
        else:
            found.append([n, *given])
    return found
