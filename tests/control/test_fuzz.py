"""Random programs of nested control flow: batched and differentiated, they are plain Python lane by lane."""

import random

import numpy as np
import pytest

import gpujac as gj

CONSTANTS = (-1.3, -0.4, 0.2, 0.9, 1.7)
VALUES = np.array([0.5, -1.0, 2.0])


class Plain:
    """Python's own control flow, for one value."""

    @staticmethod
    def cond(pred, f, g, x):
        return f(x) if pred else g(x)

    @staticmethod
    def switch(index, branches, x):
        return branches[min(max(int(gj.value(index)), 0), len(branches) - 1)](x)

    @staticmethod
    def while_loop(pred, body, state):
        while pred(state):
            state = body(state)
        return state

    @staticmethod
    def fori_loop(low, high, body, state):
        for i in range(low, int(gj.value(high))):
            state = body(i, state)
        return state

    @staticmethod
    def scan(f, state, xs):
        ys = []
        for x in xs:
            state, y = f(state, x)
            ys.append(y)
        return state, np.stack(ys)


def program(r, depth):
    """A random function of a scalar, to be run with either kind of control flow."""
    kind = r.choice(["op", "op", "pair"] if depth == 0 else ["pair", "cond", "switch", "while", "fori", "scan"])
    c, d = r.choice(CONSTANTS), r.choice(CONSTANTS)
    parts = [program(r, depth - 1) for _ in range(2)] if kind not in ("op",) and depth else [_op(r), _op(r)]
    a, b = parts
    return {
        "op": lambda k, x: a(k, x),
        "pair": lambda k, x: np.sin(a(k, b(k, x))) + c * x,
        "cond": lambda k, x: k.cond(x > c, lambda x: a(k, x) + d, lambda y: b(k, y) * x, x),
        "switch": lambda k, x: k.switch(
            np.floor(x).astype(np.int64), [lambda x: a(k, x), lambda x: -x, lambda x: b(k, x)], x
        ),
        "while": lambda k, x: k.while_loop(
            lambda s: (abs(s[0]) < 1.5 + c) & (s[1] < 3), lambda s: (np.cos(a(k, s[0])) + x, s[1] + 1), (x, 0)
        )[0],
        "fori": lambda k, x: k.fori_loop(
            0, np.floor(abs(x) * 2).astype(np.int64) % 3, lambda i, s: np.sin(b(k, s)) * x + i * c, x
        ),
        "scan": lambda k, x: (lambda state, ys: state * ys[1] + ys[2])(
            *k.scan(lambda s, v: (np.tanh(a(k, s)) + v * x, s * v), x, VALUES)
        ),
    }[kind]


def _op(r):
    c = r.choice(CONSTANTS)
    return r.choice([
        lambda k, x: np.sin(x + c), lambda k, x: np.exp(-x * x) + c, lambda k, x: x * 0.7 - c,
        lambda k, x: k.cond(x > 0, lambda x: np.sqrt(x), lambda x: c * x, x), lambda k, x: x * x / (1 + x * x),
        lambda k, x: k.cond(abs(x) > 0.3, lambda x: c / x, lambda x: 2 * x, x),
    ])  # fmt: skip


def lanes(f, xs):
    return np.array([float(f(x)) for x in xs])


@pytest.mark.parametrize("seed", [*range(25), *[pytest.param(s, marks=pytest.mark.slow) for s in range(25, 200)]])
def test_a_random_program(seed):
    r = random.Random(seed)
    f = program(r, r.choice([1, 2, 2, 3]))
    flow, plain = (lambda x: f(gj.control, x)), (lambda x: f(Plain, x))
    xs = np.random.default_rng(seed).uniform(-2.5, 2.5, 6)
    wanted = lanes(plain, xs)
    slopes = lanes(gj.grad(plain), xs)
    curved = lanes(gj.hessian(plain), xs)
    size = 1 + abs(curved).max() + abs(slopes).max()
    close = lambda found, exact: np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-11 * size)
    total = lambda xs: gj.vmap(flow)(xs).sum()
    for found, exact in (
        (gj.vmap(flow)(xs), wanted),
        (gj.vmap(gj.grad(flow))(xs), slopes),
        (gj.grad(total)(xs), slopes),
        (gj.vmap(lambda x: gj.jvp(flow, (x,), (1.0,))[1])(xs), slopes),
        (gj.vmap(gj.vmap(gj.grad(flow)))(xs.reshape(2, 3)).ravel(), slopes),
        (gj.vmap(gj.grad(lambda row: gj.vmap(flow)(row).sum()))(xs.reshape(3, 2)).ravel(), slopes),
        (gj.vmap(gj.hessian(flow))(xs), curved),
        (gj.hvp(total, (xs,), (np.ones(6),))[0], curved),
        (gj.hessian_diagonal(total, chunk_size=4)(xs), curved),
        (lanes(gj.grad(flow), xs), slopes),
    ):
        assert np.isfinite(found).all()
        close(found, exact)
