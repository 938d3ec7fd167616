"""Kernels of small matrices on the CPU against NumPy: every entry point, shape, layout, grid and order of threads."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujac.backends import kernels
from gpujac.backends import matrices as mt
from gpujac.backends.kernels import Kernel
from gpujac.errors import KernelError
from tests.kernels import matrices as cs
from tests.kernels.cases import RUNS
from tests.kernels.on_cpu import NO_COMPILER, WHY, OnCpu

pytestmark = pytest.mark.skipif(NO_COMPILER, reason=WHY)
FILES = (mt.LU, mt.SOLVE, mt.CHOLESKY)


@pytest.mark.parametrize(("path", "name"), [(path, name) for path in FILES for name in kernels.entries(path)])
def test_every_entry_point_agrees_with_numpy(path, name):
    assert RUNS[path](name, 0) >= 48


# ---------------------------------------------------------------- any shape


@st.composite
def systems(draw):
    """Matrices, right-hand sides with leading axes of their own or shared ones, and what is solved."""
    dtype, n = draw(st.sampled_from(mt.DTYPES)), draw(st.integers(1, 32))
    lead = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    a = cs.matrices(dtype, tuple(draw(st.sampled_from((1, m))) for m in lead), n, draw(st.integers(0, 9)))
    vector = draw(st.booleans())
    shape = (*draw(st.sampled_from(((), (2,)))), *lead, n, *(() if vector else (draw(st.integers(0, 5)),)))
    b = cs.numbers(dtype, tuple(2 * s for s in shape))
    key = tuple(slice(None, None, draw(st.sampled_from((-2, 2)))) for _ in shape)
    return a, b[key], vector, draw(st.booleans())


@given(systems(), st.integers(0, 99))
def test_any_system_is_solved_as_numpy_solves_it(system, seed):
    a, b, vector, turned = system
    be = OnCpu(seed)
    x = mt.lu_solve(be, mt.lu_factor(be, a), b, vector, turned) if a.size else b
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[: b.ndim - 2 + vector])
    assert not a.size or x.shape == lead + b.shape[b.ndim - 2 + vector :]
    if a.size and x.size:
        cs.agrees(cs.adjoint(cs.wide(a)) if turned else cs.wide(a), x, b, vector)


# ---------------------------------------------------------------- matrices that are hard, or have no inverse


@pytest.mark.parametrize("n", [4, 8, 12])
def test_the_residual_of_an_ill_conditioned_system_is_small(n):
    a = 1 / (np.arange(n)[:, None] + np.arange(n) + 1.0)  # Hilbert's matrix, condition up to 1e16
    b = np.ones((n, 2))
    x = mt.lu_solve(OnCpu(), mt.lu_factor(OnCpu(), a), b, False, False)
    assert np.abs(a @ x - b).max() <= 1e-15 * n * np.abs(a).max() * np.abs(x).max() * n


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_a_singular_system_has_no_finite_solution_and_its_neighbours_have(dtype, turned):
    a = np.stack([np.eye(3), np.outer([1.0, 2, 4], [4.0, 1, 2]), np.zeros((3, 3))]).astype(dtype)
    x = mt.lu_solve(OnCpu(), mt.lu_factor(OnCpu(), a), np.ones((3, 3), dtype), True, turned)
    assert np.array_equal(x[0], np.ones(3))
    assert not np.isfinite(x[1:]).all(axis=-1).any()
    assert np.isnan(mt.inv(OnCpu(), a)[2]).any()


@pytest.mark.parametrize("place", [(0, 0), (2, 1)])
def test_a_nan_spoils_its_own_matrix_alone(place):
    a = cs.matrices("float64", (3,), 3)
    wanted = np.linalg.inv(a)
    a[(1, *place)] = np.nan
    found = mt.inv(OnCpu(), a)
    assert np.isnan(found[1]).any()
    cs.close(found[[0, 2]], wanted[[0, 2]], "the others")


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_swaps_that_are_no_rows_swap_nothing(dtype):
    factors = np.concatenate([np.eye(3), [[np.nan, -1.0, 99.0]]]).astype(dtype)
    b = np.array([1.0, 2.0, 3.0], dtype)
    assert np.array_equal(mt.lu_solve(OnCpu(), factors, b, True, False), b)


# ---------------------------------------------------------------- launches


def test_leading_axes_of_any_order_need_no_copy():
    a = cs.matrices("float64", (4, 3), 5)
    factors, be = mt.lu_factor(OnCpu(), a), OnCpu()
    be.copy = pytest.fail
    for b, vector in (
        (cs.numbers("float64", (7, 4, 3, 5)), True), (cs.numbers("float64", (7, 4, 3, 5, 2)), False),
        (np.swapaxes(cs.numbers("float64", (3, 4, 5)), 0, 1), True),
    ):  # fmt: skip
        cs.agrees(a, mt.lu_solve(be, factors, b, vector, False), b, vector)


def test_more_leading_axes_than_a_launch_walks_are_copied_first():
    a, be, copied = cs.matrices("float64", (2, 3, 2, 2), 2), OnCpu(), []
    be.copy = lambda x: copied.append(x) or np.array(x, order="C")
    a = np.swapaxes(np.ascontiguousarray(np.swapaxes(a, 0, 2)), 0, 2)
    cs.check_factors(a, mt.lu_factor(be, a))
    b = np.swapaxes(cs.numbers("float64", (2, 3, 2, 2, 2, 3)), 0, 2)
    cs.agrees(a[:, :1], mt.lu_solve(be, mt.lu_factor(be, a[:, :1]), b, False, False), b, False)
    assert len(copied) >= 2


def test_the_order_of_threads_does_not_matter():
    a = cs.matrices("complex128", (5,), 7)
    first = mt.lu_factor(OnCpu(0), a)
    for seed in range(1, 5):
        assert np.array_equal(mt.lu_factor(OnCpu(seed), a), first)


BLOCKS = list(itertools.product((1, 2, 5, 16, 17, 32), (4, 16), (1, 3, 1000)))


@pytest.mark.parametrize(("n", "size", "columns"), BLOCKS)
def test_a_block_is_made_of_whole_warps_and_fits_in_shared_memory(n, size, columns):
    groups, sharing = mt._groups(n, size, columns)
    threads = groups * mt._lanes(n)
    assert threads % 32 == 0
    assert threads <= 128
    assert groups % sharing == 0
    assert groups // sharing * n * ((n | 1) * size + 4) <= 48 << 10


# ---------------------------------------------------------------- kernels with one thing wrong

FACTOR = [
    ("other > best", "other < best"), ("there < place", "there > place"), ("p != k && lane < n", "false"),
    ("lane > k && !gj_is_zero(pivot)", "lane > k"), ("Real(p + 1)", "Real(p)"),
    ("factor * s[k * width + j]", "factor * s[j * width + k]"), ("first + group, from", "first, from"),
    ("i * row_stride", "i * column_stride"),
]  # fmt: skip
SOLVE = [
    ("rows[p] = kept;", ""), ("FACTORS ? up == !!adjoint", "FACTORS ? up"),
    ("? gj_conj(entry) : entry", "? entry : entry"),
    ("origin + n * n", "n * n"), ("(adjoint ? place : lane) * x_row", "lane * x_row"), ("__syncthreads();", ""),
    ("at * t_inner", "at"), ("outer * b_outer", "0"), ("c * b_column", "c"), ("place <= n", "true"),
    ("lane > k && lane < n", "lane > k + 1 && lane < n"),
]  # fmt: skip
TRIANGLE = [("lower ? i > j", "lower ? i < j"), ("!lower != !!adjoint", "!lower"), ("x / entry", "x * entry")]
SQUARE = [
    ("!definite ?", "false ?"), ("* Real(0.5)", ""), ("gj_conj(s[j * width + k])", "s[j * width + k]"),
    ("j > i ? T() :", ""), ("__syncwarp();  // the diagonal is read: it may be written", ""),
]  # fmt: skip
MUTANTS = [
    *((mt.LU, "lu_factor_complex128", *change) for change in FACTOR),
    (mt.LU, "lu_det_float64", "!= k + 1", "== k + 1"),
    (mt.LU, "lu_slogdet_complex128", "modulus == 0 ? T() :", ""),
    *((mt.SOLVE, "lu_solve_complex128", *change) for change in SOLVE),
    *((mt.SOLVE, "triangular_solve_complex64", *change) for change in TRIANGLE),
    *((mt.CHOLESKY, "cholesky_complex128", *change) for change in SQUARE),
]


@pytest.mark.parametrize(
    ("path", "name", "right", "wrong"),
    [m if k % 10 == 0 else pytest.param(*m, marks=pytest.mark.slow) for k, m in enumerate(MUTANTS)],
)
def test_a_wrong_kernel_is_noticed(monkeypatch, path, name, right, wrong):
    whole, load = kernels.kernel(path, name), kernels.kernel
    assert right in whole.source, "the kernel has changed: change this list as well"
    mutant = Kernel(whole.source.replace(right, wrong), name)
    monkeypatch.setattr(kernels, "kernel", lambda p, n: mutant if n == name else load(p, n))
    plans = (mt._factor_plan, mt._solve_plan)
    for plan in plans:
        plan.cache_clear()
    try:
        with pytest.raises((AssertionError, KernelError)):
            for seed in range(2):
                RUNS[path](name, seed)
            test_swaps_that_are_no_rows_swap_nothing("complex128")
    finally:
        for plan in plans:
            plan.cache_clear()
