"""hessian: second derivatives, nested twice."""

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_hessian_is_the_difference_of_gradients(name, f, args):
    loss = h.scalar_of(f)
    every = tuple(range(len(args)))
    g = gj.grad(loss, every)
    H = h.matrix_of(gj.hessian(loss, every)(*args), g(*args), args)
    np.testing.assert_allclose(H, h.difference_matrix(g, *args), atol=2e-6)
    np.testing.assert_allclose(H, H.T, atol=1e-10)


def test_nesting_of_a_tree_with_a_vector_output():
    def f(p, x):
        return {"out": np.tanh(p["w"] @ x) * p["b"]}

    p, x = {"w": np.ones((2, 3)), "b": np.ones(2)}, X / 10
    H = gj.hessian(f, (0, 1))(p, x)["out"]
    assert H[0]["w"][0]["b"].shape == (2, 2, 3, 2)
    assert H[0]["b"][1].shape == (2, 2, 3)
    assert H[1][0]["w"].shape == (2, 3, 2, 3)
    assert H[1][1].shape == (2, 3, 3)
    np.testing.assert_allclose(H[1][0]["w"], np.moveaxis(H[0]["w"][1], 3, 1), atol=1e-12)
    assert gj.hessian(f)(p, x)["out"]["w"]["w"].shape == (2, 2, 3, 2, 3)
    ((only,),) = gj.hessian(lambda x: (x**2).sum(), (0,))(X)
    np.testing.assert_array_equal(only, 2 * np.eye(3))


def test_linear_and_constant_functions_have_zeros():
    np.testing.assert_array_equal(gj.hessian(lambda x: x.sum())(X), np.zeros((3, 3)))
    np.testing.assert_array_equal(gj.hessian(lambda x: 1.0)(X), np.zeros((3, 3)))
    np.testing.assert_array_equal(gj.hessian(lambda x: x)(X), np.zeros((3, 3, 3)))
    assert gj.hessian(lambda x: x.sum())(np.zeros(0)).shape == (0, 0)


def test_a_scalar_argument():
    assert float(gj.hessian(lambda x: x**3)(2.0)) == 12.0


@pytest.mark.parametrize("chunk_size", [None, 1, 2, "auto"])
@pytest.mark.parametrize("inner_chunk_size", [None, 1, 2, "auto"])
def test_chunks_of_both_levels(chunk_size, inner_chunk_size):
    calls = []

    def f(x):
        calls.append(1)
        return np.exp(x[:2] * x[1:]) * (x.sum() if x[0] > 0 else 1.0)

    expected = gj.jacfwd(gj.jacfwd(f))(X)
    calls.clear()
    H = gj.hessian(f, chunk_size=chunk_size, inner_chunk_size=inner_chunk_size)(X)
    np.testing.assert_allclose(H, expected, rtol=1e-12)
    assert len(calls) == 1
    h.assert_owned(H, X)


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
@pytest.mark.parametrize("inner_chunk_size", [None, 1, 2])
@pytest.mark.parametrize("memory", [None, 64])
@pytest.mark.parametrize(("has_aux", "with_value"), [(False, False), (True, False), (False, True), (True, True)])
def test_every_combination_of_options_is_the_composition_by_hand(
    chunk_size, inner_chunk_size, memory, has_aux, with_value
):
    def f(p, x):
        y = {"v": np.tanh(p["w"] * x[:2]), "s": (x**3).sum() * p["b"]}
        return (y, {"seen": x + 1, "word": "kept"}) if has_aux else y

    p = {"w": X[:2] / 3, "b": np.array(0.5)}
    options = {"chunk_size": chunk_size, "inner_chunk_size": inner_chunk_size, "memory": memory}
    found = gj.hessian(f, (0, 1), has_aux=has_aux, with_value=with_value, **options)(p, X)
    plain = lambda p, x: f(p, x)[0] if has_aux else f(p, x)
    expected = gj.jacfwd(gj.jacrev(plain, (0, 1)), (0, 1))(p, X)
    if has_aux or with_value:
        found, rest = found
        y, aux = rest if has_aux and with_value else (rest, rest)
        if has_aux:
            np.testing.assert_array_equal(aux["seen"], X + 1)
            assert aux["word"] == "kept"
        if with_value:
            for a, b in zip(h.leaves(y), h.leaves(plain(p, X)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-14)
    for a, b in zip(h.leaves(found), h.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_every_composition_of_the_two_modes_is_the_hessian():
    f = lambda x: np.sin(x) @ np.cumsum(x)
    H = gj.hessian(f)(X)
    for outer in (gj.jacrev, gj.jacfwd, gj.jacobian):
        for inner in (gj.jacrev, gj.jacfwd, gj.jacobian, gj.grad):
            np.testing.assert_allclose(outer(inner(f))(X), H, atol=1e-13)


def test_logistic_regression_in_closed_form(rng):
    A, labels = rng.standard_normal((20, 4)), rng.integers(0, 2, 20)
    w = rng.standard_normal(4)

    def loss(w):
        z = A @ w
        return (np.logaddexp(0.0, z) - labels * z).sum()

    p = 1 / (1 + np.exp(-A @ w))
    np.testing.assert_allclose(gj.hessian(loss)(w), (A.T * (p * (1 - p))) @ A, rtol=1e-11, atol=1e-12)
