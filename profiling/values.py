"""Compares results of two libraries: a benchmark of different math is worth nothing."""

from __future__ import annotations

from typing import Any

import numpy as np


def leaves(result: Any) -> list[np.ndarray]:
    """Return the arrays of a result, which is an array or a tuple of arrays."""
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(part) for part in parts]


def difference(reference: Any, result: Any, rtol: float) -> str | None:
    """Return how `result` departs from `reference`, or None when it agrees.

    The largest difference is measured against the largest entry of the reference.
    """
    left, right = leaves(reference), leaves(result)
    if len(left) != len(right):
        return f"{len(right)} arrays instead of {len(left)}"
    for a, b in zip(left, right, strict=True):
        found = _difference(a, b, rtol)
        if found is not None:
            return found
    return None


def _difference(a: np.ndarray, b: np.ndarray, rtol: float) -> str | None:
    if a.shape != b.shape:
        return f"shape {b.shape} instead of {a.shape}"
    if a.dtype != b.dtype:
        return f"dtype {b.dtype} instead of {a.dtype}"
    scale = float(np.max(np.abs(a), initial=0.0))
    largest = float(np.max(np.abs(a - b), initial=0.0))
    if largest <= rtol * scale:  # NaN fails this on purpose
        return None
    return f"differs by {largest:.3g} where the largest entry is {scale:.3g} (rtol {rtol:g})"
