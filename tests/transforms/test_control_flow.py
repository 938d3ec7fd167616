"""Python control flow on traced values: allowed where there is one value, refused where there are many."""

import math

import numpy as np
import pytest
from numpy import array, asarray

import gpujac as gj

X = np.array([1.0, 2.0, 3.0])


def piecewise(x):
    if x[0] > 0 and not (x[1] < 0):
        return x**2
    return -x


def newton(x):
    y = x
    while (abs(y * y - x) > 1e-12).any():
        y = (y + x / y) / 2
    return y


def indexed(x):
    i = int(x[0])
    return x[i] * x[: int(x[1])] * sum(x[j] for j in range(int(x[2])))


def by_index(x):
    table = [lambda v: v, lambda v: v * v, lambda v: np.sin(v)]
    order = np.argsort(-gj.value(x))
    return table[np.argmax(x)](x)[order] * (3 if 2.0 in x else 1)


def sorted_by_value(x):
    return np.stack(sorted(x, key=gj.value, reverse=True))


def masks(x):
    return x[x > 1.5].sum() * x[np.flatnonzero(x > 2.5)]


def loops(x):
    total = 0.0
    for i, v in enumerate(x):
        total += v**i if v > 1.5 else v
    return total


FUNCTIONS = [piecewise, newton, indexed, by_index, sorted_by_value, masks, loops]


def reference(f, x, step=1e-6):
    ends = [np.asarray(f(x + step * e)) - np.asarray(f(x - step * e)) for e in np.eye(len(x))]
    return np.stack(ends, axis=-1) / (2 * step)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_values_decide_in_every_transform_but_vmap(f):
    x = X + 0.01
    J = reference(f, x)
    for transform in (gj.jacrev, gj.jacfwd, gj.jacobian):
        np.testing.assert_allclose(transform(f)(x), J, atol=1e-6)
    y, pullback = gj.vjp(f, x)
    np.testing.assert_array_equal(y, f(x))
    ct = np.cos(np.ones_like(y))
    np.testing.assert_allclose(pullback(ct)[0], np.tensordot(ct, J, np.ndim(y)), atol=1e-5)
    t = np.array([0.3, -0.2, 1.0])
    np.testing.assert_allclose(gj.jvp(f, (x,), (t,))[1], J @ t, atol=1e-5)
    np.testing.assert_allclose(gj.linearize(f, x)[1](t), J @ t, atol=1e-5)
    loss = lambda x: (f(x) ** 2).sum()
    H = gj.hessian(loss)(x)
    np.testing.assert_allclose(H, reference(gj.grad(loss), x), atol=1e-4)


@pytest.mark.parametrize("f", [piecewise, newton, masks])
def test_under_vmap_the_same_code_raises_and_names_the_line_and_the_cure(f):
    batch = np.stack([X, X + 1])
    with pytest.raises(gj.ConcretizationError, match="where"):
        gj.vmap(f)(batch)
    with pytest.raises(gj.ConcretizationError, match=f"vmap of {f.__name__}|where"):
        gj.vmap(f)(batch)


LOSING = {
    "float": float,
    "complex": complex,
    "math.sin": math.sin,
    "math.exp": math.exp,
    "math.floor": math.floor,
    "np.asarray": lambda x: asarray(x),
    "np.array of a list": lambda x: array([x, x]),
    "np.float64": np.float64,
    "statistics": lambda x: math.fsum([x, x]),
    "pickle": lambda x: __import__("pickle").dumps(x),
    "%-format": lambda x: "%f" % x,  # noqa: UP031 (what old code does)
}


@pytest.mark.parametrize("name", list(LOSING))
def test_what_would_lose_the_derivative_raises(name):
    ask = LOSING[name]
    if name == "np.array of a list":
        asked = lambda x: (ask(x), x)[1]
    else:
        asked = lambda x: (ask(x), x * 1.0)[1]
    with pytest.raises((gj.GpujacError, TypeError)):
        gj.grad(asked)(1.5)


@pytest.mark.parametrize("name", ["float", "complex", "math.sin", "np.asarray"])
@pytest.mark.parametrize("transform", [gj.grad, gj.jacfwd, gj.jacrev, gj.hessian])
def test_the_error_names_transform_function_and_cure(name, transform):
    def model(x):
        LOSING[name](x)
        return x

    with pytest.raises(gj.ConcretizationError, match=r"model.*gpujac\.value"):
        transform(model)(1.5)


@pytest.mark.parametrize(
    "ask",
    [bool, int, float, complex, math.sin, asarray, lambda x: x.item(), lambda x: [1, 2][x.astype(int)],
     lambda x: np.zeros(3)[x.astype(int) : 2], lambda x: range(x.astype(int)), gj.value, lambda x: x in [1.0],
     lambda x: np.stack([x, x])[x > 0], lambda x: np.nonzero(x), lambda x: f"{x:.2f}"],
)  # fmt: skip
def test_under_vmap_everything_raises_with_a_pointer_to_where(ask):
    with pytest.raises(gj.ConcretizationError, match="where"):
        gj.vmap(lambda x: (ask(x), x)[1])(X)


def test_math_on_integers_and_constants_is_fine():
    def f(x):
        n = math.floor(gj.value(x[1]))
        return x * math.sqrt(n) * math.sin(float(x.shape[0]))

    J = gj.jacrev(f)(X)
    np.testing.assert_allclose(J, np.eye(3) * math.sqrt(2) * math.sin(3.0))


def test_a_constant_made_like_a_traced_array_may_be_read():
    def f(x):
        weights = np.ones_like(x)
        return x * float(weights[0]) * np.asarray(weights).sum()

    np.testing.assert_allclose(gj.jacrev(f)(X), 3 * np.eye(3))


def test_branches_inside_jacfwd_inside_vmap_on_unmapped_values():
    def f(x, s):
        return x * s if s > 1.0 else x

    found = gj.vmap(lambda x: gj.jacfwd(lambda s: f(x, s))(2.0))(X)
    np.testing.assert_array_equal(found, X)


def test_exceptions_of_the_user_pass_through_unchanged():
    class MineError(Exception):
        pass

    def f(x):
        raise MineError("of the user")

    for transform in (gj.grad, gj.jacrev, gj.jacfwd, gj.hessian, gj.vmap):
        with pytest.raises(MineError, match="of the user"):
            transform(f)(X)
    for call in (lambda: gj.vjp(f, X), lambda: gj.jvp(f, (X,), (X,)), lambda: gj.linearize(f, X),
                 lambda: gj.linear_transpose(f, X)):  # fmt: skip
        with pytest.raises(MineError):
            call()
