"""A user's CUDA C++ as an operation: RawKernels launched in implementations, on emulated arrays or on a card."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpujac as gj
from gpujac.backends import counts
from gpujac.control import remove_custom_op
from gpujac.control.registered import TABLE
from gpujac.errors import BackendError, KernelError
from tests import device
from tests.oracles import close as assert_close

pytestmark = pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
emulated_only = pytest.mark.skipif(device.NAME == "cupy", reason="a card does not check what a kernel does")

cp: Any = device.XP
CODE = r"""
extern "C" __global__ void softsign(const double* x, double* y, int n) {
    int i = blockDim.x * blockIdx.x + threadIdx.x;
    if (i < n) y[i] = x[i] / (1.0 + fabs(x[i]));
}
extern "C" __global__ void softsign_slope(const double* x, const double* g, double* out, int n) {
    int i = blockDim.x * blockIdx.x + threadIdx.x;
    if (i < n) { double d = 1.0 + fabs(x[i]); out[i] = g[i] / (d * d); }
}
extern "C" __global__ void scaled(const float* x, float* y, float by, long long n, bool flip) {
    long long i = (long long)blockDim.x * blockIdx.x + threadIdx.x;
    if (i < n + OVER) y[i] = x[i] * (flip ? -by : by);
}
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Operations of one test are gone in the next."""
    before = set(TABLE)
    yield
    for name in set(TABLE) - before:
        remove_custom_op(name)


def launched(name: str, *arrays: Any) -> Any:
    """A new array with the kernel's result for contiguous operands."""
    operands = [cp.ascontiguousarray(x) for x in arrays]
    y = cp.empty_like(operands[0])
    cp.RawKernel(CODE, name, ("-DOVER=0",))(((y.size + 63) // 64,), (64,), (*operands, y, np.int32(y.size)))
    return y


def softsign_of_kernels() -> Any:
    """x / (1 + |x|), whose backward rule is a kernel too, with its own in ordinary code."""

    @gj.custom_op("t::softsign")
    def softsign(x: np.ndarray) -> np.ndarray:
        raise AssertionError

    @gj.custom_op("t::softsign_slope")
    def softsign_slope(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        raise AssertionError

    gj.impl(softsign, device_types="cuda", func=lambda x: launched("softsign", x))
    gj.impl(softsign_slope, device_types="cuda", func=lambda x, g: launched("softsign_slope", x, g))
    gj.impl_save_for_backward(softsign, lambda inputs, output: inputs.x)
    gj.impl_backward(softsign, lambda ctx, x, g: {"x": softsign_slope(x, g)})
    gj.impl_abstract(softsign_slope, lambda x, g: (x.shape, x.dtype))
    gj.impl_save_for_backward(softsign_slope, lambda inputs, output: inputs)

    @gj.impl_backward(softsign_slope)
    def backward(ctx: Any, s: Any, ct: Any) -> dict:
        asked, d = ctx.needs_input_grad, 1 + abs(s.x)
        return {
            "x": -2 * ct * s.g * cp.sign(s.x) / d**3 if asked["x"] else None,
            "g": ct / d**2 if asked["g"] else None,
        }

    for op in (softsign, softsign_slope):

        @gj.impl_vmap(op)
        def rule(info: Any, in_dims: tuple, *args: Any, op: Any = op) -> tuple:
            same = [
                cp.broadcast_to(x, (info.batch_size, *x.shape)) if d is None else cp.moveaxis(x, d, 0)
                for x, d in zip(args, in_dims, strict=True)
            ]
            return op(*same), 0

    return softsign


X = np.array([0.5, -2.0, 3.0])
plain = lambda x: x / (1 + abs(x))
CASES = {
    "value": lambda f: f,
    "jacrev": gj.jacrev,
    "jacrev by rows": lambda f: gj.jacrev(f, chunk_size=1),
    "jacfwd": gj.jacfwd,
    "hessian": lambda f: gj.hessian(lambda x: (f(x) ** 2).sum()),
    "jacrev of jacrev": lambda f: gj.jacrev(gj.jacrev(f)),
    "vmap of jacrev": lambda f: lambda x: gj.vmap(gj.jacrev(f))(cp.stack([x, 2 * x])),
    "grad of vmap": lambda f: lambda x: gj.grad(lambda v: gj.vmap(f, in_dims=1)(v).sum())(cp.stack([x, 2 * x])),
    "jvp": lambda f: lambda x: gj.jvp(f, (x,), (x,))[1],
}


@pytest.mark.parametrize("case", CASES)
def test_an_operation_of_a_users_kernels_composes_with_every_transform(case: str) -> None:
    found = CASES[case](softsign_of_kernels())(device.array(X))
    assert isinstance(found, device.TYPE)
    assert_close(device.host(found), device.host(CASES[case](plain)(device.array(X))), 1e-13)


@emulated_only
def test_a_jacobian_launches_each_kernel_once() -> None:
    op, x = softsign_of_kernels(), device.array(X)
    with counts.counting() as n:
        op(x)
    once = n.launches
    with counts.counting() as n:
        gj.jacrev(op)(x)
    assert once == 1
    assert n.by_name["softsign"] == n.by_name["softsign_slope"] == 1


def test_numbers_reach_a_kernel_in_their_types_and_modules_give_kernels() -> None:
    x = device.array(X.astype(np.float32))
    y = cp.empty_like(x)
    kernel = cp.RawModule(code=CODE, options=("-DOVER=0",)).get_function("scaled")
    kernel((1,), (4,), (x, y, np.float32(2.0), 3, True))
    assert_close(device.host(y), -2 * X.astype(np.float32), 0)


@emulated_only
def test_a_kernel_that_reads_outside_an_array_is_named() -> None:
    x = device.array(X.astype(np.float32))
    y = cp.empty_like(x)
    kernel = cp.RawKernel(CODE, "scaled", ("-DOVER=1",))
    with pytest.raises(KernelError, match=r"kernel scaled: .*\(x\) is accessed at byte offset 12"):
        kernel((1,), (4,), (x, y, np.float32(2.0), 3, False))
    with pytest.raises(KernelError, match="kernel missing"):
        cp.RawKernel(CODE, "missing", ("-DOVER=0",))((1,), (1,), (x, y))


@emulated_only
def test_a_kernel_that_casts_its_pointers_runs_unchecked() -> None:
    code = r"""
    extern "C" __global__ void pairs(const float* __restrict__ x, float* y, int n) {
        const float2* both = (const float2*)x;
        int i = threadIdx.x;
        if (i < n) y[i] = ((const float*)(both + i))[0] + ((const float*)(both + i))[1];
    }"""
    code = "struct float2 { float x, y; };" + code if device.NAME != "cupy" else code
    x, y = device.array(np.arange(6, dtype=np.float32)), cp.empty(3, np.float32)
    kernel = cp.RawKernel(code, "pairs")
    kernel.compile()
    kernel((1,), (4,), (x, y, np.int32(3)))
    assert_close(device.host(y), [1.0, 5.0, 9.0], 0)


@emulated_only
def test_what_the_emulated_backend_has_not_is_refused() -> None:
    for options in ({"translate_cucomplex": True}, {"enable_cooperative_groups": True}, {"jitify": True}):
        with pytest.raises(BackendError, match="run it on a GPU"):
            cp.RawKernel(CODE, "softsign", **options)
    with pytest.raises(BackendError, match="run others on a GPU"):
        cp.RawModule(path="kernels.cubin")
    with pytest.raises(BackendError, match="run others on a GPU"):
        cp.RawModule(code=CODE, name_expressions=("f<float>",))


@emulated_only
@pytest.mark.parametrize("wrong", [X, [1.0], None])
def test_arguments_that_cupy_refuses_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="Unsupported type"):
        cp.RawKernel(CODE, "softsign", ("-DOVER=0",))((1,), (1,), (wrong, wrong, np.int32(3)))


def test_a_kernel_that_meets_a_traced_array_points_to_custom_operations() -> None:
    kernel = cp.RawKernel(CODE, "softsign", ("-DOVER=0",))

    def f(x: Any) -> Any:
        y = cp.empty(3)
        kernel((1,), (3,), (x, y, np.int32(3)))
        return y

    with pytest.raises(TypeError) as caught:
        gj.jacrev(f)(device.array(X))
    (note,) = [n for n in caught.value.__notes__ if n.startswith("gpujac: ")]
    assert "cupy.RawKernel met a traced array" in note
    assert "gpujac.custom_op" in note


def test_an_elementwise_kernel_that_meets_a_traced_array_points_to_custom_operations() -> None:
    kernel = device.BACKEND.xp.ElementwiseKernel("T x", "T y", "y = x * x", "mine")
    with pytest.raises(gj.DispatchError, match=r"mine: an ElementwiseKernel is CUDA .*gpujac\.custom_op"):
        gj.jacrev(lambda x: kernel(x))(device.array(X))
