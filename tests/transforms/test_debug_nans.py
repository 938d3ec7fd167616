"""settings.debug_nans: the first operation that makes a NaN or an infinity is named, forward and in sweeps."""

import numpy as np
import pytest

import gpujac as gj
from gpujac import settings
from gpujac.core.op_ranges import watched
from gpujac.transforms.jvp import JvpTrace
from gpujac.transforms.linearize import LinearizeTrace

X = np.array([1.0, 0.0, 2.0])
BATCH = np.stack([X + 1.0, X, X + 2.0])  # a zero in lane 1


@pytest.fixture
def debugging():
    """The setting; each test of this file asks for it at the end, so that it holds where they run again."""
    with settings.override(debug_nans=True), np.errstate(all="ignore"):
        yield


def refused(call, *args):
    with pytest.raises(gj.NonFiniteError) as caught:
        call(*args)
    assert isinstance(caught.value, FloatingPointError)
    return str(caught.value)


def forward(x):
    y = x * 2.0
    z = np.log(y)  # the first infinity
    return z - z  # a NaN, too late


def backward(x):
    y = x * 1.0
    return np.sqrt(y) * 3.0  # the slope is infinite


def summed(f):
    return lambda x: f(x).sum()


CALLS = {
    "grad": lambda f: gj.grad(summed(f))(X),
    "vjp": lambda f: gj.vjp(f, X)[1](np.ones_like(f(X))),
    "jvp": lambda f: gj.jvp(f, (X,), (np.ones(3),)),
    "linearize": lambda f: gj.linearize(f, X)[1](np.ones(3)),
    "jacrev": lambda f: gj.jacrev(f)(X),
    "jacrev in chunks": lambda f: gj.jacrev(f, chunk_size=2)(X),
    "jacrev row by row": lambda f: gj.jacrev(f, chunk_size=1)(X),
    "jacfwd": lambda f: gj.jacfwd(f)(X),
    "jacfwd in chunks": lambda f: gj.jacfwd(f, chunk_size=2)(X),
    "hessian": lambda f: gj.hessian(summed(f))(X),
    "vmap of grad": lambda f: gj.vmap(gj.grad(summed(f)))(BATCH),
    "vmap of jvp": lambda f: gj.vmap(lambda x: gj.jvp(f, (x,), (x + 1.0,))[1])(BATCH),
    "vmap of jacrev": lambda f: gj.vmap(gj.jacrev(f))(BATCH),
    "vmap of vmap of grad": lambda f: gj.vmap(gj.vmap(gj.grad(summed(f))))(np.stack([BATCH, BATCH + 1.0])),
    "grad of grad": lambda f: gj.grad(lambda x: gj.grad(summed(f))(x).sum())(X),
    "jvp of grad": lambda f: gj.jvp(gj.grad(summed(f)), (X,), (X,)),
    "grad of vmap": lambda f: gj.grad(lambda x: gj.vmap(f)(x).sum())(BATCH),
    "jacfwd of jacrev": lambda f: gj.jacfwd(gj.jacrev(f))(X),
}
every_call = pytest.mark.parametrize("name", list(CALLS))


@every_call
def test_forward_the_first_operation_its_operands_and_its_line_are_named(name):
    message = refused(CALLS[name], forward)
    first, *rows, line = message.splitlines()
    assert first.startswith("log is not finite ")
    assert "at index [1]" in first or "at index [1, 1]" in first
    assert rows[0].startswith("  operand 0: shape (3,), float64, ") or "vmap" in name
    assert "1 zero, 0 NaN, 0 infinite" in rows[0]
    assert rows[-1].startswith("  result: ")
    assert rows[-1].endswith("0 NaN, 1 infinite")
    assert line.startswith(f'  File "{__file__}", line ')
    assert line.endswith("in forward: z = np.log(y)  # the first infinity")


@every_call
def test_in_a_sweep_the_operation_is_named_with_the_line_of_the_function(name):
    message = refused(CALLS[name], backward)
    first, *rows, line = message.splitlines()
    assert "tangent" in first.partition(" is not finite")[0]
    assert "of sqrt is not finite" in first
    assert line.endswith("in backward: return np.sqrt(y) * 3.0  # the slope is infinite")
    assert rows[-1].startswith("  result: ")
    assert rows[-1].endswith("infinite")


def test_the_whole_message_forward():
    message = refused(gj.grad(summed(forward)), X)
    number = forward.__code__.co_firstlineno + 2
    assert message == (
        "log is not finite at index [1], and was made of finite numbers, in grad of <lambda>\n"
        "  operand 0: shape (3,), float64, from 0 to 4; 1 zero, 0 NaN, 0 infinite\n"
        "  result: shape (3,), float64, from 0.6931 to 1.386; 0 zero, 0 NaN, 1 infinite\n"
        f'  File "{__file__}", line {number}, in forward: z = np.log(y)  # the first infinity'
    )


def test_the_whole_message_of_a_sweep():
    message = refused(gj.grad(summed(backward)), X)
    number = backward.__code__.co_firstlineno + 2
    assert message == (
        "the cotangent of operand 0 of sqrt is not finite at index [1], and was made of finite numbers, "
        "in entry 2 of the reverse sweep\n"
        "  cotangent: shape (3,), float64, from 3 to 3; 0 zero, 0 NaN, 0 infinite\n"
        "  value: shape (3,), float64, from 0 to 1.414; 1 zero, 0 NaN, 0 infinite\n"
        "  slope at operand 0: shape (3,), float64, from 0.3536 to 0.5; 0 zero, 0 NaN, 1 infinite\n"
        "  result: shape (3,), float64, from 1.061 to 1.5; 0 zero, 0 NaN, 1 infinite\n"
        f'  File "{__file__}", line {number}, in backward: return np.sqrt(y) * 3.0  # the slope is infinite'
    )


def test_the_lane_is_named():
    assert "log is not finite in lane 1 at index [1]," in refused(gj.vmap(forward), BATCH)
    assert "in lane 1 at index [1]," in refused(gj.vmap(gj.grad(summed(forward))), BATCH)
    assert "in lane 1 at index [1]," in refused(gj.vmap(gj.grad(summed(backward)), in_dims=1), BATCH.T.copy())
    twice = np.stack([BATCH + 1.0, BATCH + 2.0, BATCH])
    assert "in lane (2, 1) at index [1]," in refused(gj.vmap(gj.vmap(forward)), twice)
    message = refused(gj.vmap(gj.vmap(forward, in_dims=1), in_dims=2), np.moveaxis(twice, (0, 1, 2), (2, 1, 0)))
    assert "in lane (2, 1) at index [1]," in message
    assert "shape (3,), float64, 3 x 3 lanes," in message


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (lambda x: np.exp(x * 1000.0), "exp"), (lambda x: 1.0 / x, "divide"), (lambda x: x / 0.0, "divide"),
        (lambda x: np.arccos(x), "arccos"), (lambda x: (x - x) / (x - x), "divide"), (lambda x: x ** -1.0, "power"),
        (lambda x: np.sqrt(x - 5.0), "sqrt"), (lambda x: (x * 1e200) * (x * 1e200), "multiply"),
        (lambda x: x * 4e307 + 1.7e308, "add"), (lambda x: np.linalg.solve(np.eye(3) * 1e-9, x * 4e307), "solve"),
        (lambda x: (x * 4e307) @ np.full((3, 3), 9.0), "contract"),
        (lambda x: np.cumsum(np.concatenate([x, x]) * 4e307), "cumsum"),
        (lambda x: np.float64(1e308) * x * 10.0, "multiply"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "transform", [lambda f: gj.vjp(f, X), lambda f: gj.jvp(f, (X,), (X,)), lambda f: gj.vmap(f)(BATCH)]
)
def test_every_kind_of_operation(transform, f, name):
    message = refused(transform, f)
    assert f"{name} is not finite" in message


def test_a_nan_that_comes_in_is_not_reported_but_a_new_one_is():
    bad = np.array([np.nan, 1.0, 0.0])
    with settings.override(debug_nans=False):
        expected = gj.grad(summed(np.sin))(bad)
    np.testing.assert_array_equal(gj.grad(summed(np.sin))(bad), expected)
    assert "log is not finite at index [2]" in refused(gj.grad(summed(np.log)), bad)
    np.testing.assert_array_equal(gj.vmap(lambda x: x * 2)(bad), bad * 2)
    assert "in lane 2" in refused(gj.vmap(np.log), bad)


def test_infinities_that_mask_pass():
    mask = np.array([True, False, True])
    np.testing.assert_array_equal(gj.grad(lambda x: np.max(np.where(mask, x, -np.inf)))(X), [0.0, 0.0, 1.0])
    f = lambda x: np.exp(np.where(mask, x, -np.inf)).sum()
    np.testing.assert_allclose(gj.grad(f)(X), np.where(mask, np.exp(X), 0.0))


def test_a_slope_that_is_masked_away_is_no_error():
    f = lambda x: np.where(x > 0, np.sqrt(x), 0.0)
    J = np.diag([0.5, 0.0, 0.5 / np.sqrt(2.0)])
    np.testing.assert_allclose(gj.jacrev(f)(X), J)
    np.testing.assert_allclose(gj.vmap(gj.grad(summed(f)))(BATCH[1:2]), [J.sum(axis=0)])
    np.testing.assert_allclose(gj.jvp(f, (X,), (X,))[1], J @ X)
    # forward the tangent of sqrt is infinite before `where` drops it
    assert "the tangent of sqrt is not finite" in refused(gj.jacfwd(f), X)


def model(x):
    """Every kind of entry, finite throughout."""
    y = np.tanh(x * np.array([[1.0], [2.0]])) @ np.arange(6.0).reshape(3, 2)
    z = np.zeros_like(y)
    z[0] = y[1] * np.linalg.solve(np.eye(2) * 2.0, y[0])
    w = np.concatenate([z.reshape(-1), np.where(x > 0.5, x, x * x), x[np.array([0, 0, 2])]])
    return np.cumsum(w) * np.exp(-w).mean()


def test_results_are_those_without_the_setting():
    with settings.override(debug_nans=False):
        expected = {name: call(model) for name, call in CALLS.items()}
    for name, call in CALLS.items():
        for a, b in zip(_leaves(call(model)), _leaves(expected[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def _leaves(tree):
    if isinstance(tree, tuple):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [] if callable(tree) else [tree]


def test_complex_values():
    message = refused(lambda: gj.vjp(np.log, X + 0j))
    assert "complex128, moduli from 0 to 2; 1 zero" in message


def test_inside_f_the_setting_can_be_switched_off():
    def f(x):
        with settings.override(debug_nans=False):
            y = 1.0 / x
        return np.where(x > 0, y, 0.0).sum()

    assert gj.vjp(f, X)[0] == 1.5
    assert gj.jvp(f, (X,), (X,))[0] == 1.5


def test_switched_on_for_the_sweep_alone():
    with settings.override(debug_nans=False):
        _, pullback = gj.vjp(backward, X)
    message = refused(lambda: pullback(np.ones(3)))
    assert "of sqrt is not finite" in message
    assert "File" not in message  # lines are recorded while the function runs


def test_held_functions_and_linear_transposes():
    ft = gj.linear_transpose(lambda x: (x * np.array([1.0, 1e200, 1.0]) * 1e200)[::-1], X)
    assert "operand 0 of multiply is not finite at index [1]" in refused(ft, np.ones(3))
    with settings.override(debug_nans=False):
        large = gj.linear_transpose(lambda x: x * np.inf, X)
    assert np.isinf(large(np.ones(3))[0]).all()  # an infinite operand is none of its making


def test_operations_are_the_plain_ones_when_it_is_off():
    for kind in (JvpTrace, LinearizeTrace):
        assert watched(kind) is not kind
        with settings.override(debug_nans=False):
            assert watched(kind) is kind


def test_an_environment_variable_switches_it_on(monkeypatch):
    monkeypatch.setenv("GPUJAC_DEBUG_NANS", "1")
    settings._process.pop("debug_nans", None)
    try:
        token = settings._overrides.set({})
        try:
            assert settings.debug_nans is True
            refused(gj.grad(summed(forward)), X)
        finally:
            settings._overrides.reset(token)
    finally:
        settings._process.pop("debug_nans", None)


def test_in_the_sweep_of_a_sweep_the_line_is_that_of_the_innermost_function():
    def f(x):
        return (x**1.5).sum()  # its second derivative is infinite at 0

    def outer(x):
        return gj.grad(f)(x).sum()

    second = (gj.hessian(f), gj.hessian_diagonal(f), gj.laplacian(f), gj.laplacian(f, chunk_size=1))
    for call in (gj.grad(outer), *second, lambda x: gj.jvp(gj.grad(f), (x,), (x + 1.0,))):
        assert refused(call, X).endswith(": return (x**1.5).sum()  # its second derivative is infinite at 0")


@pytest.mark.parametrize("transform", [gj.hessian_diagonal, gj.laplacian])
def test_diagonals_of_finite_second_derivatives_are_those_without_the_setting(transform):
    f = lambda x: (x**1.5).sum() + np.prod(x)
    found = transform(f)(X + 1.0), gj.vmap(transform(f))(BATCH + 1.0)
    refused(gj.vmap(transform(f)), BATCH)
    with settings.override(debug_nans=False):
        expected = transform(f)(X + 1.0), gj.vmap(transform(f))(BATCH + 1.0)
    for y, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-13)


def test_an_infinite_slope_on_an_outer_level_is_no_operation_of_the_users():
    """Under vmap the slope is computed by operations of another trace, which must not be asked one by one."""
    f = lambda x: np.where(x > 0, np.sqrt(x), 0.0).sum()
    np.testing.assert_allclose(gj.vmap(gj.jacrev(f))(BATCH)[1], [0.5, 0.0, 0.5 / np.sqrt(2.0)])
    np.testing.assert_allclose(gj.vmap(gj.vmap(gj.grad(f)))(np.stack([BATCH, BATCH]))[0, 1, 1], 0.0)


def test_entries_that_a_sweep_writes_have_the_line_of_what_it_swept():
    def f(x):
        y = np.sin(x)  # one
        return (y * y).sum()  # two

    def outer(x):
        return gj.grad(f)(x) * 2.0  # three

    lines = [line.text[-5:] for line in gj.show(outer)(X).program.lines[1:]]
    # sin, y * y, its sum; in the sweep the two products, their sum, cos and the product with it; the last one
    assert lines == ["# one", "# two", "# two", "# two", "# two", "three", "# one", "# one", "three"]


for _name, _test in list(globals().items()):
    if _name.startswith("test_"):
        pytest.mark.usefixtures("debugging")(_test)
