"""What every test shares: one BLAS thread, reproducible examples, and a clean room afterwards."""

import os
import zlib
from collections.abc import Iterator

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")  # before NumPy is loaded
for _name in [name for name in os.environ if name.startswith("GPUJAC_")]:
    del os.environ[_name]  # the tests start from the defaults, whatever the shell has set

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings

from gpujac import ranges, settings

for _profile, _examples in (("quick", 40), ("long", 400)):
    hypothesis_settings.register_profile(
        _profile, max_examples=_examples, derandomize=True, deadline=None, print_blob=True
    )
hypothesis_settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--backend=cupy` runs the tests of the CuPy column on a card instead of emulated arrays."""
    parser.addoption("--backend", choices=("emulated", "cupy"), default="emulated")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is read: tests/device.py asks for this."""
    os.environ["GPUJAC_TESTS_BACKEND"] = config.getoption("--backend")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A random generator whose seed is the test's own name: reruns and other orders agree."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(autouse=True)
def clean_room() -> Iterator[None]:
    """No test leaves a changed setting or an open range behind, also where user code raised."""
    before = settings.show()
    yield
    assert settings.show() == before
    assert ranges._thread.open == []
