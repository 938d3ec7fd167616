"""Scatter-add on the CPU against NumPy's add.at: every entry point, layout, index, grid and order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpujac import settings
from gpujac.backends import kernels, launches
from gpujac.errors import DTypeError
from tests.kernels.cases import check_scatter_add, numbers, offsets, run_scatter_add
from tests.kernels.on_cpu import NO_COMPILER, WHY, OnCpu, sparse_zeros
from tests.kernels.test_gather import strided

pytestmark = pytest.mark.skipif(NO_COMPILER, reason=WHY)
FLOATS = ("float32", "float64", "complex64", "complex128")


@pytest.mark.parametrize("name", kernels.entries(launches.SCATTER_ADD))
def test_every_entry_point_agrees_with_numpy(name):
    assert run_scatter_add(name) >= 64


def rough(dtype, shape, rng):
    """Numbers whose sums depend on their order."""
    x = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4, shape)
    return (x * (1 + 1j) if dtype.startswith("c") else x).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_deterministic_sums_are_numpys_bit_for_bit_in_every_order_of_threads(dtype, rng):
    values, index = rough(dtype, (3, 400, 2), rng), rng.integers(-5, 5, 400)
    start = rough(dtype, (3, 5, 2), rng)
    wanted = start.copy()
    np.add.at(wanted, (slice(None), index), values)
    for seed in range(5):
        found = start.copy()
        with settings.override(deterministic=True):
            launches.scatter_add(OnCpu(seed), found, index, values, 1)
        assert found.tobytes() == wanted.tobytes()


def test_atomic_sums_do_depend_on_the_order_of_threads(rng):
    values, index = rough("float64", 400, rng), np.zeros(400, np.int64)
    sums = set()
    for seed in range(5):
        found = np.zeros(1)
        launches.scatter_add(OnCpu(seed), found, index, values, 0)
        sums.add(found.tobytes())
    assert len(sums) > 1, "the seeds give no different orders, so the test above shows nothing"


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_setting_chooses_the_kernel(deterministic):
    be = OnCpu()
    with settings.override(deterministic=deterministic):
        launches.scatter_add(be, np.zeros(3), np.array([1, 1]), np.ones(2), 0)
    name = "scatter_add_ordered_float64_o32" if deterministic else "scatter_add_float64_i64_o32"
    assert be.names[-1] == name


def test_sums_of_whole_numbers_need_no_order():
    be = OnCpu()
    with settings.override(deterministic=True):
        launches.scatter_add(be, np.zeros(3, np.int32), np.array([1, 1]), np.ones(2, np.int32), 0)
    assert be.names == ["scatter_add_int32_i64_o32"]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_other_dtypes_are_added_too(dtype, deterministic, rng):
    found, index = np.zeros((2, 3), dtype), np.array([2, 0, 2, 2])
    with settings.override(deterministic=deterministic):
        launches.scatter_add(OnCpu(), found, index, np.ones((2, 4), dtype), 0)
    np.testing.assert_array_equal(found, np.array([[1, 0, 3]] * 2, dtype))
    assert found.dtype == dtype


def test_values_of_another_dtype_are_cast_to_the_targets():
    found = np.zeros(2, np.float32)
    launches.scatter_add(OnCpu(), found, np.array([1]), np.array([0.1]), 0)
    assert found[1] == np.float32(0.1)


def test_values_are_broadcast_to_the_shape_that_is_written():
    found = np.zeros((2, 3, 4))
    launches.scatter_add(OnCpu(), found, np.array([2, 2]), np.arange(4.0), 1)
    np.testing.assert_array_equal(found[1], np.outer([0, 0, 2], np.arange(4.0)))


def test_nothing_is_added_to_an_empty_axis():
    with pytest.raises(IndexError, match=r"scatter_add: axis 0 of shape \(0,\) has no entries"):
        launches.scatter_add(OnCpu(), np.zeros(0), np.array([0]), np.ones(1), 0)


def test_an_index_without_whole_numbers_is_refused():
    with pytest.raises(DTypeError, match=r"an index array has whole numbers; this one is bool \(2,\)"):
        launches.scatter_add(OnCpu(), np.ones(3), np.ones(2, bool), np.ones(2), 0)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("shape", "count"), [((0, 3), 2), ((2, 3), 0), ((3, 0), 0)])
def test_without_values_there_is_no_launch(shape, count, deterministic):
    be = OnCpu()
    with settings.override(deterministic=deterministic):
        launches.scatter_add(be, np.ones(shape), np.zeros(count, int), np.ones((shape[0], count)), 0)
    assert be.names == []


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("bits", ["o32", "o64"])
@pytest.mark.parametrize("shape", [(1,), (70_000,), (30_000, 3), (3, 30_000)])
def test_sizes_beyond_one_block_and_one_row_per_thread(bits, shape, deterministic, rng):
    with offsets(bits), settings.override(deterministic=deterministic):
        for axis, n in enumerate(shape):
            check_scatter_add(OnCpu(), numbers("float64", shape), rng.integers(-n, n, min(n, 700)), axis)


@pytest.mark.parametrize("deterministic", [False, True])
def test_entries_beyond_the_reach_of_32_bits_are_written(deterministic):
    found, index = sparse_zeros(2**31 + 5000, "float32"), np.array([2**31 + 4999, 7, -1, 2**31])
    with settings.override(deterministic=deterministic):
        launches.scatter_add(OnCpu(), found, index, np.float32([1, 2, 3, 4]), 0)
    np.testing.assert_array_equal(found[[2**31 + 4999, 7, 2**31, 6, 2**31 - 1]], [4, 2, 4, 0, 0])


@given(strided(), st.data())
def test_any_strided_target_is_written_as_numpy_writes_it(x, data):
    axis = data.draw(st.integers(0, x.ndim - 1))
    n = x.shape[axis]
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    index = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(-n, n - 1)))
    with settings.override(deterministic=data.draw(st.booleans())):
        check_scatter_add(OnCpu(data.draw(st.integers(0, 99))), x, index, axis)
