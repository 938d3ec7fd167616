"""Cotangents in a batch, contiguous and not, of first and second order (BG1 to BG30)."""

import numpy as np
import pytest

import gpujac as gj
from gpujac.scipy.special import gammaln
from tests.parity import networks as nn
from tests.parity import parity
from tests.transforms import helpers as h

V, M = np.array([0.3, 0.7, -0.5, 0.9]), np.linspace(-0.9, 0.8, 12).reshape(3, 4)
P = np.abs(M) + 0.1
INDEX = np.array([2, 0, 2, 1])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(p, t):
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()


def logsumexp(x):
    top = np.max(x, axis=-1, keepdims=True)
    return (top + np.log(np.sum(np.exp(x - top), axis=-1, keepdims=True)))[..., 0]


def in_place_view(x):
    y = x * 1.0
    row = y[1]
    row *= y[0]
    return y


def many_views(x):
    a, b = np.split(x.T.reshape(2, 6), 2, axis=1)
    return (a[::-1] * b[:, ::-1]).reshape(-1)[1::2]


def attention(q, k, v):
    scores = q @ k.T / np.sqrt(q.shape[-1])
    return np.exp(nn.log_softmax(scores)) @ v


CASES = {
    "BG1": [(np.add, (M, V)), (lambda x: x + 2.0, (M,))],
    "BG2": [(np.subtract, (V, M)), (lambda x: 2.0 - x, (M,))],
    "BG3": [(np.multiply, (M, V)), (lambda x: x * 3.0, (M,))],
    "BG4": [(np.divide, (V, P)), (lambda x: 2.0 / x, (P,)), (lambda x: x / 2.0, (M,))],
    "BG5": [(cross_entropy, (sigmoid(M), sigmoid(2 * M)))],
    "BG6": [(nn.log_softmax, (M,))],
    "BG7": [(lambda x: np.broadcast_to(x, (2, 3, 4)), (M,)), (lambda x: np.broadcast_to(x[:, None], (4, 2)), (V,))],
    "BG8": [(lambda x: x[INDEX], (M,)), (lambda x: x[[0, 2]][:, INDEX], (M,)), (lambda x: x[[0, 1], [1, 1]], (M,))],
    "BG9": [(gammaln, (P + 0.5,))],
    "BG10": [(np.log, (P,))],
    "BG11": [(logsumexp, (M,)), (np.logaddexp, (M, V))],
    "BG12": [(np.log1p, (P,))],
    "BG13": [(np.max, (V,)), (lambda x: np.max(x, axis=1), (M,))],
    "BG14": [(np.median, (V[:3],)), (lambda x: np.median(x, axis=0), (M,))],
    "BG15": [(np.min, (V,)), (lambda x: np.min(x, axis=0), (M,))],
    "BG16": [(lambda x: np.transpose(x[None], (2, 0, 1)), (M,))],
    "BG17": [(lambda x: np.reshape(x, (2, -1)), (M,))],
    "BG18": [(sigmoid, (M,))],
    "BG19": [(lambda x, y: np.stack([x, y, x], axis=1), (V, V[::-1]))],
    "BG20": [(lambda x: x[:, 1], (M,)), (lambda x: x[2], (M,))],
    "BG21": [(lambda x: x[0:2, 1::2], (M,))],
    "BG22": [(np.trace, (M[:, :3],))],
    "BG23": [(lambda x, y: np.where(x > y, x, y * y), (M, V)), (lambda x: np.where(x > 0, x, 0.0), (M,))],
    "BG24": [(lambda x: np.where(x > 0.2, x, 7.0), (M,))],
    "BG25": [(in_place_view, (M,))],
    "BG26": [(many_views, (M,))],
    "BG27": [(lambda x: np.diagonal(x, 1), (M,))],
    "BG28": [(lambda x, y: (np.sin(x), np.ones(2)), (V, V))],
    "BG30": [(attention, (M, M + 0.5, M[:, :2]))],
}  # fmt: skip
RUNS = [(code, number) for code, cases in CASES.items() for number in range(len(cases))]


def cotangents(y, rng):
    """A batch of cotangents of y in three layouts: rows, columns, and a strided part of a larger array."""
    draw = lambda *shape: rng.standard_normal(shape)
    rows = gj.trees.map(lambda leaf: draw(3, *np.shape(leaf)), y)
    yield 0, rows, rows
    yield -1, gj.trees.map(lambda r: np.moveaxis(r, 0, -1).copy(), rows), rows
    wide = gj.trees.map(lambda leaf: draw(6, *np.shape(leaf)), y)
    yield 0, gj.trees.map(lambda w: w[::2], wide), gj.trees.map(lambda w: w[::2].copy(), wide)


@parity(*CASES)
@pytest.mark.parametrize(("code", "number"), RUNS, ids=[f"{code}-{number}" for code, number in RUNS])
def test_batches_of_cotangents(code, number, rng):
    f, args = CASES[code][number]
    y, pullback = gj.vjp(f, *args)
    M = h.difference_matrix(f, *args)
    for axis, batch, rows in cotangents(y, rng):
        found = gj.vmap(pullback, in_dims=axis)(batch)
        for i in range(3):
            ct = gj.trees.map(lambda r, i=i: r[i], rows)
            np.testing.assert_allclose(h.vector([x[i] for x in found]), h.vector(ct) @ M, atol=3e-8)


@parity(*CASES)
@pytest.mark.parametrize(("code", "number"), RUNS, ids=[f"{code}-{number}" for code, number in RUNS])
def test_batches_of_second_order(code, number, rng):
    f, args = CASES[code][number]
    weights = gj.trees.map(lambda leaf: rng.standard_normal(np.shape(leaf)), f(*args))
    loss = lambda *xs: sum((w * y * y).sum() for w, y in zip(h.leaves(weights), h.leaves(f(*xs)), strict=True))
    gradient = gj.grad(loss, tuple(range(len(args))))
    y, pullback = gj.vjp(gradient, *args)
    M = h.difference_matrix(gradient, *args)
    for axis, batch, rows in cotangents(y, rng):
        found = gj.vmap(pullback, in_dims=axis)(batch)
        for i in range(3):
            ct = [r[i] for r in h.leaves(rows)]
            np.testing.assert_allclose(h.vector([x[i] for x in found]), h.vector(ct) @ M, atol=3e-7)


@parity("BG22")
def test_grad_of_grad_of_the_trace_is_zero():
    H = gj.hessian(np.trace)(M[:, :3])
    np.testing.assert_array_equal(H, np.zeros((3, 3, 3, 3)))
    np.testing.assert_array_equal(gj.vmap(gj.grad(lambda x: np.trace(x) ** 2))(M[None, :, :3]),
                                  2 * np.trace(M[:, :3]) * np.eye(3)[None])  # fmt: skip


@parity("BG23")
def test_where_with_one_argument_is_refused_under_vmap():
    with pytest.raises(gj.ConcretizationError, match="where"):
        gj.vmap(lambda x: np.where(x > 0))(M)


@parity("BG29")
def test_the_same_gradient_twice():
    _y, pullback = gj.vjp(np.sin, V)
    first, second = pullback(V)[0], pullback(V)[0]
    np.testing.assert_array_equal(first, second)
    twice = gj.vmap(lambda ct: (pullback(ct)[0], pullback(ct)[0]))(np.stack([V, -V]))
    np.testing.assert_array_equal(twice[0], twice[1])
    np.testing.assert_allclose(twice[0][1], -np.cos(V) * V)
