"""New arrays made while tracing: mutable, so that user code can fill them."""

import operator
from functools import wraps
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array.indexing import setitem
from gpujac.array.shape import atleast_1d, broadcast_to, expand_dims, moveaxis, reshape, squeeze
from gpujac.array.views import check_alive
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.trace import Tracer, innermost, payload
from gpujac.errors import ArgumentError


def _shape(x: Any, shape: Any) -> tuple:
    if shape is None:
        return tuple(shape_of(x))
    return tuple(shape) if isinstance(shape, (tuple, list)) else (int(shape),)


def _box(x: Any, dtype: Any, shape: Any, make: Any) -> Any:
    like = payload(x)
    chosen = dtype_of(x) if dtype is None else c.as_dtype(dtype, x)
    if like is None:  # recorded without values
        like = np.zeros(())
    value = make(backend_of(like), _shape(x, shape), chosen, like)
    return x.owner.boxed(value) if isinstance(x, Tracer) else value


def zeros_like(x: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None,
               *, device: Any = None) -> Any:  # fmt: skip
    """Zeros of the shape of `x`, writable with traced values."""
    return _box(x, dtype, shape, lambda be, s, d, like: be.zeros(s, d, like))


def empty_like(x: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None,
               *, device: Any = None) -> Any:  # fmt: skip
    """Zeros of the shape of `x` (unset entries have derivative zero either way)."""
    return zeros_like(x, dtype, order, subok, shape)


def ones_like(x: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None,
              *, device: Any = None) -> Any:  # fmt: skip
    """Ones of the shape of `x`, writable with traced values."""
    return _box(x, dtype, shape, lambda be, s, d, like: be.zeros(s, d, like) + be.asarray(1, d, like))


def full_like(x: Any, fill_value: Any, dtype: Any = None, order: str = "K", subok: bool = True,
              shape: Any = None, *, device: Any = None) -> Any:  # fmt: skip
    """`fill_value` (possibly traced) in the shape of `x`."""
    out = zeros_like(x, dtype, order, subok, shape)
    if isinstance(out, Tracer):
        setitem(out, ..., fill_value)
        return out
    if isinstance(fill_value, Tracer):
        return c.broadcast(c.astype(c.onto(fill_value, out), dtype_of(out)), out.shape)
    out[...] = fill_value
    return out


def copy(x: Any, order: str = "K", subok: bool = False) -> Any:
    """A new array with the same values; a write into it leaves `x` alone."""
    check_alive(x)
    return x.detached()


def asarray(x: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, device: Any = None,
            like: Any = None) -> Any:  # fmt: skip
    """`x` itself if it is traced (cast when asked); a list that holds traced entries is stacked."""
    made = isinstance(x, (list, tuple))
    x = c.lift(x)
    cast = x if dtype is None else c.astype(x, dtype)
    check_alive(cast)
    return cast.detached() if copy and cast is x and not made else cast


def ascontiguousarray(x: Any, dtype: Any = None, *, like: Any = None) -> Any:
    """`x` with at least one axis; where the entries lie is no matter here."""
    return atleast_1d(asarray(x, dtype))


def array(x: Any, dtype: Any = None, *, copy: Any = True, order: Any = None, subok: bool = False,
          ndmin: int = 0, ndmax: int = 0, like: Any = None) -> Any:  # fmt: skip
    """A copy of `x`, or its nested lists stacked into one array."""
    y = asarray(x, dtype, copy=copy)
    missing = ndmin - len(y.shape)
    return reshape(y, (1,) * missing + tuple(y.shape)).detached() if missing > 0 else y


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C", *, device: Any = None,
         like: Any = None) -> Any:  # fmt: skip
    """A new array filled with a traced value."""
    value = fill_value if dtype is None else c.astype(fill_value, dtype)
    return broadcast_to(value, shape).detached()


def linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False,
             dtype: Any = None, axis: int = 0, *, device: Any = None) -> Any:  # fmt: skip
    """Evenly spaced numbers between traced ends, along a new axis."""
    count = operator.index(num)
    if count < 0:
        raise ArgumentError(f"linspace: num={count} is negative")
    start, stop = (c.floating(x) for x in c.strong(c.together(start, stop)))
    gaps = count - 1 if endpoint else count
    shape = c.broadcast_shapes(tuple(shape_of(start)), tuple(shape_of(stop)))
    like = payload(start if isinstance(start, Tracer) else stop)
    steps = backend_of(like).asarray(np.arange(count) / max(gaps, 1), dtype_of(start), like)
    steps = moveaxis(reshape(steps, (count,) + (1,) * len(shape)), 0, axis)
    start, stop = (expand_dims(c.broadcast(x, shape), axis) for x in (start, stop))
    y = start + (stop - start) * steps
    y = y if dtype is None else c.astype(y, dtype)
    return (y, squeeze(stop - start, axis) / gaps) if retstep else y


def boxing(make: Any) -> Any:
    """`make` (zeros, ones, empty, full) whose arrays receive traced writes while tracing."""

    @wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        value = make(*args, **kwargs)
        trace = innermost()
        if trace is None or kind(dtype_of(value)) not in "fc":
            return value
        return trace.boxed(value)

    return made
