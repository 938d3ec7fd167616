"""Comparison of two lists of arrays, and the message where they disagree: what, where, by how much, and why."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpujac.errors import ArgumentError


class Tolerance(NamedTuple):
    """Allowed errors, relative to the largest entry of what is expected."""

    same: float  # two routes to the same numbers: a loop, another mode
    step: float  # a derivative against differences or a complex step


TOLERANCES = {
    "float16": Tolerance(same=1e-2, step=5e-2),
    "float32": Tolerance(same=3e-5, step=3e-4),
    "float64": Tolerance(same=1e-11, step=1e-7),
    "complex64": Tolerance(same=3e-5, step=3e-4),
    "complex128": Tolerance(same=1e-11, step=1e-7),
}


def check_allowed(what: str, allowed: Any) -> None:
    """Refuse a tolerance with which a check could not fail: only a finite number, at least 0, is one."""
    number = isinstance(allowed, (int, float, np.integer, np.floating)) and not isinstance(allowed, bool)
    if allowed is not None and not (number and 0 <= allowed < np.inf):
        raise ArgumentError(f"{what}: allowed={allowed!r} must be None or a finite number, at least 0")


def check_count(what: str, name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or one with which nothing would be checked."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{what}: {name}={value!r} must be an int, at least {least}")


def tolerance(arrays: list) -> Tolerance:
    """The tolerance of the least precise of some arrays."""
    found = [TOLERANCES[name] for name in (str(x.dtype).rpartition(".")[2] for x in arrays) if name in TOLERANCES]
    return max(found, key=lambda t: t.same) if found else TOLERANCES["float64"]


def largest(arrays: list) -> float:
    """The largest modulus among all finite entries."""
    return max([float(np.abs(x[np.isfinite(x)]).max(initial=0.0)) for x in arrays], default=0.0)


def compare(check: str, names: list[str], found: list, expected: list, allowed: float, floors: list[float],
            why: Callable[[Any, Any], str]) -> None:  # fmt: skip
    """Raise an AssertionError that names the worst leaf, unless all agree; a NaN agrees with a NaN alone.

    Args:
        check: which check this is, for the message.
        names: of the leaves.
        found, expected: NumPy arrays.
        allowed: error allowed relative to the largest entry expected, leaf by leaf.
        floors: error allowed beside that, leaf by leaf.
        why: (found, expected) of the worst leaf -> a likely reason, or "".
    """
    worst: tuple | None = None
    for name, a, b, floor in zip(names, found, expected, floors, strict=True):
        if a.shape != b.shape:
            raise AssertionError(f"{check}: {name} has shape {a.shape}, expected {b.shape}")
        if not b.size:
            continue
        with np.errstate(invalid="ignore"):  # NaN and infinities count as errors below
            error = np.abs(a - b)
        error = np.where(np.isfinite(error), error, np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.inf))
        bound = allowed * largest([b]) + floor
        ratio = float(error.max()) / bound if bound else (np.inf if error.max() > 0 else 0.0)
        if ratio > 1.0 and (worst is None or ratio > worst[0]):
            worst = ratio, name, a, b, error
    if worst is not None:
        raise AssertionError(_message(check, worst, allowed, why))


def _message(check: str, worst: tuple, allowed: float, why: Callable[[Any, Any], str]) -> str:
    _, name, a, b, error = worst
    index = np.unravel_index(int(np.argmax(error)), error.shape)
    size = largest([b])
    relative = float(error.max()) / size if size else np.inf
    where = f" at index {tuple(int(i) for i in index)}" if index else ""
    text = (
        f"{check}: {name} is wrong{where}: found {a[index]:.10g}, expected {b[index]:.10g}; relative error "
        f"{relative:.1e}, allowed {allowed:.1e}"
    )
    reason = why(a, b)
    return f"{text}. Likely reason: {reason}" if reason else text


def factor(found: np.ndarray, expected: np.ndarray) -> str:
    """What a common factor between two arrays says, or ""."""
    a, b = np.ravel(found), np.ravel(expected)
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or not np.abs(b).max(initial=0.0):
        return ""
    if not np.abs(a).max():
        return ("the derivative is zero: a rule returns nothing, or the value was detached (stop_gradient, "
                "gpujac.value, .item())")  # fmt: skip
    ratio = np.vdot(b, a) / np.vdot(b, b)
    if np.abs(a - ratio * b).max() > 1e-3 * np.abs(a).max():
        conjugate = b.dtype.kind == "c" and np.abs(a - b.conj()).max() <= 1e-3 * np.abs(a).max()
        return "the result is the complex conjugate of what it should be" if conjugate else ""
    if abs(ratio + 1) < 1e-3:
        return "the sign is wrong"
    return f"the result is {ratio.real:.4g} times what it should be" if abs(ratio - 1) > 1e-2 else ""
