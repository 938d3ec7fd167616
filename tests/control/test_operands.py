"""What a branch does to its operands and what is done to its result: the same whatever the lanes decide."""

import numpy as np
import pytest

import gpujac as gj

AGREE = np.array([[1.0, 2.0, -1.0], [3.0, 5.0, 0.5]])
DIFFER = np.array([[1.0, 2.0, -1.0], [-3.0, 5.0, 0.5]])
batches = pytest.mark.parametrize("X", [AGREE, DIFFER, -AGREE, DIFFER[:0]], ids=["agree", "differ", "no", "empty"])


def identity(v):
    return v


def doubled(v):
    v *= 2.0
    return v


def written(v):
    v[1] = v[0] * v[2]
    return v[::-1]


def result_written(v):
    y = gj.cond(v[0] > 0, identity, identity, v)
    y[0] = 9.0
    return v.sum() + y[0]


def operand_written(v):
    y = gj.cond(v[0] > 0, doubled, identity, v)
    return v.sum() * y[1]


def view_of_a_view(v):
    part = v[1:]
    y = gj.switch(np.floor(v[0]).astype(np.int64), [identity, doubled, identity], part)
    y[0] += v[1]
    return (y * part).sum() + v[1]


def captured_and_written(v):
    t = v * 2.0
    y = gj.cond(v[0] > 0, lambda: t, lambda: t * 3.0)
    y[1] = 4.0
    return t.sum() + y.sum()


def captured_by_both(v):
    t = v * 2.0
    y = gj.cond(v[0] > 0, lambda: t, lambda: t)
    y[1] = 4.0
    return t.sum() + y.sum()


def made_inside(v):
    t = np.zeros(3)  # a plain array
    y = gj.cond(v[0] > 0, lambda: t, lambda: t + 1.0)
    y[0] = 5.0
    return t.sum() + (y * v).sum()


def twice_one_operand(v):
    def f(a, b):
        a[0] = 7.0
        return a * b

    return gj.cond(v[0] > 0, f, lambda a, b: a + b, v, v).sum() + v[0]


def one_array_twice(v):
    a, b = gj.cond(v[0] > 0, lambda v: (v, v), lambda v: (v, v * 2), v)
    a[0] = 3.0
    return (a * b).sum() + v[0]


def tree(v):
    def f(s):
        s["a"][0][0] = 2.0
        s["b"] = s["a"][0] * 1.0
        return s

    state = {"a": [v * 1.0], "b": v}
    out = gj.cond(v[0] > 0, f, identity, state)
    return (out["a"][0] * out["b"]).sum() + (state["a"][0] * state["b"]).sum()


def state_captured(v):
    t = v * 1.0

    def body(s):
        x, i = s
        x[0] += 1.0
        return t * x[0], i + 1

    n = np.where(v[0] > 0, 2, 1)
    x = gj.while_loop(lambda s: s[1] < n, body, (t, 0))[0]
    x[1] = 0.5
    return (x * t).sum()


# each with private operands and results written out, and Python's own branch
def plain_switch(index, branches, *operands):
    i = min(max(int(gj.value(index)), 0), len(branches) - 1)
    return branches[i](*[x.copy() for x in operands]).copy()


PLAIN = {
    result_written: lambda v: v.sum() + 9.0 + 0 * v[0],
    operand_written: lambda v: v.sum() * (2 * v[1] if gj.value(v)[0] > 0 else v[1]),
    view_of_a_view: lambda v: (
        lambda w: w[0] * v[1] + v[1] * v[1] + w[1] * v[2] + v[1]
    )(plain_switch(np.floor(gj.value(v)[0]), [identity, doubled, identity], v[1:])),
    captured_and_written: lambda v: 2 * v.sum() + (v[0] + v[2]) * (2 if gj.value(v)[0] > 0 else 6) + 4.0,
    captured_by_both: lambda v: 2 * v.sum() + (v[0] + v[2]) * 2 + 4.0,
    made_inside: lambda v: 5 * v[0] + (0 if gj.value(v)[0] > 0 else 1) * (v[1] + v[2]),
    twice_one_operand: lambda v: (
        7 * v[0] + v[1] ** 2 + v[2] ** 2 if gj.value(v)[0] > 0 else 2 * v.sum()
    ) + v[0],
    one_array_twice: lambda v: (
        (3 * v[0] + v[1] ** 2 + v[2] ** 2) if gj.value(v)[0] > 0 else 2 * (3 * v[0] + v[1] ** 2 + v[2] ** 2)
    ) + v[0],
    tree: lambda v: (
        (4.0 + v[1] ** 2 + v[2] ** 2 if gj.value(v)[0] > 0 else (v * v).sum()) + (v * v).sum()
    ),
    state_captured: lambda v: (lambda c: c * v[0] ** 2 + 0.5 * v[1] + c * v[2] ** 2)(
        v[0] * (v[0] + 1) + 1 if gj.value(v)[0] > 0 else v[0] + 1
    ),
}  # fmt: skip
every_function = pytest.mark.parametrize("f", PLAIN, ids=[f.__name__ for f in PLAIN])


@every_function
@batches
def test_lanes_together_are_lanes_alone(f, X):
    wanted = np.array([PLAIN[f](x) for x in X], float)
    kept = X.copy()
    np.testing.assert_allclose(gj.vmap(f)(X), wanted, rtol=1e-13)
    np.testing.assert_array_equal(X, kept)
    if len(X):
        np.testing.assert_allclose(gj.vmap(f, method="loop")(X.copy()), wanted, rtol=1e-13)
        np.testing.assert_allclose(gj.vmap(f, chunk_size=1)(X), wanted, rtol=1e-13)


@every_function
@batches
def test_alone_without_a_transform(f, X):
    for x in X:
        np.testing.assert_allclose(f(x.copy()), PLAIN[f](x), rtol=1e-13)


@every_function
@batches
def test_derivatives(f, X):
    slopes = np.array([gj.grad(PLAIN[f])(x) for x in X]).reshape(X.shape)
    np.testing.assert_allclose(gj.vmap(gj.grad(f))(X), slopes, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gj.grad(lambda X: gj.vmap(f)(X).sum())(X), slopes, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gj.vmap(gj.jacfwd(f))(X), slopes, rtol=1e-12, atol=1e-13)
    for x, slope in zip(X, slopes):
        np.testing.assert_allclose(gj.grad(f)(x), slope, rtol=1e-12, atol=1e-13)


def test_what_is_no_array_reaches_a_branch_and_leaves_it_as_it_is():
    token = object()
    assert gj.cond(True, identity, identity, token) is token
    assert gj.cond(False, identity, lambda x: None, token) is None
    assert gj.switch(0, [identity], "text") == "text"
    assert type(gj.cond(True, identity, identity, 1.5)) is float


@pytest.mark.parametrize("method", ["batch", "loop"])
def test_a_key_given_to_a_branch_or_carried_by_a_loop_is_still_the_lanes_own(method):
    keys = gj.random.split(gj.random.key(3), 3)
    wanted = [float(gj.random.normal(k)) for k in keys]
    branch = lambda k: gj.cond(True, lambda k: gj.random.normal(k), lambda k: 0.0, k)
    carried = lambda k: gj.while_loop(lambda s: s[1] < 1, lambda s: (gj.random.normal(s[2]), 1, s[2]), (0.0, 0, k))[0]
    for f in (branch, carried):
        np.testing.assert_allclose(gj.vmap(f, method=method)(keys), wanted, rtol=1e-15)
