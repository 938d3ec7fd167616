"""Random numbers from explicit keys: pure functions, the same in every transform, chunk and library.

A key is a uint32 array of shape (2,). Entry i of a draw depends on the key and on i alone, so a draw
has no state: `split` a key into new ones for independent draws. Under `gpujac.vmap` a mapped key
draws for each lane by itself; what an unmapped one does, `vmap(..., randomness=)` says.

Example:
    >>> import gpujac as gj
    >>> key = gj.random.key(0)
    >>> gj.random.uniform(key, (3,)).round(4)
    array([0.399 , 0.7357, 0.9722])
"""

import math
import operator
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import indexing, order
from gpujac.array import shape as sh
from gpujac.backends.choose import HOST_TYPES
from gpujac.core.aval import dtype_of, kind, name_of, shape_of
from gpujac.core.trace import Tracer, payload
from gpujac.errors import ArgumentError, ArgumentTypeError, ConcretizationError, DTypeError, ShapeError
from gpujac.generators import wrap
from gpujac.ops import elementwise as ew
from gpujac.ops.batching import hold
from gpujac.ops.philox import FOLD, blocks
from gpujac.transforms.keys import (
    MASK64,
    check_key,
    derived,
    folded,
    fraction,
    pairs,
    unit,
    words,
    wrapped,
)

__all__ = ["bernoulli", "bits", "fold_in", "key", "normal", "permutation", "randint", "split", "uniform", "wrap"]



def key(seed: int, like: Any = None) -> Any:
    """A new key from a whole number.

    Args:
        seed: int from 0 to 2**64 - 1; different seeds give unrelated draws.
        like: an array to whose library and device the key, and all that is drawn with it, belong;
            None for NumPy.

    Returns:
        (2,) uint32, the caller's own.

    Raises:
        ArgumentError: the seed is out of range. ArgumentTypeError: it is no integer.

    Cost: one small array.

    Example:
        >>> key(7)
        array([7, 0], dtype=uint32)
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise ArgumentTypeError(f"random.key: seed={seed!r} is a {type(seed).__name__}; use an int") from None
    if not 0 <= number < 1 << 64:
        raise ArgumentError(f"random.key: seed={number} is out of range; use 0 to 2**64 - 1")
    made = np.array([number & 0xFFFFFFFF, number >> 32], np.uint32)
    return derived(made if like is None else c.placed(made, like), seed)


def split(key: Any, num: int = 2) -> Any:
    """Several new keys from one, for independent draws; the old one should not be drawn with again.

    Args:
        key: (2,) uint32.
        num: how many, at least 0.

    Returns:
        (num, 2) uint32: entry i is `fold_in(key, i)`.

    Raises:
        ShapeError, DTypeError: no key. ArgumentError: a negative number. ArgumentTypeError: it is no
            integer.

    Cost: one block of the generator per key.

    Example:
        >>> one, other = split(key(0))
        >>> bool((one != other).any())
        True
    """
    check_key("split", key)
    try:
        count = operator.index(num)
    except ConcretizationError:
        raise
    except TypeError:
        raise ArgumentTypeError(f"random.split: num={num!r} is a {type(num).__name__}; use an int") from None
    if count < 0:
        raise ArgumentError(f"random.split: num={count} is negative")
    made = blocks(count, FOLD)(key)
    return derived(sh.reshape(made, (count, 4))[:, :2] + 0, key)


def fold_in(key: Any, data: Any) -> Any:
    """A new key from a key and a whole number, as the number of a step or of a lane.

    Args:
        key: (2,) uint32.
        data: whole number from 0 to 2**64 - 1, or an integer array of shape (), traced or not. A traced
            one is not looked at: a negative number counts as itself modulo 2**64.

    Returns:
        (2,) uint32: `split(key, data + 1)[data]`.

    Raises:
        ShapeError, DTypeError: no key, or `data` no whole number. ArgumentError: it is out of range.

    Cost: one block of the generator.

    Example:
        >>> bool((fold_in(key(0), 3) == split(key(0), 4)[3]).all())
        True
    """
    check_key("fold_in", key)
    data = c.lift(data)
    if kind(dtype_of(data)) not in "iu" or shape_of(data) != ():
        of = f"is an array of shape {tuple(shape_of(data))} and" if shape_of(data) else "has"
        raise DTypeError(
            f"random.fold_in: data {of} dtype {dtype_of(data)}; use one whole number, and vmap for several"
        )
    if not isinstance(data, Tracer) and data < 0:
        raise ArgumentError(f"random.fold_in: data={data} is negative")
    if isinstance(data, int) and data > MASK64:
        raise ArgumentError(f"random.fold_in: data={data} is out of range; use 0 to 2**64 - 1")
    return derived(folded(key, data), key, data)


def bits(key: Any, shape: Any = (), dtype: Any = np.uint32) -> Any:
    """Uniform random bits.

    Args:
        key: (2,) uint32.
        shape: int or tuple of ints.
        dtype: uint8, uint16, uint32 or uint64.

    Returns:
        Array of that shape and dtype in the library of the key.

    Raises:
        ShapeError, DTypeError: no key, or another dtype.
        ArgumentError: the key is not mapped, and an enclosing vmap has randomness="error".

    Cost: one block of the generator per four words of 32 bits.

    Example:
        >>> bits(key(1), (2,))
        array([3823634032, 3842641596], dtype=uint32)
    """
    size, wanted = _shape(shape), _dtype("bits", dtype)
    if wanted.kind != "u":
        raise DTypeError(f"random.bits: dtype={wanted} is no unsigned integer; use uint8, uint16, uint32 or uint64")
    count = math.prod(size)
    if wanted.itemsize == 8:
        high, low = pairs("bits", key, count)
        found = ew.bitwise_or(ew.left_shift(high, 32), low)
    else:
        found = ew.right_shift(words("bits", key, count), 32 - 8 * wanted.itemsize)
    return _shaped(c.astype(found, wanted), size)


def uniform(key: Any, shape: Any = (), dtype: Any = np.float64, minval: Any = 0.0, maxval: Any = 1.0) -> Any:
    """Numbers evenly spread over [minval, maxval).

    Args:
        key: (2,) uint32.
        shape: int or tuple of ints.
        dtype: float16, float32 or float64, with 11, 24 or 53 random bits.
        minval, maxval: numbers, or arrays that broadcast to `shape`; traced ones carry their
            derivatives through `minval + (maxval - minval) * u`, u being constant.

    Returns:
        Array of that shape and dtype in the library of the key; rounding of the formula may
        reach `maxval`.

    Raises:
        ShapeError, DTypeError: no key, ends that do not broadcast, another dtype.
        ArgumentError: the key is not mapped, and an enclosing vmap has randomness="error".

    Cost: one block of the generator per two numbers of 64 bits or four of 32.

    Example:
        >>> import gpujac as gj
        >>> gj.grad(lambda top: uniform(key(0), (), maxval=top))(2.0).round(4)
        np.float64(0.399)
    """
    size, wanted = _shape(shape), _floating("uniform", dtype)
    u = _shaped(unit("uniform", key, math.prod(size), wanted), size)
    if _is_number(minval, 0) and _is_number(maxval, 1):
        return u
    low, high = (_fitted("uniform", v, size, wanted, key) for v in (minval, maxval))
    return ew.add(low, ew.multiply(ew.subtract(high, low), u))


def normal(key: Any, shape: Any = (), dtype: Any = np.float64, loc: Any = 0.0, scale: Any = 1.0) -> Any:
    """Numbers of the normal distribution.

    Args:
        key: (2,) uint32.
        shape: int or tuple of ints.
        dtype: float16, float32 or float64.
        loc, scale: mean and standard deviation: numbers, or arrays that broadcast to `shape`;
            traced ones carry their derivatives through `loc + scale * z`, z being constant.

    Returns:
        Array of that shape and dtype in the library of the key.

    Raises:
        ShapeError, DTypeError: no key, parameters that do not broadcast, another dtype.
        ArgumentError: the key is not mapped, and an enclosing vmap has randomness="error".

    Cost: one block of the generator per two numbers of 64 bits or four of 32, and a logarithm, a
    root, a sine and a cosine per two numbers.

    Source: G. Box, M. Muller, "A note on the generation of random normal deviates", 1958.

    Example:
        >>> normal(key(0), (2,)).round(4)
        array([-0.0905, -1.0051])
    """
    size, wanted = _shape(shape), _floating("normal", dtype)
    count = math.prod(size)
    half = (count + 1) // 2
    inner = np.dtype(np.float32) if wanted.itemsize == 2 else wanted
    u = unit("normal", key, 2 * half, inner)
    radius = ew.sqrt(-2.0 * ew.log1p(-u[0::2]))
    angle = (2.0 * math.pi) * u[1::2]
    z = sh.reshape(sh.stack([radius * ew.cos(angle), radius * ew.sin(angle)], -1), (2 * half,))[:count]
    z = _shaped(c.astype(z, wanted), size)
    if _is_number(loc, 0) and _is_number(scale, 1):
        return z
    mean, spread = (_fitted("normal", v, size, wanted, key) for v in (loc, scale))
    return ew.add(mean, ew.multiply(spread, z))


def randint(key: Any, shape: Any, minval: Any, maxval: Any, dtype: Any = np.int64) -> Any:
    """Whole numbers evenly spread over [minval, maxval).

    Args:
        key: (2,) uint32.
        shape: int or tuple of ints.
        minval, maxval: whole numbers, or integer arrays that broadcast to `shape`. Traced ones on a
            device are not looked at: where nothing lies in between, the number has no meaning.
        dtype: an integer dtype.

    Returns:
        Array of that shape and dtype in the library of the key. A value's probability is off by
        at most (maxval - minval) / 2**64 of itself.

    Raises:
        ShapeError, DTypeError: no key, ends that do not broadcast or are no integers.
        ArgumentError: nothing lies in between, or what does not fit the dtype; the key is not
            mapped, and an enclosing vmap has randomness="error".

    Cost: one block of the generator per two numbers.

    Example:
        >>> randint(key(0), (6,), 1, 7)
        array([3, 5, 6, 5, 1, 1])
    """
    size, wanted = _shape(shape), _dtype("randint", dtype)
    minval, maxval = c.lift(minval, key), c.lift(maxval, key)
    for end in (minval, maxval):
        if kind(dtype_of(end)) not in "iu" or wanted.kind not in "iu":
            raise DTypeError(f"random.randint: {dtype_of(end)} ends and dtype={wanted}: use integers")
    least, most = (_whole("randint", v, size) for v in (minval, maxval))
    if not _below(least, most):
        raise ArgumentError(f"random.randint: no whole number is in [{payload(least)}, {payload(most)})")
    _check_range(least, most, wanted)
    work = size or (1,)  # NumPy warns where its own scalars wrap around
    high, low = (sh.reshape(w, work) for w in pairs("randint", key, math.prod(size)))
    plain = isinstance(most, int) and isinstance(least, int)
    span = (most - least) & MASK64 if plain else ew.subtract(wrapped(most), wrapped(least))
    found = c.astype(ew.add(wrapped(least), fraction(high, low, span)), wanted)
    return found if size else found[0]


def permutation(key: Any, x: Any, axis: int = 0) -> Any:
    """The numbers below `x`, or the slices of an array along an axis, in random order.

    Args:
        key: (2,) uint32.
        x: int n, for the numbers 0 to n - 1, or an array or list, traced or not.
        axis: of an array.

    Returns:
        (n,) integers, or an array like `x`; its derivative is the same permutation.

    Raises:
        ShapeError, DTypeError: no key. AxisError: no such axis.
        ArgumentError: the key is not mapped, and an enclosing vmap has randomness="error".

    Cost: a sort of n words of 64 bits.

    Example:
        >>> permutation(key(0), 5)
        array([4, 0, 3, 1, 2])
    """
    x = c.lift(x, payload(key))
    if shape_of(x) == ():
        if isinstance(x, Tracer) or kind(dtype_of(x)) not in "iu" or x < 0:
            raise ArgumentError(f"random.permutation: x={x!r}; give an array, or the number of entries as an int")
        return order.argsort(bits(key, (operator.index(x),), np.uint64))
    count = shape_of(x)[c.axis_of(axis, len(shape_of(x)), "random.permutation")]
    return indexing.take(x, order.argsort(bits(key, (count,), np.uint64)), axis)


def bernoulli(key: Any, p: Any = 0.5, shape: Any = None) -> Any:
    """True with probability `p`.

    Args:
        key: (2,) uint32.
        p: number, or array that broadcasts to `shape`. The result carries no derivative by `p`: a
            sample is true or false, and its derivative is zero wherever it exists.
        shape: int or tuple of ints; None for that of `p`.

    Returns:
        Boolean array of that shape in the library of the key.

    Raises:
        ShapeError, DTypeError: no key, `p` does not broadcast to `shape`.
        ArgumentError: the key is not mapped, and an enclosing vmap has randomness="error".

    Cost: one block of the generator per two entries.

    Example:
        >>> bernoulli(key(0), 0.5, (4,))
        array([ True, False, False, False])
    """
    p = c.lift(p, key)
    size = tuple(shape_of(p)) if shape is None else _shape(shape)
    _check_broadcast("bernoulli", p, size)
    return ew.less(_shaped(unit("bernoulli", key, math.prod(size), np.dtype(np.float64)), size), p)


def _shape(shape: Any) -> tuple[int, ...]:
    try:
        size = tuple(operator.index(n) for n in (shape if isinstance(shape, (tuple, list)) else (shape,)))
    except TypeError:
        raise ArgumentTypeError(f"random: shape={shape!r} is neither an int nor a tuple of ints") from None
    if any(n < 0 for n in size):
        raise ArgumentError(f"random: shape={shape!r} has a negative length")
    return size


def _dtype(what: str, dtype: Any) -> np.dtype:
    try:
        return np.dtype(dtype)
    except TypeError:
        raise DTypeError(f"random.{what}: dtype={dtype!r} is no dtype of NumPy's") from None


def _floating(what: str, dtype: Any) -> np.dtype:
    wanted = _dtype(what, dtype)
    if wanted.name not in ("float16", "float32", "float64"):
        raise DTypeError(f"random.{what}: dtype={wanted}; use float16, float32 or float64")
    return wanted


def _shaped(x: Any, size: tuple) -> Any:
    return sh.reshape(x, size) if size else x[0]


def _is_number(x: Any, number: int) -> bool:
    return isinstance(x, (int, float)) and x == number


def _check_broadcast(what: str, x: Any, size: tuple) -> None:
    wide = tuple(shape_of(x))
    if len(wide) > len(size) or any(n not in (1, m) for n, m in zip(wide[::-1], size[::-1], strict=False)):
        raise ShapeError(f"random.{what}: a parameter of shape {wide} does not broadcast to shape={size}")


def _fitted(what: str, x: Any, size: tuple, dtype: np.dtype, key: Any) -> Any:
    """A parameter that fits the shape, in the dtype of the draw."""
    x = c.lift(x, key)
    _check_broadcast(what, x, size)
    return x if type(x) in (int, float) else c.astype(x, dtype)


def _whole(what: str, x: Any, size: tuple) -> Any:
    """An end of randint: a Python int, or an array that fits the shape."""
    _check_broadcast(what, x, size)
    return int(x) if isinstance(x, (int, np.integer)) else x


def _check_range(minval: Any, maxval: Any, wanted: np.dtype) -> None:
    """Raise where a dtype does not hold all numbers in [minval, maxval), of every lane."""
    least, most = np.iinfo(wanted).min, np.iinfo(wanted).max
    if all([_lies(v, least, most + 1) for v in (minval, maxval)]):
        return
    low, high = (v if isinstance(v, int) else c.on_host(v) for v in (payload(minval), payload(maxval)))
    raise ArgumentError(
        f"random.randint: dtype={wanted} holds {least} to {most}, but the numbers asked for are in "
        f"[{np.min(low)}, {np.max(high)}); use a wider dtype"
    )


def _lies(x: Any, least: int, most: int) -> bool:
    """Whether an end of randint lies in [least, most] in every lane that takes part."""
    if isinstance(x, int):
        return least <= x <= most
    if payload(x) is None:
        return True  # a linear function is being recorded: there are no values
    own = np.iinfo(name_of(dtype_of(x)))  # where the dtype itself keeps to the bound, nothing waits for a device
    return (own.min >= least or hold(ew.greater_equal(x, least))) and (own.max <= most or hold(ew.less_equal(x, most)))


def _below(x: Any, y: Any) -> bool:
    """Whether one end of randint is below the other in every lane that takes part."""
    if not isinstance(x, Tracer) and not isinstance(y, Tracer):
        return bool(np.all(c.on_host(x) < c.on_host(y)))
    if not all([type(payload(v)) in HOST_TYPES for v in (x, y)]):
        return True  # asking would wait for a device; or there are no values
    return hold(ew.less(x, y))
