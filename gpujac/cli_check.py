"""Checks a Jacobian against central differences of the plain function in random directions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpujac import trees

__all__ = ["Check", "check_directions"]

_SEED = 20240
_DIRECTIONS = 5


@dataclass(frozen=True)
class Check:
    """The largest error found, relative to the largest entry of the derivative."""

    error: float
    tolerance: float
    directions: int

    @property
    def good(self) -> bool:
        """Whether the error is within the tolerance; a NaN is not."""
        return self.error <= self.tolerance


def check_directions(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    positions: Sequence[int],
    blocks: Sequence[Any],
    directions: int = _DIRECTIONS,
) -> Check:
    """Compares J d with (f(x + h d) - f(x - h d)) / 2h for random d.

    Args:
        f: the plain function of all arguments.
        args: the point.
        positions: the arguments that J differentiates.
        blocks: the arrays of J, output by output and in each input by input.
        directions: how many random directions; the seed is fixed.

    Returns:
        The largest error over the directions. Each direction is tried with three step sizes and
        the best one counts, since a step can be too large for the curvature or too small for the
        rounding, and no step makes a wrong Jacobian right.

    Cost:
        6 evaluations of f per direction.
    """
    leaves, spec = trees.flatten(tuple(args[i] for i in positions))
    coarse = min(np.finfo(x.dtype).eps for x in leaves) > 1e-10
    steps, tolerance = ((3e-2, 1e-2, 3e-3), 2e-2) if coarse else ((1e-4, 1e-5, 1e-6), 1e-5)
    rng = np.random.default_rng(_SEED)
    worst = 0.0
    for _ in range(directions):
        t = [_direction(rng, x) for x in leaves]
        wanted = _times(blocks, t)
        moved = _Line(f, args, positions, leaves, t, spec)
        best = min((_error(wanted, moved.slope(h)) for h in steps), key=_nan_last)
        worst = max(worst, best, key=_nan_last)
    return Check(float(worst), tolerance, directions)


@dataclass(frozen=True)
class _Line:
    """f along the line x + h t."""

    f: Callable[..., Any]
    args: tuple[Any, ...]
    positions: Sequence[int]
    leaves: Sequence[Any]
    t: Sequence[Any]
    spec: trees.Spec

    def slope(self, h: float) -> Any:
        """The central difference, all outputs in one line."""
        return (self._at(h) - self._at(-h)) / (2 * h)

    def _at(self, h: float) -> Any:
        moved = [(x + h * t).astype(x.dtype) for x, t in zip(self.leaves, self.t, strict=True)]
        chosen = iter(trees.unflatten(self.spec, moved))
        args = list(self.args)
        for i in self.positions:
            args[i] = next(chosen)
        return np.concatenate([np.ravel(y) for y in trees.flatten(self.f(*args))[0]])


def _direction(rng: np.random.Generator, x: Any) -> Any:
    """Random numbers of the size of the entries of x, so that no entry is moved too far."""
    size = np.abs(x)
    typical = size.mean() if size.size else 0.0
    return rng.standard_normal(x.shape) * (size + typical if typical > 0 else 1.0)


def _times(blocks: Sequence[Any], t: Sequence[Any]) -> Any:
    """J t: blocks stand output by output, and in each of these input by input."""
    outputs = len(blocks) // len(t) if t else 0
    rows = []
    for i in range(outputs):
        row = zip(blocks[i * len(t) : (i + 1) * len(t)], t, strict=True)
        rows.append(sum(np.reshape(b, (-1, x.size)) @ x.ravel() for b, x in row))
    return np.concatenate(rows) if rows else np.zeros(0)


def _error(found: Any, wanted: Any) -> float:
    scale = max(np.max(np.abs(wanted), initial=0.0), np.max(np.abs(found), initial=0.0))
    if scale == 0:
        return 0.0
    return float(np.max(np.abs(found - wanted), initial=0.0) / scale)


def _nan_last(error: float) -> float:
    """A NaN is worse than any number."""
    return np.inf if np.isnan(error) else error
