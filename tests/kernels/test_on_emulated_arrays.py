"""Gather and scatter-add behind the emulated backend: launches, settings, and the path without kernels."""

import numpy as np
import pytest

from gpujac import settings
from gpujac.errors import ArgumentError
from tests import device
from tests.kernels.cases import indices, layouts, numbers
from tests.kernels.on_cpu import NO_COMPILER, WHY

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)
from gpujac.backends import emulated

pytestmark = pytest.mark.skipif(NO_COMPILER, reason=WHY)
BE = emulated.BACKEND


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize("dtype", ["float32", "complex128", "int64", "bool"])
def test_take_is_numpys_with_kernels_and_without(dtype, kernels):
    for k, x in enumerate(layouts(numbers(dtype))):
        for index in indices(x.shape[k % 4], "int64"):
            with settings.override(kernels=kernels):
                found = BE.take(emulated.array(x), emulated.array(index), k % 4)
            np.testing.assert_array_equal(found.get(), x.take(index, axis=k % 4, mode="wrap"))


@pytest.mark.parametrize("options", [{}, {"deterministic": True}, {"kernels": "off"}])
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_add_at_is_numpys_in_every_way(dtype, options):
    x = numbers(dtype)
    for index in indices(x.shape[2], "int32"):
        index = index % x.shape[2]
        values = numbers(dtype, (*x.shape[:2], *index.shape, x.shape[3]), 3)
        wanted, found = x.copy(), emulated.array(x.copy())
        np.add.at(wanted, (slice(None), slice(None), index), values)
        with settings.override(**options):
            BE.add_at(found, emulated.array(index), emulated.array(values), 1)
        np.testing.assert_array_equal(found.get(), wanted)


def test_one_launch_each_and_no_wait():
    x, index = emulated.array(np.ones((4, 5))), emulated.array(np.array([1, 1, 3]))
    with emulated.counting() as n:
        BE.add_at(x, index, BE.take(x, index, 1), 0)
    assert n.by_name == {"gather_word64_i64_o32": 1, "scatter_add_float64_i64_o32": 1}
    assert n.syncs == 0


def test_a_fixed_order_costs_launches_but_no_wait():
    x, index = emulated.array(np.zeros(5)), emulated.array(np.array([1, 1, 3]))
    with emulated.counting() as n, settings.override(deterministic=True):
        BE.add_at(x, index, emulated.array(np.ones(3)), 0)
    assert n.by_name["scatter_add_ordered_float64_o32"] == 1
    assert n.launches <= 8
    assert n.syncs == 0


def test_a_fixed_order_without_kernels_is_refused():
    x = emulated.array(np.zeros(5))
    with (
        settings.override(deterministic=True, kernels="off"),
        pytest.raises(ArgumentError, match='deterministic=True with kernels="off": only a kernel'),
    ):
        BE.add_at(x, emulated.array(np.array([1])), emulated.array(np.ones(1)), 0)
