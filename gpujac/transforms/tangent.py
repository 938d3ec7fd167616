"""What jvp and linearize share: run the primal, then hand each tangent to the right rule.

A subclass says what a tangent is (an array, or a variable of a linear program) and how to apply
the few linear building blocks to it. An absent tangent is None: a symbolic zero.
"""

from typing import Any

from numpy import ndarray

from gpujac.array.common import placed
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES
from gpujac.backends.choose import WRITABLE as WRITABLE_ARRAYS
from gpujac.backends.host import HOST
from gpujac.core.aval import Shape, aval_of, dtype_of, kind, shape_of
from gpujac.core.trace import OPEN, Trace
from gpujac.ops.agree import agreement

WRITABLE = WRITABLE_ARRAYS  # one set: a backend that is loaded later adds its arrays
WRITABLE.add(TracedArray)


class TangentTrace(Trace):
    """A trace whose tracers carry (primal value, tangent)."""

    __slots__ = ()

    # The building blocks: each returns a tangent.
    def combine(self, op: Any, positions: tuple, ts: tuple, xs: tuple, y: Any, shape: Shape,
                dtype: Any) -> Any:
        """Sum of slope times tangent."""
        raise NotImplementedError

    def apply(self, op: Any, t: Any, shape: Shape, dtype: Any) -> Any:
        """A structural linear op of a tangent."""
        raise NotImplementedError

    def gather(self, op: Any, ts: tuple, shape: Shape, dtype: Any) -> Any:
        """An op linear in all tangents together."""
        raise NotImplementedError

    def partial(self, op: Any, position: int, t: Any, operands: tuple, y: Any) -> Any:
        """An op with constants, linear in the tangent at `position`."""
        raise NotImplementedError

    def rule(self, op: Any, primals: tuple, ts: tuple, operands: tuple, y: Any) -> Any:
        """The jvp rule of a nonlinear op."""
        raise NotImplementedError

    def called(self, op: Any, primals: tuple, ts: tuple) -> tuple[tuple, tuple]:
        """Results and tangents of an op that holds functions."""
        raise NotImplementedError

    def add(self, ts: list, y: Any) -> Any:
        """The sum of tangents of one shape."""
        raise NotImplementedError

    def kept(self, constant: Any) -> Any:
        """An array of outside that the user could write into, safe for use after this operation."""
        return constant

    def unary(self, op: Any, x: Any) -> Any:
        if not self.alive:
            raise self.leaked(x)
        value = x.value
        y = op.host(value) if value.__class__ in HOST_TYPES else op(value)
        if op.flat:
            return y
        t = x.aux
        try:
            shape, dtype = y.shape, y.dtype
        except AttributeError:  # a Python number
            shape, dtype = (), dtype_of(y)
        if t is not None:
            t = self.combine(op, (0,), (t,), (value,), y, shape, dtype)
        return TracedArray(self, y, t, shape, dtype)

    def binary(self, op: Any, x: Any, y: Any) -> Any:
        if not self.alive:
            raise self.leaked(x, y)
        a, s, b, t = x, None, y, None
        if x.__class__ is TracedArray and x.owner is self:
            a, s = x.value, x.aux
        elif x.__class__ in WRITABLE and not op.jointly:  # the derivative of a sum reads no operand
            a = self.kept(x)
        if y.__class__ is TracedArray and y.owner is self:
            b, t = y.value, y.aux
        elif y.__class__ in WRITABLE and not op.jointly:
            b = self.kept(y)
        if a.__class__ in HOST_TYPES and b.__class__ in HOST_TYPES:
            out = op.host(a, b)
        else:
            out = op(a, b)
        if op.flat:
            return out
        try:
            shape, dtype = out.shape, out.dtype
        except AttributeError:  # a Python number
            shape, dtype = (), dtype_of(out)
        if s is not None and (x.shape != shape or x.dtype is not dtype):
            s = self.agree(s, x.shape, x.dtype, shape, dtype, out)
        if t is not None and (y.shape != shape or y.dtype is not dtype):
            t = self.agree(t, y.shape, y.dtype, shape, dtype, out)
        if t is None:
            if s is not None:
                s = self.combine(op, (0,), (s,), (a, b), out, shape, dtype)
            return TracedArray(self, out, s, shape, dtype)
        positions, ts = ((1,), (t,)) if s is None else ((0, 1), (s, t))
        t = self.combine(op, positions, ts, (a, b), out, shape, dtype)
        return TracedArray(self, out, t, shape, dtype)

    def pointwise(self, op: Any, operands: tuple) -> Any:
        values, _ = self.split(operands)
        y = op(*values)
        if op.flat:
            return y
        try:
            shape, dtype = y.shape, y.dtype
        except AttributeError:  # a Python number
            shape, dtype = (), dtype_of(y)
        positions: tuple = ()
        ts: tuple = ()
        for p, x in enumerate(operands):
            if x.__class__ is TracedArray and x.owner is self and x.aux is not None:
                t = x.aux
                if x.shape != shape or x.dtype is not dtype:
                    t = self.agree(t, x.shape, x.dtype, shape, dtype, y)
                positions += (p,)
                ts += (t,)
        if not ts:
            return TracedArray(self, y, None, shape, dtype)
        t = self.combine(op, positions, ts, values, y, shape, dtype)
        return TracedArray(self, y, t, shape, dtype)

    def agree(self, t: Any, shape: Shape, dtype: Any, new_shape: Shape, new_dtype: Any, y: Any) -> Any:
        """A tangent spread and cast to the shape and dtype of the result `y`."""
        for op in agreement(shape, dtype, new_shape, new_dtype):
            shape = shape[: len(shape) - len(op.src)] + op.dst
            dtype = new_dtype  # the cast comes first
            t = self.apply(op, t, shape, dtype)
        return t

    def linear(self, op: Any, x: Any) -> Any:
        if not self.alive:
            raise self.leaked(x)
        y = op(x.value)
        shape, dtype = shape_of(y), dtype_of(y)
        t = x.aux
        if t is not None:
            t = self.apply(op, t, shape, dtype)
        return TracedArray(self, y, t, shape, dtype)

    def joint(self, op: Any, operands: tuple) -> Any:
        values, ts = self.split(operands)
        y = op(*values)
        present = tuple(p for p, t in enumerate(ts) if t is not None)
        t = None
        if present:
            part = op if len(present) == len(ts) else op.restricted(present)
            chosen = tuple(ts[p] for p in present)
            if len(chosen) == 1 and part is not op:
                t = self.apply(part, chosen[0], y.shape, y.dtype)
            else:
                t = self.gather(part, chosen, y.shape, y.dtype)
        return TracedArray(self, y, t, y.shape, y.dtype)

    def general(self, op: Any, operands: tuple) -> Any:
        if op.composite:
            found = op.decomposed(operands)
            if found is not NotImplemented:
                return found
        if len(operands) == 2:
            x, y = operands
            if x.__class__ is ndarray and 1 in op.linear_in and self._is_plain_dual(y):
                return self._product(op, 1, y, (self.kept(x), y.value))
            if y.__class__ is ndarray and 0 in op.linear_in and self._is_plain_dual(x):
                return self._product(op, 0, x, (x.value, self.kept(y)))
        values, ts = self.split(operands)
        if op.indexes and values[-1].__class__ is ndarray and values[0].__class__ not in HOST_TYPES:
            values = (*values[:-1], placed(values[-1], values[0]))  # uploaded once, here
        y = op(*values)
        if op.flat:
            return y
        present = [p for p, t in enumerate(ts) if t is not None]
        t = None
        if len(present) == 1 and present[0] in op.linear_in:
            t = self.partial(op, present[0], ts[present[0]], values, y)
        elif present and op.nonlinear:
            t = self.rule(op, values, ts, operands, y)
        elif present:
            t = self.add([self.partial(op, p, ts[p], values, y) for p in present], y)
        return TracedArray(self, y, t, shape_of(y), dtype_of(y))

    def call(self, op: Any, operands: tuple) -> tuple:
        if len(operands) == 1 and self.alive:  # it is ours, or another trace would have been asked
            (x,) = operands
            values, ts = (x.value,), (x.aux,)
            absent = ts[0] is None
        else:
            values, ts = self.split(operands)
            absent = not [t for t in ts if t is not None]
        if absent:
            return self.passed(op(*values))
        if op.composite:
            found = op.decomposed(operands)
            if found is not NotImplemented:
                return found
        resting = OPEN.resting  # as `rest` and `wake` do
        resting.append(self)
        try:
            ys, dys = self.called(op, values, ts)
        finally:
            resting.pop()
        if len(ys) == 1:
            y, t = ys[0], dys[0]
            if y.__class__ is ndarray and y.dtype.kind in "fc" and t.__class__ is not TracedArray:
                return (TracedArray(self, y, t, y.shape, y.dtype),)  # the usual case, one call less
            return (self._called_result(op, y, t),)
        return tuple([self._called_result(op, y, t) for y, t in zip(ys, dys, strict=True)])

    def _called_result(self, op: Any, y: Any, t: Any) -> Any:
        """A result of an op that holds functions; one without a derivative as it is."""
        if y.__class__ is ndarray and y.dtype.kind in "fc" and t.__class__ is not TracedArray:
            return TracedArray(self, y, t, y.shape, y.dtype)
        if y.__class__ is TracedArray or t.__class__ is TracedArray:
            op.check_captured(self.level, (y, t))
        shape, dtype = aval_of(y)
        return TracedArray(self, y, t, shape, dtype) if kind(dtype) in "fc" else y

    def _is_plain_dual(self, x: Any) -> bool:
        """Whether `x` is ours, with a tangent and a NumPy array as its value."""
        mine = x.__class__ is TracedArray and x.owner is self
        return mine and x.aux is not None and x.value.__class__ is ndarray

    def _product(self, op: Any, position: int, x: Any, values: tuple) -> Any:
        """What most calls are: linear in one traced array, the other plain."""
        if not self.alive:
            raise self.leaked(x)
        out = op.evaluate(HOST, *values)
        t = self.partial(op, position, x.aux, values, out)
        return TracedArray(self, out, t, out.shape, out.dtype)

    def split(self, operands: tuple) -> tuple[tuple, tuple]:
        """Primal values and tangents of the operands."""
        if not self.alive:
            raise self.leaked(*operands)
        values, ts = [], []
        for x in operands:
            mine = x.__class__ is TracedArray and x.owner is self
            values.append(x.value if mine else self.kept(x) if x.__class__ in WRITABLE else x)
            ts.append(x.aux if mine else None)
        return tuple(values), tuple(ts)

    def concrete(self, x: Any) -> Any:
        if not self.alive:
            raise self.leaked(x)
        return x.value

    def boxed(self, value: Any) -> Any:
        return TracedArray(self, value, None, shape_of(value), dtype_of(value))
