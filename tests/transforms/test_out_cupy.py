"""Jacobians of device arrays into host memory, a chunk behind the sweeps, and into given device arrays."""

import importlib
from itertools import pairwise

import numpy as np
import pytest

import gpujac as gj
from gpujac.errors import ArgumentError, BackendError, MutationError, ShapeError
from tests import device

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)

from tests.transforms import helpers as h
from tests.transforms.test_out import Store, W, X, strided

emulated = importlib.import_module("gpujac.backends.emulated") if device.NAME == "emulated" else None
counted = pytest.mark.skipif(emulated is None, reason="only the emulated backend counts")
WD, XD = device.array(W), device.array(X)


@pytest.fixture(autouse=True, params=device.KERNELS)
def kernels(request):
    """What CuPy does by itself, and our kernels."""
    with gj.settings.override(kernels=request.param):
        yield


def f(x):
    return np.tanh(WD @ np.sin(x))


def both(x):
    return {"a": f(x).reshape(3, 4), "b": (np.sin(x) * x, np.cumsum(x))}


def assert_exact(found, wanted):
    h.assert_same_bits(gj.trees.map(np.asarray, found), gj.trees.map(device.host, wanted))


every_way = pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])
every_size = pytest.mark.parametrize("chunk_size", [None, 1, 5])


@every_way
@every_size
@pytest.mark.parametrize("f", [f, both, lambda x: np.sin(x) * x, lambda x: x.sum(), lambda x: x[:0]])
def test_host_gives_numpy_arrays_with_the_bits_of_the_device(f, transform, chunk_size):
    wanted = transform(f, chunk_size=chunk_size)(XD)
    found = transform(f, chunk_size=chunk_size, out="host")(XD)
    assert all(type(x) is np.ndarray for x in h.leaves(found))
    assert_exact(found, wanted)


MADE = {
    "C order": lambda x: np.full(x.shape, np.nan, x.dtype),
    "strided": strided,
    "slices": lambda x: Store(x.shape, x.dtype),
}


@every_way
@every_size
@pytest.mark.parametrize("made", list(MADE.values()), ids=list(MADE))
def test_given_arrays_of_the_host_are_filled(made, transform, chunk_size):
    wanted = transform(both, chunk_size=chunk_size)(XD)
    out = gj.trees.map(made, wanted)
    assert transform(both, chunk_size=chunk_size, out=out)(XD) is out
    assert_exact(out, wanted)


@every_way
@every_size
@pytest.mark.parametrize("order", ["C", "F"])
def test_given_arrays_of_the_device_are_filled_there(order, transform, chunk_size):
    wanted = transform(both, chunk_size=chunk_size, assembly="preallocate")(XD)
    xp = device.BACKEND.xp
    out = gj.trees.map(lambda x: xp.asarray(np.full(x.shape, np.nan, order=order), order=order), wanted)
    run = transform(both, chunk_size=chunk_size, out=out)
    assert run(XD) is out
    assert_exact(gj.trees.map(device.host, out), wanted)
    if emulated is not None:
        with emulated.counting() as n:
            run(XD)
        assert (n.syncs, n.steps, n.downloaded_bytes) == (0, [], 0)


def test_conjugates_hessians_and_float32():
    z = device.array(X + 0.5j)
    g = lambda z: np.sin(WD @ z) * 1j
    assert_exact(gj.jacrev(g, holomorphic=True, out="host")(z), gj.jacrev(g, holomorphic=True)(z))
    energy = lambda x: (np.sin(x) * x).sum()
    assert_exact(gj.hessian(energy, out="host")(XD), gj.hessian(energy)(XD))
    x = device.array(X.astype("f4"))
    for transform in (gj.jacrev, gj.jacfwd, gj.jacobian):
        assert_exact(transform(f, out="host")(x), transform(f)(x))


# ---------------------------------------------------------------- what it costs, counted


@counted
@every_way
def test_a_chunk_is_copied_while_the_next_one_is_computed(transform):
    run = transform(f, chunk_size=2, out="host")
    run(XD)
    with emulated.counting() as n:
        J = run(XD)
    chunks = 6 if transform is gj.jacrev else 3
    names = [name for name, _ in n.steps if name != "buffer"]
    copy, wait = ["follow", "copy", "mark"], ["wait"]
    assert names == ["stream", *copy, *(copy + wait) * (chunks - 1), *wait]  # the wait is for the copy before
    assert [name for name, _ in n.steps].count("buffer") == 2
    assert n.syncs == chunks  # none per row
    assert n.downloaded_bytes == J.nbytes
    # between two waits a whole sweep was launched: the device has work while the host waits
    launches = [count for name, count in n.steps if name == "wait"]
    assert all(b > a for a, b in pairwise(launches[:-1]))


@counted
def test_copies_cost_no_launches_in_reverse_mode_and_one_for_each_turned_block_forward():
    with emulated.counting() as on_device:
        gj.jacrev(f, chunk_size=4)(XD)
    with emulated.counting() as to_host:
        gj.jacrev(f, chunk_size=4, out="host")(XD)
    copies = on_device.by_name.get("setitem", 0) + on_device.by_name.get("zeros", 0)
    assert to_host.launches == on_device.launches - copies  # what wrote the chunks into a result of the device


@counted
def test_of_a_diagonal_only_the_values_are_copied():
    x = device.array(np.linspace(0.0, 1.0, 100))
    with emulated.counting() as n:
        J = gj.jacrev(np.sin, out="host")(x)
    np.testing.assert_array_equal(J, np.diag(np.cos(device.host(x))))
    assert n.downloaded_bytes == 100 * 8


@counted
def test_what_is_read_before_it_has_arrived_is_poison():
    fetch = importlib.import_module("gpujac.backends.fetch")
    fetcher = fetch.Fetcher(importlib.import_module("gpujac.backends.emulated_stream").EmulatedLane())
    x = device.array(X) * 1.0
    parcel = fetcher.send([x, WD])
    early = [a.copy() for a in parcel._arrays]
    assert all(np.isnan(a).all() for a in early)
    assert_exact(parcel.wait(), [x, WD])
    again = fetcher.send([x[:0], x.reshape(5, 1), WD.T])  # empty, a view, and one that lies in another order
    assert_exact(again.wait(), [x[:0], x.reshape(5, 1), WD.T])
    assert_exact(parcel.wait(), [x, WD])  # good until the second `send` after theirs


@counted
def test_an_array_must_live_until_its_copy_is_done():
    lane = importlib.import_module("gpujac.backends.emulated_stream").EmulatedLane()
    x = device.array(X) * 1.0
    lane.follow()
    lane.copy(x, lane.buffer(X.nbytes).view(float))
    mark = lane.mark()
    del x
    with pytest.raises(BackendError, match="dropped before its copy"):
        lane.wait(mark)


@counted
def test_the_report_has_the_high_water_mark_of_the_device():
    plans, marks = [], []
    for out in (None, "host"):
        gj.jacrev(f, chunk_size=2, out=out, report=plans.append)(XD)
        before, after = plans[-2:]
        assert (before.peak_bytes, after) == (None, before._replace(peak_bytes=after.peak_bytes))
        marks.append(after.peak_bytes)
    assert marks[0] >= W.nbytes > marks[1] >= 2 * 2 * X.nbytes  # with the result, and with two chunks of it


# ---------------------------------------------------------------- when it goes wrong


@counted
def test_out_of_memory_halves_the_chunk_and_what_was_on_its_way_arrives():
    x = device.array(np.linspace(0.1, 1.0, 200))
    matrix = device.array(np.sin(np.arange(40_000.0)).reshape(200, 200))
    g = lambda x: np.tanh(matrix @ np.sin(matrix @ x))
    wanted = device.host(gj.jacrev(g)(x))
    plans = []
    with emulated.memory_limit(2 * matrix.nbytes + 150 * 200 * 8):  # two residuals; the result alone takes 200
        J = gj.jacrev(g, chunk_size=100, out="host", report=plans.append)(x)
    assert plans[-1].chunk_size < 100
    assert plans[-1].peak_bytes <= 150 * 200 * 8
    np.testing.assert_allclose(J, wanted, atol=1e-12)


def test_rows_on_their_way_arrive_before_the_error_leaves(tmp_path):
    calls = []
    stopping = gj.custom_vjp(lambda x: x * 1.0)

    def backward(kept, ct):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("stopped")
        return (ct * 1.0,)

    stopping.defvjp(lambda x: (x * 1.0, ()), backward)
    g = lambda x: f(stopping(x))
    out = np.full((12, 5), np.nan)
    run = gj.jacrev(g, chunk_size=4, out=out, resume=tmp_path / "rows")
    with pytest.raises(OSError, match="stopped") as caught:
        run(XD)
    assert "8 of 12 rows of the Jacobian are in out" in caught.value.__notes__[0]
    wanted = device.host(gj.jacrev(f, chunk_size=4)(XD))
    np.testing.assert_array_equal(out[:8], wanted[:8])
    assert np.isnan(out[8:]).all()
    run(XD)
    np.testing.assert_array_equal(out, wanted)
    assert len(calls) == 4


def test_arrays_of_two_places_are_refused():
    xp = device.BACKEND.xp
    g = lambda x: (np.sin(x), f(x))
    with pytest.raises(BackendError, match="arrays of the host and of a device"):
        gj.jacrev(g, out=(np.empty((5, 5)), xp.empty((12, 5))))(XD)
    with pytest.raises(BackendError, match="but the Jacobian is one of numpy; give the arguments as"):
        gj.jacrev(np.sin, out=xp.empty((5, 5)))(X)
    with pytest.raises(ShapeError, match="the block of the Jacobian has"):
        gj.jacrev(f, out=xp.empty((11, 5)))(XD)


def test_device_memory_that_is_read_is_refused():
    both = device.array(np.zeros((6, 5)))
    with pytest.raises(ArgumentError, match="shares memory with an argument"):
        gj.jacrev(np.sin, out=both[1:])(both[2])
    gj.jacrev(np.sin, out=both[1:])(both[0])
    big = device.array(np.ones((700, 400)))
    with pytest.raises(ArgumentError, match="shares memory with an array that f reads"):
        gj.jacrev(lambda x: big[:400] @ x, out=big[300:])(device.array(np.ones(400)))


def test_under_another_transform_it_is_refused():
    with pytest.raises(MutationError, match="traces this Jacobian"):
        gj.vmap(gj.jacrev(f, out="host"))(device.array(np.stack([X, X])))
