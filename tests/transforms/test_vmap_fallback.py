"""Ops without a batching rule under vmap: lane by lane, with one warning, or an error."""

import inspect
import warnings
from dataclasses import dataclass
from typing import final

import numpy as np
import pytest

import gpujac as gj
from gpujac.core.aval import Aval
from gpujac.core.call import Call
from gpujac.core.op import General
from gpujac.errors import MissingRuleError
from tests.transforms import helpers as h

X = np.linspace(-1.0, 2.0, 24).reshape(4, 3, 2)


@final
@dataclass(frozen=True)
class Outer(General):
    """A product of all pairs, of two operands of any rank."""

    name = "pairs"

    def evaluate(self, be, *operands):
        x, y = operands
        return be.reshape(x, (*x.shape, *(1,) * len(y.shape))) * y

    def infer(self, *avals):
        x, y = avals
        return Aval((*x.shape, *y.shape), x.dtype)


@final
@dataclass(frozen=True)
class Shapeless(General):
    """Values alone."""

    name = "shapeless"

    def evaluate(self, be, *operands):
        return operands[0] * 2


class Both(Call):
    """Two results of several operands."""

    def run(self, x, y):
        return x + y, (x * y).sum()

    def infer(self, x, y):
        return Aval(x.shape, x.dtype), Aval((), x.dtype)

    def batch(self, size, xs, axes):
        return NotImplemented


PAIRS, SHAPELESS, BOTH = Outer(), Shapeless(), Both("both")
slow = pytest.mark.filterwarnings("ignore:vmap of .* no batch rule")


def loop(f, *columns):
    return np.stack([f(*row) for row in zip(*columns, strict=True)])


@slow
@pytest.mark.parametrize("axes", [(0, 0), (1, 0), (0, 2), (2, 1), (None, 0), (1, None), (-1, -2)])
def test_any_axes_of_two_operands(axes):
    """E69, V19: odd axes, one or both mapped."""
    n = {0: 4, 1: 3, 2: 2, -1: 2, -2: 3}
    i, j = axes
    size = n[i] if i is not None else n[j]
    x = X if i is None else np.moveaxis(np.moveaxis(X, i, 0)[[0] * size], 0, i)
    y = X[..., 0] if j is None else np.moveaxis(np.linspace(0.0, 1.0, size * 6).reshape(size, 3, 2), 0, j)
    for out in (0, 1, -1):
        found = gj.vmap(lambda x, y: PAIRS(x, y), axes, out)(x, y)
        xs = [x] * size if i is None else list(np.moveaxis(x, i, 0))
        ys = [y] * size if j is None else list(np.moveaxis(y, j, 0))
        expected = np.stack([PAIRS(a, b) for a, b in zip(xs, ys, strict=True)], out)
        np.testing.assert_array_equal(found, expected)


@slow
@pytest.mark.parametrize("options", [{}, {"chunk_size": 1}, {"chunk_size": 3}, {"method": "loop"}])
def test_several_results_in_chunks(options):
    found = gj.vmap(lambda x, y: BOTH(x, y), (0, None), **options)(X, X[1])
    h.assert_close(found, (X + X[1], (X * X[1]).sum((1, 2))))


@slow
def test_nested_levels_loop_over_both():
    f = lambda x, y: PAIRS(x, y)
    found = gj.vmap(gj.vmap(f, (0, None)), (1, 0))(X, X[:3, 0, 0])
    expected = np.stack([[PAIRS(X[i, j], X[j, 0, 0]) for i in range(4)] for j in range(3)])
    np.testing.assert_array_equal(found, expected)
    both = gj.vmap(gj.vmap(lambda x: BOTH(x, x)[1]))(X)
    h.assert_close(both, (X * X).sum(2))


@slow
def test_ten_thousand_lanes():
    x = np.arange(10_000.0)
    np.testing.assert_array_equal(gj.vmap(lambda x: SHAPELESS(x))(x), 2 * x)


def test_one_warning_per_call_lists_all_ops_at_the_line_of_the_call():
    f = lambda x: PAIRS(SHAPELESS(x), x) + PAIRS(x, x) + BOTH(x, x)[1]
    for options in ({}, {"chunk_size": 1}, {"chunk_size": 2}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            line = inspect.currentframe().f_lineno + 1
            gj.vmap(f, **options)(X[:, 0, 0])
        (warning,) = caught
        assert str(warning.message).startswith(
            "vmap of <lambda>: shapeless, pairs, both have no batch rule, so they run once per lane, which is slow; "
            "write a batch rule or register a decomposition"
        )
        assert warning.category is RuntimeWarning
        assert (warning.filename, warning.lineno) == (__file__, line)


def test_no_warning_where_no_lane_needs_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gj.vmap(lambda x: x * SHAPELESS(np.ones(2)).sum())(X[:, 0, 0])
        np.testing.assert_array_equal(found, 4 * X[:, 0, 0])
        gj.vmap(lambda x, y: x * SHAPELESS(y), (0, None))(X[:, 0, 0], X[0, 0, 0])
        gj.vmap(lambda x: SHAPELESS(x), method="loop")(X)


def test_the_setting_that_raises_names_the_op():
    with gj.settings.override(missing_batch_rule="raise"):
        for f, name in [(lambda x: PAIRS(x, x), "pairs"), (lambda x: BOTH(x, x)[0], "both")]:
            with pytest.raises(MissingRuleError, match=f"^{name} has no batch rule") as caught:
                gj.vmap(f)(X)
            assert isinstance(caught.value, NotImplementedError)


@slow
def test_no_lanes_at_all():
    """Where the op tells the shape of its result, zero lanes give an empty one."""
    empty = np.zeros((0, 3, 2))
    assert gj.vmap(lambda x, y: PAIRS(x, y), (0, None))(empty, np.ones(5)).shape == (0, 3, 2, 5)
    assert gj.vmap(lambda x, y: PAIRS(x, y), (0, 1), 1)(empty, np.ones((5, 0))).shape == (3, 0, 2, 5)
    found = gj.vmap(lambda x: BOTH(x, x), chunk_size=2)(empty)
    assert [y.shape for y in found] == [(0, 3, 2), (0,)]
    with pytest.raises(MissingRuleError, match="vmap over no lanes: shapeless has neither a batch rule nor one"):
        gj.vmap(lambda x: SHAPELESS(x))(empty)
