"""The compositions of tests/transforms/test_pairs.py on arrays of array-api-strict.

The transforms and the functions run as twins over strict arrays; what is expected comes from NumPy.
"""

import numpy as np
import pytest

from tests.strict import TYPE, fetched
from tests.transforms import helpers as h
from tests.transforms import test_pairs as plain
from tests.twin import twin

strict = twin("tests.transforms.test_pairs", "STRICT")
every_outer = pytest.mark.parametrize("outer", list(plain.APPLY))


def check(outer, g, g_of_numpy, k):
    """What a transform gives on strict arrays is what the values on NumPy's ask for."""
    found = strict.APPLY[outer](g, strict.Q, k)
    assert all(isinstance(x, TYPE) for x in h.leaves(found)), "every result is an array of the inputs' library"
    oracle = plain.expected(outer, g_of_numpy, plain.Q)
    tolerance = 3e-4 if outer in plain.SECOND else 3e-7
    size = max(1.0, np.max(np.abs(oracle)))
    np.testing.assert_allclose(h.vector(fetched(found)), oracle, rtol=0, atol=tolerance * size)


def pair(module, inner, k, f):
    """inner(f) as a function of the whole tree, the captured variable one level out."""
    return lambda q: module.APPLY[inner](lambda p: f(p, q["c"]), q["p"], k)


@every_outer
@pytest.mark.parametrize("k", plain.CHUNKS)
def test_one_transform(outer, k):
    check(outer, lambda q: strict.f(q["p"], q["c"]), lambda q: plain.f(q["p"], q["c"]), k)


@every_outer
@pytest.mark.parametrize("inner", list(plain.APPLY))
def test_two_transforms(outer, inner):
    k = plain.CHUNKS[(len(outer) + len(inner)) % 3]
    check(outer, pair(strict, inner, k, strict.f), pair(plain, inner, k, plain.f), k)


@pytest.mark.parametrize("kind", list(plain.KINDS))
@every_outer
def test_one_transform_of_a_function_of_another_kind(outer, kind):
    run = lambda module: lambda q: module.KINDS[kind](q["p"], q["c"])
    check(outer, run(strict), run(plain), plain.CHUNKS[len(outer) % 3])


@pytest.mark.slow
@pytest.mark.parametrize(("outer", "middle", "inner"), plain.TRIPLES)
def test_three_transforms(outer, middle, inner):
    check(outer, strict.nested(inner, middle, 2), plain.nested(inner, middle, 2), 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(plain.KINDS))
@every_outer
@pytest.mark.parametrize("inner", plain.PARTNERS)
def test_two_transforms_of_a_function_of_another_kind(outer, inner, kind):
    k = plain.CHUNKS[(len(outer) + len(inner)) % 3]
    check(outer, pair(strict, inner, k, strict.KINDS[kind]), pair(plain, inner, k, plain.KINDS[kind]), k)
