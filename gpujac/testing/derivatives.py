"""Forward and reverse derivatives of a function against differences, of any order, and their batching."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpujac.core.finite import on_host
from gpujac.errors import ArgumentError
from gpujac.testing.batching import check_lanes
from gpujac.testing.flat import Flat, directions, flat_of, like
from gpujac.testing.oracle import Oracle, Slope
from gpujac.testing.report import check_allowed, check_count, compare, factor, largest, tolerance
from gpujac.transforms.jvp import jvp
from gpujac.transforms.vjp import linearize, vjp

MODES = ("fwd", "rev")


def check_derivatives(f: Callable, args: tuple, *, order: int = 1, modes: Sequence[str] = MODES,
                      batching: bool = True, samples: int = 2, allowed: float | None = None,
                      seed: int = 0) -> None:  # fmt: skip
    """Checks the derivatives of `f` at `args` in both modes, and under vmap.

    Along random directions, in every floating leaf at once and (at order 1) in each alone: the value under a
    transform is that of a plain call; `jvp` and `linearize` equal central differences (a complex step, which
    is exact, where f takes complex arrays and agrees with the differences); Re⟨ct, J t⟩ = Re⟨vjp(ct), t⟩ with
    J t from the same differences; both are linear; vmap of f, of its jvp and of its pullback equal a loop.
    Each further order does the same to the derivatives of the order before. Where the point is float32,
    differences are taken in float64 if f takes that.

    Args:
        f: callable of arrays and pytrees of any library. Integer and other leaves are held fixed.
        args: tuple of its arguments: a point where f is smooth.
        order: highest order to check, at least 1. The cost doubles with each if both modes are checked.
        modes: some of "fwd" and "rev".
        batching: whether vmap is checked; leave it out if f asks for values (`if`, `.item()`).
        samples: number of random directions.
        allowed: relative error of a derivative (default: by dtype, `TOLERANCES[...].step`).
        seed: of the random directions.

    Returns:
        None.

    Raises:
        AssertionError: the message says which check failed, for which leaf and entry, both values, the
            relative error, and a likely reason: a wrong sign or factor, a zero, a kink nearby, rounding
            in float32, a function that is not deterministic.
        ArgumentError: nothing to differentiate, f is not finite at the point, or an option with which
                nothing could fail.

    Cost: about 10 evaluations of f and as many sweeps per sample, and per leaf where there are several,
        without batching.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> from gpujac.testing import check_derivatives
        >>> check_derivatives(lambda p: np.tanh(p["w"] @ p["x"]), ({"w": np.eye(2), "x": np.ones(2)},))
        >>> cube = gj.custom_jvp(lambda x: x**3)
        >>> _ = cube.defjvp(lambda primals, tangents: (primals[0] ** 3, 2 * primals[0] ** 2 * tangents[0]))
        >>> check_derivatives(cube, (np.array([1.0, 2.0]),))
        Traceback (most recent call last):
            ...
        AssertionError: ... found ..., expected ... Likely reason: the result is 0.6667 times what it should be
    """
    check_count("check_derivatives", "order", order, 1)
    check_count("check_derivatives", "samples", samples, 1)
    check_allowed("check_derivatives", allowed)
    if not isinstance(modes, (tuple, list, set, frozenset)) or not modes or any([m not in MODES for m in modes]):
        raise ArgumentError(f'check_derivatives: modes={modes!r}: choose from "fwd" and "rev", in a tuple')
    rng = np.random.default_rng(seed)
    flat = flat_of("check_derivatives", f, args)
    _Check(flat, tuple(modes), batching, samples, allowed, rng).run(1, order)


class _Check:
    """All checks of one function, and of its derivatives as functions."""

    def __init__(self, flat: Flat, modes: tuple, batching: bool, samples: int, allowed: float | None,
                 rng: np.random.Generator) -> None:  # fmt: skip
        self.flat, self.modes, self.batching, self.samples = flat, modes, batching, samples
        self.given, self.rng = allowed, rng

    def run(self, order: int, highest: int) -> None:
        """Check this order, then the derivatives as functions."""
        flat = self.flat
        self.oracle = Oracle(flat, "check_derivatives")
        arrays = [*self.oracle.ys, *[on_host(x) for x in flat.xs]]
        self.tolerance = tolerance(arrays)
        self.allowed = self.tolerance.step if self.given is None else self.given
        self.narrow = any(str(x.dtype) in ("float16", "float32", "complex64") for x in arrays)
        for number in range(1, self.samples + 1):
            self.where = f"order {order}, direction {number} of {self.samples}"
            self.ts = directions(flat.xs, self.rng)
            self._direction()
        if order == 1 and len(flat.xs) > 1:
            self._leaves_alone()
        if self.batching:
            check_lanes("check_derivatives", flat, 3, None, self.rng)
        for derivative in self._derivatives():
            if order < highest:
                again = _Check(derivative, self.modes, self.batching, self.samples, self.given, self.rng)
                again.run(order + 1, highest)
            elif self.batching:
                check_lanes("check_derivatives", derivative, 3, None, self.rng)

    def _direction(self) -> None:
        """The checks along one direction."""
        slope = self.oracle.along(self.ts)
        if "fwd" in self.modes:
            self._forward(slope)
        if "rev" in self.modes:
            self._reverse(slope)

    def _leaves_alone(self) -> None:
        """The last direction, one leaf at a time: a leaf of little effect is not lost beside the others."""
        whole = self.ts
        for i, name in enumerate(self.flat.ins):
            self.where = f"order 1, {name} alone"
            self.ts = [t if k == i else t * 0.0 for k, t in enumerate(whole)]
            self._direction()
        self.ts = whole

    def _derivatives(self) -> list[Flat]:
        """The tangent and the cotangents of the function, along fixed random arrays, as functions."""
        found = [self.flat.pushed(self.ts)] if "fwd" in self.modes else []
        return [*found, self.flat.pulled(self._cotangents())] if "rev" in self.modes else found

    def _cotangents(self) -> list:
        with np.errstate(all="ignore"):
            ys = self.flat.fn(*self.flat.xs)
        unit = [like(np.ones(on_host(y).shape), y) for y in ys]  # ones: cotangents are about one in size
        return directions(unit, self.rng)

    def _forward(self, slope: Slope) -> None:
        flat, ts = self.flat, self.ts
        with np.errstate(all="ignore"):
            ys, dys = jvp(flat.fn, tuple(flat.xs), tuple(ts))
            lin = linearize(flat.fn, *flat.xs)[1]
            recorded = [on_host(t) for t in lin(*ts)]
            scaled = [on_host(t) for t in lin(*[t * -3.0 for t in ts])]
        self._values("jvp", ys)
        found = [on_host(t) for t in dys]
        self._against(f"forward (jvp of {flat.label}) against {slope.how}", flat.outs, found, slope)
        self._alike("linearize against jvp", flat.outs, recorded, found)
        self._alike("forward: the tangent of -3 t against -3 times that of t", flat.outs, scaled,
                    [-3.0 * t for t in found])  # fmt: skip

    def _reverse(self, slope: Slope) -> None:
        flat = self.flat
        cts = self._cotangents()
        with np.errstate(all="ignore"):
            ys, pullback = vjp(flat.fn, *flat.xs)
            pulled = [on_host(c) for c in pullback(tuple(cts))]
            scaled = [on_host(c) for c in pullback(tuple(ct * -3.0 for ct in cts))]
        self._values("vjp", ys)
        self._alike("reverse: the pullback of -3 ct against -3 times that of ct", flat.ins, scaled,
                    [-3.0 * c for c in pulled])  # fmt: skip
        host_cts, host_ts = [on_host(c) for c in cts], [on_host(t) for t in self.ts]
        expected, terms = _inner(host_cts, slope.values)
        found, own = _inner(pulled, host_ts)
        noise = sum(n * float(np.abs(c).sum()) for n, c in zip(slope.noise, host_cts, strict=True))
        if abs(found - expected) <= self.allowed * max(terms, own) + noise:
            return
        self._locate(host_cts, pulled, slope)
        self._fail_products(found, expected, slope)

    def _fail_products(self, found: float, expected: float, slope: Slope) -> None:
        check = f"check_derivatives, {self.where}: reverse (vjp of {self.flat.label}): Re<vjp(ct), t> against "
        compare(check + f"Re<ct, J t> by {slope.how}", ["the inner product"], [np.array(found)], [np.array(expected)],
                0.0, [0.0], self._why)  # fmt: skip

    def _locate(self, cts: list, pulled: list, slope: Slope) -> None:
        """Fail with the leaf whose cotangent is wrong: the same products, one leaf of the point at a time."""
        for i, name in enumerate(self.flat.ins):
            alone = [t if k == i else t * 0.0 for k, t in enumerate(self.ts)]
            part = self.oracle.along(alone)
            expected, terms = _inner(cts, part.values)
            found, own = _inner(pulled[i : i + 1], [on_host(self.ts[i])])
            noise = sum(n * float(np.abs(c).sum()) for n, c in zip(part.noise, cts, strict=True))
            check = f"check_derivatives, {self.where}: reverse (vjp of {self.flat.label}): Re<vjp(ct), t> against "
            size = max(terms, own)
            compare(check + f"Re<ct, J t> by {slope.how}", [f"the inner product for {name}"], [np.array(found)],
                    [np.array(expected)], self.allowed, [self.allowed * size + noise], self._why)  # fmt: skip

    def _values(self, transform: str, ys: tuple) -> None:
        found = [on_host(y) for y in ys]
        self._alike(f"the value under {transform} against a plain call", self.flat.outs, found, self.oracle.ys)

    def _alike(self, check: str, names: list[str], found: list, expected: list) -> None:
        """Two routes to the same numbers."""
        same = self.tolerance.same
        floor = same * largest(expected) * 1e-2
        compare(f"check_derivatives, {self.where}: {check}", names, found, expected, same, [floor] * len(names),
                self._why)  # fmt: skip

    def _against(self, check: str, names: list[str], found: list, slope: Slope) -> None:
        compare(f"check_derivatives, {self.where}: {check}", names, found, slope.values, self.allowed, slope.noise,
                self._why)  # fmt: skip

    def _why(self, found: Any, expected: Any) -> str:
        """A likely reason for a wrong derivative."""
        first, second = self.flat.values(), self.flat.values()
        if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)):
            return f"{self.flat.label} is not deterministic: two calls at the same point differ"
        if self.oracle.kink(self.ts):
            return "a kink or a jump within a step of the point; choose another point"
        size = largest([expected])
        if self.narrow and size and largest([np.asarray(found - expected)]) < 30 * self.allowed * size:
            return "rounding in single or half precision; check in float64, or raise `allowed`"
        return factor(np.asarray(found), np.asarray(expected))


def _inner(a: list, b: list) -> tuple[float, float]:
    """Re⟨a, b⟩, and the sum of the moduli of its terms."""
    products = [np.conj(np.asarray(x, np.result_type(x.dtype, np.float64))) * y for x, y in zip(a, b, strict=True)]
    return float(sum(np.sum(p.real) for p in products)), float(sum(np.sum(np.abs(p)) for p in products))
