"""Random words: which key each lane draws with, and how its words become numbers."""

from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import shape as sh
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, item_bytes, kind, shape_of
from gpujac.core.trace import Tracer, payload
from gpujac.errors import ArgumentError, ArgumentTypeError, ShapeError
from gpujac.ops import elementwise as ew
from gpujac.ops.philox import DRAW, PHILOX_FOLD, blocks
from gpujac.transforms.lanes import LaneTrace, open_vmaps

MASK64 = (1 << 64) - 1
_MASK32 = 0xFFFFFFFF


def check_key(what: str, key: Any) -> None:
    """Raise unless `key` is one key."""
    if tuple(shape_of(key)) == (2,) and kind(dtype_of(key)) == "u" and item_bytes(dtype_of(key)) == 4:
        return
    if not isinstance(key, Tracer) and not shape_of(key):
        raise ArgumentTypeError(f"random.{what}: {key!r} is no key; make one with gpujac.random.key(seed)")
    found = f"an array of shape {tuple(shape_of(key))} and dtype {dtype_of(key)}"
    raise ShapeError(
        f"random.{what}: a key is a uint32 array of shape (2,), found {found}; make keys with key, split and fold_in, "
        "and map over several with vmap"
    )


def folded(key: Any, data: Any) -> Any:
    """The key that a key and a whole number make."""
    like = payload(key)
    if isinstance(data, (int, np.integer)):
        data = backend_of(like).asarray(int(data), c.as_dtype(np.uint64, like), like)
    return PHILOX_FOLD(key, data)


def _governed(what: str, key: Any) -> Any:
    """The key that each lane draws with, by the mode of every vmap that does not map the key."""
    for trace in open_vmaps():
        if _is_mapped(key, trace):
            continue
        mode = trace.lanes.randomness
        if mode == "error":
            raise _unmapped(what, trace)
        if mode == "different":
            key = folded(key, _lane_numbers(trace, key))
    return key


def _unmapped(what: str, trace: Any) -> ArgumentError:
    text = (
        f"random.{what} inside vmap of {trace.lanes.origin} with a key that is not mapped: all lanes would "
        'draw the same numbers. Map over one key per lane (random.split(key, n)), or say what you mean: '
        'vmap(..., randomness="same") or "different"'
    )
    if isinstance(trace, LaneTrace):
        text += (
            '. With method="loop" a lane sees plain values, of which its own are known only as they came in: its '
            "mapped arguments, and what split and fold_in make of them; keys[i] of an array of keys from outside, a "
            "copy, or fold_in(key, i + 1), is not: map over keys, or over i + 1"
        )
    return ArgumentError(text)


def _lane_numbers(trace: Any, key: Any) -> Any:
    """The number of each lane among all of the call, chunked or not."""
    if isinstance(trace, LaneTrace):
        return trace.start
    like = payload(key)
    numbers = np.arange(trace.start, trace.start + trace.size, dtype=np.uint64)
    return trace.tracer(backend_of(like).asarray(numbers, c.as_dtype(np.uint64, like), like), -1)


def _is_mapped(key: Any, trace: Any) -> bool:
    """Whether the lanes of a vmap have keys of their own."""
    if isinstance(trace, LaneTrace):
        return trace.owns(key)
    while isinstance(key, Tracer):
        if key.owner is trace:
            return key.aux is not None
        key = key.value
    return False


def derived(made: Any, *sources: Any) -> Any:
    """A key, or several: where a lane runs on plain values, the lane's own if one of `sources` is."""
    for trace in open_vmaps():
        if isinstance(trace, LaneTrace) and any([trace.owns(x) for x in sources]):
            trace.take(made)
    return made


def words(what: str, key: Any, count: int) -> Any:
    """(count,) random words of 32 bits of the key as the lanes around see it."""
    check_key(what, key)
    return blocks(-(-count // 4), DRAW)(_governed(what, key))[:count]


def pairs(what: str, key: Any, count: int) -> tuple:
    """Two (count,) arrays of words, as uint64."""
    found = c.astype(words(what, key, 2 * count), np.uint64)
    return found[0::2], found[1::2]


def unit(what: str, key: Any, count: int, dtype: np.dtype) -> Any:
    """(count,) numbers in [0, 1) with all the bits of the dtype."""
    if dtype.itemsize == 8:
        found = words(what, key, 2 * count)
        high, low = (c.astype(ew.right_shift(found[i::2], 5 + i), dtype) for i in (0, 1))
        return (high * 2.0**26 + low) * 2.0**-53
    digits = 24 if dtype.itemsize == 4 else 11
    found = ew.right_shift(words(what, key, count), 32 - digits)
    return c.astype(c.astype(found, np.float32) * 2.0**-digits, dtype)


def fraction(high: Any, low: Any, span: Any) -> Any:
    """That fraction of a span: floor((high 2**32 + low) span / 2**64), where span 0 stands for 2**64."""
    every = ew.bitwise_or(ew.left_shift(high, 32), low)
    if isinstance(span, int):
        return _high_product(high, low, span) if span else every
    return ew.where(ew.equal(span, 0), every, _high_product(high, low, span))


def _high_product(high: Any, low: Any, span: Any) -> Any:
    """The upper 64 bits of (high 2**32 + low) span."""
    whole = isinstance(span, int)
    s1 = span >> 32 if whole else ew.right_shift(span, 32)
    s0 = span & _MASK32 if whole else ew.bitwise_and(span, _MASK32)
    middle = ew.add(ew.multiply(high, s0), ew.right_shift(ew.multiply(low, s0), 32))
    upper = ew.right_shift(middle, 32)
    if whole and s1 == 0:
        return upper
    carry = ew.right_shift(ew.add(ew.multiply(low, s1), ew.bitwise_and(middle, _MASK32)), 32)
    return ew.add(ew.add(ew.multiply(high, s1), upper), carry)


def wrapped(x: Any) -> Any:
    """A whole number modulo 2**64; of an array at least one axis, as NumPy warns where its own scalars wrap around."""
    if isinstance(x, int):
        return x & MASK64
    return c.astype(x if shape_of(x) else sh.reshape(x, (1,)), np.uint64)
