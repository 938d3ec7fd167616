"""Where CuPy would be silently wrong with a foreign array: each hazard is right, or an error."""

import operator

import numpy as np
import pytest

import gpujac as gj
from tests import device

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)

import cupy as cp
import cupyx
import cupyx.scipy.special as special

from gpujac.array.namespace import module_of, names_over

CP = module_of("cupy", names_over(device.BACKEND.xp))  # gpujac.cupy over the arrays of the tests
X = np.array([[0.3, 0.7], [1.2, 0.4]])
A = device.array(np.array([[0.3, 2.0], [1.0, 0.4]]))


def jvp(f, x=X):
    """Value and tangent in the direction `x`, as NumPy arrays."""
    y, dy = gj.jvp(f, (device.array(x),), (device.array(x),))
    return device.host(y), device.host(dy)


def traced():
    """A traced array whose transform has ended: good for asking what it is."""
    seen = []
    gj.jvp(lambda x: (seen.append(x), x)[1], (A,), (A,))
    return seen[0]


# 1. A cupy array compares by identity with an object whose class has no ==.
def test_comparing_with_a_cupy_array_compares_entries():
    def f(x):
        same = [[True, False], [False, True]]
        for pair in ((A, x), (x, A)):
            assert device.host(operator.eq(*pair)).tolist() == same
            assert device.host(operator.ne(*pair)).tolist() == [[False, True], [True, False]]
        assert device.host(cp.equal(A, x)).tolist() == [[True, False], [False, True]]
        assert device.host(operator.lt(A, x)).tolist() == [[False, False], [True, False]]
        return x

    jvp(f)


# 2. `a += traced` calls the hook with a third argument, the output, and ignores what comes back.
@pytest.mark.parametrize("write", ["a += x", "a *= x", "cp.add(a, x, a)", "cp.add(a, x, out=a)", "np.add(a, x, out=a)"])
def test_writing_into_a_plain_cupy_array_names_the_cure(write):
    a = A.copy()
    with pytest.raises(gj.MutationError, match=r"zeros_like.*or write x = x"):
        jvp(lambda x: (exec(write, {"cp": cp, "np": np, "a": a, "x": x}), x)[1])
    np.testing.assert_array_equal(device.host(a), device.host(A))


def test_writing_into_a_traced_array_works_by_every_spelling():
    def f(x):
        y = x * 0.0
        cp.add(x, 1.0, y)
        cp.multiply(y, x, out=y)
        y += A
        CP.matmul(y, A @ A.T, out=y)
        np.add(y, x, out=y)
        cp.add.at(y, 0, x[1])
        cupyx.scatter_add(y, (slice(None), 1), 2.0)
        cp.subtract.at(y, 1, x[0])
        return y

    def numpys(x):
        a = device.host(A)
        y = ((x + 1.0) * x + a) @ (a @ a.T) + x
        y[0] += x[1]
        y[:, 1] += 2.0
        y[1] -= x[0]
        return y

    y, dy = jvp(f)
    np.testing.assert_allclose(y, numpys(X), rtol=1e-14)
    np.testing.assert_allclose(dy, (numpys(X * (1 + 1e-6)) - numpys(X * (1 - 1e-6))) / 2e-6, rtol=1e-7)
    with pytest.raises(gj.DispatchError, match="max"):
        jvp(lambda x: (cp.maximum.at(x, 0, 1.0), x)[1])


# 3. A kernel of the user's that fills an output array would leave it as it is.
@pytest.mark.parametrize("given", ["(x)", "(x, a)", "(a, x)", "(x, size=4)"])
def test_an_elementwise_kernel_raises(given):
    kernel = cp.ElementwiseKernel("T x", "T y", "y = x", "mine")
    with pytest.raises(gj.DispatchError, match=r"mine: .*CUDA C\+\+.*gpujac\.cupy.*gpujac\.value"):
        jvp(lambda x: eval(f"kernel{given}", {"kernel": kernel, "x": x, "a": A.copy()}))


def test_piecewise_raises_in_our_namespace():
    with pytest.raises(gj.DispatchError, match=r"cupy\.piecewise"):
        jvp(lambda x: CP.piecewise(x, [x > 0], [1.0]))


# 4. CuPy's broadcast_arrays hands foreign arrays back as they are.
def test_broadcast_arrays_broadcasts_in_our_namespace_and_numpys():
    for xp in (CP, np):
        y, dy = jvp(lambda x, xp=xp: xp.broadcast_arrays(x[0], A)[0] * A)
        np.testing.assert_allclose(y, X[0] * device.host(A))
        np.testing.assert_allclose(dy, X[0] * device.host(A))
    assert jvp(lambda x: cp.broadcast_arrays(x[0], A)[0])[0].shape == (2,)  # what CuPy itself does


# 5. zeros_like of CuPy gives a plain array, into which a traced value cannot go.
def test_a_traced_value_stored_into_a_plain_buffer_names_the_cure():
    def f(x):
        buffer = device.array(np.zeros((2, 2)))
        buffer[0] = x[0]
        return buffer

    with pytest.raises(gj.MutationError, match=r"plain CuPy array.*np\.zeros_like\(u\).*gpujac\.cupy\.zeros"):
        jvp(f)


@pytest.mark.parametrize("make", ["cp.zeros_like(x)", "cp.zeros(x.shape)", "np.zeros_like(x)", "cp.full_like(x, 0.0)"])
def test_our_buffers_take_traced_values_also_under_vmap(make):
    def f(x):
        buffer = eval(make, {"cp": CP, "np": np, "x": x})
        buffer[0] = x[1] ** 2
        return buffer

    want = np.array([X[1] ** 2, [0.0, 0.0]])
    y, dy = jvp(f)
    np.testing.assert_allclose(y, want)
    np.testing.assert_allclose(dy, 2 * want)
    lanes = gj.vmap(f)(device.array(np.stack([X, 2 * X])))
    np.testing.assert_allclose(device.host(lanes), np.stack([want, 4 * want]))


# 6. get_array_module says numpy for a foreign array; NumPy's protocols then serve it.
def test_code_that_asks_get_array_module_works():
    def f(x):
        xp = cp.get_array_module(x)
        assert xp is np
        return xp.concatenate([xp.sin(x), A]) @ xp.linalg.solve(A, x)

    y, dy = jvp(f)
    a = device.host(A)
    numpys = lambda x: np.concatenate([np.sin(x), a]) @ np.linalg.solve(a, x)
    np.testing.assert_allclose(y, numpys(X), rtol=1e-12)
    np.testing.assert_allclose(dy, (numpys(X * (1 + 1e-6)) - numpys(X * (1 - 1e-6))) / 2e-6, rtol=1e-7)


# 7. A fused function takes traced arrays, but not beside CuPy's.
def test_a_fused_function_is_differentiated():
    y, dy = jvp(cp.fuse(lambda x: cp.sin(x) * 2))
    np.testing.assert_allclose((y, dy), (2 * np.sin(X), 2 * np.cos(X) * X))
    for fuse in (CP.fuse, CP.fuse(), CP.fuse(kernel_name="mine")):
        y, dy = jvp(lambda x, fuse=fuse: fuse(lambda x, a: x * a)(x, A))
        np.testing.assert_allclose((y, dy), (X * device.host(A),) * 2)
    with pytest.raises(TypeError) as info:
        jvp(lambda x: cp.fuse(lambda x, a: x * a)(x, A))
    assert "import gpujac.cupy as cp" in info.value.__notes__[0]


# 8. sort, partition and logsumexp work in place on a copy of the object.
def test_functions_that_work_in_place_on_a_copy_leave_the_argument_alone():
    def f(x):
        y = cp.sort(x, axis=1)[:, ::-1] + cp.partition(x, 1)
        assert device.host(gj.value(x)).tolist() == X.tolist()
        return y * special.logsumexp(x, axis=0)

    numpys = lambda x: (np.sort(x, 1)[:, ::-1] + np.sort(x, 1)) * np.log(np.sum(np.exp(x), 0))
    y, dy = jvp(f)
    np.testing.assert_allclose(y, numpys(X), rtol=1e-13)
    np.testing.assert_allclose(dy, (numpys(X * (1 + 1e-6)) - numpys(X * (1 - 1e-6))) / 2e-6, rtol=1e-7)


# 9. cp.matmul checks its arguments in compiled code.
def test_products_work_and_matmul_names_the_cure():
    a = device.host(A)
    for f in (lambda x: A @ x, lambda x: np.matmul(A, x), lambda x: CP.matmul(A, x), lambda x: cp.dot(x.T, A.T).T):
        y, dy = jvp(f)
        np.testing.assert_allclose((y, dy), (a @ X, a @ X))
    with pytest.raises(TypeError) as info:
        jvp(lambda x: cp.matmul(A, x))
    assert "cupy.matmul met a traced array" in info.value.__notes__[0]


# 10. Values asked by Python: data-dependent control flow.
@pytest.mark.parametrize("ask", ["float(x[0, 0])", "complex(x[0, 0])", "np.asarray(x)", "cp.asnumpy(x)", "x.get()"])
def test_what_would_lose_the_derivative_raises(ask):
    with pytest.raises(gj.ConcretizationError, match=r"gpujac\.value"):
        jvp(lambda x: eval(ask, {"x": x, "np": np, "cp": cp}))


@pytest.mark.parametrize("ask", ["bool(x[0])", "int(x[0])", "[1, 2][x[0]]", "x.get()", "float(x[0])"])
def test_under_vmap_every_value_asked_raises(ask):
    with pytest.raises((gj.ConcretizationError, TypeError)) as info:
        gj.vmap(lambda x: eval(ask, {"x": x}))(device.array(np.array([[1, 2], [0, 1]])))
    assert isinstance(info.value, gj.ConcretizationError) or "integer" in str(info.value)


def test_item_gives_the_number_with_a_warning():
    with pytest.warns(UserWarning, match=r"x\.item\(\) of a traced array drops its derivative"):
        y, dy = jvp(lambda x: x * x[1, 0].item())
    np.testing.assert_allclose((y, dy), (1.2 * X, 1.2 * X))


def test_the_value_decides_branches_outside_vmap():
    y, dy = jvp(lambda x: x * 2 if x[0, 0] > 0 and int(x[1, 0]) == 1 else x)
    np.testing.assert_allclose((y, dy), (2 * X, 2 * X))
    assert cp.isscalar(traced()) is False


# Protocols through which CuPy would take the values without a word.
@pytest.mark.parametrize(
    "name", ["__cuda_array_interface__", "__cupy_get_ndarray__", "__dlpack__", "__dlpack_device__", "data", "ptr"]
)
def test_a_traced_array_has_no_way_out_for_its_values(name):
    with pytest.raises(AttributeError):
        getattr(traced(), name)


def test_memory_order_is_told_for_arrays_made_alike():
    x = traced()
    assert (x.flags.c_contiguous, x.flags.f_contiguous, x.flags.fnc, x.flags.forc) == (True, False, False, True)
    assert x.strides == (16, 8)
    assert isinstance(x, gj.core.trace.Tracer)


# Options of CuPy's ufuncs and reductions.
def test_options_of_ufuncs_are_followed():
    y, dy = jvp(lambda x: cp.add(x, A, dtype=np.float32))
    assert (y.dtype, dy.dtype) == (np.float32, np.float32)
    y, _ = jvp(lambda x: cp.multiply(x, 2, casting="same_kind"))
    np.testing.assert_array_equal(y, 2 * X)
    for options, name in (({"order": "C"}, None), ({"nothing": 1}, "nothing")):
        if name is not None:
            with pytest.raises(gj.DispatchError, match=f"{name}= is not supported"):
                jvp(lambda x, options=options: cp.add(x, A, **options))


def test_options_of_reductions_are_followed():
    y, dy = jvp(lambda x: cp.nanmax(x, axis=1, keepdims=True))
    np.testing.assert_allclose(y, X.max(1, keepdims=True))
    np.testing.assert_allclose(dy, X.max(1, keepdims=True))
    y, dy = jvp(lambda x: cp.linalg.norm(x, axis=1, keepdims=True))
    np.testing.assert_allclose(y, np.linalg.norm(X, axis=1, keepdims=True))
    with pytest.raises(gj.MutationError, match="out="):
        jvp(lambda x: cp.nanmin(x, axis=0, out=A[0].copy()))


def test_methods_take_cupys_positional_arguments():
    def f(x):
        parts = [x.sum(0, None, None, True), x.mean(1, None, None, True).T, x.max(0, None, True)]
        parts += [x.prod(0, None, None, True)]
        parts += [x.std(0, None, None, 1, True), x.take(x.argmax(1, None, np.int32), 1), x.clip(0.1, 1.0)]
        return np.concatenate([np.reshape(p, -1) for p in parts])

    def numpys(x):
        parts = [x.sum(0, keepdims=True), x.mean(1, keepdims=True).T, x.max(0, keepdims=True), x.prod(0, keepdims=True)]
        parts += [x.std(0, ddof=1, keepdims=True), x.take(x.argmax(1), 1), x.clip(0.1, 1.0)]
        return np.concatenate([np.reshape(p, -1) for p in parts])

    y, dy = jvp(f)
    np.testing.assert_allclose(y, numpys(X), rtol=1e-13)
    np.testing.assert_allclose(dy, (numpys(X * (1 + 1e-6)) - numpys(X * (1 - 1e-6))) / 2e-6, rtol=1e-6, atol=1e-9)
    y, _ = jvp(lambda x: x.astype(np.float32, "K", None, None, True))
    assert y.dtype == np.float32
