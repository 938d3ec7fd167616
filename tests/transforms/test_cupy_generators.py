"""CuPy's Generator in gpujac.random.wrap: it has few methods, and those that code asks for beside them are made."""

import numpy as np
import pytest

import gpujac as gj
from tests import device

if device.MISSING:
    pytest.skip(reason=device.MISSING, allow_module_level=True)

import cupy

from gpujac import generators

cp = device.XP
METHODS = sorted(name for name in dir(cupy.random.Generator) if not name.startswith("_"))
MADE = ["choice", "normal", "permutation"]
NAMES = {*generators._PARAMETERS, *generators._VECTORS, *MADE}
PASSES = [{}, {"chunk_size": 1}, {"chunk_size": 3}, {"method": "loop"}]
passes = pytest.mark.parametrize("options", PASSES, ids=["batch", "ones", "chunks", "loop"])
X = device.array(np.arange(12.0).reshape(4, 3))


def plain(seed=5):
    return device.BACKEND.xp.random.default_rng(seed)


def wrapped(seed=5):
    return gj.random.wrap(plain(seed))


def assert_same(found, expected):
    assert isinstance(found, device.TYPE)
    np.testing.assert_allclose(device.host(found), device.host(expected), rtol=1e-14)


def test_the_installed_class_is_accepted_as_it_is():
    """CuPy's own class, which needs no card until it draws."""
    generator = cupy.random.Generator.__new__(cupy.random.Generator)
    ours = gj.random.wrap(generator)
    assert all(callable(getattr(ours, name)) for name in (*METHODS, *MADE))
    assert not set(METHODS) & set(MADE), "CuPy has it by now: use its own"


def test_the_generator_of_the_tests_has_the_methods_of_the_class():
    generator = plain()
    assert [n for n in METHODS if not callable(getattr(generator, n, None))] == []
    beside = NAMES | {n for n in dir(np.random.Generator) if not n.startswith("_")}
    assert [n for n in sorted(beside - set(METHODS)) if getattr(generator, n, None) is not None] == []


@pytest.mark.parametrize("name", sorted(NAMES - set(METHODS) - set(MADE)))
def test_a_draw_that_it_lacks_is_named(name):
    assert not hasattr(wrapped(), name)
    with pytest.raises(AttributeError, match=rf"random\.wrap: .*Generator has no {name}; .*keys"):
        gj.vmap(lambda x: getattr(wrapped(), name)(), randomness="same")(X)


DRAWS = {
    "normal": (lambda g: g.normal(size=2), lambda g, b: g.standard_normal((*b, 2))),
    "a number": (lambda g: g.normal(3.0), lambda g, b: 3.0 + g.standard_normal(b or None)),
    "with parameters": (lambda g: g.normal(1.0, scale=2.0, size=(2, 3), dtype=np.float32),
                        lambda g, b: 1.0 + 2.0 * g.standard_normal((*b, 2, 3), dtype=np.float32)),
    "of arrays": (lambda g: g.normal(X[0], 2.0), lambda g, b: X[0] + 2.0 * g.standard_normal((*b, 3))),
    "choice": (lambda g: g.choice(7, 2), lambda g, b: g.integers(0, 7, (*b, 2))),
    "of values": (lambda g: g.choice(X[1], (2, 2)), lambda g, b: X[1][g.integers(0, 3, (*b, 2, 2))]),
    "uniform": (lambda g: g.uniform(1.0, 3.0, 2), lambda g, b: g.uniform(1.0, 3.0, (*b, 2))),
    "beta": (lambda g: g.beta(1.0, 3.0, 2), lambda g, b: g.beta(1.0, 3.0, (*b, 2))),
}  # fmt: skip
each_draw = pytest.mark.parametrize(("draw", "whole"), DRAWS.values(), ids=DRAWS)


@each_draw
def test_a_call_outside_of_vmap(draw, whole):
    assert_same(draw(wrapped()), whole(plain(), ()))


@each_draw
@passes
def test_different_is_one_draw_with_the_lanes_in_front(draw, whole, options):
    ours, theirs = wrapped(), plain()
    for y in gj.vmap(lambda x: (draw(ours), draw(ours)), randomness="different", **options)(X):
        assert_same(y, whole(theirs, (4,)))
    assert_same(ours.random(3), theirs.random(3))  # the state afterwards is that of one pass


@each_draw
@passes
def test_same_is_one_draw_that_no_write_of_a_lane_changes(draw, whole, options):
    ours, theirs = wrapped(), plain()

    def lane(x):
        y = draw(ours)
        y += 1
        return y + 0 * x[0]

    assert_same(gj.vmap(lane, randomness="same", **options)(X), cp.stack([1 + whole(theirs, ())] * 4))


@passes
def test_orders_and_draws_without_repetition(options):
    ours, theirs = wrapped(), plain()
    draw = lambda x: (ours.permutation(x), ours.permutation(5), ours.choice(7, 3, replace=False))
    found = gj.vmap(draw, randomness="different", **options)(X)
    assert_same(found[0], cp.stack([row[theirs.random(3).argsort()] for row in X]))
    assert_same(found[1], cp.stack([theirs.random(5).argsort() for _ in range(4)]))
    assert_same(found[2], cp.stack([theirs.random(7).argsort()[:3] for _ in range(4)]))


def test_orders_are_equally_likely_and_hold_every_entry_once():
    ours = wrapped()
    orders = device.host(gj.vmap(lambda x: ours.permutation(3), randomness="different", axis_size=600, in_dims=None)(X))
    assert (np.sort(orders, axis=1) == np.arange(3)).all()
    counts = np.unique(orders @ [9, 3, 1], return_counts=True)[1]
    assert len(counts) == 6
    assert abs(counts - 100).max() < 50  # five standard deviations
    assert_same(ours.permutation(X)[:, 0].sum(), X[:, 0].sum())


def test_what_the_made_draws_refuse():
    with pytest.raises(ValueError, match="choice without replacement of 4 among 3"):
        wrapped().choice(3, 4, replace=False)
    with pytest.raises(gj.errors.DispatchError, match="the one made here knows no p"):
        wrapped().choice(3, p=[0.2, 0.3, 0.5])


def test_derivatives_flow_through_the_parameters_of_a_made_draw():
    f = lambda m, s: wrapped().normal(m, s, (2, 3)).sum(0)
    mean, width = X[0], X[1]
    z = plain().standard_normal((2, 3))
    y, pullback = gj.vjp(f, mean, width)
    assert_same(y, (mean + width * z).sum(0))
    assert_same(pullback(X[2])[0], 2 * X[2])
    assert_same(pullback(X[2])[1], X[2] * z.sum(0))
