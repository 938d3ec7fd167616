"""The demo's claims: its Jacobian against a formula, its stepper's order, its statistics."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpujac as gj
from gpujac import demo, demo_model
from tests import device


def by_hand(state):
    """The Brusselator's Jacobian written out: 2 x 2 blocks of diagonals plus the Laplacian."""
    size = state.shape[1]
    u, v = state.reshape(2, -1)
    laplacian = np.zeros((size**2, size**2))
    for i, j in itertools.product(range(size), repeat=2):
        row = i * size + j
        laplacian[row, row] -= 4 * size**2
        for other in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            laplacian[row, other[0] % size * size + other[1] % size] += size**2
    diffusion = demo_model.ALPHA * laplacian
    return np.block(
        [
            [np.diag(2 * u * v - demo_model.A - 1) + diffusion, np.diag(u**2)],
            [np.diag(demo_model.A - 2 * u * v), np.diag(-(u**2)) + diffusion],
        ]
    )


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])
@pytest.mark.parametrize("chunk_size", ["auto", 1, 7, None])
def test_jacobian_of_the_model_equals_the_formula(rng, transform, chunk_size):
    """To the last digits, in every mode and chunk size."""
    state = rng.uniform(0.5, 3.0, (2, 4, 4))
    found = transform(demo_model.rate, chunk_size=chunk_size)(state, 2.0)
    np.testing.assert_allclose(demo.matrix(found), by_hand(state), rtol=1e-13, atol=1e-13)


def exact_by_small_steps(count):
    """The model on a tiny grid before the supply starts, in many steps."""
    steps = demo.implicit_steps(demo_model.rate, demo_model.start(4), 0.8, count)
    return list(steps)[-1].state


def test_the_time_stepper_is_of_second_order():
    """Half the step, a quarter of the error."""
    exact = exact_by_small_steps(640)
    errors = [np.max(np.abs(exact_by_small_steps(count) - exact)) for count in (20, 40, 80)]
    ratios = np.array(errors[:-1]) / errors[1:]
    assert np.all((ratios > 3.5) & (ratios < 4.5)), ratios


def test_the_time_stepper_is_exact_enough_on_a_stiff_line():
    """y' = -1e6 (y - cos t) stays on cos t with steps far beyond an explicit method's limit."""
    steps = demo.implicit_steps(lambda y, t: -1e6 * (y - np.cos(t)), np.ones(1), 2.0, 20)
    last = list(steps)[-1]
    assert last.t == pytest.approx(2.0)
    assert last.state[0] == pytest.approx(np.cos(2.0), abs=1e-6)


def test_every_step_reports_a_small_residual():
    """Newton ends below its tolerance in both stages, with few Jacobians."""
    steps = list(demo.implicit_steps(demo_model.rate, demo_model.start(4), 1.0, 10))
    assert all(step.residual <= demo.NEWTON_TOLERANCE for step in steps)
    assert 1 <= sum(step.jacobians for step in steps) <= 10


def test_newton_that_cannot_converge_says_so():
    """z = 1 + z^2 has no real solution."""
    newton = demo.Newton(lambda z, t: 1.0 + z**2, 1.0)
    with pytest.raises(ArithmeticError, match="take more steps"):
        newton.solve(np.zeros(1), np.full(1, 0.3), 0.0)


def said_by(backend):
    """What the demo prints on these arrays, without times and memory."""
    command = [sys.executable, "-W", "error", "-m", "gpujac", "demo", "--size", "4", "--steps", "115",
               "--no-pictures", "--backend", backend]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(demo.__file__).parent.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    return first, [re.sub(r" +[\d.]+ s  +[\d.]+ k?B|in [\d.]+ s", "", line) for line in rest]


@pytest.mark.skipif(bool(device.MISSING), reason="emulated arrays are CuPy's, which is not installed here")
def test_the_demo_gives_the_same_numbers_on_emulated_cupy_arrays():
    """The same file, once as NumPy code and once adopted as CuPy code: the same lines but for times."""
    said, lines = said_by("numpy")
    assert re.fullmatch(r"running on NumPy [\d.]+: asked for", said)
    said, others = said_by("emulated")
    assert said == "running on emulated CuPy arrays in main memory, without a GPU"
    assert numbers_of(others) == pytest.approx(numbers_of(lines), rel=1e-2, abs=1e-8)
    assert [re.sub(NUMBER, "#", line) for line in others] == [re.sub(NUMBER, "#", line) for line in lines]


NUMBER = r"[-+]?\d[\d.]*(e[-+]\d+)?"


def numbers_of(lines):
    return [float(found[0]) for line in lines for found in re.finditer(NUMBER, line)]
