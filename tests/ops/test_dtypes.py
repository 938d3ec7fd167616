"""Dtypes, scalars and empty arrays: float32 stays float32, Python numbers are weak, n = 0 works."""

import array_api_strict
import numpy as np
import pytest

import gpujac as gj
from tests.ops.catalogue import LIBRARIES

F32 = np.float32
DTYPES = [np.float32, np.float64]
PROGRAMS = {
    "python numbers": lambda x: 2 * x + 1.5 - x / 3 + (1 - x) ** 2 + x**0.5 + 2.0**x,
    "where with numbers": lambda x: np.where(x > 1, x * 2, 0.0) + np.maximum(x, 0.5) + np.clip(x, 0, 2.0),
    "kinks": lambda x: np.abs(x) + np.fmax(x, 0.0) + np.hypot(x, 1.0) + np.sinc(x) + np.copysign(x, -1.0),
    "logs": lambda x: np.log1p(x) + np.logaddexp(x, 0.0) + np.log2(x) + np.exp2(x) + np.cbrt(x),
    "reductions": lambda x: x.sum() + x.mean() + x.max() - x.min() + x.var() + x.std() + x.prod() + x,
    "norms": lambda x: np.linalg.norm(x) + np.linalg.norm(x, 1) + np.linalg.norm(x, 3) + x,
    "products": lambda x: np.outer(x, x) @ x + np.dot(x, x) + np.einsum("i,i,j->j", x, x, x),
    "indexing": lambda x: x[::-1] + x[np.array([0, 0, 1])] + np.roll(x, 1) + np.concatenate([x[1:], x[:1]]),
    "writes": lambda x: _filled(x),
    "cumulative": lambda x: np.cumsum(x) + np.tile(x[:1], 3) + np.repeat(x[2], 3) + np.diff(x).sum(),
    "solve": lambda x: np.linalg.solve(np.diag(x) + np.outer(x, x), x) + np.linalg.inv(np.diag(x)) @ x,
    "rounding": lambda x: np.floor(x) * x + np.mod(x, 0.7) + np.round(x, 1) * x,
    "same dtype constant": lambda x: x * np.arange(1, 4, dtype=x.dtype) + np.ones(3, x.dtype) @ x,
    "nan_to_num": lambda x: np.nan_to_num(x) + np.radians(x) + np.trace(np.outer(x, x)),
}  # fmt: skip


def _filled(x):
    y = np.zeros_like(x)
    y[1:] = x[:-1] * x[1:]
    y[0] = 3
    y += x
    y[np.array([2, 2])] = x[:2]
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_transform_keeps_the_dtype(name, dtype):
    f, x = PROGRAMS[name], np.array([0.4, 1.3, 2.2], dtype)
    t = np.ones_like(x)
    assert f(x).dtype == dtype
    y, dy = gj.jvp(f, (x,), (t,))
    assert (y.dtype, dy.dtype) == (dtype, dtype)
    y, pullback = gj.vjp(f, x)
    assert (y.dtype, pullback(np.ones_like(y))[0].dtype) == (dtype, dtype)
    y, linear = gj.linearize(f, x)
    assert linear(t).dtype == dtype
    for transform in (gj.jacrev, gj.jacfwd):
        for chunk_size in (None, 1, 2):
            assert transform(f, chunk_size=chunk_size)(x).dtype == dtype
    assert gj.grad(lambda x: f(x).sum())(x).dtype == dtype
    assert gj.hessian(lambda x: f(x).sum())(x).dtype == dtype
    stacked = np.stack([x, x + dtype(0.1)])
    assert gj.vmap(f)(stacked).dtype == dtype
    assert gj.vmap(gj.jacrev(f))(stacked).dtype == dtype
    assert gj.vmap(gj.jacfwd(f))(stacked).dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_single_precision_agrees_with_double(name, dtype):
    f, x = PROGRAMS[name], np.array([0.4, 1.3, 2.2])
    wanted = gj.jacrev(f)(x)
    found = gj.jacfwd(f)(x.astype(dtype))
    np.testing.assert_allclose(found, wanted, rtol=2e-4 if dtype is np.float32 else 1e-10, atol=1e-4)


# ---------------------------------------------------------------- mixed operands


def test_single_times_double_constant_gives_a_single_gradient():
    x, c = np.array([1.0, 2.0], F32), np.array([0.1, 0.2])
    y, pullback = gj.vjp(lambda x: x * c, x)
    assert y.dtype == np.float64
    (g,) = pullback(np.ones(2))
    assert g.dtype == F32
    np.testing.assert_allclose(g, c, rtol=1e-6)
    assert gj.jvp(lambda x: x * c, (x,), (x,))[1].dtype == np.float64
    assert gj.jacrev(lambda x: x * c)(x).dtype == F32
    assert gj.jacfwd(lambda x: x * c)(x).dtype == np.float64
    assert gj.grad(lambda x: (x * c).sum())(x).dtype == F32
    assert gj.grad(lambda x: x @ c)(x).dtype == F32
    assert gj.grad(lambda x: np.concatenate([x, c]).sum())(x).dtype == F32
    assert gj.grad(lambda x: np.where(c > 0.15, x, c).sum())(x).dtype == F32
    assert gj.grad(lambda x: np.maximum(x, c).sum())(x).dtype == F32


def test_double_times_single_constant_stays_double():
    x, c = np.array([1.0, 2.0]), np.array([0.1, 0.2], F32)
    for f in (lambda x: (x * c).sum(), lambda x: x @ c, lambda x: np.hypot(x, c).sum()):
        assert gj.grad(f)(x).dtype == np.float64


def test_real_times_complex_constant_gives_the_real_part():
    x, c = np.array([1.0, 2.0]), np.array([1.0 + 2.0j, 3.0 - 1.0j])
    y, pullback = gj.vjp(lambda x: x * c, x)
    assert y.dtype == np.complex128
    ct = np.array([0.5 + 1.0j, -1.0 + 2.0j])
    (g,) = pullback(ct)
    assert g.dtype == np.float64
    np.testing.assert_allclose(g, np.real(np.conj(c) * ct))
    g = gj.grad(lambda x: np.sum(np.abs(x * c) ** 2))(x)
    np.testing.assert_allclose(g, 2 * x * np.abs(c) ** 2)


def test_single_real_times_double_complex():
    x, c = np.array([1.0, 2.0], F32), np.array([1.0 + 2.0j, 3.0 - 1.0j])
    y, pullback = gj.vjp(lambda x: x * c, x)
    assert y.dtype == np.complex128
    assert pullback(np.ones(2, complex))[0].dtype == F32


def test_integer_operands_do_not_widen_more_than_numpy_does():
    x, n = np.array([1.0, 2.0], F32), np.array([2, 3])
    small = n.astype(np.int8)
    assert gj.grad(lambda x: (x * n).sum())(x).dtype == F32
    assert gj.jvp(lambda x: x * n, (x,), (x,))[1].dtype == np.float64
    assert gj.jvp(lambda x: x * small, (x,), (x,))[1].dtype == F32
    assert gj.jvp(lambda x: x**small, (x,), (x,))[1].dtype == F32


def test_casts_forward_and_back():
    x = np.array([1.0, 2.0], F32)
    f = lambda x: (x.astype(np.float64) ** 2).astype(F32)
    assert gj.jvp(f, (x,), (x,))[1].dtype == F32
    np.testing.assert_allclose(gj.jacrev(f)(x), np.diag(2 * x))
    assert gj.jacrev(f)(x).dtype == F32


# ---------------------------------------------------------------- scalars


@pytest.mark.parametrize("x", [2.0, np.float64(2.0), np.array(2.0), np.float32(2.0), np.array(2.0, F32)])
def test_scalars_of_every_kind_are_zero_dimensional_arrays(x):
    f = lambda x: np.sin(x) * x + x**3 / 2 - 1
    wanted = np.sin(2.0) + 2 * np.cos(2.0) + 6.0
    dtype = np.asarray(x).dtype
    for found in (
        gj.grad(f)(x), gj.jacrev(f)(x), gj.jacfwd(f)(x), gj.vjp(f, x)[1](x / x)[0],
        gj.jvp(f, (x,), (x / x,))[1], gj.linearize(f, x)[1](x / x), gj.grad(lambda x: gj.jvp(f, (x,), (x,))[0])(x),
    ):  # fmt: skip
        assert np.shape(found) == ()
        assert np.asarray(found).dtype == dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-5 if dtype == F32 else 1e-12)
    second = gj.grad(gj.grad(f))(x)
    np.testing.assert_allclose(second, 2 * np.cos(2.0) - 2 * np.sin(2.0) + 6.0, rtol=1e-5)
    assert np.asarray(second).dtype == dtype
    assert np.shape(gj.hessian(f)(x)) == ()


def test_python_complex_is_a_scalar():
    y, pullback = gj.vjp(lambda z: z * z, 1.0 + 2.0j)
    assert y == (1 + 2j) ** 2
    assert pullback(1.0 + 0.0j)[0] == np.conj(2 * (1 + 2j))


def test_a_python_number_is_weak_beside_float32():
    x = np.array([1.0, 2.0], F32)
    y, dy = gj.jvp(lambda a, x: a * x, (3.0, x), (1.0, x))
    assert (y.dtype, dy.dtype) == (F32, F32)
    g = gj.grad(lambda a, x: (a * x).sum(), argnums=(0, 1))(3.0, x)
    assert g[1].dtype == F32
    np.testing.assert_allclose(g[0], 3.0)
    np.testing.assert_allclose(g[1], [3.0, 3.0])


def test_constant_outputs_have_zero_derivatives_of_the_right_shape():
    x = np.array([1.0, 2.0], F32)
    J = gj.jacrev(lambda x: np.ones(3, F32))(x)
    assert J.shape == (3, 2)
    assert J.dtype == F32
    assert not J.any()
    assert not gj.jacfwd(lambda x: np.ones(3, F32))(x).any()
    assert not gj.grad(lambda x: 3.0)(x).any()
    assert not gj.jvp(lambda x: np.ones(3), (x,), (x,))[1].any()


# ---------------------------------------------------------------- empty arrays

EMPTY = {
    "elementwise": lambda x: np.sin(x) * x + 1,
    "sum": lambda x: x.sum(),
    "prod": lambda x: np.prod(x),
    "rows": lambda x: x[:, None] * np.ones(2, x.dtype),
    "concatenate": lambda x: np.concatenate([x, x]),
    "reshape": lambda x: x.reshape(0, 3),
    "reverse": lambda x: x[::-1],
    "dot": lambda x: x @ x,
    "outer": lambda x: np.outer(x, np.ones(2, x.dtype)),
    "take": lambda x: x[np.array([], int)],
    "cumsum": lambda x: np.cumsum(x),
    "norm": lambda x: np.linalg.norm(x),
    "write": lambda x: _emptied(x),
}


def _emptied(x):
    y = np.zeros_like(x)
    y[:] = x
    y += 2 * x
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EMPTY)
def test_arrays_without_entries_go_through_every_transform(name, dtype):
    f, x = EMPTY[name], np.zeros(0, dtype)
    y = f(x)
    found, dy = gj.jvp(f, (x,), (x,))
    assert (np.shape(found), np.shape(dy)) == (np.shape(y), np.shape(y))
    found, pullback = gj.vjp(f, x)
    (g,) = pullback(np.ones_like(found))
    assert g.shape == (0,)
    assert g.dtype == dtype
    for transform in (gj.jacrev, gj.jacfwd):
        for chunk_size in ("auto", None, 1, 3):
            J = transform(f, chunk_size=chunk_size)(x)
            assert J.shape == (*np.shape(y), 0)
            assert J.dtype == dtype
    assert gj.hessian(lambda x: np.sum(f(x)))(x).shape == (0, 0)
    assert gj.vmap(f)(np.zeros((2, 0), dtype)).shape == (2, *np.shape(y))


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
def test_an_output_without_entries_has_an_empty_jacobian(transform):
    J = transform(lambda x: x[:0])(np.ones(3))
    assert J.shape == (0, 3)
    both = transform(lambda x: (x[:0], 2 * x))(np.ones(3))
    assert both[0].shape == (0, 3)
    np.testing.assert_array_equal(both[1], 2 * np.eye(3))


# ---------------------------------------------------------------- another library


def test_results_stay_in_the_library_of_the_operands():
    xp = array_api_strict
    x = LIBRARIES["strict"].array(np.array([0.5, 1.5], F32))

    def f(x):
        ns = x.__array_namespace__()
        return ns.sum(ns.sin(x) * x + 2.0) + ns.max(x)

    g = gj.grad(f)(x)
    assert isinstance(g, type(x))
    assert g.dtype == xp.float32
    y, dy = gj.jvp(f, (x,), (x,))
    assert (y.dtype, dy.dtype) == (xp.float32, xp.float32)
    assert gj.jacfwd(lambda x: x * x)(x).dtype == xp.float32
    assert gj.hessian(f)(x).dtype == xp.float32
