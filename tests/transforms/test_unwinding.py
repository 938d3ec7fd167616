"""An exception at any operation, in f or in a sweep, leaves nothing open and nothing changed."""

import itertools
from functools import partial

import numpy as np
import pytest

import gpujac as gj
from gpujac import settings
from gpujac.backends import memory
from gpujac.core import call, op, taking, trace
from gpujac.ops import contract
from gpujac.program import ir
from gpujac.ranges import record
from gpujac.transforms import batch, tangent
from gpujac.transforms import record as recording
from tests.transforms import helpers as h

X = np.array([0.4, 1.2])
WIDE = np.linspace(0.1, 1.0, 5000)  # too large to be copied: held read-only while a program needs it


class BoomError(Exception):
    pass


class Stop(BaseException):
    """As KeyboardInterrupt, which a test runner would take for its own."""


# ---------------------------------------------------------------- the hook

_BINDS = ("unary", "binary", "pointwise", "linear", "joint", "general", "call")
_PLACES = [
    *[(kind, name) for kind in (tangent.TangentTrace, batch.VmapTrace, recording.RecordTrace) for name in _BINDS],
    *[(kind, "__call__") for kind in (op.Unary, op.Binary, op.Ternary, op.Linear, op.Joint, op.General)],
    (contract.Contract, "__call__"), (call.Call, "__call__"), (ir.Scale, "resolve"),
]  # fmt: skip


class Hook:
    """Counts operations (binds, plain calls, coefficients) and raises at the one numbered `at`."""

    def __init__(self, monkeypatch):
        self.count, self.at, self.error = 0, 0, BoomError
        for kind, name in _PLACES:
            if name in vars(kind):
                monkeypatch.setattr(kind, name, self.around(vars(kind)[name]))

    def around(self, method):
        def counted(*args, **kwargs):
            self.count += 1
            if self.count == self.at:
                raise self.error(f"operation {self.at}")
            return method(*args, **kwargs)

        return counted

    def run(self, call, at=0, error=BoomError):
        self.count, self.at, self.error = 0, at, error
        try:
            return call()
        finally:
            self.at = 0


@pytest.fixture
def hook(monkeypatch):
    return Hook(monkeypatch)


def nothing_is_left(events):
    assert trace.OPEN.traces == []
    assert taking.mask() is None
    assert not memory.is_frozen()
    assert WIDE.flags.writeable
    assert X.flags.writeable
    assert all(e.end_ns is not None for e in events)
    assert settings.get("memory") is None


# ---------------------------------------------------------------- what is run


def f(x):
    """A bit of everything: broadcasting, a product, a write, a join, a large constant, a branch."""
    y = np.sin(x) * np.array([[1.0], [2.0]])
    z = np.zeros_like(y)
    z[0] = y[1] @ np.array([[1.0, 0.5], [0.2, 2.0]])
    w = np.concatenate([z.sum(axis=0), np.where(x > 0.5, x, x * x)])
    return w.reshape(2, 2)[:, 0] * (x[0] * WIDE).mean()


TRANSFORMS = {
    "grad": lambda f: gj.grad(lambda x: f(x).sum()),
    "vjp": lambda f: lambda x: gj.vjp(f, x)[1](np.ones(2))[0],
    "jvp": lambda f: lambda x: gj.jvp(f, (x,), (x,))[1],
    "linearize": lambda f: lambda x: gj.linearize(f, x)[1](x),
    "jacrev": lambda f: lambda x: gj.jacrev(f, chunk_size=1)(x).sum(axis=0),
    "jacfwd": lambda f: lambda x: gj.jacfwd(f)(x).sum(axis=0),
    "vmap": lambda f: lambda x: gj.vmap(f)(np.stack([x, 2 * x])).sum(axis=0),
    "chunked vmap": lambda f: lambda x: gj.vmap(f, chunk_size=2)(np.stack([x, 2 * x, -x])).sum(axis=0),
    "loop": lambda f: lambda x: gj.vmap(f, method="loop")(np.stack([x, 2 * x])).sum(axis=0),
}  # fmt: skip


def g(x):
    """As f, without a value: for vmap and for pairs, which run it often."""
    y = np.sin(x) * (x[0] * WIDE).mean()
    return np.concatenate([y[1:], np.where(x > 0.5, x, x * y)[:1]])


def linear(x):
    y = np.concatenate([x, 2.0 * x]) @ np.ones((4, 2))
    return y + x[::-1]


CALLS = {
    **{name: partial(lambda T: T(f)(X), T) for name, T in TRANSFORMS.items()},
    "hessian": lambda: gj.hessian(lambda x: f(x).sum())(X),
    "with_value": lambda: gj.jacrev(f, with_value=True)(X)[0],
    "linear_transpose": lambda: gj.linear_transpose(linear, X)(X)[0],
}
PAIRS = {
    f"{outer} of {inner}": partial(lambda A, B: A(B(g))(X), TRANSFORMS[outer], TRANSFORMS[inner])
    for outer, inner in itertools.product(TRANSFORMS, TRANSFORMS)
}


def check_at_each_operation(hook, call):
    """Raise at each operation, and look around after each."""
    expected = hook.run(call)
    total = hook.count
    assert total >= 5
    for at in range(1, total + 1):
        error = Stop if at % 7 == 0 else BoomError
        with record() as events, pytest.raises(error, match=f"operation {at}$"):
            hook.run(call, at, error)
        nothing_is_left(events)
        if at % 10 == 1:
            h.assert_close(hook.run(call), expected, 0.0)
    h.assert_close(hook.run(call), expected, 0.0)


@pytest.mark.parametrize("name", list(CALLS))
def test_raising_at_each_operation(hook, name):
    check_at_each_operation(hook, CALLS[name])


@pytest.mark.parametrize("name", list(PAIRS))
def test_raising_at_each_operation_of_pairs(hook, name):
    check_at_each_operation(hook, PAIRS[name])


def test_the_hook_sees_the_sweep(hook):
    """The check would prove little if it ended where f does."""
    _, pullback = gj.vjp(f, X)
    hook.run(lambda: gj.vjp(f, X))
    forward = hook.count
    hook.run(lambda: pullback(np.ones(2)))
    assert forward > 10
    assert hook.count > 10


@pytest.mark.parametrize("at", [1, 5, 20])
def test_a_pullback_that_failed_may_be_called_again(hook, at):
    expected = gj.vjp(f, X)[1](np.ones(2))[0]
    _, pullback = gj.vjp(f, X)
    with pytest.raises(BoomError):
        hook.run(lambda: pullback(np.ones(2)), at)
    np.testing.assert_array_equal(pullback(np.ones(2))[0], expected)
    _, push = gj.linearize(f, X)
    with pytest.raises(Stop):
        hook.run(lambda: push(X), at, Stop)
    np.testing.assert_allclose(push(X), gj.jvp(f, (X,), (X,))[1])


# ---------------------------------------------------------------- other ways to leave a function


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, Stop, StopIteration])
@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_every_exception_of_the_users_leaves_and_cleans(name, error):
    def leaves(x):
        np.sin(x) * (x[0] * WIDE).mean()
        raise error

    with record() as events, pytest.raises(error):
        TRANSFORMS[name](leaves)(X)
    nothing_is_left(events)


def test_a_generator_that_is_closed_inside_a_transform():
    def values(x):
        try:
            yield gj.grad(lambda u: (u * x).sum())(X)
            yield x
        finally:
            gj.grad(lambda u: (u * u).sum())(X)

    def f(x):
        iterator = values(x)
        y = next(iterator)
        iterator.close()
        return (y * x).sum()

    with record() as events:
        np.testing.assert_allclose(gj.grad(f)(X), 2 * X)
    nothing_is_left(events)


def test_a_generator_that_waits_between_transforms_has_none_open():
    def values():
        for k in (2, 3):
            yield gj.grad(lambda u, k=k: (u**k).sum())(X)

    iterator = values()
    np.testing.assert_allclose(next(iterator), 2 * X)
    assert trace.OPEN.traces == []
    np.testing.assert_allclose(gj.grad(lambda x: (next(iterator) * x).sum())(X), 3 * X**2)


def test_an_exception_that_the_user_catches_inside_changes_nothing():
    def f(x):
        for _ in range(3):
            with pytest.raises(BoomError):
                gj.jacrev(gj.grad(lambda u: boom(u * x)))(X)
        return (x * x).sum()

    def boom(x):
        raise BoomError

    with record() as events:
        np.testing.assert_allclose(gj.grad(f)(X), 2 * X)
    nothing_is_left(events)


def test_a_levels_trace_is_taken_off_exactly():
    """However transforms are mixed, the traces that are open are those around the place."""
    seen = []

    def look(x):
        seen.append([type(t).__name__ for t in trace.OPEN.traces])
        return x

    f = lambda x: (look(x) * gj.grad(lambda u: (look(u) * u * x).sum())(x)).sum()
    gj.vmap(lambda x: gj.jvp(f, (x,), (x,))[1])(np.stack([X, X]))
    gj.grad(lambda x: look(x).sum())(X)
    assert seen == [
        ["VmapTrace", "JvpTrace"], ["VmapTrace", "JvpTrace", "LinearizeTrace"], ["LinearizeTrace"]
    ]  # fmt: skip
    assert trace.OPEN.traces == []


def test_a_callback_that_raises():
    def told(plan):
        raise BoomError

    with record() as events, pytest.raises(BoomError):
        gj.jacrev(f, chunk_size=1, report=told)(X)
    nothing_is_left(events)


def test_settings_overridden_inside_f_are_restored_when_it_raises():
    def f(x):
        with settings.override(memory="1MB", debug_nans=False):
            raise BoomError

    with pytest.raises(BoomError):
        gj.vmap(gj.grad(f))(np.stack([X, X]))
    assert settings.get("memory") is None
