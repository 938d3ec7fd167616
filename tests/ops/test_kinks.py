"""Values of derivatives at kinks and singular points: chosen on purpose, the same in every mode."""

import math
import warnings

import numpy as np
import pytest
from scipy.special import expit, kl_div, xlog1py, xlogy

import gpujac as gj
from gpujac.array.table import SCIPY


def forward(f, x):
    """The derivative of a scalar function by one jvp per entry."""
    x = np.asarray(x, float)
    flat = np.eye(x.size).reshape(x.size, *x.shape)
    return np.array([gj.jvp(f, (x,), (t,))[1] for t in flat]).reshape(x.shape)


def linearized(f, x):
    """The same through the recorded linear program, run forward."""
    x = np.asarray(x, float)
    _, linear = gj.linearize(f, x)
    return np.array([linear(t) for t in np.eye(x.size).reshape(x.size, *x.shape)]).reshape(x.shape)


def batched(f, x):
    """Under vmap, in two equal lanes."""
    return gj.vmap(gj.grad(f))(np.stack([np.asarray(x, float)] * 2))[1]


def nested(f, x):
    """jvp of grad, whose primal is the gradient."""
    x = np.asarray(x, float)
    return gj.jvp(gj.grad(f), (x,), (np.zeros_like(x),))[0]


MODES = {
    "grad": lambda f, x: gj.grad(f)(np.asarray(x, float)),
    "jvp": forward,
    "linearize": linearized,
    "jacrev": lambda f, x: gj.jacrev(f)(np.asarray(x, float)),
    "jacfwd": lambda f, x: gj.jacfwd(f)(np.asarray(x, float)),
    "vmap": batched,
    "nested": nested,
}
ROWS = {
    "abs at 0": (lambda x: np.abs(x), 0.0, 0.0),
    "maximum(x, 0) at 0": (lambda x: np.maximum(x, 0.0), 0.0, 0.5),
    "maximum(0, x) at 0": (lambda x: np.maximum(0.0, x), 0.0, 0.5),
    "minimum(x, 0) at 0": (lambda x: np.minimum(x, 0.0), 0.0, 0.5),
    "fmax(x, 0) at 0": (lambda x: np.fmax(x, 0.0), 0.0, 0.5),
    "fmin(x, 0) at 0": (lambda x: np.fmin(x, 0.0), 0.0, 0.5),
    "max of [1, 1, 0]": (lambda x: np.max(x), [1.0, 1.0, 0.0], [0.5, 0.5, 0.0]),
    "max of three equal": (lambda x: np.max(x), [2.0, 2.0, 2.0], [1 / 3, 1 / 3, 1 / 3]),
    "max with a NaN": (lambda x: np.max(x), [np.nan, 1.0], [0.0, 0.0]),
    "min of [1, 0, 0]": (lambda x: np.min(x), [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]),
    "clip at its lower end": (lambda x: np.clip(x, 0.0, 1.0), 0.0, 1.0),
    "clip at its upper end": (lambda x: np.clip(x, 0.0, 1.0), 1.0, 1.0),
    "clip below": (lambda x: np.clip(x, 0.0, 1.0), -0.5, 0.0),
    "clip above": (lambda x: np.clip(x, 0.0, 1.0), 1.5, 0.0),
    "x**0.0 at 0": (lambda x: x**0.0, 0.0, 0.0),
    "x**0 at 0": (lambda x: x**0, 0.0, 0.0),
    "x**1 at 0": (lambda x: x**1, 0.0, 1.0),
    "x**1.0 at 0": (lambda x: x**1.0, 0.0, 1.0),
    "x**2 at 0": (lambda x: x**2, 0.0, 0.0),
    "x**array(0) at 0": (lambda x: x ** np.float64(0.0), 0.0, 0.0),
    "0**y at y = 0": (lambda y: 0.0**y, 0.0, 0.0),
    "0**y at y = -1": (lambda y: 0.0**y, -1.0, 0.0),
    "0**y at y = 2": (lambda y: 0.0**y, 2.0, 0.0),
    "sqrt at 0": (lambda x: np.sqrt(x), 0.0, np.inf),
    "cbrt at 0": (lambda x: np.cbrt(x), 0.0, np.inf),
    "norm of [0, 0]": (lambda x: np.linalg.norm(x), [0.0, 0.0], [0.0, 0.0]),
    "norm of [0, 3]": (lambda x: np.linalg.norm(x), [0.0, 3.0], [0.0, 1.0]),
    "std of [1, 1]": (lambda x: np.std(x), [1.0, 1.0], [0.0, 0.0]),
    "prod of [0, 2, 3]": (lambda x: np.prod(x), [0.0, 2.0, 3.0], [6.0, 0.0, 0.0]),
    "prod of [0, 0, 3]": (lambda x: np.prod(x), [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]),
    "sinc at 0": (lambda x: np.sinc(x), 0.0, 0.0),
    "hypot(x, 0) at 0": (lambda x: np.hypot(x, 0.0), 0.0, 0.0),
    "hypot(0, x) at 0": (lambda x: np.hypot(0.0, x), 0.0, 0.0),
    "where(x > 0, sqrt(x), 0) at 0": (lambda x: np.where(x > 0, np.sqrt(x), 0.0), 0.0, 0.0),
    "where(x > 0, log(x), 0) at 0": (lambda x: np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), 0.0), 0.0, 0.0),
    "where(x > 0, 1 / x, 0) at 0": (lambda x: np.where(x > 0, 1 / x, 0.0), 0.0, 0.0),
    "xlogy(0, y) at 0": (lambda y: xlogy(0.0, y), 0.0, 0.0),
    "xlog1py(0, y) at -1": (lambda y: xlog1py(0.0, y), -1.0, 0.0),
    "kl_div(0, y) at 2": (lambda y: kl_div(0.0, y), 2.0, 1.0),
    "eigenvalues that repeat": (
        lambda x: np.linalg.eigvalsh(x.reshape(2, 2)).sum(), [2.0, 0.0, 0.0, 2.0], [1.0, 0.0, 0.0, 1.0],
    ),
    "mod(x, 2) at 4": (lambda x: np.mod(x, 2.0), 4.0, 1.0),
    "mod(5, y) at 2": (lambda y: np.mod(5.0, y), 2.0, -2.0),
    "sign at 0": (lambda x: np.sign(x) + 0 * x, 0.0, 0.0),
    "floor at 1": (lambda x: np.floor(x) + 0 * x, 1.0, 0.0),
    "logaddexp of equal": (lambda x: np.logaddexp(x, 1.0), 1.0, 0.5),
    "arctan2(0, x) at -1": (lambda x: np.arctan2(0.0 * x, x), -1.0, 0.0),
    "copysign at 0": (lambda x: np.copysign(x, 1.0), 0.0, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", ROWS)
def test_derivatives_at_kinks_are_the_documented_ones(row, mode):
    f, x, wanted = ROWS[row]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the function itself divides by zero
        found = MODES[mode](f, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- a derivative does not warn


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "row",
    ["sqrt at 0", "cbrt at 0", "x**0.0 at 0", "0**y at y = 0", "norm of [0, 0]", "sinc at 0"],
)
def test_a_derivative_does_not_warn_where_the_function_did_not(row, mode):
    f, x, wanted = ROWS[row]
    found = MODES[mode](f, x)
    np.testing.assert_allclose(found, wanted)


# ---------------------------------------------------------------- no NaN off the diagonal


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_a_jacobian_with_infinite_slopes_is_zero_off_the_diagonal(transform, chunk_size):
    J = transform(np.sqrt, chunk_size=chunk_size)(np.array([0.0, 1.0, 4.0]))
    assert np.array_equal(J, np.diag([np.inf, 0.5, 0.25]))
    mixed = transform(lambda x: np.sqrt(x) @ np.array([[1.0], [0.0], [2.0]]), chunk_size=chunk_size)
    np.testing.assert_allclose(mixed(np.array([1.0, 4.0, 1.0])), [[0.5, 0.0, 1.0]])


def test_the_hessian_of_a_norm_at_zero_holds_no_nan():
    H = gj.hessian(lambda x: np.linalg.norm(x))(np.zeros(2))
    assert not H.any()
    z = np.zeros(2, complex)
    assert not gj.vjp(lambda z: gj.vjp(lambda z: np.abs(z), z)[1](np.ones(2))[0], z)[1](z + 1)[0].any()


def test_mixed_second_derivatives_of_powers():
    def mixed(a, b):
        return gj.grad(lambda b: gj.grad(lambda a: a**b)(a))(b)

    for a, b in ((2.0, 0.0), (2.0, 1.5), (0.5, 1.0)):
        assert mixed(a, b) == pytest.approx(a ** (b - 1) * (1 + b * np.log(a)))
    assert gj.grad(lambda a: gj.grad(lambda b: a**b)(2.0))(0.0) == 0.0


def test_second_derivatives_of_powers_at_zero():
    def second(f):
        return gj.grad(gj.grad(f))(0.0)

    assert second(lambda x: x**2) == 2.0
    assert second(lambda x: x**2.0) == 2.0
    assert second(lambda x: x**3) == 0.0
    assert second(lambda x: x**1) == 0.0
    assert second(lambda x: x**0) == 0.0
    assert gj.grad(gj.grad(gj.grad(lambda x: x**3)))(0.0) == 6.0


def test_products_with_zeros_have_right_second_derivatives():
    H = gj.hessian(np.prod)(np.array([0.0, 2.0, 3.0]))
    np.testing.assert_allclose(H, [[0.0, 3.0, 2.0], [3.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    H = gj.hessian(np.prod)(np.array([0.0, 0.0, 3.0]))
    np.testing.assert_allclose(H, [[0.0, 3.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def test_the_second_derivative_of_sinc_at_zero_is_minus_pi_squared_over_three():
    second = gj.grad(gj.grad(np.sinc))
    assert second(0.0) == pytest.approx(-(np.pi**2) / 3)
    for x in (0.5, 0.16, 0.159):  # both sides of where the series takes over
        assert second(x) == pytest.approx(_sinc_curve(x), rel=1e-9)
    for x in (0.02, 0.1, 0.159, 0.16, 0.3):  # the Taylor series itself, to the last bits
        u = np.pi * x
        terms = [(-1) ** k * 2 * k * u ** (2 * k - 1) / math.factorial(2 * k + 1) for k in range(1, 20)]
        assert gj.grad(np.sinc)(x) == pytest.approx(np.pi * math.fsum(terms), rel=1e-13, abs=1e-14)
    assert gj.grad(np.sinc)(1e-9) == pytest.approx(-(np.pi**2) / 3 * 1e-9)


def _sinc_curve(x):
    p = np.pi
    s, c = np.sin(p * x), np.cos(p * x)
    return -p * s / x - 2 * c / x**2 + 2 * s / (p * x**3)


def test_qr_of_dependent_columns_has_no_derivative_and_leaves_the_other_matrices_theirs():
    regular = np.array([[1.0, 2.0], [3.0, 1.0], [-1.0, 0.5]])
    jacobian = gj.jacfwd(lambda a: np.linalg.qr(a)[1])
    found = gj.vmap(jacobian)(np.stack([regular, regular * [1.0, 0.0]]))
    np.testing.assert_allclose(found[0], jacobian(regular), atol=1e-12)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).any()


def test_logsumexp_of_infinities_has_no_nan():
    f = SCIPY["logsumexp"]
    g = gj.grad(lambda x: f(x))(np.array([-np.inf, 0.0, 0.0]))
    np.testing.assert_allclose(g, [0.0, 0.5, 0.5])
    g = gj.grad(lambda x: f(x))(np.array([1000.0, 0.0]))
    np.testing.assert_allclose(g, [1.0, 0.0])


def test_logistic_does_not_overflow():
    g = gj.vmap(gj.grad(lambda x: expit(x)))(np.array([-800.0, 0.0, 800.0]))
    np.testing.assert_allclose(g, [0.0, 0.25, 0.0])


def test_a_masked_branch_has_no_second_derivative_and_does_not_warn():
    def f(x):
        return np.where(x > 0, np.sqrt(x), 0.0).sum()

    for outer in (gj.jacfwd, gj.jacrev):
        for inner in (gj.jacfwd, gj.jacrev, gj.grad):
            found = outer(inner(f))(np.array([0.0, 4.0]))  # warnings are errors in all tests
            assert found.tolist() == [[0.0, 0.0], [0.0, -1 / 32]]


def test_shares_at_ties_hold_inside_complex_programs():
    g = gj.grad(lambda x: (np.maximum(x, 1.0) * (1 + 2j) * (1 - 1j)).real.sum())
    np.testing.assert_allclose(g(np.array([0.5, 1.0, 2.0])), [0.0, 1.5, 3.0])


def test_complex_second_derivatives_beside_a_singular_entry_are_those_of_the_entry_alone():
    w, z, ct = np.array([1 - 2j, 2 + 1j]), np.array([0, 1 + 2j]), np.array([0, 0.3 - 1j])

    def pulled(w, z, ct):
        with np.errstate(all="ignore"):
            return gj.vjp(gj.grad(lambda z: (w * np.log(z)).real.sum()), z)[1](ct)[0]

    np.testing.assert_allclose(pulled(w, z, ct)[1:], pulled(w[1:], z[1:], ct[1:]))


def test_a_masked_branch_has_no_third_derivative():
    g = gj.grad(lambda x: np.where(x > 0, np.sqrt(x), 0.0).sum())
    x, wanted = np.array([0.0, 4.0]), np.zeros((2, 2, 2))
    wanted[1, 1, 1] = 3 / 256
    for outer in (gj.jacfwd, gj.jacrev):
        for inner in (gj.jacfwd, gj.jacrev):
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(outer(inner(g))(x), wanted)
