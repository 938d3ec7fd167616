"""linear_transpose: the adjoint of a linear function, recorded without values."""

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([1.0, 2.0, 3.0, 4.0])
A = np.linspace(-1, 1, 12).reshape(3, 4)

LINEAR = [
    lambda x: x[1:] - x[:-1],
    lambda x: A @ x,
    lambda x: np.cumsum(x)[::-1] * 2.0,
    lambda x: (x[:2], [x.sum(), x.reshape(2, 2).T]),
    lambda x: np.concatenate([x, x[[0, 0, 3]]]),
    lambda x: x / 4.0 - (x - x.mean()),
    lambda x: np.stack([x, -x], axis=1)[..., 0],
    lambda x: np.einsum("ij,j->i", A, x) + x[:3],
    lambda x: x * np.arange(3.0)[:, None],
]


@pytest.mark.parametrize("number", range(len(LINEAR)))
def test_transpose_is_the_adjoint(number, rng):
    f = LINEAR[number]
    ct, x = h.random_like(f(X), rng), h.random_like(X, rng)
    (found,) = gj.linear_transpose(f, X)(ct)
    assert h.inner(ct, f(x)) == pytest.approx(h.inner(found, x), rel=1e-12)
    h.assert_close(found, gj.vjp(f, X)[1](ct)[0])
    h.assert_owned(found, ct, X, A)


def test_several_arguments_and_trees():
    def f(p, y):
        return {"s": p["a"] + A @ y, "t": p["b"] - y.sum()}

    ft = gj.linear_transpose(f, {"a": np.ones(3), "b": 1.0}, X)
    p, y = ft({"t": 2.0, "s": np.arange(3.0)})
    np.testing.assert_array_equal(p["a"], np.arange(3.0))
    assert p["b"] == 2.0
    np.testing.assert_allclose(y, np.arange(3.0) @ A - 2.0)


def test_only_shapes_and_dtypes_of_the_examples_matter():
    f = lambda x: 3.0 * x
    a = gj.linear_transpose(f, X)(X)
    b = gj.linear_transpose(f, np.full(4, np.nan))(X)
    h.assert_close(a, b)


def test_complex_is_the_adjoint_under_the_real_inner_product(rng):
    M = A[:, :3] + 1j * A[:, 1:]
    f = lambda z: M @ z + 2j * z
    z, ct = (h.random_like(np.zeros(3, complex), rng) for _ in range(2))
    (found,) = gj.linear_transpose(f, z)(ct)
    assert h.inner(ct, f(z)) == pytest.approx(h.inner(found, z), rel=1e-12)


def test_transpose_of_the_transpose_is_the_function():
    for f in LINEAR[:3]:
        ft = gj.linear_transpose(f, X)
        ftt = gj.linear_transpose(lambda ct, ft=ft: ft(ct)[0], f(X))
        h.assert_close(ftt(X)[0], f(X))


@pytest.mark.parametrize(
    "f",
    [np.sin, lambda x: x * x, lambda x: x + 1.0, lambda x: np.where(x > 0, x, 0), lambda x: 1 / x,
     lambda x: np.concatenate([x, np.ones(1)]), lambda x: np.ones(2), lambda x: np.ones_like(x)],
)  # fmt: skip
def test_a_nonlinear_function_is_refused(f):
    with pytest.raises((gj.MissingRuleError, gj.ConcretizationError, gj.StructureError)):
        gj.linear_transpose(f, X)(X)


def test_reading_a_value_is_refused():
    with pytest.raises(gj.ConcretizationError, match="recorded without values"):
        gj.linear_transpose(lambda x: x if x.sum() > 0 else -x, X)


def test_a_constant_zero_output_is_linear():
    (found,) = gj.linear_transpose(lambda x: np.zeros(2), X)(np.ones(2))
    np.testing.assert_array_equal(found, np.zeros(4))


def test_writing_zeros_is_linear():
    def f(x):
        y = 2.0 * x
        y[0] = 0.0
        return y

    (ct,) = gj.linear_transpose(f, np.zeros(3))(np.ones(3))
    np.testing.assert_array_equal(ct, np.array([0.0, 2.0, 2.0]))


def test_writing_another_constant_is_not_linear():
    def f(x):
        y = 2.0 * x
        y[0] = 1.0
        return y

    with pytest.raises(gj.MissingRuleError, match="not linear"):
        gj.linear_transpose(f, np.zeros(3))
