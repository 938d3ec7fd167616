"""dynamic_slice and dynamic_update_slice: a fixed size at a place of each lane's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj

slice_at, put_at = gj.control.dynamic_slice, gj.control.dynamic_update_slice
X = np.arange(12.0).reshape(3, 4) ** 1.5


def clamped(start, n, k):
    return min(max(start + n if start < 0 else start, 0), n - k)


def sliced(x, starts, sizes):
    at = [clamped(s, n, k) for s, n, k in zip(starts, x.shape, sizes)]
    return x[tuple(slice(a, a + k) for a, k in zip(at, sizes))]


@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6)), max_size=4), st.integers(0, 3), st.integers(0, 4))
def test_slices_are_clamped_like_the_loop_over_lanes(starts, rows, columns):
    a, b = (np.array([s[k] for s in starts], np.int64) for k in range(2))
    found = gj.vmap(lambda i, j: slice_at(X, (i, j), (rows, columns)))(a, b)
    assert found.shape == (len(starts), rows, columns)
    for lane, s in enumerate(starts):
        np.testing.assert_array_equal(found[lane], sliced(X, s, (rows, columns)))
        np.testing.assert_array_equal(slice_at(X, s, (rows, columns)), sliced(X, s, (rows, columns)))
    if starts:
        mixed = gj.vmap(lambda i: slice_at(X, (i, 1), (rows, min(columns, 2))))(a)
        for lane, s in enumerate(starts):
            np.testing.assert_array_equal(mixed[lane], sliced(X, (s[0], 1), (rows, min(columns, 2))))


@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6)), max_size=4), st.integers(0, 3), st.integers(0, 4))
def test_updates_are_clamped_like_the_loop_over_lanes(starts, rows, columns):
    a, b = (np.array([s[k] for s in starts], np.int64) for k in range(2))
    update = -np.ones((rows, columns))
    found = gj.vmap(lambda i, j: put_at(X, update, (i, j)))(a, b)
    for lane, s in enumerate(starts):
        wanted = X.copy()
        sliced(wanted, s, (rows, columns))[...] = update
        np.testing.assert_array_equal(found[lane], wanted)
        np.testing.assert_array_equal(put_at(X, update, s), wanted)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint64"])
def test_starts_of_narrow_dtypes_reach_every_place(dtype):
    x = np.arange(300.0)
    starts = np.array([0, 100, -1], np.int64).astype(dtype)
    first = [min(s + 300 if s < 0 else s, 298) for s in starts.tolist()]
    found = gj.vmap(lambda i: slice_at(x, (i,), (2,)))(starts)
    np.testing.assert_array_equal(found, [[a, a + 1] for a in first])
    found = gj.vmap(lambda i: put_at(x * 0, x[1:3], (i,)))(starts)
    np.testing.assert_array_equal(np.argmax(found, 1), [a + 1 for a in first])


def test_derivatives_of_both(rng):
    x, u = rng.standard_normal(5), rng.standard_normal(2)
    starts = np.array([0, 2, 9, -2])

    def f(x, u, i):
        return slice_at(put_at(x * x, u * x[0], i), i, 3) * 2

    def plain(x, u, i):
        a, b = clamped(i, 5, 2), clamped(i, 5, 3)
        y = x * x
        y[a : a + 2] = u * x[0]
        return y[b : b + 3] * 2

    for transform in (gj.jacrev, gj.jacfwd):
        found = gj.vmap(transform(f, argnums=(0, 1)), in_dims=(None, None, 0))(x, u, starts)
        for lane, i in enumerate([0, 2, 9, -2]):
            wanted = transform(plain, argnums=(0, 1))(x, u, i)
            np.testing.assert_allclose(found[0][lane], wanted[0], rtol=1e-14)
            np.testing.assert_allclose(found[1][lane], wanted[1], rtol=1e-14)


def test_results_are_new_arrays():
    x = X.copy()
    part = slice_at(x, (0, 0), (3, 4))
    part[...] = 0
    put_at(x, np.zeros((3, 4)), (0, 0))[...] = 1
    put_at(x, np.zeros((0, 4)), (0, 0))[...] = 1
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize(("sizes", "start"), [((3, 4), (0, 1)), ((3, 2), (1, 1)), ((2, 4), (1, 0)), ((2, 2), (1, 1))])
@pytest.mark.parametrize("mapped", [0, 1])
def test_results_are_new_arrays_where_starts_are_mapped_too(sizes, start, mapped):
    x = X.copy()

    def f(i):
        at = tuple([i + s if axis == mapped else s for axis, s in enumerate(start)])
        part = slice_at(x, at, sizes)
        if gj.is_traced(part):
            part[...] = 0.0
        else:
            assert not np.shares_memory(part, x)
        whole = slice_at(held := np.zeros_like(i * X), at, sizes)
        whole += 1.0
        return held

    np.testing.assert_array_equal(gj.vmap(f)(np.array([0, 1])), np.zeros((2, 3, 4)))
    np.testing.assert_array_equal(x, X)


def test_an_array_without_axes():
    assert float(slice_at(np.array(2.0), (), ())) == 2.0
    assert float(put_at(np.array(2.0), np.array(3.0), ())) == 3.0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: slice_at(X, 0, (1, 1)), gj.ShapeError, r"1 starts for an array of shape \(3, 4\)"),
        (lambda: slice_at(X, (0, 0), (4, 1)), gj.ShapeError, r"sizes=\(4, 1\) of an array of shape \(3, 4\)"),
        (lambda: slice_at(X, (0, 0), (-1, 1)), gj.ShapeError, "from 0 to its length"),
        (lambda: slice_at(X, (0, 0), 2), gj.ShapeError, r"sizes=\(2,\)"),
        (lambda: slice_at(X, (0, 0), (1.0, 1)), gj.ArgumentTypeError, "must be ints, one per axis"),
        (lambda: slice_at(X, (0, 0.5), (1, 1)), gj.DTypeError, r"start\[1\] has dtype float64"),
        (lambda: slice_at(X, (np.arange(2), 0), (1, 1)), gj.ShapeError, r"start\[0\] has shape \(2,\)"),
        (lambda: slice_at("x", 0, 1), gj.ArgumentTypeError, "x is a str, not an array"),
        (lambda: put_at(X, X[0], (0, 0)), gj.ShapeError, r"update has shape \(4,\), which does not fit into \(3, 4\)"),
        (lambda: put_at(X[:2], X, (0, 0)), gj.ShapeError, "does not fit into"),
        (lambda: put_at(np.zeros(3), [1.0, 2.0], 0), gj.ArgumentTypeError, "update is a list, not an array"),
        (lambda: put_at(np.zeros(3), "ab", 0), gj.ArgumentTypeError, "update is a str, not an array"),
        (lambda: put_at(X, X.astype(np.float32), (0, 0)), gj.DTypeError, "update is float32, but x is float64"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
