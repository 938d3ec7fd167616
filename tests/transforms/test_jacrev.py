"""jacrev: nesting, dtypes, options and empty sides of the Jacobian by reverse mode."""

from collections import OrderedDict

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])
@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_jacobian_is_the_difference_matrix(transform, name, f, args):
    J = transform(f, tuple(range(len(args))))(*args)
    found = h.matrix_of(J, f(*args), args)
    np.testing.assert_allclose(found, h.difference_matrix(f, *args), atol=h.DIFFERENCE * 10)
    h.assert_owned(J, args)


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])
def test_nesting_is_output_then_argnums_then_argument(transform):
    def f(x, y):
        return {"l": x["w"] * y.sum(), "r": [y, x["b"]]}

    args = {"w": np.ones((2, 3)), "b": 2.0}, X
    J = transform(f, (1, 0))(*args)
    assert J["l"][0].shape == (2, 3, 3)
    assert J["l"][1]["w"].shape == (2, 3, 2, 3)
    assert J["l"][1]["b"].shape == (2, 3)
    assert J["r"][0][0].shape == (3, 3)
    assert J["r"][1][1]["b"].shape == ()
    assert isinstance(J["l"], tuple)
    assert transform(f, 0)(*args)["l"]["w"].shape == (2, 3, 2, 3)
    assert isinstance(transform(f, (0,))(*args)["l"], tuple)


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
def test_containers_are_kept(transform):
    J = transform(lambda p: h.Pair(p["a"] * 2, OrderedDict(z=p["a"])))({"a": X, "n": None})
    assert type(J) is h.Pair
    assert type(J.right) is OrderedDict
    assert J.left["n"] is None
    np.testing.assert_array_equal(J.left["a"], 2 * np.eye(3))


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])
def test_unselected_arguments_and_keywords_pass_untouched(transform):
    def f(x, index, mode, *, scale, option=None):
        assert mode == "cubic"
        assert option == {"n": 1}
        assert not gj.is_traced(index)
        return scale * x[index]

    J = transform(f)(X, np.array([2, 0]), "cubic", scale=3.0, option={"n": 1})
    np.testing.assert_array_equal(J, [[0, 0, 3], [3, 0, 0]])


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian, gj.hessian])
def test_aux_and_value(transform):
    def f(x):
        return x * x, ("side", x + 1)

    plain = transform(lambda x: x * x)(X)
    J, aux = transform(f, has_aux=True)(X)
    h.assert_same_bits(J, plain)
    assert aux[0] == "side"
    assert type(aux[1]) is np.ndarray
    J, y = transform(lambda x: x * x, with_value=True)(X)
    h.assert_same_bits((J, y), (plain, X * X))
    J, (y, aux) = transform(f, has_aux=True, with_value=True)(X)
    h.assert_same_bits((J, y, aux[1]), (plain, X * X, X + 1))
    h.assert_owned((J, y), X)


def test_leaf_dtypes():
    x = X.astype("f4")
    f = lambda x: x * np.arange(3.0)
    assert gj.jacrev(f)(x).dtype == np.float32
    assert gj.jacfwd(f)(x).dtype == np.float64
    for mode in ("auto", "rev", "fwd"):
        assert gj.jacobian(f, mode=mode)(x).dtype == np.float64
    down = lambda x: x.astype("f4") * 2
    assert gj.jacrev(down)(X).dtype == np.float64
    assert gj.jacfwd(down)(X).dtype == np.float32
    for mode in ("auto", "rev", "fwd"):
        assert gj.jacobian(down, mode=mode)(X).dtype == np.float64


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian, gj.hessian])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_one_width_stays_that_width(transform, dtype):
    found = transform(lambda x: np.tanh(x) * x.sum() / 3.0)(X.astype(dtype))
    assert found.dtype == dtype


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])
@pytest.mark.parametrize("chunk_size", [None, 1, 2, "auto"])
class TestSpecialSides:
    """Empty inputs and outputs, 0-d leaves, constants, the identity."""

    def test_empty_input(self, transform, chunk_size):
        J = transform(lambda x: np.ones(2) * x.sum(), chunk_size=chunk_size)(np.zeros(0))
        assert J.shape == (2, 0)

    def test_empty_output(self, transform, chunk_size):
        assert transform(lambda x: x[:0], chunk_size=chunk_size)(X).shape == (0, 3)

    def test_both_empty(self, transform, chunk_size):
        assert transform(lambda x: x * 2, chunk_size=chunk_size)(np.zeros((0, 2))).shape == (0, 2, 0, 2)

    def test_empty_beside_full(self, transform, chunk_size):
        J = transform(lambda x: (x[:0], x[1:], x[:0]), chunk_size=chunk_size)(X)
        assert [j.shape for j in J] == [(0, 3), (2, 3), (0, 3)]
        np.testing.assert_array_equal(J[1], np.eye(3)[1:])

    def test_empty_input_with_aux_and_constant_output(self, transform, chunk_size):
        J, aux = transform(lambda x: (np.ones(2), 7), has_aux=True, chunk_size=chunk_size)(np.zeros(0))
        assert (J.shape, aux) == ((2, 0), 7)

    def test_0d(self, transform, chunk_size):
        J = transform(lambda a, b: (a * b, a), (0, 1), chunk_size=chunk_size)(2.0, np.float64(3.0))
        assert [float(j) for row in J for j in row] == [3.0, 2.0, 1.0, 0.0]
        assert np.shape(J[0][0]) == ()

    def test_0d_to_vector_and_back(self, transform, chunk_size):
        J = transform(lambda a: np.stack([a, a * a, np.sin(a)]), chunk_size=chunk_size)(2.0)
        np.testing.assert_allclose(J, [1, 4, np.cos(2.0)])
        J = transform(lambda x: (x * x).sum(), chunk_size=chunk_size)(X)
        np.testing.assert_array_equal(J, 2 * X)

    def test_constants(self, transform, chunk_size):
        J = transform(lambda x: (np.ones(2), 1.0, x), chunk_size=chunk_size)(X)
        np.testing.assert_array_equal(J[0], np.zeros((2, 3)))
        np.testing.assert_array_equal(J[1], np.zeros(3))
        np.testing.assert_array_equal(J[2], np.eye(3))

    def test_identity(self, transform, chunk_size):
        np.testing.assert_array_equal(transform(lambda x: x, chunk_size=chunk_size)(X), np.eye(3))

    def test_the_same_variable_several_times(self, transform, chunk_size):
        def f(x):
            y = np.sin(x)
            return y, x, y, x

        J = transform(f, chunk_size=chunk_size)(X)
        for found, expected in zip(J, [np.diag(np.cos(X)), np.eye(3)] * 2, strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_an_unused_input(self, transform, chunk_size):
        J = transform(lambda x, y: x * 2, (0, 1), chunk_size=chunk_size)(X, X[:2])
        np.testing.assert_array_equal(J[1], np.zeros((3, 2)))


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])
@pytest.mark.parametrize("chunk_size", [None, 1, 2, "auto"])
def test_holomorphic(transform, chunk_size):
    z = X + 1j * X[::-1]
    M = np.arange(6.0).reshape(2, 3) + 1j
    J = transform(lambda z: (np.exp(1j * z), M @ z, (z**2).sum()), holomorphic=True, chunk_size=chunk_size)(z)
    np.testing.assert_allclose(J[0], np.diag(1j * np.exp(1j * z)))
    np.testing.assert_allclose(J[1], M)
    np.testing.assert_allclose(J[2], 2 * z)
    (only,) = transform(lambda z: [(z**3).sum()], holomorphic=True, chunk_size=chunk_size)(z)
    np.testing.assert_allclose(only, 3 * z**2)


def test_complex_arguments_that_are_not_selected_are_fine():
    J = gj.jacrev(lambda x, z: x * np.abs(z))(X, X + 1j)
    np.testing.assert_allclose(J, np.diag(np.abs(X + 1j)))
    J, aux = gj.jacrev(lambda x: (x, x * 1j), has_aux=True)(X)
    assert aux.dtype == complex


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])
def test_singular_slopes_leave_no_nan_off_the_diagonal(transform):
    for chunk_size in (None, 1, 2):
        J = transform(np.sqrt, chunk_size=chunk_size)(np.array([0.0, 4.0]))
        np.testing.assert_array_equal(J, [[np.inf, 0], [0, 0.25]])
    J = transform(lambda x: np.where(x > 0, np.sqrt(x), 0.0))(np.array([0.0, 4.0]))
    np.testing.assert_array_equal(J, [[0, 0], [0, 0.25]])
