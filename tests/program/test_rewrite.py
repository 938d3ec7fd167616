"""Programs made smaller compute the same map, stay well formed, and are as small as they should be."""

from typing import Any

import numpy as np
import pytest

import gpujac as gj
from gpujac.engine.fuse import fuse
from gpujac.ops import structure as st
from gpujac.ops.composed import composed, is_identity
from gpujac.ops.indexing import pad, slice_of
from gpujac.program.ir import Apply, Gather, Input, Program, Scale
from gpujac.program.rewrite import rewritten
from gpujac.program.simplify import merge_writes, simplified
from gpujac.transforms.plans import transposed
from gpujac.transforms.sweep import pull, push
from gpujac.transforms.vjp import Linearized
from tests import fuzz
from tests.program.well_formed import check

SEEDS = range(60)


def recorded(f: Any, *args: Any) -> Program:
    """The linear program of a function at a point."""
    return Linearized("jacrev", f, args, {}, tuple(range(len(args))), False, check=False).program


def forward(program: Program) -> list:
    """The dense matrix by forward sweeps, one block per output."""
    total = sum([int(np.prod(e.shape)) for e in program.entries[: program.inputs]])
    eye, start, seeds = np.eye(total), 0, []
    for entry in program.entries[: program.inputs]:
        n = int(np.prod(entry.shape))
        seeds.append(eye[:, start : start + n].reshape(total, *entry.shape).astype(entry.dtype))
        start += n
    return push(program, seeds)


def backward(program: Program) -> list:
    """The dense matrix by reverse sweeps, one block per input, the rows of all outputs in one seed each."""
    outputs = [v for v in program.outputs if v is not None]
    sizes = [int(np.prod(program.shape(v))) for v in outputs]
    eye, start, seeds = np.eye(sum(sizes)), 0, []
    for v, n in zip(outputs, sizes, strict=True):
        seeds.append((v, eye[:, start : start + n].reshape(sum(sizes), *program.shape(v))))
        start += n
    return pull(program, seeds)


def agree(found: list, wanted: list) -> None:
    """Blocks of two matrices are equal to rounding."""
    for a, b in zip(found, wanted, strict=True):
        if a is None or b is None:
            assert not np.any(b if a is None else a), "a zero block"
            continue
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * (1 + np.abs(b).max(initial=0.0)))


@pytest.mark.parametrize("seed", SEEDS)
def test_programs_are_well_formed_and_the_same_map_after_every_pass(seed: int) -> None:
    drawn = fuzz.Program(seed)
    with np.errstate(all="ignore"):
        program = recorded(drawn.f, *drawn.inputs)
    check(program)
    ahead, back = forward(program), backward(program)
    for smaller in (rewritten(program), simplified(program), merge_writes(program)):
        check(smaller)
        agree(forward(smaller), ahead)
        agree(backward(smaller), back)
        assert len(smaller.entries) <= len(program.entries) + 1, "never more entries than before"
    turned = transposed(program)
    check(turned)
    seeds = [v for v in program.outputs if v is not None]
    if len(seeds) == len(program.outputs):
        agree(forward(turned), back)
        smaller = rewritten(turned)
        check(smaller)
        agree(forward(smaller), back)
    fused = fuse(rewritten(program))
    check(fused)


@pytest.mark.parametrize("seed", range(200, 210))
def test_a_program_that_is_made_smaller_again_stays_as_it_is(seed: int) -> None:
    drawn = fuzz.Program(seed)
    with np.errstate(all="ignore"):
        once = rewritten(recorded(drawn.f, *drawn.inputs))
    assert rewritten(once) is once


def kinds(program: Program) -> list[str]:
    """What the entries behind the inputs do."""
    return [getattr(getattr(e, "op", None), "name", None) or "scale" for e in program.entries[program.inputs :]]


SMALLER = {
    "transposed twice": (lambda x: x.T.T * 2.0, ["multiply"]),
    "reshaped there and back": (lambda x: x.reshape(-1).reshape(3, 4) * 2.0, ["multiply"]),
    "rows of a part": (lambda x: x[1:][:, 1:][0], ["slice"]),
    "rolled there and back": (lambda x: np.roll(np.roll(x, 1, 0), -1, 0) * 2.0, ["multiply"]),
    "rolled twice": (lambda x: np.roll(np.roll(x, 1, 0), 1, 1), ["roll"]),
    "flipped twice": (lambda x: np.flip(np.flip(x, 0), 0) * 2.0, ["multiply"]),
    "the same part read twice": (lambda x: x[0] * x[1] + x[0] * 2.0, ["slice", "slice", "multiply", "multiply", "add"]),
    "the same sine twice": (lambda x: np.sin(x) + np.sin(x), ["sin", "add"]),
    "a result that is not used": (lambda x: (np.cos(x), x * 3.0)[1], ["multiply"]),
    "wider and narrower again": (lambda x: x.astype(complex).real.astype(float) * 2.0, ["cast", "real", "multiply"]),
}


@pytest.mark.parametrize("name", SMALLER)
def test_what_need_not_be_done_is_left_out(name: str) -> None:
    f, wanted = SMALLER[name]
    program = recorded(f, np.linspace(0.1, 1.2, 12).reshape(3, 4))
    smaller = rewritten(program)
    assert sorted(kinds(smaller)) == sorted(wanted)
    agree(forward(smaller), forward(program))


def test_float32_between_two_float64_is_kept_for_it_rounds() -> None:
    program = recorded(lambda x: x.astype(np.float32).astype(np.float64), np.ones(3))
    assert kinds(rewritten(program)) == ["cast", "cast"]


def test_float64_between_two_float32_is_left_out() -> None:
    program = recorded(lambda x: x.astype(np.float64).astype(np.float32), np.ones(3, np.float32))
    assert kinds(rewritten(program)) == []


def test_factors_on_both_sides_of_a_transposition_are_multiplied_once() -> None:
    x, c = np.linspace(0.1, 1.2, 12).reshape(3, 4), np.linspace(1.0, 2.0, 12).reshape(4, 3)
    program = recorded(lambda x: np.sin(x).T * c, x)
    smaller = simplified(program)
    assert [e.__class__ for e in smaller.entries] == [Input, Scale, Apply]
    agree(forward(smaller), forward(program))
    agree(backward(smaller), backward(program))


def test_a_factor_stays_where_another_reader_needs_what_is_before_it() -> None:
    x = np.linspace(0.1, 1.2, 12).reshape(3, 4)

    def f(x: Any) -> Any:
        y = np.sin(x).T
        return y * 2.0, y

    program = recorded(f, x)
    smaller = simplified(program)
    assert len(smaller.entries) == 4
    agree(forward(smaller), forward(program))


def test_pads_that_are_added_up_are_written_into_one_array() -> None:
    entries = [Input((2,), np.dtype(float)), Input((3,), np.dtype(float))]
    entries += [Apply(pad((5,), ((0, 2, 1),)), (0,), (5,), np.dtype(float))]
    entries += [Apply(pad((5,), ((1, 4, 1),)), (1,), (5,), np.dtype(float))]
    entries += [Scale(None, (0, 1), (2, 3), None, None, (None, None), (5,), np.dtype(float))]
    program = Program(entries, 2, [4])
    smaller = rewritten(program)
    check(smaller)
    assert [e.__class__ for e in smaller.entries] == [Input, Input, Gather]
    agree(forward(smaller), forward(program))
    agree(backward(smaller), backward(program))


def test_a_program_with_nothing_to_leave_out_is_returned_itself() -> None:
    program = recorded(lambda x: np.tanh(x @ x.T), np.ones((2, 2)) * 0.1)
    assert rewritten(program) is program


def test_an_infinite_slope_leaves_a_zero_tangent_zero() -> None:
    def f(x: Any) -> Any:
        return (np.sqrt(x.T) * 2.0).T.reshape(-1)

    x = np.array([[0.0, 4.0], [9.0, 0.0]])
    with np.errstate(all="ignore"):
        found = forward(simplified(recorded(f, x)))[0]
        wanted = forward(recorded(f, x))[0]
    np.testing.assert_array_equal(found, wanted)
    assert not np.isnan(found).any()


def test_lines_of_the_users_code_stay_with_their_entries() -> None:
    def f(x: Any) -> Any:
        y = x.T.T
        return np.sin(y)

    program = gj.show(f)(np.ones((2, 2))).program
    lines = rewritten(program).lines
    assert lines is not None
    assert lines[-1] is not None
    assert lines[-1].text == "return np.sin(y)"


PAIRS = [
    (st.reshape((6,), (2, 3)), st.reshape((2, 3), (6,)), (4, 2, 3)),
    (st.reshape((4, 6), (24,)), st.reshape((2, 3), (6,)), (4, 2, 3)),
    (st.reshape((6,), (3, 2)), st.reshape((8, 3), (4, 6)), (8, 3)),
    (st.permute((3, 2), (-1, -2)), st.permute((2, 3), (-1, -2)), (4, 2, 3)),
    (st.permute((4, 3, 2), (-1, -3, -2)), st.permute((2, 3), (-1, -2)), (4, 2, 3)),
    (st.permute((2, 4), (-1, -2)), st.permute((4, 2, 3), (-1, -3, -2)), (4, 2, 3)),
    (st.roll((4,), (3,), (-1,)), st.roll((3, 4), (1, 2), (-2, -1)), (2, 3, 4)),
    (st.flip((3, 4), (-2,)), st.flip((4,), (-1,)), (2, 3, 4)),
    (slice_of((3,), ((2, -1, -1),)), slice_of((8,), ((7, 1, -2),)), (2, 8)),
    (slice_of((3,), (1,)), slice_of((8,), ((1, 7, 2),)), (2, 8)),
    (slice_of((5, 3), ((1, 4, 1), (0, 3, 2))), slice_of((8,), ((1, 7, 2),)), (5, 8)),
    (slice_of((3,), ((0, 2, 1),)), slice_of((5, 8), (2, (1, 7, 2))), (4, 5, 8)),
    (slice_of((3,), ((1, 1, 1),)), slice_of((8,), ((1, 7, 2),)), (2, 8)),
    (slice_of((8,), ((1, 7, 2),)), pad((8,), ((1, 7, 2),)), (2, 3)),
]


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_two_structural_ops_as_one_give_what_the_two_give(number: int) -> None:
    second, first, shape = PAIRS[number]
    both = composed(second, first)
    assert both is not None
    x = np.arange(float(np.prod(shape))).reshape(shape)
    np.testing.assert_array_equal(both(x), second(first(x)))


def test_ops_of_other_kinds_are_not_joined() -> None:
    assert composed(st.permute((2, 3), (-1, -2)), st.reshape((6,), (2, 3))) is None
    assert composed(st.sum_over((2, 3), (-1,)), st.reshape((6,), (2, 3))) is None


def test_an_identity_is_told_from_what_is_none() -> None:
    assert is_identity(st.roll((4,), (8,), (-1,)))
    assert is_identity(slice_of((4,), ((0, 4, 1),)))
    assert not is_identity(st.roll((4,), (1,), (-1,)))
    assert not is_identity(slice_of((4,), ((3, -1, -1),)))
    assert not is_identity(st.permute((2, 3), (-1, -2)))
