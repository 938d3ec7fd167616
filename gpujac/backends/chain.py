"""A chain of elementwise steps as data: what one generated kernel computes, and its interpreter.

A `Chain` is a program in which every value is named once. Values 0, 1, ... are the inputs, each
later value is one step. Inputs broadcast from the right against a domain that the caller gives, so
sizes are no part of the chain and one kernel text serves all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Step(NamedTuple):
    """One value: the name of a function, the values it reads, the dtype of the result."""

    name: str
    reads: tuple[int, ...]
    dtype: str


# Steps and how many values they read. `select` reads a mask and a value: the value where the mask
# holds, else zero. `guarded` is t * c, but zero where t is, whatever c is.
ARITY = {
    "multiply": 2,
    "add": 2,
    "negative": 1,
    "select": 2,
    "guarded": 2,
    "conj": 1,
    "real": 1,
    "imag": 1,
    "times_1j": 1,
    "cast": 1,
}
_NUMBERS = frozenset((float, int, complex, bool, *np.sctypeDict.values()))
DTYPES = ("float32", "float64", "complex64", "complex128")  # what values may be
MASKS = ("bool", "int32", "int64")  # what inputs may be besides


@dataclass(frozen=True)
class Chain:
    """Steps over elementwise inputs.

    `inputs`: the dtype of each input. `outputs`: which values are the results. `axes`: axes of the
    domain (counted from the end) over which the one result is summed; a chain that sums has one.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    axes: tuple[int, ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.inputs, self.steps, self.outputs, self.axes)))

    def __hash__(self) -> int:
        return self._hash  # looked up at each launch

    def __reduce__(self) -> tuple:
        return Chain, (self.inputs, self.steps, self.outputs, self.axes)  # hashes differ between processes

    def dtype(self, value: int) -> str:
        """The dtype of a value."""
        first = len(self.inputs)
        return self.inputs[value] if value < first else self.steps[value - first].dtype

    @property
    def results(self) -> tuple[str, ...]:
        """The dtype of each result."""
        return tuple([self.dtype(v) for v in self.outputs])

    def kept(self, shape: Shape) -> Shape:
        """The trailing shape of the result over a domain of trailing shape `shape`."""
        gone = {a % len(shape) for a in self.axes} if shape else set()
        return tuple(n for i, n in enumerate(shape) if i not in gone)

    def run(self, algebra: Any, operands: tuple) -> list:
        """The results before any sum; `algebra` has one method per step name."""
        values = list(operands)
        for step in self.steps:
            xs = [values[v] for v in step.reads]
            values.append(getattr(algebra, step.name)(*xs, step.dtype))
        return [values[v] for v in self.outputs]


class Restricted(NamedTuple):
    """A chain some of whose inputs are zero: the rest of it, by positions in the whole."""

    chain: Chain
    inputs: tuple[int, ...]  # that it still reads
    outputs: tuple[int, ...]  # that are not zero


@lru_cache(1 << 12)
def restricted(chain: Chain, present: frozenset[int]) -> Restricted | None:
    """The chain with all inputs that are not in `present` zero; None where every result is zero.

    The inputs left out are tangents: every step is zero where its only, or each of its, tangents is.
    """
    first = len(chain.inputs)
    alias: dict[int, int | None] = {i: i if i in present else None for i in range(first)}
    steps: dict[int, Step] = {}
    for v, step in enumerate(chain.steps, first):
        reads = [alias[r] for r in step.reads]
        known = [r for r in reads if r is not None]
        if step.name == "add" and len(known) == 1:
            alias[v] = known[0]
        elif len(known) < len(reads):
            alias[v] = None
        else:
            alias[v] = v
            steps[v] = Step(step.name, tuple(known), step.dtype)
    kept = tuple(k for k, v in enumerate(chain.outputs) if alias[v] is not None)
    return _trimmed(chain, steps, alias, kept) if kept else None


def single(chain: Chain, output: int) -> Restricted:
    """The chain of one result alone."""
    steps = dict(enumerate(chain.steps, len(chain.inputs)))
    return _trimmed(chain, steps, {v: v for v in chain.outputs}, (output,))


def _trimmed(chain: Chain, steps: dict[int, Step], alias: Mapping[int, int | None],
             kept: tuple[int, ...]) -> Restricted:  # fmt: skip
    """Only what these outputs need, renumbered."""
    outputs = [v for v in (alias[chain.outputs[k]] for k in kept) if v is not None]
    needed, waiting = set(), list(outputs)
    while waiting:
        v = waiting.pop()
        if v not in needed:
            needed.add(v)
            waiting += steps[v].reads if v in steps else ()
    first = len(chain.inputs)
    order = sorted(needed)
    number = {v: i for i, v in enumerate(order)}
    inputs = tuple(v for v in order if v < first)
    short = tuple(
        Step(steps[v].name, tuple(number[r] for r in steps[v].reads), steps[v].dtype)
        for v in order if v >= first
    )  # fmt: skip
    names = tuple(chain.inputs[i] for i in inputs)
    return Restricted(Chain(names, short, tuple(number[v] for v in outputs), chain.axes), inputs, kept)


@lru_cache(64)
def sum_of(dtype: str) -> Chain:
    """The chain that only adds up the last axis."""
    return Chain((dtype,), (), (0,), (-1,))


def typed(operands: tuple, inputs: tuple[str, ...]) -> tuple:
    """Operands with Python and NumPy numbers as NumPy scalars of the dtypes of the inputs."""
    return tuple([
        np.dtype(name).type(x) if x.__class__ in _NUMBERS else x
        for x, name in zip(operands, inputs, strict=True)
    ])  # fmt: skip


def domain(shape: Shape, operands: tuple) -> Shape:
    """Leading axes of the operands, broadcast against each other, in front of `shape`."""
    rank = len(shape)
    leads = {tuple(x.shape[: len(x.shape) - rank]) for x in operands if len(x.shape) > rank}
    if not leads:
        return shape
    return (leads.pop() if len(leads) == 1 else tuple(np.broadcast_shapes(*leads))) + shape


def interpret(be: Any, chain: Chain, shape: Shape, operands: tuple) -> Any:
    """What the chain gives over a domain of trailing shape `shape`, by the backend's own functions.

    Operands have leading axes in front, if any, which the result keeps. Results are new memory: an
    array, or a tuple of several.
    """
    operands = typed(operands, chain.inputs)
    full = domain(shape, operands)
    values = zip(chain.run(Algebra(be), operands), chain.outputs, strict=True)
    found = [_finished(be, chain, y, v, full) for y, v in values]
    return found[0] if len(found) == 1 else tuple(found)


def _finished(be: Any, chain: Chain, y: Any, value: int, full: Shape) -> Any:
    """A result over the whole domain, summed, and owned."""
    whole = tuple(y.shape) == full
    if not whole:
        y = be.spread(y, (1,) * (len(full) - len(y.shape)) + tuple(y.shape), full)
    if chain.axes:
        return be.sum(y, chain.axes)
    return be.copy(y) if not whole or _is_shared(chain, value) else y


def _is_shared(chain: Chain, value: int) -> bool:
    """Whether a backend may give the value as a view of an operand or of another result."""
    step = value - len(chain.inputs)
    return step < 0 or chain.steps[step].name in ("real", "imag") or chain.outputs.count(value) > 1


class Algebra:
    """The steps as functions of a backend's arrays."""

    def __init__(self, be: Any) -> None:
        self.be = be

    def multiply(self, x: Any, y: Any, dtype: str) -> Any:
        """x * y"""
        return self.be.function("multiply")(x, y)

    def add(self, x: Any, y: Any, dtype: str) -> Any:
        """x + y"""
        return self.be.function("add")(x, y)

    def negative(self, x: Any, dtype: str) -> Any:
        """-x"""
        return self.be.function("negative")(x)

    def select(self, mask: Any, x: Any, dtype: str) -> Any:
        """x where the mask holds, else zero."""
        if str(mask.dtype).rpartition(".")[2] != "bool":
            mask = self.be.function("not_equal")(mask, 0)
        return self.be.function("where")(mask, x, 0)

    def guarded(self, t: Any, c: Any, dtype: str) -> Any:
        """t * c, zero where t is."""
        return self.be.function("guarded")(t, c)

    def conj(self, x: Any, dtype: str) -> Any:
        """The complex conjugate."""
        return self.be.xp.conj(x)

    def real(self, x: Any, dtype: str) -> Any:
        """The real part."""
        return self.be.xp.real(x)

    def imag(self, x: Any, dtype: str) -> Any:
        """The imaginary part."""
        return self.be.xp.imag(x)

    def times_1j(self, x: Any, dtype: str) -> Any:
        """i times a real x."""
        return self.cast(x, dtype) * 1j

    def cast(self, x: Any, dtype: str) -> Any:
        """x in another dtype; complex to real takes the real part."""
        if "complex" in str(x.dtype) and not dtype.startswith("complex"):
            x = self.be.xp.real(x)
        return self.be.cast(x, getattr(self.be.xp, dtype))
