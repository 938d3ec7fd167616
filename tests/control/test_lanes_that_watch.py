"""Lanes that only watch a branch or a loop: what a function refuses of them, or fails at, is no error."""

import numpy as np
import pytest

import gpujac as gj

A = np.arange(5.0)
TAKEN = np.array([True, False])
# A function of one operand, an operand that it takes, and one that it refuses.
REFUSING = {
    "quantile": (lambda q: np.quantile(A, q), 0.5, 7.0),
    "percentile": (lambda q: np.percentile(A, q, method="nearest"), 50.0, 101.0),
    "nanquantile": (lambda q: np.nanquantile(A, q), 0.5, -1.0),
    "nanpercentile": (lambda q: np.nanpercentile(A, q), 50.0, 101.0),
    "average": (lambda w: np.average(A, weights=w), np.ones(5), np.zeros(5)),
    "aweights": (lambda w: np.cov(A, aweights=w), np.ones(5), -np.ones(5)),
    "fweights": (lambda w: np.cov(A, fweights=w), np.ones(5), np.full(5, 1.5)),
    "cholesky": (lambda a: np.linalg.cholesky(a).sum(), np.diag([4.0, 9.0]), -np.eye(2)),
    "inv": (lambda a: np.linalg.inv(a).sum(), np.diag([4.0, 9.0]), np.ones((2, 2))),
    "solve": (lambda a: np.linalg.solve(a, A[1:3]).sum(), np.diag([4.0, 9.0]), np.zeros((2, 2))),
    "svd": (lambda a: np.linalg.svd(a, compute_uv=False).sum(), np.ones((3, 2)), np.full((3, 2), np.nan)),
    "lstsq": (lambda a: np.linalg.lstsq(a, A[1:4])[0].sum(), np.eye(3, 2), np.full((3, 2), np.nan)),
}  # fmt: skip
each = pytest.mark.parametrize("name", REFUSING)
quiet = pytest.mark.filterwarnings("ignore:invalid value")  # of NaN in a decomposition, in some versions of NumPy


def _branches(name):
    f, good, bad = REFUSING[name]
    return f, np.array([good, bad]), lambda p, x: gj.cond(p, f, lambda x: np.zeros_like(x).sum() + 3.0, x)


@quiet
@each
def test_a_branch_that_a_lane_does_not_take_refuses_nothing(name):
    f, operands, g = _branches(name)
    np.testing.assert_allclose(gj.vmap(g)(TAKEN, operands), [f(operands[0]), 3.0])
    slopes = gj.grad(lambda x: gj.vmap(g)(TAKEN, x).sum())(operands)
    np.testing.assert_allclose(slopes[0], gj.grad(f)(operands[0]), atol=1e-12)
    assert not slopes[1].any()


@each
def test_a_branch_that_a_lane_takes_refuses_as_ever(name):
    _, operands, g = _branches(name)
    with pytest.raises((gj.ArgumentError, np.linalg.LinAlgError)):
        gj.vmap(g)(~TAKEN, operands)


def test_a_loop_refuses_nothing_of_lanes_that_are_done():
    step = lambda q: np.quantile(A, q) * 0.0 + np.average(A * 0.0, weights=(2.0 - q) * np.ones(5)) + q + 0.5
    found = gj.vmap(lambda q: gj.while_loop(lambda q: q < 1.0, step, q))(np.array([0.25, 0.5, 2.0, 5.0]))
    np.testing.assert_allclose(found, [1.25, 1.0, 2.0, 5.0])


def test_a_line_without_numbers_leaves_the_derivatives_of_the_others_alone():
    x = np.array([[np.nan, np.nan, np.nan], [1.0, np.nan, 3.0], [4.0, 2.0, 9.0]])

    def f(q, x):
        y = np.nanquantile(x, q, axis=1)
        return np.sum(np.where(np.isnan(y), 0.0, y))

    by_q, by_x = gj.grad(f, (0, 1))(0.25, x)
    np.testing.assert_allclose(by_q, 2.0 + 4.0)
    np.testing.assert_allclose(by_x, [[0.0, 0.0, 0.0], [0.75, 0.0, 0.25], [0.5, 0.5, 0.0]])
    assert np.isnan(gj.jvp(lambda q: np.nanquantile(x, q, axis=1), (0.25,), (1.0,))[0][0])
