"""Random numbers from keys: known answers, statistics, and who draws what under vmap."""

import numpy as np
import pytest

import gpujac as gj
from gpujac import random as gr
from tests.transforms import helpers as h

MODES = ["error", "same", "different"]
N = 20000


def key(seed):
    return gr.key(seed, like=np.ones(1))


def rows(draw, keys):
    return np.stack([draw(k) for k in keys])


# ---------------------------------------------------------------- keys


def test_a_key_is_the_seed_in_two_words():
    assert [int(w) for w in key((3 << 32) + 5)] == [5, 3]
    assert str(key(0).dtype) == "uint32"
    assert isinstance(key(0), np.ndarray)


def test_fold_in_is_an_entry_of_split():
    k = key(42)
    keys = gr.split(k, 5)
    assert keys.shape == (5, 2)
    for i in range(5):
        np.testing.assert_array_equal(gr.fold_in(k, i), keys[i])
    np.testing.assert_array_equal(gr.split(k), keys[:2])
    assert gr.split(k, 0).shape == (0, 2)


def test_split_keys_are_all_different_and_differ_from_the_draws():
    keys = gr.split(key(1), 1000)
    distinct = {tuple(int(w) for w in k) for k in keys.tolist()}
    assert len(distinct) == 1000
    draws = {int(w) for w in gr.bits(key(1), (2000,)).tolist()}
    assert not draws & {int(w) for w in keys[:, 0].tolist()}


def test_the_numbers_of_a_key_never_change():
    """What was drawn with a key once is drawn with it for ever: the words of Philox4x32-10."""
    known = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # the published answer for a zero key and counter
    assert [int(w) for w in gr.bits(key(0), (4,))] == known
    assert [int(w) for w in gr.bits(key(0), (2,), np.uint64)] == [
        known[0] << 32 | known[1], known[2] << 32 | known[3]
    ]  # fmt: skip
    assert [int(w) for w in gr.bits(key(0), (2,), np.uint8)] == [known[0] >> 24, known[1] >> 24]
    assert [int(w) for w in gr.bits(key(0), (2,), np.uint16)] == [known[0] >> 16, known[1] >> 16]
    assert float(gr.uniform(key(0), (), np.float32)) == (known[0] >> 8) / 2**24
    assert float(gr.uniform(key(0))) == ((known[0] >> 5) * 2**26 + (known[1] >> 6)) / 2**53


@pytest.mark.parametrize("draw", [
    lambda k, n: gr.bits(k, (n,)),
    lambda k, n: gr.uniform(k, (n,)),
    lambda k, n: gr.uniform(k, (n,), np.float32),
    lambda k, n: gr.normal(k, (n,)),
    lambda k, n: gr.randint(k, (n,), -3, 9),
    lambda k, n: gr.bernoulli(k, 0.3, (n,)),
])  # fmt: skip
def test_an_entry_depends_on_the_key_and_its_place_alone(draw):
    long = draw(key(3), 101)
    for n in (0, 1, 7, 50):
        np.testing.assert_array_equal(draw(key(3), n), long[:n])
    assert not np.array_equal(draw(key(4), 101), long)


def test_long_draws_go_on_as_short_ones_begin():
    k, n = key(3), 50_001
    long = gr.bits(k, (n,))
    np.testing.assert_array_equal(long[:1000], gr.bits(k, (1000,)))
    distinct = np.unique(long)
    assert n - 3 <= distinct.shape[0] <= n  # of 32 bits a pair may coincide
    keys = gr.split(k, 3)
    np.testing.assert_array_equal(gj.vmap(lambda k: gr.bits(k, (n,)))(keys), rows(lambda k: gr.bits(k, (n,)), keys))


def test_the_shape_only_arranges_the_entries():
    np.testing.assert_array_equal(gr.normal(key(0), (2, 3)), gr.normal(key(0), (6,)).reshape(2, 3))
    assert gr.normal(key(0), ()).shape == ()
    assert gr.uniform(key(0), 4).shape == (4,)


# ---------------------------------------------------------------- distributions


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_numbers_are_even(dtype):
    u = gr.uniform(key(5), (N,), dtype)
    assert u.dtype == dtype
    assert float(u.min()) >= 0.0
    assert float(u.max()) < 1.0
    step = np.abs(np.sort(u) - (np.arange(N) + 0.5) / N).max()
    assert step < 1.63 / N**0.5  # Kolmogorov and Smirnov at 1 %
    again = gr.uniform(key(5), (N,), dtype, minval=-3.0, maxval=5.0)
    np.testing.assert_allclose(again, -3.0 + 8.0 * u, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_numbers_have_the_moments_of_the_normal_distribution(dtype):
    z = gr.normal(key(6), (N,), dtype)
    assert z.dtype == dtype
    for power, moment, spread in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)]:
        assert abs(float((z**power).mean()) - moment) < 4 * (spread / N) ** 0.5
    assert abs(float((z[1:] * z[:-1]).mean())) < 4 / N**0.5  # neighbours do not know of each other
    assert bool(np.isfinite(z).all())
    np.testing.assert_allclose(gr.normal(key(6), (N,), dtype, loc=2.0, scale=0.5), 2.0 + 0.5 * z, rtol=1e-5)


def test_normal_numbers_in_half_precision_are_finite():
    z = gr.normal(key(6), (1000,), np.float16)
    assert str(z.dtype) == "float16"
    assert bool(np.isfinite(z).all())
    assert 0.9 < float(z.astype(np.float64).std()) < 1.1


@pytest.mark.parametrize("ends", [(0, 7), (-5, 3), (-(2**63), 2**63 - 1), (0, 2**40 + 1), (4, 5)])
def test_whole_numbers_lie_in_the_range_evenly(ends):
    low, high = ends
    x = gr.randint(key(7), (N,), low, high)
    assert str(x.dtype) == "int64"
    assert low <= int(x.min())
    assert int(x.max()) < high
    where = (x.astype(np.float64) - low) / (high - low)
    assert abs(float(where.mean()) + 0.5 / (high - low) - 0.5) < 4 * (1 / 12 / N) ** 0.5
    if high - low < 10:
        counts = [int((x == v).sum()) for v in range(low, high)]
        expected = N / len(counts)
        assert sum((c - expected) ** 2 / expected for c in counts) < 30


def test_whole_numbers_between_arrays():
    low, high = np.array([0, 10, -4]), np.array([2, 11, 2**35])
    x = gr.randint(key(8), (500, 3), low, high)
    assert bool(((x >= low) & (x < high)).all())
    assert str(gr.randint(key(8), (3,), 0, 5, np.int8).dtype) == "int8"


def test_a_permutation_holds_every_number_once():
    p = gr.permutation(key(9), 50)
    np.testing.assert_array_equal(np.sort(p), np.arange(50))
    x = np.arange(12.0).reshape(3, 4)
    y = gr.permutation(key(9), x, axis=1)
    np.testing.assert_array_equal(y, x[:, gr.permutation(key(9), 4)])
    firsts = [int(gr.permutation(k, 3)[0]) for k in gr.split(key(10), 90)]
    assert all(15 < firsts.count(i) < 45 for i in range(3))


def test_bernoulli_is_true_as_often_as_p_says():
    p = np.array([0.0, 0.1, 0.5, 1.0])
    found = gr.bernoulli(key(11), p, (N, 4)).mean(axis=0)
    assert float(found[0]) == 0.0
    assert float(found[3]) == 1.0
    assert abs(float(found[1]) - 0.1) < 0.01
    assert abs(float(found[2]) - 0.5) < 0.02
    assert gr.bernoulli(key(11), p).shape == (4,)


# ---------------------------------------------------------------- vmap


DRAWS = {
    "bits": lambda k: gr.bits(k, (3,)),
    "uniform": lambda k: gr.uniform(k, (2, 3)),
    "float32": lambda k: gr.uniform(k, (5,), np.float32),
    "normal": lambda k: gr.normal(k, (3,)),
    "scalar": lambda k: gr.normal(k),
    "randint": lambda k: gr.randint(k, (4,), 0, 1000),
    "permutation": lambda k: gr.permutation(k, 6),
    "bernoulli": lambda k: gr.bernoulli(k, 0.5, (9,)),
    "derived": lambda k: gr.normal(gr.split(gr.fold_in(k, 3), 3)[1], (2,)),
}
each_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


@each_draw
@pytest.mark.parametrize("mode", MODES)
def test_mapped_keys_draw_for_each_lane_alone_in_every_mode(draw, mode):
    keys = gr.split(key(0), 5)
    expected = rows(draw, keys)
    for options in ({}, {"chunk_size": 2}, {"method": "loop"}):
        np.testing.assert_array_equal(gj.vmap(draw, randomness=mode, **options)(keys), expected)


@each_draw
@pytest.mark.parametrize("options", [{}, {"chunk_size": 1}, {"method": "loop"}], ids=["batch", "chunks", "loop"])
def test_an_unmapped_key_raises_unless_the_mode_says_what_to_do(draw, options):
    k = key(0)
    with pytest.raises(gj.ArgumentError, match=r"a key that is not mapped.*randomness=") as caught:
        gj.vmap(lambda x: x * draw(k)[0] if draw(k).shape else draw(k), **options)(np.ones(4))
    assert isinstance(caught.value, ValueError)


@each_draw
@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"method": "loop"}], ids=["batch", "chunks", "loop"])
def test_the_mode_same_is_one_draw_for_all_lanes(draw, options):
    k = key(12)
    found = gj.vmap(lambda x: draw(k) + 0 * x.astype(np.int64), randomness="same", **options)(np.ones(5))
    np.testing.assert_array_equal(found, np.stack([draw(k) + 0] * 5))


@pytest.mark.parametrize("draw", [f for name, f in DRAWS.items() if name != "derived"])
@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"chunk_size": 1}, {"method": "loop"}],
                         ids=["batch", "chunks", "ones", "loop"])  # fmt: skip
def test_the_mode_different_folds_in_the_number_of_the_lane(draw, options):
    k = key(13)
    found = gj.vmap(lambda x: draw(k), randomness="different", axis_size=5, in_dims=None, **options)(1.0)
    np.testing.assert_array_equal(found, rows(draw, gr.split(k, 5)))


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"method": "loop"}], ids=["batch", "chunks", "loop"])
def test_the_number_of_the_lane_is_folded_in_where_a_draw_is_made(options):
    k = key(13)
    f = lambda x: gr.normal(gr.split(k, 3)[1])
    found = gj.vmap(f, randomness="different", **options)(np.ones(5))
    np.testing.assert_array_equal(found, rows(gr.normal, gr.split(gr.split(k, 3)[1], 5)))


@pytest.mark.parametrize("outer", ["same", "different"])
@pytest.mark.parametrize("inner", ["same", "different"])
def test_nested_levels_decide_for_their_own_axis(outer, inner):
    k = key(14)
    f = lambda x, y: gr.normal(k) + 0 * x * y
    nested = gj.vmap(gj.vmap(f, (None, 0), randomness=inner, chunk_size=2), (0, None), randomness=outer, chunk_size=1)
    found = nested(np.ones(2), np.ones(3))
    outer_keys = [gr.fold_in(k, i) if outer == "different" else k for i in range(2)]
    keys = [[gr.fold_in(o, j) if inner == "different" else o for j in range(3)] for o in outer_keys]
    np.testing.assert_array_equal(found, np.stack([rows(gr.normal, row) for row in keys]))
    assert len({float(v) for v in found.reshape(-1)}) == (2 if outer == "different" else 1) * (
        3 if inner == "different" else 1
    )


def test_an_enclosing_vmap_in_error_mode_is_an_error_too():
    k = key(0)
    inner = gj.vmap(lambda x: gr.normal(k) * x, randomness="same")
    with pytest.raises(gj.ArgumentError, match="not mapped"):
        gj.vmap(inner)(np.ones((2, 3)))
    mapped = gj.vmap(lambda k: gj.vmap(lambda x: gr.normal(k) * x, randomness="same")(np.ones(3)))
    assert mapped(gr.split(k, 2)).shape == (2, 3)


def test_a_key_mapped_in_the_inner_one_only_follows_the_outer_mode():
    keys = gr.split(key(1), 3)
    inner = gj.vmap(lambda k, x: gr.normal(k) + 0 * x)
    f = lambda x: inner(keys, x)
    found = gj.vmap(f, randomness="different")(np.ones((2, 3)))
    expected = np.stack([rows(gr.normal, [gr.fold_in(k, i) for k in keys]) for i in range(2)])
    np.testing.assert_array_equal(found, expected)


def test_folding_in_mapped_numbers_gives_mapped_keys():
    k = key(2)
    found = gj.vmap(lambda i: gr.normal(gr.fold_in(k, i)))(np.arange(4))
    np.testing.assert_array_equal(found, rows(gr.normal, gr.split(k, 4)))


def test_parameters_that_are_mapped():
    keys, p = gr.split(key(3), 6), np.linspace(0.0, 1.0, 6)
    for mode in MODES:
        found = gj.vmap(lambda k, q: gr.bernoulli(k, q), randomness=mode)(keys, p)
        np.testing.assert_array_equal(found, np.stack([gr.bernoulli(k, q) for k, q in zip(keys, p)]))
    found = gj.vmap(lambda k, top: gr.randint(k, (3,), 0, top))(keys, np.arange(1, 7))
    assert bool((found < np.arange(1, 7)[:, None]).all())
    k = key(4)
    found = gj.vmap(lambda m: gr.uniform(k, (), minval=m, maxval=m + 1), randomness="same")(np.arange(3.0))
    np.testing.assert_allclose(found, np.arange(3.0) + float(gr.uniform(k)))


def test_a_permutation_of_mapped_values():
    keys, x = gr.split(key(5), 3), np.arange(12.0).reshape(3, 4)
    found = gj.vmap(gr.permutation)(keys, x)
    np.testing.assert_array_equal(found, np.stack([gr.permutation(k, row) for k, row in zip(keys, x)]))


# ---------------------------------------------------------------- derivatives


def test_derivatives_flow_through_the_parameters():
    k = key(6)
    f = lambda ends: gr.uniform(k, (4,), minval=ends[0], maxval=ends[1])
    u = gr.uniform(k, (4,))
    expected = np.stack([1 - u, u], 1)
    ends = np.array([-1.0, 2.0])
    for transform in (gj.jacrev, gj.jacfwd):
        h.assert_close(transform(f)(ends), expected)
    z = gr.normal(k, (3,))
    g = lambda p: (gr.normal(k, (3,), loc=p[0], scale=p[1]) ** 2).sum()
    p = np.array([0.5, 2.0])
    x = p[0] + p[1] * z
    h.assert_close(gj.grad(g)(p), np.stack([2 * x.sum(), (2 * x * z).sum()]))
    h.assert_close(gj.hessian(g)(p), 2 * np.stack([np.stack([z.sum() * 0 + 3, z.sum()]),
                                                   np.stack([z.sum(), (z * z).sum()])]))  # fmt: skip


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
def test_a_jacobian_runs_the_function_once_and_so_draws_once(transform):
    k, calls = key(7), []

    def f(x):
        calls.append(1)
        return x * gr.normal(k, (3,))

    for chunk_size in (1, 2, None):
        calls.clear()
        found = transform(f, chunk_size=chunk_size)(np.ones(3))
        h.assert_close(found, np.diag(gr.normal(k, (3,))))
        assert len(calls) == 1


def test_a_gradient_per_lane_with_dropout():
    k, x = key(8), np.arange(1.0, 13.0).reshape(3, 4)
    loss = lambda x: (np.where(gr.bernoulli(k, 0.5, x.shape), x * 2.0, 0.0) ** 2).sum()
    found = gj.vmap(gj.grad(loss), randomness="different")(x)
    for i, row in enumerate(x):
        keep = gr.bernoulli(gr.fold_in(k, i), 0.5, (4,))
        h.assert_close(found[i], np.where(keep, 8.0 * row, 0.0))


def test_the_derivative_of_bernoulli_is_zero():
    k = key(9)
    f = lambda p: gr.bernoulli(k, p, (50,)).sum() * 1.0 + p
    assert float(gj.grad(f)(0.5)) == 1.0


# ---------------------------------------------------------------- refusals


def test_wrong_arguments_are_refused_by_name():
    k = key(0)
    for error, words, call in [
        (gj.ArgumentError, "seed=-1 is out of range", lambda: gr.key(-1)),
        (gj.ArgumentError, "out of range", lambda: gr.key(2**64)),
        (gj.ArgumentTypeError, "seed=0.5 is a float", lambda: gr.key(0.5)),
        (gj.ArgumentTypeError, "7 is no key; make one", lambda: gr.normal(7)),
        (gj.ShapeError, r"of shape \(2,\), found an array of shape \(3, 2\)", lambda: gr.normal(gr.split(k, 3))),
        (gj.ShapeError, "dtype float64", lambda: gr.normal(np.ones(2))),
        (gj.ArgumentError, "num=-1", lambda: gr.split(k, -1)),
        (gj.ArgumentError, "data=-1 is negative", lambda: gr.fold_in(k, -1)),
        (gj.DTypeError, "use one whole number", lambda: gr.fold_in(k, 0.5)),
        (gj.DTypeError, "use float16, float32 or float64", lambda: gr.uniform(k, (), np.int64)),
        (gj.DTypeError, "no unsigned integer", lambda: gr.bits(k, (), np.int32)),
        (gj.ArgumentError, "negative length", lambda: gr.uniform(k, (-1,))),
        (gj.ArgumentTypeError, "neither an int nor a tuple", lambda: gr.uniform(k, "3")),
        (gj.ArgumentError, r"no whole number is in \[3, 3\)", lambda: gr.randint(k, (), 3, 3)),
        (gj.DTypeError, "use integers", lambda: gr.randint(k, (), 0.0, 3)),
        (gj.ShapeError, r"of shape \(3,\) does not broadcast", lambda: gr.normal(k, (2,), loc=np.ones(3))),
        (gj.ArgumentError, "number of entries as an int", lambda: gr.permutation(k, 2.5)),
    ]:
        with pytest.raises(error, match=words):
            call()


# ---------------------------------------------------------------- with other transforms


@gj.custom_vjp
def noisy(k, x):
    """A function with a derivative of its own that draws in both directions."""
    return np.sin(x) * gr.normal(k, (3,))


def _noisy_forward(k, x):
    return noisy(k, x), (k, x)


def _noisy_backward(saved, ct):
    k, x = saved
    return None, ct * np.cos(x) * gr.normal(k, (3,))


noisy.defvjp(_noisy_forward, _noisy_backward)
ORDERS = {
    "grad of each lane": lambda f, args, **options: gj.vmap(
        gj.grad(lambda *a: f(*a).sum(), len(args) - 1), **options
    )(*args),
    "grad of all lanes": lambda f, args, **options: gj.grad(
        lambda *a: gj.vmap(f, **options)(*a).sum(), len(args) - 1
    )(*args),
    "pullback": lambda f, args, **options: gj.vjp(
        lambda x: gj.vmap(f, **options)(*args[:-1], x), args[-1]
    )[1](np.ones((4, 3)))[0],
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_rules_of_custom_functions_draw_as_the_function_does(order, chunk_size):
    k, x = key(20), np.linspace(0.1, 1.2, 12).reshape(4, 3)
    keys = gr.split(k, 4)
    expected = np.cos(x) * rows(lambda k: gr.normal(k, (3,)), keys)
    h.assert_close(order(noisy, (keys, x), chunk_size=chunk_size), expected)
    f = lambda x: noisy(k, x)
    h.assert_close(order(f, (x,), randomness="different", chunk_size=chunk_size), expected)
    h.assert_close(order(f, (x,), randomness="same", chunk_size=chunk_size), np.cos(x) * gr.normal(k, (3,)))
    with pytest.raises(gj.ArgumentError, match="not mapped"):
        order(f, (x,), chunk_size=chunk_size)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_what_is_computed_again_uses_the_same_draws(order):
    k, x = key(21), np.linspace(0.1, 1.2, 12).reshape(4, 3)
    f = gj.checkpoint(lambda x: np.sin(x) * gr.normal(k, (3,)))
    expected = np.cos(x) * rows(lambda k: gr.normal(k, (3,)), gr.split(k, 4))
    h.assert_close(order(f, (x,), randomness="different", chunk_size=3), expected)
