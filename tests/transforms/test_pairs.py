"""Every composition of two transforms, and some of three, against differences and loops.

Each transform takes a function of a tree and gives another function of the same tree, aux
included. The outer one also sees a variable that only the innermost function captures.
"""

import math
from itertools import accumulate

import numpy as np
import optree
import pytest

import gpujac as gj
from tests.transforms import helpers as h

SCALES = np.array([0.8, 1.0, 1.3])
Q = {"p": {"a": np.array([0.6, -0.4]), "b": np.array(1.2)}, "c": np.array([0.9, 1.7])}


def f(p, c):
    """Two outputs of a tree `p` and a captured array `c`."""
    u = np.sin(p["a"] * c) * p["b"] + np.cumsum(p["a"]) ** 2 / 5
    return {"u": u, "v": (p["a"] @ c) * p["b"] ** 2}


def weights(tree):
    """A fixed tree of the same shapes; no randomness, so that every route sees the same one."""
    return optree.tree_map(lambda x: np.reshape(np.cos(np.arange(1.0 * np.size(x)) + 0.5), np.shape(x)), tree)


def plain(tree):
    """Arrays of ones with the shapes of a tree that may be traced."""
    return optree.tree_map(lambda x: np.ones(np.shape(x)), tree)


def with_aux(g):
    return lambda *q: (g(*q), ("note", 2 * h.leaves(q)[0]))


def taken(aux):
    note, doubled = aux
    assert note == "note"
    return doubled


def apply_vjp(g, q, k):
    y, pullback, aux = gj.vjp(with_aux(g), q, has_aux=True)
    return [pullback(weights(plain(y)))[0], y, taken(aux)]


def apply_jvp(g, q, k):
    y, dy, aux = gj.jvp(with_aux(g), (q,), (weights(plain(q)),), has_aux=True)
    return [dy, y, taken(aux)]


def apply_linearize(g, q, k):
    y, lin, aux = gj.linearize(with_aux(g), q, has_aux=True)
    return [lin(weights(plain(q))), y, taken(aux)]


def apply_linear_transpose(g, q, k):
    y, lin = gj.linearize(g, q)
    return [gj.linear_transpose(lin, plain(q))(weights(plain(y)))[0], y]


def apply_grad(g, q, k):
    gradient, aux = gj.grad(with_aux(h.scalar_of(g)), has_aux=True)(q)
    return [gradient, taken(aux)]


def apply_value_and_grad(g, q, k):
    (y, aux), gradient = gj.value_and_grad(with_aux(h.scalar_of(g)), has_aux=True)(q)
    return [gradient, y, taken(aux)]


def apply_jacobian(transform):
    def apply(g, q, k):
        J, aux = transform(with_aux(g), has_aux=True, chunk_size=k)(q)
        return [J, taken(aux)]

    return apply


def apply_hessian(g, q, k):
    inner = {None: 2, 1: None, 2: 1}.get(k, k)
    H, aux = gj.hessian(with_aux(g), has_aux=True, chunk_size=k, inner_chunk_size=inner)(q)
    return [H, taken(aux)]


def apply_hvp(g, q, k):
    Hv, aux = gj.hvp(with_aux(h.scalar_of(g)), (q,), (weights(plain(q)),), has_aux=True)
    return [Hv, taken(aux)]


def apply_vmap(g, q, k, **options):
    options = options or {"chunk_size": k}
    captured = gj.vmap(lambda s: g(optree.tree_map(lambda x: np.multiply(x, s), q)), **options)(SCALES)
    batch = optree.tree_map(lambda x: np.multiply(x[..., None], SCALES), q)
    mapped = gj.vmap(g, in_dims=-1, out_dims=-1, **options)(batch)
    return [captured, mapped]


def apply_loop(g, q, k):
    return apply_vmap(g, q, k, method="loop")


APPLY = {
    "vjp": apply_vjp,
    "jvp": apply_jvp,
    "linearize": apply_linearize,
    "linear_transpose": apply_linear_transpose,
    "grad": apply_grad,
    "value_and_grad": apply_value_and_grad,
    "jacrev": apply_jacobian(gj.jacrev),
    "jacfwd": apply_jacobian(gj.jacfwd),
    "hessian": apply_hessian,
    "hvp": apply_hvp,
    "vmap": apply_vmap,
    "loop": apply_loop,
}
SECOND = ("hessian", "hvp")  # checked against second differences


# ---------------------------------------------------------------- oracles on plain arrays


def sections(tree):
    ends = accumulate(np.size(x) for x in h.leaves(tree))
    return [slice(end - np.size(x), end) for end, x in zip(ends, h.leaves(tree), strict=True)]


def blocks(tensor, *trees):
    """The entries of a tensor in the order of a tree of trees of leaves."""
    if not trees:
        return np.ravel(tensor)[None][0]
    parts = [tensor]
    for axis, tree in enumerate(trees):
        parts = [np.take(part, np.arange(s.start, s.stop), axis) for part in parts for s in sections(tree)]
    return np.concatenate([np.ravel(part) for part in parts])


def second_differences(g, q):
    x, y = h.vector(q), h.vector(g(q))
    step = 2e-3
    at = lambda v: h.vector(g(h.unvector(q, v)))
    H = np.empty((y.size, x.size, x.size))
    unit = np.eye(x.size) * step
    for i in range(x.size):
        for j in range(i + 1):
            e, d = unit[i], unit[j]
            corners = at(x + e + d) - at(x + e - d) - at(x - e + d) + at(x - e - d)
            H[:, i, j] = H[:, j, i] = corners / (4 * step**2)
    return H


def expected(name, g, q):
    """What `APPLY[name]` gives, in one line, from values of g alone."""
    y, doubled = g(q), 2 * np.ravel(h.leaves(q)[0])
    if name in ("vmap", "loop"):
        lanes = [g(optree.tree_map(lambda x, s=s: x * s, q)) for s in SCALES]
        front = optree.tree_map(lambda *ys: np.stack(ys), *lanes)
        back = optree.tree_map(lambda *ys: np.stack(ys, -1), *lanes)
        return np.concatenate([h.vector(front), h.vector(back)])
    if name == "hessian":
        return np.concatenate([blocks(second_differences(g, q), y, q, q), doubled])
    if name == "hvp":
        H = second_differences(h.scalar_of(g), q)[0]
        return np.concatenate([H @ h.vector(weights(q)), doubled])
    if name in ("grad", "value_and_grad"):
        value = [np.ravel(h.scalar_of(g)(q))] if name == "value_and_grad" else []
        return np.concatenate([h.difference_matrix(h.scalar_of(g), q)[0], *value, doubled])
    M = h.difference_matrix(g, q)
    if name in ("vjp", "linear_transpose"):
        parts = [h.vector(weights(y)) @ M, h.vector(y), doubled]
        return np.concatenate(parts[:2] if name == "linear_transpose" else parts)
    if name in ("jvp", "linearize"):
        return np.concatenate([M @ h.vector(weights(q)), h.vector(y), doubled])
    return np.concatenate([blocks(M, y, q), doubled])


def check(outer, g, k):
    found = h.vector(APPLY[outer](g, Q, k))
    oracle = expected(outer, g, Q)
    tolerance = 3e-4 if outer in SECOND else 3e-7
    size = max(1.0, np.max(np.abs(oracle)))
    np.testing.assert_allclose(found, oracle, rtol=0, atol=tolerance * size)


CHUNKS = [None, 1, 2]
every_outer = pytest.mark.parametrize("outer", list(APPLY))


@every_outer
@pytest.mark.parametrize("k", CHUNKS)
def test_one_transform(outer, k):
    check(outer, lambda q: f(q["p"], q["c"]), k)


@every_outer
@pytest.mark.parametrize("inner", list(APPLY))
def test_two_transforms(outer, inner):
    number = list(APPLY).index(outer) + list(APPLY).index(inner)
    k = CHUNKS[number % 3]  # every transform meets every chunk size across the table
    check(outer, lambda q: APPLY[inner](lambda p: f(p, q["c"]), q["p"], k), k)


@pytest.mark.slow
@every_outer
@pytest.mark.parametrize("inner", list(APPLY))
@pytest.mark.parametrize("k", CHUNKS)
def test_two_transforms_at_every_chunk_size(outer, inner, k):
    check(outer, lambda q: APPLY[inner](lambda p: f(p, q["c"]), q["p"], k), k)


def nested(inner, middle, k):
    """middle(inner(f)), the captured variable two levels out."""
    return lambda q: APPLY[middle](lambda p: APPLY[inner](lambda r: f(r, np.multiply(q["c"], p["b"])), p, k), q["p"], k)


TRIPLES = [
    ("vmap", "jacrev", "grad"),
    ("grad", "vmap", "grad"),
    ("jacfwd", "vjp", "jvp"),
    ("vjp", "jacfwd", "vmap"),
    ("jvp", "vmap", "hessian"),
    ("linearize", "jacrev", "vmap"),
    ("vmap", "vmap", "jacfwd"),
    ("jacrev", "linear_transpose", "jvp"),
    ("vmap", "linear_transpose", "vjp"),
    ("grad", "grad", "grad"),
    ("jacfwd", "jacrev", "jacfwd"),
    ("vjp", "vjp", "vjp"),
    ("jvp", "jvp", "jvp"),
    ("vmap", "jvp", "vjp"),
    ("linear_transpose", "grad", "vmap"),
    ("vmap", "vmap", "vmap"),
    ("hessian", "vmap", "vjp"),
    ("hvp", "jacrev", "vmap"),
    ("vmap", "hvp", "value_and_grad"),
    ("jacrev", "loop", "hvp"),
    ("value_and_grad", "vmap", "loop"),
    ("loop", "jacfwd", "value_and_grad"),
]


@pytest.mark.parametrize(("outer", "middle", "inner"), TRIPLES)
def test_three_transforms(outer, middle, inner):
    check(outer, nested(inner, middle, 2), 2)


@pytest.mark.slow
@every_outer
@pytest.mark.parametrize("middle", list(APPLY))
@pytest.mark.parametrize("inner", ["vjp", "jvp", "linear_transpose", "grad", "vmap"])
def test_any_three_transforms(outer, middle, inner):
    if not (outer in SECOND and middle in SECOND):  # differences of fourth order tell nothing
        check(outer, nested(inner, middle, None), None)


# ---------------------------------------------------------------- functions with rules, checkpoints, control flow

own_jvp, own_vjp = gj.custom_jvp(f), gj.custom_vjp(f)
own_jvp.defjvp(lambda primals, tangents: gj.jvp(f, primals, tangents))
own_vjp.defvjp(lambda p, c: (f(p, c), (p, c)), lambda kept, ct: gj.vjp(f, *kept)[1](ct))


def steered(p, c):
    """The same as f, by cond, while_loop and scan; lanes of a vmap go different ways."""
    a, b = p["a"], p["b"]
    left = gj.cond(b > 1.0, lambda a, b: np.sin(a * c) * b, lambda a, b: b * np.sin(a * c), a, b)
    _, sums = gj.scan(lambda total, x: (total + x, total + x), b * 0.0, a)
    _, square = gj.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] * b), (0, b * 0.0 + 1.0))
    dot = gj.fori_loop(0, 2, lambda i, total: total + a[i] * c[i], b * 0.0)
    return {"u": left + sums**2 / 5, "v": dot * square}


KINDS = {
    "checkpoint": gj.checkpoint(f),
    "checkpoint of matmuls": gj.checkpoint(f, policy="matmuls"),
    "custom_jvp": own_jvp,
    "custom_vjp": own_vjp,
    "control flow": steered,
}



@pytest.mark.parametrize("kind", list(KINDS))
@every_outer
def test_one_transform_of_a_function_of_another_kind(outer, kind):
    check(outer, lambda q: KINDS[kind](q["p"], q["c"]), CHUNKS[len(outer) % 3])


PARTNERS = ["vjp", "jvp", "jacrev", "jacfwd", "vmap", "loop"]


@pytest.mark.parametrize("kind", list(KINDS))
@every_outer
@pytest.mark.parametrize("inner", PARTNERS)
def test_two_transforms_of_a_function_of_another_kind(outer, inner, kind):
    k = CHUNKS[(len(outer) + len(inner)) % 3]
    check(outer, lambda q: APPLY[inner](lambda p: KINDS[kind](p, q["c"]), q["p"], k), k)


# ---------------------------------------------------------------- linear_transpose where linear

X0 = np.array([0.5, -1.0, 2.0])
A = np.reshape(np.linspace(-1.0, 1.0, 6), (2, 3))
LINEAR = {
    "vjp": lambda t: gj.vjp(np.sin, X0)[1](t)[0],
    "jvp": lambda t: gj.jvp(lambda x: np.tanh(A @ x), (X0,), (t,))[1],
    "linearize": lambda t: gj.linearize(lambda x: x * x.sum(), X0)[1](t),
    "linear_transpose": lambda t: gj.linear_transpose(lambda s: A.T @ s, np.zeros(2))(t)[0],
    "grad": lambda t: gj.grad(lambda x: (np.sin(x) * t).sum())(X0),
    "jacrev": lambda t: gj.jacrev(lambda x: (A @ x) * t[:2], chunk_size=1)(X0),
    "jacfwd": lambda t: gj.jacfwd(lambda x: np.cumsum(x * t), chunk_size=2)(X0),
    "hessian": lambda t: gj.hessian(lambda x: (x**3 * t).sum())(X0),
    "vmap": lambda t: gj.vmap(lambda s: s * t[:2] + A @ t)(SCALES),
}


@pytest.mark.parametrize("inner", list(LINEAR))
def test_transposing_a_linear_composition(inner, rng):
    g = LINEAR[inner]
    ct, t = h.random_like(g(X0), rng), h.random_like(X0, rng)
    (found,) = gj.linear_transpose(g, X0)(ct)
    assert h.inner(ct, g(t)) == pytest.approx(h.inner(found, t), rel=1e-11)


# ---------------------------------------------------------------- known traps of other systems


@pytest.mark.parametrize("k", [None, 1, 2, "auto"])
def test_vmap_of_the_hessian_equals_vmap_of_jacrev_of_jacrev_with_mixed_levels(k):
    """functorch#597: some values batched at one level only, written into others."""
    xs, w = np.linspace(0.1, 1.2, 6).reshape(2, 3), np.array([1.0, -0.5, 2.0])

    def loss(x, w):
        buffer = np.zeros_like(x)  # unbatched until x is written into it
        buffer[1:] = x[:-1] * w[1:]
        buffer += np.sin(x) * w
        return (buffer**3).sum() + x @ w

    H = gj.vmap(gj.hessian(loss, chunk_size=k), in_dims=(0, None))(xs, w)
    for inner in (gj.jacrev, gj.jacfwd):
        for outer in (gj.jacrev, gj.jacfwd):
            both = gj.vmap(outer(inner(loss, chunk_size=k), chunk_size=k), in_dims=(0, None))(xs, w)
            np.testing.assert_allclose(both, H, atol=1e-12)
    np.testing.assert_allclose(H, np.stack([gj.hessian(loss)(x, w) for x in xs]), atol=1e-12)
    in_w = gj.vmap(gj.hessian(loss, 1), in_dims=(0, None))(xs, w)
    np.testing.assert_allclose(in_w, np.stack([gj.hessian(loss, 1)(x, w) for x in xs]), atol=1e-12)


def test_perturbations_of_two_levels_are_not_confused():
    # d/dx (x * d/dy (x + y)) at 1 is 1; a system that confuses the levels says 2
    inner = lambda x: x * gj.grad(lambda y: x + y)(1.0)
    assert float(gj.grad(inner)(1.0)) == 1.0
    inner = lambda x: x * gj.jvp(lambda y: x * y, (1.0,), (1.0,))[1]
    assert float(gj.jvp(inner, (3.0,), (1.0,))[1]) == 6.0
    assert float(gj.grad(inner)(3.0)) == 6.0


def test_batched_cotangents_of_every_layout(rng):
    W = rng.standard_normal((4, 3))
    _y, pullback = gj.vjp(lambda x: np.tanh(W @ x), np.ones(3))
    J = np.stack([pullback(row)[0] for row in np.eye(4)])
    cts = rng.standard_normal((5, 4))
    for batch, axis in ((cts, 0), (np.asfortranarray(cts), 0), (cts.T, 1), (cts[::-1], 0), (cts[:, None, :][:, 0], 0)):
        lanes = np.moveaxis(batch, axis, 0)
        np.testing.assert_allclose(gj.vmap(pullback, in_dims=axis)(batch)[0], lanes @ J, atol=1e-14)


def test_a_pullback_made_inside_another_transform_and_used_there():
    def f(x):
        y, pullback = gj.vjp(lambda z: np.sin(z) * x, x)
        (g,) = pullback(np.ones_like(y))
        return gj.jvp(lambda t: (pullback(t)[0] * g).sum(), (y,), (g,))[1]

    x = np.array([0.3, 1.1])
    d = np.cos(x) * x  # the pullback multiplies by d; f = sum of d * d * d
    assert float(f(x)) == pytest.approx(float((d**3).sum()))
    slope = 3 * d**2 * (np.cos(x) - x * np.sin(x))
    np.testing.assert_allclose(gj.grad(f)(x), slope)
    np.testing.assert_allclose(gj.jacfwd(f)(x), slope)


def test_five_levels():
    f = lambda x: np.exp(2 * x) * x
    g = f
    for transform in (gj.grad, gj.jacfwd, gj.jacrev, gj.grad, gj.jacfwd):
        g = transform(g)
    x = 0.3
    assert float(g(x)) == pytest.approx(math.exp(2 * x) * (32 * x + 5 * 16), rel=1e-12)
    np.testing.assert_allclose(gj.vmap(g)(np.full(3, x)), math.exp(2 * x) * (32 * x + 80))
