"""One function, x and y to sin(x) y, with derivatives of its own in every way that there is."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac import custom_jvp, custom_op, custom_vjp, impl, impl_abstract, impl_backward, impl_jvp
from gpujac.control.registered import TABLE
from gpujac.control.registry import impl_save_for_backward, impl_vmap, remove_custom_op

CALLS: list[str] = []  # which rules ran


def library(x: Any) -> Any:
    """The namespace of an array, traced or not; NumPy's functions know CuPy's arrays."""
    return x.__array_namespace__() if hasattr(x, "__array_namespace__") else np


def plain(x: Any, y: Any) -> Any:
    """The function without a rule."""
    return library(x).sin(x) * y


def _forward(x: Any, y: Any) -> tuple:
    CALLS.append("fwd")
    xp = library(x)
    return xp.sin(x) * y, (xp.cos(x), xp.sin(x), y)


def _backward(kept: tuple, ct: Any) -> tuple:
    CALLS.append("bwd")
    cosine, sine, y = kept
    return cosine * y * ct, sine * ct


def _push(primals: tuple, tangents: tuple) -> tuple:
    CALLS.append("jvp")
    (x, y), (t, s) = primals, tangents
    xp = library(x)
    return xp.sin(x) * y, xp.cos(x) * y * t + xp.sin(x) * s


def with_jvp() -> Any:
    """A tangent rule alone."""
    f = custom_jvp(plain)
    f.defjvp(_push)
    return f


def with_vjp() -> Any:
    """A cotangent rule alone."""
    f = custom_vjp(plain)
    f.defvjp(_forward, _backward)
    return f


def with_both() -> Any:
    """Both rules."""
    f = custom_vjp(plain)
    f.defvjp(_forward, _backward)
    f.defjvp(_push)
    return f


def with_all() -> Any:
    """Both rules, and a batching rule."""
    f = with_both()

    @f.defvmap
    def rule(info: Any, in_dims: tuple, *args: Any) -> tuple:
        CALLS.append("vmap")
        return f(*[_stacked(v, d, info.batch_size) for v, d in zip(args, in_dims, strict=True)]), 0

    return f


def _stacked(x: Any, d: Any, size: int) -> Any:
    """An operand with its lanes in front, repeated where it has none."""
    xp = library(x)
    return xp.broadcast_to(x, (size, *x.shape)) if d is None else xp.moveaxis(x, d, 0)


def _defined(qualname: str, prototype: Callable) -> Any:
    """A new operation, also where this file is read a second time (pytest looks for doctests in it)."""
    if qualname in TABLE:
        remove_custom_op(qualname)
    return custom_op(qualname, prototype)


def _op(name: str) -> Any:
    op = _defined(f"zoo::{name}", _prototype(name))
    impl(op, func=plain)
    impl_abstract(op, lambda x, y: (np.broadcast_shapes(x.shape, y.shape), x.dtype))
    return op


def _prototype(name: str) -> Callable:
    def prototype(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The sine of x, times y."""
        raise AssertionError("the body of a prototype never runs")

    prototype.__name__ = name
    return prototype


def _batched(op: Any) -> None:
    """As `with_all`: the operation itself on lanes in front."""

    @impl_vmap(op)
    def rule(info: Any, in_dims: tuple, *args: Any) -> tuple:
        CALLS.append("vmap")
        return op(*[_stacked(v, d, info.batch_size) for v, d in zip(args, in_dims, strict=True)]), 0


def op_with_backward(name: str = "backward") -> Any:
    """An operation with a backward rule of ordinary code."""
    op = _op(name)
    _batched(op)
    impl_save_for_backward(op, lambda inputs, output: inputs)

    @impl_backward(op)
    def backward(ctx: Any, saved: Any, grad: Any) -> dict:
        CALLS.append("backward")
        xp = library(saved.x)
        return {"x": xp.cos(saved.x) * saved.y * grad, "y": xp.sin(saved.x) * grad}

    return op


def op_with_jvp(name: str = "tangent") -> Any:
    """An operation with a tangent rule."""
    op = _op(name)
    _batched(op)

    @impl_jvp(op)
    def rule(inputs: Any, output: Any, tangents: Any) -> Any:
        CALLS.append("tangents")
        xp = library(inputs.x)
        return xp.cos(inputs.x) * inputs.y * tangents.x + xp.sin(inputs.x) * tangents.y

    return op


def op_without_vmap() -> Any:
    """An operation with both derivative rules that vmap runs lane by lane."""
    op = _op("looped")
    impl_save_for_backward(op, lambda inputs, output: inputs)
    impl_backward(
        op,
        lambda ctx, saved, grad: {
            "x": library(saved.x).cos(saved.x) * saved.y * grad,
            "y": library(saved.x).sin(saved.x) * grad,
        },
    )
    impl_jvp(
        op,
        lambda inputs, output, t: (
            library(inputs.x).cos(inputs.x) * inputs.y * t.x + library(inputs.x).sin(inputs.x) * t.y
        ),
    )
    return op


def op_all_opaque() -> Any:
    """An operation whose backward rule is made of operations too: no line of it is ordinary code."""
    product = _defined("zoo::product", _prototype("product"))
    impl(product, func=lambda x, y: x * y)
    impl_abstract(product, lambda x, y: (np.broadcast_shapes(x.shape, y.shape), x.dtype))
    impl_save_for_backward(product, lambda inputs, output: inputs)
    impl_backward(product, lambda ctx, s, g: {
        "x": product(s.y, g) if ctx.needs_input_grad["x"] else None,
        "y": product(s.x, g) if ctx.needs_input_grad["y"] else None,
    })  # fmt: skip
    _batched(product)
    shifted = _defined("zoo::shifted_sine", _shifted)
    impl(shifted, func=lambda x, k: library(x).sin(x + k * (np.pi / 2)))
    impl_save_for_backward(shifted, lambda inputs, output: inputs)
    impl_backward(shifted, lambda ctx, s, g: {"x": product(shifted(s.x, s.k + 1), g)})
    impl_vmap(shifted, lambda info, in_dims, x, k: (shifted(x, k), in_dims[0]))
    return lambda x, y: product(shifted(x, 0), y)


def _shifted(x: np.ndarray, k: int) -> np.ndarray:
    raise AssertionError("the body of a prototype never runs")


_shifted.__name__ = "shifted_sine"

FUNCTIONS = {"jvp": with_jvp(), "vjp": with_vjp(), "both": with_both(), "all": with_all()}
OPS = {
    "op backward": op_with_backward(),
    "op jvp": op_with_jvp(),
    "op looped": op_without_vmap(),
    "op opaque": op_all_opaque(),
}
EVERY = {**FUNCTIONS, **OPS}
