"""Which arrays a command runs on: CuPy where a card is found, else NumPy, and the words for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpujac import arrays, settings
from gpujac.backends import choose, driver
from gpujac.errors import BackendError
from tests import device

ROOT = Path(__file__).resolve().parent.parent


class Card:
    """A backend with a card that has no problem."""

    xp = np
    name = "cupy"

    def problem(self):
        return None

    def describe(self):
        return "CuPy 14 on Card X"

    def synchronize(self):
        """Nothing is queued."""


@pytest.mark.parametrize(
    ("version", "backend", "name", "words"),
    [
        (None, None, "numpy", "no NVIDIA driver found"),
        ((13, 0), BackendError("absent"), "numpy", "driver for CUDA 13.0, but CuPy is not installed"),
        ((13, 0), BackendError("absent"), "numpy", "pip install 'gpujac[cuda13]'"),
        ((12, 4), BackendError("absent"), "numpy", "pip install 'gpujac[cuda12]'"),
        ((13, 0), Card(), "cupy", "CuPy 14 on Card X"),
    ],
)  # fmt: skip
def test_a_card_is_taken_where_one_is_found_and_the_words_say_which(monkeypatch, version, backend, name, words):
    def load(wanted):
        assert wanted == "cupy"
        if isinstance(backend, Exception):
            raise backend
        return backend

    monkeypatch.setattr(np, "asnumpy", np.asarray, raising=False)
    monkeypatch.setattr(arrays, "cuda_version", lambda: version)
    monkeypatch.setattr(arrays, "usable_major", lambda: version and version[0])
    monkeypatch.setattr(choose, "load", load)
    found = arrays.chosen("auto")
    assert found.name == name
    assert words in found.words
    if name == "numpy":
        with pytest.raises(BackendError, match="CuPy cannot be used here"):
            arrays.chosen("cupy")


class Driver:
    """The driver's library, with a card of some age or without one."""

    def __init__(self, version, capability=None):
        self.version, self.capability = version, capability

    def cuDriverGetVersion(self, number):
        number._obj.value = self.version
        return 0

    def cuInit(self, flags):
        return 0 if self.capability else 100

    def cuDeviceGet(self, device, ordinal):
        return 0

    def cuDeviceGetAttribute(self, number, attribute, device):
        number._obj.value = self.capability[attribute - 75]
        return 0


@pytest.mark.parametrize(
    ("library", "version", "major"),
    [
        (None, None, None),
        (Driver(0), None, None),
        (Driver(13000), (13, 0), 13),
        (Driver(12080, (9, 0)), (12, 8), 12),
        (Driver(13020, (9, 0)), (13, 2), 13),
        (Driver(13020, (7, 5)), (13, 2), 13),
        (Driver(13020, (7, 0)), (13, 2), 12),
    ],
)
def test_the_driver_tells_which_cuda_it_and_its_card_can_use(monkeypatch, library, version, major):
    monkeypatch.setattr(driver, "_library", lambda: library)
    assert driver.cuda_version() == version
    assert driver.usable_major() == major


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")
@pytest.mark.parametrize(
    ("major", "extras"), [("", "plot"), ("11", "plot"), ("12", "plot,cuda12"), ("13", "plot,cuda13")]
)
def test_make_demo_takes_the_cupy_that_fits_the_driver_and_says_so(major, extras, tmp_path):
    command = ["make", "-n", "demo", f"DRIVER={major}", f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"--editable '.[{extras}]'" in done.stdout
    words = {"": "no NVIDIA driver found", "11": "too old for CuPy"}.get(major, f"runs CUDA {major}: CuPy comes along")
    assert words in done.stdout


def test_a_card_that_does_not_answer_is_left_alone_and_its_words_are_shown(monkeypatch):
    card = Card()
    card.problem = lambda: "cudaErrorInsufficientDriver: too old"
    monkeypatch.setattr(arrays, "cuda_version", lambda: (13, 0))
    monkeypatch.setattr(choose, "load", lambda name: card)
    assert arrays.chosen().words.endswith(": cudaErrorInsufficientDriver: too old")


def test_the_setting_decides_where_the_option_does_not():
    with settings.override(backend="numpy"):
        assert arrays.chosen().words.endswith(": asked for")
    if not device.MISSING:
        with settings.override(backend="emulated"):
            assert arrays.chosen().name == "emulated"
