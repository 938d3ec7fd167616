"""grad, grad_and_value, value_and_grad: the gradient of a scalar function."""

import math
from functools import partial

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_gradient_is_the_difference_row(name, f, args):
    loss = h.scalar_of(f)
    found = gj.grad(loss, argnums=tuple(range(len(args))))(*args)
    expected = h.difference_matrix(loss, *args)[0]
    np.testing.assert_allclose(h.vector(found), expected, atol=h.DIFFERENCE * 50)


def test_argnums_select_and_order():
    def f(x, y, z):
        return (x * y * z).sum()

    args = X, X + 1, X + 2
    a, b, c = gj.grad(f, (0, 1, 2))(*args)
    h.assert_close(gj.grad(f, (2, 0))(*args), (c, a))
    h.assert_close(gj.grad(f, -1)(*args), c)
    h.assert_close(gj.grad(f, (1,))(*args), (b,))
    h.assert_close(gj.grad(f, np.int64(1))(*args), b)


def test_trees_none_leaves_and_keywords():
    def f(p, *, scale, label=None):
        return scale * (p["a"] ** 2).sum()

    found = gj.grad(f)({"a": X, "b": None}, scale=3.0, label="anything")
    h.assert_close(found, {"a": 6 * X, "b": None})


def test_values_with_and_without_aux():
    f = lambda x: ((x**2).sum(), {"n": 3, "x": x})
    g, aux = gj.grad(f, has_aux=True)(X)
    assert aux["n"] == 3
    assert type(aux["x"]) is np.ndarray
    g2, (y, aux2) = gj.grad_and_value(f, has_aux=True)(X)
    (y3, aux3), g3 = gj.value_and_grad(f, has_aux=True)(X)
    h.assert_close((g, g2), (g3, 2 * X))
    assert float(y) == float(y3) == 14.0
    assert aux2["n"] == aux3["n"] == 3
    g4, y4 = gj.grad_and_value(lambda x: (x**2).sum())(X)
    y5, g5 = gj.value_and_grad(lambda x: (x**2).sum())(X)
    h.assert_close((g4, y4), (g5, y5))


@pytest.mark.parametrize("x", [2.0, np.float32(2.0), np.float64(2.0), np.array(2.0)])
def test_scalars_keep_their_dtype(x):
    found = gj.grad(lambda x: x * x * x)(x)
    assert float(found) == 12.0
    assert np.asarray(found).dtype == np.asarray(x).dtype


def test_float32_stays_float32_with_float64_constants():
    found = gj.grad(lambda x: (x * np.arange(3.0)).sum())(X.astype("f4"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [0, 1, 2])


def test_a_constant_function_has_gradient_zero():
    np.testing.assert_array_equal(gj.grad(lambda x: 1.0)(X), np.zeros(3))
    np.testing.assert_array_equal(gj.grad(lambda x: np.float64(1.0))(X), np.zeros(3))


def test_the_identity_of_a_scalar():
    assert float(gj.grad(lambda x: x)(5.0)) == 1.0


@pytest.mark.parametrize("f", [lambda x: 1, lambda x: (x > 0).any(), lambda x: np.argmax(x)])
def test_integer_and_boolean_outputs_are_refused(f):
    with pytest.raises(gj.DTypeError, match="no derivative"):
        gj.grad(f)(X)


def test_gradient_of_abs_squared_is_two_z():
    z = X + 1j * X[::-1]
    np.testing.assert_allclose(gj.grad(lambda z: (np.abs(z) ** 2).sum())(z), 2 * z)
    np.testing.assert_allclose(gj.grad(lambda z: (z * np.conj(z)).real.sum())(z), 2 * z)


def test_holomorphic_gradient_is_the_complex_derivative():
    z = X + 1j
    found = gj.grad(lambda z: (z**3 * 1j).sum(), holomorphic=True)(z)
    np.testing.assert_allclose(found, 3j * z**2)


@pytest.mark.parametrize(
    ("f", "args", "argnums", "leaf"),
    [
        (lambda x: x * 1j, (1.0,), 0, r"args\[0\] is float64"),
        (lambda x: (x * 1j).sum(), (X,), 0, r"args\[0\] is float64"),
        (lambda x: (x["a"] * x["b"]).sum(), ({"a": X + 1j, "b": X},), 0, r"args\[0\]\['b'\] is float64"),
        (lambda z, x: (z * x).sum(), (X + 1j, X), (0, 1), r"args\[1\] is float64"),
        (lambda z: abs(z) ** 2, (1 + 2j,), 0, "output is float64"),
        (lambda x: x.sum(), (X,), 0, r"args\[0\] is float64"),
    ],
)
def test_holomorphic_refuses_real_inputs_and_outputs(f, args, argnums, leaf):
    with pytest.raises(gj.DTypeError, match=f"grad: {leaf}, but holomorphic=True needs complex inputs"):
        gj.grad(f, argnums, holomorphic=True)(*args)
    assert np.iscomplexobj(gj.grad(lambda z, x: (z * x).sum(), holomorphic=True)(X + 1j, X))  # x is not selected


# ---------------------------------------------------------------- arguments that are not differentiated

LAYOUTS = [lambda n: np.zeros(n), lambda n: np.zeros((n, 2))[:, 1], lambda n: np.zeros(n)[::-1]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [3, 9000])
def test_an_unselected_argument_is_read_as_it_was_at_the_call(layout, size):
    """Written into behind its name by `f`: right for the value that is returned beside it, or an error."""
    buffer = layout(size)
    buffer[...] = 2.0

    def f(x, p):
        y = x * p
        buffer[...] = 5.0
        return (y * p).sum()

    if size == 9000:  # too large for a copy
        with pytest.raises(ValueError, match="read-only"):
            gj.value_and_grad(f)(np.ones(size), buffer)
        return
    y, g = gj.value_and_grad(f)(np.ones(size), buffer)
    np.testing.assert_array_equal(g, np.full(size, 4.0))
    assert y == 4.0 * size


@pytest.mark.parametrize("size", [3, 9000])
def test_an_unselected_argument_that_f_returns_is_a_copy(size):
    x, p = np.ones(size), np.arange(float(size))
    f = lambda x, p: (x * 1.0, p)
    found = [gj.grad(lambda x, p: (x.sum(), p), has_aux=True)(x, p)[1],
             *[t(f, with_value=True)(x[:2], p)[1][1] for t in (gj.jacrev, gj.jacfwd, gj.hessian)],
             gj.hessian_diagonal(f, with_value=True, chunk_size=1)(x[:2], p)[1][1],
             gj.jacfwd(lambda x, p: (x * 1.0, [p]), has_aux=True)(x[:2], p)[1][0]]  # fmt: skip
    for y in found:
        np.testing.assert_array_equal(y, p)
        h.assert_owned(y, p)
    p[:] = 1.0  # nothing is held


def test_methods_partials_and_callable_objects():
    class Model:
        scale = 2.0

        def loss(self, x):
            return self.scale * (x * x).sum()

        def __call__(self, x):
            return self.loss(x)

    model = Model()
    for f in (model.loss, model, partial(lambda s, x: s * (x * x).sum(), 2.0)):
        np.testing.assert_array_equal(gj.grad(f)(X), 4 * X)


def test_the_name_and_docstring_of_f_are_kept():
    def energy(x):
        """Joule."""
        return x.sum()

    for transform in (gj.grad, gj.jacrev, gj.vmap, gj.hessian, gj.value_and_grad):
        assert transform(energy).__name__ == "energy"
        assert transform(energy).__doc__ == "Joule."


def test_results_own_their_memory():
    constant = np.ones(3)
    found = gj.grad(lambda x: (x * constant).sum())(X)
    h.assert_owned(found, X, constant)
    a, b = gj.grad(lambda x, y: (x * constant + y * constant).sum(), (0, 1))(X, X.copy())
    h.assert_owned((a, b), X, constant)
    assert not np.may_share_memory(a, b)


def test_fourth_derivative_of_a_scalar():
    f = np.sin
    for _ in range(4):
        f = gj.grad(f)
    assert float(f(0.3)) == pytest.approx(math.sin(0.3), rel=1e-13)


@pytest.mark.parametrize("order", ["in order", "backwards", "some twice", "some never"])
def test_many_reads_of_single_entries(order):
    n = 40
    places = {
        "in order": range(n), "backwards": range(n - 1, -n - 1, -1), "some twice": [*range(n), 3, 3, -1],
        "some never": range(0, n, 2),
    }[order]  # fmt: skip
    x = np.linspace(0.1, 2.0, n)
    f = lambda x: sum(np.sin(x[i]) * (k + 1.0) for k, i in enumerate(places))
    expected = np.zeros(n)
    for k, i in enumerate(places):
        expected[i] += np.cos(x[i]) * (k + 1.0)
    np.testing.assert_allclose(gj.grad(f)(x), expected, rtol=1e-13)
    rows = gj.jacrev(lambda x: np.stack([f(x), f(x * 2)]))(x)
    np.testing.assert_allclose(rows[0], expected, rtol=1e-13)
    assert gj.grad(f)(x.astype("f")).dtype == np.float32
    np.testing.assert_allclose(np.diag(gj.hessian(f)(x)), gj.grad(lambda x: gj.grad(f)(x).sum())(x), rtol=1e-12)
