"""An exception at an operation inside of functions that ops hold leaves nothing open and nothing changed.

As in tests/transforms/test_unwinding.py, whose functions hold none.
"""

import numpy as np
import pytest

import gpujac as gj
from gpujac.ranges import record
from tests.transforms import helpers as h
from tests.transforms import test_unwinding as plain
from tests.transforms.test_unwinding import BoomError, Hook, Stop, nothing_is_left

X = plain.X
TABLE = np.array([0.9, 1.7, 2.0])


def squares():
    """An operation with every rule."""

    def square(x: np.ndarray) -> np.ndarray: ...

    op = gj.custom_op("unwinding::square", square)
    gj.impl(op, device_types="cpu", func=lambda x: x * x)
    gj.impl_save_for_backward(op, lambda inputs, output: inputs.x)
    gj.impl_backward(op, lambda context, x, ct: {"x": 2.0 * x * ct})
    gj.impl_jvp(op, lambda inputs, output, tangents: 2.0 * inputs.x * tangents.x)
    gj.impl_vmap(op, lambda info, in_dims, x: (op(x), in_dims[0]))
    return op


def own_cotangents():
    f = gj.custom_vjp(lambda x: np.sin(x) * x)
    f.defvjp(lambda x: (np.sin(x) * x, x), lambda x, ct: (ct * (np.cos(x) * x + np.sin(x)),))
    return f


def own_tangents():
    f = gj.custom_jvp(lambda x: np.sin(x) * x)
    f.defjvp(lambda xs, ts: (f(*xs), ts[0] * (np.cos(xs[0]) * xs[0] + np.sin(xs[0]))))
    return f


def own_lanes():
    f = own_cotangents()
    f.defvmap(lambda info, in_dims, x: (np.sin(x) * x, in_dims[0]))
    return f


square, by_cotangents, by_tangents, by_lanes = squares(), own_cotangents(), own_tangents(), own_lanes()
FUNCTIONS = {
    "checkpoint": gj.checkpoint(lambda x: np.sin(x) * np.cumsum(x * x)),
    "checkpoint that keeps": gj.checkpoint(lambda x: np.exp(x @ np.ones((2, 2))) * x, policy="matmuls"),
    "checkpoint of a branch": gj.checkpoint(lambda x: gj.cond(x[0] > 0.3, by_cotangents, lambda v: v * 2.0, x)),
    "custom_vjp": lambda x: by_cotangents(x) * x,
    "custom_jvp": lambda x: by_tangents(x) * x,
    "custom_vjp with lanes": lambda x: by_lanes(x) * x,
    "custom_op": lambda x: square(np.sin(x)) * x,
    "cond": lambda x: gj.cond(x[0] > 0.5, np.sin, lambda v: square(v) * 2.0, x),
    "switch": lambda x: gj.switch((x[1] * 2.0).astype(int), [np.cos, np.sin, lambda v: v * by_tangents(v)], x),
    "while_loop": lambda x: gj.while_loop(lambda v: (v * v).sum() < 9.0, lambda v: v * 1.5 + square(v) * v, x),
    "fori_loop": lambda x: gj.fori_loop(0, 3, lambda i, v: v * np.sin(v) + i, x),
    "scan": lambda x: gj.scan(lambda v, k: (v * k, np.sin(v)), x, TABLE)[1].sum(0),
    "map": lambda x: gj.control.map(lambda v: np.sin(v) * v, x, batch_size=1),
    "interp": lambda x: np.interp(x, np.sort(x) * 2.0 - 0.1, TABLE[:2]),
}
TRANSFORMS = {
    **plain.TRANSFORMS,
    "hvp": lambda f: lambda x: gj.hvp(lambda y: f(y).sum(), (x,), (x,))[0],
    "hessian": lambda f: lambda x: gj.hessian(lambda y: f(y).sum())(x),
    "hessian_diagonal": lambda f: lambda x: gj.hessian_diagonal(lambda y: f(y).sum())(x),
    "ggn_vp": lambda f: lambda x: gj.ggn_vp(f, lambda y: (y * y).sum(), (x,), (x,))[0],
    "vmap of grad": lambda f: lambda x: gj.vmap(gj.grad(lambda y: f(y).sum()))(np.stack([x, 2 * x - 0.7])),
    "grad of vmap": lambda f: gj.grad(lambda x: gj.vmap(f)(np.stack([x, 2 * x - 0.7])).sum()),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_raising_at_some_operations(monkeypatch, transform, function):
    check_at_operations(Hook(monkeypatch), transform, function, 4)


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_raising_at_each_operation(monkeypatch, transform, function):
    check_at_operations(Hook(monkeypatch), transform, function, None)


def check_at_operations(hook, transform, function, some):
    """Raise at each operation, or at `some` that are spread over all, others for each function."""
    run = TRANSFORMS[transform](FUNCTIONS[function])
    call = lambda: run(X)
    expected = hook.run(call)
    total = hook.count
    step = 1 if some is None else max(1, total // some)
    for at in range(1 + len(function) % step, total + 1, step):
        error = Stop if at % 3 == 0 else BoomError
        with record() as events, pytest.raises(error, match=f"operation {at}$"):
            hook.run(call, at, error)
        nothing_is_left(events)
    h.assert_close(hook.run(call), expected, 0.0)
