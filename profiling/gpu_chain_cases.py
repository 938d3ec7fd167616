"""Cases for the generated kernels: chains of elementwise steps, alone and summed along rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpujac.backends.chain import Chain
from gpujac.backends.host import HOST
from profiling.gpu_device import Device
from profiling.gpu_kernel_cases import LONG, Build, Job, KernelCase
from tests.kernels import chains

RTOL = {"float32": 1e-5, "float64": 1e-13, "complex64": 1e-5, "complex128": 1e-13}
SUM_RTOL = {"float32": 1e-4, "float64": 1e-12, "complex64": 1e-4, "complex128": 1e-12}
RANDOM_RTOL = 1e-4
RANDOM = 40  # random chains that are tried


def chained(chain: Chain, rows: tuple[int, ...], domain: tuple[int, ...], tangents: int = 1,
            layout: Callable[[np.random.Generator, np.ndarray], np.ndarray] | None = None) -> Build:  # fmt: skip
    """Return a case that runs a chain: the first inputs are tangents with `rows` in front.

    The oracle is the chain's interpreter on NumPy.
    """

    def build(dev: Device, rng: np.random.Generator) -> Job:
        operands = [
            np.asarray(chains.drawn(rng, dtype, (*(rows if k < tangents else ()), *domain)))
            for k, dtype in enumerate(chain.inputs)
        ]
        if layout is not None:
            operands = [layout(rng, x) for x in operands]
        expected = np.asarray(HOST.chain(chain, domain, tuple(operands)))
        given = tuple(dev.array(x) for x in operands)
        rtol = max((SUM_RTOL if chain.axes else RTOL)[dtype] for dtype in (*chain.inputs, *chain.results)
                   if dtype in RTOL)  # fmt: skip
        moved = sum(x.nbytes for x in operands) + expected.nbytes
        return Job(lambda: dev.backend.chain(chain, domain, given), expected, moved, rtol)

    return build


def random_case(seed: int) -> Build:
    """Return a random chain over broadcast operands that lie differently in memory, or are numbers."""

    def build(dev: Device, rng: np.random.Generator) -> Job:
        chain, domain, operands = chains.random_case(seed)
        expected = HOST.chain(chain, domain, operands)
        given = tuple(dev.array(x) if isinstance(x, np.ndarray) else x for x in operands)
        return Job(lambda: dev.backend.chain(chain, domain, given), expected, 0, RANDOM_RTOL)

    return build


def long_map(size: int) -> Build:
    """Return a product over `size` entries, of which the last thousand are looked at."""

    def build(dev: Device, rng: np.random.Generator) -> Job:
        tail = np.arange(1, 1001, dtype=np.float32)
        x = dev.xp.zeros(size, np.float32)
        x[-1000:] = dev.array(tail)
        two = dev.array(np.full(1, 2, np.float32))
        chain = chains.product("float32", 1)
        return Job(lambda: dev.backend.chain(chain, (size,), (x, two))[-1000:], 2 * tail, 8 * size)

    return build


def odd_cases() -> list[KernelCase]:
    """Every kind of step in every dtype on shapes that fill no block."""
    found = []
    for shape in ((0, 5), (3, 0), (1, 1), (7, 31), (5, 1025)):
        rows, domain = shape[:1], shape[1:]
        for dtype in chains.DTYPES:
            for axes in ((), (-1,)):
                kind = f"{'row sum' if axes else 'map'} {shape} {dtype}"
                found.append(KernelCase(f"{kind}, 20 products", chained(chains.product(dtype, 20, axes), rows, domain)))
                found.append(KernelCase(f"{kind}, masks", chained(chains.network(dtype, axes), rows, domain, 2)))
        for dtype in chains.REAL:
            found.append(KernelCase(f"map {shape} {dtype}, all steps", chained(chains.turning(dtype), rows, domain)))
    turned = chained(chains.network("float64"), (33,), (65,), 2, lambda rng, x: np.asfortranarray(x))
    return [*found, KernelCase("turned axes", turned)]


def large_cases(small: bool) -> list[KernelCase]:
    """Chains whose time is worth a number: maps, and sums along short, long and very long rows."""
    wide, short, long, few = (
        ((3,), (200,)), ((50,), (16,)), ((4,), (1100,)), ((2,), (5000,))
    ) if small else (((256,), (2**17,)), ((2**18,), (128,)), ((4096,), (8192,)), ((8,), (2**22,)))  # fmt: skip

    def timed(what: str, chain: Chain, shape: tuple, tangents: int = 1) -> KernelCase:
        size = "x".join(str(n) for part in shape for n in part)
        return KernelCase(f"{what} {size} {chain.results[0]}", chained(chain, *shape, tangents), timed=True)

    return [
        timed("map of 20 products", chains.product("float32", 20), wide),
        timed("map of 20 products", chains.product("float64", 20), wide),
        timed("map with masks", chains.network("float32"), wide, 2),
        timed("row sum of a product", chains.product("float32", 1, (-1,)), short),
        timed("row sum of a product", chains.product("float32", 1, (-1,)), long),
        timed("row sum of a product", chains.product("float32", 1, (-1,)), few),
        timed("row sum of a product", chains.product("float64", 1, (-1,)), long),
    ]


def chain_cases(small: bool) -> list[KernelCase]:
    """Return all cases: odd shapes, random chains, large ones, one beyond 32-bit indices."""
    size = 5000 if small else LONG
    return [
        *odd_cases(),
        *(KernelCase(f"random chain {seed}", random_case(seed)) for seed in range(4 if small else RANDOM)),
        *large_cases(small),
        KernelCase("map beyond 2^31 entries", long_map(size), needs_bytes=0 if small else 24 * 2**30),
    ]
