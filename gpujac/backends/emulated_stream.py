"""A stream for copies to the host, emulated: it works as late as a device may, when the host waits."""

import weakref
from typing import Any

import numpy as np

from gpujac.backends import counts
from gpujac.backends.emulated_array import host
from gpujac.errors import BackendError

_POISON = 0xFF  # a NaN in every floating dtype: what is read too early shows


class EmulatedLane:
    """Copies wait in a queue; a source that is gone before its copy was waited for is an error."""

    def __init__(self) -> None:
        self._queue: list[tuple] = []
        self._done = 0
        counts.stepped("stream")

    def buffer(self, size_bytes: int) -> np.ndarray:
        """Host memory, poisoned."""
        counts.stepped("buffer")
        return np.full(size_bytes, _POISON, np.uint8)

    def follow(self) -> None:
        """What the current stream has queued is done already here."""
        counts.stepped("follow")

    def copy(self, x: Any, into: np.ndarray) -> None:
        """Queued, and not yet done."""
        counts.stepped("copy", x.nbytes)
        into.view(np.uint8)[...] = _POISON
        self._queue.append((weakref.ref(x), into))

    def mark(self) -> int:
        """How many copies are queued before it."""
        counts.stepped("mark")
        return self._done + len(self._queue)

    def wait(self, mark: int) -> None:
        """Does the copies before the mark."""
        counts.stepped("wait")
        counts.synchronized()
        while self._done < mark:
            source, into = self._queue.pop(0)
            self._done += 1
            x = source()
            if x is None:
                raise BackendError("an array was dropped before its copy to the host was done")
            into[...] = host(x)
