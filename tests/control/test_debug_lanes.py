"""settings.debug_nans where lanes decide differently: it looks at the lanes that the code is for, and at no others."""

import functools

import numpy as np
import pytest

import gpujac as gj
from gpujac import settings


def debugging(test):
    """The test with the setting on."""

    @functools.wraps(test)
    def run():
        with settings.override(debug_nans=True), np.errstate(all="ignore"):
            test()

    return run


def refused(call, *args):
    with pytest.raises(gj.NonFiniteError) as caught:
        call(*args)
    return str(caught.value).partition(",")[0]


def log(x):
    return gj.cond(x >= 0, np.log, lambda x: -x, x)


def far(s):
    return gj.while_loop(lambda s: (s > 0.5) & (s < 9), lambda s: s / (s - 4.0), s)


@debugging
def test_a_lane_that_takes_a_branch_is_named_and_one_that_watches_is_not():
    assert refused(gj.vmap(log), np.array([-1.0, 0.0])) == "log is not finite in lane 1"
    np.testing.assert_allclose(gj.vmap(log)(np.array([-1.0, 1.0])), [1.0, 0.0])
    captured = lambda x: gj.cond(x > 0, lambda: np.log(x), lambda: -x)
    np.testing.assert_allclose(gj.vmap(captured)(np.array([0.0, 1.0, -2.0])), [0.0, 0.0, 2.0])


@debugging
def test_a_switch_and_a_branch_in_a_branch():
    f = lambda i, x: gj.switch(i, [np.sin, np.log, lambda x: gj.cond(x > 0, lambda: 1 / (x - 2), lambda: -x)], x)
    index, xs = np.array([0, 2, 1, 2]), np.array([0.0, 3.0, 1.0, 0.0])
    np.testing.assert_allclose(gj.vmap(f)(index, xs), [0.0, 1.0, 0.0, 0.0])
    assert refused(gj.vmap(f), index, np.array([0.0, 3.0, 0.0, 0.0])) == "log is not finite in lane 2"
    assert refused(gj.vmap(f), index, np.array([2.0, 3.0, 1.0, 2.0])) == "divide is not finite in lane 3"


@debugging
def test_an_iteration_of_a_lane_that_goes_on_is_looked_at():
    assert refused(gj.vmap(far), np.array([0.0, 1.0, 4.0])) == "divide is not finite in lane 2"
    np.testing.assert_allclose(gj.vmap(far)(np.array([0.0, 1.0, 9.0])), [0.0, -1 / 3, 9.0])
    f = lambda n: gj.fori_loop(0, n, lambda i, s: s / (2.0 - i), 1.0)
    assert refused(gj.vmap(f), np.array([1, 3])) == "divide is not finite in lane 1"
    np.testing.assert_allclose(gj.vmap(f)(np.array([1, 2])), [0.5, 0.5])


@debugging
def test_lanes_of_two_vmaps_each_in_its_place():
    rows = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, 5.0]])
    by_outer = lambda p, row: gj.vmap(lambda x: gj.cond(p, np.log, lambda x: x, x))(row)
    assert refused(gj.vmap(by_outer), np.array([False, True]), rows) == "log is not finite in lane (1"
    np.testing.assert_allclose(gj.vmap(by_outer)(np.array([False, True]), rows + np.array([[0.0], [1.0]]))[0], rows[0])
    both = lambda p, row: gj.vmap(lambda p, x: gj.cond(p, lambda: np.log(x), lambda: x))(p, row)
    np.testing.assert_allclose(gj.vmap(both)(rows > 0, rows), np.where(rows > 0, np.log(np.maximum(rows, 1)), 0))
    assert refused(gj.vmap(both, in_dims=(1, 1)), rows >= rows[0], rows) == "log is not finite in lane (0"


@debugging
def test_an_outer_value_counts_where_some_inner_lane_takes_the_branch():
    f = lambda ps, x: gj.vmap(lambda p: gj.cond(p, lambda: np.log(x), lambda: x))(ps)
    xs = np.array([0.0, 1.0])
    np.testing.assert_array_equal(gj.vmap(f)(np.array([[False, False], [False, True]]), xs), [[0, 0], [1, 0]])
    assert refused(gj.vmap(f), np.array([[True, False], [False, True]]), xs) == "log is not finite in lane 0"


@debugging
def test_with_derivatives_outside_of_the_lanes_and_inside():
    xs = np.array([-1.0, 0.0])
    total = lambda xs: gj.vmap(log)(xs).sum()
    for call in (gj.grad(total), gj.vmap(gj.grad(log)), gj.jacfwd(gj.vmap(log)), gj.vmap(gj.jacfwd(log))):
        assert refused(call, xs) == "log is not finite in lane 1"
        assert np.isfinite(call(xs + 0.5)).all()
    slope = lambda x: gj.cond(x >= 0, lambda y: gj.grad(np.sqrt)(x), lambda y: -y, x)
    assert refused(gj.vmap(slope), xs) == "the cotangent of operand 0 of sqrt is not finite in lane 1"
    np.testing.assert_allclose(gj.vmap(slope)(np.array([-1.0, 4.0])), [1.0, 0.25])


@debugging
def test_a_block_without_the_setting_in_a_branch_is_left_alone():
    def quiet(x):
        with settings.override(debug_nans=False):
            return np.log(x)

    found = gj.vmap(lambda x: gj.cond(x >= 0, quiet, lambda x: -x, x))(np.array([-1.0, 0.0]))
    np.testing.assert_array_equal(found, [1.0, -np.inf])
