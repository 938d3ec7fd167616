"""The library "cupy" of the tests: emulated arrays, or a real card with `pytest --backend=cupy`.

Without CuPy (not on Linux, say) `MISSING` says why and the tests that need it skip, but never in
continuous integration.
"""

import importlib.util
import os
from typing import Any

import numpy as np
import pytest

from gpujac.array.namespace import namespace_over
from gpujac.backends import choose

NAME = os.environ.get("GPUJAC_TESTS_BACKEND", "emulated")
MISSING = "" if importlib.util.find_spec("cupy") else "CuPy is not installed"
if MISSING and os.environ.get("CI"):
    raise ImportError(f"{MISSING}, but continuous integration must run these tests: pip install -e .[test]")
BACKEND: Any = None if MISSING else choose.load(NAME)
XP: Any = None if MISSING else namespace_over(BACKEND.xp)
TYPE: Any = None if MISSING else BACKEND.xp.ndarray


def array(x: Any) -> Any:
    """A NumPy array or number as an array of the device; other things as they are."""
    return BACKEND.xp.asarray(x)


def host(x: Any) -> np.ndarray:
    """An array of any library as NumPy's."""
    return x.get() if TYPE is not None and isinstance(x, TYPE) else np.asarray(x)


# What users get comes later on emulated arrays, for which g++ compiles each kernel, and first on a card.
_FIRST, _LATER = ("auto", "off") if NAME == "cupy" else ("off", "auto")
KERNELS = [_FIRST, pytest.param(_LATER, marks=pytest.mark.slow)]  # values of settings.kernels
