"""Differentiated Python numbers beside arrays: in joins, products and writes, below vmap and on a device."""

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([1.0, -2.0, 3.0])


def stacked(q, y):
    return np.stack([y, q * y]).sum()


def in_columns(q, y):
    return (np.column_stack([np.stack([y, q]), np.ones(2) * q]) * q).sum()


def outer(q, y):
    return (np.outer(1.5, np.stack([q, y])) ** 2).sum() + np.outer(y, X).sum()


def tensor(q, y):
    return np.tensordot(1.5, np.stack([q, y]) ** 2, 0).sum() + np.tensordot(y, X, 0).sum()


def mesh(q, y):
    a, b = np.meshgrid(np.stack([q, y]), 1.5)
    return (a * b).sum() + np.meshgrid(y, X)[0].sum()


def sliced(q, y):
    b = np.ones((2, 3)) * (q + 0.0 * y)  # a plain buffer would not take it
    b[0] = y
    b[:, 1:] = y * 2
    b.T[0] = y
    return (b * b).sum()


FUNCTIONS = [stacked, in_columns, outer, tensor, mesh, sliced]
every = pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)


@every
def test_of_a_number_have_the_derivative_that_differences_give(f):
    q = np.asarray(0.7)[()]
    step = 1e-6
    expected = (float(f(q, 1.3 + step)) - float(f(q, 1.3 - step))) / (2 * step)
    np.testing.assert_allclose(float(gj.grad(f, 1)(q, 1.3)), expected, rtol=1e-7)
    np.testing.assert_allclose(float(gj.jvp(lambda y: f(q, y), (1.3,), (1.0,))[1]), expected, rtol=1e-7)


@every
def test_are_differentiated_inside_vmap_lane_by_lane(f):
    found = gj.vmap(lambda q: gj.grad(lambda y: f(q, y))(1.3))(X)
    np.testing.assert_allclose(found, np.stack([gj.grad(f, 1)(q, 1.3) for q in X]), rtol=h.EXACT)
    twice = gj.vmap(lambda q: gj.hessian(lambda y: f(q, y))(1.3))(X)
    np.testing.assert_allclose(twice, np.stack([gj.hessian(f, 1)(q, 1.3) for q in X]), rtol=h.EXACT, atol=h.EXACT)


def test_go_into_a_buffer_that_vmap_watches():
    def f(q, y):
        b = np.ones(2) * q
        b[0] = y
        return (b * b).sum()

    np.testing.assert_allclose(gj.vmap(lambda q: gj.grad(lambda y: f(q, y))(1.5))(X), np.full(3, 3.0))
