"""NumPy's two protocols: doors to the one table of names."""

from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import fft, indexing, padding, reduce, shape
from gpujac.array.table import LINALG, SCIPY, TABLE
from gpujac.array.views import become, check_fits, check_storable
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.trace import Tracer
from gpujac.errors import DispatchError, MutationError
from gpujac.ops import elementwise as ew

UFUNCS: dict[Any, Any] = {
    getattr(np, name): f for name, f in TABLE.items() if isinstance(getattr(np, name, None), np.ufunc)
}
_FUNCTIONS: dict[Any, Any] = {
    **{getattr(np.linalg, name): f for name, f in LINALG.items() if getattr(np.linalg, name, None)},
    **{
        getattr(np, name): f
        for name, f in TABLE.items()
        if getattr(np, name, None) is not None and not isinstance(getattr(np, name), np.ufunc)
    },
    **{getattr(np.fft, name): f for name, f in fft.NAMES.items()},
    np.lib.stride_tricks.sliding_window_view: padding.sliding_window_view,
}
_REDUCE = {
    np.add: reduce.sum,
    np.multiply: reduce.prod,
    np.maximum: reduce.max,
    np.minimum: reduce.min,
    np.logical_and: reduce.all,
    np.logical_or: reduce.any,
}
_ACCUMULATE = {np.add: reduce.cumsum, np.multiply: reduce.cumprod}
_NEUTRAL = {"casting", "order", "subok", "signature"}  # options that change no value


def array_ufunc(ufunc: Any, method: str, inputs: tuple, kwargs: dict) -> Any:
    """NEP 13: a NumPy ufunc met a traced array."""
    if method == "__call__":
        f = UFUNCS.get(ufunc)
        if f is None:
            return _by_name(ufunc, inputs, kwargs)
        return with_options(_spelled(ufunc), f, inputs, dict(kwargs), ufunc.signature is not None)
    if method == "reduce" and ufunc in _REDUCE:
        return _reduced(_REDUCE[ufunc], *inputs, **kwargs)
    if method == "accumulate" and ufunc in _ACCUMULATE:
        return _accumulated(_ACCUMULATE[ufunc], *inputs, **kwargs)
    if method == "outer" and len(inputs) == 2 and ufunc in UFUNCS:
        return _outer(ufunc, *inputs, **kwargs)
    if method == "at" and ufunc in (np.add, np.subtract):
        return add_at(ufunc, *inputs)
    raise DispatchError(
        f"np.{ufunc.__name__}.{method} is not supported on traced arrays; write it with sums, products and indexing"
    )


def _reduced(f: Any, x: Any, axis: Any = 0, dtype: Any = None, out: Any = None, **options: Any) -> Any:
    if dtype is not None:
        x = c.astype(x, dtype)
    c.refuse("reduce", out=out[0] if isinstance(out, tuple) else out)
    return f(x, axis=axis, **options)


def _accumulated(f: Any, x: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
    return f(x, axis, dtype, out[0] if isinstance(out, tuple) else out)


def _by_name(ufunc: Any, inputs: tuple, kwargs: dict) -> Any:
    """A ufunc of another library (scipy.special) by its name."""
    f = SCIPY.get(ufunc.__name__)
    if f is None:
        raise DispatchError(
            f"{ufunc.__name__} has no derivative rule in gpujac; compute it from gpujac.value(x) if "
            "it needs no derivative, or write it with the functions of gpujac.numpy"
        )
    return with_options(f"scipy.special.{ufunc.__name__}", f, inputs, dict(kwargs))


def _outer(ufunc: Any, x: Any, y: Any, **kwargs: Any) -> Any:
    x, y = c.together(x, y)
    x = shape.reshape(x, tuple(shape_of(x)) + (1,) * len(shape_of(y))) if shape_of(x) else x
    return with_options(_spelled(ufunc), UFUNCS[ufunc], (x, y), kwargs)


def add_at(ufunc: Any, x: Any, key: Any, value: Any) -> None:
    """np.add.at and np.subtract.at on a traced array: every repetition counts."""
    if not isinstance(x, Tracer):
        raise MutationError(
            f"np.{ufunc.__name__}.at would add traced values into a plain array of shape "
            f"{shape_of(x)}: make the array with np.zeros_like(u), where u is a traced input"
        )
    value = c.lift(value, x)
    result = UFUNCS[ufunc](x, indexing.scattered(x, key, value))
    check_storable(dtype_of(result), x.dtype)
    become(x, c.astype(result, x.dtype))


def _spelled(ufunc: Any) -> str:
    return f"np.{ufunc.__name__}"


def with_options(name: str, f: Any, inputs: tuple, kwargs: dict, passes_on: bool = False) -> Any:
    """`f`, the rule of the ufunc `name`, with a ufunc's options: out, dtype, where.

    Others change no value or are refused, unless the ufunc `passes_on` what it does not know.
    """
    out = kwargs.pop("out", None)
    dtype = kwargs.pop("dtype", None)
    where = kwargs.pop("where", True)
    options = {option: value for option, value in kwargs.items() if option not in _NEUTRAL}
    inputs = c.together(*inputs)
    if (options and not passes_on) or (where is not True and out is None):
        option = next(iter(options), "where")
        raise DispatchError(
            f"{name}: {option}= is not supported on traced arrays"
            + (" without out=; use np.where on the result" if option == "where" else "")
        )
    if dtype is not None:
        inputs = tuple(c.astype(x, dtype) if shape_of(x) or isinstance(x, Tracer) else x for x in inputs)
    if where is True:
        result = f(*inputs, **options)
    else:
        with np.errstate(all="ignore"):  # entries that are not wanted may be anything
            result = f(*inputs, **options)
    if dtype is not None and not _is_flag(result):
        result = c.astype(result, dtype)
    return result if out is None else _store(name, out, result, where)


def _is_flag(x: Any) -> bool:
    """Whether `x` is boolean, as comparisons are whatever dtype= says."""
    return kind(dtype_of(x)) == "b"


def _store(name: str, out: Any, result: Any, where: Any) -> Any:
    target = out[0] if isinstance(out, tuple) else out
    if not isinstance(target, Tracer):
        raise MutationError(
            f"{name} would write a traced value into a plain array of shape "
            f"{shape_of(target)} (x += v or out=): make the array with np.zeros_like(u), where u "
            "is a traced input, or write x = x + v"
        )
    if where is not True:
        result = ew.where(c.lift(where, target), result, target)
    check_fits(shape_of(result), target.shape)
    check_storable(dtype_of(result), target.dtype)
    become(target, c.astype(c.broadcast(result, target.shape), target.dtype))
    return target


def array_function(function: Any, args: tuple, kwargs: dict) -> Any:
    """NEP 18: any other NumPy function met a traced array."""
    f = _FUNCTIONS.get(function)
    if f is None:
        name = f"{function.__module__}.{function.__name__}"
        raise DispatchError(
            f"{name} is not supported on traced arrays; write it with the functions of "
            "gpujac.numpy, or compute it from gpujac.value(x) if it needs no derivative"
        )
    return f(*args, **kwargs)
