"""The Jacobian benchmark of `make gpu`: the functions of `cases.py` and larger ones, in two sizes.

The large sizes are for a card; the small ones make the same list of cases for a dry run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from profiling.cases import chain, elementwise, layers, logistic, network, robertson, vector, weights

SINGLE_RTOL = 2e-4  # float32: sums in another order, and the card's fused multiply-add
DOUBLE_RTOL = 1e-9


@dataclass(frozen=True)
class GpuCase:
    """One function under transforms, written once for every library; arrays are NumPy's here."""

    name: str
    title: str
    program: Callable[..., Callable[..., Any]]
    transforms: tuple[str, ...]  # outermost first
    inputs: tuple[Any, ...]
    constants: dict[str, Any] = field(default_factory=dict)
    rtol: float = DOUBLE_RTOL


@dataclass(frozen=True)
class Sizes:
    """How large the cases are."""

    points: int  # mapped points of Robertson's kinetics
    widths: tuple[int, int, int, int]
    batch: int
    wide: tuple[int, int, int, int]
    diagonal: int
    long: int  # entries of the long elementwise chain
    parameters: int
    samples: int
    nodes: int
    springs: int
    systems: int


FULL = Sizes(100_000, (256, 512, 512, 256), 256, (2048, 4096, 4096, 2048), 1000, 20_000_000, 400, 20_000,
             1_000_000, 4_000_000, 100_000)  # fmt: skip
SMALL = Sizes(20, (12, 16, 16, 12), 3, (24, 32, 32, 24), 30, 2000, 7, 20, 50, 200, 10)


def long_chain(np: Any) -> Callable[..., Any]:
    """A sum after 20 elementwise ops: what is bound by memory once it is one kernel."""
    inner = elementwise(np)

    def f(x: Any) -> Any:
        return np.sum(inner(x))

    return f


def springs(np: Any, first: Any, second: Any) -> Callable[..., Any]:
    """The energy of springs between nodes on a line: two gathers, whose gradient scatters."""

    def f(x: Any) -> Any:
        stretch = x[first] - x[second]
        return np.sum(stretch * stretch * (1.0 + 0.1 * stretch))

    return f


def network_data(widths: tuple[int, int, int, int], dtype: str) -> dict[str, Any]:
    """Return the weights and biases of a network with these widths."""
    data = {f"w{i}": weights(widths[i], widths[i - 1], 10 + i) for i in (1, 2, 3)}
    data |= {f"b{i}": 0.1 * vector(widths[i], 20 + i) for i in (1, 2, 3)}
    return {name: value.astype(dtype) for name, value in data.items()}


def dense_cases(sizes: Sizes) -> list[GpuCase]:
    """Dense networks, from launch-bound to bound by the matrix products."""
    five = {f"w{i}": weights(100, 100, i) for i in range(5)}
    title = "of five layers tanh(W x), 100 to 100"
    point = (vector(100, 1),)
    net = "-".join(map(str, sizes.widths))
    wide = "-".join(map(str, sizes.wide))
    batch = numpy.random.default_rng(2).standard_normal((sizes.batch, sizes.widths[0])).astype("float32")
    return [
        GpuCase("layers-jacrev", f"jacrev {title}", layers, ("jacrev",), point, five),
        GpuCase("layers-jacfwd", f"jacfwd {title}", layers, ("jacfwd",), point, five),
        GpuCase("network-jacrev", f"jacrev of a network {net}", network, ("jacrev",),
                (vector(sizes.widths[0], 2),), network_data(sizes.widths, "float64")),
        GpuCase("network-batch", f"vmap of jacrev of a network {net}, {sizes.batch} points, float32", network,
                ("vmap", "jacrev"), (batch,), network_data(sizes.widths, "float32"), SINGLE_RTOL),
        GpuCase("network-wide", f"jacrev of a network {wide}, float32", network, ("jacrev",),
                (vector(sizes.wide[0], 2).astype("float32"),), network_data(sizes.wide, "float32"), SINGLE_RTOL),
    ]  # fmt: skip


def small_cases(sizes: Sizes) -> list[GpuCase]:
    """Functions of a few numbers, alone and mapped over many points."""
    point = numpy.array([0.9, 2e-5, 0.1])
    points = point * numpy.random.default_rng(3).uniform(0.5, 1.5, (sizes.points, 3))
    return [
        GpuCase("robertson-jacrev", "jacrev of Robertson kinetics", robertson, ("jacrev",), (point,)),
        GpuCase("robertson-vmap-jacrev", f"vmap of jacrev of Robertson kinetics, {sizes.points} points",
                robertson, ("vmap", "jacrev"), (points,)),
        GpuCase("chain-grad", "grad of 200 scalar ops", chain, ("grad",), (numpy.array(0.5),)),
    ]  # fmt: skip


def array_cases(sizes: Sizes) -> list[GpuCase]:
    """Elementwise work, a Hessian, gathers."""
    rng = numpy.random.default_rng(4)
    data = {
        "features": rng.standard_normal((sizes.samples, sizes.parameters)),
        "labels": numpy.sign(rng.standard_normal(sizes.samples)),
    }
    ends = {
        "first": rng.integers(0, sizes.nodes, sizes.springs),
        "second": rng.integers(0, sizes.nodes, sizes.springs),
    }
    title = f"of 20 elementwise ops, n = {sizes.diagonal}"
    return [
        GpuCase("elementwise-jacrev", f"jacrev {title}", elementwise, ("jacrev",), (vector(sizes.diagonal, 5),)),
        GpuCase("elementwise-jacfwd", f"jacfwd {title}", elementwise, ("jacfwd",), (vector(sizes.diagonal, 5),)),
        GpuCase("elementwise-grad", f"grad of a sum after 20 elementwise ops, n = {sizes.long}, float32",
                long_chain, ("grad",), (vector(sizes.long, 7).astype("float32"),), rtol=SINGLE_RTOL),
        GpuCase("logistic-hessian",
                f"hessian of logistic regression, {sizes.parameters} parameters, {sizes.samples} samples",
                logistic, ("hessian",), (0.1 * vector(sizes.parameters, 6),), data),
        GpuCase("springs-grad", f"grad of the energy of {sizes.springs} springs between {sizes.nodes} nodes",
                springs, ("grad",), (vector(sizes.nodes, 8),), ends),
    ]  # fmt: skip


def small_solve(np: Any) -> Callable[..., Any]:
    """The solution of one small system."""

    def f(a: Any, b: Any) -> Any:
        return np.linalg.solve(a, b)

    return f


def likelihood(np: Any) -> Callable[..., Any]:
    """The squares of whitened numbers, by the factor and the inverse of a covariance."""

    def f(a: Any) -> Any:
        lower = np.linalg.cholesky(a @ a.T)
        return np.sum(lower * lower) + np.sum(np.linalg.inv(a))

    return f


def matrix_cases(sizes: Sizes) -> list[GpuCase]:
    """Batches of small matrices."""
    rng, n = numpy.random.default_rng(6), 8
    systems = rng.standard_normal((sizes.systems, n, n)) / 8 + numpy.eye(n)
    sides = rng.standard_normal((sizes.systems, n))
    return [
        GpuCase("solve-vmap", f"vmap of solve, {sizes.systems} systems of {n}", small_solve, ("vmap",),
                (systems, sides)),
        GpuCase("cholesky-vmap-grad", f"vmap of grad of cholesky and inv, {sizes.systems} matrices of {n}", likelihood,
                ("vmap", "grad"), (systems,), rtol=1e-8),
    ]  # fmt: skip


def gpu_cases(is_dry: bool) -> dict[str, GpuCase]:
    """Return the cases by name, in the order of worth; the names do not depend on the size."""
    sizes = SMALL if is_dry else FULL
    cases = dense_cases(sizes) + small_cases(sizes) + array_cases(sizes) + matrix_cases(sizes)
    return {case.name: case for case in cases}
