"""How traced arrays show themselves: one marker per level, the outermost transform first, then the value."""

from typing import Any

import numpy as np

from gpujac.backends.choose import backend_of
from gpujac.core.aval import name_of
from gpujac.core.finite import on_host, physical
from gpujac.core.trace import Tracer

_SHOWN = 24  # entries of an array that are written out; of a larger one the first three


def describe(x: Tracer) -> str:
    """The repr of a tracer: `Traced<vmap, 2 lanes>(Traced<grad>([[1., 2.], [3., 4.]], shape (2,), float64))`.

    Works for tracers of finished transforms too. The value has the lanes of vmaps in front.
    """
    markers, axes = [], []
    inner: Any = x
    while isinstance(inner, Tracer):
        markers.append(_marker(inner))
        if inner.owner.batches and inner.aux is not None:
            axes.append(inner.aux)
        inner = inner.value
    value = "no value" if inner is None else _short(inner, axes)
    text = f"{value}, shape {tuple(x.shape)}, {name_of(x.dtype)}"
    for marker in markers:
        text = f"Traced<{marker}>({text})"
    return text


def _marker(x: Tracer) -> str:
    """What the level of a tracer is, and whether it is still open."""
    trace: Any = x.owner
    text = trace.transform
    if trace.batches:
        text += f", {trace.size} lanes" if x.aux is not None else f", the same in {trace.size} lanes"
    return text if trace.alive else f"{text}, finished"


def _short(value: Any, axes: list[int]) -> str:
    """An array on one line, its mapped axes in front; of a long one the first entries."""
    shape = getattr(value, "shape", ())
    size = int(np.prod(shape, dtype=object))
    if size > _SHOWN:
        value = backend_of(value).ravel(value, 0)[:3]
    array = on_host(value)
    if size <= _SHOWN:
        lanes = physical(tuple(axes))
        array = np.moveaxis(array, lanes, range(len(lanes)))
    text = np.array2string(array, precision=4, separator=", ", max_line_width=10**6, threshold=_SHOWN)
    text = " ".join(text.split())
    return text if size <= _SHOWN else f"{text[:-1]}, ...]"
