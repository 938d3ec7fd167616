"""Any array-API namespace: each transform on array-api-strict, against the same code on NumPy."""

import array_api_strict as xps
import numpy as np
import pytest

import gpujac as gj

X = np.linspace(0.2, 1.4, 4)
W = np.linspace(-1.0, 1.0, 12).reshape(3, 4)


def strict(x):
    return xps.asarray(np.asarray(x))


def to_numpy(x):
    assert type(x) is type(xps.asarray(1.0)), f"expected an array of the inputs' library, got {type(x)}"
    return np.asarray(x.tolist() if hasattr(x, "tolist") else x._array)


def smooth(x):
    xp = x.__array_namespace__()
    return xp.sin(x) * xp.exp(-x) + x**2 / (1.0 + x)


def structural(x):
    xp = x.__array_namespace__()
    y = xp.reshape(x, (2, 2))
    z = xp.concat([xp.flip(x), xp.reshape(xp.permute_dims(y, (1, 0)), (4,))])
    return xp.stack([z[1:], z[:-1]]) * 2.0 - z[0]


def reducing(x):
    xp = x.__array_namespace__()
    return xp.max(x) * xp.mean(x) + xp.sqrt(xp.sum(x * x)) + xp.where(x > 0.5, x, -x)


def operators(x):
    return (x[1:] - x[:-1]) * x[0] / (x[1:] + 2) - (-x[:-1]) ** 2 + abs(x[1:])


@gj.checkpoint
def done_again(x):
    xp = x.__array_namespace__()
    y = xp.sin(x) * xp.cumulative_sum(x)
    return xp.where(x > 0.5, y, y * xp.exp(x))


FUNCTIONS = [done_again, smooth, structural, reducing, operators]
every_function = pytest.mark.parametrize("f", FUNCTIONS)


@every_function
def test_vjp_and_jvp(f):
    y, pullback = gj.vjp(f, strict(X))
    expected, plain = gj.vjp(f, X)
    ct = np.cos(np.arange(expected.size)).reshape(expected.shape)
    np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-14)
    np.testing.assert_allclose(to_numpy(pullback(strict(ct))[0]), plain(ct)[0], rtol=1e-13, atol=1e-14)
    y, dy = gj.jvp(f, (strict(X),), (strict(X[::-1].copy()),))
    np.testing.assert_allclose(to_numpy(dy), gj.jvp(f, (X,), (X[::-1].copy(),))[1], rtol=1e-13, atol=1e-14)
    y, lin = gj.linearize(f, strict(X))
    np.testing.assert_allclose(to_numpy(lin(strict(X[::-1].copy()))), to_numpy(dy), rtol=1e-13, atol=1e-14)


@every_function
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])
@pytest.mark.parametrize(("chunk_size", "assembly"), [(None, "auto"), (1, "auto"), (3, "stack"), (3, "preallocate")])
def test_jacobians(f, transform, chunk_size, assembly):
    J = transform(f, chunk_size=chunk_size, assembly=assembly)(strict(X))
    np.testing.assert_allclose(to_numpy(J), transform(f)(X), rtol=1e-13, atol=1e-14)


@every_function
def test_grad_and_hessian(f):
    def loss(x):
        y = f(x)
        return x.__array_namespace__().sum(y * y)

    np.testing.assert_allclose(to_numpy(gj.grad(loss)(strict(X))), gj.grad(loss)(X), rtol=1e-13)
    np.testing.assert_allclose(to_numpy(gj.hessian(loss)(strict(X))), gj.hessian(loss)(X), rtol=1e-12, atol=1e-13)


@every_function
def test_vmap_and_its_compositions(f):
    batch = np.stack([X, X + 0.1, X[::-1]])
    for g in (f, gj.jacrev(f), gj.jacfwd(f, chunk_size=2)):
        np.testing.assert_allclose(to_numpy(gj.vmap(g)(strict(batch))), gj.vmap(g)(batch), rtol=1e-12, atol=1e-13)
    found = gj.vmap(f, chunk_size=2, out_dims=-1)(strict(batch))
    np.testing.assert_allclose(to_numpy(found), np.moveaxis(gj.vmap(f)(batch), 0, -1), rtol=1e-13)


def test_a_constant_of_the_same_library():
    w = strict(W)
    # the strict library's own `w @ x` refuses any foreign operand; the function does not
    f = lambda x: x.__array_namespace__().tanh(x.__array_namespace__().matmul(w, x))
    J = to_numpy(gj.jacrev(f)(strict(X)))
    np.testing.assert_allclose(J, (1 - np.tanh(W @ X) ** 2)[:, None] * W, rtol=1e-13)
    np.testing.assert_allclose(to_numpy(gj.jacfwd(f, chunk_size=2)(strict(X))), J, rtol=1e-13)


def test_linear_transpose():
    ft = gj.linear_transpose(lambda x: x[1:] - x[:-1], strict(X))
    np.testing.assert_allclose(to_numpy(ft(strict(np.arange(3.0)))[0]), [0, -1, -1, 2])


def test_writes():
    def f(x):
        y = x.__array_namespace__().zeros_like(x)
        y[1:-1] = x[2:] * x[:-2]
        y[0] = 2 * x[0]
        return y

    np.testing.assert_allclose(to_numpy(gj.jacrev(f)(strict(X))), gj.jacrev(f)(X))


def test_results_share_no_memory_with_the_inputs():
    x = strict(X)
    y, pullback = gj.vjp(lambda x: x, x)
    y[0] = 100.0
    ct = strict(X)
    (found,) = pullback(ct)
    found[0] = 100.0
    zero = strict(np.asarray(2.0))
    y0, _ = gj.vjp(lambda x: x, zero)
    y0[...] = 100.0
    assert float(x[0]) == float(ct[0]) == X[0]
    assert float(zero) == 2.0


def test_two_libraries_in_one_operation_are_an_error():
    with pytest.raises(gj.BackendError, match="two array libraries"):
        gj.grad(lambda x: (x * strict(X)).sum())(X)


@pytest.mark.parametrize("dtype", [xps.float32, xps.float64])
def test_dtypes(dtype):
    x = xps.astype(strict(X), dtype)
    assert gj.jacrev(smooth)(x).dtype == dtype
    assert gj.jacfwd(smooth)(x).dtype == dtype
    with pytest.raises(gj.DTypeError, match="carry no derivative"):
        gj.jacrev(smooth)(xps.asarray([1, 2]))


def test_numpys_questions_about_shape_and_dtype():
    seen = []

    def f(x):
        seen.append((np.shape(x), np.ndim(x), np.size(x), np.iscomplexobj(x), np.result_type(x)))
        return x[0]

    gj.grad(f)(strict(X))
    assert seen == [((4,), 1, 4, False, np.float64)]


def test_traced_arrays_and_programs_show_themselves_as_numpys_do():
    shown = {}
    for kind, make in (("strict", strict), ("numpy", np.asarray)):
        seen = []
        gj.vmap(gj.grad(lambda x, seen=seen: (seen.append(repr(x)), (x * x).sum())[1]))(make(W))
        program = str(gj.show(lambda x: x.__array_namespace__().sin(x) * 2.0)(make(X)))
        shown[kind] = (seen, program)
    assert shown["strict"] == shown["numpy"]


def test_the_first_nan_is_found():
    f = lambda x: x.__array_namespace__().sqrt(x)
    zero = strict(np.array([1.0, 0.0]))
    with gj.settings.override(debug_nans=True), np.errstate(all="ignore"):
        place = r"the cotangent of operand 0 of sqrt is not finite at index \[1, 1\]"
        with pytest.raises(gj.NonFiniteError, match=place):
            gj.jacrev(f)(zero)
        place = r"sqrt is not finite in lane 1, .*\n  operand 0: shape \(\), float64, 2 "
        with pytest.raises(gj.NonFiniteError, match=place):
            gj.vmap(f)(zero - 1.0 + zero)
