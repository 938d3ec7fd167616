"""CuPy's backend as far as it shows without a GPU: choice, mixed operands, devices, launches, memory."""

import threading

import numpy as np
import pytest

import gpujac as gj
from tests import device

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)

import cupy as cp

from gpujac.backends import choose
from gpujac.backends import cupy as owner
from gpujac.backends import emulated as em
from gpujac.backends.kernels import Kernel

X = np.array([1.0, 2.0, 3.0])
KERNEL = Kernel('extern "C" __global__ void nothing(const double* x) {}', "nothing")


def plain_cupy_array():
    """A cupy.ndarray proper, over host memory: enough to ask which backend owns it."""
    a = X.copy()
    memory = cp.cuda.memory.UnownedMemory(a.ctypes.data, a.nbytes, a, 0)
    return cp.ndarray(a.shape, a.dtype, cp.cuda.memory.MemoryPointer(memory, 0))


def test_cupy_arrays_belong_to_the_cupy_backend(monkeypatch):
    monkeypatch.setattr(owner, "_device_count", lambda: 1)  # asking needs a driver
    x = plain_cupy_array()
    assert choose.backend_of(x) is owner.BACKEND is choose.load("cupy")
    assert choose.backend_of(x[1:]).name == "cupy"
    assert choose.is_array(x)
    assert choose.common_backend((x, 2.0, np.float32(1), x)) is owner.BACKEND


@pytest.mark.parametrize("f", [
    lambda x, a: x * a, lambda x, a: a + x, lambda x, a: np.stack([x, a]), lambda x, a: a @ x, lambda x, a: x.dot(a),
    lambda x, a: np.concatenate([x, a]), lambda x, a: np.where(a > 1, x, 0.0), lambda x, a: np.maximum(x, a),
])  # fmt: skip
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.vmap])
def test_numpy_and_cupy_operands_in_one_operation_are_an_error_with_a_cure(f, transform):
    x = em.array(np.stack([X, X]) if transform is gj.vmap else X)
    with pytest.raises(gj.BackendError, match=r"numpy \(.*3,?\) and emulated|emulated .*and numpy \(.*3,?\)") as caught:
        transform(lambda x: f(x, X))(x)
    assert "cupy.asarray" in str(caught.value)
    assert "gpujac.cupy" in str(caught.value)


def test_a_plain_cupy_array_beside_a_traced_numpy_one_is_an_error():
    with pytest.raises(gj.BackendError, match=r"numpy \(3,\) and cupy \(3,\)"):
        gj.jvp(lambda x: x * plain_cupy_array(), (X,), (X,))


def test_numbers_mix_with_everything():
    x = em.array(X)
    J = gj.jacrev(lambda x: (x * 2 + np.float64(1)) ** 2 / np.int64(4) - 1.5 * x)(x)
    np.testing.assert_allclose(em.host(J), np.diag((2 * X + 1) - 1.5))


def test_arrays_of_two_devices_are_an_error_that_names_both():
    x = em.array(X)
    with em.device(1):
        y = em.array(X)
        assert y.device.id == 1
        for transform in (gj.jacrev, gj.jacfwd, gj.grad):
            with pytest.raises(gj.BackendError, match=r"device 1 \(3,\) and device 0 \(3,\).*Device\(1\)"):
                transform(lambda y: (y * x).sum())(y)
        with pytest.raises(gj.BackendError, match=r"device 1 \(3,\) and device 0 \(3,\).*Device\(1\)"):
            gj.jvp(lambda y: y * x, (y,), (y,))
        with pytest.raises(gj.BackendError, match="two devices"):
            gj.vjp(lambda a, b: a, x, y)
        with pytest.raises(gj.BackendError, match="two devices"):
            gj.vmap(lambda a, b: a)(x, y)
        assert gj.grad(lambda y: (y * y).sum())(y).device.id == 1  # results live where operands live


def test_an_array_of_another_device_than_the_current_one_is_an_error_with_the_cure():
    x = em.array(X)
    with em.device(1):
        for transform in (gj.jacrev(np.sin), gj.vmap(np.sin), gj.grad(lambda x: x.sum())):
            with pytest.raises(gj.BackendError, match=r"is on device 0, but the current device is 1.*Device\(0\)"):
                transform(x)
    assert gj.jacrev(np.sin)(x).shape == (3, 3)


class Recorder:
    """Stands for cupy.RawKernel: notes how it was made and called."""

    made: list = []  # noqa: RUF012 (emptied by each test)

    def __init__(self, code, name):
        self.code, self.name, self.calls = code, name, []
        Recorder.made.append(self)

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))


@pytest.fixture
def recorder(monkeypatch):
    Recorder.made = []
    owner._raw.cache_clear()
    monkeypatch.setattr(owner.cupy, "RawKernel", Recorder)
    yield Recorder
    owner._raw.cache_clear()


def test_a_kernel_is_made_once_and_launched_on_the_stream_of_the_moment(recorder):
    x = plain_cupy_array()
    for _ in range(3):
        owner.BACKEND.launch(KERNEL, (2,), (32,), (x, np.int64(3)), 8)
    (made,) = recorder.made
    assert (made.code, made.name) == (KERNEL.source, "nothing")
    for args, kwargs in made.calls:
        # no stream is named: CuPy takes the current one of this thread and device
        assert args == ((2,), (32,), (x, np.int64(3)))
        assert kwargs == {"shared_mem": 8}


def test_threads_share_the_kernel_and_launch_in_their_own_name(recorder):
    def work():
        owner.BACKEND.launch(KERNEL, (1,), (1,), (plain_cupy_array(),))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    calls = [call for made in recorder.made for call in made.calls]
    assert len(calls) == 8


def test_a_kernel_that_does_not_compile_is_a_kernel_error(monkeypatch):
    def broken(kernel):
        raise cp.cuda.compiler.CompileException("line 1: no", kernel.source, "k.cu", ())

    monkeypatch.setattr(owner, "_raw", broken)
    with pytest.raises(gj.errors.KernelError, match=r"nothing does not compile.*line 1: no.*kernels = \"off\""):
        owner.BACKEND.launch(KERNEL, (1,), (1,), ())


def test_free_memory_counts_the_pool(monkeypatch):
    monkeypatch.setattr(owner.cupy.cuda.runtime, "memGetInfo", lambda: (1000, 5000))
    monkeypatch.setattr(owner.cupy, "get_default_memory_pool", lambda: type("P", (), {"free_bytes": lambda self: 24})())
    assert owner.BACKEND.memory_free_bytes() == 1024


def test_an_old_cupy_is_refused(monkeypatch):
    monkeypatch.setattr(owner.cupy, "__version__", "13.6.0")
    with pytest.raises(gj.BackendError, match=r"13\.6\.0 is older"):
        owner._checked_version()


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_kernels_and_the_plain_path_agree(kernels, rng):
    x, index = rng.standard_normal((4, 5, 3)), rng.integers(-5, 5, (2, 3))
    taken = lambda i: lambda x: np.take(x, i, 1) ** 2
    with gj.settings.override(kernels=kernels), em.counting() as n:
        y, pullback = gj.vjp(taken(em.array(index)), em.array(x))
        (found,) = pullback(y)
    wanted, plain = gj.vjp(taken(index), x)
    np.testing.assert_allclose(em.host(found), plain(wanted)[0])
    ours = [name for name in n.by_name if name.startswith("gj_") or "gather" in name or "scatter" in name]
    assert bool(ours) == (kernels == "auto")
    assert n.syncs == 0


def test_what_a_constant_was_is_what_the_derivative_uses():
    """A small work buffer of CuPy's that the function writes again later."""
    buffer = em.array(X)

    def f(x):
        buffer[...] = em.array([1.0, 2.0, 3.0])
        y = x * buffer
        buffer[...] = 0
        return y

    np.testing.assert_allclose(em.host(gj.jacrev(f)(em.array(X))), np.diag([1.0, 2.0, 3.0]))


def test_results_share_no_memory_with_inputs_or_constants():
    x, w = em.array(X), em.array(X)
    for f in (lambda x: x, lambda x: x.T, lambda x: w, lambda x: x.reshape(3, 1), lambda x: x[::-1]):
        y, pullback = gj.vjp(f, x)
        (ct,) = pullback(y)
        for found in (y, ct):
            assert found.flags.c_contiguous
            for other in (x, w):
                assert not np.may_share_memory(em.host(found), em.host(other))


@pytest.mark.parametrize("take", [
    lambda y: y.T.reshape(6), lambda y: y.reshape(6), lambda y: y.T.ravel(), lambda y: y[::-1].reshape(3, 2),
    lambda y: y.T, lambda y: y[:, 1:], lambda y: y.ravel(),
])  # fmt: skip
def test_writes_through_what_was_taken_go_where_cupy_lets_them(take):
    """A reshape is a view or a copy by the layout in device memory, also under a batch."""

    def f(y):
        y = y * 1.0
        part = take(y)
        part[0] = 100.0
        return y

    x = np.arange(6.0).reshape(2, 3)
    wanted = f(x.copy())
    assert np.array_equal(em.host(gj.vjp(f, em.array(x))[0]), wanted)
    assert np.array_equal(em.host(f(em.array(x))), wanted)
    found = gj.vmap(f, in_dims=2, out_dims=2)(em.array(np.stack([x, x + 1], -1)))
    assert np.array_equal(em.host(found), np.stack([wanted, f(x + 1)], -1))


def test_points_of_two_libraries_are_an_error_that_names_both():
    x = em.array(X)
    for f in (lambda a, b: (a * 2, b * np.sin(b)), lambda a, b: a * 2):
        for transform in (gj.jacrev, gj.jacfwd):
            for points, one, other in (((x, X), "emulated", "numpy"), ((X, x), "numpy", "emulated")):
                named = rf"args\[0\] is an array of {one} and args\[1\] one of {other}"
                with pytest.raises(gj.BackendError, match=named):
                    transform(f, (0, 1))(*points)
    J = gj.jacrev(lambda a, s: a * s, (0, 1))(x, 2.0)  # numbers belong to everybody
    assert np.array_equal(em.host(J[1]), X)
