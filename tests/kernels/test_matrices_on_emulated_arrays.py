"""Linear algebra behind the emulated backend: launches, bytes, factors found once, larger matrices by library."""

import numpy as np
import pytest

import gpujac as gj
from gpujac import settings
from gpujac.backends import cublas
from gpujac.backends import matrices as mt
from tests import device
from tests.kernels import matrices as cs
from tests.kernels.on_cpu import NO_COMPILER, WHY

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)
from gpujac.backends import emulated

pytestmark = pytest.mark.skipif(NO_COMPILER, reason=WHY)
BE, XP = emulated.BACKEND, device.XP


def on_device(*arrays):
    """Copies on the emulated device."""
    return [emulated.array(x) for x in arrays]


def test_a_batched_solve_is_two_launches_that_move_each_byte_once():
    a, b = on_device(cs.matrices("float64", (50,), 8), cs.numbers("float64", (50, 8)))
    with emulated.counting() as n:
        x = gj.vmap(XP.linalg.solve)(a, b)
    cs.agrees(a.get(), x.get(), b.get(), True)
    factors = 50 * 9 * 8 * 8
    assert n.by_name == {"lu_factor_float64": 1, "lu_solve_float64": 1}
    assert n.bytes == (a.nbytes + factors) + (factors + b.nbytes + x.nbytes)
    assert n.syncs == 0


@pytest.mark.parametrize("chunk_size", [1, 3, None])
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
def test_all_chunks_of_a_jacobian_of_solve_use_the_factors_of_the_first_visit(transform, chunk_size):
    a, b = cs.matrices("float64", (), 5), cs.numbers("float64", (5,))
    jacobian = transform(lambda a, b: XP.linalg.solve(a, b), (0, 1), chunk_size=chunk_size)
    with emulated.counting() as n:
        of_a, of_b = jacobian(*on_device(a, b))
    inverse = np.linalg.inv(a)
    np.testing.assert_allclose(of_b.get(), inverse, atol=1e-12)
    np.testing.assert_allclose(of_a.get(), -np.einsum("ij,k->ijk", inverse, inverse @ b), atol=1e-12)
    assert n.by_name["lu_factor_float64"] == 1
    sweeps = {1: 5, 3: 2, None: 1}[chunk_size] if transform is gj.jacrev else None
    assert sweeps is None or n.by_name["lu_solve_float64"] == 1 + sweeps
    assert n.syncs == 0


@pytest.mark.parametrize("f", [
    lambda a: XP.linalg.det(a), lambda a: XP.linalg.slogdet(a)[1], lambda a: XP.linalg.inv(a).sum(),
    lambda a: XP.linalg.cholesky(a @ a.T).sum(), lambda a: XP.linalg.solve(a, a * a).sum(),
])  # fmt: skip
def test_second_derivatives_under_vmap_are_those_without_kernels(f):
    (a,) = on_device(cs.matrices("float64", (2,), 3))
    found = gj.vmap(gj.hessian(f))(a)
    with settings.override(kernels="off"):
        wanted = gj.vmap(gj.hessian(f))(a)
    np.testing.assert_allclose(found.get(), wanted.get(), rtol=1e-9, atol=1e-9)


def test_a_solve_that_was_begun_with_kernels_ends_without_them():
    a, b = on_device(cs.matrices("float64", (), 4), cs.numbers("float64", (4,)))
    _, pullback = gj.vjp(XP.linalg.solve, a, b)
    with settings.override(kernels="off"):
        _, found = pullback(b)
    np.testing.assert_allclose(found.get(), np.linalg.solve(a.get().T, b.get()), rtol=1e-10)


def test_a_singular_lane_spoils_no_other_and_nothing_waits():
    a = cs.matrices("float64", (3,), 4)
    a[1] = 1.0
    b = cs.numbers("float64", (3, 4))
    with emulated.counting() as n:
        x = gj.vmap(XP.linalg.solve)(*on_device(a, b))
    assert n.syncs == 0
    assert not np.isfinite(x.get()[1]).all()
    cs.agrees(a[[0, 2]], x.get()[[0, 2]], b[[0, 2]], True)


# ---------------------------------------------------------------- more rows than a kernel takes


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("dtype", mt.DTYPES)
def test_larger_matrices_are_solved_by_library_in_either_way(monkeypatch, dtype, batched):
    monkeypatch.setattr(cublas, "_is_batched", lambda count, n: batched)
    for lead, own in (((), (3,)), ((2, 1), (2, 3)), ((2,), (3, 2)), ((1, 1), (2, 1, 1))):
        a = cs.matrices(dtype, lead, 33)
        factors = mt.lu_factor(BE, *on_device(a))
        cs.check_factors(a, factors.get())
        for shape, vector in (((*own, 33), True), ((*own, 33, 2), False)):
            b = cs.numbers(dtype, shape)
            for turned in (False, True):
                x = mt.lu_solve(BE, factors, *on_device(b), vector, turned)
                cs.agrees(cs.adjoint(cs.wide(a)) if turned else cs.wide(a), x.get(), b, vector)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_larger_triangles_are_solved_by_library(dtype):
    a = (cs.numbers(dtype, (2, 33, 33)) / 20 + np.eye(33)).astype(dtype)
    b = cs.numbers(dtype, (3, 2, 33, 2))
    for case in range(8):
        lower, turned, unit = case % 2 == 0, case // 2 % 2 == 0, case // 4 == 0
        t = np.tril(cs.wide(a), -unit) if lower else np.triu(cs.wide(a), unit)
        t = t + unit * np.eye(33)
        x = mt.triangular_solve(BE, *on_device(a, b), lower, turned, unit)
        cs.agrees(cs.adjoint(t) if turned else t, x.get(), b, False)


@pytest.mark.parametrize("n", [40, 300])
def test_a_larger_matrix_is_factored_once_for_value_and_derivatives(n):
    a, b = cs.matrices("float64", (), n), cs.numbers("float64", (n,))
    with emulated.counting() as counts:
        _, pullback = gj.vjp(XP.linalg.solve, *on_device(a, b))
        _, first = pullback(*on_device(b))
        pullback(*on_device(b))
    np.testing.assert_allclose(first.get(), np.linalg.solve(a.T, b), rtol=1e-8, atol=1e-10)
    name = "dgetrfBatched" if n <= 256 else "dgetrf"
    assert counts.by_name[name] == 1
    assert counts.by_name[name.replace("rf", "rs")] == 3
    assert counts.syncs == 0


def test_the_emulated_library_has_no_routine_that_nobody_calls():
    library, _ = BE.cublas()
    with pytest.raises(AttributeError, match="dgemm"):
        _ = library.dgemm
