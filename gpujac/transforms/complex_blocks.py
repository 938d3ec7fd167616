"""Jacobians of complex functions as real ones: every complex leaf seen as pairs (re, im) in a last axis."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from gpujac import trees
from gpujac.array.reduce import imag, real
from gpujac.array.shape import stack
from gpujac.backends.choose import is_array
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.trace import Tracer
from gpujac.errors import ArgumentError, StructureError
from gpujac.ops import indexing as ix
from gpujac.ops import structure as st
from gpujac.ops.agree import plus
from gpujac.transforms import flatten as fl


def in_real_blocks(what: str, f: Callable, argnums: Any, has_aux: bool, with_value: bool, holomorphic: bool,
                   make: Callable[[Callable], Callable]) -> Callable:  # fmt: skip
    """The Jacobian of `f` by `make(function)`, a transform with aux and no value, in real blocks."""
    fl.check_callable(what, f)
    if holomorphic:
        raise ArgumentError(
            f"{what}: holomorphic=True and complex_blocks=True exclude each other: the first gives one complex "
            "derivative where there is one, the second the real derivatives of any function"
        )

    @wraps(f, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        point = fl.Point(what, args, argnums)
        dtypes = [dtype_of(x) for x in point.leaves]
        apart = [_split(x) for x in point.leaves]

        @wraps(f, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
        def of_pairs(*xs: Any, **named: Any) -> tuple:
            given = [leaf for p in point.positions for leaf in trees.flatten(xs[p])[0]]
            joined = [_joined(x, dtype) for x, dtype in zip(given, dtypes, strict=True)]
            whole = list(xs)
            for position, tree in zip(point.positions, point.trees(joined), strict=True):
                whole[position] = tree
            result = f(*whole, **named)
            y = _first(what, result) if has_aux else result
            return trees.map(_split, y), (y, result[1] if has_aux else None)

        J, (y, aux) = make(of_pairs)(*point.args(apart), **kwargs)
        if with_value:
            return J, ((y, aux) if has_aux else y)
        return (J, aux) if has_aux else J

    return jacobian_of


def _first(what: str, result: Any) -> Any:
    if not isinstance(result, tuple) or len(result) != 2:
        found = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
        raise StructureError(f"{what}: with has_aux=True the function must return a tuple (output, aux), not {found}")
    return result[0]


def _split(x: Any) -> Any:
    """A complex array as a real one of shape (..., 2); other things as they are."""
    if not (isinstance(x, Tracer) or is_array(x)) or kind(dtype_of(x)) != "c":
        return x
    x = np.complex128(x) if type(x) is complex else x
    return stack([real(x), imag(x)], -1)


def _joined(x: Any, dtype: Any) -> Any:
    """The array of complex `dtype` behind a real one of shape (..., 2); a real one as it is."""
    if kind(dtype) != "c":
        return x
    src = tuple(shape_of(x))
    whole = tuple([(0, n, 1) for n in src[:-1]])
    re, im = (ix.slice_of(src, (*whole, i))(x) for i in range(2))
    return plus(st.cast(dtype_of(x), dtype)(re), st.times_1j(dtype_of(x), dtype)(im))
