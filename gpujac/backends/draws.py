"""The draws that a generator of CuPy's lacks and that follow from those it has."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac.errors import DispatchError


def is_generator(x: Any) -> bool:
    """Whether `x` has the draws that all others here are made of; CuPy's Generator has few methods."""
    return all([callable(getattr(x, name, None)) for name in ("standard_normal", "uniform", "standard_exponential")])


def method_of(generator: Any, name: str) -> Callable:
    """A draw of the generator by its name: its own, or one made of others where it has none."""
    found = getattr(generator, name, None)
    if found is not None:
        return found
    made = _MADE.get(name)
    if made is None:
        kind = type(generator)
        raise AttributeError(
            f"random.wrap: {kind.__module__}.{kind.__name__} has no {name}; make it of draws that it has, or draw "
            "with keys (gpujac.random.key)"
        )
    return lambda *args, **kwargs: made(generator, *args, **kwargs)


def _normal(generator: Any, loc: Any = 0.0, scale: Any = 1.0, size: Any = None, **options: Any) -> Any:
    if size is None:
        size = np.broadcast_shapes(np.shape(loc), np.shape(scale)) or None
    return loc + scale * generator.standard_normal(size, **options)


def _permutation(generator: Any, x: Any) -> Any:
    """The order of independent numbers: all orders are equally likely."""
    shape = np.shape(x)
    order = generator.random(shape[0] if shape else int(x)).argsort()
    return x[order] if shape else order


def _choice(generator: Any, a: Any, size: Any = None, replace: bool = True, p: Any = None, axis: int = 0) -> Any:
    if p is not None:
        raise DispatchError(
            f"random.wrap: {type(generator).__module__}.Generator has no choice, and the one made here knows no p; "
            "use a RandomState, or draw with keys (gpujac.random.uniform and searchsorted)"
        )
    shape = np.shape(a)
    count = shape[axis] if shape else int(a)
    at = generator.integers(0, count, size) if replace else _distinct(generator, count, size)
    return a.take(at, axis) if shape else at


def _distinct(generator: Any, count: int, size: Any) -> Any:
    """Positions below `count`, none twice."""
    shape = () if size is None else tuple(size) if isinstance(size, (tuple, list)) else (size,)
    many = math.prod(shape)
    if many > count:
        raise ValueError(f"random.wrap: choice without replacement of {many} among {count}")
    return _permutation(generator, count)[:many].reshape(shape)


_MADE: dict[str, Callable] = {"normal": _normal, "permutation": _permutation, "choice": _choice}
