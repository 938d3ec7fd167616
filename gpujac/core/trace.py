"""Traces and tracers: one open transform, and a value that it watches.

A trace is one transform at work. Its `level` comes from one process-wide counter, so levels of
different threads never coincide; among the operands of an operation the highest level wins.
"""

import itertools
import sys
import threading
from collections.abc import Sequence
from types import CodeType, FrameType
from typing import Any

from gpujac.core.aval import name_of
from gpujac.core.source import INTERNAL_CODE, WRAPPED, Line, here, line_at, spot_above
from gpujac.errors import LeakedTracerError

_COUNTER = itertools.count(1)
_LOCK = threading.Lock()
_getframe = sys._getframe
LATEST = [0]  # the last level given out: stamps tracers with "which transforms were open"


class _Open(threading.local):
    """The traces that are open in this thread, the innermost last."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self.resting: list[Trace] = []


OPEN = _Open()  # read by the hot paths of custom operations, else through the functions below


def innermost() -> "Trace | None":
    """The innermost open trace of this thread: what arrays made by our namespaces belong to.

    Dispatch never asks this; it looks at operands only.
    """
    traces, resting = OPEN.traces, OPEN.resting
    if not resting:
        return traces[-1] if traces else None
    return next((t for t in reversed(traces) if t not in resting), None)


def rest(trace: "Trace") -> None:
    """Until `wake`, arrays that are made do not belong to this trace: a rule is at work below it."""
    OPEN.resting.append(trace)


def wake() -> None:
    """End the latest `rest`."""
    OPEN.resting.pop()


def open_traces() -> "list[Trace]":
    """The traces that are open in this thread, the innermost last; not to be changed."""
    return OPEN.traces


class Trace:
    """One open transform; subclasses say what an operation means to it."""

    __slots__ = ("level", "alive", "origin", "code", "source")
    transform = "trace"
    batches = False  # whether its tracers are many plain values at once, and nothing else
    dual = False  # whether `aux` of its tracers is a tangent
    spots: list | None = None  # where the user's code made each entry, in traces that record it
    writes = False  # whether its operations append to `entries`, the program that they write down

    def __init__(self, origin: str) -> None:
        with _LOCK:
            self.level = LATEST[0] = next(_COUNTER)
        self.alive = True
        self.origin = origin
        self.code: CodeType | None = None  # the user's code that made the latest tracer
        self.source: CodeType | None = None  # the code of the function that is transformed
        OPEN.traces.append(self)

    def close(self) -> None:
        """Mark the transform as finished: its tracers raise from now on."""
        self.alive = False
        if self in OPEN.traces:
            OPEN.traces.remove(self)

    def reopen(self) -> None:
        """Open a closed transform again, now the innermost: its tracers are valid until the next `close`."""
        with _LOCK:
            self.level = LATEST[0] = next(_COUNTER)
        self.alive = True
        OPEN.traces.append(self)

    def leaked(self, *operands: Any) -> LeakedTracerError:
        """The error for a tracer, one of `operands`, that outlived this trace."""
        mine = [x for x in operands if isinstance(x, Tracer) and x.owner is self]
        line = mine[0].made_at() if mine else None
        if line is None and mine and self.source is not None:  # an argument of the function
            line = line_at(self.source, 0)
        return LeakedTracerError(
            f"a traced array{_kind(mine)} escaped from {self.transform} of {self.origin} and was used after "
            "that transform had finished; return the value from the function (or pass it out "
            "through has_aux=True) instead of storing it outside"
            + (f"\nIt was made here:\n  {line}" if line else "")
        )

    def called_from(self, frame: FrameType | None) -> tuple[CodeType | None, int]:
        """The innermost code of the user's from a frame outwards and its instruction."""
        while frame is not None and id(frame.f_code) in INTERNAL_CODE:
            frame = frame.f_back
        if frame is not None and frame.f_code is self.code:  # known: nothing has to be asked
            return frame.f_code, frame.f_lasti
        spot = spot_above(frame)
        if spot is None:
            return None, 0
        self.code = spot[0]
        return spot

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

    def passed(self, results: tuple) -> tuple:
        """The results of an op that holds functions and was called on constants of this trace.

        They are constants, too, but for what the functions made of a value of this trace (or a higher
        one) that they captured: their own operations have followed it, as without any operand.
        """
        return tuple([
            y if isinstance(y, Tracer) and y.owner.level >= self.level else self.boxed(y) for y in results
        ])  # fmt: skip


class Tracer:
    """A value watched by a trace. `value` and `aux` are the payload, the one mutable slot.

    `stamp` is the level counter at creation: a trace with a higher level was opened later.
    `code` and `at` are the user's code and the instruction of it that made the tracer (a frame would
    keep its arrays alive). `origin` and `children` say which arrays share memory in NumPy's eyes: a
    view knows its parent and how it was taken, a parent has weak references to its views.
    """

    __slots__ = ("owner", "value", "aux", "shape", "dtype", "stamp", "origin", "children", "code", "at",
                 "__weakref__")  # fmt: skip

    def __init__(self, owner: Trace, value: Any, aux: Any, shape: tuple, dtype: Any) -> None:
        self.owner = owner
        self.value = value
        self.aux = aux
        self.shape = shape
        self.dtype = dtype
        self.stamp = LATEST[0]
        self.origin: tuple | None = None
        self.children: list | None = None
        try:
            frame = _getframe(3)  # through a bind and an operator or NumPy's protocol: most often the user's
        except ValueError:  # a stack without so many frames
            frame = _getframe(0)
        code: CodeType | None = frame.f_code
        if code is not owner.code:
            self.code, self.at = (None, 0) if id(code) in WRAPPED else owner.called_from(frame)
            return
        self.code = code
        self.at = frame.f_lasti

    def mark(self) -> None:
        """Take note of the user's line where a transform hands out a tracer that one of its sweeps made."""
        if self.code is None:
            self.code, self.at = here() or (None, 0)

    def made_at(self) -> Line | None:
        """The user's line that made this tracer."""
        return None if self.code is None else line_at(self.code, self.at)


def _kind(tracers: list) -> str:
    """Shape and dtype of the first tracer, for messages."""
    return f" of shape {tuple(tracers[0].shape)} and dtype {name_of(tracers[0].dtype)}" if tracers else ""


def top_trace(operands: tuple) -> Trace | None:
    """The highest trace among the operands, None if none is traced."""
    top = None
    for x in operands:
        if isinstance(x, Tracer) and (top is None or x.owner.level > top.level):
            top = x.owner
    return top


def only_lanes(xs: Sequence[Any]) -> bool:
    """Whether nothing watches any of `xs` but vmap."""
    for x in xs:
        while isinstance(x, Tracer):
            if not x.owner.batches:
                return False
            x = x.value
    return True


def concrete(x: Any) -> Any:
    """The array behind all tracers of `x`; an error under vmap, where there are many."""
    while isinstance(x, Tracer):
        x = x.owner.concrete(x)
    return x


def is_mapped(x: Any) -> bool:
    """Whether `x` differs between the lanes of some vmap, and so has no single value."""
    while isinstance(x, Tracer):
        if x.owner.batches and x.aux is not None:
            if not x.owner.alive:
                raise x.owner.leaked(x)
            return True
        x = x.value
    return False


def payload(x: Any) -> Any:
    """The innermost stored array of `x`, mapped axes included (for checks, not for values)."""
    while isinstance(x, Tracer):
        x = x.value
    return x
