"""Randomness under vmap: keys, and generators that are wrapped, in each mode of it."""

from functools import partial

import numpy as np
import pytest

import gpujac as gj
from gpujac import random as gr
from tests.parity import parity

B = 4
X = np.linspace(-1.0, 2.0, 12).reshape(B, 3)
LAST = np.ascontiguousarray(X.T)
MAPPED = {"first": (0, X), "last": (1, LAST), "none": (None, X[0])}
mapped = pytest.mark.parametrize("where", MAPPED)


def check_modes(draw, whole, where="first"):
    """A draw of one lane from a wrapped generator against one call for all lanes, in each mode."""
    axis, x = MAPPED[where]
    for mode in ("error", "same", "different"):
        wrapped, plain = gr.wrap(np.random.default_rng(3)), np.random.default_rng(3)
        run = gj.vmap(partial(draw, wrapped), axis, randomness=mode, axis_size=B)
        if mode == "error":
            with pytest.raises(gj.ArgumentError, match="randomness is 'error'"):
                run(x)
        elif mode == "same":
            np.testing.assert_array_equal(run(x), np.stack([np.asarray(whole(plain, ()))] * B))
        else:
            found = run(x)
            np.testing.assert_array_equal(found, whole(plain, (B,)))
            assert len({row.tobytes() for row in np.asarray(found)}) > 1


def check_keys(draw, where="first"):
    """A draw with a key that is not mapped, in each mode."""
    axis, x = MAPPED[where]
    key = gr.key(5)
    with pytest.raises(gj.ArgumentError, match="a key that is not mapped"):
        gj.vmap(lambda x: draw(key, x), axis, axis_size=B)(x)
    lane = X[0]
    same = gj.vmap(lambda x: draw(key, x), axis, randomness="same", axis_size=B)(x)
    np.testing.assert_array_equal(same, np.stack([draw(key, lane)] * B))
    different = gj.vmap(lambda x: draw(key, x), axis, randomness="different", axis_size=B)(x)
    np.testing.assert_array_equal(different, np.stack([draw(k, lane) for k in gr.split(key, B)]))


@parity("R1")
@mapped
def test_uniform_normal_and_whole_numbers(where):
    check_modes(lambda g, x: g.standard_normal((2,)), lambda g, b: g.standard_normal((*b, 2)), where)
    check_modes(lambda g, x: g.random((2,)), lambda g, b: g.random((*b, 2)), where)
    check_modes(lambda g, x: g.integers(0, 10**6, (2,)), lambda g, b: g.integers(0, 10**6, (*b, 2)), where)
    check_modes(lambda g, x: g.normal(0.0, 1.0, (2,)), lambda g, b: g.normal(0.0, 1.0, (*b, 2)), where)
    check_keys(lambda k, x: gr.uniform(k, (2,)), where)
    check_keys(lambda k, x: gr.normal(k, (2,)), where)
    check_keys(lambda k, x: gr.randint(k, (2,), 0, 10**6), where)


GLOBAL = {
    "standard_normal": (), "random": (), "random_sample": (), "randint": (0, 10**6), "normal": (1.0, 2.0),
    "uniform": (2.0, 3.0), "gamma": (2.0,), "poisson": (50.0,), "binomial": (100, 0.5),
    "dirichlet": ([1.0, 2.0],), "multinomial": (50, [0.2, 0.8]),
}  # fmt: skip


@parity("R1", "R8", "R9")
@pytest.mark.parametrize("name", GLOBAL)
def test_numpys_global_state(name):
    """The module numpy.random, wrapped, in the place of a generator."""
    before, wrapped, args = np.random.get_state(), gr.wrap(np.random), GLOBAL[name]
    draw = lambda size: getattr(np.random, name)(*args, size=size)
    try:
        for mode, lead in (("same", ()), ("different", (B,))):
            np.random.seed(3)
            whole = draw((*lead, 2))
            np.random.seed(3)
            found = gj.vmap(lambda x: getattr(wrapped, name)(*args, size=2), randomness=mode)(X)
            np.testing.assert_array_equal(found, whole if lead else np.stack([whole] * B))
        with pytest.raises(gj.ArgumentError, match="randomness is 'error'"):
            gj.vmap(lambda x: getattr(wrapped, name)(*args, size=2))(X)
    finally:
        np.random.set_state(before)


@parity("R2")
@mapped
def test_permutations(where):
    each = lambda g, b: np.stack([g.permutation(9) for _ in range(b[0])]) if b else g.permutation(9)
    check_modes(lambda g, x: g.permutation(9), each, where)
    check_keys(lambda k, x: gr.permutation(k, 9), where)


def dropout(k, x, p):
    return np.where(gr.bernoulli(k, 1 - p, x.shape), x / (1 - p), 0.0)


def dropout_of_planes(k, x, p):
    return np.where(gr.bernoulli(k, 1 - p, (x.shape[0], 1)), x / (1 - p), 0.0)


@parity("R3")
def test_dropout_in_its_forms():
    key, x = gr.key(0), np.ones((3, 1000))
    plain = lambda x: dropout(key, x, 0.25)
    kept = gj.vmap(plain, randomness="different")(x)
    assert abs(float(kept.mean()) - 1.0) < 0.05
    assert set(np.unique(kept)) == {0.0, 1 / 0.75}
    assert not np.array_equal(kept[0], kept[1])
    same = gj.vmap(plain, randomness="same")(x)
    np.testing.assert_array_equal(same[0], same[2])
    planes = gj.vmap(lambda x: dropout_of_planes(key, x, 0.5), randomness="different")(np.ones((3, 40, 5)))
    assert bool((planes.min(2) == planes.max(2)).all())  # a plane vanishes as a whole, or not
    assert 0 < float(planes[0].mean()) < 2
    alpha = -1.7580993408473766  # what a dropped entry becomes in a network that normalizes itself
    a, b = (0.5 + alpha**2 * 0.25) ** -0.5, -((0.5 + alpha**2 * 0.25) ** -0.5) * alpha * 0.5
    z = gr.normal(gr.key(1), (3, 2000))
    f = lambda z: a * np.where(gr.bernoulli(key, 0.5, z.shape), z, alpha) + b
    found = gj.vmap(f, randomness="different")(z)
    assert abs(float(found.mean())) < 0.05
    assert abs(float(found.std()) - 1.0) < 0.05
    z = gr.normal(gr.key(2), (3, 400, 5))
    f = lambda z: a * np.where(gr.bernoulli(key, 0.5, (z.shape[0], 1)), z, alpha) + b
    found = gj.vmap(f, randomness="different")(z)
    gone = found == a * alpha + b
    assert bool((gone.all(2) == gone.any(2)).all())  # of a plane all entries are replaced, or none
    assert 0.4 < float(gone.mean()) < 0.6
    assert abs(float(found.mean())) < 0.1
    assert abs(float(found.std()) - 1.0) < 0.1
    assert not np.array_equal(gone[0], gone[1])
    same = gj.vmap(f, randomness="same")(z) == a * alpha + b
    np.testing.assert_array_equal(same[0], same[1])


@parity("R4")
@mapped
def test_draws_in_the_shape_of_another_array(where):
    check_modes(lambda g, x: g.random(x.shape), lambda g, b: g.random((*b, 3)), where)
    check_keys(lambda k, x: gr.normal(k, x.shape, x.dtype), where)


@parity("R5")
def test_buffers_filled_in_place():
    key = gr.key(2)

    def f(x):
        y = np.zeros_like(x)
        y[:] = gr.uniform(key, x.shape)
        y[0] += gr.normal(gr.fold_in(key, 1))
        return y

    found = gj.vmap(f, randomness="different")(X)
    expected = gr.uniform(key, (3,)), [gr.uniform(k, (3,)) for k in gr.split(key, B)]
    np.testing.assert_array_equal(found[:, 1:], np.stack(expected[1])[:, 1:])
    found = gj.vmap(f, randomness="same")(X)
    np.testing.assert_array_equal(found[:, 1:], np.stack([expected[0]] * B)[:, 1:])
    buffer, wrapped = np.zeros(3), gr.wrap(np.random.default_rng(0))
    with pytest.raises(gj.MutationError, match="out="):  # into an array that all lanes share
        gj.vmap(lambda x: wrapped.random(out=buffer), randomness="different")(X)


@parity("R6")
def test_bernoulli_with_mapped_p():
    keys, p = gr.split(gr.key(0), B), np.array([0.0, 0.3, 0.7, 1.0])
    draw = lambda k, p: gr.bernoulli(k, p, (50,))
    expected = np.stack([draw(k, q) for k, q in zip(keys, p, strict=True)])
    np.testing.assert_array_equal(gj.vmap(draw)(keys, p), expected)
    shared = gj.vmap(lambda p: draw(keys[0], p), randomness="same")(p)  # one uniform draw, compared with each p
    np.testing.assert_array_equal(shared, np.stack([draw(keys[0], q) for q in p]))
    wrapped = gr.wrap(np.random.default_rng(0))
    with pytest.raises(gj.ArgumentError, match="in randomness='same' mode, but p differs"):
        gj.vmap(lambda p: wrapped.binomial(1, p), randomness="same")(p)


@parity("R7")
def test_two_array_parameters():
    n, p, scale = np.array([1, 5, 20, 50]), np.array([0.2, 0.9, 0.5, 0.0]), np.array([1.0, 2.0, 0.0, 3.0])
    wrapped, plain = gr.wrap(np.random.default_rng(1)), np.random.default_rng(1)
    for axes in ((0, 0), (0, None), (None, 0)):
        a, b = (v if axis == 0 else v[1] for v, axis in zip((n, p), axes, strict=True))
        found = gj.vmap(lambda n, p: wrapped.binomial(n, p), axes, randomness="different")(a, b)
        np.testing.assert_array_equal(found, plain.binomial(a, b, B))
        with pytest.raises(gj.ArgumentError, match="'same' mode"):
            gj.vmap(lambda n, p: wrapped.binomial(n, p), axes, randomness="same")(a, b)
    found = gj.vmap(lambda m, s: wrapped.normal(m, s), randomness="different")(p, scale)
    np.testing.assert_allclose(found, p + scale * plain.standard_normal(B), rtol=1e-14)


@parity("R8")
def test_other_distributions():
    check_modes(lambda g, x: g.gamma(2.0), lambda g, b: g.gamma(2.0, size=b or None))
    check_modes(lambda g, x: g.poisson(50.0, 3), lambda g, b: g.poisson(50.0, (*b, 3)))
    check_modes(lambda g, x: g.dirichlet([1.0, 2.0]), lambda g, b: g.dirichlet([1.0, 2.0], b or None))
    check_modes(lambda g, x: g.binomial(100, 0.5, 8), lambda g, b: g.binomial(100, 0.5, (*b, 8)))
    wrapped, plain = gr.wrap(np.random.default_rng(1)), np.random.default_rng(1)
    found = gj.vmap(lambda a: wrapped.dirichlet(a), randomness="different")(X + 2)
    np.testing.assert_array_equal(found, np.stack([plain.dirichlet(a) for a in X + 2]))


@parity("R9")
def test_multinomial():
    check_modes(lambda g, x: g.multinomial(50, [0.2, 0.8]), lambda g, b: g.multinomial(50, [0.2, 0.8], b or None))
    p = np.array([[0.5, 0.5], [0.1, 0.9], [1.0, 0.0]])
    wrapped, plain = gr.wrap(np.random.default_rng(1)), np.random.default_rng(1)
    found = gj.vmap(lambda q: wrapped.multinomial(50, q), 1, randomness="different")(p.T)
    np.testing.assert_array_equal(found, np.stack([plain.multinomial(50, q) for q in p]))
    with pytest.raises(gj.ArgumentError, match="'same' mode"):
        gj.vmap(lambda q: wrapped.multinomial(50, q), randomness="same")(p)


@parity("R10")
@pytest.mark.parametrize("mode", ["same", "different"])
def test_out_is_refused(mode):
    wrapped, buffer = gr.wrap(np.random.default_rng(1)), np.zeros(3)
    for name in ("random", "standard_normal", "standard_exponential"):
        with pytest.raises(gj.MutationError, match=f"{name} with out="):
            gj.vmap(lambda x, name=name: getattr(wrapped, name)(out=buffer), randomness=mode)(X)
    assert not buffer.any()


@parity("R11", "O26")
@pytest.mark.parametrize("chunks", [1, 2, 3, 4])
def test_chunks_draw_what_one_pass_draws(chunks):
    key, size = gr.key(4), -(-B // chunks)
    f = lambda x: gr.normal(key, x.shape) + x
    for axis, x in (MAPPED["first"], MAPPED["last"]):
        for mode in ("same", "different"):
            one = gj.vmap(f, axis, randomness=mode)(x)
            found = gj.vmap(f, axis, randomness=mode, chunk_size=size)(x)
            np.testing.assert_array_equal(found, one)
            distinct = len({row.tobytes() for row in found - X})
            assert distinct == (B if mode == "different" else distinct)
        with pytest.raises(gj.ArgumentError, match="not mapped"):
            gj.vmap(f, axis, chunk_size=size)(x)
    wrapped, plain = gr.wrap(np.random.default_rng(1)), np.random.default_rng(1)
    found = gj.vmap(lambda x: wrapped.normal(size=3), randomness="different", chunk_size=size)(X)
    np.testing.assert_array_equal(found, plain.normal(size=(B, 3)))


@parity("R13")
def test_dropout_of_an_unmapped_value_beside_mapped_arguments():
    key, fixed = gr.key(5), np.ones(200)
    f = lambda x: dropout(key, fixed, 0.5) * x[0]
    found = gj.vmap(f, randomness="different")(X)
    np.testing.assert_allclose(found, np.stack([dropout(k, fixed, 0.5) for k in gr.split(key, B)]) * X[:, :1])
    same = gj.vmap(f, randomness="same")(X)
    np.testing.assert_allclose(same, np.stack([dropout(key, fixed, 0.5)] * B) * X[:, :1])


@parity("O25")
def test_nested_different_draws_are_one_direct_draw():
    wrapped, plain = gr.wrap(np.random.default_rng(1)), np.random.default_rng(1)
    inner = gj.vmap(lambda x: wrapped.standard_normal(2) + 0 * x, randomness="different")
    found = gj.vmap(inner, randomness="different")(X)
    np.testing.assert_array_equal(found, plain.standard_normal((B, 3, 2)))
    key = gr.key(6)
    inner = gj.vmap(lambda x: gr.normal(key) + 0 * x, randomness="different")
    found = gj.vmap(inner, randomness="different")(X)
    expected = [[gr.normal(gr.fold_in(k, j)) for j in range(3)] for k in gr.split(key, B)]
    np.testing.assert_array_equal(found, expected)


@parity("V27")
def test_a_decomposition_is_used_where_the_fallback_is_switched_off():
    points, values = np.array([[0.0, 1.0, 4.0], [0.0, 2.0, 4.0]]), np.array([0.0, 10.0, 20.0])
    with gj.settings.override(missing_batch_rule="raise"):
        found = gj.vmap(np.interp, (None, 0, None))(1.0, points, values)
    np.testing.assert_array_equal(found, [10.0, 5.0])
    with (
        gj.settings.override(missing_batch_rule="raise", decompositions="off"),
        pytest.raises(NotImplementedError, match="interp has no batch rule"),
    ):
        gj.vmap(np.interp, (None, 0, None))(1.0, points, values)
