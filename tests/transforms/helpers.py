"""Oracles and sample functions that all tests of the transforms share."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import optree

EXACT = 1e-10  # two routes to the same derivative in float64
DIFFERENCE = 2e-7  # against central differences in float64

Pair = namedtuple("Pair", "left right")


def leaves(tree: Any) -> list[Any]:
    """The leaves of a tree."""
    return optree.tree_leaves(tree)


def vector(tree: Any) -> np.ndarray:
    """All leaves in one line."""
    flat = [np.ravel(leaf) for leaf in leaves(tree)]
    return np.concatenate(flat) if flat else np.zeros(0)


def unvector(tree: Any, line: np.ndarray) -> Any:
    """The inverse of `vector`: a tree like `tree` with the entries of `line`."""
    flat, spec = optree.tree_flatten(tree)
    out, start = [], 0
    for leaf in flat:
        n = np.size(leaf)
        out.append(line[start : start + n].reshape(np.shape(leaf)))
        start += n
    return optree.tree_unflatten(spec, out)


def random_like(tree: Any, rng: np.random.Generator) -> Any:
    """A random tree of the same shapes, complex where the leaf is complex."""

    def draw(leaf: Any) -> np.ndarray:
        x = np.asarray(rng.standard_normal(np.shape(leaf)))
        if np.iscomplexobj(leaf):
            x = x + 1j * rng.standard_normal(np.shape(leaf))
        return x.astype(np.asarray(leaf).dtype)

    return optree.tree_map(draw, tree)


def difference_matrix(f: Any, *args: Any) -> np.ndarray:
    """d vector(f(*args)) / d vector(args) by central differences."""
    x = vector(args).astype(float)
    columns = []
    for i in range(x.size):
        step = 1e-6 * max(1.0, abs(x[i]))
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        ends = [vector(f(*unvector(args, v))) for v in (up, down)]
        columns.append((ends[0] - ends[1]) / (up[i] - down[i]))
    return np.stack(columns, axis=1) if columns else np.zeros((vector(f(*args)).size, 0))


def matrix_of(jacobian: Any, output: Any, args: tuple) -> np.ndarray:
    """A Jacobian tree (argnums a tuple) as one matrix, outputs by inputs."""
    rows = [np.size(y) for y in leaves(output)]
    columns = [np.size(x) for x in leaves(args)]
    blocks = iter(leaves(jacobian))
    matrix = [[np.reshape(next(blocks), (m, n)) for n in columns] for m in rows]
    assert next(blocks, None) is None
    return np.block(matrix) if matrix else np.zeros((0, 0))


def assert_close(a: Any, b: Any, tolerance: float = EXACT) -> None:
    """The same structure, the same shapes, and entries equal relative to the largest one."""
    assert optree.tree_structure(a) == optree.tree_structure(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        assert np.shape(x) == np.shape(y)
        size = max(1.0, float(np.max(np.abs(y)))) if np.size(y) else 1.0
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * size)


def assert_same_bits(a: Any, b: Any) -> None:
    """Equal bit for bit, dtypes included; -0.0 differs from 0.0."""
    assert optree.tree_structure(a) == optree.tree_structure(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert x.tobytes() == y.tobytes()


def assert_owned(results: Any, *others: Any) -> None:
    """Arrays are C-contiguous and share no memory with `others`."""
    for x in leaves(results):
        if isinstance(x, np.ndarray):
            assert x.flags.c_contiguous
            assert getattr(x.flags, "writeable", True)  # CuPy's arrays always are
            assert not any(np.may_share_memory(x, other) for other in leaves(others))


def owner_bytes(x: Any) -> int:
    """The size of the array that owns the memory of `x`."""
    owner = x if x.base is None else x.base
    return getattr(owner, "nbytes", None) or owner.size  # a block of emulated memory counts its bytes


def inner(a: Any, b: Any) -> float:
    """Re<a, b> over all leaves."""
    return float(np.real(np.vdot(vector(a), vector(b))))


# Sample functions: (name, f, args). All leaves float64, any curvature, several containers.

_W = np.reshape(np.linspace(-1.0, 1.0, 12), (3, 4))


def stencil(u: Any) -> Any:
    """A buffer filled by slices."""
    du = np.zeros_like(u)
    du[1:-1] = u[2:] - 2 * u[1:-1] + u[:-2] + u[1:-1] ** 2
    return du


def layers(p: Any) -> Any:
    """A dict of weights to a dict of outputs."""
    hidden = np.tanh(p["w"] @ p["x"] + p["b"])
    return {"h": hidden, "energy": (hidden**2).sum()}


def two(x: Any, y: Any) -> Any:
    """Two arguments, two outputs, one of them a reshaped slice."""
    return (x * np.sin(y[0]), np.stack([y[1:], np.exp(y[1:])]) * x.sum())


def scalars(a: Any, b: Any) -> Any:
    """0-d all the way."""
    return a * np.exp(b) + b**3


def gathers(x: Any) -> Any:
    """Integer arrays, repeated reads, concatenation."""
    return np.concatenate([x[[0, 2, 0]] * x[-1], np.cumsum(x), _W @ x])


SAMPLES = [
    ("stencil", stencil, (np.linspace(0.1, 1.2, 5),)),
    ("layers", layers, ({"w": _W * 0.7, "x": np.arange(4.0) / 3, "b": np.ones(3)},)),
    ("two", two, (np.array([[0.3, -0.7]]), np.array([1.1, 0.4, -0.2]))),
    ("scalars", scalars, (np.array(0.7), np.array(-0.4))),
    ("gathers", gathers, (np.array([0.5, -1.5, 2.0, 0.25]),)),
    ("pairs", lambda p: Pair(p.left * p.right, OrderedDict(z=p.left.sum(), a=p.right**2)),
     (Pair(np.array([1.0, -2.0]), np.array([0.5, 3.0])),)),
]  # fmt: skip
IDS = [name for name, _, _ in SAMPLES]


def scalar_of(f: Any) -> Any:
    """A curved scalar of all outputs of `f`."""

    def total(*args: Any) -> Any:
        parts = [np.sum(y * np.reshape(np.cos(np.arange(1.0 * np.size(y))), np.shape(y)) + y * y / 2)
                 for y in leaves(f(*args))]  # fmt: skip
        return sum(parts[1:], parts[0])

    return total
