"""Which traced arrays share memory in NumPy's eyes, and what a write does to the others.

A traced array is immutable behind its name: a write replaces the payload. NumPy's views see each
other's writes, so a write climbs from a view to the array it was taken from, and every other live
view is taken anew. A view holds its parent, a parent holds weak references to its views.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any
from weakref import ref

import numpy as np

from gpujac.array.common import check_alive, placed, unshared
from gpujac.backends.choose import backend_of
from gpujac.core import taking
from gpujac.core.aval import kind, shape_of
from gpujac.core.trace import Tracer, payload
from gpujac.errors import DTypeError, MutationError, ShapeError
from gpujac.ops import elementwise as ew
from gpujac.ops import indexing as ix
from gpujac.ops import structure as st
from gpujac.ops.last_writer import LastWriter


def link(parent: Tracer, view: Tracer, how: Any, handlers: tuple) -> None:
    """Record that `view` is `handlers[0](parent, how)` and `handlers[1]` writes it back."""
    if view is parent or view.origin is not None:
        return
    view.origin = (parent, how, handlers)
    children = parent.children
    if children is None:
        parent.children = children = []
    elif len(children) >= 32 and len(children) & (len(children) - 1) == 0:
        children[:] = [r for r in children if r() is not None]  # reads in a loop leave dead entries
    children.append(ref(view))


def viewing(function: Callable) -> Callable:
    """Decorator: the result of `function` is a view of its first argument."""

    @wraps(function)
    def wrapper(x: Any, *args: Any, **kwargs: Any) -> Any:
        check_alive(x)
        result = function(x, *args, **kwargs)
        if isinstance(x, Tracer) and isinstance(result, Tracer):
            link(x, result, (function, args, kwargs), _CALLED)
        return result

    return wrapper


def read_only(function: Callable) -> Callable:
    """Decorator as `viewing`, where one entry of the argument is several of the result: writes into it raise."""

    @wraps(function)
    def wrapper(x: Any, *args: Any, **kwargs: Any) -> Any:
        check_alive(x)
        result = function(x, *args, **kwargs)
        if isinstance(x, Tracer) and isinstance(result, Tracer):
            result = unshared(result) if result is x else result
            link(x, result, (function, args, kwargs), _FIXED)
        return result

    return wrapper


def viewing_where_shared(function: Callable) -> Callable:
    """Decorator as `viewing`, for a function that copies where the memory layout asks for it."""

    @wraps(function)
    def wrapper(x: Any, *args: Any, **kwargs: Any) -> Any:
        check_alive(x)
        result: Any = function(x, *args, **kwargs)
        if isinstance(x, Tracer) and isinstance(result, Tracer):
            if kwargs.get("copy"):
                return unshared(result)
            how = (function, args, kwargs)
            if _shares_memory(x, result, how):
                link(x, result, how, _CALLED)
        return result

    return wrapper


def _shares_memory(x: Tracer, result: Tracer, how: tuple) -> bool:
    """Whether NumPy would give a view here: as the values did, or as labels without an axis mapped do."""
    plain = payload(x)
    if shape_of(plain) == x.shape and not _was_written(x):  # the values themselves tell
        return backend_of(plain).shares_memory(plain, payload(result))
    have = layout(x)
    return have is None or bool(np.may_share_memory(have, _call_again(have, how)))


def layout(x: Tracer) -> Any:
    """A NumPy array that lies in memory as `x` does in its library's eyes; None where that is unknown."""
    have = payload(x)
    blank = None if have is None else backend_of(have).blank(have)
    if blank is None:
        return None
    return _labels(x) if shape_of(have) != x.shape or _was_written(x) else blank


def _was_written(x: Tracer) -> bool:
    """Whether a view has been stored anew since it was taken, and so lost its memory layout."""
    if x.origin is None:
        return False
    source = payload(x.origin[0])
    return not backend_of(source).shares_memory(payload(x), source)


def _labels(x: Tracer) -> Any:
    """A plain array with the memory layout that `x` has in NumPy's eyes."""
    taken = []
    while x.origin is not None:
        taken.append(x.origin)
        x = x.origin[0]
    root = payload(x)
    labels = None if shape_of(root) != x.shape else backend_of(root).blank(root)
    labels = np.empty(x.shape, bool) if labels is None else labels
    for _, how, (again, _) in reversed(taken):
        labels = again(labels, how)
    return labels


def _call_again(parent: Any, how: tuple) -> Any:
    function, args, kwargs = how
    return function(parent, *args, **kwargs)


def _write_call_back(parent: Any, how: tuple, view: Any) -> Any:
    """The parent after a write into a view that rearranges its entries."""
    labels = np.arange(math.prod(parent.shape)).reshape(parent.shape)
    return write_positions(parent, _call_again(labels, how), view)


def _refuse(parent: Any, how: tuple, view: Any) -> Any:
    raise MutationError(
        "in-place write into a read-only view, of which several entries are one in memory: windows overlap, and "
        "broadcast entries repeat; write into the array itself, or .copy() the view first"
    )


_CALLED, _FIXED = (_call_again, _write_call_back), (_call_again, _refuse)


def write_positions(x: Any, flat: Any, value: Any) -> Any:
    """`x` with the entries at raveled positions `flat` replaced; the last of repetitions wins."""
    size, count = math.prod(x.shape), math.prod(flat.shape)
    if count == 0:
        return x
    flat = placed(flat, x) if isinstance(flat, np.ndarray) else flat
    source = LastWriter(size)(flat)
    value = st.reshape(tuple(value.shape), (count,))(value)
    chosen = ix.take(count, 0)(value, ew.maximum(source, 0))
    old = st.reshape(tuple(x.shape), (size,))(x)
    return st.reshape((size,), tuple(x.shape))(ew.where(ew.greater_equal(source, 0), chosen, old))


def become(x: Tracer, new: Any) -> None:
    """Make `x` hold `new`, as an in-place write does; every check comes first.

    Lanes of vmap that only watch the code at work keep what they have.
    """
    lanes = taking.mask()
    if lanes is not None:
        new = ew.where(lanes, new, x)
    chain, steps = [x], []
    while (origin := chain[-1].origin) is not None:
        if origin[2] is _FIXED:
            _refuse(origin[0], origin[1], x)
        chain.append(origin[0])
        steps.append(origin)
    for array in chain:
        _check_inside(array, new)
    _store(x, new)
    for view, (parent, how, (_, back)) in zip(chain[:-1], steps, strict=True):
        _store(parent, back(parent, how, view))
    _refresh(chain[-1], chain)


def _refresh(parent: Tracer, current: list) -> None:
    """Take the live views of `parent` anew, but for those that hold the write already."""
    waiting = [parent]
    while waiting:
        for r in waiting.pop().children or ():
            view = r()
            if view is None:
                continue
            if view.origin is not None and not any(view is c for c in current):
                source, how, (again, _) = view.origin
                _store(view, again(source, how))
            waiting.append(view)


def _store(x: Tracer, new: Any) -> None:
    if isinstance(new, Tracer):
        x.owner, x.value, x.aux = new.owner, new.value, new.aux
    else:
        x.value, x.aux = new, None


def _check_inside(x: Tracer, new: Any) -> None:
    if isinstance(new, Tracer) and new.owner.level > x.stamp and new.owner is not x.owner:
        raise MutationError(
            f"in-place write: an array of shape {x.shape} made outside {new.owner.transform} of "
            f"{new.owner.origin} would receive a value traced inside it; make the array inside "
            "the function (np.zeros_like, .copy()) or return the value instead"
        )


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
