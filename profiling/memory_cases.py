"""The memory cases of `make bench`: Jacobians whose extra peak is measured, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from profiling.sweep_cases import FORMS, grid

SIZE = 8000
CHUNK = 100
Program = Callable[..., Any]


@dataclass(frozen=True)
class MemoryCase:
    """A Jacobian by reverse mode of `program(np, size)` at `point(size)`.

    `warm`: the size that compiles and fills caches first; where the shape is compiled in, `size`
    itself. `options`: keyword arguments of the transform, by library. `at_most`: of the result.
    """

    title: str
    at_most: float
    program: Callable[[Any, int], Program]
    point: Callable[[int], numpy.ndarray]
    size: int
    warm: int
    options: dict[str, dict[str, Any]]  # a library that is not named is left out
    rtol: float


def coupled(np: Any, size: int) -> Program:
    """An elementwise part and neighbors on a ring: rows with a few entries near the diagonal."""

    def f(x: Any) -> Any:
        near, far = np.roll(x, 1), np.roll(x, -3)
        return np.sin(x) * near + 0.5 * np.tanh(far) * x + far * far

    return f


def ring(size: int) -> numpy.ndarray:
    """Return a (size,) float32 point."""
    return numpy.random.default_rng(7).standard_normal(size).astype(numpy.float32)


def assembly_cases() -> dict[str, MemoryCase]:
    """The two ways to put chunks together."""
    cases = {}
    for assembly, at_most in (("preallocate", 1.15), ("stack", 2.15)):
        title = f"extra peak of jacrev {SIZE} to {SIZE}, float32, chunks of {CHUNK}, {assembly}"
        chunks: dict[str, Any] = {"chunk_size": CHUNK}
        options = {
            "gpujac": chunks | {"assembly": assembly},
            "torch": chunks | {"_preallocate_and_copy": assembly == "preallocate"},
        }
        cases[f"memory-{assembly}"] = MemoryCase(title, at_most, coupled, ring, SIZE, 4 * CHUNK, options, 1e-5)
    return cases


def brusselator_cases() -> dict[str, MemoryCase]:
    """A reaction and diffusion on a grid: rows with six entries."""
    cases = {}
    for form, size in (("roll", 32), ("roll", 64), ("slices", 64)):
        title = f"extra peak of jacrev of the Brusselator on {size} x {size}, neighbors by {form}"
        options: dict[str, dict[str, Any]] = {"gpujac": {}, "torch": {"chunk_size": CHUNK}, "jax": {}}
        cases[f"memory-brusselator-{form}-{size}"] = MemoryCase(
            title, 1.2, FORMS[form], grid, size, 8, options, 1e-6
        )
    return cases


def memory_cases() -> dict[str, MemoryCase]:
    """Return every memory case by its name, in the order of the table."""
    return assembly_cases() | brusselator_cases()
