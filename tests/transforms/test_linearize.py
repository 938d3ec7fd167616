"""linearize: the derivative at a point as a reusable linear function, from one evaluation."""

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_linear_map_equals_jvp_and_is_linear(name, f, args, rng):
    y, lin = gj.linearize(f, *args)
    h.assert_close(y, f(*args))
    a, b = h.random_like(args, rng), h.random_like(args, rng)
    h.assert_close(lin(*a), gj.jvp(f, args, a)[1])
    both = h.unvector(args, 2 * h.vector(a) - 3 * h.vector(b))
    expected = 2 * h.vector(lin(*a)) - 3 * h.vector(lin(*b))
    np.testing.assert_allclose(h.vector(lin(*both)), expected, atol=1e-12)


def test_f_runs_once():
    calls = []
    _, lin = gj.linearize(lambda x: (calls.append(1), x * x)[1], X)
    lin(X)
    lin(X)
    assert len(calls) == 1


def test_branches_on_values_work():
    _, lin = gj.linearize(lambda x: x**2 if x.sum() > 0 else x, X)
    np.testing.assert_array_equal(lin(np.ones(3)), 2 * X)


def test_vmap_of_the_linear_map_is_the_jacobian():
    _, lin = gj.linearize(h.stencil, np.linspace(0.0, 1.0, 5))
    rows = gj.vmap(lin)(np.eye(5))
    np.testing.assert_allclose(rows.T, gj.jacfwd(h.stencil)(np.linspace(0.0, 1.0, 5)))


def test_integer_outputs_have_zero_tangents():
    y, lin = gj.linearize(lambda x: (x, x > 2), X)
    assert y[1].dtype == bool
    np.testing.assert_array_equal(lin(X)[1], [False] * 3)


def test_aux():
    _y, lin, aux = gj.linearize(lambda x: (x * x, "side"), X, has_aux=True)
    assert aux == "side"
    np.testing.assert_array_equal(lin(np.ones(3)), 2 * X)


def test_of_a_gradient():
    _, lin = gj.linearize(gj.grad(lambda x: (x**3).sum()), X)
    np.testing.assert_allclose(lin(np.ones(3)), 6 * X)


def test_writes_into_the_inputs_after_the_call_change_nothing():
    x = X.copy()
    _, lin = gj.linearize(lambda x: x * x, x)
    x[...] = 0.0
    np.testing.assert_array_equal(lin(np.ones(3)), 2 * X)


def test_results_own_their_memory():
    t = np.ones(3)
    y, lin = gj.linearize(lambda x: (x, x[::-1], x + 1.0), X)
    h.assert_owned((y, lin(t)), X, t)


def test_tangents_that_do_not_fit_are_refused():
    _, lin = gj.linearize(lambda x, y: x * y, X, X)
    with pytest.raises(gj.StructureError, match="1 tangents for 2 primals"):
        lin(X)
    with pytest.raises(gj.ShapeError, match=r"\(2,\).*\(3,\)"):
        lin(X, X[:2])
