"""The cases of `make bench`: one text of the function for all libraries, and the targets.

A program gets `np`, the module that a user of the library calls: plain NumPy for gpujac.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from profiling.libraries import Library
from profiling.report import Target

CHAIN_PAIRS = 100  # each pair is two ops
VMAP_SIZE = 8
Program = Callable[..., Any]
ALL = ("gpujac", "autograd", "torch", "jax")
ARRAYS = ("gpujac", "torch", "jax")


@dataclass(frozen=True)
class Case:
    """One function under one transform, for every library in `libraries`."""

    name: str
    title: str
    program: Callable[..., Callable[..., Any]]
    transforms: tuple[str, ...]  # outermost first
    inputs: tuple[Any, ...]
    targets: tuple[Target, ...]
    libraries: tuple[str, ...] = ARRAYS
    constants: dict[str, Any] = field(default_factory=dict)
    ops: int | None = None  # how many operations the function does, for the time per op
    rtol: float = 1e-9
    beside: Case | None = None  # what is taken off the times, with `quotient` what they are divided by
    quotient: bool = False

    def prepare(self, library: Library) -> Callable[[], Any]:
        """Return a call without arguments that runs the transformed function to its end."""
        constants = {name: library.array(value) for name, value in self.constants.items()}
        f = self.program(library.np, **constants)
        for transform in reversed(self.transforms):
            f = library.transforms[transform](f)
        compiled = library.compile(f)
        inputs = tuple(library.array(value) for value in self.inputs)
        wait = library.wait
        return lambda: wait(compiled(*inputs))


def chain(np: Any) -> Callable[..., Any]:
    """200 scalar ops, one after the other."""

    def f(x: Any) -> Any:
        for _ in range(CHAIN_PAIRS):
            x = np.sin(x * 1.0001)
        return x

    return f


def layers(np: Any, **weights: Any) -> Callable[..., Any]:
    """tanh(W x), once per weight matrix."""
    matrices = tuple(weights.values())

    def f(x: Any) -> Any:
        for w in matrices:
            x = np.tanh(w @ x)
        return x

    return f


def network(np: Any, w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any) -> Callable[..., Any]:
    """A network with two hidden layers, tanh after each of its three layers."""

    def f(x: Any) -> Any:
        x = np.tanh(w1 @ x + b1)
        x = np.tanh(w2 @ x + b2)
        return np.tanh(w3 @ x + b3)

    return f


def robertson(np: Any) -> Callable[..., Any]:
    """The rates of Robertson's three reactions (H. H. Robertson, 1966)."""

    def f(y: Any) -> Any:
        a, b, c = y[0], y[1], y[2]
        slow = 0.04 * a
        fast = 1e4 * b * c
        square = 3e7 * b * b
        return np.stack([fast - slow, slow - fast - square, square])

    return f


def elementwise(np: Any) -> Callable[..., Any]:
    """20 elementwise ops, one after the other."""

    def f(x: Any) -> Any:
        for _ in range(5):
            x = np.tanh(np.sin(x) * 1.01 + 0.1)
        return x

    return f


def logistic(np: Any, features: Any, labels: Any) -> Callable[..., Any]:
    """The mean loss of logistic regression; labels are -1 or 1."""

    def f(w: Any) -> Any:
        return np.mean(np.log1p(np.exp(-labels * (features @ w))))

    return f


def weights(rows: int, columns: int, seed: int) -> numpy.ndarray:
    """Return a (rows, columns) float64 matrix that keeps tanh away from its flat ends."""
    matrix = numpy.random.default_rng(seed).standard_normal((rows, columns))
    matrix /= columns**0.5
    return matrix


def vector(size: int, seed: int) -> numpy.ndarray:
    """Return `size` float64 numbers."""
    return numpy.random.default_rng(seed).standard_normal(size)


def ratio(library: str, at_most: float) -> Target:
    """The time of gpujac over the time of `library`."""
    return Target("ratio", at_most, library)


def per_op(at_most: float) -> Target:
    """The time of gpujac per operation, in microseconds."""
    return Target("us_per_op", at_most)


def chain_cases() -> list[Case]:
    """The chain of 200 scalar ops: what one traced op costs."""
    point, ops = (0.5,), 2 * CHAIN_PAIRS
    batch = numpy.linspace(0.1, 0.9, VMAP_SIZE)
    first = (ratio("autograd", 0.35), ratio("torch", 0.35), per_op(3.0))
    second = (ratio("autograd", 0.3), ratio("torch", 0.3))
    return [
        Case("chain-grad", "grad of 200 scalar ops", chain, ("grad",), point, first, ALL, ops=ops),
        Case(
            "chain-grad-grad",
            "grad of grad of 200 scalar ops",
            chain,
            ("grad", "grad"),
            point,
            second,
            ALL,
            ops=ops,
        ),
        Case(
            "chain-jvp",
            "jvp of 200 scalar ops",
            chain,
            ("jvp",),
            (0.5, 1.0),
            (per_op(3.0),),
            ALL,
            ops=ops,
        ),
        Case(
            "chain-vmap",
            f"vmap (size {VMAP_SIZE}) of 200 scalar ops",
            chain,
            ("vmap",),
            (batch,),
            (per_op(2.0),),
            ops=ops,
        ),
    ]


def layer_cases() -> list[Case]:
    """Dense layers: what a middle-sized Jacobian costs."""
    five = {f"w{i}": weights(100, 100, i) for i in range(5)}
    widths = (256, 512, 512, 256)
    net = {f"w{i}": weights(widths[i], widths[i - 1], 10 + i) for i in (1, 2, 3)}
    net |= {f"b{i}": 0.1 * vector(widths[i], 20 + i) for i in (1, 2, 3)}
    both = (ratio("torch", 0.5), ratio("jax", 1.3))
    title = "of five layers tanh(W x), 100 to 100"
    return [
        Case(
            "layers-jacrev",
            f"jacrev {title}",
            layers,
            ("jacrev",),
            (vector(100, 1),),
            both,
            constants=five,
        ),
        Case(
            "layers-jacfwd",
            f"jacfwd {title}",
            layers,
            ("jacfwd",),
            (vector(100, 1),),
            both,
            constants=five,
        ),
        Case(
            "network-jacrev",
            "jacrev of a network 256-512-512-256",
            network,
            ("jacrev",),
            (vector(256, 2),),
            (ratio("torch", 0.75),),
            constants=net,
        ),
    ]


def robertson_cases() -> list[Case]:
    """Three species: what a very small Jacobian costs, alone and mapped."""
    point = numpy.array([0.9, 2e-5, 0.1])
    points = point * numpy.random.default_rng(3).uniform(0.5, 1.5, (10_000, 3))
    return [
        Case(
            "robertson-jacrev",
            "jacrev of Robertson kinetics",
            robertson,
            ("jacrev",),
            (point,),
            (ratio("torch", 0.3),),
        ),
        Case(
            "robertson-vmap-jacrev",
            "vmap of jacrev of Robertson kinetics, 10 000 points",
            robertson,
            ("vmap", "jacrev"),
            (points,),
            (ratio("torch", 0.5), ratio("jax", 1.3)),
        ),
    ]


def structure_cases() -> list[Case]:
    """A diagonal Jacobian, and a Hessian."""
    rng = numpy.random.default_rng(4)
    data = {
        "features": rng.standard_normal((200, 50)),
        "labels": numpy.sign(rng.standard_normal(200)),
    }
    title = "of 20 elementwise ops, n = 1000"
    return [
        Case(
            "elementwise-jacrev",
            f"jacrev {title}",
            elementwise,
            ("jacrev",),
            (vector(1000, 5),),
            (ratio("jax", 0.1),),
        ),
        Case(
            "elementwise-jacfwd",
            f"jacfwd {title}",
            elementwise,
            ("jacfwd",),
            (vector(1000, 5),),
            (ratio("jax", 1.0),),
        ),
        Case(
            "logistic-hessian",
            "hessian of logistic regression, 50 parameters, 200 samples",
            logistic,
            ("hessian",),
            (vector(50, 6),),
            (ratio("torch", 0.12), ratio("jax", 1.3)),
            constants=data,
        ),
    ]


def jacobian_cases() -> list[Case]:
    """Return the cases of this file, in the order of the table."""
    return chain_cases() + layer_cases() + robertson_cases() + structure_cases()
