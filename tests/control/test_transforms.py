"""Control flow under every transform: each lane gives what plain Python gives for it alone."""

import numpy as np
import pytest

import gpujac as gj
from tests.control import flows

every_flow = pytest.mark.parametrize(("f", "plain"), flows.PAIRS.values(), ids=list(flows.PAIRS))
assert_close = np.testing.assert_allclose


def lanes(f, X):
    """What vmap of f must give."""
    return np.stack([f(x) for x in X])


def differences(f, x):
    """The Jacobian of f by central differences."""
    step = 1e-6
    columns = []
    for i in range(flows.INNER):
        e = np.zeros(flows.INNER)
        e[i] = step
        columns.append((f(x + e) - f(x - e)) / (2 * step))
    return np.stack(columns, -1)


@every_flow
def test_outside_of_vmap_it_is_plain_python(f, plain):
    for x in flows.batch():
        assert_close(f(x), plain(x), rtol=1e-14)
        J = differences(plain, x)
        for transform in (gj.jacrev, gj.jacfwd, gj.jacobian):
            assert_close(transform(f)(x), J, rtol=1e-6, atol=1e-8)
        assert_close(gj.hessian(f)(x), gj.jacfwd(gj.jacfwd(plain))(x), rtol=1e-10, atol=1e-11)


@every_flow
def test_each_lane_takes_its_own_way(f, plain):
    X = flows.batch()
    assert_close(gj.vmap(f)(X), lanes(plain, X), rtol=1e-14)
    assert_close(gj.vmap(f, in_dims=1, out_dims=1)(X.T), lanes(plain, X).T, rtol=1e-14)
    assert_close(gj.vmap(f, chunk_size=2)(X), lanes(plain, X), rtol=1e-14)
    assert gj.vmap(f)(X[:0]).shape[0] == 0


@every_flow
def test_vmap_of_derivatives(f, plain):
    X = flows.batch()
    J = lanes(gj.jacrev(plain), X)
    for transform in (gj.jacrev, gj.jacfwd):
        assert_close(gj.vmap(transform(f))(X), J, rtol=1e-11, atol=1e-12)
        assert_close(gj.vmap(transform(f, chunk_size=2))(X), J, rtol=1e-11, atol=1e-12)
    T = np.cos(X)
    tangents = gj.vmap(lambda x, t: gj.jvp(f, (x,), (t,))[1])(X, T)
    assert_close(tangents, np.stack([j @ t for j, t in zip(J, T)]), rtol=1e-11, atol=1e-12)
    cotangents = gj.vmap(lambda x, t: gj.vjp(f, x)[1](t)[0])(X, T)
    assert_close(cotangents, np.stack([t @ j for j, t in zip(J, T)]), rtol=1e-11, atol=1e-12)
    assert_close(gj.vmap(gj.hessian(f))(X), lanes(gj.jacfwd(gj.jacrev(plain)), X), rtol=1e-9, atol=1e-10)


@every_flow
def test_derivatives_of_vmap(f, plain):
    X = flows.batch()
    total = lambda X: (gj.vmap(f)(X) * np.arange(1.0, 4.0)).sum()
    weights = np.arange(1.0, 4.0)
    assert_close(gj.grad(total)(X), lanes(lambda x: weights @ gj.jacrev(plain)(x), X), rtol=1e-11, atol=1e-12)
    J = gj.jacrev(gj.vmap(f), chunk_size=4)(X)
    assert_close(gj.jacfwd(gj.vmap(f))(X), J, rtol=1e-11, atol=1e-12)
    for i, x in enumerate(X):
        assert_close(J[i, :, i], gj.jacrev(plain)(x), rtol=1e-11, atol=1e-12)
        assert_close(np.delete(J[i], i, axis=1), 0 * np.delete(J[i], i, axis=1), atol=0)
    y, lin = gj.linearize(gj.vmap(f), X)
    assert_close(lin(np.cos(X)), np.tensordot(J, np.cos(X), 2), rtol=1e-11, atol=1e-11)
    assert_close(y, lanes(plain, X), rtol=1e-14)


@every_flow
def test_vmap_of_vmap_and_derivatives_between_and_around(f, plain):
    X = np.stack([flows.batch()[:3], flows.batch()[2:]])
    twice = np.stack([lanes(plain, x) for x in X])
    assert_close(gj.vmap(gj.vmap(f))(X), twice, rtol=1e-14)
    assert_close(gj.vmap(gj.vmap(f), in_dims=1, out_dims=1)(X), twice, rtol=1e-14)
    between = gj.vmap(gj.grad(lambda x: gj.vmap(f)(x).sum()))(X)
    around = gj.grad(lambda X: gj.vmap(gj.vmap(f))(X).sum())(X)
    inside = gj.vmap(gj.vmap(gj.grad(lambda x: f(x).sum())))(X)
    wanted = np.stack([lanes(gj.grad(lambda x: plain(x).sum()), x) for x in X])
    for found in (between, around, inside):
        assert_close(found, wanted, rtol=1e-11, atol=1e-12)


@every_flow
def test_single_precision_stays_single(f, plain):
    X = flows.batch().astype(np.float32)
    if f in (flows.newton, flows.powers):  # their tests for an end are for double precision
        X = X[:1] * 0 + 1
    assert gj.vmap(f)(X).dtype == np.float32
    assert gj.vmap(gj.jacrev(f))(X).dtype == np.float32
    assert_close(gj.vmap(f)(X), lanes(plain, X), rtol=2e-5, atol=1e-6)
