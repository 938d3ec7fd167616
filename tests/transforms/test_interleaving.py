"""What threads share, made to interleave where it would hurt; and tasks of asyncio."""

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

import gpujac as gj
import gpujac.numpy as gnp
from gpujac.backends.memory import freeze, is_frozen, thaw
from gpujac.core.trace import OPEN
from gpujac.ops.structure import sum_over
from gpujac.program import ir
from gpujac.program.ir import Scale
from gpujac.ranges import record
from gpujac.transforms.jvp import JvpTrace

X = np.array([0.3, 1.1, 2.0])


def together(*calls):
    """The results of calls that run at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(call) for call in calls]]


def test_two_threads_resolve_one_coefficient(monkeypatch):
    """Both find a coefficient that is not computed yet; the slower one begins when the faster one is done."""
    _, pullback = gj.vjp(lambda x: np.sin(np.exp(x)) * x, X)
    expected = gj.vjp(lambda x: np.sin(np.exp(x)) * x, X)[1](X)[0]
    waiting, done = threading.Event(), threading.Event()
    resolve = Scale.resolve
    slow = []

    def late(entry):
        if threading.get_ident() == slow[0]:
            waiting.set()
            assert done.wait(timeout=30)
        return resolve(entry)

    monkeypatch.setattr(Scale, "resolve", late)

    def slower():
        slow.append(threading.get_ident())
        return pullback(X)[0]

    def faster():
        assert waiting.wait(timeout=30)
        try:
            return pullback(X)[0]
        finally:
            done.set()

    for found in together(slower, faster):
        np.testing.assert_array_equal(found, expected)


def test_a_coefficient_is_resolved_while_another_thread_is_inside(monkeypatch):
    _, pullback = gj.vjp(lambda x: np.sin(np.exp(x)) * x, X)
    expected = gj.vjp(lambda x: np.sin(np.exp(x)) * x, X)[1](X)[0]
    barrier = threading.Barrier(2)
    compute = ir.coefficient

    def inside(*args):
        c = compute(*args)
        if not barrier.broken:
            with suppress(threading.BrokenBarrierError):  # the other thread found this one computed
                barrier.wait(timeout=1)
        return c

    monkeypatch.setattr(ir, "coefficient", inside)
    for found in together(lambda: pullback(X)[0], lambda: pullback(X)[0]):
        np.testing.assert_array_equal(found, expected)


def test_open_traces_of_one_thread_are_not_the_others():
    inside = threading.Barrier(2)
    seen = {}

    def call(name, depth):
        def f(x):
            inside.wait(timeout=30)
            seen[name] = [t.origin for t in OPEN.traces]
            inside.wait(timeout=30)
            return (x * x).sum()

        f.__name__ = name
        if depth == 1:
            return gj.grad(f)(X)
        return gj.vmap(gj.jacfwd(f))(np.stack([X, X]))

    together(lambda: call("one", 1), lambda: call("two", 2))
    assert seen == {"one": ["one"], "two": ["two", "two"]}
    assert OPEN.traces == []


def test_arrays_that_a_namespace_makes_belong_to_the_transform_of_their_thread():
    inside = threading.Barrier(2)

    def f(x):
        inside.wait(timeout=30)
        y = gnp.zeros(3)
        inside.wait(timeout=30)
        y[0] = x[0] * 2.0
        return (y * x).sum()

    expected = 4.0 * X * np.array([1.0, 0.0, 0.0])
    for found in together(lambda: gj.grad(f)(X), lambda: gj.grad(f)(X)):
        np.testing.assert_allclose(found, expected)


def test_ranges_of_two_threads_nest_each_in_its_own():
    inside = threading.Barrier(2)

    def f(x):
        inside.wait(timeout=30)
        y = np.sin(x)
        inside.wait(timeout=30)
        return y

    with record() as events:
        together(lambda: gj.jacrev(f)(X), lambda: gj.jacfwd(f)(X))
    for thread in {e.thread for e in events}:
        own = [(e.depth, e.name) for e in events if e.thread == thread]
        assert own[0][1] in ("jacrev", "jacfwd")
        assert own[1:] == [(1, "linearize"), (1, "chunk"), (2, "basis"), (2, "sweep"), (2, "assemble")]
    assert all(e.end_ns is not None for e in events)


def test_debug_nans_of_one_thread_leaves_the_other_alone():
    inside = threading.Barrier(2)

    def f(x):
        inside.wait(timeout=30)
        with np.errstate(all="ignore"):
            y = np.log(x - x)
        inside.wait(timeout=30)
        return y

    def strict():
        with gj.settings.override(debug_nans=True):
            try:
                gj.vjp(f, X)
            except gj.NonFiniteError as error:
                inside.wait(timeout=30)
                return str(error)

    def lax():
        return gj.vjp(f, X)[0]

    message, y = together(strict, lax)
    assert "log is not finite" in message
    assert np.isinf(y).all()


def test_one_large_constant_is_held_by_two_threads_and_writable_after_the_last():
    wide = np.linspace(0.0, 1.0, 8000)
    locked, release = threading.Barrier(2), threading.Barrier(2)
    states = []

    def first(x):
        y = (x[0] * wide).sum()
        locked.wait(timeout=30)
        return y

    def second(x):
        y = (x[0] * wide).sum()
        locked.wait(timeout=30)
        release.wait(timeout=30)  # the first transform has ended
        states.append(wide.flags.writeable)
        return y

    def run_first():
        g = gj.grad(first)(X)
        release.wait(timeout=30)
        return g

    for g in together(run_first, lambda: gj.grad(second)(X)):
        np.testing.assert_allclose(g, [wide.sum(), 0.0, 0.0])
    assert states == [False]
    assert wide.flags.writeable


def test_locking_an_array_in_many_threads_at_once_always_ends_unlocked():
    wide = np.linspace(0.0, 1.0, 8000)
    barrier = threading.Barrier(4)

    def work():
        for _ in range(50):
            barrier.wait(timeout=30)
            held = []
            freeze(wide, held)
            assert not wide.flags.writeable
            thaw(held)

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        together(*[work] * 4)
    finally:
        sys.setswitchinterval(old)
    assert wide.flags.writeable
    assert not is_frozen()


def test_op_factories_give_one_op_or_equal_ones():
    barrier = threading.Barrier(8)
    shapes = [(k + 101, 3) for k in range(40)]

    def make():
        barrier.wait(timeout=30)
        return [(sum_over(shape, (-1,)), sum_over(shape, (-1,)).transposed) for shape in shapes]

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        first, *others = together(*[make] * 8)
    finally:
        sys.setswitchinterval(old)
    assert all(other == first for other in others)


def test_levels_never_repeat():
    barrier = threading.Barrier(8)
    levels = []

    def work():
        barrier.wait(timeout=30)
        for _ in range(200):
            trace = JvpTrace("f")
            levels.append(trace.level)
            trace.close()

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        together(*[work] * 8)
    finally:
        sys.setswitchinterval(old)
    assert len(set(levels)) == len(levels) == 1600


def test_a_leaked_array_of_another_thread_names_its_line():
    kept = []

    def leak():
        return gj.grad(lambda x: (kept.append(x * 2), x.sum())[1])(X)  # leaked

    together(leak)
    with pytest.raises(gj.LeakedTracerError, match="# leaked"):
        kept[0] + 1


def test_a_traced_array_may_be_used_in_a_worker_while_the_transform_waits():
    def f(x):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: (np.sin(x) * x).sum()).result(timeout=30)

    np.testing.assert_allclose(gj.grad(f)(X), np.cos(X) * X + np.sin(X))


# ---------------------------------------------------------------- asyncio: tasks of one thread


def test_tasks_that_take_turns_never_see_each_other():
    """A function is never suspended while a transform is open, so what is open need not follow tasks."""

    async def work(k):
        results = []
        for _ in range(5):
            _, pullback = gj.vjp(lambda x: np.sin(x) * k, X)
            await asyncio.sleep(0)
            assert OPEN.traces == []
            results.append(pullback(np.ones(3))[0])
            await asyncio.sleep(0)
            results.append(gj.jacrev(lambda x: x**k)(X).sum(axis=0))
        return results

    async def main():
        return await asyncio.gather(*[work(k) for k in (2, 3, 4)])

    for k, results in zip((2, 3, 4), asyncio.run(main()), strict=True):
        for a, b in zip(results[::2], results[1::2], strict=True):
            np.testing.assert_allclose(a, np.cos(X) * k)
            np.testing.assert_allclose(b, k * X ** (k - 1))


def test_settings_overridden_in_a_task_stay_in_it_and_follow_it_into_a_thread():
    plans = {}

    async def capped():
        with gj.settings.override(memory=1):
            await asyncio.sleep(0)
            gj.jacrev(np.cumsum, report=lambda plan: plans.setdefault("capped", plan))(np.ones(20))
            report = lambda plan: plans.setdefault("worker", plan)
            await asyncio.to_thread(gj.jacrev(np.cumsum, report=report), np.ones(20))

    async def free():
        await asyncio.sleep(0)
        gj.jacrev(np.cumsum, report=lambda plan: plans.setdefault("free", plan))(np.ones(20))

    async def main():
        await asyncio.gather(capped(), free())

    asyncio.run(main())
    assert {name: plan.chunk_size for name, plan in plans.items()} == {
        "capped": 1, "worker": 1, "free": plans["free"].chunk_size
    }  # fmt: skip
    assert plans["free"].chunks == 1


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_coroutine_is_no_function_of_arrays():
    async def f(x):
        return x.sum()

    with pytest.raises(gj.ArgumentTypeError, match="coroutine"):
        gj.grad(f)(X)
