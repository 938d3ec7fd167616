"""What the passes of one call of vmap share: lanes in all, mode of randomness, draws, and ops that were slow."""

import sys
import warnings
from types import FrameType
from typing import Any

import numpy as np

from gpujac.backends.choose import backend_of
from gpujac.core.source import is_internal
from gpujac.core.trace import Trace, Tracer, open_traces, payload

_TELLING = ("numpy", "cupy", "emulated")  # libraries that know whether an array is a part of another
MODES = ("error", "same", "different")


class Tape:
    """Random draws in the order of the calls, and where the running pass is among them.

    A chunk of lanes runs the function again; it reads the draws that the first one made, so that
    all chunks together draw what one pass would. `untaped`: a single pass drew without keeping it.
    """

    __slots__ = ("draws", "position", "untaped", "parameters")

    def __init__(self) -> None:
        self.draws: list[tuple] = []
        self.position = 0
        self.untaped = False
        self.parameters: dict[tuple, dict] = {}  # of shifted draws, which lanes that share one must agree on

    def clear(self) -> None:
        """Forget the draws."""
        self.draws.clear()
        self.parameters.clear()
        self.position = 0


class Lanes:
    """One call of vmap, as the traces of its passes see it."""

    __slots__ = ("origin", "total", "randomness", "passes", "slow", "tape", "first", "done")

    def __init__(self, origin: str, total: int, randomness: str, passes: int) -> None:
        self.origin = origin
        self.total = total
        self.randomness = randomness
        self.passes = passes
        self.done = False
        self.slow: dict[str, None] = {}  # names of ops that ran lane by lane, in their order
        outer = open_vmaps()
        self.tape = outer[0].lanes.tape if outer else Tape()
        self.first = self.tape.position  # where the tape stands when a pass of this call begins

    def begin(self) -> None:
        """A pass over some of the lanes begins."""
        self.tape.position = self.first

    def was_slow(self, name: str) -> None:
        """Take note of an op that runs lane by lane; after the call (in a pullback) say so at once."""
        if not self.total:
            return  # nothing runs
        if self.done:
            warn_slow(self.origin, (name,))
        self.slow[name] = None

    def end(self) -> None:
        """The call is over: one warning about all ops that ran lane by lane, at the line that called vmap."""
        self.done = True
        if not open_vmaps():
            self.tape.clear()  # a pullback may keep this object alive
        if self.slow:
            warn_slow(self.origin, tuple(self.slow))


class LaneTrace(Trace):
    """Marks one lane that runs on plain values (method="loop"); it watches nothing.

    `keys` are the random keys that belong to this lane alone, and the whole numbers that make such
    of others: mapped arguments, and keys that were made of them. Those of NumPy's that were made, one per
    draw, are in `made`, by the id of the array that owns the memory: nothing looks through all of them.
    """

    __slots__ = ("lanes", "start", "keys", "made")
    transform = "vmap"
    size = 1

    def __init__(self, lanes: Lanes, start: int, keys: list) -> None:
        super().__init__(lanes.origin)
        self.lanes = lanes
        self.start = start
        self.keys = keys
        self.made: dict[int, Any] = {}

    def take(self, x: Any) -> None:
        """A random key that was made of the lane's own is the lane's own."""
        inner = payload(x)
        if isinstance(inner, np.ndarray):
            owner = _owner(inner)
            self.made[id(owner)] = owner
        else:
            self.keys.append(x)

    def owns(self, x: Any) -> bool:
        """Whether a random key, or a number, is one of the lane's own, or a part of one."""
        inner = payload(x)
        if type(inner) is int:  # Python has one object for all equal small numbers
            return False
        if isinstance(inner, np.ndarray) and id(_owner(inner)) in self.made:
            return True
        for mine in self.keys:
            other = payload(mine)
            if other is inner:
                return True
            be = backend_of(inner)
            if type(other) is type(inner) and be.name in _TELLING and be.shares_memory(other, inner):
                return True
        return False

    def boxed(self, value: Any) -> Any:
        """A constant of the transform around this one, to which arrays made in the lane belong."""
        traces = open_traces()
        below = traces.index(self)
        return traces[below - 1].boxed(value) if below else value

    def describe(self, x: Tracer) -> str:
        raise NotImplementedError  # there are no tracers of this trace


def _owner(x: np.ndarray) -> np.ndarray:
    """The array whose memory `x` looks into."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def open_vmaps() -> list:
    """The traces of the calls of vmap that are at work in this thread, the outermost first.

    Where a rule of a custom function runs over the lanes of a call once more, its trace takes the
    place of the call's own.
    """
    found: dict[int, Any] = {}
    for trace in open_traces():
        lanes = getattr(trace, "lanes", None) if trace.transform == "vmap" else None
        if lanes is not None:
            found[id(lanes)] = trace
    return list(found.values())


def warn_slow(origin: str, names: tuple[str, ...]) -> None:
    """Say at the user's line that ops without a batching rule ran lane by lane."""
    they = "it runs" if len(names) == 1 else "they run"
    have = "has" if len(names) == 1 else "have"
    warnings.warn(
        f"vmap of {origin}: {', '.join(names)} {have} no batch rule, so {they} once per lane, which is slow; "
        "write a batch rule or register a decomposition, or set "
        'settings.missing_batch_rule="raise" to have an error instead',
        RuntimeWarning,
        stacklevel=_users_level(sys._getframe(0)),
    )


def _users_level(frame: FrameType | None) -> int:
    """How many frames the innermost one of the user's is above `frame`, itself counted as 1."""
    level = 1
    while frame is not None and is_internal(frame):
        frame = frame.f_back
        level += 1
    return level
