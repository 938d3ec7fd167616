"""Compositions, helpers, and odds and ends (C1 to C8, HP2, MF1, CT1 to CT3, TL1, D1)."""

import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity

X, CT = np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.5, -0.7])
BATCH = np.stack([X, X + 1])


def pull(f):
    """The pullback of f as a transform."""
    return lambda x: gj.vjp(f, x)[1](CT[: np.size(f(x))].reshape(np.shape(f(x))))[0]


@parity("C1")
def test_pairs_of_transforms():
    total = lambda x: np.sin(x).sum()
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14)
    close(gj.grad(lambda x: gj.grad(total)(x).sum())(X), -np.sin(X))  # grad of grad
    close(gj.grad(lambda x: gj.vmap(np.sin)(x).sum())(X), np.cos(X))  # grad of vmap
    close(gj.grad(lambda x: (pull(np.sin)(x) * X).sum())(X), -np.sin(X) * CT * X)  # grad of vjp
    close(gj.vmap(gj.grad(total))(BATCH), np.cos(BATCH))  # vmap of grad
    close(gj.vmap(gj.vmap(np.sin))(BATCH), np.sin(BATCH))  # vmap of vmap
    close(gj.vmap(lambda x: gj.vjp(np.sin, x)[1](CT)[0])(BATCH), np.cos(BATCH) * CT)  # vmap of vjp
    _, pullback = gj.vjp(np.sin, X)
    close(gj.vmap(pullback)(np.eye(3))[0], np.diag(np.cos(X)))  # vmap over a pullback made before
    close(gj.vjp(gj.grad(total), X)[1](CT)[0], -np.sin(X) * CT)  # vjp of grad
    close(gj.vjp(gj.vmap(np.sin), X)[1](CT)[0], np.cos(X) * CT)  # vjp of vmap
    close(gj.vjp(lambda x: gj.vjp(np.sin, x)[1](CT)[0], X)[1](CT)[0], -np.sin(X) * CT**2)  # vjp of vjp


@parity("C3")
def test_programs_run_again_with_new_data():
    f = lambda x: np.tanh(x) * x.sum()
    _, pullback = gj.vjp(f, X)
    _, lin = gj.linearize(gj.vmap(lambda x: gj.jacrev(gj.jacrev(np.sin))(x).sum(0)), BATCH)
    J = gj.jacrev(f)(X)
    for v in (CT, 2 * CT, -X):
        np.testing.assert_allclose(pullback(v)[0], v @ J, atol=1e-14)
        found = lin(np.stack([v, v]))
        wanted = np.stack([np.diag(-np.cos(x) * v) for x in BATCH])
        np.testing.assert_allclose(found, wanted, atol=1e-14)


@parity("C4")
def test_import_is_silent():
    done = subprocess.run([sys.executable, "-W", "error", "-c", "import gpujac"], capture_output=True, text=True,
                          check=True, cwd=gj.__file__.rpartition("gpujac")[0])  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")


@parity("O16")
def test_a_shape_given_as_an_array():
    found = gj.vmap(lambda x: np.reshape(x, np.array([3, 1])))(BATCH)
    np.testing.assert_array_equal(found, BATCH[..., None])


@parity("MF1")
def test_states_of_several_models_stack():
    models = [{"w": np.full((3, 2), k), "b": [np.full(2, -k)]} for k in (1.0, 2.0, 3.0)]
    stacked = gj.trees.map(lambda *leaves: np.stack(leaves), *models)
    assert (stacked["w"].shape, stacked["b"][0].shape) == ((3, 3, 2), (3, 2))
    predict = lambda p, x: np.tanh(x @ p["w"] + p["b"][0])
    found = gj.vmap(predict, in_dims=(0, None))(stacked, X)
    np.testing.assert_allclose(found, np.stack([predict(p, X) for p in models]))
    with pytest.raises(TypeError, match="argument"):
        gj.trees.map(lambda *leaves: np.stack(leaves), *[])
    with pytest.raises((gj.StructureError, ValueError)):
        gj.trees.map(lambda *leaves: np.stack(leaves), models[0], {"w": X})


@parity("CT1")
def test_grad_through_a_strided_slice_and_a_mean():
    x = np.arange(12.0).reshape(3, 4)
    found = gj.grad(lambda x: (x[::2, 1::2] ** 2).mean())(x)
    expected = np.zeros((3, 4))
    expected[::2, 1::2] = x[::2, 1::2] / 2
    np.testing.assert_allclose(found, expected)


Holder = namedtuple("Holder", "table rows")


class Table:
    """A container of the user's own."""

    def __init__(self, values):
        self.values = values


gj.trees.register(Table, lambda t: ((t.values,), None), lambda _, children: Table(*children))


@parity("CT2")
def test_vjp_through_a_gather_with_a_registered_container():
    rows = np.array([2, 0, 2])
    _y, pullback = gj.vjp(lambda t: np.take(t.values, rows, axis=0), Table(np.arange(6.0).reshape(3, 2)))
    (found,) = pullback(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert type(found) is Table
    np.testing.assert_array_equal(found.values, [[3, 4], [0, 0], [6, 8]])


@parity("CT3")
def test_the_trace_of_a_matrix_under_vjp():
    y, pullback = gj.vjp(np.trace, np.arange(9.0).reshape(3, 3))
    assert float(y) == 12.0
    np.testing.assert_array_equal(pullback(np.array(2.0))[0], 2 * np.eye(3))


@parity("TL1")
def test_values_as_lists():
    seen = []

    def f(x):
        rows = x.tolist()
        seen.append([gj.value(v) if x.ndim == 1 else [gj.value(u) for u in v] for v in rows])
        flat = rows if x.ndim == 1 else [u for row in rows for u in row]
        return sum(v * v * v for v in flat)  # from the entries alone: they carry the derivative

    np.testing.assert_allclose(gj.grad(f)(X), 3 * X**2)
    np.testing.assert_allclose(gj.grad(lambda x: gj.grad(f)(x).sum())(X), 6 * X)
    np.testing.assert_allclose(gj.grad(f)(BATCH), 3 * BATCH**2)
    z = X + 1j
    np.testing.assert_allclose(gj.grad(lambda z: f(z).real)(z), np.conj(3 * z**2))
    assert seen == [X.tolist(), X.tolist(), BATCH.tolist(), z.tolist()]


@parity("D1")
def test_all_and_any_of_a_whole_batch():
    assert bool(np.all(np.stack([X, -X]) != 0))
    inside = gj.vmap(lambda x: np.where(np.all(x > 0), x, -x))(np.stack([X, np.abs(X)]))
    np.testing.assert_array_equal(inside, np.stack([-X, np.abs(X)]))  # per lane, not of the batch
    whole = gj.vmap(lambda x, flag: x if flag else -x, in_dims=(0, None))
    np.testing.assert_array_equal(whole(BATCH, np.any(BATCH > 2.5)), BATCH)
    for x in (X, X - 10, X + 10):
        found = [gj.jvp(lambda x, f=f: x * (2.0 if f(x > 0) else 3.0), (x,), (x,))[0] for f in (np.any, np.all)]
        for y, holds in zip(found, (max(x) > 0, min(x) > 0), strict=True):
            np.testing.assert_array_equal(y, x * (2.0 if holds else 3.0))
