"""All kernels that there are, by family: what is compiled for every architecture.

A family is a `.cu` file, or a set of generated kernels that stands for all that can be generated.
"""

from collections.abc import Callable

from gpujac.backends import kernels
from gpujac.backends.kernels import Kernel
from tests.kernels import chains


def of_file(path: str) -> Callable[[], dict[str, Kernel]]:
    """Every entry point of a `.cu` file; they share one text, so it is compiled once."""
    return lambda: {name: Kernel(kernels.load(path), name) for name in kernels.entries(path)}


# name of the family -> function that gives its kernels by the label they have in registers.json
FAMILIES: dict[str, Callable[[], dict[str, Kernel]]] = {
    "ops/gather.cu": of_file("ops/gather.cu"),
    "ops/scatter_add.cu": of_file("ops/scatter_add.cu"),
    "ops/lu.cu": of_file("ops/lu.cu"),
    "ops/solve.cu": of_file("ops/solve.cu"),
    "ops/cholesky.cu": of_file("ops/cholesky.cu"),
    "generated chains": chains.representative,
}
