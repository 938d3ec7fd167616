"""hessian (H1 to H4)."""

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity
from tests.transforms import helpers as h

X = np.array([0.3, -1.2, 2.0])


@parity("H1")
def test_a_quadratic():
    A = np.arange(9.0).reshape(3, 3)
    np.testing.assert_allclose(gj.hessian(lambda x: x @ A @ x)(X), A + A.T, atol=1e-13)


@parity("H2")
def test_a_product_of_three_matrices(rng):
    a, b, c = rng.standard_normal((2, 3)), rng.standard_normal((3, 3)), rng.standard_normal((3, 2))
    f = lambda a, b, c: a @ b @ c
    H = gj.hessian(f, (0, 1, 2))(a, b, c)
    assert [[block.shape for block in row] for row in H] == [
        [(2, 2, *x.shape, *y.shape) for y in (a, b, c)] for x in (a, b, c)
    ]
    eye = np.eye
    np.testing.assert_allclose(H[0][0], 0, atol=1e-14)
    np.testing.assert_allclose(H[0][1], np.einsum("ip,qr,sj->ijpqrs", eye(2), eye(3), c), atol=1e-14)
    np.testing.assert_allclose(H[0][2], np.einsum("ip,qr,js->ijpqrs", eye(2), b, eye(2)), atol=1e-14)
    np.testing.assert_allclose(H[1][2], np.einsum("ip,qr,js->ijpqrs", a, eye(3), eye(2)), atol=1e-14)


@parity("H3")
def test_outputs_that_do_not_depend():
    H = gj.hessian(lambda x, y: {"none": np.ones(2), "x": (x**3).sum(), "y": y**2}, (0, 1))(X, X[:2])
    for i, x in enumerate((X, X[:2])):
        for j, y in enumerate((X, X[:2])):
            np.testing.assert_array_equal(H["none"][i][j], np.zeros((2, *x.shape, *y.shape)))
    np.testing.assert_allclose(H["x"][0][0], np.diag(6 * X))
    np.testing.assert_array_equal(H["x"][1][1], np.zeros((2, 2)))
    np.testing.assert_array_equal(H["x"][0][1], np.zeros((3, 2)))
    np.testing.assert_array_equal(H["y"][0][0], np.zeros((2, 3, 3)))


@parity("H4")
@pytest.mark.parametrize("size", [None, 1, 2])
def test_mixed_levels(size):
    points, w = np.stack([X, -X]), np.array([1.0, -2.0, 0.5])

    def loss(x, w):
        shared = np.zeros_like(w)  # not mapped until x is written into it
        shared[:] = x * w
        return np.sum(np.sin(shared) * x) + w @ w

    H = gj.vmap(gj.hessian(loss, (0, 1), chunk_size=size), in_dims=(0, None))(points, w)
    rev = gj.vmap(gj.jacrev(gj.jacrev(loss, (0, 1), chunk_size=size), (0, 1)), in_dims=(0, None))(points, w)
    h.assert_close(H, rev, 1e-13)
    np.testing.assert_allclose(H[0][1][1], gj.hessian(loss, (0, 1))(-X, w)[0][1], atol=1e-13)
