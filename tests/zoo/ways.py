"""The zoo on CuPy arrays, in the ways that a user has: as written, by one import, by `adopt`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import gpujac as gj
from tests import device
from tests.on_device import Device, mixed
from tests.twin import twin
from tests.zoo import checks
from tests.zoo.entry import Entry


def _imported(f: Callable) -> Callable:
    return getattr(twin(f.__module__, "CUPY"), f.__name__)


WAYS: dict[str, Callable] = {
    "import numpy": lambda f: f,
    "adopt": gj.adopt,
    "import gpujac.cupy": _imported,
    "adopt to cupy": lambda f: gj.adopt(f, library="cupy"),
}


def run_check(entry: Entry, name: str, way: str) -> None:
    """One check of the zoo on the device, with the function taken in one of `WAYS`."""
    with gj.settings.override(backend=device.NAME), mock.patch.object(checks, "gj", Device()):
        checks.run_check(replace(entry, f=mixed(entry.f, WAYS[way](entry.f))), name)
