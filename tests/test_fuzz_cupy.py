"""Random programs on CuPy arrays: every check of tests/fuzz.py, whose oracles are NumPy's."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

import gpujac as gj
from tests import device, fuzz
from tests.on_device import Device, mixed
from tests.twin import CUPY

pytestmark = pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
QUICK, LONG, GROUP = 40, 1000, 20


@pytest.fixture(autouse=True, params=device.KERNELS)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """What CuPy does by itself, and our kernels."""
    with gj.settings.override(kernels=request.param):
        yield request.param


def possible(name: str, given: dict[str, Any]) -> bool:
    """Each program has kernels of its own: too many for g++, which compiles those of emulated arrays."""
    return "many_more" not in name or given["kernels"] != "auto" or device.NAME != "emulated"


def check(program: fuzz.Program) -> bool:
    """The checks of a program whose function has gpujac.cupy under the name np."""
    program.f = mixed(program.f, program.function(CUPY))
    with mock.patch.object(fuzz, "gj", Device()):
        return fuzz.check(program)


def check_group(first: int) -> None:
    checked = sum(fuzz.run(seed, check) for seed in range(first, first + GROUP))
    assert checked >= 0.8 * GROUP, f"only {checked} of {GROUP} programs are smooth enough to check"


@pytest.mark.parametrize("first", range(0, QUICK, GROUP))
def test_random_programs_pass_every_check_on_cupy_arrays(first):
    check_group(first)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(QUICK, LONG, GROUP))
def test_many_more_random_programs_pass_every_check_on_cupy_arrays(first):
    check_group(first)
