"""Generated kernels on the CPU against the interpreter, and what their text may depend on."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpujac.backends import chain_launch, codegen
from gpujac.backends.chain import Chain, Step, interpret, restricted, single, sum_of
from gpujac.backends.chain_launch import prepared
from gpujac.backends.generic import Generic
from gpujac.backends.host import HOST
from gpujac.errors import KernelError
from tests.kernels import chains
from tests.kernels.on_cpu import NO_COMPILER, WHY, OnCpu
from tests.tolerances import tolerance

needs_compiler = pytest.mark.skipif(NO_COMPILER, reason=WHY)


def interpreted(chain, domain, operands):
    """The oracle's results, and for each how large the terms of its sum are together."""
    with np.errstate(all="ignore"):
        terms = listed(interpret(HOST, Chain(chain.inputs, chain.steps, chain.outputs), domain, operands))
        wanted = listed(interpret(HOST, chain, domain, operands))
        return wanted, [float(np.sum(np.abs(y))) for y in terms]


def listed(results):
    """One result or several as a list."""
    return list(results) if isinstance(results, tuple) else [results]


def check_kernel(chain, domain, operands, board=None):
    """The kernel gives what the interpreter gives: shape, dtype and numbers."""
    wanted, sizes = interpreted(chain, domain, operands)
    found = listed(chain_launch.run(board or OnCpu(), chain, domain, operands))
    tol = tolerance(*chain.inputs, *(s.dtype for s in chain.steps)).same
    for y, expected, size, name in zip(found, wanted, sizes, chain.results, strict=True):
        expected = np.asarray(expected)
        assert y.shape == expected.shape
        assert y.dtype == expected.dtype == name
        assert y.flags.c_contiguous
        finite = np.isfinite(expected)
        np.testing.assert_allclose(y[finite], expected[finite], rtol=tol, atol=tol * min(size, 1e30))
    return found[0]


@needs_compiler
@settings(max_examples=max(12, settings().max_examples // 4))  # each one is compiled
@given(seed=st.integers(0, 2**32 - 1))
def test_random_chains_agree_with_the_interpreter(seed):
    chain, domain, operands = chains.random_case(seed)
    check_kernel(chain, domain, operands, OnCpu(seed=seed % 7))


@needs_compiler
@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1))
def test_long_random_chains_agree_with_the_interpreter(seed):
    chain, domain, operands = chains.random_case(seed, most_steps=40)
    check_kernel(chain, domain, operands, OnCpu(seed=seed % 7))


def operands_of(chain, lead, domain, tangents, seed=0):
    """Random operands: tangents with leading axes, coefficients without."""
    rng = np.random.default_rng(seed)
    return tuple(
        chains.drawn(rng, d, lead + domain if k < tangents else domain) for k, d in enumerate(chain.inputs)
    )


@needs_compiler
@pytest.mark.parametrize("dtype", chains.DTYPES)
@pytest.mark.parametrize("axes", [(), (-1,), (-2,), (-2, -1)], ids=str)
def test_every_dtype_maps_and_sums_along_every_axis(dtype, axes):
    chain = chains.network(dtype, axes)
    check_kernel(chain, (6, 7), operands_of(chain, (4,), (6, 7), 2))


@needs_compiler
@pytest.mark.parametrize("dtype", sorted(chains.REAL))
def test_every_step_agrees_with_the_interpreter(dtype):
    chain = chains.turning(dtype)
    check_kernel(chain, (5, 3), operands_of(chain, (4,), (5, 3), 1))
    names = {s.name for c in (chain, chains.network(dtype)) for s in c.steps}
    assert names == {"multiply", "add", "negative", "select", "guarded", "conj", "real", "imag", "times_1j", "cast"}


@needs_compiler
@pytest.mark.parametrize(
    "shape", [(1,), (3, 1), (5000,), (2, 40_000), (70, 1025), (5000, 3), (300, 32), (3, 2000)], ids=str
)
def test_sums_of_every_length_agree(shape):
    """Some lanes, a block, several parts of a row: each is exact up to rounding."""
    rng = np.random.default_rng(0)
    chain = chains.product("float64", 1, (-1,))
    check_kernel(chain, shape[-1:], (rng.normal(size=shape), rng.normal(size=shape[-1:])))


@needs_compiler
def test_a_sum_over_rows_reads_neighbouring_columns_with_neighbouring_threads():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5000))
    chain = chains.product("float64", 1, (-2,))
    board = OnCpu()
    check_kernel(chain, (30, 5000), (x, rng.normal(size=(30, 1))), board)
    todo = prepared(chain, (30, 5000), ((x.dtype, x.shape, x.strides), (x.dtype, (30, 1), (8, 8))))
    assert todo.block == (1, 256)


@needs_compiler
def test_very_long_rows_are_added_in_two_launches_the_same_way_each_time():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 100_000)).astype(np.float32)
    chain = chains.product("float32", 1, (-1,))
    results = []
    for seed in range(3):
        board = OnCpu(seed=seed)
        results.append(chain_launch.run(board, chain, (100_000,), (x, x[0])))
        assert len(board.names) == 2
    assert all(r.tobytes() == results[0].tobytes() for r in results)


@needs_compiler
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (50, 40)], ids=str)
def test_a_map_is_right_on_any_grid(grid):
    chain = chains.network("float64")
    operands = operands_of(chain, (9,), (6, 70), 2)
    for block in ((1, 1), (32, 8), (4, 2)):
        check_kernel(chain, (6, 70), operands, OnCpu(grid=grid, block=block))


@needs_compiler
@pytest.mark.parametrize("axes", [(), (-1,), (-3, -2, -1)], ids=str)
def test_64_bit_offsets_give_the_same_numbers(monkeypatch, axes):
    chain = chains.network("float64", axes)
    operands = operands_of(chain, (3,), (20, 5, 30), 2)
    operands = (operands[0][::-1], operands[1].transpose(0, 3, 2, 1).copy().T.transpose(3, 0, 1, 2), *operands[2:])
    narrow = check_kernel(chain, (20, 5, 30), operands)
    monkeypatch.setattr(chain_launch, "_NARROW", 0)
    prepared.cache_clear()
    wide = check_kernel(chain, (20, 5, 30), operands)
    prepared.cache_clear()
    assert wide.tobytes() == narrow.tobytes()


def test_large_arrays_take_64_bit_offsets():
    small = chains.kernel_of(chains.product("float32", 1), (1 << 14,), (1 << 14,))
    large = chains.kernel_of(chains.product("float32", 1), (1 << 17,), (1 << 15,))
    assert "long long" in large.source.rpartition("__global__")[2]
    assert "long long" not in small.source.rpartition("__global__")[2]


@needs_compiler
def test_zero_tangents_stay_zero_at_infinite_coefficients():
    chain = Chain(("float64", "float64"), (Step("guarded", (0, 1), "float64"),), (2,))
    t, c = np.array([0.0, 1.0, -0.0, 2.0]), np.array([np.inf, np.inf, np.nan, 3.0])
    found = chain_launch.run(OnCpu(), chain, (4,), (t, c))
    np.testing.assert_array_equal(found, [0.0, np.inf, 0.0, 6.0])


@needs_compiler
def test_a_mask_keeps_infinity_out_of_the_other_branch():
    chain = Chain(("float64", "bool"), (Step("select", (1, 0), "float64"),), (2,))
    found = chain_launch.run(OnCpu(), chain, (3,), (np.array([np.inf, np.nan, 1.0]), np.array([False, False, True])))
    np.testing.assert_array_equal(found, [0.0, 0.0, 1.0])


@needs_compiler
@pytest.mark.parametrize("axes", [(), (-1,)], ids=str)
@pytest.mark.parametrize(("lead", "domain"), [((0,), (3,)), ((2,), (0,))], ids=str)
def test_empty_operands_launch_nothing(lead, domain, axes):
    chain = chains.product("float64", 1, axes)
    board = OnCpu()
    found = check_kernel(chain, domain, operands_of(chain, lead, domain, 1), board)
    assert board.names == []
    assert not found.any()


def launch_of(chain, lead, domain, order="C"):
    return chains.kernel_of(chain, lead, domain, order=order)


def test_the_text_does_not_depend_on_sizes_or_numbers():
    chain = chains.product("float64", 3)
    kernels = {launch_of(chain, lead, domain) for lead, domain in (((4,), (5,)), ((100,), (7,)), ((3, 2), (9, 9)))}
    assert len(kernels) == 1
    assert launch_of(chain, (4,), (5,), "F") not in kernels
    assert launch_of(chains.product("float64", 2), (4,), (5,)) not in kernels
    assert launch_of(chains.product("float32", 3), (4,), (5,)) not in kernels
    x = np.ones((2, 3))
    scaled = Chain(("float64", "float64"), (Step("multiply", (0, 1), "float64"),), (2,))
    by_value = {prepared(scaled, (3,), ((x.dtype, x.shape, x.strides), None)).kernel for _ in (2.0, 3.0)}
    assert len(by_value) == 1


def test_equal_chains_made_twice_are_one_key():
    one, other = chains.network("float32", (-1,)), chains.network("float32", (-1,))
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    layout = codegen.Layout("map", False, 1, 1, (codegen.Access("s", "1"),) * 5 + (None,))
    assert codegen.kernel(one, layout) is codegen.kernel(other, layout)


def test_products_of_coefficients_are_formed_outside_the_loop_over_rows():
    text = chains.kernel_of(chains.product("float64", 20)).source.rpartition("__global__")[2]
    before, _, inside = text.rpartition("for (")
    assert inside.count(" * ") - inside.count("(int)") - inside.count("r * ") <= 2
    assert before.count("const double v") == 20 + 19


# ---------------------------------------------------------------- absent tangents


def test_absent_tangents_drop_the_steps_that_only_they_reach():
    chain = chains.network("float64")
    found, inputs, _ = restricted(chain, frozenset(range(6)) - {0})
    assert inputs == (1, 4)
    assert [s.name for s in found.steps] == ["multiply"]
    found, inputs, _ = restricted(chain, frozenset(range(6)) - {1})
    assert inputs == (0, 2, 3, 5)
    assert "add" not in {s.name for s in found.steps}
    assert restricted(chain, frozenset(range(6)) - {0, 1}) is None
    assert restricted(chain, frozenset(range(6)))[0] == chain


@given(seed=st.integers(0, 2**32 - 1))
def test_absent_tangents_are_zeros(seed):
    chain = chains.network("float64", (-1,))
    rng = np.random.default_rng(seed)
    operands = operands_of(chain, (2,), (3, 4), 2, seed)
    absent = {int(rng.integers(0, 2))}
    found, inputs, _ = restricted(chain, frozenset(range(6)) - absent)
    zeros = tuple(np.zeros_like(x) if k in absent else x for k, x in enumerate(operands))
    wanted = interpret(HOST, chain, (3, 4), zeros)
    np.testing.assert_allclose(interpret(HOST, found, (3, 4), tuple(operands[i] for i in inputs)), wanted, atol=1e-15)


def test_of_several_results_only_those_that_are_not_zero_are_left():
    d = "float64"
    steps = (Step("multiply", (0, 2), d), Step("add", (1, 3), d), Step("negative", (1,), d))
    chain = Chain((d, d, d), steps, (3, 4, 5))
    only_first = restricted(chain, frozenset((0, 2)))
    assert only_first.outputs == (0, 1)
    assert only_first.inputs == (0, 2)
    assert only_first.chain.outputs == (2, 2)
    only_second = restricted(chain, frozenset((1, 2)))
    assert only_second.outputs == (1, 2)
    assert only_second.inputs == (1,)
    alone = single(chain, 2)
    assert (alone.inputs, alone.outputs, len(alone.chain.steps)) == ((1,), (2,), 1)


@needs_compiler
def test_several_results_take_one_launch():
    d = "float64"
    steps = (Step("multiply", (0, 1), d), Step("cast", (2,), "float32"), Step("add", (0, 2), d))
    chain = Chain((d, d), steps, (2, 3, 4))
    board = OnCpu()
    check_kernel(chain, (5,), operands_of(chain, (4,), (5,), 1), board)
    assert len(board.names) == 1


# ---------------------------------------------------------------- the interpreter


@pytest.mark.parametrize("chain", [sum_of("float64"), Chain(("float64",), (), (0,))], ids=["sum", "copy"])
def test_results_of_the_interpreter_are_new_memory(chain):
    x = np.ones((2, 3))
    found = interpret(HOST, chain, (3,), (x,))
    assert not np.shares_memory(found, x)
    if not chain.axes:
        twice = interpret(HOST, Chain(("float64",), (Step("negative", (0,), "float64"),), (1, 1)), (3,), (x,))
        assert not np.shares_memory(*twice)
    np.testing.assert_array_equal(found, x.sum(-1) if chain.axes else x)


def test_the_interpreter_runs_in_any_array_library():
    strict = pytest.importorskip("array_api_strict", reason="another array library to run in")
    chain = chains.network("float64", (-1,))
    operands = operands_of(chain, (2,), (3, 4), 2)
    wanted = interpret(HOST, chain, (3, 4), operands)
    found = interpret(Generic(strict), chain, (3, 4), tuple(strict.asarray(x) for x in operands))
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-12, atol=1e-13)


# ---------------------------------------------------------------- what cannot be launched


def test_an_array_of_another_dtype_is_refused():
    with pytest.raises(KernelError, match="input 1 of a generated kernel is float64, but the array is float32"):
        chain_launch.run(OnCpu(), chains.product("float64", 1), (3,), (np.ones(3), np.ones(3, np.float32)))


def test_an_operand_that_does_not_broadcast_is_refused():
    with pytest.raises(KernelError, match=r"shape \(2,\) does not fit the domain \(3,\)"):
        chain_launch.run(OnCpu(), chains.product("float64", 1), (3,), (np.ones(3), np.ones(2)))


def test_strides_between_entries_are_refused():
    fields = np.zeros(4, [("a", "f8"), ("b", "f4")])["a"]
    with pytest.raises(KernelError, match="no whole numbers of entries; copy the array"):
        chain_launch.run(OnCpu(), chains.product("float64", 1), (4,), (fields, np.ones(4)))


def test_a_repeated_launch_prepares_nothing():
    chain = chains.product("float64", 2)
    x = np.ones((math.prod((2, 3)), 4))
    key = ((x.dtype, x.shape, x.strides),) * 3
    assert prepared(chain, (4,), key) is prepared(chain, (4,), key)
