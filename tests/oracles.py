"""Answers that owe nothing to the library: differences, complex steps, inner products, loops.

Every oracle works on pytrees of NumPy arrays and on functions of plain NumPy code.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import optree

Tree = Any


def leaves(tree: Tree) -> list:
    """The leaves of a tree as arrays."""
    return [np.asarray(x) for x in optree.tree_leaves(tree)]


def vector(tree: Tree) -> np.ndarray:
    """All entries of a tree in one line."""
    parts = [np.ravel(x) for x in leaves(tree)]
    return np.concatenate(parts) if parts else np.zeros(0)


def inner(a: Tree, b: Tree) -> float:
    """Re⟨a, b⟩ = Re Σ conj(a) b over all leaves, in double precision."""
    wide = [
        np.sum(np.conj(np.asarray(x, np.result_type(np.asarray(x).dtype, np.float64))) * y)
        for x, y in zip(leaves(a), leaves(b), strict=True)
    ]
    return float(np.real(sum(wide)))


def random_like(rng: np.random.Generator, tree: Tree) -> Tree:
    """A random tree of the same shapes and dtypes, entries about one in size."""

    def draw(x: Any) -> Any:
        x = np.asarray(x)
        values = rng.uniform(0.3, 1.2, x.shape) * rng.choice([-1.0, 1.0], x.shape)
        if x.dtype.kind == "c":
            values = values + 1j * rng.uniform(-1.0, 1.0, x.shape)
        return np.asarray(values, x.dtype)

    return optree.tree_map(draw, tree)


def close(found: Any, wanted: Any, allowed: float, what: str = "") -> None:
    """Fails where two arrays differ in shape or by more than `allowed` times the largest entry."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, f"{what}: shape {found.shape}, wanted {wanted.shape}"
    if not wanted.size:
        return
    if wanted.dtype.kind == "b":
        found, wanted = found.astype(int), wanted.astype(int)
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):  # inf - inf, where both are the same infinity
        gaps = np.where(same, 0.0, np.abs(found - wanted * np.ones((), found.dtype)))
    finite = np.abs(wanted[np.isfinite(wanted)])
    bound = allowed * max(float(finite.max(initial=0.0)), 1.0)
    worst = float(np.max(gaps))
    assert worst <= bound, f"{what}: error {worst:.3e}, allowed {bound:.1e}\n{found}\nwanted\n{wanted}"


def close_trees(found: Tree, wanted: Tree, allowed: float, what: str = "") -> None:
    """The same leaf by leaf; the containers must agree too."""
    have, want = optree.tree_structure(found), optree.tree_structure(wanted)
    assert have == want, f"{what}: structure {have}, wanted {want}"
    for x, y in zip(leaves(found), leaves(wanted), strict=True):
        close(x, y, allowed, what)


def moved(xs: Tree, ts: Tree, h: complex) -> Tree:
    """xs + h ts, leaf by leaf."""
    return optree.tree_map(lambda x, t: x + h * t, xs, ts)


def central_difference(f: Callable, xs: tuple, ts: tuple, h: float = 2e-4) -> Tree:
    """d/dh f(xs + h ts) at 0 by four evaluations: error h⁴/30 times the fifth derivative."""
    near = [optree.tree_map(np.asarray, f(*moved(xs, ts, k * h))) for k in (-2, -1, 1, 2)]
    return optree.tree_map(lambda a, b, c, d: ((a - d) + 8 * (c - b)) / (12 * h), *near)


def complex_step(f: Callable, xs: tuple, ts: tuple) -> Tree:
    """d/dh f(xs + h ts) at 0 for an f that is analytic in real xs: exact to rounding."""
    h = 1e-30
    return optree.tree_map(lambda y: np.imag(y) / h, f(*moved(xs, ts, 1j * h)))


def numeric_jacobian(f: Callable, xs: tuple, at: int = 0) -> np.ndarray:
    """Jacobian of f's single output with respect to xs[at], shape output + input."""
    x = np.asarray(xs[at])
    columns = []
    for i in range(x.size):
        t = np.zeros(x.size, x.dtype)
        t[i] = 1
        ts = tuple(t.reshape(x.shape) if k == at else np.zeros_like(v) for k, v in enumerate(xs))
        columns.append(np.asarray(central_difference(f, xs, ts)))
    if not columns:
        return np.zeros((*np.shape(f(*xs)), *x.shape))
    return np.stack(columns, -1).reshape(*columns[0].shape, *x.shape)


def lanes(args: tuple, in_dims: tuple, i: int) -> tuple:
    """The arguments of lane i; an entry of None in in_dims is shared."""
    return tuple(x if d is None else np.take(x, i, axis=d) for x, d in zip(args, in_dims, strict=True))


def loop(f: Callable, args: tuple, in_dims: tuple, size: int) -> Tree:
    """What vmap must give: one call per lane, the results stacked along a new first axis."""
    rows = [f(*lanes(args, in_dims, i)) for i in range(size)]
    return optree.tree_map(lambda *parts: np.stack([np.asarray(p) for p in parts]), *rows)
