"""One check per transform: puts a function of the zoo through it and compares with an oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optree

import gpujac as gj
from tests.zoo.entry import Entry

EXACT = 1e-10  # two routes to the same derivative, relative to its largest entry
DIFFERENCE = 3e-7  # against central differences in float64
BATCH = 3

Tree = Any


class Case:
    """One entry at one point: `g` takes the selected arguments only, as vjp and jvp want them."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.args = entry.arguments()
        self.selected = tuple(self.args[i] for i in entry.argnums)
        self.rng = np.random.default_rng(7)
        self.sizes = optree.tree_map(lambda x: np.maximum(1.0, np.abs(x)), self.selected)
        if entry.sizes is not None:
            self.sizes = (np.array(entry.sizes), *self.sizes[1:])

    def g(self, *selected: Tree) -> Tree:
        """The function of its selected arguments; the others stay at this point."""
        args = list(self.args)
        for i, x in zip(self.entry.argnums, selected, strict=True):
            args[i] = x
        return self.entry.f(*args)

    def scalar(self, *selected: Tree) -> Any:
        """A curved scalar of all outputs, so that even a linear function has a Hessian."""
        total = 0.0
        for i, y in enumerate(optree.tree_leaves(self.g(*selected))):
            count = np.cumsum(np.ones_like(y)) - 1  # 0, 1, ... in the library of y
            weights = np.cos(count + i).reshape(y.shape)
            total = total + np.sum(weights * y) + 0.5 * np.sum(y * y)
        return total

    def random_like(self, tree: Tree) -> Tree:
        """A random tree of the same shapes."""
        return optree.tree_map(lambda x: np.asarray(self.rng.standard_normal(x.shape)), tree)

    def direction(self) -> Tree:
        """A random tangent of the selected arguments, each entry of its natural size."""
        return optree.tree_map(np.multiply, self.random_like(self.selected), self.sizes)

    def batch(self) -> Tree:
        """Selected arguments of BATCH seeds, stacked along axis 0."""
        draws = [self.entry.arguments(seed) for seed in range(BATCH)]
        picked = [tuple(d[i] for i in self.entry.argnums) for d in draws]
        return optree.tree_map(lambda *leaves: np.stack(leaves), *picked)


def vector(tree: Tree) -> np.ndarray:
    """All leaves in one line."""
    return np.concatenate([np.ravel(leaf) for leaf in optree.tree_leaves(tree)])


def inner(a: Tree, b: Tree) -> float:
    """Inner product over all leaves."""
    return float(vector(a) @ vector(b))


def close(found: Any, wanted: Any, tolerance: float, what: str) -> None:
    """Fails where two arrays differ by more than `tolerance` times the largest entry."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, f"{what}: shape {found.shape}, wanted {wanted.shape}"
    if not wanted.size:
        return
    bound = tolerance * max(np.max(np.abs(wanted)), 1e-3)
    error = np.max(np.abs(found - wanted))
    assert error <= bound, f"{what}: error {error:.2e}, allowed {bound:.2e}"


def close_trees(found: Tree, wanted: Tree, tolerance: float, what: str) -> None:
    """The same leaf by leaf; the containers must agree too."""
    a, b = optree.tree_structure(found), optree.tree_structure(wanted)
    assert a == b, f"{what}: structure {a}, wanted {b}"
    for x, y in zip(optree.tree_leaves(found), optree.tree_leaves(wanted), strict=True):
        close(x, y, tolerance, what)


def along(g: Callable[..., Tree], x: tuple, t: tuple) -> np.ndarray:
    """Central difference of g at x along t, all outputs in one line."""
    h = 6e-6
    ahead = optree.tree_map(lambda a, b: a + h * b, x, t)
    behind = optree.tree_map(lambda a, b: a - h * b, x, t)
    return (vector(g(*ahead)) - vector(g(*behind))) / (2 * h)


def numeric_jacobian(g: Callable[..., Tree], x: tuple, sizes: tuple) -> np.ndarray:
    """The whole Jacobian by central differences, (all outputs, all inputs)."""
    leaves, spec = optree.tree_flatten(sizes)
    columns = []
    for k, leaf in enumerate(leaves):
        for i, size in enumerate(np.ravel(leaf)):
            t = [np.zeros(np.shape(a)) for a in leaves]
            t[k].reshape(-1)[i] = size
            columns.append(along(g, x, optree.tree_unflatten(spec, t)) / size)
    return np.stack(columns, axis=1)


def matrix(jacobian: Tree, y: Tree, x: tuple) -> np.ndarray:
    """A tree of Jacobian blocks as one matrix; checks structure, shapes and dtypes on the way."""
    outputs, inputs = optree.tree_leaves(y), optree.tree_leaves(x)
    wanted = optree.tree_structure(y).compose(optree.tree_structure(x))
    assert optree.tree_structure(jacobian) == wanted, "structure of the Jacobian"
    blocks = iter(optree.tree_leaves(jacobian))
    rows = []
    for out in outputs:
        row = []
        for leaf in inputs:
            block = next(blocks)
            assert block.shape == np.shape(out) + np.shape(leaf), "shape of a block"
            assert block.dtype == np.float64, "dtype of a block"
            row.append(block.reshape(np.size(out), np.size(leaf)))
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows, axis=0)


def jacobian_by(case: Case, transform: Callable[..., Any], **options: Any) -> np.ndarray:
    """The Jacobian by one of the library's transforms, as a matrix."""
    jacobian = transform(case.entry.f, argnums=case.entry.argnums, **options)(*case.args)
    return matrix(jacobian, case.g(*case.selected), case.selected)


def check_jvp(case: Case) -> None:
    t = case.direction()
    y, dy = gj.jvp(case.g, case.selected, t)
    close_trees(y, case.g(*case.selected), EXACT, "value")
    close(vector(dy), along(case.g, case.selected, t), DIFFERENCE, "tangent")


def check_vjp(case: Case) -> None:
    y, pullback = gj.vjp(case.g, *case.selected)
    close_trees(y, case.g(*case.selected), EXACT, "value")
    for _ in range(2):
        t, ct = case.direction(), case.random_like(y)
        _, dy = gj.jvp(case.g, case.selected, t)
        close(inner(pullback(ct), t), inner(ct, dy), EXACT, "inner product")


def check_linearize(case: Case) -> None:
    y, linear = gj.linearize(case.g, *case.selected)
    close_trees(y, case.g(*case.selected), EXACT, "value")
    for _ in range(2):
        t = case.direction()
        close_trees(linear(*t), gj.jvp(case.g, case.selected, t)[1], EXACT, "tangent")


def check_linear_transpose(case: Case) -> None:
    y, linear = gj.linearize(case.g, *case.selected)
    ct = case.random_like(y)
    wanted = gj.vjp(case.g, *case.selected)[1](ct)
    close_trees(gj.linear_transpose(linear, *case.selected)(ct), wanted, EXACT, "cotangent")


def check_jacrev(case: Case) -> None:
    wanted = numeric_jacobian(case.g, case.selected, case.sizes)
    close(jacobian_by(case, gj.jacrev), wanted, DIFFERENCE, "Jacobian")


def check_jacfwd(case: Case) -> None:
    wanted = numeric_jacobian(case.g, case.selected, case.sizes)
    close(jacobian_by(case, gj.jacfwd), wanted, DIFFERENCE, "Jacobian")
    close(jacobian_by(case, gj.jacfwd), jacobian_by(case, gj.jacrev), EXACT, "against jacrev")


def check_jacobian(case: Case) -> None:
    wanted = jacobian_by(case, gj.jacrev)
    for mode in ("auto", "rev", "fwd"):
        close(jacobian_by(case, gj.jacobian, mode=mode), wanted, EXACT, f"mode {mode}")


def check_chunks(case: Case) -> None:
    wanted = jacobian_by(case, gj.jacrev)
    for transform in (gj.jacrev, gj.jacfwd):
        for k in (None, 1, 3):
            found = [
                jacobian_by(case, transform, chunk_size=k, assembly=assembly) for assembly in ("stack", "preallocate")
            ]
            close(found[0], wanted, EXACT, f"{transform.__name__} chunk_size={k}")
            assert np.array_equal(*found), f"chunk_size={k}: the assemblies differ"


def check_grad(case: Case) -> None:
    everything = tuple(range(len(case.selected)))
    g = gj.grad(case.scalar, argnums=everything)(*case.selected)
    wanted = numeric_jacobian(case.scalar, case.selected, case.sizes)
    close(vector(g), wanted[0], DIFFERENCE, "gradient")
    y, again = gj.value_and_grad(case.scalar, argnums=everything)(*case.selected)
    close(y, case.scalar(*case.selected), EXACT, "value")
    close_trees(again, g, EXACT, "gradient beside the value")


def check_hessian(case: Case) -> None:
    everything = tuple(range(len(case.selected)))
    h = gj.hessian(case.scalar, argnums=everything)(*case.selected)
    gradient = gj.grad(case.scalar, argnums=everything)
    found = matrix(h, gradient(*case.selected), case.selected)
    close(found, found.T, EXACT, "symmetry")
    t = case.direction()
    close(found @ vector(t), along(gradient, case.selected, t), DIFFERENCE, "Hessian")


def check_second_order(case: Case) -> None:
    everything = tuple(range(len(case.selected)))
    gradient = gj.grad(case.scalar, argnums=everything)
    y = gradient(*case.selected)
    wanted = matrix(gj.hessian(case.scalar, argnums=everything)(*case.selected), y, case.selected)
    t = case.direction()
    _, forward = gj.jvp(gradient, case.selected, t)
    close(vector(forward), wanted @ vector(t), EXACT, "jvp of grad")
    reverse = gj.vjp(gradient, *case.selected)[1](t)
    close(vector(reverse), wanted @ vector(t), EXACT, "vjp of grad")
    for outer in (gj.jacrev, gj.jacfwd):
        for inner_transform in (gj.jacrev, gj.jacfwd):
            inside = inner_transform(case.scalar, argnums=everything)
            found = matrix(outer(inside, argnums=everything)(*case.selected), y, case.selected)
            names = f"{outer.__name__} of {inner_transform.__name__}"
            close(found, wanted, EXACT, names)


def check_third_order(case: Case) -> None:
    everything = tuple(range(len(case.selected)))
    gradient = gj.grad(case.scalar, argnums=everything)
    t, d = case.direction(), case.direction()

    def curvature(*x: Tree) -> Tree:
        return gj.jvp(gradient, x, t)[1]

    y = curvature(*case.selected)
    reverse, forward = (
        matrix(transform(curvature, argnums=everything)(*case.selected), y, case.selected)
        for transform in (gj.jacrev, gj.jacfwd)
    )
    close(reverse, forward, EXACT, "jacrev against jacfwd")
    close(reverse @ vector(d), along(curvature, case.selected, d), 1e-5, "third derivative")


def looped(f: Callable[..., Tree], batch: tuple) -> Tree:
    """What vmap must give: one call per row, the results stacked."""
    rows = [optree.tree_map(lambda leaf, i=i: leaf[i], batch) for i in range(BATCH)]
    return optree.tree_map(lambda *leaves: np.stack(leaves), *[f(*row) for row in rows])


def check_vmap(case: Case) -> None:
    batch = case.batch()
    wanted = looped(case.g, batch)
    close_trees(gj.vmap(case.g)(*batch), wanted, EXACT, "vmap")
    close_trees(gj.vmap(case.g, chunk_size=2)(*batch), wanted, EXACT, "vmap in chunks")
    last = [optree.tree_map(lambda x: np.moveaxis(x, 0, -1), tree) for tree in (batch, wanted)]
    found = gj.vmap(case.g, in_dims=-1, out_dims=-1)(*last[0])
    close_trees(found, last[1], EXACT, "vmap over the last axis")


def check_vmap_by_loop(case: Case) -> None:
    batch, everything = case.batch(), tuple(range(len(case.selected)))
    found = gj.vmap(case.g, method="loop")(*batch)
    close_trees(found, looped(case.g, batch), EXACT, "vmap by a loop")
    f = gj.jacrev(case.g, argnums=everything)
    close_trees(gj.vmap(f, method="loop")(*batch), looped(f, batch), EXACT, "vmap of jacrev")


def check_vmap_of_derivatives(case: Case) -> None:
    batch, everything = case.batch(), tuple(range(len(case.selected)))
    for transform in (gj.jacrev, gj.jacfwd):
        f = transform(case.g, argnums=everything)
        close_trees(gj.vmap(f)(*batch), looped(f, batch), EXACT, f"vmap of {transform.__name__}")
    for transform in (gj.grad, gj.hessian):
        f = transform(case.scalar, argnums=everything)
        close_trees(gj.vmap(f)(*batch), looped(f, batch), EXACT, f"vmap of {transform.__name__}")


def check_derivatives_of_vmap(case: Case) -> None:
    batch, everything = case.batch(), tuple(range(len(case.selected)))
    wanted = looped(gj.jacrev(case.g, argnums=everything), batch)
    ndims = [np.ndim(y) for y in optree.tree_leaves(case.g(*case.selected))]
    inputs = len(optree.tree_leaves(batch))
    for transform in (gj.jacrev, gj.jacfwd):
        full = optree.tree_leaves(transform(gj.vmap(case.g), argnums=everything)(*batch))
        for k, (found, block) in enumerate(zip(full, optree.tree_leaves(wanted), strict=True)):
            spread = np.moveaxis(found, 1 + ndims[k // inputs], 1)  # both mapped axes first
            zeros = np.zeros_like(spread)
            zeros[np.arange(BATCH), np.arange(BATCH)] = block
            close(spread, zeros, EXACT, f"{transform.__name__} of vmap")


BATCHED = {
    "vmap": check_vmap,
    "vmap of derivatives": check_vmap_of_derivatives,
    "derivatives of vmap": check_derivatives_of_vmap,
}
CHECKS = {
    "jvp": check_jvp,
    "vjp": check_vjp,
    "linearize": check_linearize,
    "linear_transpose": check_linear_transpose,
    "jacrev": check_jacrev,
    "jacfwd": check_jacfwd,
    "jacobian": check_jacobian,
    "chunks": check_chunks,
    "grad": check_grad,
    "hessian": check_hessian,
    "second order": check_second_order,
    "third order": check_third_order,
    "vmap by loop": check_vmap_by_loop,
    **BATCHED,
}


def run_check(entry: Entry, name: str) -> None:
    """Runs one check on one entry; the arguments must come out unchanged."""
    case = Case(entry)
    before = [np.copy(leaf) for leaf in optree.tree_leaves(case.args)]
    CHECKS[name](case)
    for old, new in zip(before, optree.tree_leaves(case.args), strict=True):
        assert np.array_equal(old, new), "an argument was changed"
