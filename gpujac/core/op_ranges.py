"""Traces whose every bound operation is watched: NVTX ranges, lines of the user's code, NaNs.

What is asked for is read when a transform opens its trace, so an operation pays nothing for the
possibility: the trace of a transform that nobody watches is the plain class.
"""

import threading
from functools import cache
from typing import Any

from gpujac import ranges
from gpujac.core import finite
from gpujac.core.op import Pointwise
from gpujac.core.source import Spot, here, user_line
from gpujac.core.trace import Trace
from gpujac.settings import get as setting

_BINDS = ("unary", "binary", "pointwise", "linear", "joint", "general", "call")


def watched(kind: Any, lines: bool = False) -> Any:
    """The trace class to open: `kind`, or where something is asked for a twin that looks at each operation.

    Args:
        kind: a class of traces.
        lines: whether to record where the user's code made each entry of a program (`trace.spots`).

    Returns:
        `kind` unless `lines`, `settings.nvtx="ops"` or `settings.debug_nans` asks for more.

    Example:
        >>> from gpujac import settings
        >>> from gpujac.transforms.jvp import JvpTrace
        >>> watched(JvpTrace) is JvpTrace
        True
        >>> with settings.override(nvtx="ops"):
        ...     issubclass(watched(JvpTrace), JvpTrace)
        True
    """
    opens, checks = setting("nvtx") == "ops", setting("debug_nans")
    if not (opens or checks or lines):
        return kind
    return _twin(kind, opens, checks, kind.writes and (lines or checks))


@cache
def _twin(kind: type[Trace], opens: bool, checks: bool, lines: bool) -> type:
    """A subclass of a trace class that looks at each operation once, also where one bind calls another."""

    def bind(method: Any) -> Any:
        def looked_at(self: Any, op: Any, *operands: Any) -> Any:
            outer = self.bound
            if outer is op:  # a short way that hands over to the general one
                return method(self, op, *operands)
            self.bound = op
            outermost = checks and not _now.inside
            if outermost:
                _now.inside = True
            token = ranges.push(op.name, ranges.TRACE) if opens else None
            first = len(self.entries) if lines else 0
            try:
                result = method(self, op, *operands)
            finally:
                self.bound = outer
                if outermost:
                    _now.inside = False
                ranges.pop(token)
            if lines:
                _note(self, first)
            if outermost and setting("debug_nans"):
                _check(self, op, operands, result)
            return result

        return looked_at

    def start(self: Any, *arguments: Any, **named: Any) -> None:
        kind.__init__(self, *arguments, **named)
        self.bound = None
        if lines:
            self.spots = []

    binds = {name: bind(getattr(kind, name)) for name in _BINDS}
    slots = ("bound", "spots") if lines else ("bound",)
    return type(kind.__name__, (kind,), {"__slots__": slots, "__init__": start, **binds})


def _note(trace: Any, first: int) -> None:
    """Write down where the entries from `first` on were made."""
    spots, spot = trace.spots, _now.spot or here()
    spots += [None] * (first - len(spots))
    spots += [spot] * (len(trace.entries) - len(spots))


class _Now(threading.local):
    """What this thread is inside of: an operation or a step of a sweep, whose own check sees everything."""

    def __init__(self) -> None:
        self.inside = False
        self.spot: Spot | None = None  # where the user's code made the entry that is being swept


_now = _Now()


class unchecked:  # noqa: N801 (reads as a verb in `with unchecked(...)`)
    """A step of a sweep: operations inside it belong to the entry `i` and are not checked one by one."""

    __slots__ = ("_before", "_spot")

    def __init__(self, spots: list | None, i: int) -> None:
        self._spot = None if spots is None or i >= len(spots) else spots[i]

    def __enter__(self) -> None:
        self._before = _now.inside, _now.spot
        _now.inside, _now.spot = True, self._spot or _now.spot

    def __exit__(self, *_: object) -> None:
        _now.inside, _now.spot = self._before


def _check(trace: Any, op: Any, operands: tuple, result: Any) -> None:
    """Raise if an operation made a NaN or an infinity of finite numbers."""
    operands = operands[0] if operands and type(operands[0]) is tuple else operands
    known = [(f"operand {p}", x) for p, x in enumerate(operands)]
    where = f"{trace.transform} of {trace.origin}"
    for y in result if type(result) is tuple else (result,):
        finite.check(op.name, list(operands), y, known, isinstance(op, Pointwise), where, user_line)
