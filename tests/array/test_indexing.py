"""Reading and writing by index: every key that NumPy takes gives NumPy's values and derivatives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj
import gpujac.numpy as gnp
from tests.array.keys import shapes_and_keys, values


@given(shapes_and_keys())
def test_reading_gives_the_values_and_tangents_of_numpy(case):
    shape, key = case
    x, t = values(shape), values(shape, 1)
    y, dy = gj.jvp(lambda x: x[key], (x,), (t,))
    np.testing.assert_array_equal(y, x[key])
    np.testing.assert_array_equal(dy, t[key])


@given(shapes_and_keys())
def test_the_cotangent_of_reading_is_added_where_the_key_points(case):
    shape, key = case
    x = values(shape)
    y, pullback = gj.vjp(lambda x: x[key], x)
    ct = values(y.shape, 2)
    want = np.zeros(shape)
    np.add.at(want, key, ct)
    np.testing.assert_allclose(pullback(ct)[0], want, rtol=1e-14)


def put(key):
    def f(x, v):
        y = x.copy()
        y[key] = v
        return y

    return f


@given(shapes_and_keys(), st.sampled_from(["full", "scalar", "ones"]))
def test_writing_gives_the_values_and_tangents_of_numpy(case, form):
    shape, key = case
    x, t = values(shape), values(shape, 1)
    selected = x[key].shape
    small = {"full": selected, "scalar": (), "ones": (1,) * len(selected)}[form]
    v, dv = values(small, 3), values(small, 4)
    y, dy = gj.jvp(put(key), (x, v), (t, dv))
    np.testing.assert_array_equal(y, put(key)(x, v))
    np.testing.assert_array_equal(dy, put(key)(t, dv))


@given(shapes_and_keys())
def test_the_pullback_of_writing_is_the_adjoint_of_its_jvp(case):
    shape, key = case
    x, t = values(shape), values(shape, 1)
    v, dv = values(x[key].shape, 3), values(x[key].shape, 4)
    _, pullback = gj.vjp(put(key), x, v)
    ct = values(shape, 5)
    to_x, to_v = pullback(ct)
    dy = gj.jvp(put(key), (x, v), (t, dv))[1]
    np.testing.assert_allclose(np.sum(ct * dy), np.sum(to_x * t) + np.sum(to_v * dv), rtol=1e-12)


@given(shapes_and_keys(), st.sampled_from([0, -1]))
def test_reading_and_writing_under_vmap_are_those_of_each_lane(case, axis):
    shape, key = case
    x = np.stack([values(shape), values(shape, 1)], axis)
    lanes = [np.take(x, i, axis) for i in range(2)]
    np.testing.assert_array_equal(gj.vmap(lambda x: x[key], in_dims=axis)(x), np.stack([lane[key] for lane in lanes]))
    v = values((2, *lanes[0][key].shape), 3)
    np.testing.assert_array_equal(
        gj.vmap(put(key), in_dims=(axis, 0))(x, v),
        np.stack([put(key)(lane, w) for lane, w in zip(lanes, v, strict=True)]),
    )


@given(shapes_and_keys())
def test_adding_in_place_and_add_at_follow_numpy(case):
    shape, key = case
    x, t = values(shape), values(shape, 1)
    v, dv = values(x[key].shape, 3), values(x[key].shape, 4)

    def plus(x, v):
        y = x.copy()
        y[key] += v
        return y

    def at(x, v):
        y = x.copy()
        np.add.at(y, key, v)
        np.subtract.at(y, key, 0.5 * v)
        return y

    for f in (plus, at):
        y, dy = gj.jvp(f, (x, v), (t, dv))
        np.testing.assert_allclose(y, f(x, v), rtol=1e-14)
        np.testing.assert_allclose(dy, f(t, dv), rtol=1e-14)


BAD_KEYS = [
    (5,), (-5,), (0, 3), (0, 0, 0), (slice(None), 7), ([0, 4],), ([0], [9]), ([-5],), (..., ...),
    (np.array([True, False]),), (np.ones((4, 2), bool),), ([0, 1], [0, 1, 2]), (1.5,), ("a",),
    (np.array([0.5]),), (None, 0, 0, 0), (np.ones((4, 3, 1), bool),),
]  # fmt: skip


@pytest.mark.parametrize("key", BAD_KEYS, ids=str)
def test_a_key_that_numpy_refuses_is_an_index_error_in_reading_and_writing(key):
    x = values((4, 3))
    with pytest.raises(IndexError):
        x[key]
    with pytest.raises(IndexError):
        gj.jvp(lambda x: x[key], (x,), (x,))
    with pytest.raises(IndexError):
        gj.jvp(lambda x: put(key)(x, 1.0), (x,), (x,))


@pytest.mark.parametrize("call", [lambda x: x[[0, 4]], lambda x: np.take(x, [4], axis=0)])
def test_an_index_out_of_range_is_named_with_its_axis_and_size(call):
    with pytest.raises(IndexError, match=r"index 4 is out of bounds for axis 0 with size 4"):
        gj.jvp(call, (np.ones((4, 3)),), (np.ones((4, 3)),))


def test_an_integer_beside_an_index_array_moves_axes_as_in_numpy():
    t = values((2, 3, 4))
    y, dy = gj.jvp(lambda t: t[0, :, [1, 2]], (t,), (t,))
    assert y.shape == (2, 3)
    np.testing.assert_array_equal(y, t[0, :, [1, 2]])
    np.testing.assert_array_equal(dy, y)


READ_AT_LANES = [
    lambda t, i, j: t[i],
    lambda t, i, j: t[i, 1],
    lambda t, i, j: t[:, j],
    lambda t, i, j: t[1:, j],
    lambda t, i, j: t[i, ::2],
    lambda t, i, j: t[None, i],
    lambda t, i, j: t[i, None],
    lambda t, i, j: t[..., j],
    lambda t, i, j: t[i, :, j],
    lambda t, i, j: t[0, i, j],
    lambda t, i, j: t[0, :, j],
    lambda t, i, j: t[:, i, ::-1],
    lambda t, i, j: t[:, [0, 2], j],
    lambda t, i, j: t[[0, 1], :, j],
    lambda t, i, j: t[[0, 1], None, 1:, j],
    lambda t, i, j: t[np.array([True, False]), j],
    lambda t, i, j: t[..., j, None],
    lambda t, i, j: t[np.stack([i, i - 1]) // 2],
    lambda t, i, j: t[:, np.stack([i, j]), 1],
    lambda t, i, j: np.take(t, j, axis=-1),
    lambda t, i, j: np.take(t, i, axis=0),
    lambda t, i, j: t.take(j),
    lambda t, i, j: np.take(t, j + 9, axis=1, mode="wrap"),
    lambda t, i, j: np.take(t, j + 9, axis=1, mode="clip"),
    lambda t, i, j: np.take_along_axis(t, np.reshape(j, (1, 1, 1)), axis=2),
]


@pytest.mark.parametrize("number", range(len(READ_AT_LANES)))
def test_an_index_that_differs_between_lanes_reads_each_lane(number):
    f = READ_AT_LANES[number]
    t, i, j = values((2, 3, 4)), np.array([1, 0, -1]), np.array([2, -2, 0])
    want = np.stack([f(t, a, b) for a, b in zip(i, j, strict=True)])
    np.testing.assert_array_equal(gj.vmap(f, in_dims=(None, 0, 0))(t, i, j), want)
    many = np.stack([t, 2 * t, -t], -1)
    want = np.stack([f(many[..., k], i[k], j[k]) for k in range(3)])
    np.testing.assert_array_equal(gj.vmap(f, in_dims=(-1, 0, 0))(many, i, j), want)
    got = gj.vmap(gj.jacrev(f), in_dims=(None, 0, 0))(t, i, j)
    want = np.stack([gj.jacfwd(lambda t, a=a, b=b: f(t, a, b))(t) for a, b in zip(i, j, strict=True)])
    np.testing.assert_array_equal(got, want)


def test_a_slice_bound_that_differs_between_lanes_is_an_error():
    t = values((4,))
    with pytest.raises(gj.ConcretizationError, match="one value per lane"):
        gj.vmap(lambda t, i: t[i : i + 2], in_dims=(None, 0))(t, np.array([0, 1]))


def test_a_plain_array_read_at_a_mapped_index_names_take():
    t = values((4,))
    with pytest.raises(gj.ConcretizationError, match=r"gpujac\.numpy\.take\(table, i, axis=0\)"):
        gj.vmap(lambda i: t[i])(np.array([0, 1]))
    np.testing.assert_array_equal(gj.vmap(lambda i: gnp.take(t, i))(np.array([0, 1])), t[:2])


def test_a_mapped_index_out_of_range_is_an_error():
    t = values((4,))
    with pytest.raises(IndexError, match="index 4 is out of bounds for axis 0 with size 4"):
        gj.vmap(lambda t, i: t[i], in_dims=(None, 0))(t, np.array([0, 4]))


def test_writing_at_an_index_that_differs_between_lanes():
    x, i = values((4, 3)), np.array([2, 0])
    v = values((2, 3), 1)

    def f(i, v):
        y = np.zeros_like(v, shape=(4, 3))
        y[i] = v
        y[1, i] += 1.0
        return y + x

    def plain(i, v):
        y = np.zeros((4, 3))
        y[i] = v
        y[1, i] += 1.0
        return y + x

    np.testing.assert_array_equal(gj.vmap(f)(i, v), np.stack([plain(a, b) for a, b in zip(i, v, strict=True)]))
    jacobians = gj.vmap(gj.jacrev(f, argnums=1))(i, v)
    for lane in range(2):
        np.testing.assert_array_equal(jacobians[lane], gj.jacfwd(lambda w, k=lane: f(int(i[k]), w))(v[lane]))


def test_a_gather_is_differentiated_twice_and_through_vmap():
    index = np.array([[0, 2], [2, 1]])
    x = np.array([0.3, 0.7, -0.4])

    def f(x):
        return np.sum(x[index] ** 3)

    want = np.diag(6 * x * np.bincount(index.ravel()))
    np.testing.assert_allclose(gj.hessian(f)(x), want, rtol=1e-14)
    np.testing.assert_allclose(gj.vmap(gj.hessian(f))(np.stack([x, x])), np.stack([want, want]), rtol=1e-14)


def test_an_index_traced_by_an_outer_vmap_serves_an_inner_derivative():
    x = values((5,))
    got = gj.vmap(lambda i: gj.grad(lambda x: x[i] ** 2)(x))(np.arange(5))
    np.testing.assert_allclose(got, np.diag(2 * x))
    got = gj.vmap(lambda i: gj.grad(lambda x: np.take(x, i) ** 2 + x[i + 1 - 1])(x))(np.arange(5))
    np.testing.assert_allclose(got, np.diag(2 * x + 1))


def test_reading_entry_by_entry_costs_one_placement_for_all():
    x = values((40,))
    np.testing.assert_allclose(gj.grad(lambda x: sum(x[i] * i for i in range(40)))(x), np.arange(40.0))


def test_a_mask_that_differs_between_lanes_reads_as_an_error_and_writes_a_scalar():
    x = np.array([[1.0, -2.0], [-3.0, 4.0]])

    def relu(x):
        y = x.copy()
        y[y < 0] = 0.0
        return y

    np.testing.assert_array_equal(gj.vmap(relu)(x), np.maximum(x, 0))
    np.testing.assert_array_equal(gj.vmap(gj.jacrev(relu))(x), [np.diag(row > 0) * 1.0 for row in x])
    with pytest.raises(gj.ConcretizationError, match="where"):
        gj.vmap(lambda x: x[x < 0])(x)


def test_a_condition_that_differs_between_lanes_selects_in_each():
    x = np.array([[1.0, -2.0], [-3.0, 4.0]])
    np.testing.assert_array_equal(gj.vmap(lambda c, x: np.where(c, x, 0.0))(np.array([True, False]), x),
                                  [[1.0, -2.0], [0.0, 0.0]])  # fmt: skip
    np.testing.assert_array_equal(gj.vmap(lambda x: np.where(x > 0, x, -x))(x), np.abs(x))


def test_every_entry_written_twice_keeps_the_last_value():
    def f(v):
        y = np.zeros_like(v)
        y[[0, 0, 1]] = v
        return y

    np.testing.assert_array_equal(gj.jacrev(f)(np.array([1.0, 2.0, 3.0])), [[0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_iteration_unpacking_and_len_go_over_the_first_axis():
    def f(x):
        a, b = x
        return sum(row[0] for row in x) + a[1] * len(x) + b[2]

    x = values((2, 3))
    np.testing.assert_array_equal(gj.grad(f)(x), [[1, 2, 0], [1, 0, 1]])
