"""Chains of elementwise steps for the tests: some that stand for all, and random ones."""

import math
from typing import Any

import numpy as np

from gpujac.backends.chain import Chain, Step
from gpujac.backends.chain_launch import prepared
from gpujac.backends.kernels import Kernel

DTYPES = ("float32", "float64", "complex64", "complex128")
REAL = {"complex64": "float32", "complex128": "float64"}
N, ROWS = 512, 256


def product(dtype: str, count: int, axes: tuple = ()) -> Chain:
    """A tangent times the product of `count` coefficients."""
    steps, last = [], 1
    for k in range(2, count + 1):
        steps.append(Step("multiply", (last, k), dtype))
        last = count + len(steps)
    steps.append(Step("multiply", (0, last), dtype))
    return Chain((dtype,) * (count + 1), tuple(steps), (count + len(steps),), axes)


def network(dtype: str, axes: tuple = ()) -> Chain:
    """-(mask ? t * c : 0), guarded by another coefficient, plus a second tangent times a number."""
    return Chain(
        (dtype, dtype, dtype, dtype, dtype, "bool"),
        (
            Step("multiply", (0, 2), dtype), Step("select", (5, 6), dtype), Step("guarded", (7, 3), dtype),
            Step("negative", (8,), dtype), Step("multiply", (1, 4), dtype), Step("add", (9, 10), dtype),
        ),
        (11,), axes,
    )  # fmt: skip


def turning(dtype: str, axes: tuple = ()) -> Chain:
    """Im(conj(t) * i * Re(t) * c) of a complex tangent, c of the other width."""
    real, other = REAL[dtype], "complex128" if dtype == "complex64" else "complex64"
    return Chain(
        (dtype, other),
        (
            Step("conj", (0,), dtype), Step("real", (0,), real), Step("times_1j", (3,), dtype),
            Step("multiply", (2, 4), dtype), Step("cast", (1,), dtype), Step("multiply", (5, 6), dtype),
            Step("imag", (7,), real), Step("cast", (8,), "float64"), Step("cast", (9,), "float32"),
        ),
        (10,), axes,
    )  # fmt: skip


def described(dtype: str, shape: tuple, order: str = "C") -> tuple:
    """Dtype, shape and strides in bytes of an array that need not exist."""
    item = np.dtype(dtype).itemsize
    strides = [0] * len(shape)
    step = item
    for axis in range(len(shape) - 1, -1, -1) if order == "C" else range(len(shape)):
        strides[axis] = step
        step *= shape[axis]
    return np.dtype(dtype), shape, tuple(strides)


def kernel_of(chain: Chain, lead: tuple = (ROWS,), domain: tuple = (N,), tangents: int = 1, order: str = "C",
              numbers: tuple = ()) -> Kernel:  # fmt: skip
    """The kernel of a chain whose first inputs are tangents with leading axes, the others coefficients."""
    key = [described(d, lead + domain, order) for d in chain.inputs[:tangents]]
    key += [described(d, domain) for d in chain.inputs[tangents:]]
    by_value = tuple(None if k in numbers else each for k, each in enumerate(key))
    found = prepared(chain, domain, by_value).kernel
    assert found is not None
    return found


def representative() -> dict[str, Kernel]:
    """One kernel for everything that changes the text, by what it is."""
    found = {}
    for d in DTYPES:
        found[f"map of one product, {d}"] = kernel_of(product(d, 1))
        found[f"map of twenty products, {d}"] = kernel_of(product(d, 20))
        found[f"map of thirty products, {d}"] = kernel_of(product(d, 30))
        found[f"map with a mask, {d}"] = kernel_of(network(d), tangents=2, numbers=(4,))
        found[f"map in one row, {d}"] = kernel_of(network(d), lead=(), tangents=2, numbers=(4,))
        for kind, n in (("lanes", 100), ("block", 5000)):
            found[f"{kind} of twenty products, {d}"] = kernel_of(product(d, 20, (-1,)), domain=(n,))
            found[f"{kind} with a mask, {d}"] = kernel_of(network(d, (-1,)), domain=(n,), tangents=2, numbers=(4,))
    for d in REAL:
        found[f"map of all steps, {d}"] = kernel_of(turning(d))
        found[f"block of all steps, {d}"] = kernel_of(turning(d, (-1,)), domain=(5000,))
    for kind, axes in (("map", ()), ("lanes", (-1,)), ("block", (-2, -1))):
        wide = network("float64", axes)
        found[f"{kind}, 64 bits, float64"] = kernel_of(wide, (1 << 20,), (64, 64), 2, numbers=(4,))
        found[f"{kind}, turned axes, float64"] = kernel_of(wide, (64,), (64, 128), 2, "F", numbers=(4,))
    return found


# ---------------------------------------------------------------- random ones


def laid_out(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """The same entries, differently in memory."""
    kind = rng.integers(0, 5)
    if kind == 1:
        return np.asfortranarray(x)
    if kind == 2 and x.ndim:
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 1), x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    if kind == 3:
        turned = np.ascontiguousarray(x[(slice(None, None, -1),) * x.ndim])
        return turned[(slice(None, None, -1),) * x.ndim]
    if kind == 4 and x.ndim:
        return np.ascontiguousarray(np.moveaxis(x, -1, 0)).transpose((*range(1, x.ndim), 0))
    return x


def drawn(rng: np.random.Generator, dtype: str, shape: tuple) -> np.ndarray:
    """Entries of moderate size, some of them zero."""
    if dtype == "bool":
        return rng.random(shape) < 0.6
    if dtype.startswith("int"):
        return rng.integers(-2, 3, shape).astype(dtype)
    x = rng.uniform(-1.0, 1.0, shape) * (rng.random(shape) < 0.8)
    return np.asarray(x + 1j * rng.uniform(-1, 1, shape) * (x != 0) if "complex" in dtype else x, dtype)


def shrunk(rng: np.random.Generator, shape: tuple) -> tuple:
    """A shape that broadcasts to this one from the right."""
    kept = tuple(n if rng.random() < 0.7 else 1 for n in shape)
    return kept[rng.integers(0, len(kept) + 1) :] if rng.random() < 0.3 else kept


def random_chain(rng: np.random.Generator, count: int) -> Chain:
    """A chain of `count` random steps in which every step that follows is typed right."""
    inputs = [str(rng.choice(DTYPES)) for _ in range(rng.integers(2, 5))] + ["bool", "int32"]
    dtypes, steps = list(inputs), []
    for _ in range(count):
        step = _random_step(rng, dtypes)
        steps.append(step)
        dtypes.append(step.dtype)
    outputs = {len(dtypes) - 1} | {int(v) for v in rng.integers(len(inputs), len(dtypes), rng.integers(0, 3))}
    return Chain(tuple(inputs), tuple(steps), tuple(sorted(outputs)))


def _random_step(rng: np.random.Generator, dtypes: list[str]) -> Step:
    values = [v for v, d in enumerate(dtypes) if d in DTYPES]
    # mostly the newest values, so that the steps hang together
    a = values[-1] if rng.random() < 0.6 else int(rng.choice(values))
    d = dtypes[a]
    same = [v for v in values if dtypes[v] == d]
    name = str(rng.choice(["multiply", "add", "negative", "select", "guarded", "cast", "conj", "part", "multiply"]))
    if name in ("multiply", "add", "guarded"):
        return Step(name, (a, int(rng.choice(same))), d)
    if name == "select":
        masks = [v for v, each in enumerate(dtypes) if each not in DTYPES]
        return Step(name, (int(rng.choice(masks)), a), d)
    if name == "part":
        if d in REAL:
            return Step(str(rng.choice(["real", "imag"])), (a,), REAL[d])
        return Step("times_1j", (a,), {"float32": "complex64", "float64": "complex128"}[d])
    if name == "cast":
        return Step(name, (a,), str(rng.choice(DTYPES)))
    return Step(name, (a,), d)


def random_case(seed: int, most_steps: int = 8) -> tuple[Chain, tuple, tuple]:
    """(chain, domain, operands): any shapes, layouts, numbers by value, with or without a sum."""
    rng = np.random.default_rng(seed)
    chain = random_chain(rng, int(rng.integers(1, most_steps)))
    sizes = [1, 2, 3, 5, 8, 33, 40]
    domain = tuple(int(rng.choice(sizes)) for _ in range(rng.integers(0, 4)))
    while math.prod(domain) > 2000:
        domain = domain[1:]
    lead = tuple(int(rng.choice([1, 2, 3, 7])) for _ in range(rng.integers(0, 3)))
    operands: list[Any] = []
    for k, d in enumerate(chain.inputs):
        if k and rng.random() < 0.15 and d != "bool":
            operands.append(drawn(rng, d, ())[()])
            continue
        leads = shrunk(rng, lead) if rng.random() < 0.5 else ()
        full = leads + (tuple(n if rng.random() < 0.7 else 1 for n in domain) if leads else shrunk(rng, domain))
        operands.append(laid_out(rng, drawn(rng, d, full)))
    axes = tuple(-a - 1 for a in range(len(domain)) if rng.random() < 0.5)
    if rng.random() < 0.5:
        chain = Chain(chain.inputs, chain.steps, chain.outputs[:1], tuple(sorted(axes)))
    return chain, domain, tuple(operands)

