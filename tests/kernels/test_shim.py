"""Kernels on the CPU: what a launch takes, what CUDA offers, and every mistake that is caught."""

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from gpujac import settings
from gpujac.backends import kernels, shim
from gpujac.backends.kernels import Kernel
from gpujac.errors import KernelError
from tests.kernels.on_cpu import NO_COMPILER, WHY

pytestmark = pytest.mark.skipif(NO_COMPILER, reason=WHY)


def kernel(parameters, body, before=""):
    text = f'#include "complex.cuh"\n{before}\nextern "C" __global__ void k({parameters}) {{\n{body}\n}}\n'
    return Kernel(kernels.expand(text), "k")


def run(parameters, body, args, grid=(1,), block=(64,), before="", **options):
    shim.launch(kernel(parameters, body, before), grid, block, args, **options)


SUM = kernel(
    "GJ_IN(double) x, GJ_OUT(double) y, int n",
    """    __shared__ double part[32];
    double sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[blockIdx.x * n + i];
    for (int delta = 16; delta; delta /= 2) sum += __shfl_down_sync(0xffffffffu, sum, delta);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    sum = 0;
    for (int w = 0; w < (int)(blockDim.x / 32); w++) sum += part[w];
    y[blockIdx.x] = sum;""",
)


def sums_agree(kernel, block, seed=0, n=500):
    x = np.arange(3.0 * n).reshape(3, n) % 17
    found = np.full(3, np.nan)
    shim.launch(kernel, (3,), (block,), (x, found, np.int32(n)), seed=seed)
    return np.array_equal(found, x.sum(1))


def without(kernel, line):
    assert line in kernel.source
    return Kernel(kernel.source.replace(line, ""), kernel.name)


# ---------------------------------------------------------------- what a launch does


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [32, 96, 256, 1024])
def test_threads_meet_in_shuffles_and_barriers(block, seed):
    assert sums_agree(SUM, block, seed)


def test_indices_and_sizes_are_those_of_the_launch():
    found = np.zeros((2, 3, 4, 2, 3, 2), np.int32)
    body = """    int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    out[b * blockDim.x * blockDim.y * blockDim.z + t] += 1 + b * 12 + t + 0 * warpSize;"""
    run("GJ_OUT(int) out", body, (found,), grid=(4, 3, 2), block=(2, 3, 2))
    np.testing.assert_array_equal(found.ravel(), 1 + np.arange(24 * 12))


def test_seeds_give_different_orders_and_the_same_seed_the_same():
    def order(seed):
        found = np.full(64, -1, np.int32)
        counter = np.zeros(1, np.int32)
        run("GJ_OUT(int) out, GJ_OUT(int) n", "out[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(n + 0, 1);",
            (found, counter), grid=(4,), block=(16,), seed=seed)  # fmt: skip
        assert sorted(found) == list(range(64))
        return found.tolist()

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


def test_strided_arrays_are_passed_by_their_first_entry():
    x = np.arange(10.0)[::-2]
    found = np.zeros(5)
    run("GJ_IN(double) x, GJ_OUT(double) y, int s", "if (threadIdx.x < 5) y[threadIdx.x] = x[(int)threadIdx.x * s];",
        (x, found, np.int32(x.strides[0] // 8)))  # fmt: skip
    np.testing.assert_array_equal(found, x)


def test_plain_pointers_of_a_users_kernel_work():
    x, found = np.arange(64, dtype=np.complex64), np.zeros(64, np.complex64)
    function = "GJ_DEVICE gj_complex64 conj_of(gj_complex64 z) { return gj_conj(z); }"
    run("const gj_complex64* x, gj_complex64* y, gj_complex64 a", "y[threadIdx.x] = a * conj_of(x[threadIdx.x]);",
        (x, found, np.complex64(2j)), before=function)  # fmt: skip
    np.testing.assert_array_equal(found, 2j * x.conj())


@pytest.mark.parametrize(
    ("name", "oracle"),
    [("sin", np.sin), ("expm1", np.expm1), ("log1p", np.log1p), ("tanh", np.tanh), ("cbrt", np.cbrt),
     ("rsqrt", lambda x: 1 / np.sqrt(x)), ("fabs", np.abs), ("sqrt", np.sqrt)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mathematics_has_both_widths(name, oracle, dtype):
    x = np.linspace(0.1, 3, 64, dtype=dtype)
    found = np.zeros_like(x)
    c = {"float32": "float", "float64": "double"}[dtype]
    run(f"GJ_IN({c}) x, GJ_OUT({c}) y", f"y[threadIdx.x] = max({name}(x[threadIdx.x]), ({c})-9);", (x, found))
    np.testing.assert_allclose(found, oracle(x), rtol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_arithmetic_is_numpys(dtype, rng):
    x, y = (rng.normal(size=(2, 64, 2)) @ [1, 1j]).astype(dtype)
    y[:4] = [0, 1e30j, 1e30, 3]
    found = np.zeros((5, 64), dtype)
    t = f"gj_{dtype}"
    body = """    int i = threadIdx.x;
    out[i] = x[i] * y[i]; out[64 + i] = x[i] / y[i]; out[128 + i] = x[i] + y[i] - -x[i];
    out[192 + i] = gj_conj(x[i]) * x[i].re; out[256 + i] = gj_is_zero(y[i]) ? x[i] : y[i];"""
    run(f"GJ_IN({t}) x, GJ_IN({t}) y, GJ_OUT({t}) out", body, (x, y, found))
    with np.errstate(all="ignore"):
        wanted = np.array([x * y, x / y, x + y + x, x.conj() * x.real, np.where(y == 0, x, y)])
    np.testing.assert_allclose(found, wanted, rtol=1e-5 if dtype == "complex64" else 1e-14)


def test_shuffles_of_every_kind():
    found = np.zeros((6, 64), np.int32)
    body = """    int i = threadIdx.x; unsigned all = 0xffffffffu;
    out[i] = __shfl_sync(all, i, 5); out[64 + i] = __shfl_up_sync(all, i, 3u);
    out[128 + i] = __shfl_xor_sync(all, i, 9);
    out[192 + i] = __shfl_down_sync(all, i, 2u, 8); out[256 + i] = (int)__ballot_sync(all, i % 32 < 3);
    out[320 + i] = __any_sync(all, i == 40) * 2 + __all_sync(all, i >= 32);"""
    run("GJ_OUT(int) out", body, (found,))
    i = np.arange(64)
    lane, warp = i % 32, i // 32 * 32
    wanted = [warp + 5, np.where(lane < 3, i, i - 3), warp + (lane ^ 9), np.where(lane % 8 < 6, i + 2, i),
              np.full(64, 7), np.where(i < 32, 0, 3)]  # fmt: skip
    np.testing.assert_array_equal(found, wanted)


def test_lanes_that_took_another_branch_shuffle_among_themselves():
    found = np.zeros(64, np.int32)
    body = """    int i = threadIdx.x, v = 0;
    if (i % 32 < 10) v = __shfl_sync(0x3ffu, i, 9);
    else v = __shfl_sync(0xfffffc00u, i, 31);
    __syncwarp();
    out[i] = v;"""
    for seed in range(3):
        run("GJ_OUT(int) out", body, (found,), seed=seed)
        i = np.arange(64)
        np.testing.assert_array_equal(found, i // 32 * 32 + np.where(i % 32 < 10, 9, 31))


def test_dynamic_shared_memory_has_the_size_of_the_launch():
    found = np.zeros(64)
    body = """    extern __shared__ double held[];
    held[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = held[63 - threadIdx.x];"""
    run("GJ_OUT(double) y", body, (found,), shared=64 * 8)
    np.testing.assert_array_equal(found, np.arange(64)[::-1])


def test_threads_of_python_may_launch_the_same_kernel_at_once():
    wrong = []

    def many():
        wrong.extend(seed for seed in range(30) if not sums_agree(SUM, 64, seed))

    workers = [threading.Thread(target=many) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


# ---------------------------------------------------------------- mistakes in a kernel


@pytest.mark.parametrize("seed", range(3))
def test_a_missing_barrier_gives_a_wrong_result(seed):
    assert not sums_agree(without(SUM, "    __syncthreads();\n"), 256, seed)


def test_shared_memory_that_nobody_wrote_is_poison():
    assert not sums_agree(without(SUM, "    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;\n"), 256)


def test_poison_comes_back_with_each_block():
    found = np.zeros((8, 64))
    body = """    __shared__ double held[64];
    y[blockIdx.x * 64 + threadIdx.x] = held[threadIdx.x];
    held[threadIdx.x] = 1;
    __syncthreads();"""
    run("GJ_OUT(double) y", body, (found,), grid=(8,))
    assert np.isnan(found).all()


def test_a_barrier_that_some_threads_pass_by_is_reported():
    with pytest.raises(KernelError, match=r"kernel k: threads wait at a barrier that others of their block passed by"):
        run("GJ_OUT(double) y", "if (threadIdx.x < 40) __syncthreads();", (np.zeros(1),))


def test_two_barriers_do_not_stand_for_each_other():
    with pytest.raises(KernelError, match="threads of one block wait at different barriers"):
        run("GJ_OUT(double) y", "if (threadIdx.x < 40) __syncthreads(); else __syncthreads();", (np.zeros(1),))


def test_a_shuffle_without_all_its_lanes_is_reported():
    with pytest.raises(KernelError, match=r"a lane waits for lanes of its warp that never come \(line \d+\)"):
        body = "if (threadIdx.x < 40) y[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);"
        run("GJ_OUT(int) y", body, (np.zeros(64, "i4"),))


def test_a_lane_outside_the_mask_that_it_names_is_reported():
    with pytest.raises(KernelError, match="a lane is not in the mask that it names"):
        run("GJ_OUT(int) y", "__syncwarp(0xffu);", (np.zeros(1, "i4"),))


@pytest.mark.parametrize(
    ("offset", "text"), [("5", "40 .entry 5 from the first"), ("-1", "-8 .entry -1 from"), ("1 << 30", "8589934592 ")]
)
def test_an_access_outside_an_array_names_kernel_parameter_and_offset(offset, text):
    held = np.zeros(20)  # the array is a part of it: its neighbours are out of bounds as well
    with pytest.raises(KernelError, match=rf"^kernel k: parameter 1 \(y\) is accessed at byte offset {text}") as caught:
        run("int n, GJ_OUT(double) y", f"y[{offset}] = n;", (np.int32(1), held[8:13]))
    assert "outside the array of (5,) float64; thread (" in str(caught.value)
    assert not held.any()


def test_every_access_to_an_empty_array_is_outside():
    with pytest.raises(KernelError, match=r"parameter 0 \(x\) is accessed .* outside the array of \(0, 3\) float32"):
        run("GJ_IN(float) x, GJ_OUT(float) y", "y[0] = x[0];", (np.zeros((0, 3), "f4"), np.zeros(1, "f4")))


def test_a_read_behind_a_moved_pointer_is_checked_too():
    with pytest.raises(KernelError, match=r"parameter 0 \(x\) is accessed at byte offset 32 \(entry 4"):
        run("GJ_IN(double) x, GJ_OUT(double) y", "y[0] = *(x + 3 + 1);", (np.zeros(4), np.zeros(1)), block=(1,))


def test_two_threads_that_add_without_atomics_are_reported():
    with pytest.raises(KernelError, match=r"\(y\) is touched at byte offset 8 \(entry 1 from the first\) by two"):
        run("GJ_OUT(double) y", "y[threadIdx.x == 9 ? 1 : threadIdx.x] += 1;", (np.zeros(64),))


def test_what_two_threads_may_touch_is_declared_so():
    found = np.zeros(2, np.int32)
    run("GJ_BOTH(int) y", "y[threadIdx.x % 2] += 1;", (found,))
    np.testing.assert_array_equal(found, [32, 32])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("y[0] = n + 2147483647;", "an addition of whole numbers overflows"),
        ("y[0] = n * 65536 * 65536;", "a product of whole numbers overflows"),
        ("y[0] = 1 << (n + 40);", "a shift by more bits than there are"),
        ("y[0] = 7 / (n - 1);", "a division by zero"),
        ("int held[4] = {0}; y[0] = held[n + 3];", "an index beyond the end of a local or shared array"),
        ("y[0] = *(const int*)((const char*)other + n);", "a misaligned address"),
        ("y[0] = *(const int*)(long long)(n - 1);", "a null pointer"),
    ],
)
def test_undefined_behaviour_names_its_line(body, text):
    k = kernel("GJ_OUT(int) y, const double* other, int n", f"    // first\n    {body}")
    line = k.source.split("\n").index("    " + body) + 1
    with pytest.raises(KernelError, match=rf"^kernel k: {text}.* \(line {line}\); thread \(0, 0, 0\)"):
        shim.launch(k, (1,), (1,), (np.zeros(1, "i4"), np.zeros(2), np.int32(1)))


def test_a_misaligned_array_is_reported():
    x = np.zeros(17, np.uint8)[1:].view(np.float64)
    with pytest.raises(KernelError, match=r"parameter 0 \(x\) is accessed at byte offset 0 .* is not aligned"):
        run("GJ_IN(double) x, GJ_OUT(double) y", "y[0] = x[0];", (x, np.zeros(1)), block=(1,))


def test_an_assertion_of_the_kernel_is_reported():
    with pytest.raises(KernelError, match=r"the claim 'n > 3' does not hold \(line \d+\)"):
        run("int n", "assert(n > 3);", (np.int32(3),))


def test_a_write_behind_dynamic_shared_memory_is_reported():
    with pytest.raises(KernelError, match="wrote behind the dynamic shared memory"):
        run("int n", "extern __shared__ double held[];\n held[n] = 1;", (np.int32(4),), shared=32, block=(1,))


def test_too_many_local_variables_are_reported():
    body = """    volatile double held[17000];
    for (int i = 16999; i >= 0; i--) held[i] = 1;
    __syncthreads();
    y[threadIdx.x] = held[threadIdx.x];"""
    with pytest.raises(KernelError, match="a thread needs more than 128 KiB for its local variables"):
        run("GJ_OUT(double) y", body, (np.zeros(2),), block=(2,))


def test_a_failure_leaves_the_next_launch_alone():
    with pytest.raises(KernelError):
        shim.launch(SUM, (3,), (256,), (np.zeros(2), np.zeros(3), np.int32(500)))
    assert sums_agree(SUM, 256)


# ---------------------------------------------------------------- mistakes in a launch


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.zeros(1),), "kernel k takes 3 arguments, was given 1"),
        ((np.zeros(1, "f4"), np.zeros(1), np.int32(1)),
         r"parameter 0 \(x\) must be a f8 array, found ndarray float32"),
        ((np.zeros(1), [0.0], np.int32(1)), r"parameter 1 \(y\) must be a f8 array, found list \[0\.0\]"),
        ((np.zeros(1), np.zeros(1), 1), r"parameter 2 \(n\) must be a NumPy i4 scalar, found int 1"),
        ((np.zeros(1), np.zeros(1), np.int64(1)), r"parameter 2 \(n\) must be a NumPy i4 scalar, found int64 int64"),
        ((np.zeros(1), np.zeros(1), np.zeros(1, "i4")), r"parameter 2 \(n\) must be a NumPy i4 scalar"),
        ((np.zeros(1), np.broadcast_to(1.0, 3), np.int32(1)), r"parameter 1 \(y\) is written, but the array is read-"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_by_name(args, message):
    with pytest.raises(KernelError, match=message):
        run("GJ_IN(double) x, GJ_OUT(double) y, int n", "", args)


@pytest.mark.parametrize(
    ("parameter", "dtype", "fits"),
    [("GJ_IN(gj_word32)", "float32", True), ("GJ_IN(gj_word32)", "int64", False), ("GJ_IN(bool)", "bool", True),
     ("GJ_IN(gj_complex64)", "float64", False), ("GJ_IN(gj_word64)", "complex64", True), ("const void*", "int8", True)],
)  # fmt: skip
def test_pointers_take_arrays_of_their_own_entries(parameter, dtype, fits):
    if fits:
        run(f"{parameter} x", "", (np.zeros(3, dtype),))
        return
    with pytest.raises(KernelError, match=r"parameter 0 \(x\) must be "):
        run(f"{parameter} x", "", (np.zeros(3, dtype),))


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((0,), (1,), 0), ((1,), (1025,), 0), ((1, 65536), (1,), 0), ((1,), (1, 1, 65), 0), ((1,), (1,), 10**6),
     ((1, 1, 1, 1), (1,), 0), ((2**31,), (1,), 0)],
)  # fmt: skip
def test_a_launch_that_no_device_allows_is_refused(grid, block, shared):
    with pytest.raises(KernelError, match="kernel k cannot be launched with grid"):
        run("int n", "", (np.int32(1),), grid=grid, block=block, shared=shared)


def test_text_that_does_not_compile_shows_the_compilers_words():
    with pytest.raises(KernelError, match=r"(?s)kernel k does not compile for the CPU:.*nonsense"):
        run("int n", "nonsense;", (np.int32(1),))


@pytest.mark.parametrize("name", ["gather_word64_i32_o32", "gather_complex64_i64_o64"])
def test_names_of_parameters_are_found_behind_a_macro(name):
    found = shim.compiled(kernels.kernel("ops/gather.cu", name)).parameters
    assert found[:4] == ("x", "index", "out", "rows0")
    assert found[-1] == "index_stride"


def test_without_a_compiler_the_cure_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    shim._compiler.cache_clear()
    try:
        with pytest.raises(KernelError, match=r'compiled with g\+\+, .*install it .*kernels = "off"'):
            run("int n", "// never compiled before", (np.int32(1),))
    finally:
        shim._compiler.cache_clear()


# ---------------------------------------------------------------- the cache


def test_a_compiled_kernel_is_found_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shim._cache_folder.cache_clear()
    try:
        k = kernel("int n", "// in a folder of its own")
        made = shim._build(k, "off")
        assert made.parent == tmp_path / "gpujac" / "cpu_kernels"
        monkeypatch.setattr(shim, "_compile", lambda *args: pytest.fail("compiled twice"))
        assert shim._build(k, "off") == made
        assert [p.name for p in made.parent.iterdir()] == [made.name]
    finally:
        shim._cache_folder.cache_clear()


def test_the_cache_keeps_what_is_used(monkeypatch, tmp_path):
    monkeypatch.setattr(shim, "_KEPT", 8)
    for k in range(9):
        (tmp_path / f"{k}.so").write_text("")
        os.utime(tmp_path / f"{k}.so", (k, k if k else 99))  # the first one was used last
    (tmp_path / "other").write_text("")
    shim._prune(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [*(f"{k}.so" for k in (0, 4, 5, 6, 7, 8)), "other"]
    shim._prune(tmp_path)
    assert len(list(tmp_path.iterdir())) == 7


def test_without_a_cache_folder_a_temporary_one_serves(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    shim._cache_folder.cache_clear()
    try:
        assert shim._build(kernel("int n", "// elsewhere"), "off").is_file()
    finally:
        shim._cache_folder.cache_clear()


def test_without_checks_the_result_is_the_same():
    with settings.override(sanitize="off"):
        assert sums_agree(SUM, 64)


# ---------------------------------------------------------------- AddressSanitizer

ADDRESS = """
import numpy as np
from gpujac import settings
from gpujac.backends import shim
from gpujac.backends.kernels import Kernel
source = 'extern "C" __global__ void k(double* y, int n) { if (threadIdx.x == 0) y[n] = 1; __syncthreads(); }'
with settings.override(sanitize="address"):
    shim.launch(Kernel(source, "k"), (2,), (64,), (np.zeros(8), np.int32(%d)))
print("done")
"""


def under_address_sanitizer(*command):
    found = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {"LD_PRELOAD": found.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(
        [sys.executable, *command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_address_sanitizer_without_its_library_is_refused():
    with settings.override(sanitize="address"), pytest.raises(KernelError, match=r"sanitize = .* LD_PRELOAD"):
        run("int n", "// watched", (np.int32(1),))


@pytest.mark.slow
def test_address_sanitizer_sees_what_a_plain_pointer_does():
    right, wrong = (under_address_sanitizer("-c", ADDRESS % n) for n in (7, 8))
    assert (right.returncode, right.stdout) == (0, "done\n")
    assert wrong.returncode != 0
    assert "heap-buffer-overflow" in wrong.stderr


@pytest.mark.slow
def test_every_kernel_runs_under_address_sanitizer():
    done = under_address_sanitizer("-m", "tests.kernels.address")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "AddressSanitizer" not in done.stderr
    assert int(done.stdout.split()[0]) > 3000


def test_the_library_is_not_kept_open_to_others():
    path = shim._build(kernel("int n", "// hidden"), "off")
    library = ctypes.CDLL(str(path))
    with pytest.raises(AttributeError):
        _ = library.__ubsan_handle_add_overflow
