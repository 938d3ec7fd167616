"""What traced values say of themselves (G34, G35, HP2)."""

import re

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity

NESTS = {
    "grad": (lambda f: gj.grad(f), ["grad"], 0),
    "vmap": (lambda f: gj.vmap(f), ["vmap"], 1),
    "vmap of vmap": (lambda f: gj.vmap(gj.vmap(f)), ["vmap", "vmap"], 2),
    "grad of grad": (lambda f: gj.grad(lambda x: gj.grad(f)(x).sum()), ["grad", "grad"], 0),
    "vmap of grad": (lambda f: gj.vmap(gj.grad(f)), ["grad", "vmap"], 1),
}


@parity("G34")
@pytest.mark.parametrize("name", list(NESTS))
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 2)])
def test_one_marker_per_level(name, dtype, shape):
    make, markers, lanes = NESTS[name]
    seen = []

    def f(x):
        seen.append(repr(x))
        return x.sum()

    make(f)(np.ones((2,) * lanes + shape, dtype))
    text = seen[-1]
    assert text.count("Traced<") == len(markers)
    found = re.findall(r"Traced<(\w+)", text)
    assert len(found) == len(markers)
    assert found.count("vmap") == markers.count("vmap")
    assert np.dtype(dtype).name in text
    assert str(shape) in text


@parity("G35")
def test_a_captured_array_is_untouched():
    captured, seen = np.arange(3.0), []
    gj.vmap(gj.grad(lambda x: (seen.append(repr(captured)), x * 1.0)[1]))(np.ones(2))
    assert seen == [repr(np.arange(3.0))]


@parity("HP2")
def test_the_values_below_two_vmaps_are_shown():
    seen = []
    x = np.array([[1.25, 2.5], [3.75, 4.125]])
    gj.vmap(gj.vmap(lambda x: (seen.append(repr(x)), x)[1]))(x)
    assert all(number in seen[0] for number in ("1.25", "2.5", "3.75", "4.125"))
    assert seen[0].count("Traced<vmap") == 2
    with pytest.raises(gj.ConcretizationError, match="one value per lane"):
        gj.vmap(gj.vmap(gj.value))(x)
    assert x[0, 0] == 1.25
