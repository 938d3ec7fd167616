"""New arrays shaped like traced ones: mutable, so that user code can fill them."""

from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array.indexing import setitem
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.trace import Tracer, payload
from gpujac.errors import ArgumentTypeError
from gpujac.ops import elementwise as ew


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
        return c.broadcast(c.astype(fill_value, dtype_of(out)), out.shape)
    out[...] = fill_value
    return out


def copy(x: Any, order: str = "K", subok: bool = False) -> Any:
    """A new array with the same values; a write into it leaves `x` alone."""
    return ew.positive(x) if not isinstance(x, Tracer) else x.detached()


def asarray(x: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, device: Any = None,
            like: Any = None) -> Any:  # fmt: skip
    """`x` itself if it is traced (cast when asked), else NumPy's asarray."""
    if isinstance(x, (list, tuple)) and c.holds_tracer(x):
        raise ArgumentTypeError(
            "asarray of a list that holds traced arrays: join them with np.stack([...])"
        )
    if not isinstance(x, Tracer):
        return np.asarray(x, dtype)
    x = x if dtype is None else c.astype(x, dtype)
    return x.detached() if copy else x
