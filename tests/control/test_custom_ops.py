"""Operations by name: what may be registered, how a call finds its implementation, what rules must return.

Tests whose names begin with a code translate that row of torch's error table or acceptance list.
"""

import pickle
import re
import threading
import typing
from collections.abc import Iterator
from typing import Any

import array_api_strict as xps
import numpy as np
import pytest

import gpujac as gj
import gpujac.numpy as gnp
from gpujac import ranges
from gpujac.control import once_differentiable, remove_custom_op
from gpujac.control.registered import TABLE
from gpujac.control.registry import find
from gpujac.core.aval import Aval
from tests import device
from tests.oracles import close as assert_close
from tests.oracles import close_trees as assert_close_trees

X = np.array([0.3, -0.5, 0.7])
HERE = r"test_custom_ops\.py:\d+"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Operations of one test are gone in the next."""
    before = set(TABLE)
    yield
    for name in set(TABLE) - before:
        remove_custom_op(name)


def double(x: np.ndarray) -> np.ndarray:
    """A prototype."""
    raise AssertionError("the body of a prototype never runs")


def pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A prototype with two results."""
    raise AssertionError("the body of a prototype never runs")


def mixture(
    x: np.ndarray, parts: list[np.ndarray], scale: np.ndarray | None, power: int = 2, name: str = ""
) -> np.ndarray:
    """A prototype with every kind of parameter."""
    raise AssertionError("the body of a prototype never runs")


def doubling(**parts: Any) -> Any:
    """t::double with an implementation and the parts asked for."""
    op = gj.custom_op("t::double", double)
    gj.impl(op, func=lambda x: x + x)
    for kind, f in parts.items():
        getattr(gj, f"impl_{kind}")(op, f)
    return op


def with_backward(backward: Any = None) -> Any:
    rule = backward or (lambda ctx, saved, grad: {"x": 2 * grad})
    return doubling(save_for_backward=lambda inputs, output: None, backward=rule)


# ---------------------------------------------------------------- names and prototypes


@pytest.mark.parametrize("name", ["double", "a::b::double", 3, "a:double"])
def test_e99_a_name_needs_one_namespace(name: Any) -> None:
    with pytest.raises(gj.RegistrationError, match="expected a namespace and a name"):
        gj.custom_op(name, double)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.b::double", r"must be an identifier, and not contain '\.'"),
        ("1a::double", "must be an identifier"),
        ("::double", "must be an identifier"),
        ("a::1", "the name '1' of 'a::1' must be an identifier"),
        ("gpujac::double", "namespace 'gpujac' of 'gpujac::double' is reserved"),
        ("numpy::double", "is reserved"),
        ("cupy::double", "is reserved"),
    ],
)
def test_e100_namespaces_with_a_dot_and_reserved_ones_are_refused(name: str, message: str) -> None:
    with pytest.raises(gj.RegistrationError, match=message):
        gj.custom_op(name)


def test_e101_names_of_overloads_are_refused() -> None:
    with pytest.raises(gj.RegistrationError, match="names an overload; an operation has one signature"):
        gj.custom_op("t::double.out", double)


def _unannotated(x) -> np.ndarray:
    return x


def _no_return(x: np.ndarray):
    return x


def _tuple_input(x: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return x[0]


def _unknown_input(x: object) -> np.ndarray:
    return x


def _unreadable(x: "Missing") -> np.ndarray:  # noqa: F821 (a name that nobody defined)
    return x


def _misspelt(x: "np.ndarry") -> np.ndarray:
    return x


def _bare_list(x: typing.List) -> np.ndarray:  # noqa: UP006 (the old spelling is what is refused)
    return x[0]


def _bare_sequence(x: typing.Sequence) -> np.ndarray:
    return x[0]


def _varying(*x: np.ndarray) -> np.ndarray:
    return x[0]


def _nothing(x: np.ndarray) -> None:
    return None


def _of_a_list(x: np.ndarray) -> list[np.ndarray]:
    return [x]


def _any_number(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (x,)


def _a_number(x: np.ndarray) -> float:
    return 0.0


def _self(self: np.ndarray) -> np.ndarray:
    return self


def _by_keyword(x: np.ndarray, *, y: np.ndarray) -> np.ndarray:
    return x


@pytest.mark.parametrize(
    ("prototype", "message"),
    [
        (np.sin, "must be a function .*, not ufunc"),
        (3, "must be a function .*, not int"),
        (double, "the prototype is called 'double'; give it the name"),
        (_unannotated, "parameter 'x' has no annotation"),
        (_no_return, "has no return annotation"),
        (_tuple_input, r"parameter 'x' is annotated as tuple\[.*which is not supported; use an array"),
        (_unknown_input, "parameter 'x' is annotated as object, which is not supported"),
        (_unreadable, "an annotation of the prototype cannot be read .*Missing"),
        (_misspelt, "an annotation of the prototype cannot be read .*ndarry"),
        (_bare_list, "parameter 'x' is annotated as typing.List, which is not supported"),
        (_bare_sequence, "parameter 'x' is annotated as typing.Sequence, which is not supported"),
        (_varying, "parameter 'x' is variadic positional; an operation takes parameters by position"),
    ],
)
def test_e102_prototypes_that_say_too_little_are_refused(prototype: Any, message: str) -> None:
    name = "other" if prototype is double else getattr(prototype, "__name__", "f")
    with pytest.raises(gj.RegistrationError, match=message):
        gj.custom_op(f"t::{name}", prototype)


@pytest.mark.parametrize(
    ("prototype", "message"),
    [
        (_nothing, "returns nothing; an operation is functional"),
        (_of_a_list, r"returns list\[.*; it must be an array or a tuple of a fixed number"),
        (_any_number, "it must be an array or a tuple of a fixed number of arrays"),
        (_a_number, "returns float"),
        (_self, "parameter 'self' is refused"),
    ],
)
def test_e103_prototypes_that_are_not_functional_are_refused(prototype: Any, message: str) -> None:
    with pytest.raises(gj.RegistrationError, match=message):
        gj.custom_op(f"t::{prototype.__name__}", prototype)


def test_e95_av9_arrays_by_keyword_only_are_refused() -> None:
    with pytest.raises(gj.RegistrationError, match=r"parameter 'y' is keyword-only.*arrays by keyword only"):
        gj.custom_op("t::_by_keyword", _by_keyword)


def test_e104_a_second_definition_names_the_place_of_the_first() -> None:
    gj.custom_op("t::double", double)
    with pytest.raises(gj.RegistrationError, match=f"'t::double' is defined already, at .*{HERE}"):
        gj.custom_op("t::double", double)


@pytest.mark.parametrize("devices", ["gpu", ("cpu", "xpu"), ["CUDA"]])
def test_e105_other_device_types_are_refused_when_registered(devices: Any) -> None:
    gj.custom_op("t::double", double)
    with pytest.raises(gj.RegistrationError, match="is not supported; choose from 'cpu', 'cuda'"):
        gj.impl("t::double", device_types=devices)
    with pytest.raises(gj.RegistrationError, match="device_types is empty"):
        gj.impl("t::double", device_types=())


@pytest.mark.parametrize("kind", ["abstract", "save_for_backward", "backward", "jvp", "vmap"])
def test_e106_a_second_rule_of_a_kind_names_the_place_of_the_first(kind: str) -> None:
    op = doubling(**{kind: lambda *args: None})
    with pytest.raises(gj.RegistrationError, match=f"already has a {kind} implementation, registered at .*{HERE}"):
        getattr(gj, f"impl_{kind}")(op, lambda *args: None)


def test_e106_a_second_implementation_for_a_device_is_refused_as_a_whole() -> None:
    op = gj.custom_op("t::double", double)
    gj.impl(op, device_types="cuda", func=lambda x: x)
    with pytest.raises(gj.RegistrationError, match=f"already has a cuda implementation, registered at .*{HERE}"):
        gj.impl(op, func=lambda x: x)
    assert not op.has("cpu")


def test_e107_an_unknown_operation_is_an_error_with_names_like_it() -> None:
    gj.custom_op("t::double", double)
    with pytest.raises(gj.RegistrationError, match="no custom op 't::duoble' is registered; did you mean 't::double'"):
        gj.impl("t::duoble", func=lambda x: x)
    with pytest.raises(gj.RegistrationError, match="no custom op 'q::zz' is registered; define it first"):
        gj.impl_backward("q::zz")
    with pytest.raises(gj.RegistrationError, match="no custom op"):
        remove_custom_op("q::zz")
    with pytest.raises(gj.RegistrationError, match="not by 3"):
        find(3)


def test_an_operation_that_was_removed_can_be_defined_again() -> None:
    op = doubling()
    remove_custom_op("t::double")
    again = gj.custom_op("t::double", double)
    assert find("t::double") is again
    with pytest.raises(gj.RegistrationError, match=r"<custom op t::double.* was removed by remove_custom_op"):
        gj.impl(op, func=lambda x: x)


# ---------------------------------------------------------------- calls


def test_custom_op_and_its_parts_are_decorators_too() -> None:
    @gj.custom_op("t::f")
    def f(x: np.ndarray, k: int = 3) -> np.ndarray:
        """Times k."""
        raise AssertionError("the body of a prototype never runs")

    @gj.impl("t::f", device_types=["cpu", "cpu"])
    def f_cpu(x: Any, k: int) -> Any:
        return x * k

    @gj.impl_save_for_backward("t::f")
    def save(inputs: Any, output: Any) -> Any:
        return inputs.k

    @gj.impl_backward("t::f")
    def backward(ctx: Any, k: int, grad: Any) -> dict:
        return {"x": k * grad}

    assert_close(f(X), 3 * X, 0)
    assert_close(f(k=4, x=X), 4 * X, 0)
    assert_close(gj.jacrev(f)(X), 3 * np.eye(3), 0)
    assert_close(gj.grad(lambda x: f(x, k=5).sum())(X), np.full(3, 5.0), 0)
    assert_close(f_cpu(X, 2), 2 * X, 0)
    assert (f.__name__, f.__doc__) == ("f", "Times k.")
    assert "t::f(x: numpy.ndarray, k: int = 3) -> numpy.ndarray" in repr(f)


def test_operations_pickle_by_name() -> None:
    op = doubling()
    assert pickle.loads(pickle.dumps(op)) is op


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
def test_the_device_of_highest_priority_wins_and_gets_the_operands_as_they_are() -> None:
    op = gj.custom_op("t::pair", pair)
    seen: list = []
    gj.impl(op, device_types="cpu", func=lambda x, y: (x + 0, y + 0))
    gj.impl(op, device_types="cuda", func=lambda x, y: (seen.append((type(x), type(y))), (x * 1, x * 2))[1])
    op(X, X)
    assert seen == []
    op(device.array(X), X)
    op(X, device.array(X))
    assert seen == [(device.TYPE, np.ndarray), (np.ndarray, device.TYPE)]
    assert_close(device.host(op(device.array(X), device.array(X))[1]), 2 * X, 0)


def test_e108_a_call_without_an_implementation_for_its_device_says_how_to_add_one() -> None:
    op = gj.custom_op("t::double", double)
    with pytest.raises(gj.MissingRuleError, match=r"registered: none. Add one with impl\('t::double'"):
        op(X)
    gj.impl(op, device_types="cuda", func=lambda x: x)
    with pytest.raises(gj.MissingRuleError, match=f"no cpu implementation.*registered: cuda .*{HERE}"):
        op(X)
    with pytest.raises(gj.MissingRuleError, match=r"no implementation for arrays of array_api_strict"):
        op(xps.asarray(X))


def test_e109_e118_a_call_without_arrays_is_refused() -> None:
    op = gj.custom_op("t::mixture", mixture)
    gj.impl(op, func=lambda *args: np.ones(3))
    with pytest.raises(gj.MissingRuleError, match="was called without an array, so nothing says on which device"):
        find("t::mixture").computed(op.arranged((X, [], None), {})[0].arrangement, ())

    @gj.custom_op("t::none")
    def none(n: int) -> np.ndarray:
        raise AssertionError

    gj.impl(none, func=lambda n: np.ones(n))
    with pytest.raises(gj.MissingRuleError, match="was called without an array"):
        none(3)


def test_every_kind_of_parameter_reaches_the_implementation_and_the_rules() -> None:
    op = gj.custom_op("t::mixture", mixture)
    seen: dict = {}

    @gj.impl(op)
    def kernel(x: Any, parts: Any, scale: Any, power: int, name: str) -> Any:
        seen["kernel"] = (len(parts), scale is None, power, name)
        return (x + sum(parts)) ** power * (1.0 if scale is None else scale)

    gj.impl_save_for_backward(op, lambda inputs, output: (inputs, output))

    @gj.impl_backward(op)
    def backward(ctx: Any, saved: Any, grad: Any) -> dict:
        inputs, _ = saved
        seen["needed"] = ctx.needs_input_grad
        total = inputs.x + sum(inputs.parts)
        scale = 1.0 if inputs.scale is None else inputs.scale
        inner = grad * inputs.power * total ** (inputs.power - 1) * scale
        outer = None if inputs.scale is None else grad * total**inputs.power
        return {"x": inner, "parts": [inner] * len(inputs.parts), "scale": outer}

    plain = lambda x, a, b, s: (x + a + b) ** 3 * s
    with_op = lambda x, a, b, s: op(x, [a, b], s, power=3, name="n")
    args = (X, 2 * X, X**2, np.ones(3))
    jacobians = lambda f: gj.jacrev(f, argnums=(0, 1, 2, 3))(*args)
    assert_close_trees(jacobians(with_op), jacobians(plain), 1e-13)
    assert seen["kernel"] == (2, False, 3, "n")
    assert_close(gj.grad(lambda b: op(X, [X, b], None).sum())(X), 6 * X, 1e-14)
    assert seen["needed"] == {"x": False, "parts": [False, True], "scale": None}
    summed = lambda f: lambda x: f(x, *args[1:]).sum()
    assert_close(gj.hessian(summed(with_op))(X), gj.hessian(summed(plain))(X), 1e-13)
    for wrong, message in (
        ((X, X, None), "parts is a ndarray, it must be a list of arrays"),
        ((X, ["a"], None), "parts is a str, it must be an array"),
        (("x", [], None), "x is a str, it must be an array or a number"),
        ((X, [], None, X), "power is a ndarray, it must be a static value; declare it as an array"),
    ):
        with pytest.raises(gj.ArgumentTypeError, match=f"t::mixture: {message}"):
            op(*wrong)
    with pytest.raises(gj.ArgumentTypeError, match="power is a TracedArray, it must be a static value"):
        gj.grad(lambda s: op(X, [], None, s).sum())(2.0)
    with pytest.raises(TypeError, match="missing a required argument: 'parts'"):
        op(X)


def test_implementations_get_plain_arrays_and_see_no_open_transform() -> None:
    op = gj.custom_op("t::double", double)
    seen: list = []

    @gj.impl(op)
    def kernel(x: Any) -> Any:
        y = gnp.zeros(x.shape)  # inside a transform these belong to it, but not here
        seen.append((type(x), type(y)))
        y[...] = x
        return y + gj.grad(lambda v: (v * v).sum())(x) / 2  # a transform of its own

    gj.impl_save_for_backward(op, lambda inputs, output: None)
    gj.impl_backward(op, lambda ctx, saved, grad: {"x": 2 * grad})
    assert_close(gj.jacfwd(gj.jacrev(lambda x: op(x) ** 2))(X)[0, 0, 0], 8.0, 1e-14)
    assert_close(gj.grad(lambda x: op(x.sum()))(X), np.full(3, 2.0), 0)  # a sum is a scalar
    assert set(seen) == {(np.ndarray, np.ndarray)}


def test_python_numbers_are_arrays_of_shape_without_axes() -> None:
    op = with_backward()
    assert op(1.5) == 3.0
    assert gj.grad(op)(1.5) == 2.0


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (lambda x, y: (x, y * 1), gj.RegistrationError, "returned output 0 in the memory of x"),
        (lambda x, y: (x * 1, x[1:]), gj.RegistrationError, "returned output 1 in the memory of x"),
        (lambda x, y: (x.reshape(1, 3), y * 1), gj.RegistrationError, "output 0 in the memory of x"),
        (lambda x, y: (lambda z: (z, z))(x * 1), gj.RegistrationError, "output 1 in the memory of output 0"),
        (lambda x, y: (lambda z: (z, z[1:]))(x * 1), gj.RegistrationError, "output 1 in the memory of output 0"),
        (lambda x, y: x * 1, gj.ArgumentTypeError, "must return a tuple of 2 arrays, as its .* not ndarray"),
        (lambda x, y: (x * 1,), gj.ArgumentTypeError, "must return a tuple of 2 arrays.*not 1 of them"),
        (lambda x, y: (x * 1, "a"), gj.ArgumentTypeError, "returned a str as output 1, not a plain array"),
        (lambda x, y: (x * 1, [1.0]), gj.ArgumentTypeError, "returned a list as output 1, not a plain array"),
    ],
)
def test_e114_results_of_an_implementation_are_new_plain_arrays(kernel: Any, error: Any, message: str) -> None:
    op = gj.custom_op("t::pair", pair)
    gj.impl(op, func=kernel)
    with pytest.raises(error, match=f"t::pair: the implementation at .*{HERE} .*{message}"):
        op(X, X.copy())


def test_views_of_new_arrays_are_fine_as_results() -> None:
    op = gj.custom_op("t::double", double)
    gj.impl(op, func=lambda x: np.stack([x, x])[0])
    assert_close(op(X), X, 0)


def test_each_call_of_an_implementation_is_one_nvtx_range_with_the_name() -> None:
    op = with_backward()
    with ranges.record() as events:
        gj.jacrev(op)(X)
    mine = [e for e in events if e.name == "t::double"]
    assert [e.category for e in mine] == [ranges.KERNEL]
    assert mine[0].end_ns is not None

    broken = gj.custom_op("t::pair", pair)
    gj.impl(broken, func=lambda x, y: 1 / 0)
    with ranges.record() as events, pytest.raises(ZeroDivisionError):
        broken(X, X)
    assert [e.end_ns is not None for e in events] == [True]


# ---------------------------------------------------------------- derivatives

TRANSFORMS = {
    "vjp": lambda f: gj.vjp(f, X)[1](X),
    "grad": lambda f: gj.grad(lambda x: f(x).sum())(X),
    "jvp": lambda f: gj.jvp(f, (X,), (X,)),
    "linearize": lambda f: gj.linearize(f, X)[1](X),
    "jacrev": lambda f: gj.jacrev(f)(X),
    "jacfwd": lambda f: gj.jacfwd(f)(X),
    "hessian": lambda f: gj.hessian(lambda x: f(x).sum())(X),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_e111_e96_e116_q8_an_operation_without_a_rule_is_an_error_under_every_transform(transform: str) -> None:
    op = doubling()
    with pytest.raises(gj.MissingRuleError, match=r"t::double has no derivative: no rule is registered. Register"):
        TRANSFORMS[transform](op)
    assert_close(op(X), 2 * X, 0)
    assert_close(gj.grad(lambda x: (x * gj.stop_gradient(op(gj.stop_gradient(x)))).sum())(X), 2 * X, 0)


@pytest.mark.parametrize(("have", "lacks"), [("backward", "save_for_backward"), ("save_for_backward", "backward")])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_e110_half_of_a_backward_rule_is_an_error_that_names_both_halves(
    transform: str, have: str, lacks: str
) -> None:
    op = doubling(**{have: lambda *args: None})
    message = rf"t::double has {have} \(registered at .*{HERE}\) but no {lacks}.*register impl_{lacks}"
    with pytest.raises(gj.MissingRuleError, match=message):
        TRANSFORMS[transform](op)


@pytest.mark.parametrize(
    ("backward", "error", "message"),
    [
        (lambda ctx, s, g: g, gj.StructureError, "must return a dict with a gradient .* of 'x', not a ndarray"),
        (lambda ctx, s, g: {}, gj.StructureError, "returned gradients for nothing; its keys must be exactly.*: 'x'"),
        (lambda ctx, s, g: {"x": g, "y": g}, gj.StructureError, "returned gradients for 'x', 'y'; its keys must be"),
        (lambda ctx, s, g: {"x": "g"}, gj.ArgumentTypeError, "the gradient of 'x' is a str, not an array"),
        (lambda ctx, s, g: {"x": [g]}, gj.ArgumentTypeError, "the gradient of 'x' is a list, not an array"),
        (lambda ctx, s, g: {"x": g[1:]}, gj.ShapeError, r"gradient of 'x' has shape \(2,\), but x has shape \(3,\)"),
        (lambda ctx, s, g: {"x": 1j * g}, gj.DTypeError, "gradient of 'x' is complex128, but x is float64"),
    ],
)
def test_e112_a_wrong_dict_of_gradients_names_op_place_input_and_expectation(
    backward: Any, error: Any, message: str
) -> None:
    op = with_backward(backward)
    with pytest.raises(error, match=f"t::double: backward at .*{HERE}.*{message}"):
        gj.grad(lambda x: op(x).sum())(X)


@pytest.mark.parametrize(
    ("parts", "scale", "message"),
    [
        (lambda g: g, None, "the gradient of 'parts', a list of 2 arrays, must be a list, not a ndarray"),
        (lambda g: [g], None, "'parts' is a list of 2 arrays, but its gradient is one of 1"),
        (lambda g: [g, g], 1, "returned a gradient for 'scale', which was None in this call"),
        (lambda g: [g, g], None, "the gradient of .*'parts\\[1\\]' must be None: it is int64"),
    ],
)
def test_e112_gradients_of_lists_and_of_what_takes_none(parts: Any, scale: Any, message: str) -> None:
    op = gj.custom_op("t::mixture", mixture)
    gj.impl(op, func=lambda x, parts, scale, power, name: x + sum(parts))
    gj.impl_save_for_backward(op, lambda inputs, output: None)
    gj.impl_backward(op, lambda ctx, s, g: {"x": g, "parts": parts(g), "scale": g if scale else None})
    with pytest.raises(gj.StructureError, match=message):
        gj.grad(lambda x: op(x, [x, np.arange(3)], None).sum())(X)


@pytest.mark.parametrize("declared", [True, [1, 0], [True], [True, False, True], "yes", [True, None]])
def test_e113_output_differentiability_is_a_list_of_one_bool_per_output(declared: Any) -> None:
    gj.custom_op("t::pair", pair)
    with pytest.raises(gj.RegistrationError, match="must be a list of 2 bools, one per output"):
        gj.impl_backward("t::pair", output_differentiability=declared)


def test_outputs_that_are_declared_to_have_no_derivative_have_none() -> None:
    op = gj.custom_op("t::pair", pair)
    seen: list = []
    gj.impl(op, func=lambda x, y: (x * y, x + y))
    gj.impl_save_for_backward(op, lambda inputs, output: inputs)

    @gj.impl_backward(op, output_differentiability=[True, False])
    def backward(ctx: Any, s: Any, first: Any, second: Any) -> dict:
        seen.append(second)
        return {"x": first * s.y, "y": first * s.x}

    assert_close(gj.grad(lambda x: sum(v.sum() for v in op(x, X)))(X), X, 0)
    assert_close(gj.jacfwd(lambda x: op(x, X)[1])(X), np.zeros((3, 3)), 0)
    assert_close(gj.jacrev(lambda x: op(x, X)[1])(X), np.zeros((3, 3)), 0)
    assert_close(gj.jacfwd(lambda x: op(x, X)[0])(X), np.diag(X), 0)
    assert set(seen) == {None}
    gj.impl_jvp(op, lambda inputs, output, tangents: (tangents.x * inputs.y, tangents.x))
    for jacobian in (gj.jacfwd, gj.jacrev):  # what is declared holds for a rule of tangents, too
        assert_close(jacobian(lambda x: op(x, X)[1])(X), np.zeros((3, 3)), 0)
        assert_close(jacobian(lambda x: op(x, X)[0])(X), np.diag(X), 0)


def test_a_dtype_may_be_spelled_in_every_way_and_is_looked_at_before_the_implementation_runs() -> None:
    @gj.custom_op("t::cast")
    def cast(x: np.ndarray, to: np.dtype, kind: type = float) -> np.ndarray:
        raise AssertionError

    gj.impl(cast, func=lambda x, to, kind: x.astype(to))
    for to in ("float32", np.float32, np.dtype("float32"), "<f4"):
        assert cast(X, to).dtype == np.float32
    for to in ("nonsense", 3.0, [1], None):
        with pytest.raises(gj.ArgumentTypeError, match=r"t::cast: to is a .*, it must be dtype, as the prototype says"):
            cast(X, to)
    with pytest.raises(gj.ArgumentTypeError, match="kind is a str, it must be type"):
        cast(X, "float32", "float")


def test_integer_outputs_and_inputs_carry_no_derivative() -> None:
    @gj.custom_op("t::at")
    def at(x: np.ndarray, i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError

    gj.impl(at, func=lambda x, i: (x[i], i + 1))
    gj.impl_save_for_backward(at, lambda inputs, output: (inputs.x.shape, inputs.i))

    @gj.impl_backward(at)
    def backward(ctx: Any, saved: Any, grad: Any, none: Any) -> dict:
        assert none is None
        shape, i = saved
        return {"x": grad @ (i[:, None] == np.arange(shape[0])), "i": None}

    def f(x: Any) -> Any:
        y, j = at(x, np.array([2, 0]))
        assert not gj.is_traced(j)
        return y

    assert_close(gj.jacrev(f)(X), np.eye(3)[[2, 0]], 0)
    assert_close(gj.jacfwd(f)(X), np.eye(3)[[2, 0]], 0)


def test_with_both_rules_forward_pushes_and_reverse_pulls() -> None:
    calls: list = []
    op = doubling(
        save_for_backward=lambda inputs, output: None,
        backward=lambda ctx, s, g: (calls.append("backward"), {"x": 2 * g})[1],
        jvp=lambda inputs, output, tangents: (calls.append("jvp"), 2 * tangents.x)[1],
    )
    assert_close(gj.jacrev(op)(X), 2 * np.eye(3), 0)
    assert set(calls) == {"backward"}
    calls.clear()
    assert_close(gj.jacfwd(op)(X), 2 * np.eye(3), 0)
    assert set(calls) == {"jvp"}


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (lambda i, o, t: (t.x, t.y, t.x), gj.StructureError, "must return a tuple with a tangent .* 2 outputs"),
        (lambda i, o, t: t.x, gj.StructureError, "must return a tuple with a tangent .* not a "),
        (lambda i, o, t: (t.x[1:], None), gj.ShapeError, r"tangent of output 0 that the jvp rule at .* shape \(2,\)"),
        (lambda i, o, t: (1j * t.x, None), gj.DTypeError, "tangent of output 0 .* is complex128"),
        (lambda i, o, t: ("t", None), gj.ArgumentTypeError, "tangent of output 0 .* is a str"),
    ],
)
def test_a_wrong_tangent_names_op_place_and_output(rule: Any, error: Any, message: str) -> None:
    op = gj.custom_op("t::pair", pair)
    gj.impl(op, func=lambda x, y: (x * y, x + y))
    gj.impl_jvp(op, rule)
    for transform in (gj.jacfwd, gj.jacrev):
        with pytest.raises(error, match=message):
            transform(lambda x: op(x, X)[0])(X)


def test_e98_af5_a_backward_rule_may_be_once_differentiable() -> None:
    op = doubling(
        save_for_backward=lambda inputs, output: inputs.x,
        backward=once_differentiable(lambda ctx, x, g: {"x": g * (2 + 0 * x)}),
    )
    assert_close(gj.grad(lambda x: op(x).sum())(X), np.full(3, 2.0), 0)
    assert_close(gj.jacrev(op)(X), 2 * np.eye(3), 0)
    with pytest.raises(gj.MissingRuleError, match="is marked once_differentiable"):
        gj.hessian(lambda x: op(x).sum())(X)


def test_e97_saving_an_operand_and_a_result_is_fine() -> None:
    op = gj.custom_op("t::double", double)
    gj.impl(op, func=lambda x: np.exp(x))
    gj.impl_save_for_backward(op, lambda inputs, output: (inputs.x, output))
    gj.impl_backward(op, lambda ctx, s, g: {"x": s[1] * g})
    assert_close(gj.hessian(lambda x: op(x).sum())(X), np.diag(np.exp(X)), 1e-14)


def test_a_captured_traced_value_in_an_implementation_is_an_error() -> None:
    op = gj.custom_op("t::double", double)

    def f(c: Any) -> Any:
        gj.impl(op, device_types="cpu", func=lambda x: x * c)
        return op(X).sum()

    with pytest.raises(gj.ArgumentTypeError, match="returned a TracedArray as output 0, not a plain array"):
        gj.grad(f)(2.0)


# ---------------------------------------------------------------- batching and shapes


def test_e91_av1_without_a_vmap_rule_lanes_run_one_by_one_with_one_warning() -> None:
    op = with_backward()
    xs = np.arange(6.0).reshape(2, 3)
    with pytest.warns(RuntimeWarning, match="vmap of .*: t::double has no batch rule, so it runs once") as seen:
        assert_close(gj.vmap(lambda x: op(op(x)))(xs), 4 * xs, 0)
    assert len(seen) == 1
    impossible = pytest.raises(gj.MissingRuleError, match=r"no batch rule: register impl_vmap\('t::double'\)")
    with gj.settings.override(missing_batch_rule="raise"), impossible:
        gj.vmap(op)(xs)
    with pytest.warns(RuntimeWarning, match="t::double has no batch rule"):
        assert_close(gj.grad(lambda x: gj.vmap(op, in_dims=1)(x).sum())(xs), np.full((2, 3), 2.0), 0)


def test_an_operation_of_several_results_and_lists_runs_lane_by_lane() -> None:
    @gj.custom_op("t::both")
    def both(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError

    gj.impl(both, func=lambda parts: (parts[0] + parts[1], parts[0].sum()))
    xs, y = np.arange(6.0).reshape(2, 3), X
    with pytest.warns(RuntimeWarning, match="t::both has no batch rule"):
        total, scalar = gj.vmap(lambda x: both([x, y]), out_dims=(1, 0))(xs)
    assert_close(total, (xs + y).T, 0)
    assert_close(scalar, xs.sum(1), 0)


def test_e92_av2_a_vmap_rule_takes_the_place_of_the_generated_loop() -> None:
    seen: list = []

    def rule(info: Any, in_dims: tuple, x: Any, parts: Any, scale: Any, power: int, name: str) -> Any:
        seen.append((tuple(info), in_dims, power))
        x = np.moveaxis(x, in_dims[0], 0)
        return op(x, [np.moveaxis(parts[0], in_dims[1][0], 0), parts[1]], scale, power, name), 0

    op = gj.custom_op("t::mixture", mixture)
    gj.impl(op, func=lambda x, parts, scale, power, name: (x + sum(parts)) ** power)
    gj.impl_vmap(op, rule)
    xs = np.arange(6.0).reshape(3, 2)
    found = gj.vmap(lambda x, a: op(x, [a, X], None, 3), in_dims=(1, 0))(xs, xs.T.copy())
    assert_close(found, (2 * xs.T + X) ** 3, 1e-14)
    assert seen == [((2, "error"), (1, [0, None], None, None, None), 3)]
    with pytest.raises(gj.RegistrationError):
        gj.impl_vmap(op, rule)


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (lambda info, d, x: x, gj.StructureError, r"must have two returns \(output, out_dims\), not a ndarray"),
        (lambda info, d, x: (x, (0, 0)), gj.StructureError, "returned an incompatible out_dims"),
        (lambda info, d, x: (x, 5), gj.AxisError, "returned out_dims=5"),
        (lambda info, d, x: (x, 1), gj.ShapeError, "axis 1 of output holds the 2 lanes"),
    ],
)
def test_e93_e94_wrong_returns_of_a_vmap_rule(rule: Any, error: Any, message: str) -> None:
    op = doubling(vmap=rule)
    with pytest.raises(error, match=f"t::double.*{message}"):
        gj.vmap(op)(np.ones((2, 3)))


def test_a_batch_of_no_lanes_asks_the_abstract_implementation() -> None:
    op = doubling(abstract=lambda x: (x.shape, x.dtype))
    assert gj.vmap(op)(np.ones((0, 3), np.float32)).shape == (0, 3)
    assert gj.vmap(op)(np.ones((0, 3), np.float32)).dtype == np.float32
    other = gj.custom_op("t::pair", pair)
    gj.impl(other, func=lambda x, y: (x + y, x - y))
    with pytest.raises(gj.MissingRuleError, match=r"no abstract implementation.*register one with impl_abstract"):
        gj.vmap(other)(np.ones((0, 3)), np.ones((0, 3)))


def test_abstract_implementations_tell_shapes_and_are_checked() -> None:
    op = doubling(abstract=lambda x: ((2, *x.shape), np.float32))
    assert op.abstract(X) == (Aval((2, 3), np.dtype(np.float32)),)
    wrong = gj.custom_op("t::pair", pair)
    gj.impl_abstract(wrong, lambda x, y: (x.shape, x.dtype))
    with pytest.raises(gj.ArgumentTypeError, match=rf"at .*{HERE} must return \(shape, dtype\)"):
        wrong.abstract(X, X)


def test_evaluate_runs_the_implementation_and_returns_a_tuple() -> None:
    op = doubling()
    (y,) = op.evaluate(X)
    assert_close(y, 2 * X, 0)


# ---------------------------------------------------------------- an operation with every rule


def along() -> Any:
    def totals(x: np.ndarray, axis: int) -> np.ndarray:
        """The sum of squares along a static axis, counted from the end."""
        raise AssertionError("the body of a prototype never runs")

    op = gj.custom_op("t::totals", totals)
    gj.impl(op, func=lambda x, axis: (x * x).sum(axis))
    gj.impl_save_for_backward(op, lambda inputs, output: inputs)

    @gj.impl_backward(op)
    def backward(ctx: Any, s: Any, g: Any) -> dict:
        return {"x": 2 * s.x * np.expand_dims(g, s.axis)}

    gj.impl_vmap(op, lambda info, in_dims, x, axis: (op(np.moveaxis(x, in_dims[0], 0), axis), 0))
    return op


def plain_totals(x: Any, axis: int) -> Any:
    return (x * x).sum(axis)


T = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize(
    "transform",
    [
        lambda f, k: f(T, k),
        lambda f, k: gj.vmap(lambda x: f(x, k))(T),
        lambda f, k: gj.vmap(gj.vmap(lambda x: f(x, -1)), in_dims=1)(T),
        lambda f, k: gj.grad(lambda x: f(x, k).sum())(T),
        lambda f, k: gj.grad(lambda x: (gj.grad(lambda v: (f(v, k) ** 2).sum())(x) ** 2).sum())(T / 10),
        lambda f, k: gj.vmap(gj.grad(lambda x: (f(x, k) ** 2).sum()))(T),
        lambda f, k: gj.grad(lambda x: (x * gj.stop_gradient(gj.grad(lambda v: f(v, k).sum())(x))).sum())(T),
        lambda f, k: gj.grad(lambda x: gj.stop_gradient(f(x, k)).sum() + (x * x).sum())(T),
    ],
    ids=["ho1", "ho2", "ho2 vmap of vmap", "ho3", "ho3 grad of grad", "ho4 vmap of grad", "ho5 inside", "ho5 outside"],
)
def test_ho1_to_ho5_a_primitive_of_users_with_vmap_and_grad_rules(transform: Any, axis: int) -> None:
    assert_close(transform(along(), axis), transform(plain_totals, axis), 1e-12)


# ---------------------------------------------------------------- without values


def multiplied(needed: bool) -> Any:
    """x y as an operation; needed: its backward rule computes what is asked for and no more."""

    @gj.custom_op("t::times")
    def times(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        raise AssertionError

    gj.impl(times, func=lambda x, y: x * y)
    gj.impl_abstract(times, lambda x, y: (np.broadcast_shapes(x.shape, y.shape), x.dtype))
    gj.impl_save_for_backward(times, lambda inputs, output: inputs)

    @gj.impl_backward(times)
    def backward(ctx: Any, s: Any, g: Any) -> dict:
        asked = ctx.needs_input_grad if needed else {"x": True, "y": True}
        return {"x": g * s.y if asked["x"] else None, "y": g * s.x if asked["y"] else None}

    return times


def test_linear_transpose_uses_the_backward_rule() -> None:
    times = multiplied(needed=True)
    assert_close(gj.linear_transpose(lambda y: times(X, y), X)(np.ones(3))[0], X, 0)
    with pytest.raises(gj.MissingRuleError, match="recorded without values, as a linear operation of 'x', 'y'"):
        gj.linear_transpose(lambda y: times(y, y), X)(X)
    op = with_backward()
    with pytest.raises(gj.MissingRuleError, match=r"t::double is recorded without values.*needs impl_abstract"):
        gj.linear_transpose(op, X)


@pytest.mark.filterwarnings("ignore:vmap of .*t..times has no batch rule:RuntimeWarning")
def test_a_backward_rule_that_needs_what_is_not_there_says_so_and_gives_no_zero() -> None:
    times = multiplied(needed=False)
    f = gj.custom_vjp(lambda x: x * x)
    f.defvjp(lambda x: (x * x, x), lambda x, ct: (2 * times(x, ct),))
    assert_close(gj.jacrev(f)(X), np.diag(2 * X), 0)
    assert_close(gj.jacrev(gj.jacrev(f))(X)[0, 0, 0], 2.0, 0)
    with pytest.raises(gj.MissingRuleError, match=r"Compute only the gradients that ctx\.needs_input_grad asks for"):
        gj.jacfwd(f)(X)


# ---------------------------------------------------------------- registry


def test_definitions_from_many_threads_are_all_there_and_one_name_is_taken_once() -> None:
    errors: list = []

    def define(k: int) -> None:
        try:
            gj.custom_op("t::double", double)
        except gj.RegistrationError as error:
            errors.append(error)

    threads = [threading.Thread(target=define, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 7
    assert all(re.search("is defined already", str(e)) for e in errors)


def test_rules_must_be_functions() -> None:
    doubling()
    with pytest.raises(gj.ArgumentTypeError, match="impl_jvp t::double: expected a function, found 3"):
        gj.impl_jvp("t::double", 3)
