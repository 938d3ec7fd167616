"""Custom functions inside rules, residuals that are functions or objects, and captured lanes, under vmap.

The oracle is the same mathematics without rules.
"""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

import gpujac as gj
from gpujac.control import once_differentiable

XS = np.array([[0.3, -0.5], [0.7, 1.1], [2.0, -1.4]])
MODES = [gj.jacfwd, gj.jacrev]


def assert_same(found: Any, expected: Any) -> None:
    """The same numbers up to rounding."""
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def of_vjp(y: Callable, fwd: Callable, bwd: Callable) -> Any:
    """A function with a cotangent rule."""
    f = gj.custom_vjp(y)
    f.defvjp(fwd, bwd)
    return f


def of_jvp(y: Callable, rule: Callable) -> Any:
    """A function with a tangent rule."""
    f = gj.custom_jvp(y)
    f.defjvp(rule)
    return f


CUBE = lambda a: a**3
product = of_vjp(lambda a, c: a * c, lambda a, c: (a * c, (a, c)), lambda r, ct: (ct * r[1], ct * r[0]))
tripled = of_vjp(lambda a: 3.0 * a, lambda a: (3.0 * a, None), lambda _, ct: (3.0 * ct,))
ONCE = {
    "bwd": of_vjp(CUBE, lambda a: (a**3, a), once_differentiable(lambda a, ct: (3 * a * a * ct,))),
    "jvp": of_jvp(CUBE, once_differentiable(lambda p, t: (p[0] ** 3, 3 * p[0] ** 2 * t[0]))),
}
INSIDE = {
    "jvp": of_jvp(CUBE, lambda p, t: (p[0] ** 3, product(3 * p[0] ** 2, t[0]))),
    "bwd": of_vjp(CUBE, lambda a: (a**3, a), lambda a, ct: (product(3 * a * a, ct),)),
}


def lanes_of(t: Callable, f: Callable) -> list[Callable]:
    """A derivative with vmap inside, outside, twice and along the last axis."""
    return [t(gj.vmap(f)), gj.vmap(t(f)), t(gj.vmap(gj.vmap(f))), t(gj.vmap(f, 1, 1)), gj.vmap(gj.vmap(t(f)))]


@pytest.mark.parametrize("t", MODES)
@pytest.mark.parametrize("f", [*ONCE.values(), *INSIDE.values()], ids=[*map("once {}".format, ONCE), *INSIDE])
def test_the_first_derivative_of_lanes_is_that_of_the_plain_function(f: Any, t: Callable) -> None:
    for found, expected in zip(lanes_of(t, f), lanes_of(t, CUBE), strict=True):
        assert_same(found(XS), expected(XS))


@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", MODES)
@pytest.mark.parametrize("name", list(ONCE))
def test_the_second_derivative_of_a_once_differentiable_rule_under_vmap_raises(
    name: str, inner: Callable, outer: Callable
) -> None:
    f = ONCE[name]
    for second in (outer(inner(gj.vmap(f))), outer(gj.vmap(inner(f))), gj.vmap(outer(inner(f)))):
        with pytest.raises(gj.MissingRuleError, match="once_differentiable"):
            second(XS)


@pytest.mark.parametrize("name", list(INSIDE))
@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", MODES)
def test_the_second_derivative_of_lanes_goes_through_a_custom_function_in_a_rule(
    name: str, inner: Callable, outer: Callable
) -> None:
    found, expected = (outer(inner(gj.vmap(f)))(XS) for f in (INSIDE[name], CUBE))
    assert_same(found, expected)


def test_linear_transpose_of_lanes_of_a_custom_function() -> None:
    for f in (gj.vmap(tripled), gj.vmap(gj.vmap(tripled)), gj.vmap(tripled, 1, 1)):
        assert_same(gj.linear_transpose(f, XS)(XS)[0], 3.0 * XS)


# ---------------------------------------------------------------- where the lanes of a result are

W = np.array([1.0, -2.0, 3.0])
LAYOUTS: dict[str, Callable] = {
    "as they came": lambda x: x * W,
    "last": lambda x: np.stack([x[0] * 1.0, x[1] * -2.0, x[2] * 3.0]),
    "in front": lambda x: np.concatenate([x[:1], x[1:]]) * W,
}
LANES = [np.array([[0.3, -0.5, 1.0], [0.7, 1.1, 0.2], [2.0, -1.4, 0.6]])[:n] for n in (2, 3)]  # 3: square
BACK = lambda _, ct: (ct * W,)


def every_way(f: Callable, x: np.ndarray) -> list[Any]:
    """Derivatives that use different rules of a call, alone and one after the other; all are W times `c`."""
    c = np.cos(np.arange(x.size)).reshape(x.shape)
    lin = gj.linearize(f, x)[1]
    again = gj.checkpoint(lambda x: f(x) * c)
    return [
        lin(c),
        gj.linear_transpose(lin, x)(c)[0],
        gj.jvp(f, (x,), (c,))[1],
        gj.jvp(gj.checkpoint(f), (x,), (c,))[1],
        gj.jvp(gj.grad(lambda c: (f(x * c) ** 2).sum() / 2), (c,), (c,))[1] / x**2 / f(1 + 0 * x),
        gj.grad(lambda x: (f(x) * c).sum())(x),
        gj.grad(lambda x: again(x).sum())(x),
        gj.grad(lambda x: gj.jvp(again, (x,), (x,))[1].sum())(x),
        gj.jacfwd(f)(x).reshape(x.size, x.size) @ c.ravel(),
        gj.jacrev(f)(x).reshape(x.size, x.size).T @ c.ravel(),
        gj.jacfwd(gj.checkpoint(f))(x).reshape(x.size, x.size) @ c.ravel(),
    ]


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("x", LANES, ids=["two lanes of three", "three of three"])
@pytest.mark.parametrize("names", list(permutations(LAYOUTS)), ids=" / ".join)
def test_a_function_and_its_rules_may_leave_the_lanes_in_different_places(
    names: tuple, x: np.ndarray, dim: int
) -> None:
    y, fwd, rule = [LAYOUTS[name] for name in names]
    tangent = lambda p, t: (rule(p[0]), t[0] * W)
    both = of_vjp(y, lambda x: (fwd(x), None), BACK)
    both.defjvp(tangent)
    x = x if dim == 0 else np.swapaxes(x, 0, 1)
    wide = (lambda w: w) if dim == 0 else (lambda w: w[:, None])
    c = np.cos(np.arange(x.size)).reshape(x.shape)
    for f in (both, of_vjp(y, lambda x: (fwd(x), None), BACK), of_jvp(y, tangent)):
        assert_same(gj.vmap(f, dim, dim)(x), x * wide(W))
        for found in every_way(gj.vmap(f, dim, dim), x):
            assert_same(found.reshape(x.shape), c * wide(W))


def test_a_result_without_lanes_may_have_some_in_another_rule() -> None:
    shared = of_vjp(lambda x, s: s * 2, lambda x, s: (s * 2 + 0 * x, None), lambda _, ct: (None, 2 * ct))
    shared.defjvp(lambda p, t: (2 * p[1], 2 * t[1]))
    of = lambda f: lambda x, s: np.sum(gj.vmap(lambda v: np.sum(f(v, s) * W, axis=0))(x) * np.arange(2.0))
    x, s = np.array([0.5, -1.0]), np.array([1.0, 2.0, 3.0])
    wanted = gj.grad(of(lambda v, s: 2 * s), argnums=(0, 1))(x, s)
    for f in (of(shared), gj.checkpoint(of(shared))):
        for t in (gj.grad, gj.jacfwd):
            for found, expected in zip(t(f, argnums=(0, 1))(x, s), wanted, strict=True):
                assert_same(found, expected)


def test_an_integer_that_a_rule_makes_different_in_each_lane_is_an_error() -> None:
    """The recorded program counts on it being the same in all of them."""
    f = of_vjp(lambda x: (x, 3), lambda x: ((x, np.argmax(x)), None), lambda _, ct: (ct[0],))
    again = gj.checkpoint(lambda x: gj.vmap(lambda v: f(v)[0] * f(v)[1])(x))
    with pytest.raises(gj.StructureError, match="same in every lane"):
        gj.grad(lambda x: again(x).sum())(LANES[0])


# ---------------------------------------------------------------- residuals that are no arrays


class Slope:
    """An object that holds a traced array."""

    def __init__(self, a: Any) -> None:
        self.values = np.cos(a) * a + np.sin(a)


SWING = lambda a: np.sin(a) * a
OBJECTS = {
    "pullback": of_vjp(SWING, lambda a: gj.vjp(SWING, a), lambda pullback, ct: pullback(ct)),
    "linear map": of_vjp(SWING, lambda a: gj.linearize(SWING, a), lambda push, ct: (push(ct),)),
    "closure": of_vjp(SWING, lambda a: (SWING(a), lambda ct: ct * Slope(a).values), lambda kept, ct: (kept(ct),)),
    "object": of_vjp(SWING, lambda a: (SWING(a), Slope(a)), lambda kept, ct: (kept.values * ct,)),
    "object beside an array": of_vjp(
        SWING, lambda a: (SWING(a), [Slope(a), np.ones_like(a)]), lambda kept, ct: (kept[0].values * kept[1] * ct,)
    ),
}


@pytest.mark.parametrize("t", MODES)
@pytest.mark.parametrize("name", list(OBJECTS))
def test_residuals_may_be_functions_and_objects_with_vmap_inside_a_derivative(name: str, t: Callable) -> None:
    for found, expected in zip(lanes_of(t, OBJECTS[name]), lanes_of(t, SWING), strict=True):
        assert_same(found(XS), expected(XS))


@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", MODES)
@pytest.mark.parametrize("name", ["pullback", "object"])
def test_second_derivatives_go_through_residuals_that_are_no_arrays(
    name: str, inner: Callable, outer: Callable
) -> None:
    f, x = OBJECTS[name], XS[:2]
    assert_same(outer(inner(gj.vmap(f)))(x), outer(inner(SWING))(x))
    assert_same(outer(gj.vmap(inner(f)))(x), outer(gj.vmap(inner(SWING)))(x))


def test_a_pullback_of_lanes_with_objects_may_be_called_again() -> None:
    pullback = gj.vjp(gj.vmap(OBJECTS["object"]), XS)[1]
    expected = gj.vjp(SWING, XS)[1]
    for ct in (XS, np.ones_like(XS), XS):
        assert_same(pullback(ct), expected(ct))


@pytest.mark.parametrize("t", MODES)
def test_a_residual_of_a_closed_transform_is_an_error_that_says_so(t: Callable) -> None:
    stored: list = []

    def fwd(a: Any) -> Any:
        gj.vmap(lambda b: stored.append(b) or b)(np.ones(2))
        return SWING(a), stored.pop()

    f = of_vjp(SWING, fwd, lambda kept, ct: (kept * ct,))
    with pytest.raises(gj.MissingRuleError, match="from outside"):
        t(f)(XS[0])


# ---------------------------------------------------------------- captured lanes


def scaled(d: Any) -> Any:
    """a * d, whose rule reads d from outside."""
    return of_jvp(lambda a: a * d, lambda p, t: (p[0] * d, t[0] * d))


def test_a_custom_function_may_close_over_lanes_of_any_nested_vmap() -> None:
    x = np.array([1.0, 2.0, 5.0])
    found = gj.vmap(lambda c: gj.vmap(lambda d: scaled(d)(c * d))(x))(x)
    np.testing.assert_allclose(found, x[:, None] * x * x)
    found = gj.vmap(lambda d: gj.vmap(lambda c: scaled(d)(c * d))(x))(x)
    np.testing.assert_allclose(found, x * (x * x)[:, None])
    three = gj.vmap(lambda e: gj.vmap(lambda c: gj.vmap(lambda d: scaled(d)(c * d * e))(x))(x))(x)
    np.testing.assert_allclose(three, x[:, None, None] * x[:, None] * x * x)


@pytest.mark.parametrize("t", MODES)
def test_a_captured_lane_that_is_differentiated_is_still_an_error(t: Callable) -> None:
    f = lambda x: gj.vmap(lambda c: gj.vmap(lambda d: scaled(d)(c * d))(x))(x)
    with pytest.raises(gj.MissingRuleError, match="from outside"):
        t(f)(np.array([1.0, 2.0]))
