"""grad and vjp (G1 to G38)."""

import math
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity

X, Y = np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.5, -0.7])
Point = namedtuple("Point", "x y")


@parity("G1", "G11")
def test_derivatives_of_a_scalar_primitive():
    assert float(gj.grad(np.sin)(0.7)) == pytest.approx(math.cos(0.7), rel=1e-15)
    assert float(gj.grad(gj.grad(np.sin))(0.7)) == pytest.approx(-math.sin(0.7), rel=1e-15)
    assert gj.grad(np.sin)(np.array(0.7)).shape == ()


@parity("G2")
def test_a_reshape_and_a_sum_give_ones():
    x = np.ones((3, 4))
    np.testing.assert_array_equal(gj.grad(lambda x: x.reshape(2, 6).sum())(x), np.ones((3, 4)))


@parity("G3")
def test_a_layer_and_an_activation_in_place():
    x, W = np.linspace(-1, 1, 24).reshape(2, 3, 4), np.linspace(-1, 1, 8).reshape(4, 2)

    def in_place(x):
        y = x @ W
        y *= y > 0
        np.tanh(y, out=y)
        return (y * y).sum()

    plain = lambda x: (np.tanh(np.maximum(x @ W, 0.0)) ** 2).sum()
    np.testing.assert_allclose(gj.grad(in_place)(x), gj.grad(plain)(x), atol=1e-15)


@parity("G4")
def test_keyword_arguments_equal_positional_ones():
    f = lambda x, w, power=1: ((x * w) ** power).sum()
    found = gj.grad(f)(X, w=Y, power=2)
    np.testing.assert_array_equal(found, gj.grad(f)(X, Y, 2))
    np.testing.assert_allclose(found, 2 * X * Y**2)


@parity("G5")
def test_a_matrix_product_and_a_sum():
    A, B = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    dA, dB = gj.grad(lambda a, b: (a @ b).sum(), (0, 1))(A, B)
    np.testing.assert_array_equal(dA, np.ones((2, 4)) @ B.T)
    np.testing.assert_array_equal(dB, A.T @ np.ones((2, 4)))


@parity("G6")
def test_cross_entropy_with_integer_targets():
    logits, targets = np.linspace(-1, 2, 12).reshape(4, 3), np.array([0, 2, 1, 2])

    def loss(z, t):
        log_p = z - np.log(np.sum(np.exp(z), axis=1, keepdims=True))
        return -log_p[np.arange(4), t].mean()

    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(gj.grad(loss)(logits, targets), (p - np.eye(3)[targets]) / 4, atol=1e-16)


@parity("G7")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_value_tells_what_it_is(dtype):
    seen = []

    def f(x):
        seen.append((x.shape, x.dtype, x.ndim, x.size, len(x), x.nbytes))
        return x.sum()

    x = np.ones((2, 3), dtype)
    gj.grad(f)(x)
    gj.grad(lambda x: gj.grad(f)(x).sum())(x)
    gj.vmap(gj.grad(f))(np.ones((4, 2, 3), dtype))
    assert seen == [((2, 3), dtype, 2, 6, 2, x.nbytes)] * 3


@parity("G9", "G19")
def test_writes_into_copies_views_and_bases():
    def through_a_copy(x):
        y = x.copy()
        y += 2 * x
        return (y**2).sum()

    def through_a_view(x):
        y = x * 1.0
        row = y[1:]
        row *= 3.0
        return (y**2).sum()

    def base_seen_by_a_view(x):
        y = x * 1.0
        row = y[:2]
        y[0] = x[1] * x[2]
        return (row**2).sum()

    np.testing.assert_allclose(gj.grad(through_a_copy)(X), 18 * X)
    np.testing.assert_allclose(gj.grad(through_a_view)(X), 2 * X * np.array([1, 9, 9]))
    _a, b, c = X
    np.testing.assert_allclose(gj.grad(base_seen_by_a_view)(X), [0, 2 * b * c * c + 2 * b, 2 * b * b * c])
    np.testing.assert_allclose(gj.grad(lambda x: x.reshape(3, 1).T[0, 1:].sum())(X), [0, 1, 1])


@parity("G10")
def test_writing_into_a_captured_array_is_refused():
    captured = np.zeros(3)

    def f(x):
        captured[0] = x[0]
        return x.sum()

    def g(x):
        np.add(captured, x, out=captured)
        return x.sum()

    with pytest.raises(gj.MutationError, match=r"in-place write of a traced value into a plain (NumPy|CuPy) array"):
        gj.grad(f)(X)
    with pytest.raises(gj.MutationError, match="traced value into a plain array"):
        gj.grad(g)(X)
    np.testing.assert_array_equal(captured, 0)


@parity("G13")
def test_a_generator_made_inside_reproduces():
    f = lambda x: (x * np.random.default_rng(3).standard_normal(3)).sum()
    np.testing.assert_array_equal(gj.grad(f)(X), gj.grad(f)(X))
    np.testing.assert_array_equal(gj.grad(f)(X), np.random.default_rng(3).standard_normal(3))


@parity("G14", "G15")
def test_vjp_returns_the_value_and_a_closure():
    y, pullback = gj.vjp(np.sin, X)
    np.testing.assert_array_equal(y, np.sin(X))
    for ct in (Y, 2 * Y):  # as often as one likes
        (found,) = pullback(ct)
        np.testing.assert_allclose(found, ct * np.cos(X))
    y, pullback = gj.vjp(lambda x: (x, x), X)
    np.testing.assert_array_equal(pullback((Y, 3 * Y))[0], 4 * Y)


@parity("G16")
def test_a_conjugate_under_grad():
    z = np.array([1 + 2j, -0.5 + 1j])
    for f in (lambda z: (np.conj(z) * z).real.sum(), lambda z: (z.conj() * z).real.sum()):
        np.testing.assert_allclose(gj.grad(f)(z), 2 * z)
    np.testing.assert_allclose(gj.grad(lambda z: (np.conj(z) * (1 + 1j)).real.sum())(z), 1 + 1j)


@parity("G18")
def test_grad_and_vjp_in_each_other():
    one = lambda f: lambda x: gj.vjp(f, x)[1](np.ones_like(x))[0]
    total = lambda g: lambda x: g(x).sum()
    np.testing.assert_allclose(gj.grad(total(one(np.sin)))(X), -np.sin(X))
    np.testing.assert_allclose(one(gj.grad(lambda x: np.sin(x).sum()))(X), -np.sin(X))
    np.testing.assert_allclose(gj.grad(total(one(gj.grad(lambda x: np.sin(x).sum()))))(X), -np.cos(X))


@parity("G20")
def test_argnums_int_tuple_order_and_sign():
    f = lambda x, y: (x * x * y).sum()
    dx, dy = 2 * X * Y, X**2
    np.testing.assert_allclose(gj.grad(f, 1)(X, Y), dy)
    np.testing.assert_allclose(gj.grad(f, -2)(X, Y), dx)
    (only,) = gj.grad(f, (1,))(X, Y)
    np.testing.assert_allclose(only, dy)
    second, first = gj.grad(f, (1, 0))(X, Y)
    np.testing.assert_allclose(second, dy)
    np.testing.assert_allclose(first, dx)
    with pytest.raises(gj.ArgnumsRangeError, match="argnums=2"):
        gj.grad(f, 2)(X, Y)
    with pytest.raises(gj.ArgumentError, match="empty"):
        gj.grad(f, ())(X, Y)


@parity("G21", "G23")
def test_trees_of_arguments():
    p, q = {"a": X, "unused": Y}, (Y, [X])
    f = lambda p, q: (p["a"] * q[0] * q[1][0]).sum()
    for argnums, pick in ((0, lambda g: g), ((0,), lambda g: g[0])):
        g = pick(gj.grad(f, argnums)(p, q))
        assert list(g) == ["a", "unused"]
        np.testing.assert_allclose(g["a"], Y * X)
        np.testing.assert_array_equal(g["unused"], np.zeros(3))
    gp, gq = gj.grad(f, (0, 1))(p, q)
    assert (type(gp), type(gq), type(gq[1])) == (dict, tuple, list)
    np.testing.assert_allclose(gq[1][0], X * Y)


@parity("G22")
def test_aux_of_grad():
    f = lambda x: ((x * x).sum(), {"twice": 2 * x, "label": "text", "n": 3})
    g, aux = gj.grad(f, has_aux=True)(X)
    np.testing.assert_allclose(g, 2 * X)
    np.testing.assert_array_equal(aux["twice"], 2 * X)
    assert (aux["label"], aux["n"]) == ("text", 3)
    g, (y, aux) = gj.grad_and_value(f, has_aux=True)(X)
    assert float(y) == pytest.approx(float((X * X).sum()))
    for wrong in (lambda x: [x.sum(), x], lambda x: (x.sum(), x, x), lambda x: x.sum()):
        with pytest.raises(gj.StructureError, match=r"\(output, aux\)"):
            gj.grad(wrong, has_aux=True)(X)


@parity("G24", "G26")
def test_unrelated_outputs_and_inputs_give_zeros():
    np.testing.assert_array_equal(gj.grad(lambda x: np.array(2.0))(X), np.zeros(3))
    _y, pullback = gj.vjp(lambda x, p: (np.ones(2), x * p["a"]), X, {"a": Y, "b": np.ones((2, 2))})
    dx, dp = pullback((np.ones(2), np.ones(3)))
    np.testing.assert_allclose(dx, Y)
    np.testing.assert_allclose(dp["a"], X)
    np.testing.assert_array_equal(dp["b"], np.zeros((2, 2)))
    _, pullback = gj.vjp(lambda x, y: np.ones(4), X, Y)
    for d, like in zip(pullback(np.ones(4)), (X, Y), strict=True):
        np.testing.assert_array_equal(d, np.zeros_like(like))


@parity("G25")
def test_the_hessian_of_a_linear_map_is_zero():
    A = np.arange(12.0).reshape(4, 3)
    H = gj.jacrev(gj.jacrev(lambda x: A @ x))(X)
    np.testing.assert_array_equal(H, np.zeros((4, 3, 3)))


@parity("G27", "G28")
def test_trees_of_outputs_of_vjp():
    outputs = [
        lambda x: [x, 2 * x],
        lambda x: {"a": x, "b": 2 * x},
        lambda x: OrderedDict(b=x, a=2 * x),
        lambda x: Point(x, 2 * x),
        lambda x: (x, {"k": [2 * x]}),
    ]
    for f in outputs:
        y, pullback = gj.vjp(f, X)
        assert type(y) is type(f(X))
        np.testing.assert_allclose(pullback(gj.trees.map(np.ones_like, y))[0], [3, 3, 3])
    for nothing in (None, (), {}, [None]):
        with pytest.raises(gj.StructureError, match="no array"):
            gj.vjp(lambda x, nothing=nothing: nothing, X)
    with pytest.raises(gj.ArgumentTypeError, match="output is a str"):
        gj.vjp(lambda x: "text", X)


@parity("G29")
def test_a_cotangent_of_another_structure():
    _, pullback = gj.vjp(lambda x: (x, {"k": x}), X)
    for wrong in (X, (X,), (X, X), [X, {"k": X}], (X, {"other": X}), (X, {"k": X}, X)):
        with pytest.raises(gj.StructureError, match=r"cotangent.*Expected structure"):
            pullback(wrong)


@parity("G30")
def test_aux_of_vjp():
    _y, pullback, aux = gj.vjp(lambda x: (x * x, (x.sum(), ["text"])), X, has_aux=True)
    np.testing.assert_allclose(pullback(np.ones(3))[0], 2 * X)
    assert float(aux[0]) == pytest.approx(float(X.sum()))
    assert aux[1] == ["text"]
    assert not gj.is_traced(aux[0])


@parity("G32")
def test_assignment_through_a_mask():
    def f(x):
        y = x * x
        y[x < 0] = 3.0 * x[x < 0]
        return y.sum()

    np.testing.assert_allclose(gj.grad(f)(X), np.where(X < 0, 3.0, 2 * X))


@parity("G33")
def test_an_array_made_inside():
    np.testing.assert_allclose(gj.grad(lambda x: (x * np.arange(3.0)).sum())(X), np.arange(3.0))


@parity("G36")
def test_a_part_without_derivative():
    stop = gj.stop_gradient
    g = gj.grad
    assert float(g(lambda x: stop(x * x) * x)(3.0)) == 9.0  # mixed
    assert float(g(lambda x: stop(x * x) + 0 * x)(3.0)) == 0.0  # inside
    assert float(stop(g(lambda x: x * x)(3.0))) == 6.0  # outside
    assert float(g(lambda x: stop(g(lambda y: y**3)(x)) * x)(3.0)) == 27.0  # around an inner transform
    assert float(g(lambda x: g(lambda y: stop(y) * y * x)(x))(3.0)) == 3.0  # y stopped in both levels
    value, slope = gj.value_and_grad(lambda x: stop(x) ** 2 * x)(3.0)
    assert (float(value), float(slope)) == (27.0, 9.0)

    def outer(x):
        y, pullback = gj.vjp(lambda z: z * z, x)
        return stop(pullback(np.ones_like(y))[0]) * y

    assert float(g(outer)(3.0)) == 36.0  # 2 x kept fixed, times 2 x

    def inside(x):
        y, pullback = gj.vjp(lambda z: z * z, stop(x))
        return pullback(np.ones_like(y))[0] * x

    assert float(g(inside)(3.0)) == 6.0
    lanes = gj.vmap(g(lambda x: (stop(x) * x).sum()))(np.ones((2, 3)))
    np.testing.assert_array_equal(lanes, np.ones((2, 3)))
    assert not np.any(gj.jacfwd(lambda x: stop(x) * 2)(X))


@parity("G37")
def test_settings_never_leak_out_of_f():
    before = gj.settings.memory

    def f(x):
        with gj.settings.override(memory="1MB"):
            if x.sum() > 0:
                raise ArithmeticError("on purpose")
            return gj.grad(lambda y: (y * y).sum())(x).sum()

    inside = [gj.grad(f), lambda x: gj.vjp(f, x), lambda x: gj.jvp(f, (x,), (x,)), gj.jacrev(f),
              gj.grad(lambda x: gj.grad(f)(x).sum())]  # fmt: skip
    for call in inside:
        call(-np.ones(2))
        with pytest.raises(ArithmeticError, match="on purpose"):
            call(np.ones(2))
        assert gj.settings.memory is before
    with gj.settings.override(memory="1MB"):
        np.testing.assert_array_equal(gj.vmap(gj.grad(lambda x: (x * x).sum()))(np.ones((2, 2))), 2)


@parity("G38")
def test_levels_are_closed_whatever_happens(open_levels):
    assert open_levels() == 0
    depths = []

    def f(x):
        depths.append(open_levels())
        return (x * x).sum()

    gj.grad(f)(X)
    gj.vmap(gj.grad(f))(np.ones((2, 3)))
    gj.grad(lambda x: gj.jvp(f, (x,), (x,))[1])(X)
    gj.vmap(gj.vmap(gj.jacfwd(gj.grad(f))))(np.ones((2, 2, 3)))
    assert depths == [1, 2, 2, 4]
    assert open_levels() == 0

    def broken(x):
        raise ArithmeticError("on purpose")

    nested = gj.vmap(gj.grad(lambda x: gj.jvp(broken, (x,), (x,))[1]))
    with pytest.raises(ArithmeticError, match="on purpose"):
        nested(np.ones((2, 3)))
    assert open_levels() == 0
