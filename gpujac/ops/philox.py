"""Philox4x32-10: random words as a pure function of a key and a counter.

Source: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, final

import numpy as np

from gpujac.backends.host import HOST
from gpujac.core.aval import Aval
from gpujac.core.op import General, Sample, catalogued
from gpujac.ops.batching import as_shape, move_axis

_CACHE = 1 << 10
_PIECE = 1 << 13  # 16 ms against 77 for a million words in one piece; November 2026, 2 shared cores
_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
# The third word of a counter says what a block is for, so that draws and new keys never coincide.
DRAW, FOLD = 0, 1


def philox(key: tuple, counter: tuple, rounds: int = ROUNDS) -> tuple:
    """Four words from two words of key and four of counter: uint64 arrays that hold 32 bits each."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(rounds):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _words(be: Any, key: Any, numbers: Any, purpose: int) -> tuple:
    """The words of the blocks with these numbers (uint64); the leading axes of the key broadcast to them."""
    zero = numbers & 0
    key = be.cast(key, numbers.dtype)
    return philox((key[..., 0], key[..., 1]), (numbers & _MASK, numbers >> 32, zero | purpose, zero))


def _named(be: Any, like: Any, name: str) -> Any:
    return np.dtype(name) if isinstance(like.dtype, np.dtype) else getattr(be.xp, name)


@final
@catalogued
@dataclass(frozen=True)
class Blocks(General):
    """The words of the first `count` blocks of a key (..., 2): (..., 4 count) words of 32 bits."""

    name = "philox_blocks"
    flat = True
    leading: ClassVar[bool] = True
    count: int
    purpose: int

    def evaluate(self, be: Any, *operands: Any) -> Any:
        (key,) = operands
        lead = tuple(key.shape[:-1])
        if be.name == "numpy" and math.prod(lead) * self.count > _PIECE:
            return self._in_pieces(key)
        numbers = be.xp.arange(self.count, dtype=_named(be, key, "uint64"))
        numbers = be.spread(numbers, (*(1,) * len(lead), self.count), (*lead, self.count))
        words = be.stack(_words(be, be.reshape(key, (*lead, 1, 2)), numbers, self.purpose), -1)
        return be.cast(be.reshape(words, (*lead, 4 * self.count)), key.dtype)

    def _in_pieces(self, key: np.ndarray) -> np.ndarray:
        """The same on NumPy, so many blocks at a time that they stay in the cache."""
        keys = key.reshape(-1, 2).astype(np.uint64)
        words = np.empty((len(keys) * self.count, 4), key.dtype)
        for start in range(0, len(words), _PIECE):
            row, numbers = np.divmod(np.arange(start, min(start + _PIECE, len(words))), self.count)
            part = _words(HOST, keys[row], numbers.astype(np.uint64), self.purpose)
            for i, word in enumerate(part):
                words[start : start + _PIECE, i] = word
        return words.reshape(*key.shape[:-1], 4 * self.count)

    def infer(self, *avals: Aval) -> Aval:
        return Aval((*avals[0].shape[:-1], 4 * self.count), avals[0].dtype)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(blocks(3, DRAW), (2,), kinds="k"), Sample(blocks(1, FOLD), (3, 2), kinds="k")]


@lru_cache(_CACHE)
def blocks(count: int, purpose: int) -> Blocks:
    """The op of the first `count` blocks."""
    return Blocks(count, purpose)


@final
@catalogued
@dataclass(frozen=True)
class Fold(General):
    """The key (..., 2) that a key (..., 2) and a whole number (...) make."""

    name = "philox_fold"
    flat = True

    def evaluate(self, be: Any, *operands: Any) -> Any:
        key, data = operands
        lead = np.broadcast_shapes(tuple(key.shape[:-1]), tuple(data.shape))
        numbers = be.cast(data, _named(be, key, "uint64"))
        numbers = be.spread(numbers, (*(1,) * (len(lead) - len(data.shape)), *data.shape), lead)
        return be.cast(be.stack(_words(be, key, numbers, FOLD)[:2], -1), key.dtype)

    def infer(self, *avals: Aval) -> Aval:
        key, data = avals
        return Aval((*np.broadcast_shapes(key.shape[:-1], data.shape), 2), key.dtype)

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        ranks = [len(x.shape) - (a is not None) - core for x, a, core in zip(xs, axes, (1, 0), strict=True)]
        key, data = (_in_front(x, a, max(ranks) - r) for x, a, r in zip(xs, axes, ranks, strict=True))
        y = self(key, data)
        return y, -len(y.shape)

    @classmethod
    def samples(cls) -> list[Sample]:
        return [Sample(PHILOX_FOLD, (2,), (), kinds="ki"), Sample(PHILOX_FOLD, (3, 2), (3,), kinds="ki")]


def _in_front(x: Any, axis: int | None, missing: int) -> Any:
    """An operand with its mapped axis first and `missing` axes of length 1 behind it."""
    if axis is None:
        return x
    x = move_axis(x, axis, -len(x.shape))
    return as_shape(x, (x.shape[0], *(1,) * missing, *x.shape[1:]))


PHILOX_FOLD = Fold()
