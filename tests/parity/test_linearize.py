"""linearize (L1 to L6)."""

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity

X, T = np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.5, -0.7])


@parity("L1", "L2")
def test_value_and_map_equal_jvp():
    for f in (np.sin, lambda x: (x * x[0], x.sum()), lambda x: (np.cumsum(x),)):
        y, lin = gj.linearize(f, X)
        value, tangent = gj.jvp(f, (X,), (T,))
        assert type(y) is type(value)
        for a, b in zip(gj.trees.flatten((y, lin(T)))[0], gj.trees.flatten((value, tangent))[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)
        np.testing.assert_allclose(gj.trees.flatten(lin(2 * T))[0][0], 2 * gj.trees.flatten(tangent)[0][0])


@parity("L3")
def test_vmap_of_the_linear_map():
    _, lin = gj.linearize(lambda x: np.tanh(x) * x.sum(), X)
    J = gj.jacfwd(lambda x: np.tanh(x) * x.sum())(X)
    np.testing.assert_allclose(gj.vmap(lin)(np.eye(3)), J.T, atol=1e-14)


@parity("L4")
def test_an_f_that_holds_a_gradient_of_a_linear_function():
    f = lambda x: gj.grad(lambda y: (y * x).sum())(x) * x  # the inner gradient is x itself
    y, lin = gj.linearize(f, X)
    np.testing.assert_allclose(y, X**2)
    np.testing.assert_allclose(lin(T), 2 * X * T)


@parity("L5")
def test_nested_inputs_and_outputs():
    f = lambda p, q: {"y": [p["a"] * q[0]], "z": (q[1].sum(),)}
    _y, lin = gj.linearize(f, {"a": X}, (T, X))
    dy = lin({"a": T}, (X, T))
    assert (type(dy), type(dy["y"]), type(dy["z"])) == (dict, list, tuple)
    np.testing.assert_allclose(dy["y"][0], T * T + X * X)
    assert float(dy["z"][0]) == pytest.approx(float(T.sum()))


@parity("L6")
def test_tangents_that_do_not_fit():
    _, lin = gj.linearize(lambda x, p: x * p["a"], X, {"a": T})
    for tangents, error in [((X,), gj.StructureError), ((X, {"a": T}, X), gj.StructureError),
                            ((X, {"b": T}), gj.StructureError), ((X[:2], {"a": T}), gj.ShapeError),
                            ((X, {"a": T[None]}), gj.ShapeError), ((X + 1j, {"a": T}), gj.DTypeError),
                            ((X, {"a": "text"}), gj.ArgumentTypeError)]:  # fmt: skip
        with pytest.raises(error, match=r"^linearize: "):
            lin(*tangents)
    narrow = lin(X.astype(np.float32), {"a": T})
    assert narrow.dtype == np.float64
