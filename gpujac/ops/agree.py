"""Making operands agree, in one place: spread and cast tangents, compute and apply coefficients.

The primal runs the backend's own broadcasting and promotion; on the tangent both are explicit
entries, so no derivative rule ever "unbroadcasts".
"""

from typing import Any

import numpy as np

from gpujac.backends.choose import backend_of
from gpujac.core.aval import Shape, dtype_of, kind
from gpujac.core.op import Linear, Mask
from gpujac.core.trace import payload
from gpujac.ops.elementwise import add, guarded, multiply, where
from gpujac.ops.structure import CONJ, cast, spread_steps


class Guarded:
    """A coefficient with infinite or NaN entries: a zero tangent stays zero there."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


SPECIAL = frozenset((type(None), Mask, Guarded))  # coefficients that are not just multiplied


def agreement(shape: Shape, dtype: Any, new_shape: Shape, new_dtype: Any) -> tuple[Linear, ...]:
    """The linear ops that take a tangent of one shape and dtype to those of the result."""
    steps: tuple[Linear, ...] = ()
    if dtype != new_dtype:
        steps = (cast(dtype, new_dtype),)
    if shape != new_shape:
        steps += spread_steps(shape, new_shape)
    return steps


def coefficient(op: Any, position: int, xs: tuple, y: Any) -> Any:
    """What multiplies the tangent of operand `position`: None (one), a number or array, a Mask
    or a Guarded coefficient."""
    slope = op.slopes[position]
    if slope is None:
        return None
    if op.singular and (op.tame is None or not op.tame(*xs)):
        with np.errstate(all="ignore"):  # a derivative does not warn where the function did not
            c = slope(*xs, y)
            if c.__class__ is Mask:
                return c if c.factor is None else Mask(c.keep, _checked(_fit(c.factor, y)))
            return _checked(_fit(c, y))
    c = slope(*xs, y)
    kind_of = c.__class__
    if kind_of is float or kind_of is int or kind_of is complex:
        return c
    if kind_of is bool:
        return int(c)
    if kind_of is Mask:
        return c if c.factor is None else Mask(c.keep, _fit(c.factor, y))
    return c if c.dtype is y.dtype else _fit(c, y)


def _checked(c: Any) -> Any:
    target = payload(c)
    return c if backend_of(target).all_finite(target) else Guarded(c)


def _fit(c: Any, y: Any) -> Any:
    """`c` in the floating dtype of the result; Python numbers are weak and stay."""
    if type(c) in (int, float, complex):
        return c
    if type(c) is bool:
        return int(c)
    want = dtype_of(y)
    return c if c.dtype == want else cast(c.dtype, want)(c)


def times(t: Any, c: Any) -> Any:
    """`t * c`, also where the library of one refuses the other, a traced array."""
    try:
        return t * c
    except TypeError:  # array-api-strict does not hand over to the other operand
        return multiply(t, c)


def plus(a: Any, b: Any) -> Any:
    """`a + b`, also where the library of one refuses the other, a traced array."""
    try:
        return a + b
    except TypeError:
        return add(a, b)


def scale(t: Any, c: Any) -> Any:
    """The tangent `t` times the coefficient `c`."""
    if c is None:
        return t
    if type(c) not in SPECIAL:
        return times(t, c)
    if isinstance(c, Guarded):
        return guarded(t, c.value)
    return scale(where(c.keep, t, 0), c.factor)  # selected first: infinity times zero would warn


def conjugated(c: Any) -> Any:
    """The coefficient of the transpose: complex ones are conjugated."""
    if type(c) is Guarded:
        return Guarded(conjugated(c.value))
    if c is None:
        return c
    if type(c) is Mask:
        return c if c.factor is None else Mask(c.keep, conjugated(c.factor))
    if type(c) is complex:
        return c.conjugate()
    return CONJ(c) if type(c) not in (int, float) and kind(c.dtype) == "c" else c
