"""Building one chain from elementwise entries of a linear program.

A value is kept as (base, coefficient): products of coefficients alone are formed first, so that the
kernel computes them once per column and multiplies each tangent once. That rounds differently from
the entries one by one, in the last digits, as merging entries on the CPU does.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpujac.backends.chain import DTYPES, MASKS, Chain, Step, restricted
from gpujac.core.aval import Shape, shape_of
from gpujac.core.op import Mask
from gpujac.ops import structure as st
from gpujac.ops.agree import Guarded
from gpujac.ops.elementwise import not_equal

Map = tuple[int | None, ...]  # for each axis of a variable the axis of the domain, from the end; None: dropped
_NUMBERS = (int, float, complex, np.generic)


class Value(NamedTuple):
    """A value of the chain: a base times a coefficient (None: one)."""

    base: int
    factor: int | None
    dtype: str


@lru_cache(64, typed=True)  # dtypes of two libraries hash alike
def dtype_name(dtype: Any) -> str:
    """The name of a dtype of any library."""
    return str(dtype).rpartition(".")[2]


def whole(shape: Shape) -> Map:
    """The map of a variable that has the shape of the domain."""
    return tuple(range(-len(shape), 0))


@lru_cache(1 << 12)
def lifted(shape: Shape, where: Map, rank: int) -> tuple:
    """The ops that give an array of trailing shape `shape` one axis per axis of a domain of `rank`."""
    kept = tuple(i for i, a in enumerate(where) if a is not None)
    ops: list = []
    short = tuple(shape[i] for i in kept)
    if short != shape:
        ops.append(st.reshape(shape, short))
    axes = [where[i] or 0 for i in kept]
    order = tuple(sorted(range(-len(axes), 0), key=lambda i: axes[i]))
    if order != tuple(range(-len(axes), 0)):
        ops.append(st.permute(short, order))
        short = tuple(short[i] for i in order)
    full = [1] * rank
    for a, n in zip(sorted(axes), short, strict=True):
        full[a] = n
    if tuple(full) != short:
        ops.append(st.reshape(short, tuple(full)))
    return tuple(ops)


class Builder:
    """Collects tangents, coefficients and steps; `op` and operands are read off at the end."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.reads: list[int] = []
        self.views: list[tuple] = []
        self.coefs: list[Any] = []
        self._inputs: list[tuple[bool, str]] = []  # whether it is a coefficient, and the dtype
        self._known: dict[Any, int] = {}
        self._held: list[Any] = []  # keeps the ids in the keys of `_known` from being given away
        self._values: list[Any] = []  # an int: that input; else (name, values, dtype)

    def read(self, var: int, shape: Shape, dtype: Any, where: Map) -> Value:
        """A tangent that another part of the program computes."""
        name = dtype_name(dtype)
        key = ("read", var, where)
        if key not in self._known:
            self.reads.append(var)
            self.views.append(lifted(shape, where, self.rank))
            self._input(key, False, name)
        return Value(self._known[key], None, name)

    def _input(self, key: Any, coefficient: bool, dtype: str) -> int:
        self._values.append(len(self._inputs))
        self._inputs.append((coefficient, dtype))
        self._known[key] = len(self._values) - 1
        return self._known[key]

    def _constant(self, c: Any, shape: Shape, where: Map, dtype: str) -> int:
        """A coefficient as an input; one of several dtypes is cast inside the kernel."""
        key = (id(c), where, dtype)
        if key in self._known:
            return self._known[key]
        if isinstance(c, _NUMBERS):
            self.coefs.append(c)
            return self._input(("number", len(self.coefs)), True, dtype)
        self._held.append(c)
        self.coefs.append(self._placed(c, shape, where))
        name = dtype_name(c.dtype)
        found = self._input(key, True, name)
        if name != dtype and dtype in DTYPES:
            found = self._known[key] = self._step("cast", (found,), dtype)
        return found

    def _placed(self, c: Any, shape: Shape, where: Map) -> Any:
        """The coefficient of a variable with its axes where the domain has them."""
        own = tuple(shape_of(c))
        if not own or where == whole(shape):
            return c
        if len(own) < len(shape):
            c = st.reshape(own, (1,) * (len(shape) - len(own)) + own)(c)
            own = tuple(c.shape)
        for op in lifted(own, where, self.rank):
            c = op(c)
        return c

    def _step(self, name: str, values: tuple[int, ...], dtype: str) -> int:
        key = (name, values, dtype)
        if key not in self._known:
            self._values.append(key)
            self._known[key] = len(self._values) - 1
        return self._known[key]

    def settled(self, x: Value) -> int:
        """The value as one number per entry; a tangent of zero stays zero, whatever the coefficient.

        Rows of a diagonal are written out where a chain mixes them. An infinite coefficient must then
        not reach the rows that have zeros beside it; the comparison hides behind the memory traffic.
        """
        return x.base if x.factor is None else self._step("guarded", (x.base, x.factor), x.dtype)

    def unary(self, name: str, x: Value, dtype: str) -> Value:
        """A function of one value."""
        return Value(self._step(name, (self.settled(x),), dtype), None, dtype)

    def cast(self, x: Value, dtype: str) -> Value:
        """The value in another dtype; complex to real takes the real part."""
        return x if x.dtype == dtype else self.unary("cast", x, dtype)

    def plus(self, x: Value, y: Value) -> Value:
        """The sum of two."""
        if x.base == y.base and x.factor is not None and y.factor is not None:
            return x._replace(factor=self._step("add", (x.factor, y.factor), x.dtype))
        return Value(self._step("add", (self.settled(x), self.settled(y)), x.dtype), None, x.dtype)

    def scaled(self, x: Value, c: Any, shape: Shape, where: Map) -> Value:
        """The value times a coefficient of any kind."""
        if c is None or (isinstance(c, (int, float)) and c == 1):
            return x
        if isinstance(c, (int, float)) and c == -1:
            return self._negated(x)
        if type(c) is Mask:
            return self.scaled(self._selected(x, c.keep, shape, where), c.factor, shape, where)
        if type(c) is Guarded:
            value = self._constant(c.value, shape, where, x.dtype)
            return Value(self._step("guarded", (self.settled(x), value), x.dtype), None, x.dtype)
        factor = self._constant(c, shape, where, x.dtype)
        if x.factor is not None:
            factor = self._step("multiply", (x.factor, factor), x.dtype)
        return x._replace(factor=factor)

    def _negated(self, x: Value) -> Value:
        if x.factor is None:
            return Value(self._step("negative", (x.base,), x.dtype), None, x.dtype)
        return x._replace(factor=self._step("negative", (x.factor,), x.dtype))

    def _selected(self, x: Value, keep: Any, shape: Shape, where: Map) -> Value:
        if isinstance(keep, _NUMBERS):
            keep = int(bool(keep))
        elif dtype_name(keep.dtype) not in MASKS:
            keep = not_equal(keep, 0)
        name = "int32" if isinstance(keep, int) else dtype_name(keep.dtype)
        mask = self._constant(keep, shape, where, name)
        return Value(self._step("select", (mask, self.settled(x)), x.dtype), None, x.dtype)

    def chain(self, outputs: list[Value], axes: tuple[int, ...]) -> Chain:
        """The finished chain: tangents first, then coefficients; call it last."""
        results = [self.settled(x) for x in outputs]
        inputs = [v for v in self._values if isinstance(v, int)]
        order = sorted(inputs, key=lambda i: self._inputs[i][0])
        number = {v: order.index(value) for v, value in enumerate(self._values) if isinstance(value, int)}
        steps: list[Step] = []
        for v, value in enumerate(self._values):
            if not isinstance(value, int):
                number[v] = len(order) + len(steps)
                steps.append(Step(value[0], tuple(number[r] for r in value[1]), value[2]))
        names = tuple(self._inputs[i][1] for i in order)
        whole_chain = Chain(names, tuple(steps), tuple(number[v] for v in results), axes)
        found = restricted(whole_chain, frozenset(range(len(order))))
        assert found is not None
        assert len(found.inputs) == len(order), "every input is read"
        return found.chain
