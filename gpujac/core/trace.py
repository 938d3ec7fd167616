"""Traces and tracers: one open transform, and a value that it watches.

A trace is one transform at work. Its `level` comes from one process-wide counter, so levels of
different threads never coincide; among the operands of an operation the highest level wins.
"""

import itertools
import threading
from typing import Any

from gpujac.errors import LeakedTracerError

_COUNTER = itertools.count(1)
_LOCK = threading.Lock()
LATEST = [0]  # the last level given out: stamps tracers with "which transforms were open"


class _Open(threading.local):
    """The traces that are open in this thread, the innermost last."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []


_OPEN = _Open()


def innermost() -> "Trace | None":
    """The innermost open trace of this thread: what arrays made by our namespaces belong to.

    Dispatch never asks this; it looks at operands only.
    """
    return _OPEN.traces[-1] if _OPEN.traces else None


class Trace:
    """One open transform; subclasses say what an operation means to it."""

    __slots__ = ("level", "alive", "origin")
    transform = "trace"
    batches = False  # whether its tracers are many plain values at once, and nothing else

    def __init__(self, origin: str) -> None:
        with _LOCK:
            self.level = LATEST[0] = next(_COUNTER)
        self.alive = True
        self.origin = origin
        _OPEN.traces.append(self)

    def close(self) -> None:
        """Mark the transform as finished: its tracers raise from now on."""
        self.alive = False
        if self in _OPEN.traces:
            _OPEN.traces.remove(self)

    def leaked(self) -> LeakedTracerError:
        """The error for a tracer that outlived this trace."""
        return LeakedTracerError(
            f"a traced array escaped from {self.transform} of {self.origin} and was used after "
            "that transform had finished; return the value from the function (or pass it out "
            "through has_aux=True) instead of storing it outside"
        )

    # What a trace must answer; `op` is the operation, operands may belong to lower traces.
    def unary(self, op: Any, x: Any) -> Any:
        """A pointwise op of one operand."""
        raise NotImplementedError

    def pointwise(self, op: Any, operands: tuple) -> Any:
        """A pointwise op of several operands."""
        raise NotImplementedError

    def binary(self, op: Any, x: Any, y: Any) -> Any:
        """A pointwise op of two operands: the hot path, which subclasses may shorten."""
        return self.pointwise(op, (x, y))

    def linear(self, op: Any, x: Any) -> Any:
        """A structural linear op of one operand."""
        raise NotImplementedError

    def joint(self, op: Any, operands: tuple) -> Any:
        """An op that is linear in all its operands together."""
        raise NotImplementedError

    def general(self, op: Any, operands: tuple) -> Any:
        """Any other op."""
        raise NotImplementedError

    def call(self, op: Any, operands: tuple) -> tuple:
        """An op that holds functions; it has several results."""
        raise NotImplementedError

    def concrete(self, x: "Tracer") -> Any:
        """The value behind `x` one level down, or an error if it has none."""
        raise NotImplementedError

    def describe(self, x: "Tracer") -> str:
        """The repr of a tracer of this trace."""
        raise NotImplementedError

    def boxed(self, value: Any) -> Any:
        """A mutable traced array that holds the constant `value` in this trace."""
        raise NotImplementedError


class Tracer:
    """A value watched by a trace. `value` and `aux` are the payload, the one mutable slot.

    `stamp` is the level counter at creation: a trace with a higher level was opened later.
    `origin` and `children` say which arrays share memory in NumPy's eyes: a view knows its parent
    and how it was taken, a parent has weak references to its views.
    """

    __slots__ = ("owner", "value", "aux", "shape", "dtype", "stamp", "origin", "children", "__weakref__")

    def __init__(self, owner: Trace, value: Any, aux: Any, shape: tuple, dtype: Any) -> None:
        self.owner = owner
        self.value = value
        self.aux = aux
        self.shape = shape
        self.dtype = dtype
        self.stamp = LATEST[0]
        self.origin: tuple | None = None
        self.children: list | None = None


def top_trace(operands: tuple) -> Trace | None:
    """The highest trace among the operands, None if none is traced."""
    top = None
    for x in operands:
        if isinstance(x, Tracer) and (top is None or x.owner.level > top.level):
            top = x.owner
    return top


def concrete(x: Any) -> Any:
    """The array behind all tracers of `x`; an error under vmap, where there are many."""
    while isinstance(x, Tracer):
        x = x.owner.concrete(x)
    return x


def payload(x: Any) -> Any:
    """The innermost stored array of `x`, mapped axes included (for checks, not for values)."""
    while isinstance(x, Tracer):
        x = x.value
    return x
