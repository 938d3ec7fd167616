"""Gather on the CPU against NumPy's take: every entry point, layout, index, grid and order of threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpujac.backends import kernels, launches
from gpujac.errors import DTypeError
from tests.kernels.cases import check_gather, numbers, offsets, run_gather
from tests.kernels.on_cpu import NO_COMPILER, WHY, OnCpu, sparse_zeros

pytestmark = pytest.mark.skipif(NO_COMPILER, reason=WHY)


@pytest.mark.parametrize("name", kernels.entries(launches.GATHER))
def test_every_entry_point_agrees_with_numpy(name):
    assert run_gather(name) >= 64


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "uint32", "uint64"])
def test_an_index_of_another_width_is_widened(dtype):
    be = OnCpu()
    index = np.array([2, 0, 3, 3], dtype)
    check_gather(be, numbers("float64"), index, 1)
    assert be.names == [f"gather_word64_i{32 if index.itemsize < 4 else 64}_o32"]


@pytest.mark.parametrize("dtype", ["bool", "float64"])
def test_an_index_without_whole_numbers_is_refused(dtype):
    with pytest.raises(DTypeError, match=rf"an index array has whole numbers; this one is {dtype} \(2,\)"):
        launches.gather(OnCpu(), np.ones(3), np.ones(2, dtype), 0)


def test_no_entries_are_taken_from_an_empty_axis():
    with pytest.raises(IndexError, match=r"gather: axis 1 of shape \(2, 0\) has no entries"):
        launches.gather(OnCpu(), np.ones((2, 0)), np.array([0]), 1)


@pytest.mark.parametrize(("shape", "index"), [((0, 3), [1, 1]), ((2, 3), []), ((2, 0), []), ((0,), [])])
def test_an_empty_result_needs_no_launch(shape, index):
    be = OnCpu()
    check_gather(be, np.ones(shape), np.array(index, np.int64), -1 % len(shape))
    assert be.names == []


def test_entries_that_do_not_lie_on_a_lattice_are_copied_first():
    record = np.zeros(5, [("tag", "i1"), ("x", "f8")])  # 9 bytes apart
    record["x"] = np.arange(5)
    check_gather(OnCpu(), record["x"], np.array([4, 0]), 0)


@pytest.mark.parametrize("bits", ["o32", "o64"])
@pytest.mark.parametrize("shape", [(1,), (100_000,), (70_000, 3), (3, 70_000), (2, 300, 5)])
def test_sizes_beyond_one_block_and_one_row_per_thread(bits, shape, rng):
    x = rng.normal(size=shape)
    with offsets(bits):
        for axis, n in enumerate(shape):
            check_gather(OnCpu(), x, rng.integers(-n, n, min(n, 900)), axis)


def test_a_long_index_of_many_rows_walks_rows_in_each_thread(rng):
    be = OnCpu()
    grid, block = launches.geometry(3000, 2000)
    assert grid[1] * block[1] < 2000
    check_gather(be, rng.integers(0, 99, (2000, 40)).astype(np.int8), rng.integers(0, 40, 3000), 1)


def test_entries_beyond_the_reach_of_32_bits_are_read():
    be, x = OnCpu(), sparse_zeros(2**31 + 5000, "int8")
    x[[3, 2**31 - 1, 2**31 + 4999]] = 1, 2, 3
    found = launches.gather(be, x, np.array([2**31 + 4999, -5001, -1, 3, 0]), 0)
    np.testing.assert_array_equal(found, [3, 2, 3, 1, 0])
    found = launches.gather(be, x[::-1].reshape(2, -1), np.array([0, -4], np.int32), 1)
    np.testing.assert_array_equal(found, [[3, 0], [0, 1]])
    assert be.names == ["gather_word8_i64_o64", "gather_word8_i32_o64"]


@pytest.mark.parametrize(("grid", "block"), [((200_000,), (1,)), ((1, 30_000, 2), (4, 2)), ((3, 1, 5_000), (1, 64))])
def test_far_more_blocks_than_work_do_no_harm(grid, block):
    check_gather(OnCpu(grid=grid, block=block), numbers("float64"), np.array([2, 0, 2]), 1)


@pytest.mark.parametrize(("columns", "rows", "outer"), [(2**33, 1, 1), (1, 2**33, 1), (5, 7, 2**33), (1, 1, 1)])
def test_the_grid_stays_within_what_a_device_allows(columns, rows, outer):
    grid, block = launches.geometry(columns, rows, outer)
    assert 1 <= grid[0] < 2**31
    assert all(1 <= n < 2**16 for n in grid[1:])
    assert block[0] * block[1] == 256


def test_the_last_step_of_a_thread_cannot_overflow_32_bits():
    grid, block = launches.geometry(2**31, 2**31, 2**31)
    for steps, width in zip(grid, (*block, 1)):
        assert launches.LIMIT - 1 + steps * width < 2**31


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_threads_does_not_matter(seed, rng):
    check_gather(OnCpu(seed), rng.normal(size=(7, 9, 11)), rng.integers(-9, 9, (5, 4)), 1)


@st.composite
def strided(draw):
    """An array of rank 1 to 5 seen through a random permutation, steps and reversals."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=5, min_side=1, max_side=5))
    x = numbers("float64", tuple(2 * n for n in shape))
    key = tuple(slice(None, None, draw(st.sampled_from([-2, -1, 1, 2]))) for _ in shape)
    return x[key].transpose(draw(st.permutations(range(len(shape)))))


@given(strided(), st.data())
def test_any_strided_array_is_read_as_numpy_reads_it(x, data):
    axis = data.draw(st.integers(0, x.ndim - 1))
    n = x.shape[axis]
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    index = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(-n, n - 1)))
    check_gather(OnCpu(data.draw(st.integers(0, 99))), x, index, axis)
