"""NumPy's two protocols and the array-API namespace: three doors to the one table of names."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import indexing, reduce, shape
from gpujac.array.linalg import outer
from gpujac.array.table import LINALG, SCIPY, TABLE
from gpujac.array.views import become, check_fits, check_storable
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.trace import Tracer
from gpujac.errors import DispatchError, MutationError
from gpujac.ops import elementwise as ew

UFUNCS: dict[Any, Any] = {
    getattr(np, name): f
    for name, f in TABLE.items()
    if isinstance(getattr(np, name, None), np.ufunc)
}
_FUNCTIONS: dict[Any, Any] = {
    **{getattr(np.linalg, name): f for name, f in LINALG.items() if getattr(np.linalg, name, None)},
    **{
        getattr(np, name): f
        for name, f in TABLE.items()
        if getattr(np, name, None) is not None and not isinstance(getattr(np, name), np.ufunc)
    },
}
_REDUCE = {
    np.add: reduce.sum,
    np.multiply: reduce.prod,
    np.maximum: reduce.max,
    np.minimum: reduce.min,
    np.logical_and: reduce.all,
    np.logical_or: reduce.any,
}


def array_ufunc(ufunc: Any, method: str, inputs: tuple, kwargs: dict) -> Any:
    """NEP 13: a NumPy ufunc met a traced array."""
    if method == "__call__":
        f = UFUNCS.get(ufunc)
        if f is None:
            return _by_name(ufunc, inputs, kwargs)
        if not kwargs:
            return f(*inputs)
        return _with_options(ufunc, f, inputs, dict(kwargs))
    if method == "reduce" and ufunc in _REDUCE:
        kwargs = dict(kwargs)
        kwargs.setdefault("axis", inputs[1] if len(inputs) > 1 else 0)
        out = kwargs.pop("out", None)
        return _REDUCE[ufunc](inputs[0], out=None if out in (None, (None,)) else out, **kwargs)
    if method == "accumulate" and ufunc is np.add:
        return reduce.cumsum(inputs[0], kwargs.get("axis", 0))
    if method == "outer" and len(inputs) == 2:
        return _outer(ufunc, *inputs)
    if method == "at" and ufunc is np.add:
        return _add_at(*inputs)
    raise DispatchError(
        f"np.{ufunc.__name__}.{method} is not supported on traced arrays; write it with sums, "
        "products and indexing"
    )


def _by_name(ufunc: Any, inputs: tuple, kwargs: dict) -> Any:
    """A ufunc of another library (scipy.special) by its name."""
    f = SCIPY.get(ufunc.__name__)
    if f is None:
        raise DispatchError(
            f"{ufunc.__name__} has no derivative rule in gpujac; functions that have one: "
            "dir(gpujac.numpy)"
        )
    return f(*inputs, **kwargs)


def _outer(ufunc: Any, x: Any, y: Any) -> Any:
    if ufunc is np.multiply:
        return shape.reshape(outer(x, y), tuple(shape_of(x)) + tuple(shape_of(y)))
    x = shape.reshape(x, tuple(shape_of(x)) + (1,) * len(shape_of(y)))
    return UFUNCS[ufunc](x, y)


def _add_at(x: Any, key: Any, value: Any) -> None:
    """np.add.at on a traced array: every repetition counts."""
    if not isinstance(x, Tracer):
        raise MutationError(
            "np.add.at into a plain array with traced values: make the array with np.zeros_like(x)"
        )
    check_storable(dtype_of(value), x.dtype)
    become(x, ew.add(x, indexing.scattered(x, key, value)))


def _with_options(ufunc: Any, f: Any, inputs: tuple, kwargs: dict) -> Any:
    out = kwargs.pop("out", None)
    dtype = kwargs.pop("dtype", None)
    where = kwargs.pop("where", True)
    for name in ("casting", "order", "subok", "signature"):
        kwargs.pop(name, None)
    if where is not True or kwargs:
        raise DispatchError(
            f"np.{ufunc.__name__}: {'where' if where is not True else next(iter(kwargs))}= is not "
            "supported on traced arrays; use np.where on the result"
        )
    result = f(*inputs)
    if dtype is not None:
        result = c.astype(result, dtype)
    return result if out is None else _store(ufunc, out, result)


def _store(ufunc: Any, out: Any, result: Any) -> Any:
    target = out[0] if isinstance(out, tuple) else out
    if not isinstance(target, Tracer):
        raise MutationError(
            f"np.{ufunc.__name__} would write a traced value into a plain array of shape "
            f"{shape_of(target)} (x += v or out=): make the array with np.zeros_like(u), where u "
            "is a traced input, or write x = x + v"
        )
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


NAMESPACE = SimpleNamespace(
    __name__="gpujac.numpy",
    **TABLE,
    linalg=SimpleNamespace(**LINALG),
    pi=np.pi,
    e=np.e,
    inf=np.inf,
    nan=np.nan,
    newaxis=None,
    **{
        name: getattr(np, name)
        for name in """bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64
        complex64 complex128 finfo iinfo isdtype zeros ones empty full eye arange linspace""".split()
    },
)
