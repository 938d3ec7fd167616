"""jvp: value and directional derivative in one pass."""

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([1.0, 2.0, 3.0])
T = np.array([1.0, -1.0, 0.5])


@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_tangent_is_the_directional_difference(name, f, args, rng):
    t = h.random_like(args, rng)
    y, dy = gj.jvp(f, args, t)
    h.assert_close(y, f(*args))
    expected = h.difference_matrix(f, *args) @ h.vector(t)
    np.testing.assert_allclose(h.vector(dy), expected, atol=h.DIFFERENCE * 10)


@pytest.mark.parametrize("f", [np.exp, lambda x: x**3 / (1 + x), lambda x: np.cumsum(np.sinh(x))])
def test_tangent_of_an_analytic_function_is_the_complex_step(f):
    _, dy = gj.jvp(f, (X,), (T,))
    np.testing.assert_allclose(dy, np.imag(f(X + 1e-30j * T)) / 1e-30, rtol=1e-14)


def test_the_tangent_has_the_structure_of_the_output():
    y, dy = gj.jvp(lambda x: h.Pair({"a": x}, [x.sum()]), (X,), (T,))
    h.assert_close(dy, h.Pair({"a": T}, [T.sum()]))
    h.assert_close(y, h.Pair({"a": X}, [X.sum()]))


def test_tangents_match_by_key_and_are_cast():
    _, dy = gj.jvp(lambda p: p["a"] - p["b"], ({"a": X, "b": X},), ({"b": T, "a": 2 * T},))
    np.testing.assert_array_equal(dy, T)
    _, dy = gj.jvp(lambda x: x * 2, (X.astype("f4"),), (T,))
    assert dy.dtype == np.float32  # the one rule for both: a tangent of another width is cast
    _, lin = gj.linearize(lambda x: x * 2, X.astype("f4"))
    assert lin(T).dtype == np.float32


def test_integer_and_boolean_outputs_have_zero_tangents_of_their_own_dtype():
    y, dy = gj.jvp(lambda x: (x > 1.5, np.argmax(x), x), (X,), (T,))
    assert (y[0].dtype, dy[0].dtype) == (bool, bool)
    assert dy[1] == 0
    np.testing.assert_array_equal(dy[0], [False] * 3)


def test_an_unrelated_output_is_zero_and_an_error_when_strict():
    _, dy = gj.jvp(lambda x: (x, np.ones(2)), (X,), (T,))
    np.testing.assert_array_equal(dy[1], np.zeros(2))
    with pytest.raises(gj.ArgumentError, match="strict"):
        gj.jvp(lambda x: (x, np.ones(2)), (X,), (T,), strict=True)
    with pytest.raises(gj.ArgumentError, match="strict"):
        gj.jvp(lambda x: (x, np.zeros_like(x)), (X,), (T,), strict=True)
    gj.jvp(lambda x: (x, x[:0]), (X,), (T,), strict=True)


def test_aux():
    _y, dy, aux = gj.jvp(lambda x: (x * x, ("side", x + 1)), (X,), (T,), has_aux=True)
    assert aux[0] == "side"
    assert type(aux[1]) is np.ndarray
    np.testing.assert_array_equal(dy, 2 * X * T)


def test_results_own_their_memory():
    constant = np.ones(3)
    for f in (lambda x: x, lambda x: x[::-1], lambda x: x + constant, lambda x: constant,
              lambda x: np.broadcast_to(x, (2, 3))):  # fmt: skip
        y, dy = gj.jvp(f, (X,), (T,))
        h.assert_owned((y, dy), X, T, constant)
        assert not np.may_share_memory(y, dy)


def test_a_write_into_a_primal_inside_stays_inside():
    def f(x):
        x[0] = x[1] * 2
        return x

    x = X.copy()
    _, dy = gj.jvp(f, (x,), (T,))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(dy, [2 * T[1], T[1], T[2]])


def test_complex_tangents_are_complex_linear_for_holomorphic_functions():
    z, t = X + 1j * T, T - 2j
    _, dy = gj.jvp(lambda z: z**3 * 1j, (z,), (t,))
    np.testing.assert_allclose(dy, 3j * z**2 * t)


@pytest.mark.parametrize("x", [2.0, np.float32(2.0), np.array(2.0)])
def test_scalars(x):
    y, dy = gj.jvp(lambda x: x * x, (x,), (3.0,))
    assert (float(y), float(dy)) == (4.0, 12.0)
