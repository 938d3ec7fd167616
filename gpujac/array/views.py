"""Which traced arrays share memory in NumPy's eyes, and what a write may do.

NumPy's views see each other's writes; a traced array cannot, so a write that another live view
would have to see is an error instead of a wrong number.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any
from weakref import ref

from gpujac.core.aval import kind
from gpujac.core.trace import Tracer
from gpujac.errors import DTypeError, MutationError, ShapeError


def link(base: Tracer, view: Tracer) -> None:
    """Record that `view` shares memory with `base`."""
    if view is base:
        return
    family = base.family
    if family is None:
        base.family = family = [ref(base)]
    elif len(family) >= 32 and len(family) & (len(family) - 1) == 0:
        family[:] = [r for r in family if r() is not None]  # reads in a loop leave dead entries
    family.append(ref(view))
    view.family = family


def viewing(function: Callable) -> Callable:
    """Decorator: results of `function` are views of its first argument."""

    @wraps(function)
    def wrapper(x: Any, *args: Any, **kwargs: Any) -> Any:
        result = function(x, *args, **kwargs)
        if isinstance(x, Tracer):
            for part in result if isinstance(result, (list, tuple)) else (result,):
                if isinstance(part, Tracer):
                    link(x, part)
        return result

    return wrapper


def become(x: Tracer, new: Any) -> None:
    """Make `x` hold `new`, as an in-place write does; every check comes first."""
    if isinstance(new, Tracer) and new.owner.level > x.stamp and new.owner is not x.owner:
        raise MutationError(
            f"in-place write: an array of shape {x.shape} made outside {new.owner.transform} of "
            f"{new.owner.origin} would receive a value traced inside it; make the array inside "
            "the function (np.zeros_like, .copy()) or return the value instead"
        )
    if x.family is not None:
        others = [r() for r in x.family]
        if any(o is not None and o is not x for o in others):
            raise MutationError(
                f"in-place write into an array of shape {x.shape} that shares memory with another "
                "live array (a slice, reshape or transpose of it, or the array it was taken "
                "from), which would have to see the write; write through one name only, as in "
                "x[1:3, 0] = v, or take a copy with .copy() first"
            )
        x.family = None
    if isinstance(new, Tracer):
        x.owner, x.value, x.aux = new.owner, new.value, new.aux
    else:
        x.value, x.aux = new, None


def check_storable(value: Any, target: Any) -> None:
    """Raise unless a value of dtype `value` may be stored in an array of dtype `target`."""
    order = "biufc".replace("u", "i")
    have, want = kind(value), kind(target)
    have, want = ("i" if have == "u" else have), ("i" if want == "u" else want)
    if order.index(have) > order.index(want):
        raise DTypeError(
            f"in-place write of {value} values into an array of dtype {target}: the conversion "
            f"would lose the derivative; make the array with dtype={value}, for example "
            "np.zeros_like(x, dtype=...)"
        )


def check_fits(shape: tuple, target: tuple) -> None:
    """Raise unless `shape` broadcasts to `target` without changing it."""
    trimmed = tuple(shape)
    while len(trimmed) > len(target) and trimmed[0] == 1:
        trimmed = trimmed[1:]
    pad = len(target) - len(trimmed)
    if pad < 0 or any(a not in (1, b) for a, b in zip(trimmed, target[pad:], strict=True)):
        raise ShapeError(f"in-place write: value of shape {shape} does not fit into {target}")
