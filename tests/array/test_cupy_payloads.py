"""Traced arrays over CuPy arrays: the values, derivatives, keys and writes of NumPy, on the device."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj
import gpujac.numpy as gnp
from tests import device
from tests.array import calls, test_indexing, test_methods, test_views
from tests.array.keys import shapes_and_keys, values

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)

from gpujac.backends import emulated

PLACES = {"device": device.array, "numpy": lambda k: k}  # where the index arrays of a key lie


def on_device(tree):
    """Arrays in a tuple as the device's."""
    return tuple(device.array(x) for x in tree)


def moved(key, place):
    """A key whose index arrays are of the place's library."""
    parts = key if isinstance(key, tuple) else (key,)
    return tuple(PLACES[place](k) if isinstance(k, np.ndarray) else k for k in parts)


def check_same(got, want, rtol=1e-12):
    """Arrays of the device that hold NumPy's values, dtypes included."""
    got, want = (list(x) if isinstance(x, (list, tuple)) else [x] for x in (got, want))
    for y, z in zip(got, want, strict=True):
        if isinstance(z, np.ndarray):
            assert isinstance(y, device.TYPE)
        y = device.host(y)
        assert y.dtype == np.asarray(z).dtype
        np.testing.assert_allclose(y, z, rtol=rtol, atol=1e-13)


@pytest.mark.parametrize("call", test_methods.CALLS)
def test_every_method_gives_numpys_value_tangent_and_lanes(call):
    def f(x, t):
        return eval(call, {"x": x, "t": t, "np": np})

    args = test_methods.X, test_methods.T
    tangents = tuple(np.cos(a) for a in args)
    check_same(gj.jvp(f, on_device(args), on_device(tangents)), gj.jvp(f, args, tangents))
    if "nonzero" not in call:
        lanes = tuple(np.stack([a, a * 1.01]) for a in args)
        check_same(gj.vmap(f)(*on_device(lanes)), gj.vmap(f)(*lanes))


def of_call(call, namespace):
    """The call as a function of its operands, with `np` from a namespace."""
    names, code = calls.operands_of(call), compile(call, call, "eval")
    return lambda *args: eval(code, {"np": namespace, **dict(zip(names, args, strict=True))})


@pytest.mark.parametrize("call", calls.all_calls())
def test_every_call_gives_numpys_value_and_tangent_by_both_ways_in(call):
    args = tuple(calls.OPERANDS[n] for n in calls.operands_of(call))
    tangents = tuple(np.cos(x) for x in args)
    want = gj.jvp(of_call(call, np), args, tangents)
    for namespace in (np, device.XP):
        check_same(gj.jvp(of_call(call, namespace), on_device(args), on_device(tangents)), want)


@pytest.mark.slow
@pytest.mark.parametrize("call", [c for c in calls.all_calls() if not c.startswith(calls.FLAT)])
def test_every_pullback_gives_numpys_gradients(call):
    args = tuple(calls.OPERANDS[n] for n in calls.operands_of(call))
    y, pullback = gj.vjp(of_call(call, np), *args)
    ct = np.cos(np.arange(float(np.size(y)))).reshape(np.shape(y)).astype(y.dtype)
    _, on_card = gj.vjp(of_call(call, device.XP), *on_device(args))
    check_same(on_card(device.array(ct)), pullback(ct), rtol=1e-11)


@pytest.mark.skipif(device.NAME != "emulated", reason="only emulated arrays count what a device would do")
@pytest.mark.parametrize("call", [c for c in calls.all_calls() if not c.startswith(calls.FLAT)])
def test_a_sweep_uploads_nothing_and_waits_for_nothing(call):
    f = of_call(call, device.XP)
    args = on_device(calls.OPERANDS[n] for n in calls.operands_of(call))
    with gj.settings.override(kernels="off"):
        y, pullback = gj.vjp(f, *args)
        _, lin = gj.linearize(f, *args)
        ct = device.array(np.ones(y.shape, y.dtype))
        with emulated.counting() as counts:
            pullback(ct)
            lin(*args)
    assert (counts.uploads, counts.syncs) == (0, 0)


@pytest.mark.parametrize("place", PLACES)
@given(shapes_and_keys())
def test_reading_by_any_key_follows_numpy(place, case):
    shape, key = case
    x, t = values(shape), values(shape, 1)
    y, dy = gj.jvp(lambda x: x[moved(key, place)], on_device((x,)), on_device((t,)))
    check_same((y, dy), (np.asarray(x[key]), np.asarray(t[key])))
    ct = values(x[key].shape, 2)
    _, pullback = gj.vjp(lambda x: x[moved(key, place)], device.array(x))
    want = np.zeros(shape)
    np.add.at(want, key, ct)
    check_same(pullback(device.array(ct)), (want,))


@pytest.mark.parametrize("place", PLACES)
@given(shapes_and_keys(), st.sampled_from(["full", "scalar", "ones"]))
def test_writing_by_any_key_follows_numpy(place, case, form):
    shape, key = case
    x, t = values(shape), values(shape, 1)
    selected = x[key].shape
    small = {"full": selected, "scalar": (), "ones": (1,) * len(selected)}[form]
    v, dv = values(small, 3), values(small, 4)
    f = test_indexing.put(moved(key, place))
    got = gj.jvp(f, on_device((x, v)), on_device((t, dv)))
    check_same(got, (test_indexing.put(key)(x, v), test_indexing.put(key)(t, dv)))


@given(shapes_and_keys())
def test_what_shares_memory_is_what_numpy_shares(case):
    shape, key = case
    x = values(shape)
    parts = key if isinstance(key, tuple) else (key,)
    if all(isinstance(k, int) for k in parts) and len(parts) == len(shape):
        key = (*parts, ...)  # for NumPy's arrays to give a view, as CuPy's do without

    def f(x):
        y = x.copy()
        part = np.reshape(y[moved(key, "device")] if isinstance(x, gj.array.traced.Tracer) else y[key], -1)
        part *= 2.0
        y *= 3.0
        return part, y

    for y, z in zip(gj.jvp(f, on_device((x,)), on_device((x,)))[0], f(x), strict=True):
        check_same(y, z)


def test_one_entry_is_a_view_as_in_cupy_where_numpy_gives_a_number():
    def f(x):
        y = x * 1.0
        entry, first = y[1], next(iter(y))
        entry *= 3.0
        first += x[2]
        for part in y[2:]:
            part -= 1.0
        return y

    x = np.array([0.3, 0.7, 1.1])
    want = np.array([0.3 + 1.1, 2.1, 0.1])
    plain = device.array(x)
    check_same(gj.jvp(f, (plain,), (plain,)), (want, want + [0, 0, 1.0]))
    check_same(gj.vmap(f)(device.array(np.stack([x, x]))), np.stack([want, want]))
    np.testing.assert_array_equal(gj.jvp(f, (x,), (x,))[0], x)  # NumPy's numbers are no views


@pytest.mark.parametrize("order", ["C", "F", "step"])
@pytest.mark.parametrize("number", range(len(test_views.VIEWS)))
def test_a_write_into_a_view_follows_numpy_whatever_the_memory_order(number, order):
    take = test_views.VIEWS[number]
    x = {"C": test_views.X, "F": np.asfortranarray(test_views.X), "step": np.repeat(test_views.X, 2, 1)[:, ::2]}[order]
    if not (take(x.copy()).flags.writeable and np.shares_memory(take(x), x)):
        return

    def f(x):
        y = x if isinstance(x, np.ndarray) else x + 0.0
        y = x.copy(order="K") if isinstance(x, np.ndarray) else y
        v = take(y)
        v *= 3.0
        v[..., 0] = x[0, 0] * x[0, 1]
        return y

    check_same(gj.vmap(f)(device.array(np.stack([x, x]))), np.stack([f(x), f(x)]))
    check_same(gj.jvp(f, on_device((x,)), on_device((x,)))[0], f(x))


@pytest.mark.parametrize("number", range(len(test_indexing.READ_AT_LANES)))
def test_an_index_that_differs_between_lanes_reads_each_lane(number):
    f = test_indexing.READ_AT_LANES[number]
    t, i, j = values((2, 3, 4)), np.array([1, 0, -1]), np.array([2, -2, 0])
    want = gj.vmap(f, in_dims=(None, 0, 0))(t, i, j)
    check_same(gj.vmap(f, in_dims=(None, 0, 0))(*on_device((t, i, j))), want)
    want = gj.vmap(gj.jacrev(f), in_dims=(None, 0, 0))(t, i, j)
    check_same(gj.vmap(gj.jacrev(f), in_dims=(None, 0, 0))(*on_device((t, i, j))), want)


WIDENED = [
    lambda t, A, np: A * np.stack([t, t * 2]),
    lambda t, A, np: A * np.array([t, 1.0]),
    lambda t, A, np: A * np.array([t, A[0]]),
    lambda t, A, np: A * np.full(2, t),
    lambda t, A, np: A * np.full_like(A, t),
    lambda t, A, np: A * np.linspace(t, 1.0, 2),
    lambda t, A, np: A * np.broadcast_to(t, (2,)),
    lambda t, A, np: np.concatenate([np.reshape(t, (1,)), A]),
    lambda t, A, np: np.append(A, t) * np.append(t, A),
    lambda t, A, np: np.r_[t, A, 1.0, 0:2] * 2,
    lambda t, A, np: np.where(A > 1, t, 0.0) + np.clip(A, 0, t) + A**t + np.sin(t) * A,
    lambda t, A, np: np.hstack([A, t]) + np.atleast_1d(t),
]


@pytest.mark.parametrize("number", range(len(WIDENED)))
def test_a_python_float_may_become_an_array_of_the_device(number):
    f, a = WIDENED[number], np.array([1.0, 2.0])
    on_card = device.array(a)
    want = gj.jacfwd(lambda t: f(t, a, gnp))(0.5)
    for t in (0.5, np.float64(0.5)):
        check_same(gj.jacfwd(lambda t: f(t, on_card, device.XP))(t), want)
        check_same(gj.vjp(lambda t: f(t, on_card, device.XP), t)[0], f(0.5, a, np))
