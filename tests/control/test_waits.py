"""On a device: which control flow waits for a value, and how often; counted on emulated arrays."""

import importlib

import pytest

import gpujac as gj
from tests import device
from tests.twin import LIBRARY

if device.MISSING or device.NAME != "emulated":
    pytest.skip(reason=device.MISSING or "only the emulated backend counts", allow_module_level=True)

cp = LIBRARY
emulated = importlib.import_module("gpujac.backends.emulated")
X = cp.array([[0.5, 1.0], [2.0, -1.0], [3.0, 0.1]])


def waits(f, *args):
    f(*args)  # caches are filled
    with emulated.counting() as n:
        f(*args)
    assert n.launches > 0
    return n.syncs


@pytest.mark.parametrize("transform", [lambda f: f, gj.jacrev, gj.jacfwd], ids=["plain", "jacrev", "jacfwd"])
def test_loops_of_a_fixed_length_never_wait(transform):
    f = lambda x: gj.fori_loop(0, 3, lambda i, s: cp.sin(s) * x, x)
    assert waits(gj.vmap(transform(f)), X) == 0
    f = lambda x: gj.scan(lambda s, v: (s * v, s + v), x[0], x, reverse=True)[1]
    assert waits(gj.vmap(transform(f)), X) == 0
    f = lambda x: gj.control.map(cp.sin, x, batch_size=1)
    assert waits(gj.vmap(transform(f)), X) == 0


@pytest.mark.parametrize("transform", [lambda f: f, gj.jacrev, gj.jacfwd], ids=["plain", "jacrev", "jacfwd"])
def test_a_decision_waits_once(transform):
    f = lambda x: gj.cond(x[0] > 1, cp.sin, cp.cos, x)
    assert waits(gj.vmap(transform(f)), X) == 1
    assert waits(gj.vmap(transform(f)), X[1:]) == 1
    f = lambda x: gj.switch(cp.floor(x[0]).astype(int), [cp.sin, cp.cos, cp.tanh], x)
    assert waits(gj.vmap(transform(f)), X) == 1
    steps = lambda x: gj.while_loop(lambda s: s.sum() < 10, lambda s: s * 2 + 1, x)
    assert waits(gj.vmap(transform(steps)), X) == 3  # before each of two iterations, and at the end


def test_without_lanes_a_decision_is_one_value():
    assert waits(lambda x: gj.cond(x[0, 0] > 0, cp.sin, cp.cos, x), X) == 1
    assert waits(gj.hessian_diagonal(lambda x: (x**3).sum() * x[0, 0]), X) == 0
    assert waits(gj.laplacian(lambda x: x**3 * x[0, 0]), X) == 0
    assert waits(lambda x: gj.hvp(lambda x: (x**3).sum(), (x,), (x,)), X) == 0
    assert waits(gj.jacrev(lambda x: x * 1j * x[0, 0], complex_blocks=True), X) == 0
