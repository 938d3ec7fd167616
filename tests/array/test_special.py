"""Special functions: every door, derivatives of high order, edges of the domain, whole transforms."""

import cmath
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.special

import gpujac as gj
import gpujac.scipy.special as gsp
from gpujac.backends.host import OF_SCIPY
from tests import device
from tests import oracles as orc

X = np.array([0.3, 0.55, 0.8])
Y = np.array([0.4, 0.9, 0.35])
BINARY = ("xlogy", "xlog1py", "rel_entr", "kl_div", "betaln")
UNARY = sorted(OF_SCIPY - {*BINARY, "zeta"})


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_scipys_own_function_and_ours_give_value_and_derivative(name):
    args = (X, Y) if name in BINARY else (X,)
    ts = (np.array([1.0, -2.0, 0.5]), np.array([0.7, 0.1, -1.0]))[: len(args)]
    theirs = getattr(scipy.special, name)
    for f in (theirs, getattr(gsp, name)):
        y, dy = gj.jvp(f, args, ts)
        np.testing.assert_allclose(y, theirs(*args), rtol=1e-14)
        np.testing.assert_allclose(dy, orc.central_difference(theirs, args, ts), rtol=1e-8)


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_arrays_of_the_device_give_the_same(name):
    args = (X, Y) if name in BINARY else (X,)
    f = getattr(gsp, name)
    wanted, plain = gj.vjp(f, *args)
    found, pullback = gj.vjp(f, *map(device.array, args))
    np.testing.assert_allclose(device.host(found), wanted)
    for a, b in zip(pullback(found), plain(wanted), strict=True):
        np.testing.assert_allclose(device.host(a), b)


def test_all_derivatives_of_the_logarithm_of_the_gamma_function_are_there():
    f = gsp.gammaln
    for order in range(1, 6):
        f = gj.grad(f)
        want = scipy.special.polygamma(order - 1, 1.3)
        np.testing.assert_allclose(f(1.3), want, rtol=1e-12)
        np.testing.assert_allclose(gsp.polygamma(order - 1, 1.3), want)
        np.testing.assert_allclose(gj.grad(lambda x, n=order - 1: gsp.polygamma(n, x))(1.3),
                                   scipy.special.polygamma(order, 1.3))  # fmt: skip


def test_the_first_operand_of_zeta_has_no_derivative_and_says_why():
    with pytest.raises(gj.MissingRuleError, match=r"zeta has no slope rule: .*second operand"):
        gj.grad(lambda s: gsp.zeta(s, 1.0))(2.0)


def test_a_factor_of_zero_hides_the_logarithm():
    assert gj.grad(gsp.xlogy, (0, 1))(0.0, 0.5) == (math.log(0.5), 0.0)
    assert gj.grad(gsp.xlogy, 1)(0.0, 0.0) == 0.0
    assert gj.grad(gsp.xlog1py, 1)(0.0, -1.0) == 0.0
    with np.errstate(divide="ignore"):
        assert gj.grad(gsp.entr)(0.0) == math.inf
    np.testing.assert_array_equal(gj.jacrev(lambda x: np.where(x > 0, gsp.entr(x), 0.0))(np.array([0.0, 1.0])),
                                  [[0.0, 0.0], [0.0, -1.0]])  # fmt: skip


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
def test_softmax_and_its_logarithm_do_not_overflow(axis):
    x = np.array([[1000.0, 1001.0, 999.0], [-5.0, 0.5, 2.0]])
    for name in ("softmax", "log_softmax"):
        ours, theirs = getattr(gsp, name), getattr(scipy.special, name)
        y, dy = gj.jvp(lambda x, f=ours: f(x, axis=axis), (x,), (np.cos(x),))
        np.testing.assert_allclose(y, theirs(x, axis=axis), rtol=1e-12)
        want = orc.central_difference(lambda x, f=theirs: f(x, axis=axis), (x,), (np.cos(x),))
        np.testing.assert_allclose(dy, want, atol=1e-9)


def test_hessian_and_batched_jacobians_of_a_likelihood():
    def loss(p):  # a beta and a probit likelihood
        a, b = np.exp(p[0]), np.exp(p[1])
        return gsp.betaln(a, b) - gsp.xlogy(a, 0.3) - gsp.xlog1py(b, -0.3) - gsp.log_ndtr(a - 2.0 * b)

    p = np.array([0.2, -0.4])
    want = orc.numeric_jacobian(gj.grad(loss), (p,))
    np.testing.assert_allclose(gj.hessian(loss)(p), want, atol=1e-8)
    batch = np.stack([p, p + 1.0], 1)
    np.testing.assert_allclose(gj.vmap(gj.hessian(loss), 1)(batch), [gj.hessian(loss)(p), gj.hessian(loss)(p + 1.0)])
    J = gj.vmap(gj.jacrev(lambda p: gsp.erf(p) * gsp.ndtri(0.1 + 0.1 * p**2)))(batch)
    assert J.shape == (2, 2, 2)


def test_single_precision_stays_single():
    x = X.astype(np.float32)
    for name in UNARY:
        y, dy = gj.jvp(getattr(gsp, name), (x,), (x,))
        assert (y.dtype, dy.dtype) == (np.float32, np.float32)


def test_importing_gpujac_does_not_import_scipys_special_functions():
    code = "import sys, gpujac; print('scipy.special' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---------------------------------------------------------------- Fourier transforms


def test_a_transform_is_its_own_derivative_and_its_pullback_the_adjoint():
    rng = np.random.default_rng(2)
    z = rng.standard_normal((3, 5)) + 1j * rng.standard_normal((3, 5))
    x = z.real.copy()
    for f, a in ((np.fft.fft, z), (np.fft.ifft, x), (np.fft.rfft, x), (np.fft.irfft, z), (np.fft.hfft, z),
                 (np.fft.ihfft, x), (np.fft.fft2, x), (np.fft.rfftn, x), (np.fft.irfftn, z)):  # fmt: skip
        y, pullback = gj.vjp(f, a)
        ct = orc.random_like(rng, y)
        (found,) = pullback(ct)
        assert found.dtype == a.dtype
        assert np.isclose(orc.inner(found, a), orc.inner(ct, f(a)))
        batch = np.stack([a, 2 * a], 1)
        np.testing.assert_allclose(gj.vmap(f, 1)(batch), [f(a), f(2 * a)], atol=1e-12)


def test_the_jacobian_of_a_transform_is_the_matrix_of_its_waves():
    n = 4
    want = [[cmath.exp(-2j * math.pi * k * j / n) for j in range(n)] for k in range(n)]
    J = gj.jacfwd(np.fft.fft, holomorphic=True)(np.arange(4.0) + 0j)
    np.testing.assert_allclose(J, want, atol=1e-14)


def test_a_spectral_derivative_and_the_hessian_of_a_power_spectrum():
    n = 8
    grid = 2 * np.pi * np.arange(n) / n
    waves = 1j * np.fft.fftfreq(n, 1 / n)

    def slope(u):
        return np.fft.ifft(waves * np.fft.fft(u)).real

    J = gj.jacrev(slope)(np.sin(grid))
    np.testing.assert_allclose(J @ np.sin(2 * grid), 2 * np.cos(2 * grid), atol=1e-12)

    def power(u):
        return np.sum(np.abs(np.fft.rfft(u)) ** 4)

    u = np.random.default_rng(1).standard_normal(n)
    want = orc.numeric_jacobian(gj.grad(power), (u,))
    np.testing.assert_allclose(gj.hessian(power)(u), want, atol=1e-5)


def test_single_precision_transforms_stay_single():
    x = X.astype(np.float32)
    y, pullback = gj.vjp(np.fft.rfft, x)
    assert (y.dtype, pullback(y)[0].dtype) == (np.complex64, np.float32)
    y, pullback = gj.vjp(np.fft.irfft, y)
    assert (y.dtype, pullback(y)[0].dtype) == (np.float32, np.complex64)


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
def test_cupys_transforms_are_reached_by_name():
    x = device.array(X)
    y, pullback = gj.vjp(lambda x: device.XP.fft.irfft(device.XP.fft.rfft(x) * 2.0, 3), x)
    np.testing.assert_allclose(device.host(y), 2 * X)
    np.testing.assert_allclose(device.host(pullback(y)[0]), 4 * X)


@pytest.mark.parametrize("q", [0.3, np.array([0.2, 0.7])])
def test_quantiles_of_numbers_have_a_derivative_by_q(q):
    a = np.array([[1.0, np.nan, 3.0, 7.0], [2.0, 5.0, np.nan, 9.0]])
    f = lambda q: np.nanquantile(a, q, axis=1)
    step = 1e-6
    slopes = (f(q + step) - f(q - step)) / (2 * step)  # entry i of q moves row i of the result alone
    found = gj.jacfwd(f)(q)
    np.testing.assert_allclose(np.einsum("iji->ij", found) if np.ndim(q) else found, slopes, rtol=1e-6)
    by_percent = gj.jacrev(lambda p: np.nanpercentile(a, p, axis=1))(100.0 * q)
    np.testing.assert_allclose(by_percent, found / 100.0, rtol=1e-12)


@pytest.mark.parametrize("name", ["xlogy", "xlog1py", "rel_entr", "kl_div"])
def test_mixed_second_derivatives_where_the_first_operand_is_zero_agree_from_both_sides(name):
    f = getattr(gsp, name)
    want = {"xlogy": 0.5, "xlog1py": 1.0 / 3.0}.get(name, -0.5)
    for hessian in (gj.hessian, lambda g: gj.jacrev(gj.jacrev(g)), lambda g: gj.jacfwd(gj.jacfwd(g))):
        found = hessian(lambda v: f(v[0], v[1]))(np.array([0.0, 2.0]))
        np.testing.assert_allclose([found[0, 1], found[1, 0], found[1, 1]], [want, want, 0.0])


def test_zeta_of_one_argument_is_riemanns():
    x = np.array([2.0, 3.5])
    np.testing.assert_allclose(gj.vmap(gsp.zeta)(x), scipy.special.zeta(x))


@pytest.mark.parametrize("x", [-1e5, -1e7, -1e9])
def test_the_slope_of_log_ndtr_is_right_far_to_the_left(x):
    """It is -x - 1/x + 2/x³ - ... there."""
    np.testing.assert_allclose(gj.grad(gsp.log_ndtr)(x), -x - 1.0 / x, rtol=1e-14)
    np.testing.assert_allclose(gj.grad(gj.grad(gsp.log_ndtr))(x), -1.0, rtol=2.0 / x**2 + 1e-14)
    both = gj.grad(lambda v: gsp.log_ndtr(v).sum())(np.array([x, 0.5, 1e100]))  # one lane does not spoil another
    np.testing.assert_allclose(both[1:], [math.exp(-0.125) / math.sqrt(2 * math.pi) / scipy.special.ndtr(0.5), 0.0])


@pytest.mark.parametrize("x", [20.0, 29.0, 31.0, 1e3, 1e6, 1e8])
def test_the_slope_of_erfcx_is_right_far_to_the_right(x):
    """Its series is Σ (2k+1)!! (-1/2)^(k+1) x^-(2k+2) 2/√π."""
    terms = [-(2.0 / math.sqrt(math.pi)) * 0.5 / x**2]
    for k in range(1, 10):
        terms.append(terms[-1] * -(k + 0.5) / x**2)
    np.testing.assert_allclose(gj.grad(gsp.erfcx)(x), math.fsum(terms), rtol=1e-12)
    second = math.fsum([-t * (2 * k + 2) / x for k, t in enumerate(terms)])
    np.testing.assert_allclose(gj.grad(gj.grad(gsp.erfcx))(x), second, rtol=1e-9)
