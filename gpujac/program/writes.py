"""Writes into one array, entry after entry, kept together.

`d = zeros_like(x)` and n times `d[i] = v` would cost a copy of d each; here the n writes become one
placement. Each link of the chain knows the one before, so any earlier state can still be asked for.
"""

from typing import Any

import numpy as np

from gpujac.core.aval import Shape
from gpujac.ops.indexing import as_slices

Key = tuple


class Writes:
    """An array that began as zeros, after some writes to places that do not overlap."""

    __slots__ = ("before", "count", "key", "places", "shape", "value", "written")

    def __init__(self, shape: Shape, key: Key, value: int, before: "Writes | None" = None) -> None:
        self.shape = shape
        self.key = key
        self.value = value  # the variable that was written
        self.before = before
        if before is None:
            self.count = 1
            self.written: Any = np.zeros(shape, bool)  # shared along the chain, as is `places`
            self.places: dict[Key, tuple[int, int]] = {}
        else:
            self.count = before.count + 1
            self.written, self.places = before.written, before.places
        self.written[as_slices(key)] = True
        self.places[key] = (value, self.count)

    def extended(self, key: Key, value: int) -> "Writes | None":
        """One write more; None if it overlaps, or if the chain has gone on from here already."""
        if len(self.places) != self.count or self.written[as_slices(key)].any():
            return None
        return Writes(self.shape, key, value, self)

    def value_at(self, key: Key) -> int | None:
        """The variable that stands at exactly this place, if one write put it there."""
        value, count = self.places.get(key, (None, 0))
        return value if count <= self.count else None

    def listed(self) -> tuple[tuple[Key, ...], list[int]]:
        """Keys and variables, first to last."""
        keys, values = [], []
        link: Writes | None = self
        while link is not None:
            keys.append(link.key)
            values.append(link.value)
            link = link.before
        return tuple(reversed(keys)), values[::-1]


def widened(key: Key, shape: Shape) -> Key:
    """A key of trailing axes as one of all axes."""
    extra = len(shape) - len(key)
    return (*((0, n, 1) for n in shape[:extra]), *key)
