"""Which input elements an array depends on: the carrier of sparsity detection.

A `Pattern` is a boolean array of shape (seeds, *shape): entry [j, ...] says that the element may
depend on seed j. A constant operand is a pattern too, one of zeros. Structural ops act on trailing
axes, so they carry it without a rule of their own.
"""

from typing import Any, NamedTuple

import numpy as np


class Pattern(NamedTuple):
    """Dependence of every element of an array on every seed."""

    bits: Any  # (seeds, *shape) bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bits.shape[1:]


def union(patterns: tuple, shape: tuple[int, ...]) -> Pattern:
    """Dependence of a pointwise result: whatever any operand depends on, broadcast to `shape`."""
    bits = np.zeros((len(patterns[0].bits), *shape), bool)
    for p in patterns:
        rank = len(shape) - len(p.shape)
        bits |= p.bits.reshape(p.bits.shape[:1] + (1,) * rank + p.shape)
    return Pattern(bits)


def dense(patterns: tuple, shape: tuple[int, ...]) -> Pattern:
    """Every element of the result depends on every seed that reaches any operand: never wrong."""
    seeds = len(patterns[0].bits)
    reached = np.zeros(seeds, bool)
    for p in patterns:
        reached |= p.bits.any(axis=tuple(range(1, p.bits.ndim)))
    return Pattern(np.broadcast_to(reached.reshape((seeds,) + (1,) * len(shape)), (seeds, *shape)))
