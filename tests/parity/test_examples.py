"""Whole models (X1 to X7), each against a loop, differences, or a direct formula."""

import itertools

import numpy as np
import pytest

import gpujac as gj
from tests.parity import networks as nn
from tests.parity import parity
from tests.transforms import helpers as h


def stepped(p, g, rate):
    """p - rate g, leaf by leaf."""
    return gj.trees.map(lambda x, dx: x - rate * dx, p, g)


def looped(f, in_dims, *args):
    """vmap(f, in_dims) by a loop; an entry of in_dims is 0 or None."""
    size = next(h.leaves(a)[0].shape[0] for a, d in zip(args, in_dims, strict=True) if d == 0)
    pick = lambda a, d, i: a if d is None else gj.trees.map(lambda x: x[i], a)
    lanes = [f(*[pick(a, d, i) for a, d in zip(args, in_dims, strict=True)]) for i in range(size)]
    return gj.trees.map(lambda *ys: np.stack(ys), *lanes)


def check_differences(f, p, tolerance=2e-7):
    """The gradient of f at the tree p is that of central differences."""
    found = h.vector(gj.grad(f)(p))
    np.testing.assert_allclose(found, h.difference_matrix(f, p)[0], atol=tolerance * max(1, np.abs(found).max()))


def dense(rng, *sizes):
    """Weights of fully connected layers."""
    pairs = itertools.pairwise(sizes)
    return [{"w": rng.standard_normal((a, b)) / np.sqrt(a), "b": 0.1 * rng.standard_normal(b)} for a, b in pairs]


def mlp(p, x, activation=np.tanh):
    for layer in p[:-1]:
        x = activation(x @ layer["w"] + layer["b"])
    return x @ p[-1]["w"] + p[-1]["b"]


@parity("X1")
def test_maml_on_a_regression(rng):
    p, tasks = dense(rng, 1, 6, 6, 1), rng.uniform(0.5, 2.0, (4, 2))
    near, far = np.linspace(-1, 1, 5)[:, None], np.linspace(-0.9, 1.1, 5)[:, None]
    mse = lambda p, x, task: np.mean((mlp(p, x) - task[0] * np.sin(x + task[1])) ** 2)

    def adapted(p, task):
        return mse(stepped(p, gj.grad(mse)(p, near, task), 0.1), far, task)

    meta = lambda p: gj.vmap(adapted, in_dims=(None, 0))(p, tasks).mean()
    slow = lambda p: sum(adapted(p, task) for task in tasks) / 4
    h.assert_close(gj.grad(meta)(p), gj.grad(slow)(p), 1e-12)
    check_differences(meta, p)
    for _ in range(3):
        loss, g = gj.value_and_grad(meta)(p)
        p = stepped(p, g, 0.05)
        assert meta(p) < loss  # it learns


@parity("X2")
def test_maml_with_convolutions(rng):
    p = {"k": rng.standard_normal((4, 1, 3, 3)) / 3, "s": np.ones(4), "t": np.zeros(4),
         "w": rng.standard_normal((16, 3)) / 4}  # fmt: skip
    images, labels = rng.standard_normal((2, 3, 1, 6, 6)), np.array([[0, 1, 2], [2, 0, 1]])

    def net(p, image):
        x = nn.conv(image, p["k"])
        return nn.max_pool2d(nn.relu(nn.group_norm(x, 2, p["s"], p["t"])), 2).reshape(-1) @ p["w"]

    def loss(p, images, labels):
        z = gj.vmap(net, in_dims=(None, 0))(p, images)
        return nn.nll(nn.log_softmax(z), labels)

    adapted = lambda p, x, t: loss(stepped(p, gj.grad(loss)(p, x, t), 0.2), x[::-1], t[::-1])
    meta = lambda p: gj.vmap(adapted, in_dims=(None, 0, 0))(p, images, labels).mean()
    slow = lambda p: (adapted(p, images[0], labels[0]) + adapted(p, images[1], labels[1])) / 2
    h.assert_close(gj.grad(meta)(p), gj.grad(slow)(p), 1e-12)
    check_differences(meta, {**p, "k": p["k"] + 0.01})


@parity("X3")
def test_batch_norm_gradients_per_example(rng):
    p = {"k": rng.standard_normal((3, 2, 2)), "w": rng.standard_normal((12, 2)) / 3}
    x, t = rng.standard_normal((4, 2, 5)), np.array([0, 1, 1, 0])

    def loss(p, x, t):
        y = nn.batch_norm(nn.conv(x, p["k"], padding=0)[None])[0]  # statistics of this example alone
        return nn.nll(nn.log_softmax(nn.relu(y).reshape(1, -1) @ p["w"]), t[None])

    found = gj.vmap(gj.grad(loss), in_dims=(None, 0, 0))(p, x, t)
    h.assert_close(found, looped(gj.grad(loss), (None, 0, 0), p, x, t), 1e-12)
    check_differences(lambda p: loss(p, x[0], t[0]), p)


@parity("X4")
@pytest.mark.parametrize("jac", [gj.jacrev, gj.jacfwd])
def test_forces_inside_a_loss(jac, rng):
    p = dense(rng, 1, 5, 5, 1)
    r = rng.uniform(0.9, 2.0, (6, 3))
    distance = lambda r: np.sqrt((r * r).sum())
    lennard_jones = lambda r: 4 * (distance(r) ** -12 - distance(r) ** -6)
    energy = lambda p, r: mlp(p, distance(r).reshape(1)).sum()
    exact = gj.vmap(jac(lennard_jones))(r)
    d = np.sqrt((r * r).sum(1, keepdims=True))
    np.testing.assert_allclose(exact, 4 * (-12 * d**-14 + 6 * d**-8) * r, rtol=1e-12)

    def loss(p):
        forces = gj.vmap(jac(energy, 1), in_dims=(None, 0))(p, r)
        energies = gj.vmap(energy, in_dims=(None, 0))(p, r)
        return ((forces - exact) ** 2).mean() + ((energies - gj.vmap(lennard_jones)(r)) ** 2).mean()

    slow = lambda p: sum(
        ((jac(energy, 1)(p, x) - f) ** 2).mean() + (energy(p, x) - lennard_jones(x)) ** 2
        for x, f in zip(r, exact, strict=True)
    ) / 6  # fmt: skip
    h.assert_close(gj.grad(loss)(p), gj.grad(slow)(p), 1e-11)
    check_differences(loss, p, 1e-6)


@parity("X5")
def test_a_training_step_of_an_ensemble(rng):
    models = [dense(np.random.default_rng(k), 2, 5, 2) for k in range(3)]
    stacked = gj.trees.map(lambda *xs: np.stack(xs), *models)
    x = rng.standard_normal((8, 2))
    t = (x[:, 0] * x[:, 1] > 0).astype(int)
    loss = lambda p: nn.nll(nn.log_softmax(mlp(p, x)), t)

    def step(p, rate):
        g, value = gj.grad_and_value(loss)(p)
        return value, stepped(p, g, rate)

    first, after = gj.vmap(step, in_dims=(0, None))(stacked, 0.5)
    want = looped(step, (0, None), stacked, 0.5)
    h.assert_close((first, after), want, 1e-12)
    assert (gj.vmap(loss)(after) < first).all()


def residual_net(p, image):
    """Two residual blocks, one of them with a stride and a projection, as in a small ResNet."""
    x = nn.relu(nn.conv(image, p["stem"], padding=1))
    for block in p["blocks"]:
        stride = 2 if "skip" in block else 1
        y = nn.relu(nn.group_norm(nn.conv(x, block["a"], stride=stride, padding=1), 2, *block["n"]))
        y = nn.conv(y, block["b"], padding=1)
        skip = nn.conv(x, block["skip"], stride=stride) if "skip" in block else x
        x = nn.relu(y + skip)
    return x.mean(axis=(1, 2)) @ p["head"]


@parity("X7")
def test_a_residual_net(rng):
    draw = lambda *shape: rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    p = {"stem": draw(2, 1, 3, 3), "head": rng.standard_normal((4, 3)), "blocks": [
        {"a": draw(2, 2, 3, 3), "b": draw(2, 2, 3, 3), "n": [np.ones(2), np.zeros(2)]},
        {"a": draw(4, 2, 3, 3), "b": draw(4, 4, 3, 3), "n": [np.ones(4), np.zeros(4)],
         "skip": draw(4, 2, 1, 1)}]}  # fmt: skip
    x, t = rng.standard_normal((3, 1, 6, 6)), np.array([0, 2, 1])
    loss = lambda p, x, t: -np.sum(nn.log_softmax(residual_net(p, x)) * (np.arange(3) == t))
    found = gj.vmap(gj.grad(loss), in_dims=(None, 0, 0))(p, x, t)
    h.assert_close(found, looped(gj.grad(loss), (None, 0, 0), p, x, t), 1e-11)
    chunked = gj.vmap(gj.grad(loss), in_dims=(None, 0, 0), chunk_size=2)(p, x, t)
    h.assert_close(chunked, found, 1e-12)
    check_differences(lambda k: loss({**p, "stem": k}, x[0], t[0]), p["stem"], 1e-6)


def element(key, x, rate):
    return np.where(gj.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0.0)


def feature(key, x, rate):
    return np.where(gj.random.bernoulli(key, 1 - rate, (1, x.shape[1])), x / (1 - rate), 0.0)


def alpha(key, x, rate):
    return np.where(gj.random.bernoulli(key, 1 - rate, x.shape), x, -1.7580993408473766)


@parity("X6")
@pytest.mark.parametrize("dropout", [element, feature, alpha])
def test_a_search_of_learning_rates(dropout, rng):
    x = rng.standard_normal((10, 3))
    t = (x.sum(1) > 0).astype(int)
    start, rates, key = dense(rng, 3, 6, 2), np.array([0.01, 0.1, 1.0]), gj.random.key(4, like=np.zeros(1))

    def loss(p, key):
        hidden = dropout(key, np.tanh(x @ p[0]["w"] + p[0]["b"]), 0.3)
        return nn.nll(nn.log_softmax(hidden @ p[1]["w"] + p[1]["b"]), t)

    def trained(rate):
        p = start
        for k in range(3):
            p = stepped(p, gj.grad(loss)(p, gj.random.fold_in(key, k)), rate)
        return p

    found = gj.vmap(trained, randomness="same")(rates)
    lanes = [trained(rate) for rate in rates]
    h.assert_close(found, gj.trees.map(lambda *xs: np.stack(xs), *lanes), 1e-12)
    other = gj.vmap(trained, randomness="different")(np.full(3, 0.1))
    assert np.ptp(other[1]["w"], axis=0).max() > 1e-4  # another dropout in every model
