"""Keys and decompositions on a library of the array standard: the numbers are those of NumPy."""

import array_api_strict as xps
import numpy as np
import pytest

import gpujac as gj
from gpujac import random as gr
from gpujac.array.namespace import namespace_over

STRICT = namespace_over(xps)


def to_numpy(x):
    assert type(x) is type(xps.asarray(1.0)), f"expected an array of the key's library, got {type(x)}"
    return np.asarray(x._array)  # what array-api-strict wraps


def both(seed):
    """The same key on the library of the standard and on NumPy."""
    return gr.key(seed, like=xps.ones(1)), gr.key(seed)


DRAWS = {
    "bits": lambda k: gr.bits(k, (5,)),
    "uniform": lambda k: gr.uniform(k, (2, 3)),
    "float32": lambda k: gr.uniform(k, (4,), np.float32),
    "normal": lambda k: gr.normal(k, (5,)),
    "randint": lambda k: gr.randint(k, (5,), -3, 2**40),
    "permutation": lambda k: gr.permutation(k, 6),
    "bernoulli": lambda k: gr.bernoulli(k, 0.3, (7,)),
    "derived": lambda k: gr.normal(gr.fold_in(gr.split(k)[1, :], 9), (2,)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_draw_is_that_of_numpy(draw):
    strict, plain = both(5)
    np.testing.assert_allclose(to_numpy(draw(strict)), draw(plain), rtol=1e-14)


@pytest.mark.parametrize("draw", [DRAWS["uniform"], DRAWS["permutation"], DRAWS["derived"]])
@pytest.mark.parametrize("mode", ["same", "different"])
def test_lanes_draw_what_they_draw_on_numpy(draw, mode):
    strict, plain = both(6)
    f = lambda k, x: draw(k)
    for options in ({}, {"chunk_size": 2}):
        vmapped = gj.vmap(f, (None, 0), randomness=mode, **options)
        found, expected = vmapped(strict, xps.ones(3)), vmapped(plain, np.ones(3))
        np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-14)
    found, expected = gj.vmap(draw)(gr.split(strict, 3)), gj.vmap(draw)(gr.split(plain, 3))
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-14)


@pytest.mark.parametrize("draw", [
    lambda k, a, b: gr.normal(k, (3,), loc=a, scale=b),
    lambda k, a, b: gr.uniform(k, (3,), minval=a, maxval=b),
    lambda k, a, b: gr.uniform(k, (3,), np.float32, minval=a),
    lambda k, a, b: gr.bernoulli(k, b / 10.0),
])  # fmt: skip
def test_plain_parameters_beside_mapped_keys(draw):
    strict, plain = both(8)
    a, b = np.array([1.0, -2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    for in_dims in ((0, None, None), (0, 0, None), (None, 0, None)):
        mapped = gj.vmap(draw, in_dims=in_dims, randomness="same")
        keys = [gr.split(k, 3) if in_dims[0] == 0 else k for k in (strict, plain)]
        found = mapped(keys[0], xps.asarray(a), xps.asarray(b))
        np.testing.assert_allclose(to_numpy(found), mapped(keys[1], a, b), rtol=1e-6)


@pytest.mark.parametrize("ends", [([1, -2, 3], [2**40, 5, 2**62]), ([1, -2, 3], 2**62), (-7, [2**40, 5, 2**62])])
def test_plain_ends_beside_mapped_keys(ends):
    strict, plain = both(9)
    put = lambda make: [make(np.array(end)) if isinstance(end, list) else end for end in ends]
    draw = lambda low, high: gj.vmap(lambda k: gr.randint(k, (3,), low, high))
    found = draw(*put(xps.asarray))(gr.split(strict, 4))
    np.testing.assert_array_equal(to_numpy(found), draw(*put(np.array))(gr.split(plain, 4)))


def test_derivatives_flow_through_the_parameters():
    strict, plain = both(7)
    f = lambda key: lambda m: gr.normal(key, (3,), loc=m, scale=2.0)
    found = gj.jacrev(f(strict))(xps.asarray([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(to_numpy(found), gj.jacrev(f(plain))(np.array([1.0, 2.0, 3.0])))


def test_functions_that_the_standard_lacks_are_their_decompositions():
    x, values = np.array([0.5, 1.5, 9.0]), np.array([1.0, 5.0, 2.0])
    points = np.array([[0.0, 1.0, 2.0], [1.0, 1.5, 4.0]])
    strict = [xps.asarray(v) for v in (x, points, values)]
    found = gj.vmap(STRICT.interp, (None, 0, None))(*strict)
    np.testing.assert_allclose(to_numpy(found), np.stack([np.interp(x, p, values) for p in points]))
    found = gj.vmap(lambda x: STRICT.quantile(x, xps.asarray([0.25, 0.5])))(strict[1])
    np.testing.assert_allclose(to_numpy(found), np.quantile(points, [0.25, 0.5], axis=1).T)
    found = gj.vmap(lambda p: STRICT.searchsorted(p, strict[0]))(strict[1])
    np.testing.assert_array_equal(to_numpy(found), np.stack([np.searchsorted(p, x) for p in points]))
    found = gj.jacrev(lambda v: STRICT.interp(strict[0], strict[1][0, :], v))(strict[2])
    np.testing.assert_allclose(to_numpy(found), [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
