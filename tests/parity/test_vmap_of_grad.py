"""Gradients per example (VG1 to VG5)."""

import numpy as np
import pytest

import gpujac as gj
from tests.parity import networks as nn
from tests.parity import parity
from tests.transforms import helpers as h


def per_example(gradient, in_dims, *args):
    """vmap of a gradient and the loop over the same examples."""
    size = next(x.shape[0] for x, d in zip(args, in_dims, strict=True) if d == 0)
    lanes = [gradient(*[x if d is None else x[i] for x, d in zip(args, in_dims, strict=True)]) for i in range(size)]
    return gj.vmap(gradient, in_dims=in_dims)(*args), gj.trees.map(lambda *gs: np.stack(gs), *lanes)


@parity("VG1")
def test_64_examples_in_single_precision(rng):
    p = {"w": [rng.standard_normal((8, 5)), rng.standard_normal((5, 3))], "b": rng.standard_normal(5)}
    p = gj.trees.map(lambda x: x.astype(np.float32), p)
    x, t = rng.standard_normal((64, 8)).astype(np.float32), rng.integers(0, 3, 64)

    def loss(p, x, t):
        hidden = nn.relu(x @ p["w"][0] + p["b"])
        return -np.sum(nn.log_softmax(hidden @ p["w"][1]) * (np.arange(3) == t))

    found, loop = per_example(gj.grad(loss), (None, 0, 0), p, x, t)
    for a, b in zip(h.leaves(found), h.leaves(loop), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=5e-4, atol=1e-6)


@parity("VG2")
def test_a_view_written_in_place(rng):
    def loss(w, x):
        y = w * x
        first = y[:2]
        first *= x[:2]
        return (y**2).sum()

    found, loop = per_example(gj.grad(loss), (None, 0), rng.standard_normal(4), rng.standard_normal((3, 4)))
    np.testing.assert_allclose(found, loop, rtol=1e-13)


@parity("VG3")
@pytest.mark.parametrize("make", [np.zeros_like, np.empty_like, lambda x: np.full_like(x, 0.0)])
def test_buffers_inside_a_mapped_gradient(make, rng):
    def loss(w, x):
        buffer = make(w)
        buffer[...] = w * x
        other = make(w)
        other[0] = buffer[1]
        return (buffer * buffer).sum() + other[0]

    found, loop = per_example(gj.grad(loss), (None, 0), rng.standard_normal(4), rng.standard_normal((3, 4)))
    np.testing.assert_allclose(found, loop, rtol=1e-13)


@parity("VG4")
@pytest.mark.parametrize("mapped_weights", [False, True])
def test_a_net_with_an_embedding(mapped_weights, rng):
    p = {"table": rng.standard_normal((10, 4)), "w": rng.standard_normal((4, 2))}
    words, target = rng.integers(0, 10, (5, 6)), rng.integers(0, 2, 5)

    def loss(p, words, target):
        pooled = np.mean(np.take(p["table"], words, axis=0), axis=0)
        return -np.sum(nn.log_softmax(pooled @ p["w"]) * (np.arange(2) == target))

    if mapped_weights:  # the other call style: weights repeated per example
        p = gj.trees.map(lambda x: np.stack([x] * 5), p)
    lanes = [gj.grad(loss)(gj.trees.map(lambda x, i=i: x[i], p) if mapped_weights else p, words[i], target[i])
             for i in range(5)]  # fmt: skip
    found = gj.vmap(gj.grad(loss), in_dims=(0 if mapped_weights else None, 0, 0))(p, words, target)
    h.assert_close(found, gj.trees.map(lambda *gs: np.stack(gs), *lanes), 1e-13)


@parity("VG5")
def test_an_unmapped_cotangent(rng):
    x, ct = rng.standard_normal((5, 3)), rng.standard_normal(3)
    pull = lambda x: gj.vjp(nn.log_softmax, x)[1](ct)[0]
    np.testing.assert_allclose(gj.vmap(pull)(x), np.stack([pull(row) for row in x]), atol=1e-14)
