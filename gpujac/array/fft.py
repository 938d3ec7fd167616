"""Fourier transforms with the signatures of numpy.fft: lengths, axes, norms, real input and output."""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import fill, shape
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.trace import payload
from gpujac.errors import ArgumentError, DTypeError, ShapeError
from gpujac.ops import fft as ff
from gpujac.ops.structure import CONJ, cast

_PARTS = {
    "complex64": "float32", "complex128": "float64", "float32": "complex64", "float64": "complex128",
    "float128": "complex256", "complex256": "float128", "float96": "complex192", "complex192": "float96",
}  # fmt: skip
_NORMS = (None, "backward", "ortho", "forward")


def _other(x: Any) -> Any:
    """The complex dtype of real numbers of that width, and the other way round."""
    dtype = dtype_of(x)
    name = _PARTS.get(str(dtype).rpartition(".")[2], "complex128")
    target = payload(x)
    return np.dtype(name) if target is None or isinstance(dtype, np.dtype) else getattr(backend_of(target).xp, name)


def _real(x: Any, what: str) -> Any:
    x = c.floating(c.lift(x))
    if kind(x.dtype) == "c":
        raise DTypeError(f"{what}: needs a real array, found {x.dtype}; use fft, or give the real part")
    return c.astype(x, np.float32) if str(x.dtype).endswith("float16") else x


def _complex(x: Any) -> Any:
    x = c.floating(c.lift(x))
    if kind(x.dtype) == "c":
        return x
    x = _real(x, "fft")
    return cast(x.dtype, _other(x))(x)


def _scaled(y: Any, count: int, norm: Any, inverse: bool) -> Any:
    """`y` divided by the number of entries, its root or nothing, as the norm has it."""
    if norm not in _NORMS:
        raise ArgumentError(f"fft: norm={norm!r} is not one of 'backward', 'ortho', 'forward'")
    if norm == "ortho":
        return y * (1.0 / math.sqrt(count))
    return y * (1.0 / count) if inverse is (norm != "forward") else y


def _fitted(x: Any, axis: int, n: int) -> Any:
    """`x` cut to `n` entries along an axis, or filled up with zeros."""
    have = x.shape[axis]
    if have == n:
        return x
    widths = [(0, n - have) if i - len(x.shape) == axis else (0, 0) for i in range(len(x.shape))]
    return fill.bordered(x, widths)


def _length(n: Any, x: Any, axis: int) -> int:
    size = x.shape[axis] if n is None else operator.index(n)
    if size < 1:
        raise ShapeError(f"fft: {size} points along axis {axis} of shape {tuple(x.shape)}; use 1 or more")
    return size


def _axes(x: Any, s: Any, axes: Any, what: str) -> tuple[list[int], list[int]]:
    """The axes (from the end) in the order given, and the length along each."""
    rank, s = len(x.shape), None if s is None else [operator.index(n) for n in s]
    if s is not None and len(s) > rank:
        raise ShapeError(f"{what}: s={tuple(s)} names more axes than shape {tuple(x.shape)} has")
    if axes is None:
        axes = range(rank) if s is None else range(rank - len(s), rank)
    at = [c.axis_of(a, rank, what) for a in axes]
    if s is not None and len(s) != len(at):
        raise ShapeError(f"{what}: s={tuple(s)} has another length than axes={tuple(at)}")
    sizes = [None] * len(at) if s is None else [None if n == -1 else n for n in s]
    return at, [_length(n, x, a) for n, a in zip(sizes, at, strict=True)]


def _many(x: Any, s: Any, axes: Any, norm: Any, inverse: bool, what: str) -> Any:
    x = _complex(x)
    at, sizes = _axes(x, s, axes, what)
    for a, n in zip(at, sizes, strict=True):
        x = _fitted(x, a, n)
    for a in dict.fromkeys(at):  # an axis named twice is transformed twice
        times = at.count(a)
        for _ in range(times - 1):
            x = ff.fourier(tuple(x.shape), (a,), inverse)(x)
    once = tuple(sorted(set(at)))
    y = ff.fourier(tuple(x.shape), once, inverse)(x) if once else x
    return _scaled(y, math.prod(sizes), norm, inverse)


def fft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """Fourier transform along an axis."""
    c.refuse("fft", out=out)
    return _along(a, n, axis, norm, False, "fft")


def ifft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """Inverse Fourier transform along an axis."""
    c.refuse("ifft", out=out)
    return _along(a, n, axis, norm, True, "ifft")


def _along(a: Any, n: Any, axis: int, norm: Any, inverse: bool, what: str) -> Any:
    x = c.lift(a)
    count = _length(n, x, c.axis_of(axis, len(shape_of(x)), what))
    return _many(x, (count,), (axis,), norm, inverse, what)


def fftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """Fourier transform along several axes."""
    c.refuse("fftn", out=out)
    return _many(a, s, axes, norm, False, "fftn")


def ifftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """Inverse Fourier transform along several axes."""
    c.refuse("ifftn", out=out)
    return _many(a, s, axes, norm, True, "ifftn")


def rfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """The first half of the spectrum of a real array."""
    c.refuse("rfft", out=out)
    x = _real(a, "rfft")
    at = c.axis_of(axis, len(x.shape), "rfft")
    count = _length(n, x, at)
    x = _fitted(x, at, count)
    return _scaled(ff.real_fourier(tuple(x.shape), at, x.dtype, _other(x))(x), count, norm, False)


def irfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """The real array of which `a` is the first half of the spectrum."""
    c.refuse("irfft", out=out)
    x = _complex(a)
    at = c.axis_of(axis, len(x.shape), "irfft")
    count = 2 * (x.shape[at] - 1) if n is None else operator.index(n)
    if count < 1:
        raise ShapeError(f"irfft: {count} points along axis {axis} of shape {tuple(x.shape)}; use 1 or more")
    x = _fitted(x, at, count // 2 + 1)
    weights = np.ones(count // 2 + 1)
    weights[1 : (count + 1) // 2] = 2.0  # what the other half of the spectrum adds
    twice = c.astype(c.placed(weights.reshape(-1, *(1,) * (-1 - at)), x), _other(x))
    dst = (*x.shape[:at], count, *(x.shape[at + 1 :] if at != -1 else ()))
    back = ff.real_fourier(tuple(dst), at, _other(x), x.dtype).transposed
    return _scaled(back(x * twice), count, norm, True)


def rfftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """Transform of a real array: the last of the axes keeps half of its spectrum."""
    c.refuse("rfftn", out=out)
    x = _real(a, "rfftn")
    at, sizes = _axes(x, s, axes, "rfftn")
    y = rfft(x, sizes[-1], at[-1], norm)
    return fftn(y, sizes[:-1], at[:-1], norm) if len(at) > 1 else y


def irfftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """The real array whose `rfftn` is `a`."""
    c.refuse("irfftn", out=out)
    x = _complex(a)
    at, sizes = _axes(x, s, axes, "irfftn")
    last = 2 * (x.shape[at[-1]] - 1) if s is None else sizes[-1]  # -1 is the length as it is, here too
    y = ifftn(x, sizes[:-1], at[:-1], norm) if len(at) > 1 else x
    return irfft(y, last, at[-1], norm)


def fft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: Any = None, out: Any = None) -> Any:
    """Fourier transform along two axes."""
    return fftn(a, s, axes, norm, out)


def ifft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: Any = None, out: Any = None) -> Any:
    """Inverse Fourier transform along two axes."""
    return ifftn(a, s, axes, norm, out)


def rfft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: Any = None, out: Any = None) -> Any:
    """Transform of a real array along two axes."""
    return rfftn(a, s, axes, norm, out)


def irfft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: Any = None, out: Any = None) -> Any:
    """The real array whose `rfft2` is `a`."""
    return irfftn(a, s, axes, norm, out)


_SWAPPED = {None: "forward", "backward": "forward", "ortho": "ortho", "forward": "backward"}


def hfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """The real spectrum of a signal that is Hermitian, given by its first half."""
    return irfft(CONJ(_complex(a)), n, axis, _swapped(norm), out)


def ihfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """The first half of the Hermitian signal with that real spectrum."""
    return CONJ(rfft(_real(a, "ihfft"), n, axis, _swapped(norm), out))


def _swapped(norm: Any) -> Any:
    return _SWAPPED.get(norm, norm)


def fftshift(x: Any, axes: Any = None) -> Any:
    """Frequency zero moved to the middle."""
    return _rolled(x, axes, lambda n: n // 2)


def ifftshift(x: Any, axes: Any = None) -> Any:
    """Frequency zero moved from the middle to the front."""
    return _rolled(x, axes, lambda n: -(n // 2))


def _rolled(x: Any, axes: Any, by: Callable[[int], int]) -> Any:
    at = c.axes_of(axes, len(x.shape), "fftshift")
    return shape.roll(x, tuple(by(x.shape[a]) for a in at), at) if at else c.unshared(x)


NAMES: dict[str, Callable] = {
    f.__name__: f
    for f in (fft, ifft, fft2, ifft2, fftn, ifftn, rfft, irfft, rfft2, irfft2, rfftn, irfftn, hfft, ihfft, fftshift,
              ifftshift)
}  # fmt: skip
