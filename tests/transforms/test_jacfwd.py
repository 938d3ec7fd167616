"""jacfwd: what forward mode must do beyond what test_jacrev.py checks for both."""

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_forward_equals_reverse(name, f, args):
    every = tuple(range(len(args)))
    h.assert_close(gj.jacfwd(f, every)(*args), gj.jacrev(f, every)(*args))


@pytest.mark.parametrize("chunk_size", [None, 1, 2, "auto"])
def test_f_runs_once_outside_vmap_so_it_may_branch_on_values(chunk_size):
    calls = []

    def f(x):
        calls.append(1)
        y = x
        while y.sum() < 100.0:
            y = y * 2 if y[0] > 0 else -y
        return y[: int(x[1])]

    J = gj.jacfwd(f, chunk_size=chunk_size)(X)
    np.testing.assert_array_equal(J, 32 * np.eye(3)[:2])
    assert len(calls) == 1


@pytest.mark.parametrize("chunk_size", [None, 1, 2, "auto"])
def test_f_may_use_randomness_and_boolean_masks(chunk_size):
    draws = []

    def f(x):
        draws.append(np.random.default_rng(len(draws)).random(3))
        return x[x > 1.5] * draws[-1][1:]

    J = gj.jacfwd(f, chunk_size=chunk_size)(X)
    np.testing.assert_array_equal(J, np.diag(draws[0])[1:])
    assert len(draws) == 1


def test_wide_functions_too():
    W = np.linspace(-1, 1, 40).reshape(4, 10)
    x = np.linspace(0, 1, 10)
    J = gj.jacfwd(lambda x: np.tanh(W @ x))(x)
    np.testing.assert_allclose(J, (1 - np.tanh(W @ x) ** 2)[:, None] * W, atol=1e-14)
