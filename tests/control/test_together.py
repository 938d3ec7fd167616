"""Control flow with what else holds functions or keeps watch: checkpoints, custom rules, keys, threads."""

import threading
import warnings

import numpy as np
import pytest

import gpujac as gj
from tests.control import flows

every_flow = pytest.mark.parametrize(("f", "plain"), flows.PAIRS.values(), ids=list(flows.PAIRS))


@every_flow
def test_inside_of_a_checkpoint(f, plain):
    X = flows.batch()
    kept = gj.checkpoint(f)
    J = np.stack([gj.jacrev(plain)(x) for x in X])
    np.testing.assert_allclose(gj.vmap(gj.jacrev(kept))(X), J, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gj.vmap(gj.jacfwd(kept))(X), J, rtol=1e-12, atol=1e-13)
    found = gj.grad(lambda X: gj.vmap(kept)(X).sum())(X)
    np.testing.assert_allclose(found, J.sum(1), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gj.jacrev(kept)(X[1]), J[1], rtol=1e-12, atol=1e-13)
    H = gj.hessian(plain)(X[0])
    np.testing.assert_allclose(gj.vmap(gj.hessian(kept))(X)[0], H, rtol=1e-10, atol=1e-11)


def test_a_checkpoint_inside_of_a_branch_and_of_a_loop():
    body = gj.checkpoint(lambda x: np.sin(x) * x)
    f = lambda x: gj.cond(x > 0, lambda x: gj.fori_loop(0, 3, lambda i, s: body(s) + i, x), body, x)

    def plain(x):
        if x > 0:
            for i in range(3):
                x = np.sin(x) * x + i
            return x
        return np.sin(x) * x

    xs = np.array([0.5, -1.0, 2.0])
    wanted = np.array([gj.grad(plain)(x) for x in (0.5, -1.0, 2.0)])
    np.testing.assert_allclose(gj.vmap(gj.grad(f))(xs), wanted, rtol=1e-12)
    np.testing.assert_allclose(gj.grad(lambda xs: gj.vmap(f)(xs).sum())(xs), wanted, rtol=1e-12)


def test_rules_of_a_custom_function_may_branch():
    @gj.custom_jvp
    def forward(x):
        return np.where(x > 0, x * x, np.sin(x))

    @forward.defjvp
    def rule(primals, tangents):
        (x,), (t,) = primals, tangents
        return forward(x), gj.cond(x > 0, lambda t: 2 * x * t, lambda t: np.cos(x) * t, t)

    @gj.custom_vjp
    def backward(x):
        return np.where(x > 0, x * x, np.sin(x))

    backward.defvjp(
        lambda x: (backward(x), x),
        lambda x, ct: (gj.cond(x > 0, lambda ct: 2 * x * ct, lambda ct: np.cos(x) * ct, ct),),
    )
    xs = np.array([1.0, -1.0, 2.0])
    wanted = np.where(xs > 0, 2 * xs, np.cos(xs))
    for f in (forward, backward):
        np.testing.assert_allclose(gj.vmap(gj.grad(f))(xs), wanted, rtol=1e-14)
        np.testing.assert_allclose(gj.grad(lambda xs, f=f: gj.vmap(f)(xs).sum())(xs), wanted, rtol=1e-14)
        np.testing.assert_allclose(gj.jacrev(gj.vmap(f), chunk_size=2)(xs), np.diag(wanted), rtol=1e-14)
    np.testing.assert_allclose(gj.vmap(lambda x: gj.jvp(forward, (x,), (1.0,))[1])(xs), wanted, rtol=1e-14)


def test_custom_functions_inside_of_branches_and_loops():
    @gj.custom_vjp
    def clipped(x):
        return np.minimum(x, 10.0)

    clipped.defvjp(lambda x: (clipped(x), None), lambda _, ct: (ct,))  # as if it were not clipped
    f = lambda x: gj.while_loop(lambda s: s < 9, lambda s: clipped(s * s), x)
    xs = np.array([2.0, 5.0, 20.0])
    np.testing.assert_allclose(gj.vmap(f)(xs), [10.0, 10.0, 20.0])
    np.testing.assert_allclose(gj.vmap(gj.grad(f))(xs), [32.0, 10.0, 1.0])
    np.testing.assert_allclose(gj.grad(lambda xs: gj.vmap(f)(xs).sum())(xs), [32.0, 10.0, 1.0])


def doubled(x, k):
    """x doubled as often as k must be to reach ten: for ever where k is not above zero."""
    return gj.while_loop(lambda s: s[1] < 10, lambda s: (s[0] * 2, s[1] * 2), (x, k))[0]


def pieces(x):
    """x² where x > 2, else x; lane by lane of a vmap of its own."""
    return gj.vmap(lambda v: gj.cond(v > 2, lambda v: v * v, lambda v: v, v))(np.stack([x, x * 2, x + 1])).sum()


def slopes(x):
    return gj.vmap(lambda v: gj.cond(v > 2, lambda v: 2 * v, lambda v: 0 * v + 1, v))(np.stack([x, x * 2, x + 1]))


def with_rules(f, slope):
    """`f` of (x, k) with a cotangent rule, with a tangent rule and in a checkpoint; they loop and branch, too."""
    of_vjp, of_jvp = gj.custom_vjp(f), gj.custom_jvp(f)
    of_vjp.defvjp(lambda x, k: (f(x, k), (x, k)), lambda kept, ct: (slope(*kept) * ct, None))
    of_jvp.defjvp(lambda p, t: (f(*p), slope(*p) * t[0]))
    return {"vjp": of_vjp, "jvp": of_jvp, "vjp again": gj.checkpoint(of_vjp), "jvp again": gj.checkpoint(of_jvp)}


LOOPING = with_rules(doubled, lambda x, k: doubled(1.0 + 0 * x, k))
BRANCHING = with_rules(lambda x, k: pieces(x) * k, lambda x, k: slopes(x) @ np.array([1.0, 2.0, 1.0]) * k)
RULES = [(LOOPING[name], doubled) for name in LOOPING] + [
    (BRANCHING[name], lambda x, k: pieces(x) * k) for name in BRANCHING
]
SWEEPS = {
    "vmap": lambda f: f,
    "jacrev": gj.jacrev,
    "jacfwd": gj.jacfwd,
    "gradient of a jvp": lambda f: gj.grad(lambda x, k: gj.jvp(lambda x: f(x, k), (x,), (np.cos(x),))[1].sum()),
    "linear transpose": lambda f: lambda x, k: gj.linear_transpose(gj.linearize(lambda x: f(x, k), x)[1], x)(x)[0],
}


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
@pytest.mark.parametrize(("f", "plain"), RULES, ids=[f"{a} {b}" for a in ("loop", "branch") for b in LOOPING])
def test_rules_in_a_branch_go_by_the_lanes_that_take_it(f, plain, sweep):
    """Derivatives around the lanes and inside of them; a lane that watches would loop for ever."""
    x, k = np.array([[1.0, 2.5, 3.0], [4.0, -1.0, 0.5]]), np.array([[1.0, -1.0, 3.0], [-2.0, 4.0, 12.0]])
    two = lambda f: gj.vmap(gj.vmap(f))
    branch = lambda f: lambda x, k: gj.cond(k > 0, lambda: f(x, k) * x, lambda: x * 3)
    lane_by_lane = lambda x, k: np.stack([np.stack([branch(plain)(*p) for p in zip(*row)]) for row in zip(x, k)])
    np.testing.assert_allclose(sweep(two(branch(f)))(x, k), sweep(lane_by_lane)(x, k), rtol=1e-12)
    single = [[sweep(branch(plain))(x[i, j], k[i, j]) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(two(sweep(branch(f)))(x, k), single, rtol=1e-12)


@pytest.mark.parametrize(("f", "plain"), RULES[6:], ids=list(LOOPING)[2:])
def test_a_checkpoint_refuses_lanes_that_its_arguments_do_not_have(f, plain):
    k = np.array([1.0, -1.0, 3.0])
    lanes = lambda x: gj.vmap(lambda k: gj.cond(k > 0, lambda: f(x, 2.0) * k, lambda: x * k))(k)
    for t in (gj.jacfwd, gj.jacrev):
        with pytest.raises(gj.MissingRuleError, match="Pass that value as one more argument"):
            t(lanes)(1.5)


@pytest.mark.parametrize(("f", "plain"), RULES[4:6], ids=list(LOOPING)[:2])
def test_what_a_rule_decides_is_no_matter_of_lanes_that_its_arguments_do_not_have(f, plain):
    k = np.array([1.0, -1.0, 3.0])
    lanes = lambda f: lambda x: gj.vmap(lambda k: gj.cond(k > 0, lambda: f(x, 2.0) * k, lambda: x * k))(k)
    outer = lambda f: lambda x: gj.vmap(lambda v: lanes(f)(v))(x)
    for t in (gj.jacfwd, gj.jacrev, lambda f: gj.vmap(f, in_dims=None, axis_size=2)):
        np.testing.assert_allclose(t(lanes(f))(1.5), t(lanes(plain))(1.5), rtol=1e-12)
        np.testing.assert_allclose(t(outer(f))(k), t(outer(plain))(k), rtol=1e-12)
    unmapped = lambda f: gj.vmap(lambda k, x: gj.cond(k > 0, lambda: f(x, 2.0) * k, lambda: x * k), in_dims=(0, None))
    for t in (gj.jacfwd, gj.jacrev):
        found, wanted = (t(unmapped(g), argnums=1)(k, 1.5) for g in (f, plain))
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("rule", [False, True])
def test_an_operation_in_a_branch_computes_for_all_of_its_lanes(rule):
    """Its implementation and its batching rule are plain code of arrays."""
    f = lambda x: gj.vmap(lambda v: gj.cond(v > 2, lambda v: v * v, lambda v: v, v))(x)

    def inside(x: np.ndarray) -> np.ndarray: ...

    op = gj.custom_op("together::inside", inside)
    try:
        gj.impl(op, func=f)
        custom = gj.custom_vjp(lambda x: f(x))
        custom.defvmap(lambda info, dims, x: (gj.vmap(f)(x), 0))
        if rule:
            gj.impl_vmap(op, lambda info, dims, x: (gj.vmap(f)(np.moveaxis(x, dims[0], 0)), 0))
        x = np.array([[1.0, -1.0, 3.0, 4.0], [-1.0, 1.0, -3.0, -4.0], [2.5, 2.0, -1.0, 0.0]])
        for g in (op, custom) if rule else (op,):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore" if not rule else "error")
                found = gj.vmap(lambda x, g=g: gj.cond(x[0] > 0, g, lambda x: -x, x))(x)
            np.testing.assert_array_equal(found, np.stack([f(r) if r[0] > 0 else -r for r in x]))
    finally:
        gj.control.remove_custom_op(op)


def test_what_only_watches_is_no_matter_for_debug_nans():
    xs = np.array([4.0, -1.0, 0.0])
    with gj.settings.override(debug_nans=True):
        f = lambda x: gj.cond(x > 0, lambda: np.sqrt(x) / x, lambda: 0 * x)
        np.testing.assert_array_equal(gj.vmap(f)(xs), [0.5, 0.0, 0.0])
        g = gj.vmap(gj.grad(lambda x: gj.cond(x > 0, lambda x: np.sqrt(x), lambda x: 0 * x, x)))(xs)
        np.testing.assert_array_equal(g, [0.25, 0.0, 0.0])
        with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="log"):
            gj.vmap(lambda x: np.log(x))(xs[2:])
        assert gj.settings.debug_nans


def test_warnings_of_the_only_branch_are_heard():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="sqrt"):
            gj.vmap(lambda x: gj.cond(x < 0, np.sqrt, lambda x: x, x))(np.array([-1.0, -2.0]))
        with pytest.raises(RuntimeWarning, match="sqrt"):
            gj.cond(True, np.sqrt, np.sin, np.array(-1.0))


def test_two_threads_do_not_share_what_takes_part():
    inside, looked = threading.Event(), threading.Event()
    seen = []

    def waiting(x):
        inside.set()
        looked.wait(10)
        return x

    def other():
        inside.wait(10)
        count = gj.vmap(lambda n: gj.while_loop(lambda i: i < n, lambda i: i + 1, 0))(np.array([1, 4, 2, 3]))
        seen.append(count)
        looked.set()

    thread = threading.Thread(target=other)
    thread.start()
    found = gj.vmap(lambda p, x: gj.cond(p, waiting, lambda x: -x, x))(np.array([True, False]), np.ones(2))
    thread.join()
    np.testing.assert_array_equal(found, [1.0, -1.0])
    np.testing.assert_array_equal(seen[0], [1, 4, 2, 3])


def test_keys_may_be_carried():
    def walk(key, n):
        def step(s):
            key, x, i = s
            key, sub = gj.random.split(key)
            return key, x + gj.random.normal(sub), i + 1

        return gj.while_loop(lambda s: s[2] < n, step, (key, 0.0, 0))[1]

    keys, ns = gj.random.split(gj.random.key(3), 3), np.array([0, 2, 1])
    found = gj.vmap(walk)(keys, ns)
    np.testing.assert_allclose(found, [walk(keys[i], int(ns[i])) for i in range(3)], rtol=1e-14)


def test_the_linear_part_of_a_loop_is_swept_without_running_it_again():
    calls = []

    def step(s):
        calls.append(1)
        return s * s

    y, lin = gj.linearize(gj.vmap(lambda x: gj.while_loop(lambda s: s < 100, step, x)), np.array([2.0, 3.0, 50.0]))
    count = len(calls)
    for k in range(3):
        t = np.eye(3)[k]
        np.testing.assert_allclose(lin(t), t * np.array([8 * 2.0**7, 8 * 3.0**7, 100.0]))
    np.testing.assert_array_equal(y, [256.0, 6561.0, 2500.0])
    assert len(calls) == count == 3
