"""Counting what emulated GPU work would have cost: launches, bytes, allocations, waits."""

import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class Counts:
    """What emulated work would have cost a device, as far as that can be counted on the host.

    `launches`: kernels, copies and fills; `bytes`: read and written by them; `allocations` and
    `allocated_bytes`: new device arrays; `uploads`: arrays copied from the host; `syncs`: waits for
    a value on the host. `by_name`: launches per kernel or function. A library function counts as
    one launch also where CuPy takes several, except where `emulated_names.LAUNCHES` says more.
    `downloaded_bytes`: copied to the host beside the user's stream; `steps`: what was done for that,
    in order, as (step, launches before it).
    """

    __slots__ = ("launches", "bytes", "allocations", "allocated_bytes", "uploads", "syncs", "by_name",
                 "downloaded_bytes", "steps")  # fmt: skip

    def __init__(self) -> None:
        self.launches = self.bytes = self.allocations = self.allocated_bytes = 0
        self.uploads = self.syncs = self.downloaded_bytes = 0
        self.steps: list[tuple[str, int]] = []
        self.by_name: dict[str, int] = {}

    def __repr__(self) -> str:
        return (
            f"Counts(launches={self.launches}, bytes={self.bytes}, allocations={self.allocations}, "
            f"uploads={self.uploads}, syncs={self.syncs}, by_name={self.by_name})"
        )


class _Local(threading.local):
    """The counts that are open in a thread."""

    def __init__(self) -> None:
        self.counts: list[Counts] = []


_LOCAL = _Local()


@contextmanager
def counting() -> Iterator[Counts]:
    """Count the emulated work of this thread inside the block."""
    counts = Counts()
    _LOCAL.counts.append(counts)
    try:
        yield counts
    finally:
        _LOCAL.counts.remove(counts)


def launched(name: str, arrays: Iterable[Any], times: int = 1) -> None:
    """Note `times` launches of `name` that touch `arrays` (NumPy views of emulated ones)."""
    for counts in _LOCAL.counts if times else ():
        counts.launches += times
        counts.bytes += sum([x.nbytes for x in arrays if isinstance(x, np.ndarray)])
        counts.by_name[name] = counts.by_name.get(name, 0) + times


@contextmanager
def memory_limit(most_bytes: int, refused: Any) -> Iterator[None]:
    """Let arrays made inside the block hold at most `most_bytes` at once; `refused` makes the error.

    Arrays that are dropped give their bytes back, as on a device.
    """
    limit = _Limit(most_bytes, refused)
    _LIMITS.append(limit)
    try:
        yield
    finally:
        _LIMITS.remove(limit)


@contextmanager
def peak() -> Iterator["_Limit"]:
    """Watch how many bytes of arrays made inside the block are held at once: `highest` is the most."""
    limit = _Limit(sys.maxsize, MemoryError)
    _LIMITS.append(limit)
    try:
        yield limit
    finally:
        _LIMITS.remove(limit)


class _Limit:
    """Bytes that may be held, and are."""

    def __init__(self, most_bytes: int, refused: Any) -> None:
        self.most_bytes, self.refused = most_bytes, refused
        self.held_bytes = self.highest = 0

    def take(self, x: np.ndarray) -> None:
        """Count a new array until it is dropped."""
        size = x.nbytes
        if self.held_bytes + size > self.most_bytes:
            raise self.refused(size, self.held_bytes, self.most_bytes)
        self.held_bytes += size
        self.highest = max(self.highest, self.held_bytes)
        weakref.finalize(x, self.give_back, size)

    def give_back(self, size: int) -> None:
        """The bytes of an array that is gone."""
        self.held_bytes -= size


_LIMITS: list[_Limit] = []


def allocated(x: np.ndarray) -> None:
    """Note a new array."""
    for limit in _LIMITS:
        limit.take(x)
    for counts in _LOCAL.counts:
        counts.allocations += 1
        counts.allocated_bytes += x.nbytes


def uploaded() -> None:
    """Note an array copied from the host."""
    for counts in _LOCAL.counts:
        counts.uploads += 1


def stepped(step: str, size_bytes: int = 0) -> None:
    """Note a step of a copy to the host."""
    for counts in _LOCAL.counts:
        counts.steps.append((step, counts.launches))
        counts.downloaded_bytes += size_bytes


def synchronized() -> None:
    """Note one wait for the device."""
    for counts in _LOCAL.counts:
        counts.syncs += 1
