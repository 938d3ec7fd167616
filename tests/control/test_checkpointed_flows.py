"""checkpoint around control flow, functions with own derivatives, random numbers and products of Hessians."""

import numpy as np
import pytest

import gpujac as gj
from gpujac import random

X = np.linspace(0.1, 1.0, 5)
ROWS = np.stack([X, X[::-1]])


@gj.custom_vjp
def doubled(x):
    return np.sin(x)


doubled.defvjp(lambda x: (np.sin(x), np.cos(x)), lambda slope, ct: (2 * slope * ct,))


@gj.custom_jvp
def tripled(x):
    return np.sin(x)


tripled.defjvp(lambda xs, ts: (np.sin(xs[0]), 3 * ts[0] * np.cos(xs[0])))

FUNCTIONS = {
    "while_loop": lambda x: gj.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, np.sin(s[1]) * x), (0, x))[1],
    "cond": lambda x: gj.cond(x[0] > 0.5, np.sin, np.cos, x) * x,
    "scan": lambda x: gj.scan(lambda c, a: (c * a + np.sin(a), c), x[0], x)[1],
    "custom_vjp": lambda x: doubled(x * 2) * x,
    "custom_jvp": lambda x: tripled(x * 2) * x,
}
every_function = pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS)


@every_function
@pytest.mark.parametrize("policy", ["nothing", lambda operation, name: True], ids=["nothing", "all"])
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.hessian])
def test_derivatives_are_those_of_the_function(f, policy, transform):
    again = gj.checkpoint(f, policy=policy)
    np.testing.assert_allclose(transform(again)(X), transform(f)(X), atol=1e-12)
    np.testing.assert_allclose(gj.vmap(transform(again))(ROWS), gj.vmap(transform(f))(ROWS), atol=1e-12)


def test_inside_of_a_rule_and_of_a_loop():
    block = gj.checkpoint(lambda x: np.tanh(x) * 1.1)

    def chain(step):
        return lambda x: gj.fori_loop(0, 4, lambda i, y: step(y), x)

    for transform in (gj.jacrev, gj.jacfwd, gj.hessian):
        plain = transform(chain(lambda x: np.tanh(x) * 1.1))(X)
        np.testing.assert_allclose(transform(chain(block))(X), plain, atol=1e-12)

    @gj.custom_jvp
    def g(x):
        return block(x)

    g.defjvp(lambda xs, ts: gj.jvp(block, xs, ts))
    np.testing.assert_allclose(gj.hessian(g)(X), gj.hessian(block)(X), atol=1e-12)


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_random_keys_draw_the_same_numbers_again(randomness):
    key = random.key(0)

    def drop(x, key):
        return (np.where(random.bernoulli(key, 0.5, x.shape), x * x, 0.0) * random.uniform(key, x.shape)).sum()

    def lanes(f):
        return gj.vmap(lambda x: gj.grad(f)(x, key), randomness=randomness)(ROWS)

    np.testing.assert_array_equal(gj.grad(gj.checkpoint(drop))(X, key), gj.grad(drop)(X, key))
    np.testing.assert_array_equal(lanes(gj.checkpoint(drop)), lanes(drop))
    keys = random.split(key, 2)
    mapped = [gj.vmap(gj.grad(f))(ROWS, keys) for f in (gj.checkpoint(drop), drop)]
    np.testing.assert_array_equal(*mapped)


def test_products_with_the_hessian():
    f = lambda x: (np.log(x * x + 1) * np.cumsum(x)).sum()
    again = gj.checkpoint(f)
    np.testing.assert_allclose(gj.hvp(again, (X,), (X,))[0], gj.hessian(f)(X) @ X, atol=1e-12)
    np.testing.assert_allclose(gj.hessian_diagonal(again)(X), np.diag(gj.hessian(f)(X)), atol=1e-12)
    np.testing.assert_allclose(gj.laplacian(again)(X), np.trace(gj.hessian(f)(X)), atol=1e-12)


def test_debug_nans_names_the_operation_inside():
    def block(x):
        y = np.log(x)
        return y * 2

    with gj.settings.override(debug_nans=True), np.errstate(invalid="ignore"):
        with pytest.raises(gj.NonFiniteError, match=r"(?s)log is not finite.*checkpoint of block.*y = np.log\(x\)"):
            gj.grad(lambda x: gj.checkpoint(block)(x).sum())(np.array([-1.0, 2.0]))
        with pytest.raises(gj.NonFiniteError, match="cotangent of operand 0 of sqrt"):
            gj.grad(lambda x: gj.checkpoint(np.sqrt)(x).sum())(np.array([0.0, 2.0]))
