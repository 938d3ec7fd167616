"""Any array-API namespace: control flow on array-api-strict, against plain Python on NumPy."""

import array_api_strict as xps
import numpy as np
import pytest

import gpujac as gj
from tests.control import flows

X = flows.batch()


def strict(x):
    return xps.asarray(np.asarray(x))


def to_numpy(x):
    assert isinstance(x, type(xps.asarray(1.0))), type(x)
    return np.asarray(x._array)


def root(x):
    xp = x.__array_namespace__()
    return gj.cond(xp.sum(x) > 0, lambda x: xp.sqrt(xp.sum(x)) * x, xp.sin, x)


def newton(x):
    xp = x.__array_namespace__()
    far = lambda s: xp.any(abs(s[0] ** 3 - x) > 1e-12) & (s[1] < 60)
    return gj.while_loop(far, lambda s: (s[0] - (s[0] - x / s[0] ** 2) / 3, s[1] + 1), (x * 0 + 1, 0))[0]


def powers(x):
    xp = x.__array_namespace__()
    n = xp.astype(abs(xp.floor(x[0])), xp.int64) + 2
    return gj.fori_loop(1, n, lambda i, y: y * xp.cos(x) + i, x)


def recurrence(x):
    xp = x.__array_namespace__()
    state, ys = gj.scan(lambda s, v: (xp.tanh(s + v), s * v), x[0], x, reverse=True)
    return xp.stack([ys[0], ys[1] * state, ys[2]])


def chosen(x):
    xp = x.__array_namespace__()
    index = xp.astype(xp.floor(x[0]), xp.int64)
    return gj.switch(index, [lambda x: -x, lambda x: x * x[1], lambda x: xp.exp(xp.flip(x))], x)


def squares(x):
    return gj.control.map(lambda v: v * v, x, batch_size=2)


PLAIN = {
    root: flows.root_plain, newton: flows.newton_plain, powers: flows.powers_plain, recurrence: flows.recurrence_plain,
    chosen: flows.many_plain, squares: lambda x: x * x,
}  # fmt: skip


@pytest.mark.parametrize("f", PLAIN)
def test_lanes_and_derivatives(f):
    plain = PLAIN[f]
    wanted = np.stack([plain(x) for x in X])
    np.testing.assert_allclose(to_numpy(gj.vmap(f)(strict(X))), wanted, rtol=1e-11)
    J = np.stack([gj.jacrev(plain)(x) for x in X])
    for transform in (gj.jacrev, gj.jacfwd):
        np.testing.assert_allclose(to_numpy(gj.vmap(transform(f))(strict(X))), J, rtol=1e-9, atol=1e-10)
    for x in X[:2]:
        np.testing.assert_allclose(to_numpy(gj.jacrev(f)(strict(x))), gj.jacrev(plain)(x), rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(to_numpy(f(strict(x))), plain(x), rtol=1e-11)


def test_second_order_and_complex_blocks():
    def energy(x):
        xp = x.__array_namespace__()
        return xp.sum(xp.sin(x) * x[0]) + xp.sum(x**3)

    x = strict(X[0])
    H = gj.hessian(lambda x: (np.sin(x) * x[0]).sum() + (x**3).sum())(X[0])
    np.testing.assert_allclose(to_numpy(gj.hvp(energy, (x,), (strict(X[1]),))[0]), H @ X[1], rtol=1e-12)
    np.testing.assert_allclose(to_numpy(gj.hessian_diagonal(energy, chunk_size=2)(x)), np.diag(H), rtol=1e-12)
    np.testing.assert_allclose(to_numpy(gj.laplacian(energy)(x)), np.trace(H), rtol=1e-12)
    np.testing.assert_allclose(to_numpy(gj.laplacian(lambda x: x**3)(x)), 6 * X[0], rtol=1e-12)
    z = X[0] + 1j * X[1]
    J = gj.jacrev(lambda z: z * z.__array_namespace__().conj(z), complex_blocks=True)(strict(z))
    np.testing.assert_allclose(to_numpy(J), gj.jacrev(lambda z: z * np.conj(z), complex_blocks=True)(z), rtol=1e-13)


@pytest.mark.parametrize("starts", [[0, 1], [-1, 9]])
def test_arrays_from_outside_at_a_place_of_the_lane(starts):
    x = np.arange(12.0).reshape(3, 4)
    at = strict(np.array(starts))
    part = gj.vmap(lambda i: gj.control.dynamic_slice(strict(x), (i, 1), (2, 2)))(at)
    np.testing.assert_array_equal(to_numpy(part), [gj.control.dynamic_slice(x, (s, 1), (2, 2)) for s in starts])
    put = gj.vmap(lambda i: gj.control.dynamic_update_slice(strict(x), strict(-x[:1, :2]), (i, 1)))(at)
    np.testing.assert_array_equal(
        to_numpy(put), [gj.control.dynamic_update_slice(x, -x[:1, :2], (s, 1)) for s in starts]
    )


def test_lanes_with_a_place_of_their_own():
    part = gj.vmap(lambda x, i: gj.control.dynamic_slice(x, i, 2))(strict(X), strict(np.array([0, 1, 5, -1, -9])))
    np.testing.assert_array_equal(to_numpy(part), [x[a : a + 2] for x, a in zip(X, [0, 1, 1, 1, 0])])
