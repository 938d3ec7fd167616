"""The demo, and the tutorial's example: a Jacobian in chunks, and what Jacobians are for.

`demo_model.rate` is the right-hand side of a stiff model in plain NumPy. Here its Jacobian is
computed with gpujac, checked, measured over chunk sizes, and used in an implicit time stepper. On a
GPU the same file runs on CuPy arrays: `adopt` puts gpujac.cupy in the place of NumPy.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gpujac as gj
from gpujac.arrays import Arrays
from gpujac.backends.choose import backend_of
from gpujac.cli_check import check_directions
from gpujac.cli_files import write_whole
from gpujac.demo_model import ALPHA, END, rate, start
from gpujac.machine import bytes_text

__all__ = ["Newton", "Step", "implicit_steps", "matrix", "run"]

GAMMA = 1 - 0.5**0.5  # makes the stepper second order and L-stable
NEWTON_TOLERANCE = 1e-9
NEWTON_PATIENCE = 0.1  # a residual that falls less than this asks for a new Jacobian
NEWTON_LIMIT = 20


@dataclass(frozen=True)
class Step:
    """One time step: where it ends, the concentrations there, and what Newton needed."""

    t: float
    state: Any
    iterations: int
    jacobians: int
    residual: float


class Newton:
    """Solves z - base - step f(z, t) = 0 for z; one object serves all steps of one size.

    The inverse of I - step df/dz is kept from one solve to the next and made anew, from a new
    Jacobian, only where the residual falls too slowly: what production solvers do. (They keep LU
    factors; NumPy has none to keep.) Arrays may be NumPy's or CuPy's.
    """

    def __init__(self, f: Callable[[Any, float], Any], step: float) -> None:
        self.f = f
        self.jacobian = gj.jacrev(f)
        self.step = step
        self.inverse: Any = None
        self.iterations = 0
        self.jacobians = 0
        self.residual = 0.0

    def solve(self, base: Any, z: Any, t: float) -> Any:
        """The solution, starting from the guess z; ArithmeticError where there is none."""
        xp, previous = backend_of(z).xp, np.inf
        for _ in range(NEWTON_LIMIT):
            wrong = z - base - self.step * self.f(z, t)
            self.residual = float(xp.max(xp.abs(wrong)))
            if self.residual <= NEWTON_TOLERANCE:
                return z
            if self.inverse is None or self.residual > NEWTON_PATIENCE * previous:
                self.inverse = self._new_inverse(z, t)
            z = z - (self.inverse @ wrong.ravel()).reshape(z.shape)
            previous = self.residual
            self.iterations += 1
        raise ArithmeticError(f"Newton did not converge at t = {t:.3g}; take more steps")

    def _new_inverse(self, z: Any, t: float) -> Any:
        xp = backend_of(z).xp
        self.jacobians += 1
        return xp.linalg.inv(xp.eye(z.size) - self.step * matrix(self.jacobian(z, t)))


def matrix(jacobian: Any) -> Any:
    """A Jacobian of fields, shape (2, N, N, 2, N, N), as the square matrix that solvers want."""
    size = math.isqrt(jacobian.size)
    return jacobian.reshape(size, size)


def implicit_steps(f: Callable[[Any, float], Any], y: Any, end: float, count: int) -> Iterator[Step]:
    """Integrates y' = f(y, t) from 0 to `end` in `count` equal steps of an implicit method.

    Args:
        f: the right-hand side.
        y: the values at time 0, any shape, a NumPy or CuPy array.
        end: the last time.
        count: how many steps.

    Yields:
        One `Step` after the other.

    Raises:
        ArithmeticError: Newton did not converge; take more steps.

    Cost:
        Two nonlinear systems per step, a few Jacobians for every ten steps.

    Source: R. Alexander, Diagonally implicit Runge-Kutta methods for stiff O.D.E.'s (1977).
    """
    h = end / count
    newton = Newton(f, GAMMA * h)
    for i in range(count):
        t, iterations, jacobians = i * h, newton.iterations, newton.jacobians
        k = (newton.solve(y, y, t + GAMMA * h) - y) / (GAMMA * h)
        base = y + (1 - GAMMA) * h * k
        y = newton.solve(base, y + h * k, t + h)
        yield Step(
            t + h,
            y,
            newton.iterations - iterations,
            newton.jacobians - jacobians,
            newton.residual,
        )


def run(size: int, steps: int, pictures: Any, folder: Path, arrays: Arrays) -> None:
    """Runs the demo and prints what it finds.

    Args:
        size: grid points per side; the model has 2 size^2 unknowns.
        steps: time steps.
        pictures: the module gpujac.pictures, or None for no pictures.
        folder: where the pictures go.
        arrays: the library to run on.
    """
    f = rate if arrays.name == "numpy" else gj.adopt(rate, library="cupy")
    y = arrays.there(start(size))
    print(f"running on {arrays.words}\n")
    print(f"2-D Brusselator, {size} x {size} grid: {y.size} unknowns, the Jacobian has")
    print(f"{y.size} x {y.size} entries, {bytes_text(8 * y.size**2)}.\n")
    slope = _show_jacobian(f, y, arrays)
    _show_table(f, y, slope, arrays)
    history = _show_steps(f, y, steps)
    if pictures is not None:
        times = [0.0, *(step.t for step in history)]
        states = [arrays.back(state) for state in (y, *(step.state for step in history))]
        _draw(pictures, folder, slope, times, states)


def _show_jacobian(f: Any, y: Any, arrays: Arrays) -> np.ndarray:
    """The Jacobian with a progress bar, and how far it is from two other ways to get it."""
    print("1. The Jacobian, by reverse mode, in chunks of 64 rows")
    slope = arrays.back(gj.jacrev(f, chunk_size=64, progress=sys.stderr.isatty())(y, 0.0))
    found = check_directions(
        lambda x, t: arrays.back(f(arrays.there(x), t)), (arrays.back(y), 0.0), (0,), [slope]
    )
    forward = arrays.back(gj.jacfwd(f, chunk_size=64)(y, 0.0))
    print(f"   against central differences   {found.error:.1e} (relative)")
    print(f"   against forward mode          {_error(slope, forward):.1e}")
    nonzeros = np.count_nonzero(slope)
    print(f"   nonzero entries               {nonzeros}, {nonzeros / y.size:.1f} in each row")
    fastest = 8 * ALPHA * y.shape[1] ** 2  # largest eigenvalue of the diffusion
    print(f"   fastest decay                 {fastest:.0f} per unit of time: an explicit method")
    print(f"                                 must keep its steps below {2 / fastest:.1e}\n")
    return slope


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))


def _show_table(f: Any, y: Any, wanted: np.ndarray, arrays: Arrays) -> None:
    """Chunk sizes and assemblies: time, memory beyond the result, difference."""
    print("2. The same in other chunks (memory: the peak while it runs, the result included)")
    print(f"   {'chunk size':>10}  {'assembly':>11}  {'time':>8}  {'memory':>9}  {'error':>7}")
    for chunk_size in ("auto", 1, 16, 256, None):
        for assembly in ("stack", "preallocate"):
            jacobian = gj.jacrev(f, chunk_size=chunk_size, assembly=assembly)
            begin = time.perf_counter()
            found = jacobian(y, 0.0)
            arrays.wait()
            seconds = time.perf_counter() - begin
            error = _error(arrays.back(found), wanted)
            del found
            memory = bytes_text(arrays.peak_bytes(partial(jacobian, y, 0.0)))
            name = str(chunk_size)
            print(f"   {name:>10}  {assembly:>11}  {seconds:6.3f} s  {memory:>9}  {error:7.1e}")
    print()


def _show_steps(f: Any, y: Any, count: int) -> list[Step]:
    """The model through time; prints about ten of the steps."""
    print(f"3. Implicit time stepping to t = {END} in {count} steps, Newton with this Jacobian")
    print("     time   mean u   mean v  iterations  Jacobians  residual")
    begin, history = time.perf_counter(), []
    for i, step in enumerate(implicit_steps(f, y, END, count), 1):
        history.append(step)
        if i == count or i % max(1, count // 10) == 0:
            u, v = (float(field.mean()) for field in step.state)
            numbers = f"{step.iterations:>10}  {step.jacobians:>9}  {step.residual:8.1e}"
            print(f"   {step.t:6.2f}  {u:7.3f}  {v:7.3f}  {numbers}", flush=True)
    seconds = time.perf_counter() - begin
    iterations = sum(step.iterations for step in history)
    jacobians = sum(step.jacobians for step in history)
    print(f"   {iterations} Newton iterations with {jacobians} Jacobians in {seconds:.1f} s\n")
    return history


def _draw(pictures: Any, folder: Path, slope: np.ndarray, times: list, states: list) -> None:
    """Writes the two pictures."""
    drawn = {
        "brusselator_jacobian.png": pictures.pattern(matrix(slope)),
        "brusselator_solution.png": pictures.solution(times, states),
    }
    print("4. Pictures")
    for name, figure in drawn.items():
        write_whole(folder / name, partial(figure.savefig, format="png"))
        print(f"   {folder / name}")
