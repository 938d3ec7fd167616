"""Rules that write in place: a write raises or stays private, and no array of anybody else's changes.

NumPy only: CuPy has no read-only arrays, so there a rule must write into a copy.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpujac as gj
from gpujac.control import remove_custom_op

X = np.array([1.0, 2.0])
READ_ONLY = "read-only"


def doubled(fwd: Callable, bwd: Callable) -> Any:
    """2 x, with these halves of a cotangent rule."""
    f = gj.custom_vjp(lambda a: a * 2)
    f.defvjp(fwd, bwd)
    return f


def pushed(rule: Callable) -> Any:
    """2 x, with this tangent rule."""
    f = gj.custom_jvp(lambda a: a * 2)
    f.defjvp(rule)
    return f


def written(x: Any) -> Any:
    """2 x, in the memory of x."""
    x *= 2.0
    return x


in_cotangent = doubled(lambda a: (a * 2, None), lambda _, ct: (written(ct),))
in_tangent = pushed(lambda p, t: (p[0] * 2, written(t[0])))


@pytest.fixture
def op() -> Iterator[Any]:
    """2 x as an operation without rules."""

    def twice(x: np.ndarray) -> np.ndarray: ...

    made = gj.custom_op("guard::twice", twice)
    gj.impl(made, device_types="cpu", func=lambda x: x * 2)
    yield made
    remove_custom_op("guard::twice")


def refused(call: Callable, *watched: np.ndarray) -> None:
    """The call raises NumPy's error for a read-only array, and these arrays are as before."""
    before = [x.copy() for x in watched]
    with pytest.raises(ValueError, match=READ_ONLY):
        call()
    for x, old in zip(watched, before, strict=True):
        np.testing.assert_array_equal(x, old)
        assert x.flags.writeable


def test_a_write_into_a_cotangent_raises_and_never_changes_what_others_get() -> None:
    refused(lambda: gj.grad(lambda a: ((in_cotangent(a) + a) * X).sum())(X), X)
    ct = np.array([5.0, 7.0])
    refused(lambda: gj.vjp(in_cotangent, X)[1](ct), ct, X)


def test_a_write_into_one_of_several_cotangents_raises() -> None:
    f = gj.custom_vjp(lambda a: (a * 2, a * 3))
    f.defvjp(lambda a: ((a * 2, a * 3), None), lambda _, cts: (written(cts[0]) + 3 * cts[1],))
    cts = np.array([5.0, 7.0]), np.ones(2)
    refused(lambda: gj.vjp(f, X)[1](cts), *cts)


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
def test_a_write_into_a_traced_cotangent_stays_private(transform: Any) -> None:
    np.testing.assert_allclose(transform(lambda a: in_cotangent(a) + a)(X), 3 * np.eye(2))
    np.testing.assert_allclose(transform(lambda a: gj.vjp(in_cotangent, X)[1](a)[0] + a)(X), 3 * np.eye(2))


def test_a_write_into_a_tangent_raises_and_the_callers_stays() -> None:
    t = np.array([5.0, 7.0])
    refused(lambda: gj.jvp(in_tangent, (X,), (t,)), t, X)


def test_a_write_into_a_traced_tangent_stays_private() -> None:
    f = lambda t: gj.jvp(in_tangent, (X,), (t,))[1] + t
    np.testing.assert_allclose(gj.jacfwd(f)(X), 3 * np.eye(2))
    np.testing.assert_allclose(gj.jacrev(lambda a: in_tangent(a) + a)(X), 3 * np.eye(2))


KEPT: dict[str, tuple[Callable, Callable]] = {
    "an array": (lambda a: a * 2, lambda r: r),
    "the argument": (lambda a: a, lambda r: r),
    "in a tuple": (lambda a: (a * 2, None, "x"), lambda r: r[0]),
    "in a tree": (lambda a: {"b": [a * 2], "f": np.sin}, lambda r: r["b"][0]),
}


@pytest.mark.parametrize("name", list(KEPT))
def test_a_write_into_residuals_raises(name: str) -> None:
    keep, read = KEPT[name]
    f = doubled(lambda a: (a * 2, keep(a)), lambda r, ct: (written(read(r)) * ct,))
    pullback = gj.vjp(f, X)[1]
    refused(lambda: pullback(np.ones(2)), X)


@pytest.mark.parametrize("name", list(KEPT))
def test_a_write_into_traced_residuals_leaves_the_second_call_as_the_first(name: str) -> None:
    keep, read = KEPT[name]
    f = doubled(lambda a: (a * a, keep(a)), lambda r, ct: (written(read(r)) * ct,))

    def both(a: Any) -> Any:
        pullback = gj.vjp(f, a)[1]
        first = pullback(np.ones(2))[0]
        return pullback(np.ones(2))[0] - first

    np.testing.assert_array_equal(gj.jacfwd(both)(X), np.zeros((2, 2)))
    np.testing.assert_array_equal(gj.vmap(both)(np.stack([X, 3 * X])), np.zeros((2, 2)))


def test_a_write_into_a_gradient_of_an_operation_raises(op: Any) -> None:
    gj.impl_save_for_backward(op, lambda inputs, output: None)
    gj.impl_backward(op, lambda ctx, saved, grad: {"x": written(grad)})
    ct = np.array([5.0, 7.0])
    refused(lambda: gj.vjp(op, X)[1](ct), ct, X)
    refused(lambda: gj.grad(lambda a: ((op(a) + a) * X).sum())(X), X)


def test_a_write_into_saved_values_of_an_operation_raises(op: Any) -> None:
    gj.impl_save_for_backward(op, lambda inputs, output: (inputs, output))
    gj.impl_backward(op, lambda ctx, saved, grad: {"x": grad * written(saved[0].x)})
    refused(lambda: gj.vjp(op, X)[1](np.ones(2)), X)


@pytest.mark.parametrize("read", [lambda i, o: i.x, lambda i, o: o], ids=["input", "output"])
def test_a_write_while_an_operation_saves_raises(op: Any, read: Callable) -> None:
    gj.impl_save_for_backward(op, lambda inputs, output: written(read(inputs, output)))
    gj.impl_backward(op, lambda ctx, saved, grad: {"x": grad})
    refused(lambda: gj.vjp(op, X), X)
    refused(lambda: gj.grad(lambda a: op(a).sum())(X), X)


@pytest.mark.parametrize(
    "read", [lambda i, o, t: i.x, lambda i, o, t: o, lambda i, o, t: t.x], ids=["input", "output", "tangent"]
)
def test_a_write_of_an_operations_tangent_rule_raises(op: Any, read: Callable) -> None:
    gj.impl_jvp(op, lambda inputs, output, tangents: written(read(inputs, output, tangents)) * 1.0)
    t = np.array([5.0, 7.0])
    refused(lambda: gj.jvp(op, (X,), (t,)), X, t)


def test_a_write_of_an_operations_batching_rule_raises(op: Any) -> None:
    gj.impl_vmap(op, lambda info, in_dims, x: (written(x), in_dims[0]))
    rows = np.ones((3, 2))
    refused(lambda: gj.vmap(op)(rows), rows)


def test_what_rules_return_is_writable_in_the_end() -> None:
    f = gj.custom_vjp(lambda a: a)
    f.defvjp(lambda a: (a, None), lambda _, ct: (ct,))
    g = gj.custom_jvp(lambda a: a)
    g.defjvp(lambda p, t: (p[0], t[0]))
    for h in (f, g):
        y, pullback = gj.vjp(h, X)
        ct = np.ones(2)
        (found,) = pullback(ct)
        for array in (y, found, *gj.jvp(h, (X,), (ct,)), gj.grad(lambda a, h=h: h(a).sum())(X)):
            assert array.flags.writeable
            assert not np.shares_memory(array, ct)
            assert not np.shares_memory(array, X)
