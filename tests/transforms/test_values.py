"""stop_gradient, value and is_traced: looking behind traced arrays on purpose."""

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([1.0, 2.0, 3.0])


def test_stop_gradient_is_constant_in_every_mode():
    f = lambda x: x * gj.stop_gradient(x)
    J = np.diag(X)
    np.testing.assert_array_equal(gj.jacrev(f)(X), J)
    np.testing.assert_array_equal(gj.jacfwd(f)(X), J)
    np.testing.assert_array_equal(gj.jvp(f, (X,), (np.ones(3),))[1], X)
    np.testing.assert_array_equal(gj.linearize(f, X)[1](np.ones(3)), X)
    np.testing.assert_array_equal(gj.hessian(lambda x: f(x).sum())(X), np.zeros((3, 3)))


def test_stop_gradient_stops_all_levels():
    g = lambda x: gj.grad(lambda y: y * gj.stop_gradient(x * y))(x)
    assert float(g(3.0)) == 9.0
    assert float(gj.grad(g)(3.0)) == 0.0
    f = lambda x: gj.jvp(lambda y: gj.stop_gradient(y) * y * x, (x,), (1.0,))[1]
    assert float(f(3.0)) == 9.0
    assert float(gj.grad(f)(3.0)) == 3.0  # d/dx of stop(x) * x, the stopped factor constant


def test_stop_gradient_keeps_mapped_axes():
    batch = np.arange(6.0).reshape(2, 3)
    g = gj.grad(lambda x: (x * gj.stop_gradient(x)).sum())
    np.testing.assert_array_equal(gj.vmap(g)(batch), batch)
    f = lambda x: (gj.vmap(lambda r: r * gj.stop_gradient(r))(x)).sum()
    np.testing.assert_array_equal(gj.grad(f)(batch), batch)
    both = lambda x: (gj.vmap(lambda r: gj.stop_gradient(r * x))(x)).sum()
    np.testing.assert_array_equal(gj.grad(both)(X), np.zeros(3))


def test_stop_gradient_of_trees_and_plain_values():
    tree = {"a": X, "b": [2.0, None]}
    h.assert_close(gj.stop_gradient(tree), tree)

    def f(p):
        q = gj.stop_gradient(p)
        return (p["a"] * q["a"]).sum() * q["b"][0]

    h.assert_close(gj.grad(f)({"a": X, "b": [2.0]}), {"a": 2 * X, "b": [0.0]})


def test_value_is_the_plain_array_at_any_depth():
    seen = []

    def f(x):
        seen.append(gj.value(x))
        return (x**3).sum()

    gj.hessian(f)(X)
    gj.jvp(gj.grad(f), (X,), (X,))
    for v in seen:
        assert type(v) is np.ndarray
        np.testing.assert_array_equal(v, X)
    assert gj.value(X) is X
    assert gj.value(2.0) == 2.0


def test_value_under_vmap_raises_unless_it_is_the_same_in_every_lane():
    with pytest.raises(gj.ConcretizationError, match="where"):
        gj.vmap(lambda x: gj.value(x))(X)
    found = gj.vmap(lambda x, y: x * gj.value(y), in_dims=(0, None))(X, np.float64(2.0))
    np.testing.assert_array_equal(found, 2 * X)


def test_is_traced():
    seen = []
    gj.grad(lambda x: (seen.append(gj.is_traced(x)), x * x)[1])(1.0)
    gj.vmap(lambda x: (seen.append(gj.is_traced(x)), x)[1])(X)
    gj.grad(lambda x: (seen.append(gj.is_traced(x > 0)), x)[1])(1.0)
    assert seen == [True, True, False]
    assert not any(map(gj.is_traced, (X, 1.0, "text", None)))


def test_repr_and_format_show_the_value():
    texts = []
    gj.grad(lambda x: (texts.append((repr(x), f"{x}", f"{x:.2f}")), x * x)[1])(1.5)
    ((shown, plain, formatted),) = texts
    assert "1.5" in shown
    assert "1.5" in plain
    assert formatted == "1.50"
    gj.vmap(lambda x: (texts.append(repr(x)), x)[1])(X)
    assert "3 lanes" in texts[1]


def test_item_drops_the_derivative_with_a_warning():
    with pytest.warns(UserWarning, match="derivative"):
        assert float(gj.grad(lambda x: x * x.item())(3.0)) == 3.0
