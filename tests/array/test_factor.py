"""Decompositions where tables of calls do not reach: singular, repeated, complex, batched, on every library."""

import subprocess
import sys

import numpy as np
import pytest

import gpujac as gj
from gpujac.ops import determinant as dt
from tests import device
from tests import oracles as orc
from tests.ops.catalogue import LIBRARIES

RNG = np.random.default_rng(11)
A = RNG.uniform(-1.0, 1.0, (3, 3)) + np.diag([3.0, 4.0, 5.0])
Z = A + 1j * RNG.uniform(-1.0, 1.0, (3, 3))
T = RNG.uniform(-1.0, 1.0, (3, 3))
WIDE = RNG.uniform(-1.0, 1.0, (2, 3)) + 1j * RNG.uniform(-1.0, 1.0, (2, 3))


def hermitian(z):
    return (z + np.conj(z).T) / 2


def turned(values):
    """A symmetric matrix with these eigenvalues."""
    q = np.linalg.qr(A)[0]
    return (q * np.asarray(values)) @ q.T


# ---------------------------------------------------------------- determinants


@pytest.mark.parametrize("rank", [1, 2])
def test_the_derivative_of_a_singular_determinant_is_the_matrix_of_cofactors(rank):
    a = A[:, :rank] @ A[:rank]
    want = np.array([[(-1) ** (i + j) * np.linalg.det(np.delete(np.delete(a, i, 0), j, 1)) for j in range(3)]
                     for i in range(3)])  # fmt: skip
    np.testing.assert_allclose(gj.grad(np.linalg.det)(a), want, atol=1e-12)
    np.testing.assert_allclose(gj.vmap(gj.grad(np.linalg.det))(np.stack([a, A])),
                               [want, gj.grad(np.linalg.det)(A)], atol=1e-12)  # fmt: skip


def test_the_hessian_of_a_determinant_and_of_its_logarithm():
    for f in (np.linalg.det, lambda a: np.linalg.slogdet(a)[1]):
        H = gj.hessian(f)(A)
        want = orc.central_difference(lambda a, f=f: gj.grad(f)(a), (A,), (T,))
        np.testing.assert_allclose(np.einsum("ijkl,kl", H, T), want, atol=1e-8)


def test_the_logarithm_of_a_singular_determinant_has_its_value_and_the_derivative_nan():
    def f(a):
        return np.linalg.slogdet(a)[1]

    singular = np.ones((3, 3))
    assert gj.vjp(f, singular)[0] == -np.inf
    assert np.isnan(gj.grad(f)(singular)).all()
    many = gj.vmap(gj.grad(f))(np.stack([singular, A]))  # the other lane has its own
    assert np.isnan(many[0]).all()
    np.testing.assert_allclose(many[1], np.linalg.inv(A).T)
    y, aux = gj.vjp(lambda a: (a.sum(), np.linalg.slogdet(a)), singular, has_aux=True)[::2]
    assert y == 9.0
    np.testing.assert_array_equal(aux, (0.0, -np.inf))


def test_complex_determinants_turn_their_sign():
    def f(z):
        sign, size = np.linalg.slogdet(z)
        return sign * np.exp(size)

    for g in (np.linalg.det, f):
        y, dy = gj.jvp(g, (Z,), (T * (1 + 2j),))
        np.testing.assert_allclose(y, np.linalg.det(Z))
        np.testing.assert_allclose(dy, y * np.trace(np.linalg.solve(Z, T * (1 + 2j))))


# ---------------------------------------------------------------- values that repeat


def test_functions_of_repeated_eigenvalues_have_first_derivatives():
    a = turned([1.0, 2.0, 2.0])
    for f, slope in ((np.linalg.eigvalsh, 1.0), (lambda a: np.linalg.eigh(a)[0], 1.0), (np.linalg.svdvals, 1.0),
                     (lambda a: np.linalg.svd(a)[1], 1.0)):  # fmt: skip
        g = gj.grad(lambda a, f=f: np.sum(f(a) ** 3))(a)
        np.testing.assert_allclose(g, slope * 3 * a @ a, atol=1e-10)
        J = gj.jacfwd(lambda a, f=f: np.sum(f(a) ** 3))(a)
        np.testing.assert_allclose(J, g, atol=1e-10)


def test_vectors_of_repeated_values_do_not_pretend_to_have_a_derivative():
    a = np.diag([1.0, 2.0, 2.0])
    with np.errstate(all="ignore"):
        g = gj.jvp(lambda a: np.linalg.eigh(a)[1], (a,), (hermitian(T),))[1]
        assert not np.isfinite(g).all()
        assert np.isfinite(g[:, 0]).all()


def test_the_largest_singular_value_is_the_norm_and_its_kink_at_a_tie_is_one_sided():
    x = np.array([[3.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(gj.grad(lambda x: np.linalg.norm(x, 2))(x), [[1.0, 0.0], [0.0, 0.0]], atol=1e-15)
    np.testing.assert_allclose(gj.grad(lambda x: np.linalg.norm(x, "nuc"))(x), np.eye(2), atol=1e-15)


# ---------------------------------------------------------------- complex matrices: what no phase can change


def projector(z):
    w, v = np.linalg.eigh(hermitian_of(z))
    return (v * np.exp(w)) @ np.conj(v).swapaxes(-1, -2)


def hermitian_of(z):
    return (z + np.conj(z).swapaxes(-1, -2)) / 2


def polar(z):
    u, s, vh = np.linalg.svd(z, full_matrices=False)
    return (u * np.log(s)) @ vh


def by_qr(z):
    q, r = np.linalg.qr(z)
    return q @ (r * r)


COMPLEX = {
    "eigh": (projector, Z), "eigvalsh": (lambda z: np.linalg.eigvalsh(hermitian_of(z)), Z),
    "svd": (polar, Z), "wide svd": (polar, WIDE), "high svd": (polar, WIDE.T), "qr": (by_qr, Z),
    "high qr": (by_qr, WIDE.T), "wide qr": (lambda z: np.linalg.qr(z)[1], WIDE),
    "pinv": (np.linalg.pinv, WIDE), "svdvals": (lambda z: np.linalg.svd(z, compute_uv=False), WIDE),
    "cholesky": (lambda z: np.linalg.cholesky(z @ np.conj(z).swapaxes(-1, -2)), Z),
    "lstsq": (lambda z: np.linalg.lstsq(z.T, z[0] * 0 + 1)[0], WIDE),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_decompositions_have_the_tangent_of_differences_and_its_adjoint(name):
    f, z = COMPLEX[name]
    t = RNG.standard_normal(z.shape) + 1j * RNG.standard_normal(z.shape)
    y, dy = gj.jvp(f, (z,), (t,))
    np.testing.assert_allclose(y, f(z), atol=1e-12)
    np.testing.assert_allclose(dy, orc.central_difference(f, (z,), (t,)), atol=1e-8)
    ct = orc.random_like(RNG, y)
    (found,) = gj.vjp(f, z)[1](ct)
    assert np.isclose(orc.inner(found, t), orc.inner(ct, dy))
    batched = gj.vmap(lambda z: gj.vjp(f, z)[1](ct)[0])(np.stack([z, 2 * z]))
    np.testing.assert_allclose(batched[0], found, atol=1e-12)


def test_rectangular_svd_and_complex_pinv_are_batched_in_the_middle():
    x = np.moveaxis(np.stack([WIDE, 1.5 * WIDE, WIDE - 0.3]), 0, 1)
    np.testing.assert_allclose(gj.vmap(polar, 1)(x), [polar(x[:, i]) for i in range(3)], atol=1e-12)


# ---------------------------------------------------------------- least squares


def test_least_squares_give_numpys_four_results():
    high = RNG.uniform(-1.0, 1.0, (5, 3))
    b = RNG.uniform(-1.0, 1.0, (5, 2))
    for rhs in (b, b[:, 0]):
        *_, found = gj.jvp(lambda a, b: (a, np.linalg.lstsq(a, b)), (high, rhs), (high, rhs), has_aux=True)
        for y, z in zip(found, np.linalg.lstsq(high, rhs), strict=True):
            np.testing.assert_allclose(y, z, atol=1e-12)


def test_least_squares_of_a_rank_that_lacks_one_keep_the_smallest_solution():
    lacking = RNG.uniform(-1.0, 1.0, (5, 2)) @ RNG.uniform(-1.0, 1.0, (2, 3))
    b = RNG.uniform(-1.0, 1.0, 5)
    *_, found = gj.jvp(lambda b: (b, np.linalg.lstsq(lacking, b)), (b,), (b,), has_aux=True)
    want = np.linalg.lstsq(lacking, b)
    assert found[2] == want[2] == 2
    np.testing.assert_allclose(found[0], want[0])
    np.testing.assert_allclose(gj.jacrev(lambda b: np.linalg.lstsq(lacking, b)[0])(b), np.linalg.pinv(lacking))


# ---------------------------------------------------------------- every library, every width

ON_ALL = {
    "det": lambda xp, a: xp.linalg.det(a), "slogdet": lambda xp, a: xp.linalg.slogdet(a)[1],
    "cholesky": lambda xp, a: xp.linalg.cholesky(a @ xp.matrix_transpose(a)),
    "eigvalsh": lambda xp, a: xp.linalg.eigvalsh(a + xp.matrix_transpose(a)),
    "eigh": lambda xp, a: xp.linalg.eigh(a + xp.matrix_transpose(a))[1] ** 2,
    "svd": lambda xp, a: xp.linalg.svd(a[:, :2], full_matrices=False)[2] ** 2,
    "svdvals": lambda xp, a: xp.linalg.svdvals(a), "qr": lambda xp, a: xp.linalg.qr(a)[1],
    "pinv": lambda xp, a: xp.linalg.pinv(a[:2]), "norm": lambda xp, a: xp.linalg.matrix_norm(a, ord=2),
}  # fmt: skip


@pytest.mark.parametrize("library", ["strict", "cupy"])
@pytest.mark.parametrize("name", ON_ALL)
def test_each_library_has_numpys_gradient_in_both_widths(name, library):
    if library == "cupy" and device.MISSING:
        pytest.skip(reason=device.MISSING)
    for dtype, tolerance in ((np.float64, 1e-11), (np.float32, 2e-4)):
        a = A.astype(dtype)
        wanted, plain = gj.vjp(lambda x: ON_ALL[name](x.__array_namespace__(), x), a)
        found, pullback = gj.vjp(lambda x: ON_ALL[name](x.__array_namespace__(), x), LIBRARIES[library].array(a))
        np.testing.assert_allclose(device.host(found), wanted, rtol=tolerance, atol=tolerance)
        (ct,) = pullback(found)
        assert isinstance(ct, LIBRARIES[library].type)
        assert device.host(ct).dtype == dtype
        np.testing.assert_allclose(device.host(ct), plain(wanted)[0], rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
def test_the_cofactors_of_a_singular_matrix_are_found_on_a_device_too():
    a = A[:, :2] @ A[:2]
    np.testing.assert_allclose(device.host(gj.grad(device.XP.linalg.det)(device.array(a))),
                               gj.grad(np.linalg.det)(a), atol=1e-12)  # fmt: skip
    np.testing.assert_allclose(device.host(dt.ADJUGATE(device.array(A))), dt.ADJUGATE(A))


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 1, 1)])
def test_no_matrices_and_matrices_of_one_entry_are_served(shape):
    x = np.full(shape, 2.0)
    for f in (np.linalg.det, np.linalg.cholesky, lambda a: np.linalg.eigh(a)[1], np.linalg.svdvals, np.linalg.pinv):
        y, pullback = gj.vjp(f, x)
        np.testing.assert_allclose(y, f(x))
        assert pullback(y)[0].shape == shape


# ---------------------------------------------------------------- beyond the first derivative


@pytest.mark.parametrize("values", [[1.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0] * 3, [1.0] * 3, [2.0], [1.0, 0.0]])
@pytest.mark.parametrize("kind", [float, complex])
def test_the_hessian_of_a_determinant_is_a_polynomial_also_at_singular_matrices(values, kind):
    n = len(values)
    a = np.diag(values).astype(kind)
    if n == 3:
        a = (A + (1j * T if kind is complex else 0)) @ a @ T

    def adjugate(a):
        minors = [[np.linalg.det(np.delete(np.delete(a, i, 0), j, 1)) * (-1) ** (i + j) for j in range(n)]
                  for i in range(n)]  # fmt: skip
        return np.array(minors).reshape(n, n)

    t, r = T[:n, :n].astype(kind), np.roll(T, 1)[:n, :n].astype(kind)
    want = np.sum(t * (adjugate(a + r) - adjugate(a - r)) / 2)  # exact: the cofactors are quadratic at most

    def inner(a):
        return gj.jvp(np.linalg.det, (a,), (t,))[1]

    np.testing.assert_allclose(gj.jvp(inner, (a,), (r,))[1], want, atol=1e-10)
    np.testing.assert_allclose(gj.vmap(lambda r: gj.jvp(inner, (a,), (r,))[1])(np.stack([r, 2 * r])),
                               [want, 2 * want], atol=1e-10)  # fmt: skip
    if kind is float:
        np.testing.assert_allclose(np.einsum("ijkl,ij,kl", gj.hessian(np.linalg.det)(a), t, r), want, atol=1e-10)
        both = gj.vmap(gj.hessian(np.linalg.det))(np.stack([a, a]))[1]
        np.testing.assert_allclose(np.einsum("ijkl,ij,kl", both, t, r), want, atol=1e-10)


def test_the_third_derivative_of_a_determinant_at_repeated_values():
    found = gj.jacfwd(gj.hessian(np.linalg.det))(np.eye(3))
    want = np.array([[[np.linalg.det(np.eye(3)[[i, j, k]]) for k in range(3)] for j in range(3)] for i in range(3)])
    np.testing.assert_allclose(found, np.einsum("ikm,jln->ijklmn", want, want), atol=1e-12)


# ---------------------------------------------------------------- singular matrices, alone and among others


@pytest.mark.parametrize("p", [1, -1, np.inf, -np.inf, "fro", 2])
def test_the_condition_of_a_singular_matrix_is_infinite_and_spoils_no_other(p):
    for singular in (np.diag([1.0, 0.0, 0.0]), np.zeros((3, 3))):
        both = np.stack([singular, A])
        with np.errstate(divide="ignore"):
            for run in (lambda f, a: gj.vjp(f, a)[0], lambda f, a: gj.vmap(f)(a)):
                np.testing.assert_allclose(run(lambda a: np.linalg.cond(a, p), both), np.linalg.cond(both, p))
    found = gj.vmap(gj.grad(lambda a: np.linalg.cond(a, p)))(np.stack([np.diag([2.0, 1.0, 3.0]), A]))[1]
    np.testing.assert_allclose(np.sum(found * T), orc.central_difference(lambda a: np.linalg.cond(a, p), (A,), (T,)),
                               rtol=1e-6)  # fmt: skip


def test_the_condition_of_no_entries_is_refused():
    for p in (None, 1):
        with pytest.raises(gj.ShapeError, match=r"cond: the matrices of shape \(0, 0\) have no entries"):
            gj.vjp(lambda a, p=p: np.linalg.cond(a, p), np.zeros((0, 0)))


def test_a_singular_matrix_has_no_third_derivative_of_det_and_leaves_the_others_theirs():
    third = gj.grad(lambda a: gj.grad(lambda a: gj.grad(np.linalg.det)(a)[0, 0])(a)[1, 1])
    found = gj.vmap(third)(np.stack([A, np.diag([1.0, 0.0, 0.0])]))
    np.testing.assert_allclose(found[0], third(A), atol=1e-12)
    np.testing.assert_allclose(found[0], np.diag([0.0, 0.0, 1.0]), atol=1e-12)
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("f", [
    lambda a, **k: np.linalg.pinv(a, **k), lambda a, **k: np.linalg.svd(a, compute_uv=False, **k),
    lambda a, **k: (lambda u, s, v: (u * s**2) @ v)(*np.linalg.svd(a, **k)),
])  # fmt: skip
@pytest.mark.parametrize("a", [hermitian(A), hermitian(Z)])
def test_hermitian_matrices_may_be_named_so(f, a):
    y, dy = gj.jvp(lambda a: f(a, hermitian=True), (a,), (T,))
    np.testing.assert_allclose(y, f(a, hermitian=True), atol=1e-12)
    np.testing.assert_allclose(dy, orc.central_difference(f, (a,), (hermitian(T),)), atol=1e-7)
    with pytest.raises(gj.ShapeError, match="not square"):
        gj.jvp(lambda a: f(a, hermitian=True), (A[:2],), (A[:2],))


@pytest.mark.parametrize("rcond", [None, -1, 0.3, 1e-17])
def test_the_cut_off_of_least_squares_is_numpys(rcond):
    a = np.diag([1.0, 0.2, 4e-16])  # the last between the machine's precision and three times that
    found, _, rank = gj.vjp(lambda a: np.linalg.lstsq(a, A[0], rcond=rcond)[::2], a, has_aux=True)
    want, _, expected, _ = np.linalg.lstsq(a, A[0], rcond=rcond)
    assert rank == expected
    np.testing.assert_allclose(found, want, rtol=1e-9)


STRICT = """
import array_api_strict, gpujac as gj, gpujac.numpy as gnp, numpy as np
la = gnp.linalg
functions = {
    "det": la.det,
    "slogdet": lambda a: la.slogdet(a)[1],
    "cholesky": lambda a: la.cholesky(a)[1, 0],
    "svdvals": lambda a: la.svdvals(a)[0],
    "svd": lambda a: la.svd(a)[0][0, 0],
    "qr": lambda a: la.qr(a)[0][0, 0],
    "cond": la.cond,
    "norm": lambda a: la.norm(a, 2),
    "lstsq": lambda a: la.lstsq(a, a[:, 0] * a[:, 0])[0].sum(),
    "nanvar": gnp.nanvar,
}
a = np.array([[2.0, 1.0], [0.5, 3.0]])
for name, f in functions.items():
    for transform in (gj.jacrev, gj.jacfwd, gj.hessian):
        try:
            found = np.asarray(transform(f)(array_api_strict.asarray(a)))
        except TypeError as error:
            print(name, transform.__name__, error)
        else:
            np.testing.assert_allclose(found, transform(f)(a), atol=1e-10, err_msg=name)
"""


def test_derivatives_hold_for_plain_arrays_that_refuse_traced_ones_on_their_right():
    # in a process of its own: for the tests of ops array-api-strict is made to give way
    done = subprocess.run([sys.executable, "-W", "error", "-c", STRICT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
