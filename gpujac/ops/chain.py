"""A chain of elementwise steps as one op: what a fused sweep applies to tangents and coefficients.

On plain arrays it is one kernel (`backends/chain.py` says what a chain is). Under vmap it stays one,
wider. A trace that differentiates or records sees the elementary ops instead, so no transform needs
a rule for it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, final

import numpy as np

from gpujac.backends.chain import Chain, Step, domain, single, typed
from gpujac.backends.choose import backend_of, common_backend
from gpujac.core import pattern
from gpujac.core.aval import Aval, Shape, kind, shape_of
from gpujac.core.op import General, Sample, catalogued
from gpujac.core.trace import payload, top_trace
from gpujac.ops import elementwise as ew
from gpujac.ops import structure as st
from gpujac.ops.batching import aligned

_CACHE = 1 << 12


@final
@catalogued
@dataclass(frozen=True)
class Fused(General):
    """The result of `chain` over a domain of trailing shape `shape`, its operands broadcast to it.

    An operand of a rank above that of `shape` has leading axes in front, which the result keeps. A
    chain of several results gives a tuple.
    """

    name = "fused"
    nonlinear = True
    refuses: ClassVar[dict[str, str]] = {"jvp": "a trace that differentiates sees the elementary ops instead"}
    chain: Chain
    shape: Shape

    def __call__(self, *operands: Any) -> Any:
        top = top_trace(operands)
        if top is None:
            return self.evaluate(common_backend(operands), *operands)
        if len(self.chain.outputs) > 1:  # a trace holds one value at a time
            parts = [single(self.chain, k) for k in range(len(self.chain.outputs))]
            return tuple([fused(p.chain, self.shape)(*[operands[i] for i in p.inputs]) for p in parts])
        return top.general(self, operands) if top.batches else self.spelled(operands)

    def evaluate(self, be: Any, *operands: Any) -> Any:
        return be.chain(self.chain, self.shape, operands)

    def spelled(self, operands: tuple) -> Any:
        """The result by elementary ops, each of which any trace knows."""
        operands = typed(operands, self.chain.inputs)
        (y,) = self.chain.run(_Ops(), operands)
        full = domain(self.shape, tuple([x for x in operands if shape_of(x)]))
        for op in st.spread_steps(tuple(y.shape), full):
            y = op(y)
        return st.sum_over(full, self.chain.axes)(y) if self.chain.axes else y

    def of(self, chain: Chain) -> "Fused":
        """Another chain over the same domain."""
        return fused(chain, self.shape)

    def over(self, shape: Shape) -> "Fused":
        """The same chain over another domain."""
        return fused(self.chain, shape)

    def infer(self, *avals: Aval) -> Aval:
        full = domain(self.shape, avals)
        lead = full[: len(full) - len(self.shape)]
        (name,) = self.chain.results  # as a dtype of the operands' library, where one of them has it
        found = [a.dtype for a in avals if str(a.dtype).rpartition(".")[2] == name]
        return Aval(lead + self.chain.kept(self.shape), found[0] if found else np.dtype(name))

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        # the mapped axis goes left of the domain: one leading axis more, which no entry of the chain sees
        rank = len(self.shape)
        wide = [
            aligned(x, axis, len(shape_of(x)) - (axis is not None), rank)
            for x, axis in zip(xs, axes, strict=True)
        ]
        return self(*wide), -len(self.chain.kept(self.shape)) - 1

    def depends(self, *patterns: Any) -> Any:
        full = domain(self.shape, patterns)
        bits = pattern.union(patterns, full).bits
        return pattern.Pattern(bits.any(axis=self.chain.axes) if self.chain.axes else bits)

    @classmethod
    def samples(cls) -> list[Sample]:
        d, c = "float64", "complex128"
        # (a * b + x) where m holds, times a number of its own
        masked = Chain((d, d, d, "bool"), (
            Step("multiply", (0, 1), d), Step("add", (2, 4), d), Step("select", (3, 5), d), Step("negative", (6,), d),
        ), (7,))  # fmt: skip
        summed = Chain((d, d), (Step("guarded", (0, 1), d),), (2,), (-1,))
        turned = Chain((c, d), (
            Step("conj", (0,), c), Step("times_1j", (1,), c), Step("multiply", (2, 3), c), Step("imag", (4,), d),
        ), (5,))  # fmt: skip
        return [
            Sample(fused(masked, (2, 3)), (2, 3), (2, 3), (3,), (2, 1), kinds="fffb", double=True),
            Sample(fused(summed, (2, 3)), (2, 3), (), low=0.5, double=True),
            Sample(fused(summed, (2, 3)), (3,), (3,), low=0.5, double=True),
            Sample(fused(turned, (3,)), (3,), (3,), kinds="cf", double=True),
        ]


@lru_cache(_CACHE)
def fused(chain: Chain, shape: Shape) -> Fused:
    """The op of a chain over a domain."""
    return Fused(chain, shape)


class _Ops:
    """The steps of a chain as ops, for operands that are traced."""

    def multiply(self, x: Any, y: Any, dtype: str) -> Any:
        """x * y"""
        return ew.multiply(x, y)

    def add(self, x: Any, y: Any, dtype: str) -> Any:
        """x + y"""
        return ew.add(x, y)

    def negative(self, x: Any, dtype: str) -> Any:
        """-x"""
        return ew.negative(x)

    def select(self, mask: Any, x: Any, dtype: str) -> Any:
        """x where the mask holds, else zero."""
        return ew.where(mask if kind(mask.dtype) == "b" else ew.not_equal(mask, 0), x, 0)

    def guarded(self, t: Any, c: Any, dtype: str) -> Any:
        """t * c, zero where t is."""
        return ew.guarded(t, c)

    def conj(self, x: Any, dtype: str) -> Any:
        """The complex conjugate."""
        return st.CONJ(x)

    def real(self, x: Any, dtype: str) -> Any:
        """The real part."""
        return st.real(x.dtype, _dtype(x, dtype))(x)

    def imag(self, x: Any, dtype: str) -> Any:
        """The imaginary part."""
        return st.imag(x.dtype, _dtype(x, dtype))(x)

    def times_1j(self, x: Any, dtype: str) -> Any:
        """i times a real x."""
        return st.times_1j(x.dtype, _dtype(x, dtype))(x)

    def cast(self, x: Any, dtype: str) -> Any:
        """x in another dtype."""
        return st.cast(x.dtype, _dtype(x, dtype))(x)


def _dtype(x: Any, name: str) -> Any:
    """The dtype called `name` in the library of `x`; NumPy's where x is no array yet."""
    inner = payload(x)
    found = getattr(np if inner is None else backend_of(inner).xp, name)
    return np.dtype(found) if isinstance(found, type) else found
