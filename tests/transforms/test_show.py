"""gj.show: the recorded linear program as a table, with sizes, flops, source lines and totals."""

import re
from pathlib import Path

import numpy as np
import pytest

import gpujac as gj
from gpujac.core.source import Line
from gpujac.engine.fuse import fuse
from gpujac.program.ir import Partial, Scale
from gpujac.program.printer import flops, residual_bytes, table, total_flops
from gpujac.transforms.vjp import Linearized

A = np.arange(12.0).reshape(4, 3)
FILE = Path(__file__).name


def model(p, x):
    h = np.tanh(A @ x + p["b"])
    g = np.where(h > 0, h, 0.1 * h)[:2]
    return {"loss": (g**2).sum(), "top": np.concatenate([g, h])}


GOLDEN = """\
linear program of model
var  operation            of     shape  dtype    bytes  kept  flops  line
v0   input                       (4,)   float64     32     0      0
v1   input                       (3,)   float64     24     0      0
v2   contract, operand 1  v1     (4,)   float64     32    96     24  F:1  h = np.tanh(A @ x + p["b"])
v3   add                  v2 v0  (4,)   float64     32     0      4  F:1  h = np.tanh(A @ x + p["b"])
v4   tanh                 v3     (4,)   float64     32    32      4  F:1  h = np.tanh(A @ x + p["b"])
v5   multiply             v4     (4,)   float64     32     0      4  F:2  g = np.where(h > 0, h, 0.1 * h)[:2]
v6   where                v4 v5  (4,)   float64     32     8     12  F:2  g = np.where(h > 0, h, 0.1 * h)[:2]
v7   slice                v6     (2,)   float64     16     0      0  F:2  g = np.where(h > 0, h, 0.1 * h)[:2]
v8   power                v7     (2,)   float64     16    16      2  F:3  return {"loss": (g**2).sum(), "top": np.concatenate([g, h])}
v9   sum                  v8     ()     float64      8     0      2  F:3  return {"loss": (g**2).sum(), "top": np.concatenate([g, h])}
v10  concat               v7 v4  (6,)   float64     48     0      0  F:3  return {"loss": (g**2).sum(), "top": np.concatenate([g, h])}
outputs: v9, v10
entries: 11, kept between sweeps: 152 bytes
a row: 104 bytes live forward, 96 in reverse, 52 flops"""  # noqa: E501 (as it is printed)


def with_numbers_from(text, first):
    """Lines counted from `first`, the file as F."""
    return re.sub(rf"{FILE}:(\d+)", lambda found: f"F:{int(found[1]) - first}", text)


def test_the_whole_table():
    shown = gj.show(model)({"b": np.zeros(4)}, np.ones(3))
    assert with_numbers_from(str(shown), model.__code__.co_firstlineno) == GOLDEN
    assert repr(shown) == str(shown)


def test_columns_are_aligned():
    lines = str(gj.show(model)({"b": np.zeros(4)}, np.ones(3))).splitlines()[1:13]
    for word in ("operation", "of", "shape", "dtype", "line"):
        at = lines[0].index(f" {word}") + 1
        assert all(len(line) <= at or line[at - 1] == " " for line in lines)
    for word in ("bytes", "kept", "flops"):
        end = lines[0].index(word) + len(word)
        assert all(line[end - 1].isdigit() for line in lines[1:])


def program_of(f, *args):
    return Linearized("show", f, args, {}, None, False, check=False, lines=True).program


def cost_of(f, *args):
    """Flops of the last entry."""
    program = program_of(f, *args)
    return flops(program, len(program.entries) - 1)


X = np.ones(3)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: np.sin(x), 3), (lambda x: x * A[0], 3), (lambda x: x * x, 9), (lambda x: x + x, 3),
        (lambda x: x + 1.0, 0), (lambda x: -x, 3), (lambda x: x.sum(), 3), (lambda x: np.cumsum(x), 3),
        (lambda x: x[1:], 0), (lambda x: x.reshape(3, 1), 0), (lambda x: x.astype(np.float32), 0),
        (lambda x: A @ x, 2 * 4 * 3), (lambda x: x @ A.T, 2 * 4 * 3), (lambda x: np.outer(x, A[0]), 2 * 9),
        (lambda x: np.einsum("i,ji->j", x, A), 24), (lambda x: np.linalg.solve(np.eye(3), x), 2 * 9),
        (lambda x: np.concatenate([x, x]), 0), (lambda x: x[np.array([0, 0, 1])], 0),
    ],
)  # fmt: skip
def test_flops_of_one_row(f, expected):
    assert cost_of(f, X) == expected


def test_flops_of_a_fourier_transform_are_five_n_log_n():
    assert cost_of(lambda x: np.fft.fft(x), np.ones((3, 8), complex)) == 3 * 5 * 8 * 3
    assert cost_of(lambda x: np.fft.fft2(x), np.ones((4, 8), complex)) == 5 * 32 * 5


def test_flops_of_a_matrix_product_are_two_m_n_k():
    assert cost_of(lambda x: x @ np.ones((5, 7)), np.ones((2, 5))) == 2 * 2 * 5 * 7
    assert cost_of(lambda x: np.ones((4, 2, 5)) @ x, np.ones((4, 5, 7))) == 4 * 2 * 2 * 5 * 7


@pytest.mark.parametrize("n", [1, 10])
def test_totals_are_sums_over_the_entries(n):
    def f(x):
        for _ in range(n):
            x = np.sin(x) * x
        return x

    program = program_of(f, X)
    assert total_flops(program) == sum(flops(program, i) for i in range(len(program.entries)))
    assert total_flops(program) == n * (3 + 9)
    # cos(x) of each sine, and the two operands of each product; x is one of them and counted once
    assert residual_bytes(program) == sum(
        c.nbytes for c in {id(c): c for e in program.entries if type(e) is Scale for c in e.coefs}.values()
    )


def test_an_array_that_two_entries_keep_is_counted_once():
    B = np.eye(3)
    B.setflags(write=False)
    program = program_of(lambda x: (B @ x, B @ (B @ x)), X)
    assert sum(type(e) is Partial for e in program.entries) == 3
    assert residual_bytes(program) == B.nbytes


def test_lines_belong_to_entries():
    def helper(u):
        return np.exp(u)  # helper

    def f(x):
        y = helper(x)
        return (
            y
            * 2.0
        )  # fmt: skip

    lines = program_of(f, X).lines
    assert lines[0] is None
    assert all(isinstance(line, Line) for line in lines[1:])
    assert [(line.function.rpartition(".")[2], line.text) for line in lines[1:]] == [
        ("helper", "return np.exp(u)  # helper"), ("f", "y")
    ]  # fmt: skip
    assert lines[1].file == __file__


def test_lines_of_operations_that_write_several_entries():
    def f(x):
        y = np.var(x)  # several
        return y * np.linalg.norm(x)  # more

    program = program_of(f, X)
    texts = [line.text for line in program.lines[1:]]
    assert set(texts) == {"y = np.var(x)  # several", "return y * np.linalg.norm(x)  # more"}
    assert texts == sorted(texts, reverse=True)


def test_lines_are_not_recorded_unless_asked_for():
    linear = Linearized("vjp", lambda x: x * 2, (X,), {}, None, False, check=False)
    assert linear.program.spots is None
    assert linear.program.lines is None
    assert linear.program.line(1) is None


def test_selected_arguments_and_keywords():
    def f(n, x, *, scale):
        return x * n * scale

    lines = str(gj.show(f, argnums=1)(2, X, scale=3.0)).splitlines()
    assert [line.split()[1] for line in lines[2:5]] == ["input", "multiply", "multiply"]
    with pytest.raises(gj.GpujacError, match="int"):
        gj.show(f)(2, X, scale=3.0)
    with pytest.raises(gj.ArgumentTypeError, match="first argument must be a function"):
        gj.show(X)
    with pytest.raises(gj.ArgumentTypeError, match=r"argnums=0\.5"):
        gj.show(f, argnums=0.5)


def test_of_a_transform():
    text = str(gj.show(gj.jacrev(lambda x: np.sin(A @ x)))(X))
    assert "cos" in text
    assert text.splitlines()[-3] == "outputs: v7"
    assert "contract, operand 1" in str(gj.show(gj.grad(lambda x: np.sin(A @ x).sum()))(X))


def test_under_a_transform_it_shows_logical_shapes():
    seen = []

    def f(x):
        seen.append(str(gj.show(np.sin)(x)))
        return x

    gj.vmap(f)(np.ones((5, 3)))
    gj.grad(lambda x: f(x).sum())(X)
    for text in seen:
        assert text.splitlines()[3].split()[:4] == ["v1", "sin", "v0", "(3,)"]


def test_outputs_that_do_not_depend_are_zero():
    lines = str(gj.show(lambda x: (x, 1.0, x))(X)).splitlines()
    assert "outputs: v0, zero, v0" in lines


def test_held_functions_are_calls():
    @gj.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, ct: (3 * x**2 * ct,))
    text = str(gj.show(lambda x: cube(x) * 2.0)(X))
    row = next(line for line in text.splitlines() if " call " in line)
    assert "cube" in row
    assert " ? " in row
    assert "unknown flops" in text
    assert f"kept between sweeps: {X.nbytes} bytes" in text  # the residual of the rule


def test_several_results_of_a_held_function_are_entries_of_their_own():
    @gj.custom_vjp
    def both(x):
        return x**2, x**3

    both.defvjp(lambda x: ((x**2, x**3), x), lambda x, ct: (2 * x * ct[0] + 3 * x**2 * ct[1],))
    text = str(gj.show(lambda x: sum(both(x)))(X))
    assert "result 0" in text
    assert "result 1" in text


def test_a_fused_program_can_be_printed_too():
    program = program_of(lambda x: np.sin(np.exp(x) * 2.0) * x, X)
    for entry in program.entries[1:]:
        if entry.coefs is None:
            entry.resolve()
    text = table(fuse(program))
    assert "fused" in text


def test_the_object_holds_the_program():
    shown = gj.show(np.sin)(X)
    assert len(shown.program.entries) == 2


def test_a_program_is_readable_when_the_transform_around_is_over():
    shown = []

    def f(x):
        shown.append(gj.show(lambda y: np.sin(y) * x)(x))
        return x.sum()

    gj.grad(f)(np.ones(3))
    gj.vmap(f)(np.ones((2, 3)))
    assert ["sin" in str(s) for s in shown] == [True, True]
    assert "sqrt" in str(gj.show(np.sqrt)(np.zeros(2)))  # a slope that is infinite warns of nothing
