"""What every test shares: one BLAS thread, reproducible examples, and a clean room afterwards."""

import os
import shutil
import zlib
from collections.abc import Iterator
from typing import Any

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cases that a module's `possible(name, parameters)` knows to be none do not exist, so that none is counted."""
    kept = []
    for item in items:
        possible = getattr(getattr(item, "module", None), "possible", None)
        given = getattr(item, "callspec", None)
        if possible is None or given is None or possible(item.name, given.params):
            kept.append(item)
    items[:] = kept


NO_COMPILER = shutil.which("g++") is None and not os.environ.get("CI")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Where g++ is absent, a test that turns out to need it skips; in continuous integration it fails."""
    try:
        return (yield)
    except Exception as error:
        if NO_COMPILER and _asks_for_a_compiler(error):
            pytest.skip("kernels of emulated arrays are compiled by g++, which is not installed here")
        raise


def _asks_for_a_compiler(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is that of backends/shim.py without g++."""
    while error is not None:
        if "g++, which is not on the PATH" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


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
