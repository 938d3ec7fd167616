"""Chunked vmap (O26, O27)."""

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity
from tests.transforms import helpers as h

X = np.linspace(-1.0, 1.0, 60).reshape(10, 3, 2)


@parity("O26")
@pytest.mark.parametrize("randomness", ["error", "same"])
@pytest.mark.parametrize("in_dim", [0, 1, -1])
@pytest.mark.parametrize("out_dim", [0, 1, -1])
@pytest.mark.parametrize("chunks", [1, 2, 3, 4, 7, 10, 16])
def test_a_number_of_chunks(chunks, in_dim, out_dim, randomness):
    x = np.moveaxis(X, 0, in_dim)
    key, seen = gj.random.key(2, like=np.zeros(1)), []

    def f(a):
        seen.append(1)
        noise = gj.random.uniform(key, a.shape) if randomness == "same" else 1.0
        return np.sin(a) * noise

    size = -(-10 // chunks)
    found = gj.vmap(f, in_dim, out_dim, randomness, chunk_size=size)(x)
    assert len(seen) == -(-10 // size)
    np.testing.assert_array_equal(found, gj.vmap(f, in_dim, out_dim, randomness)(x))


SIZES = [1, 2, 3, 4, 7, 9, 10, 11, 100]
CASES = {
    "one": (lambda x: np.cumsum(x, 0), (X,), 0),
    "two": (lambda x, y: (x * y, x.sum()), (X, X + 1), (0, 0)),
    "nested": (lambda p: {"a": p["x"] @ p["y"].T, "b": [p["x"].sum(0)]}, ({"x": X, "y": X},), 0),
    "first unmapped": (lambda w, x: x @ w, (np.ones((2, 4)), X), (None, 0)),
    "first no array": (lambda f, x: f(x), (np.cos, X), (None, 0)),
}


@parity("O27")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", list(CASES))
def test_chunk_sizes(name, size):
    f, args, in_dims = CASES[name]
    h.assert_close(gj.vmap(f, in_dims, chunk_size=size)(*args), gj.vmap(f, in_dims)(*args), 1e-15)
    moved = gj.vmap(f, in_dims, out_dims=-1, chunk_size=size)(*args)
    h.assert_close(moved, gj.vmap(f, in_dims, out_dims=-1)(*args), 1e-15)


@parity("O27")
@pytest.mark.parametrize("size", [2, 3, 10])
def test_nested_chunks(size):
    f = gj.vmap(gj.vmap(np.sin, chunk_size=size), chunk_size=2)
    np.testing.assert_array_equal(f(X), np.sin(X))
    g = gj.vmap(gj.grad(lambda x: gj.vmap(lambda r: (r * r).sum(), chunk_size=size)(x).sum()), chunk_size=3)
    np.testing.assert_allclose(g(X), 2 * X)


@parity("O27")
def test_chunks_that_are_refused():
    for size in (0, -1):
        with pytest.raises(gj.ArgumentError, match="chunk_size"):
            gj.vmap(np.sin, chunk_size=size)
    with pytest.raises(gj.StructureError, match="out_dims"):
        gj.vmap(np.sin, out_dims=(0, 1), chunk_size=2)(X)
    with pytest.raises(gj.AxisError, match="out_dims=7"):
        gj.vmap(np.sin, out_dims=7, chunk_size=2)(X)
