"""The tests of custom functions once more, with CuPy arrays in the place of NumPy's (tests/twin.py)."""

from collections.abc import Iterator

import pytest

from gpujac import settings
from tests import device
from tests.twin import twin

pytestmark = pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")

LEFT_OUT = {
    "test_a_write_into_an_argument_raises_on_numpy",  # CuPy has no read-only arrays
    "test_an_argument_without_a_value_hides_no_captured_one",  # without a value, ones_like does not know the library
}


@pytest.fixture(autouse=True)
def plain_kernels() -> Iterator[None]:
    """CuPy's own kernels: no test below is about generated ones."""
    with settings.override(kernels="off"):
        yield


if not device.MISSING:
    _tests = {name: f for name, f in vars(twin("tests.control.test_custom_rules")).items() if name.startswith("test_")}
    assert set(_tests) >= LEFT_OUT
    _lanes = {name: f for name, f in vars(twin("tests.control.test_custom_lanes")).items() if name.startswith("test_")}
    assert not _tests.keys() & _lanes.keys()
    globals().update({name: f for name, f in {**_tests, **_lanes}.items() if name not in LEFT_OUT})
