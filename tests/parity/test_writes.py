"""Writes under vmap of jvp (IV1 to IV5): values and tangents are those of a loop."""

import numpy as np
import pytest

import gpujac as gj
import gpujac.numpy as gnp
from tests.parity import parity

BASE = np.linspace(-1.0, 1.0, 24).reshape(2, 3, 4)


def into_traced(x, y):
    x[1:] = np.sin(x[:-1]) * y[1:]
    return x * y


def view_then_base(x, y):
    z = x * 1.0
    row = z[1::2]
    row *= y[1::2]
    return z


def base_then_view(x, y):
    z = x * 1.0
    row = z[::-1][:2]
    z[-1] = y[0] * x[1]
    return row * 2


def into_a_view_of_a_copy(x, y):
    z = gnp.full(4, 2.0).copy()
    z[1:3] = x[::2] * y[:2]
    return z


def into_a_plain_one(x, y):
    z = gnp.zeros(4)
    z[...] = x
    z += y
    return z


CASES = {"IV1": into_traced, "IV2": view_then_base, "IV3": base_then_view, "IV4": into_a_view_of_a_copy,
         "IV5": into_a_plain_one}  # fmt: skip


@parity(*CASES)
@pytest.mark.parametrize("code", list(CASES))
@pytest.mark.parametrize("in_dims", [(0, 0), (2, 0), (0, None)])
def test_writes_under_vmap_of_jvp(code, in_dims):
    f = CASES[code]
    x = BASE[:, 0] if in_dims[0] == 0 else np.moveaxis(BASE, 0, 2)[0]  # lanes last, with odd strides
    in_dims = (in_dims[0] and 1, in_dims[1])
    y = BASE[::-1, 1] if in_dims[1] == 0 else BASE[0, 1]
    push = lambda x, y: gj.jvp(lambda x: f(x, y), (x,), (np.cos(x),))
    found = gj.vmap(push, in_dims=in_dims)(x, y)
    lanes = [push(np.take(x, i, in_dims[0]), y if in_dims[1] is None else y[i]) for i in range(2)]
    for part, expected in zip(found, zip(*lanes, strict=True), strict=True):
        np.testing.assert_allclose(part, np.stack(expected), atol=1e-15)
    assert found[1].any(), "the tangents are not all zero"


@parity("IV5")
def test_numpys_own_buffer_is_refused():
    def f(x):
        z = np.zeros(4)
        z += x
        return z

    with pytest.raises(gj.MutationError, match="zeros_like"):
        gj.vmap(lambda x: gj.jvp(f, (x,), (x,)))(BASE[0])
