"""Arrays of a device on their way to the host: page-locked buffers in turn, and a stream beside the user's.

The copies wait for what the current stream has queued so far, and nothing waits for them until the host asks:
while one chunk of a Jacobian is copied, the next one is computed.
"""

import math
from typing import Any, Protocol

import numpy as np

_ALIGNMENT = 512  # bytes between the starts of arrays in a buffer, as between blocks of CuPy's pool


class Lane(Protocol):
    """A stream for copies, and the marks on it."""

    def buffer(self, size_bytes: int) -> np.ndarray:
        """Page-locked memory, as bytes."""

    def follow(self) -> None:
        """Let copies that are queued from now on wait for the work queued on the current stream."""

    def copy(self, x: Any, into: np.ndarray) -> None:
        """Queue the copy of a C-contiguous array."""

    def mark(self) -> Any:
        """A point behind the copies queued so far."""

    def wait(self, mark: Any) -> None:
        """Block until the copies before a mark are done."""


class Parcel:
    """Copies that are under way; it keeps their sources, whose memory must not be used again before."""

    __slots__ = ("_lane", "_mark", "_sources", "_arrays")

    def __init__(self, lane: Lane, mark: Any, sources: list, arrays: list[np.ndarray]) -> None:
        self._lane, self._mark, self._sources, self._arrays = lane, mark, sources, arrays

    def wait(self) -> list[np.ndarray]:
        """The arrays on the host, good until the second `send` after theirs."""
        if self._sources:
            self._lane.wait(self._mark)
            self._sources.clear()
        return self._arrays


class Fetcher:
    """Two buffers, filled in turn: the one of a parcel is free again once the next but one is sent."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._buffers: list[np.ndarray] = [np.empty(0, np.uint8)] * 2
        self._sent: list[Parcel | None] = [None, None]
        self._turn = 0

    def send(self, xs: list) -> Parcel:
        """Queue copies of arrays of one device."""
        turn, self._turn = self._turn, 1 - self._turn
        before = self._sent[turn]
        if before is not None:
            before.wait()  # it has been, unless its reader gave up
        starts = [0]
        for x in xs:
            starts.append(starts[-1] + -(-x.nbytes // _ALIGNMENT) * _ALIGNMENT)
        if self._buffers[turn].nbytes < starts[-1]:
            self._buffers[turn] = self._lane.buffer(starts[-1])
        arrays = [_view(self._buffers[turn], start, x) for start, x in zip(starts, xs)]
        sources = [x if x.flags.c_contiguous else x.copy(order="C") for x in xs]
        if xs:
            self._lane.follow()
        for x, into in zip(sources, arrays, strict=True):
            if x.size:
                self._lane.copy(x, into)
        self._sent[turn] = parcel = Parcel(self._lane, self._lane.mark() if xs else None, sources, arrays)
        return parcel


def _view(buffer: np.ndarray, start: int, x: Any) -> np.ndarray:
    """Room for an array like `x`."""
    size = math.prod(x.shape) * x.dtype.itemsize
    return buffer[start : start + size].view(x.dtype).reshape(x.shape)


class CuPyLane:
    """CuPy's stream and events; given the module, which one file alone imports."""

    def __init__(self, cupy: Any) -> None:
        self._cuda = cupy.cuda
        self._stream = cupy.cuda.Stream(non_blocking=True)

    def buffer(self, size_bytes: int) -> np.ndarray:
        """Of CuPy's pool of page-locked memory."""
        return np.frombuffer(self._cuda.alloc_pinned_memory(size_bytes), np.uint8, size_bytes)

    def follow(self) -> None:
        """One event on the current stream, for which the copies wait."""
        event = self._cuda.Event(disable_timing=True)
        event.record()
        self._stream.wait_event(event)

    def copy(self, x: Any, into: np.ndarray) -> None:
        """Queued on the stream of copies; the host goes on."""
        x.get(stream=self._stream, out=into, blocking=False)

    def mark(self) -> Any:
        """An event on the stream of copies."""
        event = self._cuda.Event(disable_timing=True)
        event.record(self._stream)
        return event

    def wait(self, mark: Any) -> None:
        """The host waits for the event."""
        mark.synchronize()
