"""jvp (P1 to P15)."""

from collections import OrderedDict

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity

X, T = np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.5, -0.7])
U, V = np.array([2.0, 1.0, 0.1]), np.array([-1.0, 0.2, 0.4])


@parity("P1")
def test_writing_into_a_captured_array():
    captured = np.zeros(3)

    def f(x):
        np.add(captured, x, out=captured)
        return x

    with pytest.raises(gj.MutationError, match="traced value into a plain array"):
        gj.jvp(f, (X,), (T,))

    def g(x):
        captured[...] = x
        return x

    with pytest.raises((gj.ConcretizationError, gj.MutationError), match=r"into a plain (NumPy|CuPy) array"):
        gj.jvp(g, (X,), (T,))
    np.testing.assert_array_equal(captured, 0)


@parity("P2", "P3")
def test_one_and_several_inputs():
    y, dy = gj.jvp(np.sin, (X,), (T,))
    np.testing.assert_array_equal(y, np.sin(X))
    np.testing.assert_allclose(dy, np.cos(X) * T)
    y, dy = gj.jvp(lambda x, u: x * np.exp(u), (X, U), (T, V))
    np.testing.assert_allclose(dy, T * np.exp(U) + X * np.exp(U) * V)


@parity("P4")
def test_trees_of_inputs():
    f = lambda p, q: p["a"] * q[0] + p["b"][0]
    y, dy = gj.jvp(f, ({"a": X, "b": [U]}, (T,)), ({"b": [V], "a": T}, (U,)))  # keys in any order
    np.testing.assert_allclose(y, X * T + U)
    np.testing.assert_allclose(dy, T * T + X * U + V)


@parity("P5", "P10")
def test_primals_and_tangents_that_do_not_fit():
    f = lambda x, u: x * u
    for primals, tangents, error in [
        (X, X, gj.ArgumentTypeError),
        ([X, U], [T, V], gj.ArgumentTypeError),
        ((X, U), [T, V], gj.ArgumentTypeError),
        ((X, U), (T,), gj.StructureError),
        ((X, U), (T, V, V), gj.StructureError),
        ((X, U), (T, [V]), gj.StructureError),
        ((X, U), (T, None), gj.StructureError),
        ((X, "text"), (T, "text"), gj.ArgumentTypeError),
        ((X, U), (T, "text"), gj.ArgumentTypeError),
        ((X, U), (T, V[:2]), gj.ShapeError),
    ]:
        with pytest.raises(error, match=r"^jvp: "):
            gj.jvp(f, primals, tangents)
    _y, dy = gj.jvp(f, (X, 2.0), (T, 1.0))  # numbers are arrays without axes
    np.testing.assert_allclose(dy, 2 * T + X)


@parity("P10")
def test_no_primals():
    y, dy = gj.jvp(lambda: np.ones(2), (), ())
    np.testing.assert_array_equal(y, [1, 1])
    np.testing.assert_array_equal(dy, [0, 0])


@parity("P6")
def test_unrelated_inputs_and_outputs():
    (_a, _b), (da, db) = gj.jvp(lambda x, u: (x * 2, np.ones(4)), (X, U), (T, V))
    np.testing.assert_array_equal(da, 2 * T)
    np.testing.assert_array_equal(db, np.zeros(4))


@parity("P7")
def test_strict():
    f = lambda x: (x * 2, np.ones(4))
    with pytest.raises(gj.ArgumentError, match=r"strict=True, but output\[1\] of <lambda> does not depend"):
        gj.jvp(f, (X,), (T,), strict=True)
    _y, dy = gj.jvp(lambda x: (x * 2, x.sum()), (X,), (T,), strict=True)
    np.testing.assert_allclose(dy[0], 2 * T)


@parity("P8", "P11")
def test_trees_of_outputs():
    f = lambda x, u: OrderedDict(b=[x * u], a=(np.sin(x), {"k": u.sum()}))
    _y, dy = gj.jvp(f, (X, U), (T, V))
    assert type(dy) is OrderedDict
    assert list(dy) == ["b", "a"]
    np.testing.assert_allclose(dy["b"][0], T * U + X * V)
    np.testing.assert_allclose(dy["a"][0], np.cos(X) * T)
    assert float(dy["a"][1]["k"]) == pytest.approx(float(V.sum()))
    for nothing in (None, (), {}):
        with pytest.raises(gj.StructureError, match=r"^jvp: .*no array"):
            gj.jvp(lambda x, nothing=nothing: nothing, (X,), (T,))
    with pytest.raises(gj.ArgumentTypeError, match=r"output\['t'\] is a str"):
        gj.jvp(lambda x: {"y": x, "t": "text"}, (X,), (T,))


@parity("P9")
def test_a_constant_made_inside():
    _y, dy = gj.jvp(lambda x: x * np.asarray([1.0, 2.0, 3.0]) + np.zeros_like(x), (X,), (T,))
    np.testing.assert_allclose(dy, T * np.array([1.0, 2.0, 3.0]))


@parity("P12")
def test_aux():
    _y, dy, aux = gj.jvp(lambda x: (x * x, {"s": x.sum(), "n": "text"}), (X,), (T,), has_aux=True)
    np.testing.assert_allclose(dy, 2 * X * T)
    assert aux["n"] == "text"
    assert not gj.is_traced(aux["s"])
    assert float(aux["s"]) == pytest.approx(float(X.sum()))
    with pytest.raises(gj.StructureError, match=r"\(output, aux\)"):
        gj.jvp(lambda x: x, (X,), (T,), has_aux=True)


@parity("P15")
def test_the_covariance_mapped_twice():
    def cov(x):
        d = x - x.mean(axis=1, keepdims=True)
        return d @ d.T / (x.shape[1] - 1)

    x = np.linspace(-1, 1, 24).reshape(2, 3, 4) ** 2
    seeds = np.zeros((5, 3, 4))
    seeds[np.arange(4), np.arange(4) % 3, np.arange(4)] = 1.0  # the last lane's tangent is zero
    push = lambda x, t: gj.jvp(cov, (x,), (t,))[1]
    found = gj.vmap(gj.vmap(push, (None, 0)), (0, None))(x, seeds)
    for i, point in enumerate(x):
        J = gj.jacrev(cov)(point)
        np.testing.assert_allclose(found[i], np.einsum("abij,kij->kab", J, seeds), atol=1e-14)
    np.testing.assert_array_equal(found[:, 4], 0)
