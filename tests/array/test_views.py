"""In-place writes on traced arrays: views, buffers, captured arrays, and what is refused."""

import numpy as np
import pytest
from hypothesis import given

import gpujac as gj
import gpujac.numpy as gnp
from tests.array.keys import shapes_and_keys, values

X = values((3, 4))


def same_as_numpy(f, x=X):
    """Value, tangent and pullback of an in-place function agree with NumPy and with each other."""
    t = values(x.shape, 1)
    y, dy = gj.jvp(f, (x,), (t,))
    np.testing.assert_allclose(y, f(x), rtol=1e-14)
    h = 1e-6
    np.testing.assert_allclose(dy, (f(x + h * t) - f(x - h * t)) / (2 * h), rtol=1e-6, atol=1e-6)
    ct = values(np.shape(y), 2)
    np.testing.assert_allclose(np.sum(ct * dy), np.sum(gj.vjp(f, x)[1](ct)[0] * t), rtol=1e-12)
    lanes = np.stack([x, 2 * x])
    np.testing.assert_allclose(gj.vmap(f)(lanes), np.stack([f(lane) for lane in lanes]), rtol=1e-14)


VIEWS = [
    lambda y: y[1],
    lambda y: y[:, 2],
    lambda y: y[::-1, 1:],
    lambda y: y.T,
    lambda y: y.reshape(4, 3),
    lambda y: y.ravel(),
    lambda y: y[None, ..., 1],
    lambda y: np.moveaxis(y, 0, 1),
    lambda y: np.squeeze(y[:1]),
    lambda y: y[...],
    lambda y: y.view(),
    lambda y: y.T[1],
    lambda y: np.split(y, 2, axis=1)[1],
    lambda y: np.expand_dims(y, 0)[0, 1],
    lambda y: y.swapaxes(0, 1)[2],
    lambda y: np.flip(y, 0),
    lambda y: np.diagonal(y),
    lambda y: y.real,
    lambda y: y[1:, ::2].reshape(-1),
    lambda y: y[1:].ravel(),
    lambda y: y.T.ravel(order="F"),
    lambda y: np.einsum("ij->ji", y),
    lambda y: np.rot90(y),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(VIEWS)))
def test_a_write_into_a_view_is_seen_by_its_array_and_the_other_way_round(number):
    take = VIEWS[number]
    plain = X.copy()
    writable = take(plain).flags.writeable and np.shares_memory(take(plain), plain)

    def write_view(x):
        y = x * 1.0
        v = take(y)
        v *= 3.0
        v[..., 0] = x[0, 0] * x[0, 1]
        return y

    def write_array(x):
        y = x * 1.0
        v = take(y)
        y[1] = x[0] ** 2
        y += 1.0
        return v * y.sum()

    if writable:
        same_as_numpy(write_view)
    same_as_numpy(write_array)


@given(shapes_and_keys())
def test_what_shares_memory_follows_numpy_for_every_key(case):
    shape, key = case
    x = values(shape)

    def f(x):
        y = x.copy()
        part = np.atleast_1d(y[key])
        part *= 2.0
        return y

    def written(x):
        y = x.copy()
        part = y[key]
        y *= 3.0
        return part + np.sum(y)

    for g in (f, written):
        got, tangent = gj.jvp(g, (x,), (x,))
        np.testing.assert_allclose(got, g(x), rtol=1e-13)
        np.testing.assert_allclose(tangent, g(x), rtol=1e-13)  # g is linear: its tangent at x is g(x)


def test_a_copy_sees_nothing():
    def f(x):
        y = x.copy()
        z = y[1].copy()
        y[1] = 0.0
        w = y.flatten()
        w[0] = 5.0
        a = y.astype(np.float64)
        a[0] = 1.0
        return y + z + np.array(w[0] * 0)[None] if isinstance(x, np.ndarray) else y + z

    same_as_numpy(f)


COPIES = [
    lambda y: y.T.ravel(),
    lambda y: y.T.reshape(-1),
    lambda y: y[:, 1:3].ravel(),
    lambda y: y.ravel(order="F"),
    lambda y: y.reshape((12,), order="F"),
    lambda y: (y.T * 2.0).ravel(),
    lambda y: y.flatten(),
    lambda y: y[[0, 1]],
    lambda y: y[y > 0],
    lambda y: np.take(y, [0, 1], axis=0),
    lambda y: y.copy().T,
    lambda y: np.tile(y, 1),
    lambda y: np.concatenate([y]),
    lambda y: np.stack([y]),
    lambda y: np.roll(y, 0),
    lambda y: np.diag(y[0]),
    lambda y: +y,
    lambda y: y.astype(float),
    lambda y: np.sum(y, axis=()),
    lambda y: np.positive(y),
    lambda y: np.pad(y, 0),
    lambda y: np.repeat(y, 1, axis=0),
    lambda y: np.tril(y, 9),
    lambda y: np.where(True, y, 0.0),
    lambda y: y**1,
    lambda y: y.conj() + 0.0,
    lambda y: np.nan_to_num(y),
    lambda y: np.einsum("ij->ij", y) + 0.0,
    lambda y: np.cumsum(y[:1], axis=0),
    lambda y: np.atleast_2d(y)[[0]],
    lambda y: np.max(y, axis=()),
    lambda y: np.append(y, [[]]),
    lambda y: np.mean(y, axis=()),
    lambda y: np.prod(y, axis=()),
]


@pytest.mark.parametrize("number", range(len(COPIES)))
def test_what_numpy_copies_is_not_reached_by_later_writes(number):
    make = COPIES[number]
    assert not np.shares_memory(make(X), X)

    def f(x):
        y = x * 1.0
        z = make(y)
        z *= 3.0
        z[0] = 1.0
        y[1] = x[0] ** 2
        return np.sum(z) * y

    t = values(X.shape, 1)
    y, dy = gj.jvp(f, (X,), (t,))
    np.testing.assert_allclose(y, f(X), rtol=1e-13)
    h = 1e-6
    np.testing.assert_allclose(dy, (f(X + h * t) - f(X - h * t)) / (2 * h), rtol=1e-5, atol=1e-5)
    if number != 8:  # a mask that differs between lanes
        lanes = np.stack([X, 2 * X], -1)
        want = np.stack([f(X), f(2 * X)])
        np.testing.assert_allclose(gj.vmap(f, in_dims=-1)(lanes), want, rtol=1e-13)


def test_copy_true_and_copy_false_mean_what_they_mean_in_numpy():
    def f(x):
        shared = x.astype(np.float64, copy=False)
        shared[0] = x[1] ** 2
        own = x.reshape(4, 3, copy=True)
        own[0] = 7.0
        other = np.reshape(x, (12,), copy=True)
        other[3] = 8.0
        return x * shared + own.sum() * other.sum()

    same_as_numpy(f)


def test_shared_memory_is_told_as_numpy_tells_it():
    seen = []

    def f(x):
        y = x.copy()
        pairs = [(x, x), (x, x[0]), (x.T, x[1:]), (x, y), (x, x * 1), (x, X)]
        seen.append([[np.may_share_memory(a, b), np.shares_memory(a, b)] for a, b in pairs])
        return x

    f(X.copy())
    gj.jvp(f, (X,), (X,))
    assert seen[0] == seen[1] == [[True, True]] * 3 + [[False, False]] * 3


def test_options_that_change_the_result_are_not_ignored():
    with pytest.raises(gj.DTypeError, match="astype: float64 to float32 is not allowed with casting='safe'"):
        gj.jacrev(lambda x: x.astype(np.float32, casting="safe"))(X)
    with pytest.raises(gj.DispatchError, match="clip: where= is not supported"):
        gj.jacrev(lambda x: x.clip(0.0, 1.0, where=X > 0))(X)
    with pytest.raises(gj.DispatchError, match="nan_to_num: copy=False is not supported"):
        gj.jacrev(lambda x: np.nan_to_num(x, copy=False))(X)
    for join in (np.concatenate, np.stack):
        with pytest.raises(gj.DTypeError, match="float64 to int64 is not allowed with casting='same_kind'"):
            gj.jacrev(lambda x, join=join: join([x, x], dtype=np.int64))(X)
        y = gj.jvp(lambda x, join=join: join([x, x], dtype=np.float32), (X,), (X,))[0]
        assert y.dtype == np.float32
    with pytest.raises(gj.DTypeError, match="copyto: complex128 to float64 is not allowed"):
        gj.jacrev(lambda x: np.copyto(x, 1j * x))(X)
    with pytest.raises(IndexError, match="put: an index is out of bounds for 12 entries; use -12 to 11"):
        gj.jacrev(lambda x: np.put(x, [12], 1.0))(X)


def test_array_equal_compares_nan_as_it_is_told():
    x, seen = np.array([1.0, np.nan]), []

    def f(x):
        seen.extend([np.array_equal(x, x), np.array_equal(x, x, equal_nan=True), np.array_equal(x, x[:1])])
        return x

    gj.jvp(f, (x,), (x,))
    assert seen == [False, True, False]


def test_a_swap_of_two_rows_goes_through_a_copy_as_in_numpy():
    def f(x):
        y = x.copy()
        y[[0, 1]] = y[[1, 0]]
        y[0], y[2] = y[2].copy(), y[0].copy()
        return y

    same_as_numpy(f)


def test_operators_in_place_change_the_array_itself():
    def f(x):
        y = x.copy()
        z = y
        y += 1.0
        y -= x[0]
        y *= x
        y /= 2.0 + x**2
        y **= 2
        assert z is y
        return z

    same_as_numpy(f)


def test_an_argument_written_in_the_function_stays_as_it_was_outside():
    x = X.copy()

    def f(x):
        x[0] *= 2.0
        return x

    gj.jvp(f, (x,), (x,))
    gj.vmap(f)(x[None])
    gj.jacrev(f)(x)
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("make", [np.zeros_like, np.ones_like, np.empty_like, lambda x: np.full_like(x, 3.0)])
def test_arrays_like_a_traced_one_receive_traced_writes(make):
    def f(x):
        y = make(x)
        y[0] = x[1]
        y[1:] = x[:2] ** 2
        return y

    same_as_numpy(f)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gnp.zeros((3, 4)),
        lambda: gnp.ones((3, 4)),
        lambda: gnp.empty((3, 4)),
        lambda: gnp.full((3, 4), 2.0),
        lambda: gnp.zeros(12).reshape(3, 4),
        lambda: gnp.zeros_like(np.ones((3, 4))),
        lambda: gnp.full_like(np.ones((3, 4)), 2.0),
    ],
)
def test_arrays_that_our_namespace_makes_while_tracing_receive_traced_writes(make):
    def f(x):
        y = make()
        y[0] = x[1]
        y[1:] = x[:2] ** 2
        y[2, 1] += x[0, 0] * x[1, 1]
        return y

    same_as_numpy(f)
    np.testing.assert_allclose(gj.jacfwd(f)(X), gj.jacrev(f)(X), rtol=1e-14)
    np.testing.assert_allclose(
        gj.hessian(lambda x: gnp.sum(f(x)))(X[:, :]), gj.jacfwd(gj.jacrev(lambda x: np.sum(f(x))))(X)
    )


def test_an_array_of_our_namespace_is_plain_where_nothing_is_traced():
    assert type(gnp.zeros(3)) is np.ndarray
    assert type(gnp.full(3, 1.0)) is np.ndarray
    seen = []
    gj.jvp(lambda x: (seen.append(gnp.zeros(3, int)), x)[1], (1.0,), (1.0,))
    assert type(seen[0]) is np.ndarray  # integers carry no derivative
    assert type(gnp.zeros(3)) is np.ndarray
    with pytest.raises(ZeroDivisionError):
        gj.grad(lambda x: x * (1 // 0))(1.0)
    assert type(gnp.zeros(3)) is np.ndarray  # closed after an error too


def test_an_untouched_array_of_our_namespace_comes_back_plain():
    y, pullback = gj.vjp(lambda x: gnp.zeros(3) + 1.0, 2.0)
    assert type(y) is np.ndarray
    assert pullback(np.ones(3))[0] == 0
    assert type(gj.vmap(lambda x: gnp.ones(2))(X)) is np.ndarray
    assert gj.vmap(lambda x: gnp.ones(2))(X).shape == (3, 2)
    assert type(gj.jvp(lambda x: gnp.ones(2), (1.0,), (1.0,))[1]) is np.ndarray


def test_a_buffer_of_an_outer_transform_does_not_take_values_of_an_inner_one():
    def f(x):
        y = np.zeros_like(x)

        def inner(z):
            y[0] = z * 2.0
            return z**2

        return gj.grad(inner)(x[0, 0]) + np.sum(y)

    with pytest.raises(gj.MutationError, match=r"shape \(3, 4\) made outside grad of inner.*np\.zeros_like"):
        gj.grad(f)(X)


def test_a_captured_traced_array_is_not_written_from_inside():
    def f(x):
        def inner(z):
            x[0] = z
            return z

        return gj.grad(inner)(x[0, 0]) * x[1, 1]

    with pytest.raises(gj.MutationError, match="made outside grad of inner"):
        gj.grad(f)(X)


def test_a_captured_plain_array_is_not_written_with_traced_values():
    buffer = np.zeros(4)

    def f(x):
        buffer[:] = x[0]
        return buffer.sum()

    with pytest.raises(TypeError, match="zeros_like"):
        gj.grad(f)(X)
    np.testing.assert_array_equal(buffer, np.zeros(4))


def test_a_write_that_would_lose_the_derivative_by_its_dtype_is_refused():
    def into_integers(x):
        y = np.zeros_like(x, dtype=int)
        y[0] = x[0]
        return x

    def complex_into_real(x):
        y = np.zeros_like(x)
        y[0] = x[0] * 1j
        return x

    for f, found in ((into_integers, "float64 values .* int64"), (complex_into_real, "complex128 .* float64")):
        with pytest.raises(gj.DTypeError, match=rf"in-place write of {found}"):
            gj.jvp(f, (X,), (X,))


def test_a_write_in_a_narrower_float_casts_value_and_derivative():
    x = np.ones(2)

    def f(x):
        y = np.zeros_like(x, dtype=np.float32)
        y[:] = x * 2
        return y

    y, dy = gj.jvp(f, (x,), (x,))
    assert y.dtype == dy.dtype == np.float32
    np.testing.assert_array_equal(dy, [2, 2])
    assert gj.vjp(f, x)[1](np.ones(2, np.float32))[0].dtype == np.float64


@pytest.mark.parametrize(
    ("write", "value"), [(lambda y, v: y.__setitem__(0, v), (3,)), (lambda y, v: y.__iadd__(v), (2, 3, 4))]
)
def test_a_value_that_does_not_fit_is_named_with_both_shapes(write, value):
    with pytest.raises(gj.ShapeError, match=r"value of shape \(.*\) does not fit into \(.*4.*\)"):
        gj.jvp(lambda x: write(x.copy(), x[0, 0] * np.ones(value)), (X,), (X,))


def test_a_number_is_replaced_by_plus_equals_and_an_array_is_changed():
    def f(x):
        total, seen = x[0, 0] * 1.0, []
        for i in range(3):
            seen.append(total)
            total += x[i, 1]
        y = x[..., 0, 0]
        z = np.sum(x)
        first = z
        z *= 2.0
        return np.stack(seen) * total * y + first * z

    same_as_numpy(f)
    np.testing.assert_allclose(gj.grad(lambda s: (lambda t: t.__iadd__(1.0) * s * t)(s))(3.0), 33.0)


def test_an_array_without_axes_is_changed_by_plus_equals():
    def f(x):
        y = np.zeros_like(x)
        z = y
        y += x * 2
        return z * x

    np.testing.assert_allclose(gj.grad(f)(np.array(3.0)), 12.0)


def test_parts_of_complex_arrays_are_views():
    z = values((3,)) + 1j * values((3,), 1)

    def f(z):
        w = z * 1.0
        w.real[0] = z.imag[1] * z.real[2]
        w.imag[:] *= 2.0
        part = w.real
        w += 1j + 1
        return w * part

    y, dy = gj.jvp(f, (z,), (1j * z,))
    np.testing.assert_allclose(y, f(z))
    h = 1e-6
    np.testing.assert_allclose(dy, (f(z + h * 1j * z) - f(z - h * 1j * z)) / (2 * h), rtol=1e-7)


def test_fill_and_whole_array_assignment():
    def f(x):
        y = x.copy()
        y.fill(x[0, 0])
        y[:, 1] = 2.0
        y[...] += x
        y[()] *= 2.0
        return y

    def plain(x):
        y = np.full_like(x, x[0, 0])
        y[:, 1] = 2.0
        return (y + x) * 2.0

    y, dy = gj.jvp(f, (X,), (values((3, 4), 1),))
    np.testing.assert_allclose(y, plain(X))
    np.testing.assert_allclose(dy, gj.jvp(plain, (X,), (values((3, 4), 1),))[1])


def test_the_transpose_of_a_linear_function_that_fills_a_buffer():
    def f(u):
        y = np.zeros_like(u)
        y[1:-1] = u[2:] - 2 * u[1:-1] + u[:-2]
        y[0] += 3 * u[1]
        return y

    u, ct = values((6,)), values((6,), 1)
    np.testing.assert_allclose(gj.linear_transpose(f, u)(ct)[0], gj.vjp(f, u)[1](ct)[0], rtol=1e-14)


def test_functions_that_write_into_their_argument():
    def f(x):
        y = np.zeros_like(x)
        np.copyto(y, x**2)
        np.copyto(y, -x, where=[True, False, True, False])
        np.fill_diagonal(y, x[0, 0] * 2)
        np.putmask(y, x > 8.0, x * 3)
        np.put(y, [0, -1], x[0, :2] ** 2)
        np.put_along_axis(y, np.array([[1], [2], [3]]), x[:, :1] * 5, axis=1)
        z = x * x[::-1]
        z.sort(axis=0)
        z[0].sort()
        return y * z

    same_as_numpy(f)


def test_functions_that_write_refuse_a_plain_array():
    calls = [
        lambda y, x: np.copyto(y, x),
        lambda y, x: np.fill_diagonal(y, x[0, 0]),
        lambda y, x: np.putmask(y, [True] * 4, x),
        lambda y, x: np.put(y, [0], x[0, 0]),
        lambda y, x: np.put_along_axis(y, np.zeros((3, 1), int), x[:, :1], axis=1),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"np\.zeros_like"):
            gj.jvp(lambda x, call=call: call(np.zeros((3, 4)), x), (X,), (X,))


def test_a_descending_sort_keeps_equal_entries_in_order():
    x = np.array([2.0, 1.0, 2.0, 3.0])
    seen = gj.jvp(lambda x: (x, gnp.argsort(x, descending=True)), (x,), (x,), has_aux=True)[2]
    np.testing.assert_array_equal(seen, [3, 0, 2, 1])
    np.testing.assert_array_equal(gj.jacrev(lambda x: x.__array_namespace__().sort(x, descending=True))(x),
                                  np.eye(4)[[3, 0, 2, 1]])  # fmt: skip
