"""NVTX ranges: what a profiler's timeline shows of gpujac, and a recorder for tests.

One domain, "gpujac". A range's message is the transform (`jacrev`), inside it `chunk`, in that
`basis`, `sweep`, `assemble`, and kernel names; with `settings.nvtx="ops"` also the operations of the
user's function (`core/op_ranges.py`). Its category says what the payload counts: rows
for a transform (where they are known before the function runs: `vmap`) and for a sweep, the index
for a chunk, bytes for a kernel. Ranges are closed in `finally`:

    token = push("jacrev", TRANSFORM, rows)
    try:
        ...
    finally:
        pop(token)

With no tool attached and no recorder a pair costs two calls and nothing else (below 0.25 us);
whether a tool is attached is decided once, at the first range.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Final

import nvtx

from gpujac.settings import get as setting

__all__ = [
    "CHUNK",
    "KERNEL",
    "REPLAY",
    "TRACE",
    "TRANSFORM",
    "Event",
    "opened",
    "pop",
    "push",
    "push_counted",
    "record",
    "state",
]

TRANSFORM: Final = "transform"
TRACE: Final = "trace"
CHUNK: Final = "chunk"
REPLAY: Final = "replay"
KERNEL: Final = "kernel"

DOMAIN: Final = "gpujac"
_COLORS = {  # alpha, red, green, blue
    TRANSFORM: 0xFF76B900,
    TRACE: 0xFF5B8DB8,
    CHUNK: 0xFFE0A030,
    REPLAY: 0xFF9A6FB0,
    KERNEL: 0xFFC05050,
}


@dataclass(slots=True, eq=False)
class Event:
    """One range that a recorder saw; `end_ns` is None while it is open.

    Attributes:
        name: the message.
        category: one of the five categories.
        payload: rows, index or bytes, or None.
        depth: how many ranges of the same thread were open around it.
        start_ns, end_ns: `time.perf_counter_ns` at both ends.
        thread: `threading.get_ident()` of the thread that opened it.
        marks: what the recorder's `mark` returned at both ends; None without one.
    """

    name: str
    category: str
    payload: int | None
    depth: int
    start_ns: int
    thread: int
    end_ns: int | None = None
    marks: tuple | None = None


class _Thread(threading.local):
    """What each thread has for itself: its open ranges and its attribute objects.

    Attributes are kept per thread because the payload is written into them just before a push.
    """

    def __init__(self) -> None:
        self.open: list[Event] = []
        self.attributes: dict[tuple[str, str], Any] = {}


_thread = _Thread()
_lock = threading.Lock()
_domain: Any = None  # the NVTX domain; None before the first range and where no tool is attached
_decided = False  # whether `_domain` was looked up
_recorders: tuple[list[Event], ...] = ()
_marks: tuple[Callable[[], Any], ...] = ()  # what recorders call at both ends of a range
_idle = False  # decided, no tool, no recorder: nothing to do


def push(name: str, category: str = TRANSFORM, payload: int | None = None) -> Event | None:
    """Opens a range in the calling thread.

    Args:
        name: the message; a small fixed set of names, they are registered once and kept.
        category: one of the five categories.
        payload: an int that the category gives a meaning, or None.

    Returns:
        A token for `pop`; None where nobody looks.

    Example:
        >>> token = push("jacrev", TRANSFORM, 100)
        >>> pop(token)
    """
    if _idle:
        return None
    return _push(name, category, payload)


def push_counted(name: str, category: str, count: Callable[..., int], *what: Any) -> Event | None:
    """Opens a range whose payload is `count(*what)`, which is called only where somebody looks.

    Example:
        >>> token = push_counted("gather", KERNEL, sum, [800, 800])
        >>> pop(token)
    """
    if _idle:
        return None
    return _push(name, category, count(*what))


def pop(token: Event | None) -> None:
    """Closes the range of `token`, and any left open inside it. Call it in `finally`."""
    if token is not None:
        _pop(token)


class opened:  # noqa: N801 (reads as a verb in `with opened(...)`; a class, as generators cost 1 us)
    """A range as a context manager, for places that are not hot.

    Example:
        >>> with record() as events, opened("chunk", CHUNK, 0):
        ...     pass
        >>> [(event.name, event.category, event.payload) for event in events]
        [('chunk', 'chunk', 0)]
    """

    __slots__ = ("_arguments", "_token")

    def __init__(self, name: str, category: str = TRANSFORM, payload: int | None = None) -> None:
        self._arguments = name, category, payload

    def __enter__(self) -> None:
        self._token = push(*self._arguments)

    def __exit__(self, *_: object) -> None:
        pop(self._token)


@contextmanager
def record(mark: Callable[[], Any] | None = None) -> Iterator[list[Event]]:
    """Collects the ranges of all threads while the block runs.

    Args:
        mark: called at both ends of each range, for a second clock: a CUDA event, say. One recorder
            at a time may have one.

    Returns:
        A list of `Event` in the order in which the ranges were opened. `settings.nvtx="off"`
        keeps it empty, as it does for a profiler.

    Example:
        >>> with record() as events:
        ...     with opened("jacrev", payload=3), opened("chunk", CHUNK, 0):
        ...         pass
        >>> [(event.depth, event.name, event.payload) for event in events]
        [(0, 'jacrev', 3), (1, 'chunk', 0)]
    """
    global _recorders, _marks
    events: list[Event] = []
    with _lock:
        _recorders = (*_recorders, events)
        _marks = (mark,) if mark is not None else _marks
        _settle()
    try:
        yield events
    finally:
        with _lock:
            _recorders = tuple(kept for kept in _recorders if kept is not events)
            _marks = () if mark is not None else _marks
            _settle()


def state() -> str:
    """One line about NVTX for `python -m gpujac info`."""
    _decide()
    if setting("nvtx") == "off":
        return "off (settings.nvtx)"
    if _domain is not None:
        return f"on, domain {DOMAIN!r}, a tool is attached"
    if os.environ.get("NVTX_DISABLE"):
        return "off (environment NVTX_DISABLE)"
    return "ready, no tool attached"


def _decide() -> None:
    """Looks once whether a tool listens to the domain."""
    global _domain, _decided
    with _lock:
        if not _decided:
            domain = nvtx.get_domain(DOMAIN)
            # without a tool the package hands out a stand-in that makes no attributes
            _domain = None if domain.get_event_attributes() is None else domain
            _decided = True
        _settle()


def _settle() -> None:
    global _idle
    _idle = _decided and _domain is None and not _recorders


def _push(name: str, category: str, payload: int | None) -> Event | None:
    if not _decided:
        _decide()
    if _idle or setting("nvtx") == "off":
        return None
    mine = _thread.open
    event = Event(name, category, payload, len(mine), perf_counter_ns(), threading.get_ident())
    if _domain is not None:
        _domain.push_range(_attributes(name, category, payload))
    mine.append(event)
    for events in _recorders:
        events.append(event)
    for mark in _marks:
        event.marks = (mark(),)
    return event


def _pop(token: Event) -> None:
    mine = _thread.open
    if token.end_ns is not None or not any(event is token for event in mine):
        return  # closed before, or opened by another thread: NVTX keeps one stack per thread
    now = perf_counter_ns()
    event = None
    while event is not token:
        event = mine.pop()
        event.end_ns = now
        if event.marks is not None:
            for mark in _marks:
                event.marks = (event.marks[0], mark())
        if _domain is not None:
            _domain.pop_range()


def _attributes(name: str, category: str, payload: int | None) -> Any:
    """The prebuilt event attributes for a message and category, with this payload."""
    built = _thread.attributes
    attributes = built.get((name, category))
    if attributes is None:
        attributes = _domain.get_event_attributes(name, _COLORS.get(category), category)
        built[name, category] = attributes
    attributes.payload = None if payload is None else int(payload)
    return attributes
