"""Random generators inside vmap: wrapped ones follow the mode of randomness, plain ones know nothing of it."""

import numpy as np
import pytest

import gpujac as gj
from gpujac import random as gr
from tests.transforms import helpers as h

X = np.arange(12.0).reshape(4, 3)
PASSES = [{}, {"chunk_size": 1}, {"chunk_size": 3}, {"method": "loop"}]
passes = pytest.mark.parametrize("options", PASSES, ids=["batch", "ones", "chunks", "loop"])

# name -> the draw of one lane, and what one call with all lanes in front is
DRAWS = {
    "random": (lambda g: g.random(2), lambda g, b: g.random((b, 2))),
    "standard_normal": (lambda g: g.standard_normal((2, 3)), lambda g, b: g.standard_normal((b, 2, 3))),
    "normal": (lambda g: g.normal(), lambda g, b: g.normal(size=b)),
    "normal with numbers": (lambda g: g.normal(1.0, 2.0, 3), lambda g, b: g.normal(1.0, 2.0, (b, 3))),
    "uniform by name": (lambda g: g.uniform(high=3.0, low=1.0, size=(2,)), lambda g, b: g.uniform(1.0, 3.0, (b, 2))),
    "integers": (lambda g: g.integers(9, size=4), lambda g, b: g.integers(9, size=(b, 4))),
    "integers to the end": (lambda g: g.integers(0, 9, 4, np.int32, True),
                            lambda g, b: g.integers(0, 9, (b, 4), np.int32, True)),
    "gamma": (lambda g: g.gamma(2.0, size=2), lambda g, b: g.gamma(2.0, size=(b, 2))),
    "poisson": (lambda g: g.poisson(3.0), lambda g, b: g.poisson(3.0, b)),
    "dirichlet": (lambda g: g.dirichlet([1.0, 2.0]), lambda g, b: g.dirichlet([1.0, 2.0], b)),
    "multinomial": (lambda g: g.multinomial(5, [0.5, 0.5]), lambda g, b: g.multinomial(5, [0.5, 0.5], b)),
    "choice": (lambda g: g.choice(7, 2), lambda g, b: g.choice(7, (b, 2))),
    "choice by weight": (lambda g: g.choice(2, 3, True, [0.1, 0.9]),
                         lambda g, b: g.choice(2, (b, 3), True, [0.1, 0.9])),
    "permutation": (lambda g: g.permutation(5), lambda g, b: np.stack([g.permutation(5) for _ in range(b)])),
    "lines in orders of their own": (lambda g: g.permuted(X[:2], axis=1),
                                     lambda g, b: np.stack([g.permuted(X[:2], axis=1) for _ in range(b)])),
    "all entries in one order": (lambda g: g.permuted([[1, 2], [3, 4]]),
                                 lambda g, b: np.stack([g.permuted([[1, 2], [3, 4]]) for _ in range(b)])),
    "no repetitions": (lambda g: g.choice(7, 3, replace=False),
                       lambda g, b: np.stack([g.choice(7, 3, replace=False) for _ in range(b)])),
}  # fmt: skip
each_draw = pytest.mark.parametrize(("draw", "whole"), DRAWS.values(), ids=DRAWS)


def pair(seed=5):
    """A wrapped generator, and a plain one in the same state."""
    return gr.wrap(np.random.default_rng(seed)), np.random.default_rng(seed)


@each_draw
def test_outside_of_vmap_a_call_is_the_generators_own(draw, whole):
    wrapped, plain = pair()
    np.testing.assert_array_equal(draw(wrapped), draw(plain))


@each_draw
@passes
def test_the_mode_different_is_one_draw_with_the_lanes_in_front(draw, whole, options):
    wrapped, plain = pair()
    found = gj.vmap(lambda x: (draw(wrapped), draw(wrapped)), randomness="different", **options)(X)
    for y in found:
        np.testing.assert_array_equal(y, whole(plain, 4))
    np.testing.assert_array_equal(wrapped.random(3), plain.random(3))  # the state afterwards is that of one pass


@each_draw
@passes
def test_the_mode_same_is_one_draw_for_all_lanes(draw, whole, options):
    wrapped, plain = pair()
    found = gj.vmap(lambda x: (draw(wrapped), draw(wrapped)), randomness="same", **options)(X)
    for y in found:
        one = np.asarray(draw(plain))
        np.testing.assert_array_equal(y, np.stack([one] * 4))
    np.testing.assert_array_equal(wrapped.random(3), plain.random(3))


@each_draw
@passes
def test_the_mode_error_raises_and_says_what_to_choose(draw, whole, options):
    wrapped, plain = pair()
    with pytest.raises(gj.ArgumentError, match=r"inside vmap of <lambda>, whose randomness is 'error'.*different"):
        gj.vmap(lambda x: draw(wrapped), **options)(X)
    np.testing.assert_array_equal(wrapped.random(3), plain.random(3))


def test_an_enclosing_vmap_in_error_mode_is_an_error_too():
    wrapped, _ = pair()
    inner = gj.vmap(lambda x: wrapped.random(), randomness="same")
    with pytest.raises(gj.ArgumentError, match="'error'"):
        gj.vmap(inner)(X)


@pytest.mark.parametrize("outer", [None, 1, 2])
@pytest.mark.parametrize("inner", [None, 1, 2])
@pytest.mark.parametrize("modes", [("different", "different"), ("same", "different"), ("different", "same")])
def test_nested_levels_decide_for_their_own_axis(outer, inner, modes):
    wrapped, plain = pair()

    def f(row):
        first = wrapped.normal(size=2)
        lanes = gj.vmap(lambda x: wrapped.random(2) + 0 * x, randomness=modes[1], chunk_size=inner)(row)
        again = gj.vmap(lambda x: wrapped.random(), randomness=modes[1], chunk_size=inner)(row)
        return first, lanes, again, wrapped.random()

    first, lanes, again, last = gj.vmap(f, randomness=modes[0], chunk_size=outer)(X)
    lead = (4,) if modes[0] == "different" else ()
    both = lead + ((3,) if modes[1] == "different" else ())

    def wide(y, tail):
        y = y if lead else y[None]
        y = y if len(both) - len(lead) or tail == "outer" else y[:, None]
        return y + np.zeros((4, 3, 1)[: 1 if tail == "outer" else 2] + (1,) * (y.ndim - (1 if tail == "outer" else 2)))

    np.testing.assert_array_equal(first, wide(plain.normal(size=(*lead, 2)), "outer"))
    np.testing.assert_array_equal(lanes, wide(plain.random((*both, 2)), "inner"))
    np.testing.assert_array_equal(again, wide(np.asarray(plain.random(both)), "inner"))
    np.testing.assert_array_equal(last, wide(np.asarray(plain.random(lead)), "outer"))
    np.testing.assert_array_equal(wrapped.random(3), plain.random(3))


def test_a_nested_different_draw_is_one_direct_draw():
    wrapped, plain = pair()
    f = gj.vmap(lambda x: wrapped.standard_normal(2), randomness="different")
    found = gj.vmap(f, randomness="different")(X)
    np.testing.assert_array_equal(found, plain.standard_normal((4, 3, 2)))
    assert len({float(v) for v in found.reshape(-1)}) == 24


@passes
def test_lanes_of_shifted_draws_may_have_parameters_of_their_own(options):
    wrapped, plain = pair()
    loc, scale = np.arange(4.0), np.array([1.0, 2.0, 0.5, 0.0])
    found = gj.vmap(lambda m, s: wrapped.normal(m, s, 3), randomness="different", **options)(loc, scale)
    h.assert_close(found, loc[:, None] + scale[:, None] * plain.standard_normal((4, 3)))
    wrapped, plain = pair()
    found = gj.vmap(lambda s: wrapped.exponential(s), randomness="different", **options)(scale)
    h.assert_close(found, scale * plain.standard_exponential(4))


def test_draws_with_parameters_per_lane_are_one_call_with_all_of_them():
    wrapped, plain = pair()
    lam, p = np.array([1.0, 10.0, 100.0, 1000.0]), np.array([[0.1, 0.9, 0.5]] * 4)
    found = gj.vmap(lambda m: wrapped.poisson(m, 5), randomness="different")(lam)
    np.testing.assert_array_equal(found, plain.poisson(lam[:, None], (4, 5)))
    found = gj.vmap(lambda q, n: wrapped.binomial(n, q), (0, None), randomness="different")(p, 20)
    np.testing.assert_array_equal(found, plain.binomial(20, p, (4, 3)))
    found = gj.vmap(gj.vmap(lambda a: wrapped.gamma(a), randomness="different"), 1, randomness="different")(X + 1)
    np.testing.assert_array_equal(found, plain.gamma((X + 1).T))


def test_vectors_with_parameters_per_lane_are_drawn_in_turn():
    wrapped, plain = pair()
    p = np.array([[0.1, 0.9], [0.5, 0.5], [1.0, 0.0]])
    found = gj.vmap(lambda q: wrapped.multinomial(10, q), randomness="different")(p)
    np.testing.assert_array_equal(found, np.stack([plain.multinomial(10, q) for q in p]))
    found = gj.vmap(lambda q: wrapped.dirichlet(q + 1), randomness="different")(p)
    np.testing.assert_array_equal(found, np.stack([plain.dirichlet(q + 1) for q in p]))


@pytest.mark.parametrize("draw", [
    lambda g, m: g.poisson(m), lambda g, m: g.normal(m), lambda g, m: g.multinomial(3, np.stack([m, 1 - m]))
])  # fmt: skip
def test_one_draw_cannot_have_parameters_that_differ_between_lanes(draw):
    wrapped, _ = pair()
    with pytest.raises(gj.ArgumentError, match=r"in randomness='same' mode, but .* differs between the lanes"):
        gj.vmap(lambda m: draw(wrapped, m), randomness="same")(np.array([0.5, 0.25]))


def test_parameters_per_lane_in_chunks_are_refused_where_the_numbers_would_change():
    wrapped, _ = pair()
    with pytest.raises(gj.ArgumentError, match=r"poisson with parameters that differ between lanes, in chunks"):
        gj.vmap(lambda m: wrapped.poisson(m), randomness="different", chunk_size=2)(np.ones(4))
    with pytest.raises(gj.ShapeError, match="or with other parameters"):
        gj.vmap(lambda m: wrapped.poisson(m), randomness="different", method="loop")(np.arange(4.0))


def test_chunks_that_draw_different_things_are_an_error():
    wrapped, calls = pair()[0], []

    def f(x):
        calls.append(1)
        return wrapped.random(len(calls)).sum() * x

    with pytest.raises(gj.ShapeError, match="must draw the same things in the same order"):
        gj.vmap(f, randomness="different", chunk_size=2)(np.ones(4))


def test_what_works_in_place_is_refused_inside():
    wrapped, _ = pair()
    buffer = np.zeros(3)
    with pytest.raises(gj.MutationError, match="standard_normal with out="):
        gj.vmap(lambda x: wrapped.standard_normal(out=buffer), randomness="different")(X)
    with pytest.raises(gj.MutationError, match="shuffle works in place"):
        gj.vmap(lambda x: wrapped.shuffle(x), randomness="different")(X)
    with pytest.raises(gj.MutationError, match="shuffle works in place"):
        gj.grad(lambda x: wrapped.shuffle(x))(np.ones(3))
    with pytest.raises(gj.DispatchError, match="bytes has no meaning inside vmap"):
        gj.vmap(lambda x: wrapped.bytes(3), randomness="same")(X)


@pytest.mark.parametrize("method", ["batch", "loop"])
def test_lanes_that_share_a_shifted_draw_must_agree_on_its_parameters(method):
    draw = lambda f: gj.vmap(f, randomness="same", method=method)
    for f in (lambda g, m: g.normal(m), lambda g, m: g.normal(0.0, scale=m), lambda g, m: g.exponential(m + 1.0),
              lambda g, m: (g.normal(1.0), g.uniform(m, 9.0))[1]):  # fmt: skip
        wrapped, _ = pair()
        with pytest.raises(gj.ArgumentError, match=r"in randomness='same' mode, but .* differs between the lanes"):
            draw(lambda m, f=f, g=wrapped: f(g, m))(np.array([0.5, 0.25, 0.5]))
    wrapped, plain = pair()
    found = draw(lambda m: m + wrapped.normal(1.0, 2.0) + wrapped.normal(3.0))(np.arange(3.0))
    h.assert_close(found, np.arange(3.0) + plain.normal(1.0, 2.0) + plain.normal(3.0))
    wrapped, plain = pair()
    inner = lambda m: draw(lambda x: x + wrapped.normal(m))(np.zeros(3))  # shared within each outer lane
    found = gj.vmap(inner, randomness="different", method=method)(np.arange(2.0))
    h.assert_close(found, (np.arange(2.0) + plain.standard_normal(2))[:, None] + np.zeros(3))


@passes
@pytest.mark.parametrize("mode", ["same", "different"])
@pytest.mark.parametrize("arguments", [{}, {"size": 2}, {"size": 2, "replace": False}, {"p": [0.1, 0.2, 0.7]}],
                         ids=["one", "two", "no repetitions", "by weight"])  # fmt: skip
def test_choices_among_the_values_of_each_lane(arguments, mode, options):
    wrapped, plain = pair()
    found = gj.vmap(lambda x: wrapped.choice(x, **arguments), randomness=mode, **options)(X)
    if mode == "same":
        at = plain.choice(3, **arguments)
        expected = np.stack([row[at] for row in X])
    elif "replace" in arguments:
        expected = np.stack([row[plain.choice(3, **arguments)] for row in X])
    else:
        size = arguments.get("size", ())
        every = plain.choice(3, **{**arguments, "size": (4, *([size] if size else []))})
        expected = np.stack([row[at] for row, at in zip(X, every)])
    np.testing.assert_array_equal(found, expected)


def test_choices_along_an_axis_and_their_derivative():
    wrapped, plain = pair()
    found = gj.vmap(lambda x: wrapped.choice(x, 2, axis=1), randomness="same")(np.stack([X, X + 1.0]))
    np.testing.assert_array_equal(found, np.stack([X, X + 1.0])[:, :, plain.choice(3, 2)])
    wrapped, plain = pair()
    at = plain.choice(3, 4)
    found = gj.grad(lambda x: wrapped.choice(x, 4).sum())(X[0])
    np.testing.assert_array_equal(found, np.bincount(at, minlength=3))


def test_choices_by_weights_of_each_lane_are_refused():
    weights = np.array([[0.1, 0.9], [0.5, 0.5]])
    wrapped, _ = pair()
    for replace in (True, False):
        with pytest.raises(gj.DispatchError, match="choice with a traced p has no meaning"):
            gj.vmap(lambda p, r=replace: wrapped.choice(2, 1, r, p), randomness="different")(weights)
        with pytest.raises(gj.ShapeError, match="or with other parameters"):
            gj.vmap(lambda p, r=replace: wrapped.choice(2, 1, r, p), randomness="different", method="loop")(weights)
    with pytest.raises(gj.DispatchError, match="choice with a traced number of entries"):
        gj.vmap(lambda n: wrapped.choice(n, 1, False), randomness="different")(np.array([2, 3]))


@passes
def test_sizes_as_lists_and_arrays(options):
    for size in ([2], np.array([2]), (np.int64(2),)):
        wrapped, plain = pair()
        found = gj.vmap(lambda x, g=wrapped, s=size: g.normal(size=s), randomness="different", **options)(X)
        np.testing.assert_array_equal(found, plain.normal(size=(4, 2)))
    wrapped, _ = pair()
    with pytest.raises(gj.ArgumentTypeError, match=r"normal with size=2.5; use an int"):
        gj.vmap(lambda x: wrapped.normal(size=2.5), randomness="different", **options)(X)


@passes
def test_values_of_each_lane_in_random_order(options):
    wrapped, plain = pair()
    found = gj.vmap(lambda x: wrapped.permutation(x), randomness="different", **options)(X)
    np.testing.assert_array_equal(found, np.stack([row[plain.permutation(3)] for row in X]))


@passes
@pytest.mark.parametrize("axis", [None, 0, 1, -2])
@pytest.mark.parametrize("mode", ["same", "different"])
def test_entries_of_each_lane_in_orders_of_their_own(mode, axis, options):
    wrapped, plain = pair()
    lanes = np.stack([X, X**2, -X])
    order = np.arange(12) if axis is None else np.indices(X.shape)[axis]
    orders = [plain.permuted(order, axis=axis) for _ in range(3 if mode == "different" else 1)] * 3
    put = lambda x, o: x.ravel()[o].reshape(x.shape) if axis is None else np.take_along_axis(x, o, axis)
    found = gj.vmap(lambda x: wrapped.permuted(x, axis), randomness=mode, **options)(lanes)
    np.testing.assert_array_equal(found, [put(x, o) for x, o in zip(lanes, orders, strict=False)])


def test_derivatives_follow_entries_in_random_order():
    wrapped, plain = pair()
    w = np.sqrt(X + 1)
    found = gj.grad(lambda x: (wrapped.permuted(x, axis=1) * w).sum())(X)
    order = plain.permuted(np.broadcast_to(np.arange(3), (4, 3)), axis=1)
    np.testing.assert_array_equal(np.take_along_axis(found, order, 1), w)


def test_arguments_beyond_those_of_a_draw_are_refused():
    g, legacy = gr.wrap(np.random.default_rng(0)), gr.wrap(np.random.RandomState(0))
    buffer = np.zeros(3)
    for error, words, draw in [
        (gj.ArgumentTypeError, "normal with 6 arguments; it takes loc, scale, size, dtype",
         lambda: g.normal(0.0, 1.0, None, 7, 8, 9)),
        (gj.ArgumentTypeError, "normal with loc= twice", lambda: g.normal(0.0, loc=1.0)),
        (gj.ArgumentTypeError, "normal with size= twice", lambda: g.normal(0.0, 1.0, 3, size=2)),
        (gj.MutationError, "random with out=", lambda: g.random((3,), np.float64, buffer)),
        (gj.MutationError, "standard_exponential with out=",
         lambda: g.standard_exponential(3, np.float64, "zig", buffer)),
        (gj.MutationError, "standard_gamma with out=", lambda: g.standard_gamma(2.0, 3, np.float64, buffer)),
        (gj.MutationError, "permuted with out=", lambda: g.permuted(np.ones(3), 0, buffer)),
        (TypeError, "foo", lambda: g.normal(foo=3)),
        (TypeError, "foo", lambda: legacy.rand(2, foo=3)),
        (TypeError, "foo", lambda: legacy.randn(2, foo=3)),
        (gj.ArgumentError, "permuted of a number", lambda: g.permuted(3)),
    ]:  # fmt: skip
        with pytest.raises(error, match=words):
            gj.vmap(lambda x, draw=draw: x + draw(), randomness="same")(X)
    assert not buffer.any()
    bent = lambda x: x + g.multivariate_normal(np.zeros(2), [[1.0, 2.0], [2.0, 1.0]], None, "raise")[0]
    with pytest.raises(ValueError, match="semidefinite"):
        gj.vmap(bent, randomness="different")(X)
    with pytest.raises(gj.DispatchError, match="bytes has no meaning with traced arguments"):
        gj.grad(lambda x: g.bytes(x))(1.0)


def test_derivatives_flow_through_the_parameters_of_shifted_draws():
    wrapped, plain = pair()
    y, pullback = gj.vjp(lambda m, s: wrapped.normal(m, s, 3), 1.0, 2.0)
    z = plain.standard_normal(3)
    h.assert_close(y, 1.0 + 2.0 * z)
    found = pullback(np.ones(3))
    assert abs(float(found[0]) - 3.0) < 1e-12
    assert abs(float(found[1]) - float(z.sum())) < 1e-12
    with pytest.raises(gj.ConcretizationError, match="poisson has no derivative by lam"):
        gj.grad(lambda m: wrapped.poisson(m) * 1.0)(2.0)


def test_a_gradient_per_lane_with_noise():
    wrapped, plain = pair()
    f = lambda x: (x * wrapped.normal(size=3)).sum()
    found = gj.vmap(gj.grad(f), randomness="different")(X)
    np.testing.assert_array_equal(found, plain.standard_normal((4, 3)))
    assert gj.jacrev(lambda x: x * wrapped.normal(size=3))(np.ones(3)).shape == (3, 3)


def test_a_plain_generator_draws_once_for_all_lanes():
    """It has no traced operand, so that vmap cannot know of it: wrap it, or pass keys."""
    plain, again = np.random.default_rng(1), np.random.default_rng(1)
    found = gj.vmap(lambda x: x * 0 + plain.random())(np.ones(4))
    np.testing.assert_array_equal(found, np.full(4, 1.0) * again.random())
    found = gj.vmap(lambda x: x * 0 + plain.random(), chunk_size=2)(np.ones(4))  # once per chunk
    np.testing.assert_array_equal(found, np.repeat(again.random(2), 2))


def test_what_is_no_generator_is_refused():
    for bad in (np.ones(2), 5, None, gr, gr.wrap(np.random.default_rng(0))):
        with pytest.raises(gj.ArgumentTypeError, match="is no random generator"):
            gr.wrap(bad)


def test_names_beside_the_draws_are_the_generators():
    wrapped, _ = pair()
    assert "gpujac.random.wrap(" in repr(wrapped)
    assert wrapped.bit_generator is not None
    assert wrapped.normal.__name__ == "normal"
    with pytest.raises(AttributeError):
        wrapped.no_such_method()
