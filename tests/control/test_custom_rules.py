"""custom_jvp and custom_vjp: what rules are given, what they may return, and what is refused."""

import copy
import functools
import gc
import math
import pickle
import weakref
from typing import Any

import numpy as np
import optree
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import gpujac as gj
from gpujac.control import once_differentiable
from tests import device
from tests.oracles import close, close_trees

X = np.array([0.3, -0.5, 0.7])
K = np.array([5.0, 6.0, -1.0])


def assert_close(found: Any, wanted: Any, allowed: float) -> None:
    """Arrays of any library agree."""
    close(device.host(found), device.host(wanted), allowed)


def assert_close_trees(found: Any, wanted: Any, allowed: float) -> None:
    """Trees of arrays of any library agree."""
    close_trees(optree.tree_map(device.host, found), optree.tree_map(device.host, wanted), allowed)


def squared() -> Any:
    """x² with a cotangent rule."""
    f = gj.custom_vjp(lambda x: x * x)
    f.defvjp(lambda x: (x * x, x), lambda x, ct: (2 * x * ct,))
    return f


# ---------------------------------------------------------------- arguments


def test_pytrees_static_leaves_and_integers_reach_the_rules() -> None:
    seen = {}

    @gj.custom_vjp
    def f(params: Any, n: int, mode: str = "sum") -> Any:
        return {"y": params["w"] * n, "count": params["index"] + 1}

    def fwd(params: Any, n: int, mode: str) -> Any:
        seen["fwd"] = (n, mode, params["label"], params["none"])
        return f(params, n, mode), (n,)

    def bwd(kept: Any, ct: Any) -> Any:
        seen["ct"] = ct
        return {"w": ct["y"] * 100, "index": None, "label": None, "none": None}, None, None

    f.defvjp(fwd, bwd)
    w, index = np.ones(2), np.array([1, 2])
    call = lambda w: f({"w": w, "index": index, "label": "a", "none": None}, n=3)
    out, pullback = gj.vjp(lambda w: call(w)["y"], w)
    assert_close(out, 3 * w, 0)
    assert_close(pullback(w)[0], 100 * w, 0)
    assert seen["fwd"] == (3, "sum", "a", None)
    assert seen["ct"]["count"] is None  # integer results carry no cotangent
    assert gj.jacrev(lambda w: call(w)["y"])(w).shape == (2, 2)


def test_tangents_of_integers_and_objects_are_none_and_absent_ones_are_zeros() -> None:
    seen = []

    @gj.custom_jvp
    def f(x: Any, y: Any, k: Any, option: str) -> Any:
        return x * y + k

    @f.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        seen.append(tangents)
        x, y, k, option = primals
        return f(x, y, k, option), tangents[0] * y + x * tangents[1]

    k = np.array([1, 2, 3])
    _, dy = gj.jvp(lambda x: f(x, X, k, "a"), (X,), (np.ones(3),))
    assert_close(dy, X, 0)
    _, zero, none, text = seen[0]
    assert_close(zero, np.zeros(3), 0)
    assert (none, text) == (None, None)


def test_af2_symbolic_zeros_reach_the_rules_as_none() -> None:
    seen: list = []
    f = gj.custom_jvp(lambda x, y: (x, y))

    def rule(primals: Any, tangents: Any) -> Any:
        seen.append(tangents)
        return primals, tangents

    f.defjvp(rule, symbolic_zeros=True)
    _, dy = gj.jvp(lambda x: f(x, X), (X,), (X,))
    assert seen[0][1] is None
    assert_close_trees(dy, (X, np.zeros(3)), 0)

    def bwd(_: Any, ct: Any) -> Any:
        seen.append(ct)
        return ct

    g = gj.custom_vjp(lambda x, y: (x, y))
    g.defvjp(lambda x, y: ((x, y), None), bwd, symbolic_zeros=True)
    assert_close(gj.grad(lambda x: g(x, X)[0].sum())(X), np.ones(3), 0)
    assert seen[-1][1] is None


def test_unused_outputs_have_zero_cotangents() -> None:
    seen: list = []

    def bwd(_: Any, ct: Any) -> Any:
        seen.append(ct)
        return (ct[0] + ct[1],)

    f = gj.custom_vjp(lambda x: (x, 2 * x))
    f.defvjp(lambda x: ((x, 2 * x), None), bwd)
    gj.grad(lambda x: f(x)[0].sum())(X)
    assert_close(seen[0][1], np.zeros(3), 0)


def test_af4_a_rule_can_ask_which_arguments_are_needed() -> None:
    seen: list = []

    def bwd(kept: Any, ct: Any, needed: Any) -> Any:
        seen.append(needed)
        return (ct * kept[1] if needed[0] else None), ({"w": ct * kept[0]} if needed[1]["w"] else None)

    f = gj.custom_vjp(lambda x, p: x * p["w"])
    f.defvjp(lambda x, p: (x * p["w"], (x, p["w"])), bwd, needs_input_grad=True)
    p = {"w": 2 * X}
    assert_close(gj.grad(lambda x: f(x, p).sum())(X), 2 * X, 0)
    assert_close(gj.grad(lambda p: f(X, p).sum())(p)["w"], X, 0)
    gj.grad(lambda x: gj.grad(lambda p: f(x, p).sum())(p)["w"].sum())(X)  # nested: each level asks for its own
    assert seen == [(True, {"w": False}), (False, {"w": True}), (False, {"w": True})]
    gj.grad(lambda x, p: f(x, p).sum(), argnums=(0, 1))(X, p)
    assert seen[3] == (True, {"w": True})


def test_keyword_arguments_are_bound_to_positions_and_defaults_filled_in() -> None:
    @gj.custom_vjp
    def f(x: Any, scale: float = 2.0, *, mode: str = "") -> Any:
        return x * scale

    f.defvjp(lambda x, scale: (x * scale, (x, scale)), lambda k, ct: (ct * k[1], (ct * k[0]).sum()))
    assert_close(gj.grad(lambda x: f(scale=3.0, x=x).sum())(X), np.full(3, 3.0), 0)
    assert_close(gj.grad(lambda x: f(x).sum())(X), np.full(3, 2.0), 0)
    assert_close(gj.grad(lambda s: f(X, scale=s).sum())(2.0), X.sum(), 1e-15)
    with pytest.raises(gj.ArgumentError, match="mode can be given by keyword only; make it a positional parameter"):
        f(X, mode="a")
    with pytest.raises(TypeError, match="unexpected keyword"):
        f(X, other=1)


def test_nondiff_argnums_come_first_and_as_they_are() -> None:
    @functools.partial(gj.custom_jvp, nondiff_argnums=(0, 2))
    def apply(g: Any, x: Any, n: int) -> Any:
        return g(x) * n

    @apply.defjvp
    def rule(g: Any, n: int, primals: Any, tangents: Any) -> Any:
        (x,), (t,) = primals, tangents
        y, dy = gj.jvp(g, (x,), (t,))
        return y * n, dy * (10 * n)

    assert_close(gj.jacrev(lambda x: apply(np.sin, x, 3))(X), np.diag(30 * np.cos(X)), 1e-15)

    f = gj.custom_vjp(lambda g, x: g(x), nondiff_argnums=0)
    f.defvjp(lambda g, x: (g(x), x), lambda g, x, ct: (ct * g(x),))
    assert_close(gj.grad(lambda x: f(np.exp, x).sum())(X), np.exp(X), 1e-15)
    assert_close(gj.vmap(lambda x: f(np.exp, x))(X), np.exp(X), 1e-15)
    with pytest.raises(gj.ArgumentTypeError, match="argument 0 is named by nondiff_argnums, but holds a traced array"):
        gj.grad(lambda c: f(c, X))(1.0)
    with pytest.raises(gj.ArgnumsRangeError, match="positional parameters count from 0 to 0"):
        gj.custom_vjp(lambda x: x, nondiff_argnums=(1,))
    with pytest.raises(gj.ArgumentTypeError, match="must be an int or a tuple of ints"):
        gj.custom_vjp(lambda x: x, nondiff_argnums="0")


def test_methods_take_their_object_as_a_static_argument() -> None:
    class Layer:
        def __init__(self, scale: float) -> None:
            self.scale = scale

        @gj.custom_vjp
        def call(self, x: Any) -> Any:
            """Scaled."""
            return self.scale * x

        call.defvjp(lambda self, x: (self.call(x), self), lambda self, ct: (None, 10 * self.scale * ct))

    layer = Layer(3.0)
    assert_close(gj.jacrev(layer.call)(X), 30 * np.eye(3), 0)
    assert_close(gj.vmap(layer.call)(X), 3 * X, 0)


def test_ho6_the_wrapped_function_keeps_its_name_and_documentation() -> None:
    @gj.custom_jvp
    def documented(x: Any) -> Any:
        """What it does."""
        return x

    assert documented.__name__ == "documented"
    assert documented.__doc__ == "What it does."
    assert repr(documented) == "<custom_jvp documented>"


@gj.custom_vjp
def module_level(x: Any) -> Any:
    return np.sin(x)


def _fwd(x: Any) -> Any:
    return np.sin(x), np.cos(x)


def _bwd(c: Any, ct: Any) -> Any:
    return (3 * c * ct,)


def _plain(x: Any) -> Any:
    return np.sin(x)


module_level.defvjp(_fwd, _bwd)
not_by_name = gj.custom_vjp(_plain)
not_by_name.defvjp(_fwd, _bwd)


@pytest.mark.parametrize("f", [module_level, not_by_name])
def test_custom_functions_pickle_with_their_rules(f: Any) -> None:
    again = pickle.loads(pickle.dumps(f))
    assert (again is f) == (f is module_level)
    assert_close(gj.grad(again)(0.0), 3.0, 0)
    assert_close(gj.grad(copy.deepcopy(f))(0.0), 3.0, 0)


@pytest.mark.parametrize("wrap", [gj.custom_jvp, gj.custom_vjp, once_differentiable])
def test_what_is_no_function_is_refused(wrap: Any) -> None:
    with pytest.raises(gj.ArgumentTypeError, match="must be a function, not int"):
        wrap(3)


def test_a_rule_is_given_once_and_the_error_says_where() -> None:
    f = squared()
    with pytest.raises(gj.RegistrationError, match=r"has a vjp rule already, from .*test_custom_rules.py:\d+"):
        f.defvjp(lambda x: (x, None), lambda _, ct: (ct,))
    with pytest.raises(gj.ArgumentTypeError, match="a jvp rule must be a function, not str"):
        f.defjvp("rule")


# ---------------------------------------------------------------- what rules return

WRONG_BWD = [
    (lambda r, ct: ct, gj.StructureError, r"bwd must return a tuple with one cotangent for each of the 2 arguments"),
    (lambda r, ct: (ct,), gj.StructureError, r"for each of the 2 arguments \(None for a zero\), not a tuple of 1"),
    (lambda r, ct: ({"a": ct[:2]}, None), gj.ShapeError,
     r"cotangent of argument 'p'\['a'\] that bwd returned has shape \(2,\), but argument 'p'\['a'\] has shape \(3,\)"),
    (lambda r, ct: ({"a": 1j * ct}, None), gj.DTypeError, r"argument 'p'\['a'\].* is complex128, but .* is float64"),
    (lambda r, ct: ({"a": "zero"}, None), gj.ArgumentTypeError, r"argument 'p'\['a'\] .* is a str"),
    (lambda r, ct: ({"b": ct}, None), gj.StructureError, r"cotangent 0 of bwd: the missing key is 'a' and the extra"),
    (lambda r, ct: ([ct], None), gj.StructureError, r"cotangent 0 of bwd: expected dict, found list"),
    (lambda r, ct: ({"a": ct}, ct), gj.StructureError, r"argument 'k' .* must be None: argument 'k' is int64"),
]  # fmt: skip


@pytest.mark.parametrize(("bwd", "error", "message"), WRONG_BWD)
def test_a_wrong_cotangent_is_named_with_what_was_expected(bwd: Any, error: Any, message: str) -> None:
    def f(p: Any, k: Any) -> Any:
        return p["a"] * k

    g = gj.custom_vjp(f)
    g.defvjp(lambda p, k: (f(p, k), None), bwd)
    k = np.array([1, 2, 3])
    with pytest.raises(error, match=f"f: .*{message}" if "argument 'k'" in message else message):
        gj.grad(lambda a: g({"a": a}, k).sum())(X)


WRONG_JVP = [
    (lambda p, t: p[0], gj.StructureError, r"the jvp rule must return a pair \(output, tangent\), not a "),
    (lambda p, t: ({"y": p[0]}, t[0]), gj.StructureError, r"the tangent that the jvp rule returned: expected dict"),
    (lambda p, t: (p[0], {"y": t[0]}), gj.StructureError, r"the tangent that the jvp rule returned: expected a leaf"),
    (lambda p, t: (p[0], t[0].sum()), gj.ShapeError, r"the tangent of output .* has shape \(\), but output has shape"),
    (lambda p, t: (p[0], 1j * t[0]), gj.DTypeError, r"the tangent of output .* is complex128, but output is float64"),
    (lambda p, t: ("y", t[0]), gj.ArgumentTypeError, r"output of the jvp rule is a str"),
]  # fmt: skip


@pytest.mark.parametrize("transform", [gj.jacfwd, gj.jacrev])
@pytest.mark.parametrize(("rule", "error", "message"), WRONG_JVP)
def test_a_wrong_tangent_is_named_with_what_was_expected(
    rule: Any, error: Any, message: str, transform: Any
) -> None:
    f = gj.custom_jvp(lambda x: x)
    f.defjvp(rule)
    with pytest.raises(error, match=message):
        transform(f)(X)
    with pytest.raises(error, match=message):
        gj.jvp(f, (X,), (X,))


def test_fwd_must_return_a_pair() -> None:
    f = gj.custom_vjp(lambda x: x)
    f.defvjp(lambda x: x, lambda _, ct: (ct,))
    with pytest.raises(gj.StructureError, match=r"fwd must return a pair \(output, residuals\), not a "):
        gj.grad(lambda x: f(x).sum())(X)


def test_dtypes_of_other_widths_are_cast() -> None:
    f = gj.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, None), lambda _, ct: (np.ones(3, np.float64),))
    assert gj.grad(lambda x: f(x).sum())(X.astype(np.float32)).dtype == np.float32
    g = gj.custom_jvp(lambda x: x)
    g.defjvp(lambda p, t: (p[0], t[0].astype(np.float64) * 2))
    for transform in (gj.jacfwd, gj.jacrev):
        J = transform(g)(X.astype(np.float32))
        assert J.dtype == np.float32
        assert_close(J, 2 * np.eye(3), 0)


def test_none_in_cotangents_and_tangents_is_a_zero() -> None:
    f = gj.custom_vjp(lambda x, p: x + p[0] + p[1])
    f.defvjp(lambda x, p: (x + p[0] + p[1], None), lambda _, ct: (None, (ct, None)))
    assert_close_trees(gj.grad(lambda x, p: f(x, p).sum(), argnums=(0, 1))(X, (X, X)), (0 * X, (0 * X + 1, 0 * X)), 0)
    assert_close_trees(gj.jvp(f, (X, (X, X)), (X, (2 * X, X)))[1], 2 * X, 0)
    g = gj.custom_jvp(lambda x: (x, 2 * x))
    g.defjvp(lambda p, t: ((p[0], 2 * p[0]), (t[0], None)))
    assert_close_trees(gj.jvp(g, (X,), (X,)), ((X, 2 * X), (X, 0 * X)), 0)
    assert_close_trees(gj.vjp(g, X)[1]((X, X)), (X,), 0)
    h = gj.custom_jvp(lambda x: x)
    h.defjvp(lambda p, t: (p[0], None))
    assert_close(gj.jacrev(h)(X), np.zeros((3, 3)), 0)


def test_complex_functions_follow_the_convention_of_the_adjoint() -> None:
    z = np.array([0.3 + 0.2j, -1.0 + 2.0j])
    plain = lambda z: z * z * np.conj(z)
    f = gj.custom_jvp(plain)
    f.defjvp(lambda p, t: (plain(p[0]), 2 * p[0] * np.conj(p[0]) * t[0] + p[0] ** 2 * np.conj(t[0])))
    g = gj.custom_vjp(plain)
    g.defvjp(lambda z: (plain(z), z), lambda z, ct: (2 * np.abs(z) ** 2 * ct + z**2 * np.conj(ct),))
    ct = np.array([1.0 - 1j, 0.5 + 0.1j])
    for way in (f, g):
        assert_close_trees(gj.vjp(way, z)[1](ct), gj.vjp(plain, z)[1](ct), 1e-14)
        assert_close_trees(gj.jvp(way, (z,), (ct,)), gj.jvp(plain, (z,), (ct,)), 1e-14)


# ---------------------------------------------------------------- what is refused

TRANSFORMS = {
    "vjp": lambda f: gj.vjp(f, X)[1](X),
    "grad": lambda f: gj.grad(lambda x: f(x).sum())(X),
    "grad_and_value": lambda f: gj.grad_and_value(lambda x: f(x).sum())(X),
    "value_and_grad": lambda f: gj.value_and_grad(lambda x: f(x).sum())(X),
    "jvp": lambda f: gj.jvp(f, (X,), (X,)),
    "linearize": lambda f: gj.linearize(f, X)[1](X),
    "jacrev": lambda f: gj.jacrev(f)(X),
    "jacfwd": lambda f: gj.jacfwd(f)(X),
    "hessian": lambda f: gj.hessian(lambda x: f(x).sum())(X),
    "grad of vmap": lambda f: gj.grad(lambda x: gj.vmap(f)(x).sum())(X),
    "vmap of grad": lambda f: gj.vmap(gj.grad(f))(X),
}


@pytest.mark.parametrize("wrap", [gj.custom_jvp, gj.custom_vjp])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_f1_c6_a_function_without_a_rule_is_an_error_under_every_transform(transform: str, wrap: Any) -> None:
    f = wrap(lambda x: 2 * x)
    with pytest.raises(gj.MissingRuleError, match=r"without a rule, so it has no derivative: give it .defvjp"):
        TRANSFORMS[transform](f)
    assert_close(f(X), 2 * X, 0)
    assert_close(gj.vmap(f)(X), 2 * X, 0)  # its code itself is batched


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda p, t: (p[0], np.sin(t[0])), "its rule applies sin to tangents, in which it must be linear"),
        (lambda p, t: (p[0], t[0] * t[0]), "its rule applies multiply to tangents"),
        (lambda p, t: (p[0], t[0] + 1), "its rule applies add to tangents"),
        (lambda p, t: (p[0], p[0]), "returned a value that does not depend on the tangents and is not zero"),
        (lambda p, t: (p[0], squared()(t[0])), "its rule applies multiply to tangents"),
    ],
)
def test_a_tangent_rule_that_is_not_linear_is_named_with_the_op(rule: Any, message: str) -> None:
    f = gj.custom_jvp(lambda x: x)
    f.defjvp(rule)
    with pytest.raises(gj.MissingRuleError, match=message):
        gj.jacrev(f)(X)


@pytest.mark.parametrize(
    ("bwd", "message"),
    [
        (lambda x, ct: (np.exp(ct),), "its rule applies exp to cotangents, in which it must be linear"),
        (lambda x, ct: (ct * ct,), "its rule applies multiply to cotangents"),
        (lambda x, ct: (x,), "returned a value that does not depend on the cotangents and is not zero"),
    ],
)
def test_a_cotangent_rule_that_is_not_linear_has_no_forward_mode(bwd: Any, message: str) -> None:
    f = gj.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, x), bwd)
    with pytest.raises(gj.MissingRuleError, match=message):
        gj.jvp(f, (X,), (X,))
    with pytest.raises(gj.MissingRuleError, match=message):
        gj.jacfwd(f)(X)


def test_a_rule_that_branches_on_tangents_is_refused_where_they_have_no_values() -> None:
    f = gj.custom_jvp(lambda x: x)
    f.defjvp(lambda p, t: (p[0], t[0] if (t[0] > 0).all() else -t[0]))
    with pytest.raises(gj.ConcretizationError, match="asks for the value of one of its tangents"):
        gj.jacrev(f)(X)


# ---------------------------------------------------------------- captured values


def closing_over(c: Any, wrap: str, in_rule: bool = False) -> Any:
    """x c, where c is captured; in_rule: by the rules, not by the value."""
    if wrap == "jvp":
        f = gj.custom_jvp(lambda x: x * c)
        f.defjvp(lambda p, t: (p[0] * (1.0 if in_rule else c), t[0] * c))
        return f
    f = gj.custom_vjp(lambda x: x * c)
    f.defvjp(lambda x: (x * (1.0 if in_rule else c), None), lambda _, ct: (ct * c,))
    return f


DIFFERENTIATED = [
    lambda f: gj.grad(f)(2.0),
    lambda f: gj.jvp(f, (2.0,), (1.0,)),
    lambda f: gj.jacfwd(f)(2.0),
    lambda f: gj.grad(lambda c: gj.grad(lambda x: f(c) * x)(3.0))(2.0),
    lambda f: gj.vmap(gj.grad(f))(np.ones(2)),
    lambda f: gj.grad(lambda c: gj.vmap(lambda x: f(c) * x)(X).sum())(2.0),
]


@pytest.mark.parametrize("transform", DIFFERENTIATED)
@pytest.mark.parametrize("in_rule", [False, True])
@pytest.mark.parametrize("wrap", ["jvp", "vjp"])
def test_a_captured_value_of_the_same_level_is_an_error_and_never_a_lost_derivative(
    wrap: str, in_rule: bool, transform: Any
) -> None:
    with pytest.raises((gj.MissingRuleError, gj.LeakedTracerError), match=r"from outside|escaped|does not depend"):
        transform(lambda c: closing_over(c, wrap, in_rule)(c * 3))


@pytest.mark.parametrize("wrap", ["jvp", "vjp"])
def test_captured_values_of_outer_levels_are_differentiated(wrap: str) -> None:
    inner = lambda c: gj.grad(lambda x: closing_over(c, wrap)(x) ** 2)(3.0)  # 2 x c²
    assert_close(gj.grad(inner)(2.0), 24.0, 1e-14)
    assert_close(gj.jvp(inner, (2.0,), (1.0,))[1], 24.0, 1e-14)
    assert_close(gj.vmap(inner)(np.array([1.0, 2.0])), [6.0, 24.0], 1e-14)
    assert_close(gj.hessian(inner)(2.0), 12.0, 1e-14)


@pytest.mark.parametrize("wrap", ["jvp", "vjp"])
def test_where_no_argument_is_traced_a_captured_value_is_differentiated_through_the_code(wrap: str) -> None:
    assert_close(gj.grad(lambda c: closing_over(c, wrap)(3.0))(2.0), 3.0, 0)


@pytest.mark.parametrize("wrap", ["jvp", "vjp"])
@pytest.mark.parametrize(
    "constant", [np.ones_like, gj.stop_gradient, lambda c: K, lambda c: np.zeros_like(c) + K], ids=range(4)
)
def test_where_no_argument_carries_a_derivative_a_captured_value_is_followed_too(wrap: str, constant: Any) -> None:
    """The rules are not asked there, so nothing may be taken for a constant on their account."""
    f = lambda c: closing_over(c, wrap)(constant(c))
    plain = lambda c: c * constant(c)
    for t in (gj.jacrev, gj.jacfwd, gj.hessian):
        np.testing.assert_allclose(t(f)(X), t(plain)(X), rtol=1e-14)
        np.testing.assert_allclose(gj.vmap(t(f))(np.stack([X, K])), [t(plain)(X), t(plain)(K)], rtol=1e-14)
        lanes = np.stack([X, K])
        np.testing.assert_allclose(t(gj.vmap(f))(lanes), t(gj.vmap(plain))(lanes), rtol=1e-14)
    for found, expected in zip(gj.jvp(f, (K,), (X,)), gj.jvp(plain, (K,), (X,)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    np.testing.assert_allclose(gj.vmap(f)(np.stack([K, X])), [plain(K), plain(X)], rtol=1e-14)


@pytest.mark.parametrize("wrap", ["jvp", "vjp"])
def test_an_argument_that_no_transform_watches_hides_no_captured_value(wrap: str) -> None:
    f = lambda c, k: closing_over(c, wrap)(k)
    np.testing.assert_array_equal(gj.grad(lambda c, k: f(c, k).sum())(X, K), K)
    found = gj.vmap(f, in_dims=(0, None))(X, K)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, np.outer(X, K))
    np.testing.assert_array_equal(gj.vmap(lambda c, k: f(c, k) + k, in_dims=(0, None))(X, K), np.outer(X, K) + K)
    with pytest.raises(gj.MissingRuleError, match="from outside"):  # what is done again is done by rules
        gj.grad(gj.checkpoint(lambda c: f(c * 2, np.ones_like(c)).sum()))(K)
    lanes = gj.vmap(f, in_dims=(0, None))
    assert_close(gj.grad(lambda c: lanes(c, K).sum())(X), np.full(X.shape, K.sum()), 1e-14)
    with pytest.raises(gj.MissingRuleError, match="from outside"):
        gj.grad(lambda k: lanes(X, k).sum())(K)
    assert_close(gj.linear_transpose(lambda c: f(c, K), X)(K)[0], K * K, 0)


@pytest.mark.parametrize("wrap", ["jvp", "vjp"])
def test_an_argument_without_a_value_hides_no_captured_one(wrap: str) -> None:
    f = lambda c: closing_over(c, wrap)(np.ones_like(c))
    assert_close(gj.linear_transpose(f, X)(K)[0], K, 0)


@pytest.mark.parametrize("wrap", ["jvp", "vjp"])
def test_captured_lanes_of_vmap_work_where_nothing_below_is_differentiated(wrap: str) -> None:
    assert_close(gj.vmap(lambda c, x: closing_over(c, wrap)(x))(X, 2 * X), 2 * X * X, 0)
    with pytest.raises(gj.MissingRuleError, match="Pass that value as one more argument"):
        gj.grad(lambda x: gj.vmap(lambda c, v: closing_over(c, wrap)(v))(X, x).sum())(X)


# ---------------------------------------------------------------- writes


def writing() -> Any:
    """(x + 1)², whose rule writes into its argument."""

    def fwd(x: Any) -> Any:
        x += 1
        return x * x, x

    f = gj.custom_vjp(lambda x: (x + 1) ** 2)
    f.defvjp(fwd, lambda x, ct: (2 * x * ct,))
    return f


def test_a_write_into_an_argument_raises_on_numpy() -> None:
    f = writing()
    with pytest.raises(ValueError, match="read-only"):
        gj.grad(lambda x: f(x).sum())(X)


def test_a_write_into_an_argument_that_is_traced_stays_private() -> None:
    f, before = writing(), X.copy()

    def outer(x: Any) -> Any:  # the argument is a traced array of an outer level
        y = x * 1.0
        g = gj.grad(lambda v: f(v).sum())(y)
        return (g + 0 * y).sum(), y

    (total, y), _ = gj.jvp(outer, (X,), (np.ones(3),))
    assert_close(total, 2 * (X + 1).sum(), 1e-14)
    assert_close(y, before, 0)  # no write of the rule's reached it
    assert_close(X, before, 0)


def test_vmap_runs_the_code_on_private_lanes() -> None:
    def f(x: Any) -> Any:
        x[0] = 5.0
        return x * 2

    g = gj.custom_jvp(f)
    xs = np.ones((2, 3))

    def lane(x: Any) -> Any:
        return g(x), x

    y, same = gj.vmap(lane)(xs)
    assert_close(y[:, 0], [10.0, 10.0], 0)
    assert_close(same, np.ones((2, 3)), 0)


# ---------------------------------------------------------------- order


def test_derivatives_of_the_rules_are_the_second_derivatives() -> None:
    f = gj.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, x), lambda x, ct: (x**3 * ct,))  # claims the derivative x³
    second = [gj.jacfwd(gj.grad(f)), gj.jacrev(gj.grad(f)), gj.hessian(f), gj.grad(gj.grad(f))]
    for derivative in second:
        assert_close(derivative(2.0), 12.0, 1e-14)


def test_af5_once_differentiable_raises_on_the_second_derivative_and_never_gives_zero() -> None:
    f = gj.custom_vjp(lambda x: x**2)
    f.defvjp(lambda x: (x**2, x), once_differentiable(lambda x, ct: (2 * x * ct,)))
    total = lambda x: f(x).sum()
    assert_close(gj.grad(total)(X), 2 * X, 0)
    assert_close(gj.jacrev(f)(X), np.diag(2 * X), 0)
    assert_close(gj.jacfwd(f)(X), np.diag(2 * X), 0)
    assert_close(gj.vmap(gj.grad(f))(X), 2 * X, 0)
    for second in (gj.hessian(total), gj.jacrev(gj.grad(total)), gj.jacfwd(gj.grad(total)), gj.jacfwd(gj.jacfwd(f))):
        with pytest.raises(gj.MissingRuleError, match="is marked once_differentiable"):
            second(X)
    with pytest.raises(gj.MissingRuleError, match="is marked once_differentiable"):
        gj.jvp(gj.grad(total), (X,), (X,))


# ---------------------------------------------------------------- batching rules


def test_av3_the_rule_is_told_batch_size_and_randomness() -> None:
    seen: list = []
    f = gj.custom_vjp(lambda x: x)

    @f.defvmap
    def rule(info: Any, in_dims: Any, x: Any) -> Any:
        seen.append(tuple(info))
        return x, in_dims[0]

    gj.vmap(f)(np.ones((4, 2)))
    gj.vmap(f, randomness="different")(np.ones((4, 2)))
    assert seen == [(4, "error"), (4, "different")]


def test_av4_in_dims_is_a_tuple_that_follows_the_arguments() -> None:
    seen: list = []
    f = gj.custom_vjp(lambda x, p, n: x)

    @f.defvmap
    def rule(info: Any, in_dims: Any, x: Any, p: Any, n: Any) -> Any:
        seen.append(in_dims)
        return x, in_dims[0]

    x = np.ones((2, 3))
    gj.vmap(lambda x, a, b: f(x, {"a": [a, X], "b": b}, 3), in_dims=(1, 0, None))(x, np.ones(3), X)
    assert seen == [(1, {"a": [0, None], "b": None}, None)]


def test_av5_a_rule_is_skipped_where_nothing_is_batched_at_its_level() -> None:
    seen: list = []
    f = gj.custom_vjp(lambda x: 2 * x)

    @f.defvmap
    def rule(info: Any, in_dims: Any, x: Any) -> Any:
        seen.append(info.batch_size)
        return f(x), in_dims[0]

    assert_close(gj.vmap(lambda x: f(X))(np.ones(5)), np.tile(2 * X, (5, 1)), 0)
    assert seen == []
    gj.vmap(lambda x: gj.vmap(lambda y: f(x))(np.ones(4)))(np.ones((3, 2)))
    assert seen == [3]


def test_av6_out_dims_none_broadcasts() -> None:
    f = gj.custom_vjp(lambda x: (x, X))
    f.defvmap(lambda info, in_dims, x: ((x, X), (in_dims[0], None)))
    y, same = gj.vmap(f, in_dims=1)(np.ones((3, 2)))
    assert y.shape == (2, 3)
    assert_close(same, np.tile(X, (2, 1)), 0)
    g = gj.custom_vjp(lambda x: X)
    g.defvmap(lambda info, in_dims, x: (X, None))
    assert_close(gj.vmap(g)(np.ones(2)), np.tile(X, (2, 1)), 0)


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (lambda info, d, x: x, gj.StructureError, r"must have two returns \(output, out_dims\)"),
        (lambda info, d, x: (x, 0, 0), gj.StructureError, r"must have two returns .* not a tuple of 3"),
        (lambda info, d, x: (x, (0, 0)), gj.StructureError, r"returned an incompatible out_dims=\(0, 0\)"),
        (lambda info, d, x: (x, "0"), gj.StructureError, r"returned an incompatible out_dims='0'"),
        (lambda info, d, x: (x, 2), gj.AxisError, r"returned out_dims=2 for output, which has shape \(2, 3\)"),
        (lambda info, d, x: (x, 1), gj.ShapeError, r"axis 1 of output holds the 2 lanes, but its shape is \(2, 3\)"),
    ],
)
def test_av7_av8_e93_e94_wrong_returns_of_a_batching_rule(rule: Any, error: Any, message: str) -> None:
    f = gj.custom_vjp(lambda x: x)
    f.defvmap(rule)
    with pytest.raises(error, match=message):
        gj.vmap(f)(np.ones((2, 3)))


def test_hp3_the_cotangent_of_a_shared_argument_is_the_sum_over_the_lanes() -> None:
    def plain(x: Any, w: Any, b: Any) -> Any:
        return x * w + b, 2 * w

    def bwd(kept: Any, ct: Any) -> Any:
        x, w = kept
        return ct[0] * w, (ct[0] * x + 2 * ct[1]), ct[0]

    f = gj.custom_vjp(plain)
    f.defvjp(lambda x, w, b: (plain(x, w, b), (x, w)), bwd)
    xs, w, bs = np.arange(6.0).reshape(2, 3), X, np.ones((3, 2))

    def loss(g: Any) -> Any:  # the second result has the same value in all lanes
        return lambda x, w, b: sum((k + 1) * y.sum() for k, y in enumerate(gj.vmap(g, in_dims=(0, None, 1))(x, w, b)))

    arguments = (xs, w, bs)
    found = gj.grad(loss(f), argnums=(0, 1, 2))(*arguments)
    assert_close_trees(found, gj.grad(loss(plain), argnums=(0, 1, 2))(*arguments), 1e-14)
    assert_close_trees(gj.jvp(loss(f), arguments, arguments), gj.jvp(loss(plain), arguments, arguments), 1e-14)


def test_hp3_rules_that_give_the_same_in_every_lane_count_once_per_lane() -> None:
    f = gj.custom_vjp(lambda x, w: x * 0 + w)
    f.defvjp(lambda x, w: (x * 0 + w, None), lambda _, ct: (np.zeros(()), np.zeros(()) + 0 * ct))
    g = gj.custom_jvp(lambda x, w: w)
    g.defjvp(lambda p, t: (p[1], t[1]))
    loss = lambda h: lambda x, w: gj.vmap(h, in_dims=(0, None))(x, w).sum()
    assert_close(gj.grad(loss(f), argnums=0)(X, 2.0), np.zeros(3), 0)
    assert_close(gj.grad(loss(g), argnums=1)(X, 2.0), 3.0, 0)
    assert_close(gj.jvp(loss(g), (X, 2.0), (X, 1.0))[1], 3.0, 0)


@pytest.mark.parametrize("size", [0, 1])
def test_no_lanes_and_one_lane(size: int) -> None:
    f = squared()
    xs = np.ones((size, 3))
    assert gj.vmap(f)(xs).shape == (size, 3)
    assert gj.vmap(gj.jacrev(f))(xs).shape == (size, 3, 3)
    assert gj.grad(lambda x: gj.vmap(f)(x).sum())(xs).shape == (size, 3)


def test_a_derivative_of_a_batching_rule_is_that_of_its_code() -> None:
    f = gj.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, None), lambda _, ct: (5 * ct,))
    f.defvmap(lambda info, in_dims, x: (7 * x, in_dims[0]))  # visible: another function
    assert_close(gj.vmap(gj.grad(f))(X), np.full(3, 5.0), 0)
    assert_close(gj.grad(lambda x: gj.vmap(f)(x).sum())(X), np.full(3, 7.0), 0)


# ---------------------------------------------------------------- other places


def test_linear_transpose_transposes_the_code_of_a_linear_function() -> None:
    f = gj.custom_vjp(lambda x: 3 * x[1:])
    f.defvjp(lambda x: (3 * x[1:], None), lambda _, ct: (np.zeros(3),))
    assert_close(gj.linear_transpose(f, X)(np.ones(2))[0], [0.0, 3.0, 3.0], 0)
    with pytest.raises(gj.MissingRuleError, match="multiply is not linear"):
        gj.linear_transpose(squared(), X)


def test_a_rule_may_call_a_linear_custom_function_on_tangents() -> None:
    solve = gj.custom_vjp(lambda a, b: b / a)
    solve.defvjp(lambda a, b: (b / a, (a, b)), lambda k, ct: (-k[1] / k[0] ** 2 * ct, ct / k[0]))
    f = gj.custom_jvp(lambda a, b: b / a)
    f.defjvp(lambda p, t: (f(*p), solve(p[0], t[1] - t[0] * f(*p))))
    for transform in (gj.jacrev, gj.jacfwd):
        assert_close_trees(
            transform(f, argnums=(0, 1))(X, X + 1), transform(lambda a, b: b / a, argnums=(0, 1))(X, X + 1), 1e-14
        )


def test_functions_without_a_readable_signature_take_positions_only() -> None:
    f = gj.custom_jvp(np.sin)
    f.defjvp(lambda p, t: (np.sin(p[0]), np.cos(p[0]) * t[0]))
    assert_close(gj.jacrev(f)(X), np.diag(np.cos(X)), 1e-15)


def test_a_result_may_be_an_argument_itself() -> None:
    f = gj.custom_vjp(lambda x, y: (x, y))
    f.defvjp(lambda x, y: ((x, y), (x, y)), lambda kept, cts: cts)
    (a, _), pullback = gj.vjp(f, X, X)
    assert a is not X
    a[0] = 100.0
    assert_close_trees(pullback((X, 2 * X)), (X, 2 * X), 0)
    assert X[0] == 0.3


def test_rules_run_inside_other_control_flow_and_aux() -> None:
    f = squared()
    value, aux = gj.grad(lambda x: (f(x).sum(), f(x)), has_aux=True)(X)
    assert_close_trees((value, aux), (2 * X, X * X), 0)
    scanned = lambda x: gj.scan(lambda carry, v: (f(carry) + v, carry), x, X)[0]
    plain = lambda x: gj.scan(lambda carry, v: (carry * carry + v, carry), x, X)[0]
    assert_close(gj.grad(scanned)(0.5), gj.grad(plain)(0.5), 1e-14)
    assert_close(gj.jacfwd(scanned)(0.5), gj.jacfwd(plain)(0.5), 1e-14)


def test_dropping_a_pullback_frees_the_residuals_at_once() -> None:
    class Kept:
        """Stands for something large."""

    kept: list = []

    def fwd(x: Any) -> Any:
        held = Kept()
        kept.append(weakref.ref(held))
        return x * 2, held

    f = gj.custom_vjp(lambda x: 2 * x)
    f.defvjp(fwd, lambda _, ct: (2 * ct,))
    gc.disable()
    try:
        _, pullback = gj.vjp(lambda x: gj.vmap(f)(f(x)), X)
        assert [r() is None for r in kept] == [False, False]
        pullback(X)
        del pullback
        assert [r() is None for r in kept] == [True, True]
    finally:
        gc.enable()


def flow(wrapped: Any) -> Any:
    """A function with every form of control flow around `wrapped`."""

    def f(x: Any) -> Any:
        y = gj.cond(x[0] > 0, wrapped, lambda v: 2 * v, x)
        y = gj.fori_loop(0, 2, lambda i, v: wrapped(v) / 2, y)
        y = gj.while_loop(lambda v: v.sum() < 50, lambda v: wrapped(v) + v, y + 1)
        return gj.checkpoint(lambda v: wrapped(v) + wrapped(2 * v))(y)

    return f


@pytest.mark.parametrize(
    "transform",
    [
        gj.jacrev,
        gj.jacfwd,
        lambda f: gj.hessian(lambda x: f(x).sum()),
        lambda f: lambda x: gj.vmap(f)(np.stack([x, -x, 2 * x])),
        lambda f: lambda x: gj.vmap(gj.jacrev(f))(np.stack([x, -x, 2 * x])),
        lambda f: lambda x: gj.jacrev(lambda v: gj.vmap(f)(np.stack([v, -v, 2 * v])))(x),
    ],
)
@pytest.mark.parametrize("wrap", ["jvp", "vjp"])
def test_rules_compose_with_control_flow_and_checkpoints(wrap: str, transform: Any) -> None:
    square = squared()
    if wrap == "jvp":
        square = gj.custom_jvp(lambda x: x * x)
        square.defjvp(lambda p, t: (p[0] * p[0], 2 * p[0] * t[0]))
    assert_close(transform(flow(square))(X), transform(flow(lambda x: x * x))(X), 1e-12)


@pytest.mark.parametrize("method", ["batch", "loop"])
def test_vmap_by_a_loop_and_in_chunks_gives_the_same(method: str) -> None:
    f, xs = squared(), np.arange(6.0).reshape(3, 2)
    for chunk in (None, 2):
        assert_close(gj.vmap(f, method=method, chunk_size=chunk)(xs), xs * xs, 0)
        assert_close(gj.vmap(gj.jacrev(f), method=method, chunk_size=chunk)(xs)[1], np.diag(2 * xs[1]), 0)


def test_a_non_finite_number_in_a_rule_is_found_with_the_name_of_the_function() -> None:
    @gj.custom_vjp
    def exploding(x: Any) -> Any:
        return x

    exploding.defvjp(lambda x: (x, x), lambda x, ct: (ct * np.inf,))
    with gj.settings.override(debug_nans=True), pytest.raises(gj.GpujacError, match="exploding"):
        gj.grad(lambda x: exploding(x).sum())(X)


def test_show_names_custom_functions() -> None:
    @gj.custom_vjp
    def named(x: Any) -> Any:
        return x

    named.defvjp(lambda x: (x, None), lambda _, ct: (ct,))
    assert "call named" in str(gj.show(named)(X))


@given(st.data())
@hypothesis_settings(max_examples=25)
def test_hp3_any_axes_shapes_and_dtypes_agree_with_a_loop_over_lanes(data: Any) -> None:
    rank = data.draw(st.integers(0, 2))
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)))
    dims = data.draw(st.lists(st.sampled_from([None, *range(rank + 1)]), min_size=2, max_size=2).filter(any_mapped))
    lanes, dtype = data.draw(st.integers(1, 3)), data.draw(st.sampled_from(["float32", "float64"]))
    out = data.draw(st.integers(0, rank))
    plain = lambda x, y: np.sin(x) * y
    f = gj.custom_vjp(plain)
    f.defvjp(lambda x, y: (plain(x, y), (x, y)), lambda k, ct: (np.cos(k[0]) * k[1] * ct, np.sin(k[0]) * ct))
    args = []
    for k, d in enumerate(dims):
        full = shape if d is None else (*shape[:d], lanes, *shape[d:])
        args.append((np.arange(1.0, 1.0 + math.prod(full)).reshape(full) / (k + 3)).astype(dtype))
    mapped = lambda g: gj.vmap(g, in_dims=tuple(dims), out_dims=out)
    for transform in (gj.jacrev, gj.jacfwd):
        found = transform(mapped(f), argnums=(0, 1))(*args)
        wanted = transform(gj.vmap(plain, in_dims=tuple(dims), out_dims=out, method="loop"), argnums=(0, 1))(*args)
        assert_close_trees(found, wanted, 1e-6 if dtype == "float32" else 1e-13)
        assert {x.dtype for x in found} == {np.dtype(dtype)}


def any_mapped(dims: list) -> bool:
    return any(d is not None for d in dims)


def test_a_function_without_results_has_no_derivative_to_follow():
    f = gj.custom_vjp(lambda x: {})
    f.defvjp(lambda x: ({}, x), lambda kept, ct: (None,))

    def total(x):
        assert f(x) == {}
        return x.sum()

    np.testing.assert_array_equal(gj.grad(total)(np.ones(3)), np.ones(3))
    np.testing.assert_array_equal(gj.jacfwd(total)(np.ones(3)), np.ones(3))


def test_integer_results_have_no_tangents_and_ask_no_rule() -> None:
    f = gj.custom_vjp(lambda x: np.argmax(x))
    f.defvjp(lambda x: (np.argmax(x), None), lambda kept, ct: (None,))
    y, dy = gj.jvp(lambda x: x * f(x), (K,), (X[: K.size] * 0 + 1,))
    assert_close(y, K * int(np.argmax(K)), 0)
    assert_close(dy, np.full(K.shape, float(np.argmax(K))), 0)
