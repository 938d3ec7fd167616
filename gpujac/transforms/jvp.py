"""Forward mode: tangents are arrays, carried along as the function runs."""

from functools import partial
from typing import Any

from gpujac import ranges
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES
from gpujac.backends.host import SCALARS
from gpujac.core.aval import Shape, aval_of
from gpujac.core.op_ranges import watched
from gpujac.core.trace import Tracer
from gpujac.errors import ArgumentError
from gpujac.ops.agree import coefficient, plus, scale
from gpujac.transforms import flatten as fl
from gpujac.transforms.printing import describe
from gpujac.transforms.tangent import TangentTrace


class JvpTrace(TangentTrace):
    """A trace whose tangents are arrays (or tracers of outer transforms)."""

    __slots__ = ()
    transform = "jvp"
    dual = True

    def combine(self, op: Any, positions: tuple, ts: tuple, xs: tuple, y: Any, shape: Shape,
                dtype: Any) -> Any:
        total = scale(ts[0], coefficient(op, positions[0], xs, y))
        for p, t in zip(positions[1:], ts[1:], strict=True):
            total = plus(total, scale(t, coefficient(op, p, xs, y)))
        return total

    def agree(self, t: Any, shape: Shape, dtype: Any, new_shape: Shape, new_dtype: Any, y: Any) -> Any:
        """A tangent spread and cast to the shape and dtype of the result `y`, in the library of `y`."""
        if t.__class__ in SCALARS and y.__class__ not in HOST_TYPES:
            t = fl.array_of(t, [y])
        return super().agree(t, shape, dtype, new_shape, new_dtype, y)

    def apply(self, op: Any, t: Any, shape: Shape, dtype: Any) -> Any:
        return op(t)

    def gather(self, op: Any, ts: tuple, shape: Shape, dtype: Any) -> Any:
        return op(*ts)

    def partial(self, op: Any, position: int, t: Any, operands: tuple, y: Any) -> Any:
        return op(*(t if p == position else x for p, x in enumerate(operands)))

    def rule(self, op: Any, primals: tuple, ts: tuple, operands: tuple, y: Any) -> Any:
        return op.jvp(primals, ts, y)

    def called(self, op: Any, primals: tuple, ts: tuple) -> tuple[tuple, tuple]:
        return op.jvp(primals, ts)

    def add(self, ts: list, y: Any) -> Any:
        total = ts[0]
        for t in ts[1:]:
            total = plus(total, t)
        return total

    def describe(self, x: Tracer) -> str:
        """The repr of a tracer."""
        return describe(x)


def jvp(f: Any, primals: tuple, tangents: tuple, *, strict: bool = False,
        has_aux: bool = False) -> tuple:  # fmt: skip
    """Value of `f` and its directional derivative, in one pass.

    Args:
        f: callable of positional pytrees of arrays.
        primals: tuple of pytrees of floating or complex arrays: the point.
        tangents: tuple of pytrees with the structure, shapes and (after a cast) dtypes of
            `primals`: the direction.
        strict: raise if an output does not depend on the primals (else its tangent is zero).
        has_aux: `f` returns `(output, aux)`; aux is handed through.

    Returns:
        `(y, dy)` or `(y, dy, aux)`: the output and the tangent J·tangents with its structure.
        The arrays are new.

    Raises:
        StructureError, ShapeError, DTypeError: tangents do not match the primals.

    Cost: one evaluation of `f`, about twice its arithmetic; memory of one tangent per live value.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> y, dy = gj.jvp(lambda x: x * x, (np.array([1.0, 3.0]),), (np.array([1.0, 10.0]),))
        >>> dy
        array([ 2., 60.])
    """
    fl.check_callable("jvp", f)
    point = fl.Point("jvp", primals)
    ts = point.tangents("jvp", tangents)
    name, code = fl.name_of(f), getattr(f, "__code__", None)
    token = ranges.push("jvp", ranges.TRANSFORM)
    trace = watched(JvpTrace)(name)  # nothing may raise between this and the `try`
    try:
        trace.code = trace.source = code
        own = partial(fl.owned, others=point.leaves)
        tracers = [TracedArray(trace, x, t, *aval_of(x)) for x, t in zip(point.leaves, ts, strict=True)]
        out = fl.Outputs("jvp", fl.call(f, point.args(tracers), {}), has_aux, trace, own)
        ys, dys = [], []
        for i, y in enumerate(out.leaves):
            mine = isinstance(y, TracedArray) and y.owner is trace
            dy = y.aux if mine else None
            if dy is None and strict:
                raise ArgumentError(
                    f"jvp: strict=True, but {out.name(i)} of {name} does not depend on the primals: leave strict "
                    "out for a tangent of zeros, or return it through has_aux=True"
                )
            y = y.value if mine and y.aux is not None else fl.owned(y.value if mine else y, [], False)
            ys.append(y)
            dys.append(fl.zeros_of(y) if dy is None else dy)
        return out.rebuilt(fl.owned_all(ys, point.leaves), fl.owned_all(dys, [*ts, *ys]))
    finally:
        trace.close()
        ranges.pop(token)
