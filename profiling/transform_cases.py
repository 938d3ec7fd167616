"""Cases of `make bench` about the transforms themselves: lanes, constants, reads, custom functions."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy

from profiling.cases import VMAP_SIZE, Case, Program, chain, ratio
from profiling.report import Target

STEPS = 100


def mixed(np: Any) -> Program:
    """240 small elementwise ops of one and of two operands, numbers among them."""

    def f(x: Any) -> Any:
        for _ in range(20):
            x = np.tanh(x * 1.01 + 0.1)
            x = x - np.sin(x) * x
            x = x / (1.0 + x * x)
            x = np.maximum(x, -x) * 0.5
        return x

    return f


def mostly_constant(np: Any, c: Any) -> Program:
    """Steps of four ops, three of which see constants alone."""

    def f(x: Any) -> Any:
        for _ in range(STEPS):
            x = x + np.sin(c * 1.0001) * c
        return x

    return f


def scaled(np: Any, c: Any) -> Program:
    """Steps of three ops of a traced and a constant operand each."""

    def f(x: Any) -> Any:
        for _ in range(STEPS):
            x = (x * c + c) / 1.5
        return x

    return f


def reads(np: Any) -> Program:
    """The squares of all entries, read one by one."""

    def f(x: Any) -> Any:
        total = 0.0
        for i in range(x.shape[0]):
            total = total + x[i] * x[i]
        return total

    return f


def sines(np: Any) -> Program:
    """100 sines, one after the other, and the sum."""

    def f(x: Any) -> Any:
        for _ in range(STEPS):
            x = np.sin(x)
        return np.sum(x)

    return f


def custom_sines(np: Any) -> Program:
    """The same with a derivative of one's own."""
    sine = import_module("gpujac").custom_vjp(lambda x: np.sin(x))
    sine.defvjp(lambda x: (np.sin(x), np.cos(x)), lambda slope, ct: (ct * slope,))

    def f(x: Any) -> Any:
        for _ in range(STEPS):
            x = sine(x)
        return np.sum(x)

    return f


def op_sines(np: Any) -> Program:
    """The same with a registered operation."""
    gj = import_module("gpujac")
    if not _REGISTERED:
        _REGISTERED.append(gj.custom_op("bench::sine", sine))
        gj.impl("bench::sine", device_types="cpu", func=lambda x: np.sin(x))
        gj.impl_save_for_backward("bench::sine", _slope)
        gj.impl_backward("bench::sine", _backward)
    op = _REGISTERED[0]

    def f(x: Any) -> Any:
        for _ in range(STEPS):
            x = op(x)
        return np.sum(x)

    return f


_REGISTERED: list[Any] = []  # an operation is registered once in a process


def sine(x: numpy.ndarray) -> numpy.ndarray:
    """Never run: the signature of the operation."""


def _slope(inputs: Any, output: Any) -> Any:
    return numpy.cos(inputs.x)


def _backward(ctx: Any, saved: Any, grad: Any) -> dict[str, Any]:
    return {"x": grad * saved}


def deep(np: Any, again: Any = None) -> Program:
    """Eight blocks of five elementwise ops; `again` makes a block be done again in the sweep."""

    def block(x: Any) -> Any:
        return np.tanh(np.sin(np.tanh(x) * 1.1) + x)

    step = block if again is None else again(block)

    def f(x: Any) -> Any:
        for _ in range(8):
            x = step(x)
        return np.sum(x)

    return f


def deep_again(np: Any) -> Program:
    """The same in checkpoints."""
    return deep(np, import_module("gpujac").checkpoint)


def values(*shape: int) -> numpy.ndarray:
    """Return numbers between 0.1 and 0.9."""
    return numpy.random.default_rng(7).uniform(0.1, 0.9, shape)


def lane_cases() -> list[Case]:
    """Small arrays under vmap: the whole, and what it costs more than the function on the batch itself."""
    row, rows, torch = values(VMAP_SIZE), values(VMAP_SIZE, 16), (ratio("torch", 1.0),)
    pair = ("gpujac", "torch")
    cases = [
        Case("vmap-chain", "vmap of 200 ops on (8, 16)", chain, ("vmap",), (rows,), torch, pair, ops=200),
        Case("vmap-mixed", "vmap of 240 ops on (8, 16)", mixed, ("vmap",), (rows,), torch, pair, ops=240),
    ]
    for name, program, ops in (("chain", chain, 200), ("mixed", mixed, 240)):
        plain = Case(f"{name}-plain", "", program, (), (row,), ())
        title = f"vmap of {ops} ops on (8,), less the function on (8,) itself"
        cases.append(
            Case(f"vmap-{name}-overhead", title, program, ("vmap",), (row,), torch, pair, ops=ops, beside=plain)
        )
    return cases


def constant_cases() -> list[Case]:
    """Forward mode where operands are constants."""
    point = (values(16), values(16))
    c, pair, target = {"c": values(16)}, ("gpujac", "torch"), (ratio("torch", 0.1),)
    title = "jvp of 400 ops on (16,), three quarters of them on constants alone"
    mixed_title = "jvp of 300 ops on (16,), each of a traced and a constant operand"
    return [
        Case("jvp-constants", title, mostly_constant, ("jvp",), point, target, pair, constants=c, ops=400),
        Case("jvp-scaled", mixed_title, scaled, ("jvp",), point, target, pair, constants=c, ops=300),
    ]


def read_cases() -> list[Case]:
    """`x[i]` in a Python loop: the time for each entry, and how it grows."""
    few, some, many = (Case(f"reads-{n}", f"grad of a loop over {n} entries", reads, ("grad",), (values(n),), (),
                            ("gpujac",), ops=n) for n in (100, 1000, 10_000))  # fmt: skip
    title = "time of the loop over 10 000 entries over that of 1000"
    growth = Case("reads-growth", title, reads, ("grad",), many.inputs, (Target("times", 12.0),), ("gpujac",),
                  beside=some, quotient=True)  # fmt: skip
    return [few, some, many, growth]


def custom_cases() -> list[Case]:
    """Functions with derivatives of their own, less the same function of NumPy's."""
    point = (values(16),)
    plain = Case("sines", "", sines, ("grad",), point, ())
    target = (Target("us_per_op", 5.0),)
    title = "in a grad of 100 sines on (16,), less np.sin"
    return [
        Case("custom-vjp", f"custom_vjp {title}", custom_sines, ("grad",), point, target, ("gpujac",), ops=STEPS,
             beside=plain),
        Case("custom-op", f"custom_op {title}", op_sines, ("grad",), point, target, ("gpujac",), ops=STEPS,
             beside=plain),
    ]  # fmt: skip


def checkpoint_cases() -> list[Case]:
    """What it costs to do blocks again in the sweep."""
    cases = []
    for n, limit in ((16, 6.0), (100_000, 2.0)):
        plain = Case("deep", "", deep, ("grad",), (values(n),), ())
        title = f"grad of eight blocks of 5 ops on ({n},), in checkpoints over without"
        cases.append(Case(f"checkpoint-{n}", title, deep_again, ("grad",), (values(n),), (Target("times", limit),),
                          ("gpujac",), beside=plain, quotient=True))  # fmt: skip
    return cases


def transform_cases() -> list[Case]:
    """Return all cases of this file, in the order of the table."""
    return lane_cases() + constant_cases() + read_cases() + custom_cases() + checkpoint_cases()
