"""NumPy's memory: arrays held read-only while a program needs them, and freed blocks kept.

An array that a linear program reads later must not change in between; the large ones are locked
instead of copied. The owner of the memory is locked with its views.
"""

import threading

import numpy as np

from gpujac import settings

_FROZEN: dict[int, int] = {}  # id -> how many traces hold the array read-only
_WAITING: list[np.ndarray] = []  # views to release once the array they look into is released
_FREEZING = threading.Lock()


def freeze(x: np.ndarray, held: list[np.ndarray]) -> None:
    """Make an array, and the one it is a view of, read-only until `thaw(held)`."""
    owner = _owner(x) if x.base is not None else x
    with _FREEZING:  # of two threads that meet here one locks the array and the other counts
        for a in (owner, x) if owner is not x else (x,):
            if a.flags.writeable:
                a.setflags(write=False)
                _FROZEN[id(a)] = 1
                held.append(a)
            elif id(a) in _FROZEN:
                _FROZEN[id(a)] += 1
                held.append(a)


def is_writable(x: np.ndarray) -> bool:
    """Whether a write can reach an array: into it, or into the one it is a view of."""
    return x.flags.writeable or (x.base is not None and _owner(x).flags.writeable)


def is_held(x: np.ndarray) -> bool:
    """Whether a trace holds an array, or the one it is a view of, read-only: it may let go before another."""
    return bool(_FROZEN) and (id(x) in _FROZEN or id(_owner(x)) in _FROZEN)


def _owner(x: np.ndarray) -> np.ndarray:
    """The array that owns the memory of `x`."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def thaw(arrays: list[np.ndarray]) -> None:
    """Undo what `freeze` held."""
    with _FREEZING:
        free = _WAITING[:]
        _WAITING.clear()
        for x in arrays:
            left = _FROZEN.get(id(x), 1) - 1
            if left:
                _FROZEN[id(x)] = left
            else:
                _FROZEN.pop(id(x), None)
                free.append(x)
        for x in sorted(free, key=_is_view):  # the owner of the memory before its views
            try:
                x.setflags(write=True)
            except ValueError:  # another thread still holds the owner
                _WAITING.append(x)


def _is_view(x: np.ndarray) -> bool:
    return x.base is not None


def sampled(x: np.ndarray) -> np.ndarray:
    """Up to 257 entries spread over an array, first and last included: notices most writes."""
    at = np.linspace(0, x.size - 1, min(x.size, 257)).astype(np.intp)
    return x[np.unravel_index(at, x.shape)]


def is_frozen() -> bool:
    """Whether some trace holds an array read-only."""
    return bool(_FROZEN)


_KEEPER: list[bool] = []


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks up to 32 MB instead of faulting them in again each time.

    Freeing one untouched large block raises glibc's threshold; done once, at the first transform.
    Setting `malloc_trim="off"` skips it. Measured: vmap cases 2.2 to 2.5 times faster.
    """
    if not _KEEPER:
        _KEEPER.append(True)
        if settings.get("malloc_trim") == "auto":
            block = np.empty((32 << 20) - (64 << 10), np.uint8)
            del block
