"""Selecting the arguments to differentiate, for every transform that selects (S1 to S9)."""

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity

X, Y, Z = np.array([1.0, 2.0]), np.array([3.0, -1.0]), np.array([0.5, 4.0])
SELECTING = [gj.grad, gj.value_and_grad, gj.grad_and_value, gj.jacrev, gj.jacfwd, gj.jacobian, gj.hessian]
every_transform = pytest.mark.parametrize("transform", SELECTING, ids=lambda t: t.__name__)


def f(x, y, z):
    return (x**2 * y * np.sin(z)).sum()


def result(transform, argnums, *args, g=f):
    """What the derivative transform gives, without the value that some return beside it."""
    found = transform(g, argnums)(*args)
    return {"value_and_grad": lambda: found[1], "grad_and_value": lambda: found[0]}.get(
        transform.__name__, lambda: found
    )()


@parity("S1")
@every_transform
@pytest.mark.parametrize("argnums", [0.0, [0], None, "0", np.float64(0), (0, 0.5), (0, (1,)), ((0, 1), 2), (None,)])
def test_argnums_of_wrong_types(transform, argnums):
    with pytest.raises(gj.ArgumentTypeError, match="argnums"):
        transform(f, argnums)(X, Y, Z)


@parity("S2")
@every_transform
@pytest.mark.parametrize("argnums", [3, -4, (0, 3), (-4,), (1, 100)])
def test_argnums_beyond_the_arguments(transform, argnums):
    with pytest.raises(gj.ArgnumsRangeError, match="only 3 positional"):
        transform(f, argnums)(X, Y, Z)


@parity("S3")
@every_transform
def test_an_empty_tuple(transform):
    with pytest.raises(gj.ArgumentError, match="empty"):
        transform(f, ())(X, Y, Z)


@parity("S4")
@every_transform
@pytest.mark.parametrize("argnums", [(0, 0), (0, -3), (1, 2, -2)])
def test_the_same_argument_twice(transform, argnums):
    with pytest.raises(gj.ArgumentError, match="twice"):
        transform(f, argnums)(X, Y, Z)


@parity("S5", "S6")
@every_transform
@pytest.mark.parametrize("position", [0, 1, 2])
def test_positive_and_negative_ints(transform, position):
    bare = result(transform, position, X, Y, Z)
    (one,) = result(transform, (position,), X, Y, Z)
    (inner,) = one if transform is gj.hessian else (one,)
    negative = result(transform, position - 3, X, Y, Z)
    assert type(bare) is np.ndarray
    for other in (inner, negative):
        np.testing.assert_array_equal(other, bare)


@parity("S7", "S9")
@every_transform
@pytest.mark.parametrize("argnums", [(0, -1), (-1, 0), (2, 0, -2), (-2, -3)])
def test_tuples_of_mixed_signs_keep_their_order(transform, argnums):
    found = result(transform, argnums, X, Y, Z)
    assert type(found) is tuple
    for k, block in zip(argnums, found, strict=True):
        alone = result(transform, k, X, Y, Z)
        if transform is gj.hessian:
            block = block[argnums.index(k)]
        np.testing.assert_allclose(block, alone, rtol=1e-14)


@parity("S8")
@every_transform
def test_trees_of_arguments_are_kept(transform):
    g = lambda p, q: (p["a"] * p["b"][0] * q).sum()
    p = {"a": X, "b": [Y]}
    found = result(transform, 0, p, Z, g=g)
    found = found["a"] if transform is gj.hessian else found
    assert list(found) == ["a", "b"]
    assert type(found["b"]) is list
    first, second = result(transform, (1, 0), p, Z, g=g)
    first, second = (first, second["a"][1]) if transform is gj.hessian else (first, second)
    np.testing.assert_allclose(second["a"], found["a"])
    if transform is not gj.hessian:
        np.testing.assert_allclose(first, X * Y)
