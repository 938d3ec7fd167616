"""Calls and registrations at their edges: copies, ufuncs, static arguments, removed operations, half rules."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpujac as gj
from gpujac.control import remove_custom_op

X = np.array([1.0, 2.0])


def cube(x: Any) -> Any:
    return x**3


def cube_fwd(x: Any) -> Any:
    return x**3, x


def cube_bwd(x: Any, ct: Any) -> Any:
    return (3 * x * x * ct,)


@pytest.fixture
def made() -> Iterator[Callable]:
    """Defines operations that are removed again."""
    names: list[str] = []

    def define(prototype: Callable) -> Any:
        names.append(f"edge::{prototype.__name__}")
        return gj.custom_op(names[-1], prototype)

    yield define
    for name in names:
        remove_custom_op(name)


# ---------------------------------------------------------------- copies, ufuncs

unnamed = [gj.custom_vjp(cube)]
unnamed[0].defvjp(cube_fwd, cube_bwd)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_a_copy_has_the_rules_and_refuses_a_second_one_as_the_original(again: Callable) -> None:
    f = again(unnamed[0])
    assert f is not unnamed[0]
    np.testing.assert_array_equal(gj.grad(lambda x: f(x).sum())(X), 3 * X * X)
    with pytest.raises(gj.RegistrationError, match=r"has a vjp rule already, from .*test_custom_calls.py:\d+"):
        f.defvjp(cube_fwd, cube_bwd)
    f.defjvp(lambda p, t: (p[0] ** 3, 3 * p[0] ** 2 * t[0]))  # of the kind that it lacks
    with pytest.raises(gj.RegistrationError, match="has a jvp rule already"):
        f.defjvp(lambda p, t: (p[0], t[0]))


def test_the_rules_of_a_ufunc_get_the_arguments_given_and_no_options() -> None:
    seen: list = []
    sine = gj.custom_vjp(np.sin)
    sine.defvjp(lambda *args: (seen.append(len(args)) or np.sin(args[0]), args[0]), lambda x, ct: (np.cos(x) * ct,))
    np.testing.assert_allclose(gj.grad(lambda x: sine(x).sum())(X), np.cos(X))
    assert seen == [1]
    power = gj.custom_jvp(np.power)
    power.defjvp(lambda p, t: (np.power(*p), p[1] * p[0] ** (p[1] - 1) * t[0]))
    np.testing.assert_allclose(gj.grad(lambda x: power(x, 3.0).sum())(X), 3 * X * X)
    np.testing.assert_array_equal(sine(X), np.sin(X))
    with pytest.raises(gj.ArgumentTypeError, match="by position"):
        sine(X, where=True)


# ---------------------------------------------------------------- static arguments


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [1, True, np.int32(3)], ["a", 1.5, None, [1]]),
        (float, [1, 1.5, np.float32(2)], ["a", None, 1j]),
        (complex, [1, 1.5, 1j], ["a", None]),
        (bool, [True, np.True_], [1, "a", None]),
        (str, ["a"], [1, None, b"a"]),
        (int | None, [1, None], ["a", 1.5]),
        (list[int], [[1, 2], (), (3,)], [1, ["a"], None]),
        (np.dtype, ["float32", np.float32, np.dtype("int8")], []),
    ],
    ids=str,
)
def test_a_static_argument_is_checked_against_its_annotation(made: Any, annotation: Any, good: Any, bad: Any) -> None:
    def taken(x, k): ...

    taken.__annotations__ = {"x": np.ndarray, "k": annotation, "return": np.ndarray}
    op = made(taken)
    gj.impl(op, device_types="cpu", func=lambda x, k: x * 1)
    for k in good:
        np.testing.assert_array_equal(op(X, k), X)
    for k in bad:
        with pytest.raises(gj.ArgumentTypeError, match=rf"edge::taken: k is a {type(k).__name__}, it must be .*, as"):
            op(X, k)


# ---------------------------------------------------------------- registrations


def test_a_removed_operation_is_said_to_be_removed() -> None:
    def gone(x: np.ndarray) -> np.ndarray: ...

    op = gj.custom_op("edge::gone", gone)
    remove_custom_op(op)
    with pytest.raises(gj.RegistrationError, match=r"edge::gone.* was removed by remove_custom_op; define it again"):
        gj.impl_jvp(op, lambda inputs, output, tangents: tangents.x)


@pytest.mark.parametrize("devices", [None, 3])
def test_device_types_that_are_no_texts_are_refused(made: Any, devices: Any) -> None:
    def shown(x: np.ndarray) -> np.ndarray: ...

    with pytest.raises(gj.ArgumentTypeError, match=f"impl: device_types={devices}"):
        gj.impl(made(shown), device_types=devices)


@pytest.mark.parametrize("half", ["save_for_backward", "backward"])
def test_forward_mode_works_from_the_tangent_rule_beside_half_of_a_backward_rule(made: Any, half: str) -> None:
    def square(x: np.ndarray) -> np.ndarray: ...

    op = made(square)
    gj.impl(op, device_types="cpu", func=lambda x: x * x)
    gj.impl_jvp(op, lambda inputs, output, tangents: 2 * inputs.x * tangents.x)
    register = getattr(gj, f"impl_{half}")
    register(op, lambda inputs, output: inputs.x) if "save" in half else register(op, lambda c, s, g: {"x": g})
    expected = np.diag(2 * X)
    np.testing.assert_array_equal(gj.jacfwd(op)(X), expected)
    np.testing.assert_array_equal(gj.linearize(op, X)[1](X), expected @ X)
    np.testing.assert_array_equal(gj.jvp(op, (X,), (X,))[1], expected @ X)
    np.testing.assert_array_equal(gj.jacfwd(gj.jacfwd(lambda x: op(x).sum()))(X), 2 * np.eye(2))
    with pytest.raises(gj.MissingRuleError, match="needs both"):
        gj.grad(lambda x: op(x).sum())(X)
