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
