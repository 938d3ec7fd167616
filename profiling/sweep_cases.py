"""Cases of `make bench` about the sweeps of Jacobians: the rows themselves, and the buffers they are in."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy

from profiling.cases import ARRAYS, Case, Program, ratio

A, B, ALPHA = 3.4, 1.0, 10.0
PAIR = ("gpujac", "jax")


def reactions(np: Any, laplacian: Program, size: int) -> Program:
    """The Brusselator on a periodic grid of spacing 1 / size (Prigogine & Lefever, 1968), without a source."""
    rate = ALPHA * size**2

    def f(y: Any) -> Any:
        u, v = y[0], y[1]
        both = u * u * v
        du = B + both - (A + 1.0) * u + rate * laplacian(u)
        dv = A * u - both + rate * laplacian(v)
        return np.stack([du, dv])

    return f


def rolled(np: Any, size: int) -> Program:
    """Neighbors by `roll`."""

    def laplacian(u: Any) -> Any:
        return np.roll(u, 1, 0) + np.roll(u, -1, 0) + np.roll(u, 1, 1) + np.roll(u, -1, 1) - 4.0 * u

    return reactions(np, laplacian, size)


def sliced(np: Any, size: int) -> Program:
    """Neighbors by slices of an array with a border, which is put around it by joining."""

    def laplacian(u: Any) -> Any:
        tall = np.concatenate([u[-1:], u, u[:1]])
        wide = np.concatenate([u[:, -1:], u, u[:, :1]], 1)
        return tall[:-2] + tall[2:] + wide[:, :-2] + wide[:, 2:] - 4.0 * u

    return reactions(np, laplacian, size)


def padded(np: Any, size: int) -> Program:
    """Neighbors by slices of an array with a border, which `pad` puts around it."""

    def laplacian(u: Any) -> Any:
        p = np.pad(u, 1, mode="wrap")
        return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4.0 * u

    return reactions(np, laplacian, size)


def grid(size: int) -> numpy.ndarray:
    """Return a (2, size, size) float64 point."""
    return numpy.random.default_rng(11).uniform(0.1, 0.9, (2, size, size))


FORMS = {"roll": rolled, "slices": sliced, "pad": padded}


def brusselator_cases() -> list[Case]:
    """The dense Jacobian of a reaction and diffusion on a grid, in three formulations."""
    cases = []
    for size in (32, 64):
        for name, form in FORMS.items():
            others = ARRAYS if size == 32 and name != "pad" else PAIR  # torch: seconds at 64, and another pad
            title = f"jacrev of the Brusselator on {size} x {size}, neighbors by {name}"
            cases.append(
                Case(f"brusselator-{name}-{size}", title, partial(form, size=size), ("jacrev",), (grid(size),),
                     (ratio("jax", 1.3),), others)
            )  # fmt: skip
    return cases


def sweep_cases() -> list[Case]:
    """Return all timed cases of this file, in the order of the table."""
    return brusselator_cases()
