"""Threads: transforms that interleave never see each other."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpujac as gj

X = np.array([0.3, 1.1, 2.0])


def together(*calls):
    """The results of calls that run at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(call) for call in calls]]


def interleaved(barrier, factor):
    """A function whose every step waits for the other thread's."""

    def f(x):
        y = x
        for _ in range(5):
            barrier.wait(timeout=30)
            y = np.sin(y) * factor + y * x
        barrier.wait(timeout=30)
        return y

    return f


def plain(factor):
    def f(x):
        y = x
        for _ in range(5):
            y = np.sin(y) * factor + y * x
        return y

    return f


TRANSFORMS = {
    "grad": lambda f: gj.grad(lambda x: f(x).sum()),
    "jacrev": lambda f: gj.jacrev(f, chunk_size=2),
    "jacfwd": lambda f: gj.jacfwd(f, chunk_size=1),
    "hessian": lambda f: gj.hessian(lambda x: f(x).sum()),
    "vmap": lambda f: lambda x: gj.vmap(f)(np.stack([x, 2 * x])),
    "jvp": lambda f: lambda x: gj.jvp(f, (x,), (x,)),
    "nested": lambda f: lambda x: gj.vmap(gj.jacfwd(gj.grad(lambda z: f(z).sum())))(np.stack([x, 2 * x])),
}


@pytest.mark.parametrize("first", list(TRANSFORMS))
@pytest.mark.parametrize("second", list(TRANSFORMS))
def test_two_threads_step_by_step(first, second):
    barrier = threading.Barrier(2)
    found = together(
        lambda: TRANSFORMS[first](interleaved(barrier, 0.5))(X),
        lambda: TRANSFORMS[second](interleaved(barrier, 2.0))(X),
    )
    for result, name, factor in zip(found, (first, second), (0.5, 2.0), strict=True):
        for a, b in zip(np.atleast_1d(*[result]), np.atleast_1d(*[TRANSFORMS[name](plain(factor))(X)]), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_later_level_of_one_thread_does_not_capture_the_other():
    opened, done = threading.Event(), threading.Event()

    def slow(x):
        y = x * x
        opened.set()
        assert done.wait(timeout=30)
        return (y * x).sum()

    def quick():
        assert opened.wait(timeout=30)
        try:
            return gj.grad(lambda x: (x**2).sum())(X)  # opened later, finished earlier
        finally:
            done.set()

    a, b = together(lambda: gj.grad(slow)(X), quick)
    np.testing.assert_allclose(a, 3 * X**2)
    np.testing.assert_allclose(b, 2 * X)


def test_one_pullback_may_be_called_from_many_threads():
    _, pullback = gj.vjp(lambda x: np.sin(x) * x.sum(), X)
    expected = pullback(X)[0]
    barrier = threading.Barrier(4)

    def call():
        barrier.wait(timeout=30)
        return [pullback(X)[0] for _ in range(50)]

    for results in together(*[call] * 4):
        for result in results:
            np.testing.assert_array_equal(result, expected)


def test_many_threads_and_many_small_transforms():
    f = lambda x: (np.tanh(x) ** 2).sum()
    expected = gj.grad(f)(X), gj.hessian(f)(X)

    def work():
        return [(gj.grad(f)(X), gj.hessian(f)(X)) for _ in range(30)]

    for results in together(*[work] * 4):
        for g, H in results:
            np.testing.assert_array_equal(g, expected[0])
            np.testing.assert_array_equal(H, expected[1])


def test_user_threads_inside_f_work_on_plain_results():
    def f(x):
        weights = gj.value(x)
        with ThreadPoolExecutor(2) as pool:
            parts = list(pool.map(lambda k: gj.grad(lambda w: (w**k).sum())(weights), (2, 3)))
        return (x * parts[0] + parts[1]).sum()

    np.testing.assert_allclose(gj.grad(f)(X), 2 * X)


def test_settings_of_one_thread_do_not_reach_the_other():
    inside, seen = threading.Barrier(2), []

    def capped():
        with gj.settings.override(memory=1):
            inside.wait(timeout=30)
            gj.jacrev(np.cumsum, report=seen.append)(np.ones(20))
            inside.wait(timeout=30)

    def free():
        inside.wait(timeout=30)
        plans = []
        gj.jacrev(np.cumsum, report=plans.append)(np.ones(20))
        inside.wait(timeout=30)
        return plans[0]

    _, plan = together(capped, free)
    assert seen[0].chunk_size == 1
    assert plan.chunks == 1
