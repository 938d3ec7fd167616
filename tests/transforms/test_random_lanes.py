"""Random draws of lanes that run one after the other, on plain values: the numbers of lanes run at once."""

import numpy as np
import pytest

import gpujac as gj
from gpujac import random as gr
from gpujac.backends.host import HOST


def key(seed):
    return gr.key(seed, like=np.ones(1))


def same_by_both(f, *args, **options):
    """The results with both methods, which must be equal."""
    found = gj.vmap(f, method="loop", **options)(*args)
    np.testing.assert_array_equal(found, gj.vmap(f, **options)(*args))
    return found


@pytest.mark.parametrize("mode", ["error", "same", "different"])
def test_keys_folded_with_a_number_of_the_lane_are_the_lanes_own(mode):
    k = key(1)
    found = same_by_both(lambda i: gr.normal(gr.fold_in(k, i), (2,)), np.arange(3), randomness=mode)
    np.testing.assert_array_equal(found, np.stack([gr.normal(each, (2,)) for each in gr.split(k, 3)]))
    same_by_both(lambda i: gr.uniform(gr.split(gr.fold_in(k, i), 2)[1]), np.arange(3), randomness=mode)
    same_by_both(lambda i: gr.uniform(gr.fold_in(gr.fold_in(k, i), 7)), np.arange(3), randomness=mode)
    rows = np.arange(6).reshape(2, 3)
    numbers = lambda row: gj.vmap(lambda i: gr.normal(gr.fold_in(k, i)))(row)
    same_by_both(numbers, rows, randomness=mode)
    same_by_both(lambda x, i: x * gr.normal(gr.fold_in(k, i)), np.arange(3.0), np.arange(3), randomness=mode)


def test_a_key_from_a_number_of_the_lane_is_the_lanes_own():
    seeds = np.random.default_rng(0).integers(0, 1000, 3)
    found = gj.vmap(lambda i: gr.uniform(gr.key(i, like=i)), method="loop")(seeds)
    np.testing.assert_array_equal(found, np.stack([gr.uniform(key(int(seed))) for seed in seeds]))


def test_a_number_that_all_lanes_share_makes_no_key_of_ones_own():
    k, words = key(2), "is not mapped"
    for f in (lambda i: gr.fold_in(k, 1), lambda i: gr.split(k, 2)[0], lambda i: gr.fold_in(k, np.arange(3)[1])):
        for method in ("batch", "loop"):
            with pytest.raises(gj.ArgumentError, match=words):
                gj.vmap(lambda i, f=f: gr.normal(f(i)), method=method)(np.arange(3))
        same_by_both(lambda i, f=f: gr.normal(f(i)), np.arange(3), randomness="different")
        same_by_both(lambda i, f=f: gr.normal(f(i)), np.arange(3), randomness="same")


def test_a_key_among_those_that_are_mapped_belongs_to_no_lane():
    """Lane 0 gets a copy of it: what shares memory with the array of all keys is nobody's."""
    keys, numbers = gr.split(key(3), 3), np.arange(3)
    same_by_both(lambda k: gr.normal(keys[0]), keys, randomness="different")
    same_by_both(lambda i: gr.normal(gr.fold_in(keys[1], numbers[0])), numbers, randomness="different")
    with pytest.raises(gj.ArgumentError, match=r"keys\[i\] of an array of keys from outside"):
        gj.vmap(lambda k: gr.normal(keys[0]), method="loop")(keys)


def test_a_message_of_lanes_run_at_once_does_not_speak_of_plain_values():
    with pytest.raises(gj.ArgumentError) as caught:
        gj.vmap(lambda i: gr.normal(key(1)))(np.arange(3))
    assert "plain values" not in str(caught.value)


def test_a_write_of_a_lane_does_not_reach_the_caller():
    def f(x):
        x[0] = 5.0
        return x * 1.0

    x = np.ones((2, 3))
    same_by_both(f, x)
    np.testing.assert_array_equal(x, np.ones((2, 3)))


def test_numbers_without_an_axis_must_be_the_same_in_all_lanes():
    x = np.array([1.0, 2.0, 3.0])
    for f in (lambda x: x, lambda x: x * np.ones(2), lambda x: np.ones(int(x))):
        with pytest.raises(gj.StructureError, match="out_dims=None for output, but it differs between lanes"):
            gj.vmap(f, out_dims=None, method="loop")(x)
    with pytest.raises(gj.StructureError, match=r"output\['a'\], but it differs"):
        gj.vmap(lambda x: {"a": float(x), "b": x}, out_dims={"a": None, "b": 0}, method="loop")(x)
    with pytest.raises(gj.StructureError, match="cannot tell whether lanes agree in their derivatives"):
        gj.grad(lambda x: gj.vmap(lambda y: y, out_dims=None, method="loop")(x))(x)
    for value in (2, "text", None, np.array([np.nan, 1.0])):
        found = gj.vmap(lambda x, value=value: (value, x), out_dims=(None, 0), method="loop")(x)[0]
        assert str(found) == str(value)


# ---------------------------------------------------------------- ranges and arguments


def test_numbers_that_a_dtype_does_not_hold_are_refused():
    k = key(0)
    for low, high, dtype in [(0, 300, np.uint8), (-1, 3, np.uint8), (-129, 0, np.int8), (0, 2**63 + 1, np.int64),
                             (0, 2**64 + 1, np.uint64)]:  # fmt: skip
        with pytest.raises(gj.ArgumentError, match=rf"dtype={np.dtype(dtype)} holds .* asked for are in \[{low}, "):
            gr.randint(k, (3,), low, high, dtype)
    for low, high, dtype in [(0, 256, np.uint8), (-128, 128, np.int8), (-(2**63), 2**63, np.int64),
                             (0, 2**64, np.uint64)]:  # fmt: skip
        found = gr.randint(k, (1000,), low, high, dtype)
        assert found.dtype == dtype
        for quarter in range(4):  # all of the range is drawn from, evenly
            start, stop = (low + (high - low) * (quarter + i) // 4 for i in (0, 1))
            assert 180 < sum(start <= int(v) < stop for v in found) < 320
        for ends in [(np.array(low, dtype), high), (np.array([low] * 1000, dtype), high)]:
            np.testing.assert_array_equal(gr.randint(k, (1000,), *ends, dtype), found)
        lanes = gj.vmap(lambda low, high=high, dtype=dtype: gr.randint(k, (1000,), low, high, dtype),
                        randomness="same")(np.array([low, low + 1], dtype))  # fmt: skip
        np.testing.assert_array_equal(lanes[0], found)
        np.testing.assert_array_equal(lanes[1], gr.randint(k, (1000,), low + 1, high, dtype))
    ends = np.array([3, 300, 4])
    with pytest.raises(gj.ArgumentError, match="dtype=uint8 holds 0 to 255"):
        gr.randint(k, (3,), 0, ends, np.uint8)
    for method in ("batch", "loop"):
        with pytest.raises(gj.ArgumentError, match="dtype=uint8 holds 0 to 255"):
            gj.vmap(lambda k, m: gr.randint(k, (), 0, m, np.uint8), method=method)(gr.split(k, 3), ends)
    found = gj.vmap(lambda k, m: gr.randint(k, (), 0, m, np.int16))(gr.split(k, 3), ends)
    assert bool((found < ends).all())


def test_ends_that_differ_between_lanes_are_looked_at_in_those_that_take_part():
    k, ends, below = key(0), np.array([5, 500]), np.array([True, False])
    draw = lambda m: gr.randint(k, (3,), 0, m, np.int8)
    found = gj.vmap(lambda p, m: gj.cond(p, draw, lambda m: np.zeros(3, np.int8), m), randomness="same")(below, ends)
    np.testing.assert_array_equal(found, [draw(5), [0, 0, 0]])
    with pytest.raises(gj.ArgumentError, match="dtype=int8 holds -128 to 127"):
        gj.vmap(lambda p, m: gj.cond(p, draw, lambda m: np.zeros(3, np.int8), m), randomness="same")(~below, ends)
    for low, high in [(5, np.array([2, 9])), (np.array([2, 9]), np.array([2, 9]))]:
        dims = tuple(None if np.ndim(v) == 0 else 0 for v in (low, high))
        with pytest.raises(gj.ArgumentError, match="no whole number is in"):
            gj.vmap(lambda low, high: gr.randint(k, (3,), low, high), dims, randomness="same")(low, high)


def test_a_draw_does_not_look_through_the_keys_of_all_draws_before(monkeypatch):
    looked, known = [], HOST.shares_memory
    monkeypatch.setattr(type(HOST), "shares_memory", lambda self, x, y: looked.append(1) or known(x, y))

    def f(k):
        total = 0.0
        for i in range(40):
            k, own = gr.split(gr.fold_in(k, i))
            total = total + gr.uniform(own)
        return total

    keys = gr.split(key(1), 2)
    found = gj.vmap(f, method="loop")(keys)
    assert len(looked) < 2 * 40 * 8  # of a lane's one argument, not of what it drew before
    np.testing.assert_array_equal(found, gj.vmap(f)(keys))


def test_lists_are_parameters_too():
    k = key(0)
    for draw in [lambda ends: gr.randint(k, (2,), ends([0, 5]), ends([5, 9])), lambda p: gr.bernoulli(k, p([0.1, 0.9])),
                 lambda p: gr.uniform(k, (2,), maxval=p([1.0, 2.0])),
                 lambda p: gr.normal(k, (2,), loc=p([1.0, 2.0]))]:  # fmt: skip
        np.testing.assert_array_equal(draw(list), draw(np.array))


def test_arguments_of_a_wrong_kind_are_named():
    k = key(0)
    for error, words, call in [
        (gj.ArgumentTypeError, "split: num=2.5 is a float", lambda: gr.split(k, 2.5)),
        (gj.ArgumentError, "fold_in: data=18446744073709551616 is out of range", lambda: gr.fold_in(k, 2**64)),
        (gj.DTypeError, "fold_in: data has dtype float64; use one whole number", lambda: gr.fold_in(k, 1.5)),
        (gj.ShapeError, r"shape \(2,\) does not broadcast to shape=\(2, 3\)",
         lambda: gr.randint(k, (2, 3), np.zeros(2, int), np.ones(3, int))),
        (gj.DTypeError, "bits: dtype='nonsense' is no dtype", lambda: gr.bits(k, 2, "nonsense")),
        (gj.DTypeError, "normal: dtype='nonsense' is no dtype", lambda: gr.normal(k, 2, "nonsense")),
        (gj.DTypeError, "randint: dtype='nonsense' is no dtype", lambda: gr.randint(k, 2, 0, 3, "nonsense")),
    ]:
        with pytest.raises(error, match=words):
            call()
    assert gr.fold_in(k, 2**64 - 1).shape == (2,)


def test_a_list_in_random_order_is_that_of_its_array():
    k = key(4)
    found = gr.permutation(k, [3, 5, 7, 9])
    np.testing.assert_array_equal(found, gr.permutation(k, np.array([3, 5, 7, 9])))
    assert type(found) is type(k)
