"""Values, dtypes and errors as NumPy has them at the edges: NaN, infinity, integers, nothing, wrong arguments."""

import warnings

import numpy as np
import pytest
import scipy.special

import gpujac as gj
import gpujac.numpy as gnp
import gpujac.scipy.special as gsp
from tests import device
from tests import oracles as orc

NAN, INF = np.nan, np.inf
BIG = 2**60 + 1


def traced(f, x):
    """The value of f under vjp."""
    return gj.vjp(f, x)[0]


def mapped(f, x):
    """The value of f under vmap, of one lane."""
    return gj.vmap(f)(x[None])[0]


def quietly(f, x):
    """NumPy's own result, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f(x)


# ---------------------------------------------------------------- digitize


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("bins", [[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [2.0, 2.0], [0.5]])
def test_edges_that_rise_or_fall_have_numpys_sides(bins, right):
    x = np.array([1.0, 0.5, 0.0, -1.0, 3.0, -3.0])
    found = mapped(lambda a: np.digitize(a, np.array(bins), right), x)
    np.testing.assert_array_equal(found, np.digitize(x, bins, right))


def test_edges_that_do_both_or_differ_between_lanes_or_are_complex_are_refused():
    x = np.ones((2, 3))
    with pytest.raises(gj.ArgumentError, match="digitize: the 3 edges must rise or fall"):
        gj.vmap(lambda a: np.digitize(a, np.array([1.0, 0.0, 1.0])))(x)
    with pytest.raises(gj.ConcretizationError, match=r"digitize: .* may differ between the lanes"):
        gj.vmap(np.digitize)(x, x)
    with pytest.raises(gj.DTypeError, match="digitize: complex"):
        gj.vmap(lambda a: np.digitize(a, np.array([0.0, 1.0])))(x + 1j)


# ---------------------------------------------------------------- NaN and infinity


@pytest.mark.parametrize("run", [traced, mapped])
@pytest.mark.parametrize("f", [np.median, lambda a: np.pad(a, 1, mode="median"), lambda a: np.median(a[:, None], 0)])
def test_a_median_with_nan_among_the_entries_is_nan_as_in_numpy(f, run):
    x = np.array([1.0, NAN, 3.0])
    np.testing.assert_array_equal(run(f, x), quietly(f, x))


@pytest.mark.parametrize("f", [np.quantile, np.nanquantile])
@pytest.mark.parametrize(("x", "want"), [
    ([1.0, 2.0, INF], [1.0, 1.5, 2.0, INF, INF]),
    ([-INF, 2.0, 3.0], [-INF, -INF, 2.0, 2.5, 3.0]),
    ([INF, INF, INF], [INF] * 5),
    ([-INF, -INF, 0.0], [-INF, -INF, -INF, -INF, 0.0]),
])  # fmt: skip
def test_quantiles_beside_infinity_are_finite_where_they_should_be(f, x, want):
    q = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_array_equal(traced(lambda a: f(a, q), np.array(x)), want)
    if f is np.nanquantile:
        np.testing.assert_array_equal(traced(lambda a: np.nanmedian(a), np.array(x)), want[2])
        np.testing.assert_array_equal(traced(lambda a: np.nanquantile(a, q), np.array([*x, NAN])), want)


def test_the_derivative_of_a_quantile_beside_infinity_stays_with_the_finite_entries():
    for f in (np.quantile, np.nanquantile):
        np.testing.assert_array_equal(gj.grad(lambda a, f=f: f(a, 0.25))(np.array([1.0, 2.0, INF])), [0.5, 0.5, 0.0])


@pytest.mark.parametrize("f", [np.nanmax, np.nanmin, np.nanstd, lambda a: np.nanvar(a, ddof=2)])
def test_reductions_of_no_numbers_are_nan(f):
    for x in (np.array([NAN, NAN]), np.array([[NAN, NAN], [1.0, NAN]])):
        def g(a, f=f):
            return f(a, axis=-1) if f in (np.nanmax, np.nanmin) else f(a)
        np.testing.assert_array_equal(traced(g, x), quietly(g, x))


def test_deviations_with_too_few_numbers_are_nan():
    for f in (np.nanstd, np.nanvar):
        x = np.array([[1.0, 2.0, NAN], [1.0, 2.0, 4.0]])
        for keepdims in (False, True):
            def g(a, f=f, keepdims=keepdims):
                return f(a, axis=1, ddof=2, keepdims=keepdims)

            np.testing.assert_allclose(traced(g, x), quietly(g, x))


def test_the_largest_number_takes_initial_and_where():
    x = np.array([1.0, NAN, 3.0])
    for f in (np.nanmax, np.nanmin):
        for options in ({"initial": 2.0}, {"initial": 2.0, "where": np.array([True, True, False])}):
            assert traced(lambda a, f=f, o=options: f(a, **o), x) == f(x, **options)
        with pytest.raises(gj.ArgumentError, match="where= needs initial="):
            traced(lambda a, f=f: f(a, where=np.array([True, True, False])), x)


def test_the_condition_of_a_zero_matrix_is_infinite():
    for p in (None, 2, -2):
        for a in (np.zeros((2, 2)), np.diag([1.0, 0.0])):
            assert traced(lambda a, p=p: np.linalg.cond(a, p), a) == quietly(lambda a, p=p: np.linalg.cond(a, p), a)


# ---------------------------------------------------------------- dtypes


@pytest.mark.parametrize("f", [np.nansum, np.nanprod, np.nancumsum, np.nancumprod, np.nanmax, np.nanmin, np.vander])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, bool])
def test_integers_stay_exact(f, dtype):
    x = np.array([BIG, 1] if dtype is np.int64 else [200, 3], dtype)
    if f is np.vander and dtype is np.int64:
        x = np.array([3, 2])
    want, found = f(x), mapped(f, x)
    np.testing.assert_array_equal(found, want)
    assert found.dtype == want.dtype


@pytest.mark.parametrize("f", [
    np.cov, np.corrcoef, lambda a: np.vander(a[0]), lambda a: np.bincount([0, 1, 1], a[0]), np.nanmedian,
    lambda a: np.nanquantile(a, [0.3]), lambda a: np.nanquantile(a, 0.3), lambda a: np.nanpercentile(a, 30),
    *[lambda a, m=m, q=q: np.quantile(a, q, method=m) for m in ("lower", "higher", "nearest", "linear")
      for q in (0.3, np.float64(0.3))],
])  # fmt: skip
def test_single_precision_is_kept_or_widened_as_in_numpy(f):
    x = np.array([[1.0, 2.0, 4.0], [3.0, 1.0, 0.5]], np.float32)
    want, found = f(x), traced(f, x)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    assert found.dtype == want.dtype


@pytest.mark.parametrize("f", [np.nanvar, np.nanstd])
def test_the_spread_of_complex_numbers_is_real(f):
    x = np.array([1.0 + 2.0j, NAN, 2.0 - 1.0j])
    found = traced(f, x)
    np.testing.assert_allclose(found, f(x))
    assert found.dtype == np.float64


# ---------------------------------------------------------------- nothing there


@pytest.mark.parametrize("f", [np.median, np.nanmedian, np.quantile, np.nanquantile])
def test_no_lines_of_entries_give_no_results(f):
    q = () if f in (np.median, np.nanmedian) else ([0.2, 0.7],)
    for run in (traced, mapped):
        assert run(lambda a: f(a, *q, axis=1), np.ones((0, 4))).shape == (*np.shape(q)[1:], 0)


def test_quantiles_of_no_entries_are_nan():
    for f in (np.nanmedian, lambda a: np.nanquantile(a, [0.2, 0.3], axis=-1)):
        np.testing.assert_array_equal(traced(f, np.zeros(0)), quietly(f, np.zeros(0)))
    assert np.isnan(traced(lambda a: np.nanmedian(a, axis=1), np.ones((2, 0)))).tolist() == [True, True]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_matrices_have_pseudoinverse_and_least_squares(shape):
    a = np.ones(shape)
    assert traced(np.linalg.pinv, a).shape == np.linalg.pinv(a).shape
    for b in (np.ones(shape[0]), np.ones((shape[0], 2))):
        found = traced(lambda a, b=b: np.linalg.lstsq(a, b)[:2], a)
        for x, y in zip(found, np.linalg.lstsq(a, b)[:2], strict=True):
            np.testing.assert_array_equal(x, y)


def test_the_logarithm_of_no_sum_is_minus_infinity():
    assert traced(gsp.logsumexp, np.zeros(0)) == -INF
    found = traced(lambda a: gsp.logsumexp(a, axis=1, keepdims=True), np.ones((2, 0)))
    np.testing.assert_array_equal(found, [[-INF], [-INF]])


# ---------------------------------------------------------------- least squares in lanes


def test_each_lane_has_its_own_rank_and_residuals_only_of_full_rank():
    a = np.stack([np.ones((3, 2)), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]), np.zeros((3, 2))])
    b = np.array([1.0, 2.0, 5.0])
    x, gaps, rank, s = gj.vmap(lambda a: np.linalg.lstsq(a, b))(a)
    for i in range(3):
        want = np.linalg.lstsq(a[i], b)
        np.testing.assert_allclose(x[i], want[0], atol=1e-12)
        np.testing.assert_allclose(gaps[i], want[1] if len(want[1]) else [NAN])
        assert rank[i] == want[2]
        np.testing.assert_allclose(s[i], want[3], atol=1e-12)


# ---------------------------------------------------------------- wrong arguments

ONE = np.ones((2, 2))
REFUSED = {
    "a transform along more axes than there are": (lambda a: np.fft.fftn(a, s=(2, 2, 2)), gj.ShapeError, "s="),
    "a negative length": (lambda a: np.fft.fft(a, n=-1), gj.ShapeError, "fft: -1 points"),
    "a negative length back": (lambda a: np.fft.ifft(a, n=-1), gj.ShapeError, "ifft|fft: -1 points"),
    "a matrix norm of three axes": (lambda a: np.linalg.norm(a[None], 2), gj.ShapeError, "norm: 3 axes"),
    "a norm over three axes": (lambda a: np.linalg.norm(a[None], axis=(0, 1, 2)), gj.ShapeError, "norm: 3 axes"),
    "a matrix norm of a vector": (lambda a: np.linalg.norm(a[0], "fro"), gj.ArgumentError, "norm of a vector"),
    "negative counts": (lambda a: np.cov(a, fweights=[-1, 2]), gj.ArgumentError, "cov: fweights are negative"),
    "negative weights": (lambda a: np.cov(a, aweights=[-1.0, 2]), gj.ArgumentError, "cov: aweights are negative"),
    "broken counts": (lambda a: np.cov(a, fweights=[1.5, 2.0]), gj.ArgumentError, "whole numbers"),
    "a short sorter": (lambda a: np.searchsorted(a[0], a, sorter=[0]), gj.ShapeError, "sorter of shape"),
    "weights that add up to zero": (lambda a: np.average(a, weights=a * 0), gj.ArgumentError, "add up to zero"),
    "fewer than no columns": (lambda a: np.vander(a[0], -1), gj.ArgumentError, "vander: N=-1"),
    "a sequence without axes": (lambda a: np.correlate(a[0, 0], a[0]), gj.ShapeError, "correlate: needs two"),
    "a complex border": (lambda a: np.pad(a, 1, constant_values=1j), gj.DTypeError, "constant_values are complex"),
    "complex borders": (lambda a: np.pad(a, 1, constant_values=(1j, 0)), gj.DTypeError, "constant_values are complex"),
    "a share beyond one": (lambda a: np.quantile(a, a[0, 0] * 1.5), gj.ArgumentError, "q must be from 0 to 1"),
    "a negative percentile": (lambda a: np.nanpercentile(a, -a[0, 0]), gj.ArgumentError, "from 0 to 100"),
    "three borders": (lambda a: np.pad(a, 1, constant_values=[1, 2, 3]), gj.ShapeError, "constant_values of shape"),
    "three ends": (lambda a: np.pad(a, 1, "linear_ramp", end_values=a[0, [0, 0, 0]]), gj.ShapeError, "end_values of"),
    "three lengths": (lambda a: np.pad(a, 1, "mean", stat_length=[1, 2, 3]), gj.ShapeError, "stat_length of shape"),
    "quantiles of complex numbers": (lambda a: np.quantile(a + 0j, 0.3), gj.DTypeError, "quantile: needs real numbers"),
    "a complex share": (lambda a: np.nanquantile(a, 0.3 + 0j), gj.DTypeError, "quantile: needs real numbers"),
    "two cut-offs": (lambda a: np.linalg.pinv(a, 1e-3, rtol=1e-1), gj.ArgumentError, "rcond= and rtol="),
    "an option of ufuncs": (lambda a: scipy.special.erf(a, where=a > 1), gj.DispatchError, "erf: where="),
    "a plain result array": (lambda a: scipy.special.erf(a, out=np.zeros(2)), gj.MutationError, "erf would write"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("run", [traced, mapped])
def test_what_numpy_refuses_is_refused_with_the_cure(what, run):
    f, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        run(f, ONE)


def test_a_lane_with_a_share_beyond_one_is_refused():
    for f in (np.quantile, np.nanquantile):
        with pytest.raises(gj.ArgumentError, match="q must be from 0 to 1"):
            gj.vmap(lambda q, f=f: f(np.array([1.0, 2.0]), q))(np.array([0.5, 1.5]))


@pytest.mark.parametrize("name", ["rfft", "rfft2", "rfftn", "ihfft"])
def test_the_imaginary_part_of_an_array_is_not_dropped(name):
    f = getattr(np.fft, name)
    for run in (traced, mapped):
        with pytest.raises(gj.DTypeError, match="needs a real array, found complex128"):
            run(f, ONE + 1j)
        assert run(lambda a: f(a.real), ONE + 1j).shape == f(ONE).shape


@pytest.mark.parametrize("run", [traced, mapped])
@pytest.mark.parametrize("s", [(3, -1), (-1, 3), (-1, -1), np.array([2, 5]), None])
@pytest.mark.parametrize("name", ["fftn", "ifft2", "rfftn", "irfftn", "irfft2"])
def test_lengths_of_transforms_are_numpys(name, s, run):
    f = lambda a: getattr(np.fft, name)(a, s=s, axes=(0, 1))
    x = np.arange(12.0).reshape(3, 4) ** 1.5
    assert run(f, x).shape == f(x).shape
    np.testing.assert_allclose(run(f, x), f(x), atol=1e-12)


@pytest.mark.parametrize("name", ["fft", "rfft", "irfft", "ihfft", "hfft"])
def test_transforms_of_long_numbers_stay_long(name):
    f = getattr(np.fft, name)
    x = np.arange(1, 6).astype(np.longdouble) / 7
    y, dy = gj.jvp(f, (x,), (x,))
    assert y.dtype == dy.dtype == f(x).dtype
    np.testing.assert_allclose(y, f(x), rtol=1e-15)
    assert gj.grad(lambda x: np.sum(np.abs(f(x)) ** 2))(x).dtype == np.longdouble


@pytest.mark.parametrize("run", [traced, mapped])
@pytest.mark.parametrize("weights", [{"fweights": [1, 0, 1]}, {"aweights": [1.0, 0.5, 1.0]}])
@pytest.mark.parametrize("ddof", [2, 3, 5])
def test_covariances_of_too_few_observations_are_infinite(ddof, weights, run):
    f = lambda a: np.cov(a, ddof=ddof, **weights)
    x = np.array([[1.0, 2.0, 4.0]])
    want = quietly(f, x)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(run(f, x), want)
    assert np.isinf(want) or ddof == 2


def test_polygamma_of_a_large_order_overflows_as_scipys():
    for n in (3, 170, 171, 200):
        found = traced(lambda x, n=n: gsp.polygamma(n, x), np.array(5.0))
        np.testing.assert_allclose(found, scipy.special.polygamma(n, 5.0))


# ---------------------------------------------------------------- borders on a device


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
@pytest.mark.parametrize("borders", [
    lambda c: c, lambda c: (c, 2 * c), lambda c: ((c, 2 * c), (3, c * c)), lambda c: ((c, 1.0), (c, 2)),
])  # fmt: skip
@pytest.mark.parametrize("mode", [{"constant_values": 0}, {"mode": "linear_ramp", "end_values": 0}])
def test_array_and_borders_may_both_be_traced_on_a_device(borders, mode):
    x = np.array([[1.0, 2.0], [3.0, 5.0]])

    def f(q, c):
        options = {**mode, next(k for k in mode if k != "mode"): borders(c)}
        return (gnp.pad(q, ((2, 1), (1, 2)), **options) ** 2).sum()

    want = gj.grad(f, argnums=(0, 1))(x, 1.5)
    found = gj.grad(f, argnums=(0, 1))(device.array(x), 1.5)
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(device.host(a), b)
    step = orc.central_difference(lambda c: f(x, c), (1.5,), (1.0,))
    np.testing.assert_allclose(want[1], step, rtol=1e-6)


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
def test_weights_of_another_library_are_refused():
    with pytest.raises(gj.BackendError, match="two array libraries"):
        traced(lambda a: gnp.cov(a, fweights=np.array([1, 2]), aweights=device.array([1.0, 2.0])), device.array(ONE))
