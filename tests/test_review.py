"""Claims that a review with fresh eyes found broken: each test names one."""

import threading

import numpy as np
import pytest

import gpujac as gj
from gpujac.core.trace import innermost
from gpujac.errors import MutationError

_LARGE = 300  # an array of (300, 300) is too large to be copied as a constant

_MASKED = {
    "sqrt": lambda x: np.where(x > 0, np.sqrt(np.maximum(x, 0)), 0),
    "power": lambda x: np.where(x > 0, np.maximum(x, 0) ** 0.5, 0),
    "log": lambda x: np.where(x > 0, np.log(np.maximum(x, 0)), 0),
    "divide": lambda x: np.where(x > 0, 1 / np.maximum(x, 0), 0),
    "quotient": lambda x: np.where(x != 0, np.sin(x) / x, 1),
    "arccos": lambda x: np.where(x < 1, np.arccos(np.minimum(x, 1)), 0),
}
_SECOND = {
    "hessian": gj.hessian,
    "rev_rev": lambda f: gj.jacrev(gj.jacrev(f)),
    "fwd_fwd": lambda f: gj.jacfwd(gj.jacfwd(f)),
    "rev_fwd": lambda f: gj.jacrev(gj.jacfwd(f)),
    "by_rows": lambda f: gj.jacfwd(gj.jacrev(f, chunk_size=1), chunk_size=1),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("second", _SECOND)
@pytest.mark.parametrize("name", _MASKED)
def test_second_derivative_behind_where_is_zero_where_the_slope_is_infinite(name, second):
    f = _MASKED[name]
    x = np.array([0.0, 0.5, 1.0])
    matrix = _SECOND[second](lambda x: np.sum(f(x)))(x)
    assert np.all(np.isfinite(matrix[:2, :2]))
    assert matrix[0, 0] == 0
    inside = _SECOND[second](lambda x: np.sum(f(x)))(x[1:2])
    np.testing.assert_allclose(matrix[1, 1], inside[0, 0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_hessian_under_vmap_of_masked_sqrt_is_finite():
    f = lambda s: np.where(s > 0, np.sqrt(np.abs(s)), 0)
    g = lambda s: np.where(s > 0, np.sqrt(np.maximum(s, 0)), 0)
    x = np.array([0.0, 4.0, -1.0])
    np.testing.assert_allclose(gj.vmap(gj.hessian(f))(x), [0, -1 / 32, 0])
    np.testing.assert_allclose(gj.vmap(gj.hessian(g))(x), [0, -1 / 32, 0])


@pytest.mark.parametrize("transform", [gj.grad, gj.jacrev, gj.jacfwd])
def test_writes_into_an_array_without_axes_are_differentiated(transform):
    def f(x):
        y = np.zeros_like(x, shape=())
        y[...] = x[0]
        y[...] *= y * x[1]
        return y

    np.testing.assert_allclose(transform(f)(np.array([2.0, 3.0])), [12.0, 4.0])


@pytest.mark.parametrize("n", [3, _LARGE], ids=["small", "large"])
@pytest.mark.parametrize("transform", [gj.grad, gj.jacrev, gj.value_and_grad])
def test_write_of_the_function_into_its_own_input_is_no_wrong_derivative(transform, n):
    x = np.ones((n, n))

    def f(y):
        z = y * y
        x[:] = 9.0  # the array behind y, by another name
        return z.sum()

    if n == _LARGE:
        with pytest.raises(ValueError, match="read-only"):
            transform(f)(x)
        assert x.flags.writeable
        return
    found = transform(f)(x)
    found = found[1] if isinstance(found, tuple) else found
    np.testing.assert_allclose(found, 2.0)


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[:200], lambda a: a.reshape(-1, _LARGE)])
def test_write_into_the_owner_of_a_large_constant_view_is_an_error(view):
    work = np.ones((_LARGE, _LARGE))

    def f(x):
        y = view(work) @ x
        work[:] = 9.0
        return y

    with pytest.raises(ValueError, match="read-only"):
        gj.jacrev(f)(np.ones(_LARGE))
    assert work.flags.writeable
    assert innermost() is None


def test_write_into_the_owner_of_a_read_only_view_is_an_error():
    row = np.ones(_LARGE)
    table = np.broadcast_to(row, (_LARGE, _LARGE))

    def f(x):
        y = table @ x
        row[:] = 9.0
        return y

    with pytest.raises(ValueError, match="read-only"):
        gj.jacrev(f)(np.ones(_LARGE))
    assert row.flags.writeable
    assert not table.flags.writeable


def test_pullback_notices_a_write_into_the_owner_of_a_view():
    weights = np.ones((_LARGE, _LARGE))
    _, pullback = gj.vjp(lambda x: weights.T @ x, np.ones(_LARGE))
    weights *= 2.0
    with pytest.raises(MutationError):
        pullback(np.ones(_LARGE))


def test_views_and_owners_are_writable_again_after_transforms_in_threads():
    owner = np.ones((_LARGE, _LARGE))
    views = [owner, owner.T, owner[1:], owner[:, :-1]]
    failed = []

    def work(view):
        try:
            for _ in range(10):
                gj.jacrev(lambda x: view @ x, chunk_size=None)(np.ones(view.shape[1]))
        except Exception as error:  # reported below, in the thread of the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=(view,)) for view in views]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
    assert all(view.flags.writeable for view in views)


def test_array_that_was_read_only_stays_so():
    constant = np.ones((_LARGE, _LARGE))
    constant.flags.writeable = False
    gj.jacrev(lambda x: constant @ x)(np.ones(_LARGE))
    assert not constant.flags.writeable


def test_memmap_that_the_function_writes_again_is_read_as_it_was(tmp_path):
    buffer = np.memmap(tmp_path / "buffer", dtype=float, mode="w+", shape=(3,))
    buffer[:] = 2.0

    def f(x):
        y = buffer * x
        buffer[:] = 9.0
        return y.sum()

    np.testing.assert_allclose(gj.grad(f)(np.ones(3)), 2.0)


@pytest.mark.parametrize("n", [3, _LARGE], ids=["small", "large"])
def test_aux_shares_no_memory_with_inputs_and_can_be_written(n):
    x = np.ones((n, n))
    aux = {
        "jvp": gj.jvp(lambda x: (x * 2, (x, x[1:], x.T)), (x,), (x,), has_aux=True)[2],
        "vjp": gj.vjp(lambda x: (x * 2, (x, x[1:], x.T)), x, has_aux=True)[2],
        "grad": gj.grad(lambda x: (x.sum(), (x, x[1:], x.T)), has_aux=True)(x)[1],
    }
    for leaves in aux.values():
        assert not any(np.shares_memory(leaf, x) for leaf in leaves)
        assert all(leaf.flags.writeable for leaf in leaves)


def test_write_into_aux_does_not_reach_the_pullback():
    def f(x):
        y = np.sin(x)
        return y * y, y

    x = np.array([0.3, 0.7])
    _, pullback, aux = gj.vjp(f, x, has_aux=True)
    aux[:] = 0.0
    np.testing.assert_allclose(pullback(np.ones(2))[0], np.sin(2 * x))


_LAYOUTS = {
    "plain": lambda x: x,
    "transposed": lambda x: x.T,
    "flipped": lambda x: x[::-1],
    "columns": lambda x: x[:, ::2],
    "computed": lambda x: np.sin(x.T),
    "copied": lambda x: x.T.copy(order="K"),
}


@pytest.mark.parametrize("order", ["C", "F", "A", "K"])
@pytest.mark.parametrize("name", _LAYOUTS)
@pytest.mark.parametrize("stored", ["C", "F"])
def test_ravel_in_the_order_of_memory_is_that_of_numpy(name, order, stored):
    def f(x):
        return np.concatenate([np.ravel(_LAYOUTS[name](x), order=order), _LAYOUTS[name](x).flatten(order)])

    x = np.asarray(np.arange(12.0).reshape(3, 4), order=stored)
    np.testing.assert_array_equal(gj.jvp(f, (x,), (x,))[0], f(x))
    np.testing.assert_allclose(gj.jacrev(f)(x).reshape(-1, 12), gj.jacfwd(f)(x).reshape(-1, 12))


def test_ravel_in_an_unclear_order_of_memory_is_an_error():
    x = np.zeros((2, 3, 4))
    with pytest.raises(gj.errors.ArgumentError, match="order='K'"):
        gj.jvp(lambda x: np.swapaxes(x, 1, 2).ravel("K"), (x,), (x,))


@pytest.mark.parametrize("written", [False, True])
def test_ravel_of_a_flipped_array_is_a_copy(written):
    def f(x):
        view = x[::-1]
        if written:
            view[:2] = 7.0
        flat = view.ravel()
        flat[2:] = 9.0
        return x * 1

    x = np.arange(4.0)
    np.testing.assert_array_equal(gj.jvp(f, (x,), (x,))[0], f(x.copy()))


def test_reshape_of_a_written_view_is_still_a_view():
    def f(x):
        view = x[::-1]
        view[:2] = 7.0
        flat = view.reshape(2, 2)
        flat[0] = 9.0
        return x * 1

    x = np.arange(4.0)
    np.testing.assert_array_equal(gj.jvp(f, (x,), (x,))[0], f(x.copy()))


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
def test_long_chain_of_arrays_written_whole_needs_no_recursion(transform):
    def f(x):
        for _ in range(2_000):
            new = np.zeros_like(x)
            new[:] = x * 1.001
            x = new
        return x

    np.testing.assert_allclose(transform(f)(np.ones(60)), 1.001**2_000 * np.eye(60))


def test_long_chain_of_views_needs_no_recursion():
    def f(x):
        view = x
        for i in range(2_000):
            view = view.reshape(2, 2) if i % 2 else view.reshape(4)
        view[0, 0] = 3 * view[0, 1]
        return x * 1

    np.testing.assert_allclose(gj.jacrev(f)(np.ones(4))[0], [0, 3, 0, 0])


@pytest.mark.parametrize("x", [2.0, np.float64(2.0)])
def test_views_of_a_number_can_be_written_and_raveled(x):
    def f(x):
        view = np.atleast_2d(x)
        view[0, 0] = 3 * view[0, 0]
        return view.ravel().sum() + view.reshape(1).sum()

    assert gj.grad(f)(x) == 6.0
    np.testing.assert_allclose(gj.vmap(gj.grad(f))(np.ones(3)), 6.0)
