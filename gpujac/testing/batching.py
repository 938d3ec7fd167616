"""vmap of a function against a loop over its lanes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac.core.finite import on_host
from gpujac.errors import ConcretizationError
from gpujac.testing.flat import Flat, flat_of, like
from gpujac.testing.report import check_allowed, check_count, compare, factor, largest, tolerance
from gpujac.transforms.vmap import vmap


def check_batching(f: Callable, args: tuple, *, size: int = 3, allowed: float | None = None, seed: int = 0) -> None:
    """Checks that `vmap(f)` equals a loop of `f` over the lanes.

    The lanes are `args`, each with its floating entries changed a little. Mapped are all floating leaves
    at the first axis, all at the last one (results too), in chunks, and each one alone beside the others
    unmapped.

    Args:
        f: callable of arrays and pytrees of any library; other leaves are shared by all lanes.
        args: tuple of its arguments, at least one floating leaf.
        size: number of lanes, at least 2.
        allowed: relative error (default: by dtype, `TOLERANCES[...].same`).
        seed: of the random changes.

    Returns:
        None.

    Raises:
        ArgumentError: a size or tolerance with which nothing could fail.
        AssertionError: a lane differs; the message names the leaf, its entry and both values.
        ConcretizationError: f asks for the value of a mapped array.

    Cost: 2 size + 3 runs of f, and 1 + size more per leaf where there are several.

    Example:
        >>> import numpy as np
        >>> from gpujac.testing import check_batching
        >>> check_batching(lambda x, y: np.outer(x, y), (np.ones(2), np.arange(3.0)))
    """
    check_count("check_batching", "size", size, 2)
    check_allowed("check_batching", allowed)
    check_lanes("check_batching", flat_of("check_batching", f, args), size, allowed, np.random.default_rng(seed))


def check_lanes(what: str, flat: Flat, size: int, allowed: float | None, rng: np.random.Generator) -> None:
    """The same for a flat function."""
    lanes = [[_near(x, rng) for x in flat.xs] for _ in range(size)]
    stacked = [np.stack([on_host(lane[i]) for lane in lanes]) for i in range(len(flat.xs))]
    everything = list(range(len(flat.xs)))
    for axis, chunk in ((0, None), (-1, None), (0, size - 1)):
        _check_some(what, flat, everything, stacked, axis, chunk, allowed)
    for i in everything if len(everything) > 1 else []:
        _check_some(what, flat, [i], stacked, 0, None, allowed)


def _check_some(what: str, flat: Flat, mapped: list[int], stacked: list, axis: int, chunk: int | None,
                allowed: float | None) -> None:  # fmt: skip
    """vmap over some of the leaves against the loop."""
    size = len(stacked[0])
    rows = [
        flat.values([like(stacked[i][k], x) if i in mapped else x for i, x in enumerate(flat.xs)]) for k in range(size)
    ]
    expected = [np.stack(ys, axis) for ys in zip(*rows, strict=True)]
    xs = [like(np.moveaxis(stacked[i], 0, axis), x) if i in mapped else x for i, x in enumerate(flat.xs)]
    in_dims = tuple(axis if i in mapped else None for i in range(len(xs)))
    try:
        with np.errstate(all="ignore"):
            found = vmap(flat.fn, in_dims, axis, chunk_size=chunk)(*xs)
    except ConcretizationError as error:
        error.add_note(f"{what}: vmap of {flat.label} was asked for; batching=False leaves it out")
        raise
    mode = f"axis {axis}" + (f", chunk_size={chunk}" if chunk else "")
    names = [flat.ins[i] for i in mapped]
    check = f"{what}: vmap of {flat.label} over {', '.join(names)} ({mode}) against a loop"
    allowed = tolerance(expected).same if allowed is None else allowed
    floor = allowed * largest(expected) * 1e-2
    compare(check, flat.outs, [on_host(y) for y in found], expected, allowed, [floor] * len(expected), _why)


def _near(x: Any, rng: np.random.Generator) -> Any:
    values = on_host(x)
    return like(values * (1 + 0.01 * rng.uniform(-1, 1, values.shape)), x)


def _why(found: np.ndarray, expected: np.ndarray) -> str:
    size = len(expected)
    if not np.isfinite(found).all():
        return ""
    if found.ndim and size and found.shape == expected.shape and np.ptp(found, axis=0).max(initial=0.0) == 0:
        return "all lanes are equal: the batching rule drops the mapped axis"
    for axis in range(1, expected.ndim):
        if found.shape[axis] == size and np.allclose(np.swapaxes(found, 0, axis), expected):
            return f"the batching rule puts the mapped axis at {axis}"
    return factor(found, expected)
