"""Rules of one's own (AF, AV, HP3, HO, F1, C6, Q8, P14, V27)."""

import numpy as np
import pytest

import gpujac as gj
from gpujac.control import once_differentiable, remove_custom_op
from tests.parity import parity

X = np.array([0.3, -1.2, 2.0])
B = np.stack([X, X + 1])
TRANSFORMS = {
    "grad": lambda f: gj.grad(lambda x: np.sum(f(x))),
    "grad_and_value": lambda f: gj.grad_and_value(lambda x: np.sum(f(x))),
    "vjp": lambda f: lambda x: gj.vjp(f, x)[1](np.ones_like(x)),
    "jvp": lambda f: lambda x: gj.jvp(f, (x,), (x,)),
    "linearize": lambda f: lambda x: gj.linearize(f, x)[1](x),
    "jacrev": gj.jacrev,
    "jacfwd": gj.jacfwd,
    "hessian": gj.hessian,
}


def cube(**parts):
    """x**3 with some of its rules."""
    f = gj.custom_vjp(lambda x: x**3)
    if "vjp" in parts:
        f.defvjp(lambda x: (x**3, x), parts["vjp"], **parts.get("options", {}))
    if "jvp" in parts:
        f.defjvp(parts["jvp"])
    if "vmap" in parts:
        f.defvmap(parts["vmap"])
    return f


RIGHT = {"vjp": lambda x, ct: (3 * x**2 * ct,)}


@pytest.fixture
def opaque():
    """parity::cube, an operation whose implementation no transform looks into; forgotten afterwards."""

    def cube(x: np.ndarray) -> np.ndarray: ...

    op = gj.custom_op("parity::cube", cube)
    gj.impl(op, device_types="cpu", func=lambda x: np.asarray(x) ** 3)
    yield op
    remove_custom_op("parity::cube")


# ---------------------------------------------------------------- missing rules


@parity("F1", "C6", "Q8")
@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_an_op_without_rules_fails_under_every_derivative(opaque, name):
    with pytest.raises(gj.MissingRuleError, match="parity::cube"):
        TRANSFORMS[name](opaque)(X)
    with pytest.raises(gj.MissingRuleError, match=r"cube|<lambda>"):
        TRANSFORMS[name](gj.custom_vjp(lambda x: x**3))(X)


@parity("F1", "AV1", "C6")
def test_an_op_without_a_batching_rule_fails_where_the_fallback_is_off(opaque):
    with gj.settings.override(missing_batch_rule="raise"), pytest.raises(gj.MissingRuleError, match="parity::cube"):
        gj.vmap(opaque)(B)
    with pytest.warns(RuntimeWarning, match="parity::cube"):
        np.testing.assert_allclose(gj.vmap(opaque)(B), B**3)  # lane by lane


@parity("Q8")
def test_a_custom_op_has_right_derivatives_in_every_mode(opaque):
    gj.impl_save_for_backward(opaque, lambda inputs, output: inputs.x)
    gj.impl_backward(opaque, lambda ctx, x, ct: {"x": 3 * x**2 * ct})
    for jac in (gj.jacrev, gj.jacfwd):
        np.testing.assert_allclose(jac(opaque)(X), np.diag(3 * X**2))
    np.testing.assert_allclose(gj.jvp(opaque, (X,), (X,))[1], 3 * X**3)
    H = np.zeros((3, 3, 3))
    H[range(3), range(3), range(3)] = 6 * X
    np.testing.assert_allclose(gj.hessian(opaque)(X), H)


@parity("V27")
def test_a_decomposition_serves_where_the_fallback_is_off(opaque):
    gj.register_decomposition("parity::cube")(lambda x: x * x * x)
    with gj.settings.override(missing_batch_rule="raise"):
        np.testing.assert_allclose(gj.vmap(opaque)(B), B**3)


@pytest.fixture
def slow():
    """parity::both, two results without a batching rule; forgotten afterwards."""

    def both(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    op = gj.custom_op("parity::both", both)
    gj.impl(op, device_types="cpu", func=lambda x, y: (x * 2 + y, np.outer(x, y)))
    yield op
    remove_custom_op("parity::both")


@parity("V19")
def test_the_loop_fallback(slow):
    x, y = np.arange(12.0).reshape(3, 4), np.linspace(-1, 1, 12).reshape(4, 3)
    want = [np.stack(parts) for parts in zip(*[slow(a, b) for a, b in zip(x, y.T, strict=True)], strict=True)]
    with pytest.warns(RuntimeWarning, match="parity::both") as caught:
        found = gj.vmap(slow, in_dims=(0, 1))(x, y)
    assert len(caught) == 1
    for a, b in zip(found, want, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.warns(RuntimeWarning, match="parity::both"):
        moved = gj.vmap(slow, in_dims=(0, 1), out_dims=(-1, 1))(x, y)
    np.testing.assert_array_equal(moved[0], want[0].T)
    np.testing.assert_array_equal(moved[1], np.moveaxis(want[1], 0, 1))
    with pytest.warns(RuntimeWarning, match="parity::both"):
        nested = gj.vmap(gj.vmap(slow, (None, 1)), (0, None))(x, y)
    np.testing.assert_array_equal(nested[0], 2 * x[:, None] + y.T[None])
    with pytest.warns(RuntimeWarning, match="parity::both"):
        many = gj.vmap(slow)(np.ones((10_000, 1)), np.arange(10_000.0)[:, None])
    np.testing.assert_array_equal(many[0][:, 0], 2 + np.arange(10_000.0))


@parity("V19")
def test_the_loop_fallback_over_no_lanes(slow):
    empty = np.zeros((0, 2))
    with pytest.raises(gj.MissingRuleError, match="parity::both"):
        gj.vmap(slow)(empty, empty)
    gj.impl_abstract(slow, lambda x, y: (x, x._replace(shape=(*x.shape, *y.shape))))
    found = gj.vmap(slow)(empty, empty)
    assert [part.shape for part in found] == [(0, 2), (0, 2, 2)]


@parity("J31")
@pytest.mark.parametrize("assembly", ["stack", "preallocate"])
def test_a_pullback_that_branches_works_one_row_at_a_time(assembly):
    f = gj.custom_vjp(lambda x: x * 2)
    f.defvjp(lambda x: (x * 2, None), lambda _, ct: (2 * ct if ct.sum() > 0 else ct + ct,))
    J = gj.jacrev(f, chunk_size=1, assembly=assembly)(X)
    np.testing.assert_array_equal(J, 2 * np.eye(3))
    with pytest.raises(gj.ConcretizationError):
        gj.jacrev(f, chunk_size=2, assembly=assembly)(X)


# ---------------------------------------------------------------- derivative rules (AF)


@parity("AF2")
def test_cotangents_of_results_that_nobody_used():
    seen = []

    def bwd(x, cts):
        seen.append(cts)
        a, b = cts
        return (2 * (0.0 if a is None else a) + (0.0 if b is None else 3 * b),)

    for symbolic in (False, True):
        f = gj.custom_vjp(lambda x: (2 * x, 3 * x))
        f.defvjp(lambda x: ((2 * x, 3 * x), None), bwd, symbolic_zeros=symbolic)
        np.testing.assert_allclose(gj.grad(lambda x, f=f: f(x)[0].sum())(X), [2, 2, 2])
        used, unused = seen.pop()
        assert used is not None
        assert (unused is None) is symbolic
        if not symbolic:
            np.testing.assert_array_equal(unused, np.zeros(3))


@parity("AF3")
def test_a_function_that_returns_its_input():
    f = gj.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, x), lambda x, ct: (2 * ct,))
    y, pullback = gj.vjp(f, X)
    assert not np.may_share_memory(y, X)
    np.testing.assert_array_equal(pullback(X)[0], 2 * X)
    y, dy = gj.jvp(f, (X,), (X,))
    assert not np.may_share_memory(y, X)
    np.testing.assert_array_equal(dy, 2 * X)
    for result in (gj.linearize(f, X)[0], gj.vmap(f)(X), gj.jacfwd(f, with_value=True)(X)[1]):
        assert not np.may_share_memory(result, X)

    def after_a_write(x):
        y = f(x)
        y[0] = 5.0
        return (x * x).sum()

    for value in (gj.value_and_grad(after_a_write)(X)[0], gj.jvp(after_a_write, (X,), (X,))[0],
                  gj.vmap(after_a_write)(X[None])[0]):  # fmt: skip
        np.testing.assert_allclose(value, (X * X).sum())
    assert f(X) is X


@parity("AF4")
def test_a_rule_is_told_what_is_differentiated():
    seen = []

    def bwd(kept, ct, needed):
        seen.append(needed)
        x, y = kept
        return (ct * y if needed[0] else None, ct * x if needed[1] else None)

    f = gj.custom_vjp(lambda x, y: x * y)
    f.defvjp(lambda x, y: (x * y, (x, y)), bwd, needs_input_grad=True)
    total = lambda x, y: f(x, y).sum()
    np.testing.assert_array_equal(gj.grad(total)(X, X + 1), X + 1)
    np.testing.assert_array_equal(gj.grad(total, 1)(X, X + 1), X)
    gj.grad(total, (0, 1))(X, X)
    assert seen == [(True, False), (False, True), (True, True)]
    nested = gj.grad(lambda x: gj.grad(lambda y: total(x, y) ** 2)(X).sum())(X)  # y inside, x outside
    wanted = gj.grad(lambda x: gj.grad(lambda y: (x * y).sum() ** 2)(X).sum())(X)
    np.testing.assert_allclose(nested, wanted)


@parity("AF5")
def test_a_rule_for_one_derivative_refuses_the_second():
    f = cube(vjp=once_differentiable(lambda x, ct: (3 * x**2 * ct,)))
    total = lambda x: f(x).sum()
    np.testing.assert_allclose(gj.grad(total)(X), 3 * X**2)
    with pytest.raises(gj.MissingRuleError, match=r"once_differentiable|one derivative|second"):
        gj.grad(lambda x: gj.grad(total)(x).sum())(X)


@parity("AF6")
def test_messages_and_repr_have_the_users_name():
    def my_function(x):
        return x * 2

    f = gj.custom_jvp(my_function)
    assert "my_function" in repr(f)
    with pytest.raises(gj.MissingRuleError, match="my_function"):
        gj.jvp(f, (X,), (X,))


@parity("P14")
def test_transforms_inside_rules():
    tangent = lambda x, t: gj.jvp(np.sin, (x,), (t,))[1]
    f = gj.custom_vjp(lambda x: np.sin(x))
    f.defvjp(lambda x: (gj.jvp(np.sin, (x,), (x,))[0], x), lambda x, ct: (tangent(x, ct),))
    for g in (gj.jacrev(f), gj.jacfwd(f), lambda x: gj.vmap(gj.grad(f))(x) * np.eye(3)):
        np.testing.assert_allclose(g(X), np.diag(np.cos(X)), atol=1e-15)
    np.testing.assert_allclose(gj.grad(gj.grad(f))(0.7), -np.sin(0.7))


# ---------------------------------------------------------------- batching rules (AV)


@parity("AV2")
def test_a_second_batching_rule_is_refused():
    rule = lambda info, in_dims, x: (x**3, in_dims[0])
    f = cube(vmap=rule)
    with pytest.raises(gj.RegistrationError, match="vmap rule already"):
        f.defvmap(rule)


@parity("AV3", "AV4")
def test_what_a_batching_rule_is_told():
    seen = []
    f = gj.custom_vjp(lambda x, pair, n: x * pair[0] + pair[1] * n)

    @f.defvmap
    def rule(info, in_dims, x, pair, n):
        seen.append((info.batch_size, info.randomness, in_dims))
        return np.moveaxis(x, in_dims[0], 0) * pair[0] + pair[1] * n, 0

    shared = [np.ones(3), 2.0]
    gj.vmap(lambda x: f(x, shared, 5))(B)
    gj.vmap(lambda x: f(x, shared, 5), in_dims=1, randomness="same")(B.T)
    (size, mode, dims), (_, other, moved) = seen
    assert (size, mode, other) == (2, "error", "same")
    assert type(dims) is tuple
    assert dims[0] == 0
    assert moved[0] == 1
    assert dims[1] in (None, [None, None])
    seen.clear()

    g = gj.custom_vjp(lambda xs: xs[0] + xs[1])
    g.defvmap(lambda info, in_dims, xs: (seen.append(in_dims), (xs[0] + xs[1], 0))[1])
    found = gj.vmap(lambda x, y: g([x, y]), in_dims=(0, None))(B, X)
    np.testing.assert_array_equal(found, B + X)
    assert seen == [([0, None],)]


@parity("AV5")
def test_a_batching_rule_is_not_asked_where_nothing_is_mapped():
    asked = []
    f = cube(**RIGHT, vmap=lambda info, in_dims, x: (asked.append(1), (x**3, in_dims[0]))[1])
    gj.vmap(lambda x: x + f(X))(B)
    gj.vmap(lambda x: gj.vmap(lambda y: y + x.sum() + f(X).sum())(B))(B)
    assert asked == []
    gj.vmap(lambda x: gj.vmap(lambda y: y + f(x))(B))(B)  # mapped by the outer one only
    assert asked == [1]


@parity("AV6")
def test_unmapped_results_of_a_batching_rule():
    f = gj.custom_vjp(lambda x: (x * 2, x * 0 + 1))
    f.defvmap(lambda info, in_dims, x: ((x * 2, np.ones(3)), (in_dims[0], None)))
    a, b = gj.vmap(f)(B)
    np.testing.assert_array_equal(a, 2 * B)
    np.testing.assert_array_equal(b, np.ones((2, 3)))
    g = gj.custom_vjp(lambda x: x * 0 + 1)
    g.defvmap(lambda info, in_dims, x: (np.ones(3), None))
    np.testing.assert_array_equal(gj.vmap(g)(B), np.ones((2, 3)))
    np.testing.assert_array_equal(gj.vmap(lambda x: x + g(x))(B), B + 1)


@parity("AV7", "AV8")
def test_batching_rules_that_return_something_else():
    wrong = [lambda info, in_dims, x: x**3, lambda info, in_dims, x: (x**3, 0, 0), lambda info, in_dims, x: [x**3, 0]]
    for rule in wrong:
        with pytest.raises(gj.StructureError, match="out_dims"):
            gj.vmap(cube(vmap=rule))(B)
    for out_dims in ((0, 0), {"a": 0}):
        with pytest.raises(gj.StructureError, match="out_dims"):
            gj.vmap(cube(vmap=lambda info, in_dims, x, d=out_dims: (x**3, d)))(B)


@parity("AV9")
def test_keyword_arguments_are_bound_by_the_signature():
    f = gj.custom_vjp(lambda x, w: x * w)
    f.defvjp(lambda x, w: (x * w, (x, w)), lambda kept, ct: (ct * kept[1], ct * kept[0]))
    found = gj.vmap(gj.grad(lambda x: f(w=X, x=x).sum()))(B)
    np.testing.assert_array_equal(found, np.stack([X, X]))
    only = gj.custom_vjp(lambda x, *, w: x * w)
    with pytest.raises(gj.ArgumentError, match="keyword"):
        only(X, w=X)

    def by_keyword(x: np.ndarray, *, w: np.ndarray) -> np.ndarray: ...

    with pytest.raises(gj.errors.RegistrationError, match="w"):
        gj.custom_op("parity::by_keyword", by_keyword)


# ---------------------------------------------------------------- cotangents of shared arguments (HP3)


@parity("HP3")
@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("explicit", [False, True])
def test_cotangents_of_mapped_and_shared_arguments(in_dims, explicit):
    """Mapped cotangent of a shared argument: summed; shared cotangent of a mapped one: repeated; else moved."""
    f = gj.custom_vjp(lambda x, w: x * w + w)
    constant = np.array([1.0, 2.0, 3.0])

    def bwd(kept, ct):
        x, w = kept
        return (constant * ct.sum() * 0 + ct * w, ct * (x + 1))

    f.defvjp(lambda x, w: (x * w + w, (x, w)), bwd)
    if explicit:
        f.defvmap(lambda info, dims, x, w: (x * w + w, 0))
    args = [B if d == 0 else X for d in in_dims]
    whole = lambda x, w: gj.vmap(f, in_dims)(x, w).sum()
    plain = lambda x, w: gj.vmap(lambda x, w: x * w + w, in_dims)(x, w).sum()
    for found, wanted in zip(gj.grad(whole, (0, 1))(*args), gj.grad(plain, (0, 1))(*args), strict=True):
        np.testing.assert_allclose(found, wanted)
    lanes = gj.vmap(gj.grad(lambda x, w: f(x, w).sum(), (0, 1)), in_dims)(*args)
    for found, wanted in zip(lanes, gj.vmap(gj.grad(lambda x, w: (x * w + w).sum(), (0, 1)), in_dims)(*args),
                             strict=True):  # fmt: skip
        np.testing.assert_allclose(found, wanted)


@parity("HP3")
def test_absent_cotangents():
    f = gj.custom_vjp(lambda x, w: x * w)
    f.defvjp(lambda x, w: (x * w, w), lambda w, ct: (ct * w, None))
    dx, dw = gj.vmap(gj.grad(lambda x, w: f(x, w).sum(), (0, 1)), (0, None))(B, X)
    np.testing.assert_array_equal(dx, np.stack([X, X]))
    np.testing.assert_array_equal(dw, np.zeros((2, 3)))
    dx, dw = gj.grad(lambda x, w: gj.vmap(f, (0, None))(x, w).sum(), (0, 1))(B, X)
    np.testing.assert_array_equal(dw, np.zeros(3))


@parity("HP3")
def test_cotangents_that_are_the_same_in_all_lanes():
    f = gj.custom_vjp(lambda x, w: x * w)
    f.defvjp(lambda x, w: (x * w, None), lambda _, ct: (np.ones(3), np.ones(3)))  # one per lane, whatever ct
    dx, dw = gj.grad(lambda x, w: gj.vmap(f, (0, None))(x, w).sum(), (0, 1))(B, X)
    np.testing.assert_array_equal(dx, np.ones((2, 3)))  # repeated for each lane
    np.testing.assert_array_equal(dw, np.full(3, 2.0))  # the two lanes' together


# ---------------------------------------------------------------- an op with a static argument (HO)


def sorted_along(x, axis):
    """Entries in order along an axis, with the derivative of a gather."""
    return np.sort(x, axis=axis)


@pytest.fixture
def ordered():
    f = gj.custom_vjp(sorted_along, nondiff_argnums=1)

    def fwd(x, axis):
        order = np.argsort(x, axis=axis)
        return np.take_along_axis(x, order, axis), order

    def bwd(axis, order, ct):
        return (np.take_along_axis(ct, np.argsort(order, axis=axis), axis),)

    f.defvjp(fwd, bwd)

    @f.defvmap
    def rule(info, in_dims, x, axis):
        x = np.moveaxis(x, in_dims[0], 0)
        return f(x, axis if axis < 0 else axis + 1), 0

    return f


@parity("HO1", "HO2")
def test_an_op_and_its_batches(ordered):
    M = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, -1.0]])
    np.testing.assert_array_equal(ordered(M, 0), np.sort(M, 0))
    stack = np.stack([M, -M, 2 * M])
    for axis in (0, 1, -1):
        found = gj.vmap(lambda x, axis=axis: ordered(x, axis))(stack)
        np.testing.assert_array_equal(found, np.stack([np.sort(x, axis) for x in stack]))
        twice = gj.vmap(gj.vmap(lambda x: ordered(x, 0)), in_dims=1)(stack)
        np.testing.assert_array_equal(twice, np.sort(stack, 2).swapaxes(0, 1))


@parity("HO3", "HO4", "HO5")
def test_derivatives_of_an_op(ordered):
    x, w = np.array([0.5, -2.0, 1.0]), np.array([1.0, 10.0, 100.0])
    loss = lambda x: (ordered(x, 0) ** 2 * w).sum()
    wanted = lambda x: 2 * x * w[np.argsort(np.argsort(x))]
    np.testing.assert_allclose(gj.grad(loss)(x), wanted(x))
    np.testing.assert_allclose(gj.grad(lambda x: gj.grad(loss)(x).sum())(x), wanted(x) / x)
    stack = np.stack([x, -x])
    np.testing.assert_allclose(gj.vmap(gj.grad(loss))(stack), np.stack([wanted(x), wanted(-x)]))
    stopped = lambda x: (gj.stop_gradient(ordered(x, 0)) * w).sum() + x.sum()
    np.testing.assert_array_equal(gj.grad(stopped)(x), np.ones(3))
    inside = lambda x: (ordered(gj.stop_gradient(x), 0) * x).sum()
    np.testing.assert_array_equal(gj.grad(inside)(x), np.sort(x))


@parity("HO6")
def test_names_are_kept(ordered):
    def model(x):
        """What it says."""
        return x

    assert ordered.__name__ == "sorted_along"
    assert "derivative of a gather" in ordered.__doc__
    for transform in (gj.grad, gj.vmap, gj.jacrev, gj.jacfwd, gj.hessian, gj.value_and_grad):
        assert transform(model).__name__ == "model"
        assert transform(model).__doc__ == "What it says."
