"""Derivatives that owe nothing to the library: central differences, and complex steps where f is analytic."""

from typing import Any, NamedTuple

import numpy as np

from gpujac.backends.choose import backend_of
from gpujac.backends.host import SCALARS
from gpujac.core.aval import dtype_of
from gpujac.core.finite import on_host
from gpujac.errors import ArgumentError
from gpujac.testing.flat import Flat

_STEP = {8: 2e-4, 4: 2e-2, 2: 1e-1}  # of the point's own size, by the bytes of a real number
_SMALLER = 8.0  # the next step, where one was too wide for f
_STEPS = {8: 8, 4: 3, 2: 2}  # how many are tried
_CLOSE = {8: 1e-4, 4: 1e-2, 2: 3e-2}  # of slopes of second and fourth order; the latter's error is its square
_TINY = 1e-30  # of a complex step: no digits are lost, whatever the size
_WIDE = {"float16": "float64", "float32": "float64", "complex64": "complex128"}


class Slope(NamedTuple):
    """The derivative along one direction, and what rounding in the differences may have added per output."""

    values: list[np.ndarray]
    noise: list[float]
    how: str  # "central differences" or "a complex step"


class Oracle:
    """Directional derivatives of one function, in double precision where f takes it."""

    def __init__(self, flat: Flat, names: str) -> None:
        self.flat = flat
        self.step = 0.0  # of the latest differences
        self.ys = flat.values()
        self.xs = self._wide(flat.xs) or flat.xs
        self.bytes = min(_real_bytes(on_host(v).dtype) for v in (*self.xs, *self.ys))
        if self.xs is not flat.xs:
            self.bytes = 8
        if not all(np.isfinite(y).all() for y in self.ys):
            raise ArgumentError(f"{names}: {flat.label} is not finite at args; choose another point")

    def _wide(self, xs: list) -> list | None:
        """The point in double precision, if f gives the same there, only more precisely."""
        names = [str(dtype_of(x)).rpartition(".")[2] for x in xs]
        if not any(name in _WIDE for name in names):
            return None
        wide = [_cast(x, _WIDE[name]) if name in _WIDE else x for x, name in zip(xs, names, strict=True)]
        try:
            ys = self.flat.values(wide)
        except Exception:  # f is made for its own dtype: differences are then taken in that one
            return None
        close = all(
            y.shape == narrow.shape and _real_bytes(y.dtype) == 8 and _near(y, narrow, 1e-2 if y.size else 1.0)
            for y, narrow in zip(ys, self.ys, strict=True)
        )
        return wide if close else None

    def along(self, ts: list) -> Slope:
        """The derivative along `ts` by four differences, or by a complex step that agrees with them.

        The first step is a part of the point's size. Where f varies faster than that, slopes of second and
        of fourth order differ, and smaller steps are tried: the best of them counts.
        """
        best: tuple | None = None
        for k in range(_STEPS[self.bytes]):
            h = _STEP[self.bytes] / _SMALLER**k
            slopes, noise, error, enough = self._differences(ts, h)
            if best is None or enough or error < best[0]:
                best = error, h, slopes, noise
            if enough:
                break
        assert best is not None
        _, h, slopes, noise = best
        self.step = h
        exact = self._stepped(ts)
        if exact and all(_near(e, s, 1e-4, n) for e, s, n in zip(exact, slopes, noise, strict=True)):
            return Slope(exact, [n * h for n in noise], "a complex step")
        return Slope(slopes, noise, "central differences")

    def _differences(self, ts: list, h: float) -> tuple[list, list, float, bool]:
        """Slopes by four differences, what rounding adds, their error, and whether it is small enough."""
        a, b, c, d = (self._moved(ts, k * h) for k in (-2, -1, 1, 2))
        epsilon = {8: 1e-16, 4: 6e-8, 2: 5e-4}[self.bytes]
        noise = [20 * epsilon * float(np.abs(y).max(initial=0.0)) / h for y in self.ys]
        slopes, error, enough = [], 0.0, True
        for p, q, r, s, n in zip(a, b, c, d, noise, strict=True):
            with np.errstate(all="ignore"):
                slope = ((p - s) + 8 * (r - q)) / (12 * h)
                apart = float(np.abs(slope - (r - q) / (2 * h)).max(initial=0.0))
            slopes.append(slope)
            size = float(np.abs(slope).max(initial=0.0))
            enough = enough and apart <= max(_CLOSE[self.bytes] * size, n)  # False for NaN
            relative = (apart + n) / size if size else 0.0
            error = max(error, relative if np.isfinite(relative) else np.inf)
        return slopes, noise, error, enough

    def _stepped(self, ts: list) -> list[np.ndarray] | None:
        """The complex step, where f takes complex arrays; None where it does not."""
        if self.bytes < 8 or any(on_host(v).dtype.kind == "c" for v in (*self.xs, *self.ys)):
            return None
        try:
            ys = self._moved(ts, 1j * _TINY)
        except Exception:  # f is for real numbers only
            return None
        return [np.imag(y) / _TINY for y in ys]

    def _moved(self, ts: list, h: complex) -> list[np.ndarray]:
        """The results at the point plus h ts."""
        return self.flat.values([_moved(x, t, h) for x, t in zip(self.xs, ts, strict=True)])

    def kink(self, ts: list) -> bool:
        """Whether slopes from the two sides differ: f has a kink or a jump within a step of the point."""
        h = self.step
        left, right = self._moved(ts, -h), self._moved(ts, h)
        return any(
            not _near((r - y) / h, (y - p) / h, 0.05, 0.02 * float(np.abs(r - p).max(initial=0.0)) / h)
            for p, y, r in zip(left, self.flat.values(self.xs), right, strict=True)
        )


def _near(a: np.ndarray, b: np.ndarray, relative: float, noise: float = 0.0) -> bool:
    """Whether two arrays agree relative to their largest entry."""
    bound = relative * float(np.abs(b).max(initial=0.0)) + noise
    return a.shape == b.shape and bool(np.isfinite(a).all()) and float(np.abs(a - b).max(initial=0.0)) <= bound


def _real_bytes(dtype: Any) -> int:
    return min(8, dtype.itemsize // (2 if dtype.kind == "c" else 1))  # of longer ones no more digits are asked


def _cast(x: Any, name: str) -> Any:
    if x.__class__ in SCALARS:
        return np.asarray(x, name)
    backend = backend_of(x)
    return backend.cast(x, getattr(backend.xp, name))


def _moved(x: Any, t: Any, h: complex) -> Any:
    """x + h t, in the dtype of x unless h is complex."""
    if str(dtype_of(t)) != str(dtype_of(x)) and x.__class__ not in SCALARS:
        t = backend_of(x).cast(t, dtype_of(x))
    return x + t * h
