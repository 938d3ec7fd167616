"""vmap of a function against a loop: many axes in and out, unmapped operands, chunks, two levels."""

from collections.abc import Callable
from typing import Any

import numpy as np

import gpujac as gj
from tests.transforms import helpers as h


def stacked(trees: list, axis: int = 0) -> Any:
    """Leaves of several trees stacked."""
    return gj.trees.map(lambda *xs: np.stack(xs, axis), *trees)


def check_lanes(f: Callable, *args: Any, size: int = 3, tolerance: float = 1e-14) -> None:
    """f of one example, mapped in many ways over examples made from `args`, equals a loop."""
    lanes = [[_moved(x, k) for x in args] for k in range(size)]
    once = lambda *xs: f(*[np.copy(x) for x in xs])  # f may write into its arguments
    want = stacked([once(*lane) for lane in lanes])
    batch = [np.stack([lane[i] for lane in lanes]) for i in range(len(args))]
    h.assert_close(gj.vmap(f)(*batch), want, tolerance)
    h.assert_close(gj.vmap(f, chunk_size=2)(*batch), want, tolerance)
    last = [np.stack([lane[i] for lane in lanes], -1) for i in range(len(args))]
    found = gj.vmap(f, in_dims=-1, out_dims=-1)(*last)
    h.assert_close(found, gj.trees.map(lambda y: np.moveaxis(y, 0, -1), want), tolerance)
    for i in range(len(args) if len(args) > 1 else 0):  # one operand mapped, the others shared
        some = [batch[j] if i == j else x for j, x in enumerate(args)]
        in_dims = tuple(0 if i == j else None for j in range(len(args)))
        alone = stacked([once(*[batch[j][k] if i == j else x for j, x in enumerate(args)]) for k in range(size)])
        h.assert_close(gj.vmap(f, in_dims=in_dims)(*some), alone, tolerance)
    twice = [np.stack([b, b[::-1]], 1) for b in batch]
    found = gj.vmap(gj.vmap(f), in_dims=1, out_dims=1)(*twice)
    h.assert_close(found, gj.trees.map(lambda y: np.stack([y, y[::-1]], 1), want), tolerance)


def _moved(x: Any, k: int) -> Any:
    """Lane k of an operand: floats are moved a little, integers and booleans rolled."""
    x = np.asarray(x)
    if x.dtype.kind in "fc":
        return (x + 0.1 * k * np.cos(np.arange(x.size)).reshape(x.shape)).astype(x.dtype)
    return np.roll(x, k)
