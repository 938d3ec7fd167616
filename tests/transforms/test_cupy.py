"""What is special about CuPy arrays in the transforms: types, waits, copies, devices, mixed libraries.

The other tests of the transforms run on CuPy arrays in test_cupy_again.py.
"""

import gc
import importlib
import tracemalloc
from functools import partial

import numpy as np
import optree
import pytest

import gpujac as gj
from tests import device
from tests.twin import LIBRARY, fetched, twin

if device.MISSING:
    pytest.skip(reason=device.MISSING, allow_module_level=True)

cp = LIBRARY
h = twin("tests.transforms.helpers")
pairs = twin("tests.transforms.test_pairs")
emulated = importlib.import_module("gpujac.backends.emulated") if device.NAME == "emulated" else None
counted = pytest.mark.skipif(emulated is None, reason="only the emulated backend counts")
X = cp.array([0.3, 1.1, -0.7])
W = cp.linspace(-1.0, 1.0, 9).reshape(3, 3)


@pytest.fixture(autouse=True, params=device.KERNELS)
def kernels(request):
    """What CuPy does by itself, and our kernels."""
    with gj.settings.override(kernels=request.param):
        yield


def network(x):
    """Products, an elementwise chain, a reduction, a gather and a write."""
    y = cp.zeros_like(x)
    y[1:] = cp.tanh(W @ x)[:-1] * x[[0, 2]]
    return y + cp.sin(x) * x.sum()


CALLS = {
    "vjp": lambda f, x: (lambda y, pullback: (y, pullback(y)))(*gj.vjp(f, x)),
    "jvp": lambda f, x: gj.jvp(f, (x,), (x,)),
    "linearize": lambda f, x: (lambda y, linear: (y, linear(x)))(*gj.linearize(f, x)),
    "linear_transpose": lambda f, x: gj.linear_transpose(gj.linearize(f, x)[1], x)(x),
    "grad": lambda f, x: gj.value_and_grad(lambda x: f(x).sum())(x),
    "jacrev": lambda f, x: gj.jacrev(f, chunk_size=2)(x),
    "jacrev, stacked": lambda f, x: gj.jacrev(f, chunk_size=1, assembly="stack")(x),
    "jacfwd": lambda f, x: gj.jacfwd(f)(x),
    "hessian": lambda f, x: gj.hessian(f, chunk_size=2)(x),
    "vmap": lambda f, x: gj.vmap(f)(x[None].repeat(2, axis=0)),
    "vmap of jacfwd": lambda f, x: gj.vmap(gj.jacfwd(f))(x[None].repeat(2, axis=0)),
    "jacrev of vmap": lambda f, x: gj.jacrev(gj.vmap(f, chunk_size=1))(x[None].repeat(2, axis=0)),
}
every_call = pytest.mark.parametrize("name", list(CALLS))


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("outer", list(pairs.APPLY))
def test_every_result_is_an_array_of_the_device_0_d_included(outer):
    for f in (lambda q: pairs.f(q["p"], q["c"]), lambda q: q["p"]["a"].sum() * q["p"]["b"]):
        found = h.leaves(pairs.APPLY[outer](f, pairs.Q, 2))
        assert [type(x) for x in found] == [device.TYPE] * len(found)
        if outer in ("vjp", "jvp", "linearize", "linear_transpose", "grad"):
            assert any(x.ndim == 0 for x in found)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
@every_call
def test_dtypes_are_kept(name, dtype):
    x = (X + (0.2j * X if dtype in ("c8", "c16") else 0)).astype(dtype)
    f = lambda x: x * x * 0.5 + cp.sin(x)[::-1]
    if dtype in ("c8", "c16") and name not in ("vjp", "jvp", "linearize", "linear_transpose", "vmap"):
        with pytest.raises(gj.DTypeError, match="complex"):
            CALLS[name](f, x)
        return
    assert {str(leaf.dtype) for leaf in h.leaves(CALLS[name](f, x))} == {str(x.dtype)}


@every_call
def test_results_share_no_memory_with_inputs_and_constants(name):
    constant = cp.ones(3)
    for f in (lambda x: x, lambda x: x[::-1] * 1.0, lambda x: x * constant, lambda x: x + constant):
        x = X.copy()
        h.assert_owned(CALLS[name](f, x), (x, constant))
    assert cp.asnumpy(constant).tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", [float, np.float64, np.float32])
def test_a_python_number_as_the_point_goes_with_arrays_of_the_device(kind):
    f = lambda s: cp.exp(s * X) * s + W
    s, wanted = kind(0.5), X * cp.exp(0.5 * X) * 0.5 + cp.exp(0.5 * X) + cp.zeros((3, 1))
    for found in (gj.jacrev(f)(s), gj.jacfwd(f)(s), gj.jvp(f, (s,), (1.0,))[1], gj.linearize(f, s)[1](1.0)):
        assert type(found) is device.TYPE
        cp.testing.assert_allclose(found, wanted, rtol=1e-5)
    curve = gj.hessian(lambda s: f(s).sum())(s)
    cp.testing.assert_allclose(curve, 3 * (cp.exp(0.5 * X) * (2 * X + 0.5 * X**2)).sum(), rtol=1e-5)
    cp.testing.assert_allclose(gj.vmap(f)(cp.array([0.5, 0.5]))[1], f(0.5))


def test_a_mixed_tree_of_numbers_and_arrays():
    f = lambda p: {"y": p["a"] * X * p["s"], "n": p["s"] ** 2}
    J = gj.jacrev(f)({"a": X, "s": 2.0})
    cp.testing.assert_allclose(J["y"]["a"], 2 * cp.diag(X))
    cp.testing.assert_allclose(J["y"]["s"], X * X)
    assert float(J["n"]["s"]) == 4.0
    assert type(J["n"]["a"]) is device.TYPE


def test_a_constant_output_of_vmap_lives_on_the_device():
    ones, lanes = gj.vmap(lambda x: (1.0, x * 2))(X)
    assert type(ones) is device.TYPE
    assert cp.asnumpy(ones).tolist() == [1, 1, 1]
    assert type(lanes) is device.TYPE
    assert type(gj.vmap(lambda x: 1.0, method="loop")(X)) is device.TYPE


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_a_block_that_no_lane_changes_lives_on_the_device_too(chunk_size):
    # found by seed 24 of the random programs: the second output is linear, so its rows are numbers only
    f = lambda x: (cp.log1p(x * x), x * 1.5 - 2)
    found = gj.vmap(gj.jacfwd(f, chunk_size=chunk_size))(cp.ones((2, 3)))
    assert [type(block) for block in found] == [device.TYPE] * 2
    cp.testing.assert_allclose(found[1], cp.stack([1.5 * cp.eye(3)] * 2))


def test_a_mapped_index_reads_an_array_of_the_device():
    table, index = cp.arange(12.0).reshape(4, 3), cp.array([2, 0])
    found = gj.vmap(lambda t, i: t[i] * 2, in_dims=(None, 0))(table, index)
    cp.testing.assert_array_equal(found, 2 * table[index])


@every_call
def test_results_equal_numpys(name):
    def model(xp, weights):
        return lambda x: xp.tanh(weights @ x) * x[::-1] + xp.cumsum(x) * x.sum()

    found = fetched(CALLS[name](model(cp, W), X))
    wanted = CALLS[name](model(np, fetched(W)), fetched(X))
    assert optree.tree_structure(found) == optree.tree_structure(wanted)
    for a, b in zip(optree.tree_leaves(found), optree.tree_leaves(wanted), strict=True):
        assert np.shape(a) == np.shape(b)
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


# ---------------------------------------------------------------- waits, copies, launches


@counted
@every_call
def test_no_transform_waits_for_the_device(name):
    CALLS[name](network, X)  # caches are filled
    with emulated.counting() as n:
        CALLS[name](network, X)
    assert n.launches > 0
    assert n.syncs == 0


@counted
@pytest.mark.parametrize("make", [gj.vjp, gj.linearize])
def test_a_pullback_and_a_linear_map_copy_nothing_to_or_from_the_host(make):
    y, linear = make(network, X)
    linear(y)
    with emulated.counting() as n:
        linear(y)
    assert n.launches > 0
    assert (n.syncs, n.uploads) == (0, 0)


@counted
@pytest.mark.parametrize("name", ["vjp", "jvp", "jacrev", "jacfwd", "hessian", "linearize"])
def test_a_branch_on_a_value_waits_once(name):
    f = lambda x: x * 2 if x.sum() > 0 else x
    CALLS[name](f, X)
    with emulated.counting() as n:
        CALLS[name](f, X)
    assert n.syncs == 1


@counted
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
def test_a_chunk_takes_as_many_launches_whatever_its_rows(transform):
    weights = cp.linspace(-1.0, 1.0, 1600).reshape(40, 40)
    f = lambda x: cp.cumsum(cp.tanh(weights @ cp.sin(x)) * x)
    seen = []
    for rows in (2, 10, 40):
        call = partial(transform(f, chunk_size=rows, assembly="preallocate"), cp.ones(40))
        call()
        with emulated.counting() as n:
            call()
        seen.append((n.launches, 40 // rows))
    per_chunk = (seen[0][0] - seen[1][0]) / (seen[0][1] - seen[1][1])
    assert per_chunk == (seen[1][0] - seen[2][0]) / (seen[1][1] - seen[2][1])
    assert per_chunk <= 20


@counted
def test_a_sweep_holds_as_much_memory_for_a_deep_function_as_for_a_shallow_one():
    def peak_bytes(depth):
        def f(x):
            y = x
            for i in range(depth):
                y = cp.sin(y) + x if i % 3 else cp.cumsum(y)
            return y

        pullback = gj.vjp(f, x)[1]
        pullback(x)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            pullback(x)
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    x = cp.linspace(0.0, 1.0, 20_000)
    shallow, deep = peak_bytes(9), peak_bytes(60)
    assert deep <= 1.3 * shallow
    assert deep <= 9 * x.nbytes


def test_a_pullback_does_not_see_later_writes_into_primals_and_constants():
    c, x = cp.array([2.0, 3.0, 4.0]), cp.ones(3)
    _, pullback = gj.vjp(lambda x: c * x * x, x)
    _, linear = gj.linearize(lambda x: c * x * x, x)
    c[:], x[:] = 0.0, 100.0
    assert cp.asnumpy(pullback(cp.ones(3))[0]).tolist() == [4.0, 6.0, 8.0]
    assert cp.asnumpy(linear(cp.ones(3))).tolist() == [4.0, 6.0, 8.0]


def test_a_work_buffer_that_f_writes_into_again_is_read_as_it_was():
    buffer = cp.empty(3)

    def f(x):
        total = 0.0
        for k in range(3):
            buffer[:] = k
            total = total + (x * buffer).sum()
        return total

    assert cp.asnumpy(gj.grad(f)(cp.ones(3))).tolist() == [3.0, 3.0, 3.0]


# ---------------------------------------------------------------- what is refused

HOST = np.ones(3)
MIXED = {
    "in the function": lambda: gj.grad(lambda x: (x * HOST).sum())(X),
    "in the function, scalar by array": lambda: gj.jacrev(lambda x: x[0] * HOST)(X),
    "cotangent": lambda: gj.vjp(lambda x: x * 2, X)[1](HOST),
    "cotangent of a NumPy function": lambda: gj.vjp(lambda x: x * 2, HOST)[1](X),
    "tangent": lambda: gj.jvp(lambda x: x * 2, (X,), (HOST,)),
    "tangent of a linear map": lambda: gj.linearize(lambda x: x * 2, X)[1](HOST),
    "cotangent of a transpose": lambda: gj.linear_transpose(lambda x: x * 2, X)(HOST),
    "two arguments": lambda: gj.jacrev(lambda x, y: x * y, (0, 1))(X, HOST),
    "vmap": lambda: gj.vmap(lambda x, y: x * y)(X, HOST),
    "inside vmap of grad": lambda: gj.vmap(gj.grad(lambda x: (x * HOST).sum()))(cp.ones((2, 3))),
}


@pytest.mark.parametrize("where", list(MIXED))
def test_numpy_and_cupy_arrays_in_one_operation_are_refused(where):
    with pytest.raises(gj.BackendError, match=r"numpy \(3,\).*cupy\.asarray|cupy\.asarray.*numpy \(3,\)"):
        MIXED[where]()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: gj.vjp(lambda p: {"y": p["a"] * 2}, {"a": X})[1]({"y": HOST}), r"vjp: cotangent\['y'\]"),
        (lambda: gj.jvp(lambda p: p["a"] * 2, ({"a": X},), ({"a": HOST},)), r"jvp: tangents\[0\]\['a'\]"),
    ],
)
def test_a_leaf_of_the_other_library_is_named(call, name):
    with pytest.raises(gj.BackendError, match=name):
        call()


@counted
@pytest.mark.parametrize("name", [*CALLS, "cotangent"])
def test_arrays_of_two_devices_are_refused(name):
    with emulated.device(1):
        far = cp.ones(3)
    calls = {
        "captured": lambda x: CALLS[name](lambda x: x * far, x),
        "as the point": lambda x: CALLS[name](lambda x: x * 2, far),
    }
    if "vmap" in name:  # the batch is made where the launch is
        del calls["as the point"]
    if name == "cotangent":
        calls = {"cotangent": lambda x: gj.vjp(lambda x: x * 2, x)[1](far)}
    for call in calls.values():
        with pytest.raises(gj.BackendError, match=r"device 1.*with cupy\.cuda\.Device\("):
            call(X)


@counted
def test_another_device_works_when_it_is_the_current_one():
    with emulated.device(1):
        found = gj.jacrev(lambda x: cp.sin(x) * x, chunk_size=2)(cp.ones(3))
        assert found.device.id == 1
    assert X.device.id == 0


def test_adding_a_traced_array_into_one_from_outside_is_refused():
    total = cp.zeros(3)

    def f(x):
        nonlocal total
        total += x
        return total.sum()

    with pytest.raises(gj.MutationError, match=r"would write a traced value into a plain array.*zeros_like"):
        gj.grad(f)(X)
    assert cp.asnumpy(total).tolist() == [0, 0, 0]


def test_conversions_that_would_lose_the_derivative_raise():
    for convert in (float, np.asarray, cp.asnumpy, lambda x: x.get()):
        with pytest.raises((gj.ConcretizationError, gj.DispatchError), match=r"gpujac\.value"):
            gj.grad(lambda x, c=convert: (x * c(x.sum())).sum())(X)
