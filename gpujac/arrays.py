"""Where the arrays of a command live: CuPy where a card is found, else NumPy, and which in words."""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from gpujac import settings
from gpujac.backends import choose
from gpujac.backends.driver import cuda_version, usable_major
from gpujac.errors import BackendError

__all__ = ["CHOICES", "Arrays", "chosen"]

CHOICES = ("auto", "numpy", "cupy", "emulated")


@dataclass(frozen=True)
class Arrays:
    """One array library for a command.

    Attributes:
        name: "numpy", "cupy" or "emulated".
        words: what it is and, for NumPy, why: "NumPy 2.3: no NVIDIA driver found".
        xp: its namespace.
        there: NumPy array to its own.
        back: its array (or a number) to NumPy.
        wait: returns when all queued work is done.
        device: the backend where it has a device, else None.
    """

    name: str
    words: str
    xp: Any
    there: Callable[[Any], Any]
    back: Callable[[Any], Any]
    wait: Callable[[], None]
    device: Any = None

    def peak_bytes(self, f: Callable[[], Any]) -> int:
        """The most memory that a call of f held; a run of its own, since counting slows it down."""
        if self.name == "cupy":
            return int(self.device.peak_bytes(f))
        tracemalloc.start()
        try:
            f()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def chosen(wanted: str = "auto") -> Arrays:
    """The array library that was asked for.

    Args:
        wanted: one of CHOICES. "auto" follows `settings.backend`; where that is "auto" too, CuPy is
            taken where a card is found, else NumPy.

    Returns:
        The library, ready for use.

    Raises:
        BackendError: CuPy was asked for by name, and cannot be used here.

    Example:
        >>> chosen("numpy").words.startswith("NumPy")
        True
    """
    if wanted == "auto":
        wanted = settings.get("backend")
    if wanted == "numpy":
        return _on_host("asked for")
    if wanted == "emulated":
        return _on_device("emulated")
    problem = _problem()
    if problem is None:
        return _on_device("cupy")
    if wanted == "cupy":
        raise BackendError(f"CuPy cannot be used here: {problem}; use NumPy, or backend 'emulated'")
    return _on_host(problem)


def _problem() -> str | None:
    """Why CuPy cannot be used here; None where it can."""
    driver = cuda_version()
    if driver is None:
        return "no NVIDIA driver found"
    try:
        be: Any = choose.load("cupy")
        return None if (problem := be.problem()) is None else str(problem)
    except BackendError:
        extra = "cuda13" if (usable_major() or 0) >= 13 else "cuda12"
        return (
            f"there is an NVIDIA driver for CUDA {driver[0]}.{driver[1]}, but CuPy is not installed; "
            f"pip install 'gpujac[{extra}]'"
        )


def _on_host(why: str) -> Arrays:
    words = f"NumPy {metadata.version('numpy')}: {why}"
    return Arrays("numpy", words, np, np.asarray, np.asarray, lambda: None)


def _on_device(name: str) -> Arrays:
    be: Any = choose.load(name)
    return Arrays(name, be.describe(), be.xp, be.xp.asarray, be.xp.asnumpy, be.synchronize, be)
