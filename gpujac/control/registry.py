"""Operations of the user's by name: define one, and register its implementations and rules."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpujac.control.registered import LOCK, TABLE, Part, find, source_of
from gpujac.control.registry_op import DEVICES, CustomOp
from gpujac.control.registry_schema import checked_name, schema_of
from gpujac.core import decompose
from gpujac.errors import ArgumentTypeError, RegistrationError

__all__ = [
    "custom_op",
    "find",
    "impl",
    "impl_abstract",
    "impl_backward",
    "impl_jvp",
    "impl_save_for_backward",
    "impl_vmap",
    "remove_custom_op",
]


def custom_op(qualname: str, fn: Callable | None = None) -> Any:
    """Defines an operation by name; its implementations and rules are registered afterwards.

    Args:
        qualname: "namespace::name"; the namespace is yours.
        fn: the prototype, a function called `name` whose annotations say what it takes and returns;
            its body never runs. Parameters: arrays (np.ndarray), Optional or lists of them, and static
            int, float, bool, str, complex, dtype (checked at each call). Returns: an array or a tuple of a
            fixed number of arrays. Without it this is a decorator.

    Returns:
        The operation, to call like the prototype. Transforms see one op with the rules it has; its
        implementation gets plain arrays, never traced ones.

    Raises:
        RegistrationError: a malformed name, a reserved namespace, a prototype that an operation
        cannot have, or a name that is taken (with file and line of the first).

    Cost: a call adds a few microseconds to the implementation's.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> @gj.custom_op("demo::cube")
        ... def cube(x: np.ndarray) -> np.ndarray:
        ...     '''The third power of each entry.'''
        >>> @gj.impl("demo::cube", device_types="cpu")
        ... def cube_cpu(x):
        ...     return x**3
        >>> @gj.impl_save_for_backward("demo::cube")
        ... def save(inputs, output):
        ...     return inputs.x
        >>> @gj.impl_backward("demo::cube")
        ... def backward(ctx, x, grad):
        ...     return {"x": 3 * x**2 * grad}
        >>> gj.jacrev(cube)(np.array([1.0, 2.0]))
        array([[ 3.,  0.],
               [ 0., 12.]])
    """
    if fn is None:
        checked_name(qualname)
        return lambda prototype: custom_op(qualname, prototype)
    made = CustomOp(qualname, schema_of(qualname, fn), fn, source_of(fn))
    with LOCK:
        if qualname in TABLE:
            raise RegistrationError(
                f"custom_op: {qualname!r} is defined already, at {TABLE[qualname].place}; an operation is defined once"
            )
        TABLE[qualname] = made
    decompose.declare(qualname)
    return made


def remove_custom_op(qualname: str) -> None:
    """Forgets an operation, so that its name is free again: for tests and notebooks.

    Args:
        qualname: "namespace::name", or the operation.

    Raises:
        RegistrationError: no such operation.

    Cost: none.

    Example:
        >>> remove_custom_op("demo::nothing")
        Traceback (most recent call last):
        gpujac.errors.RegistrationError: no custom op 'demo::nothing' is registered; ...
    """
    with LOCK:
        made = TABLE.pop(find(qualname).qualname)
    decompose.forget(made.qualname)


def impl(qualname: Any, *, device_types: str | Iterable[str] = DEVICES, func: Callable | None = None) -> Any:
    """Registers the function that computes an operation on some devices.

    Args:
        qualname: "namespace::name", or the operation.
        device_types: "cpu" (NumPy arrays), "cuda" (CuPy arrays) or both. Where operands are on
            both, the implementation for cuda runs and gets them as they are.
        func: takes the arguments of the prototype as plain arrays, returns new arrays, as many as
            the prototype says, and writes into no operand. Without it this is a decorator.

    Returns:
        The function.

    Raises:
        RegistrationError: an unknown operation or device type, or a second implementation for a
        device (with file and line of the first).

    Cost: none; each call runs inside an NVTX range with the operation's name.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> @gj.custom_op("demo::twice")
        ... def twice(x: np.ndarray) -> np.ndarray:
        ...     '''Two times x.'''
        >>> twice_any = gj.impl("demo::twice", func=lambda x: x + x)
        >>> twice(np.ones(2))
        array([2., 2.])
    """
    devices = _devices(device_types)
    find(qualname)
    return _registered("impl", qualname, devices, func)


def impl_abstract(qualname: Any, func: Callable | None = None) -> Any:
    """Registers what tells shapes and dtypes of an operation's results without values.

    Args:
        qualname: "namespace::name", or the operation.
        func: takes the arguments of the prototype, with a pair (shape, dtype) that has these names
            in the place of each array; returns such a pair, or a tuple of them for several results.

    Returns:
        The function (a decorator without `func`).

    Raises:
        RegistrationError: an unknown operation, or a second registration.

    Cost: none. It is asked where a linear function is recorded without values, for a batch of no
    lanes, and by `gpujac.testing`.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> @gj.custom_op("demo::rowsum")
        ... def rowsum(x: np.ndarray) -> np.ndarray:
        ...     '''The sum of each row.'''
        >>> f = gj.impl_abstract("demo::rowsum", lambda x: (x.shape[:-1], x.dtype))
        >>> rowsum.abstract(np.ones((3, 2)))
        (Aval(shape=(3,), dtype=dtype('float64')),)
    """
    return _registered("impl_abstract", qualname, ("abstract",), func)


def impl_save_for_backward(qualname: Any, func: Callable | None = None) -> Any:
    """Registers what an operation keeps of a call for its backward rule.

    Args:
        qualname: "namespace::name", or the operation.
        func: `func(inputs, output)` returns any pytree; `inputs` is a named tuple of the arguments,
            `output` an array or the tuple of them.

    Returns:
        The function (a decorator without `func`).

    Raises:
        RegistrationError: an unknown operation, or a second registration.

    Cost: called once per call of the operation that is differentiated; what it returns stays alive
    as long as the pullback.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> @gj.custom_op("demo::square")
        ... def square(x: np.ndarray) -> np.ndarray:
        ...     '''x times x.'''
        >>> f = gj.impl("demo::square", func=lambda x: x * x)
        >>> f = gj.impl_save_for_backward("demo::square", lambda inputs, output: inputs.x)
        >>> f = gj.impl_backward("demo::square", lambda ctx, x, grad: {"x": 2 * x * grad})
        >>> gj.jacrev(square)(np.array([3.0]))
        array([[6.]])
    """
    return _registered("impl_save_for_backward", qualname, ("save_for_backward",), func)


def impl_backward(qualname: Any, func: Callable | None = None, *,
                  output_differentiability: Sequence[bool] | None = None) -> Any:  # fmt: skip
    """Registers the backward rule of an operation.

    Args:
        qualname: "namespace::name", or the operation.
        func: `func(ctx, saved, *grads)` with one gradient per output (zeros where nobody used it)
            returns a dict from the name of each array argument to its gradient, or None for a zero;
            a list argument takes a list. `ctx.needs_input_grad[name]` says what is used. It is
            ordinary code of arrays, so it is differentiated in turn.
        output_differentiability: one bool per output; those that are False have no derivative, and
            their gradient is passed as None.

    Returns:
        The function (a decorator without `func`).

    Raises:
        RegistrationError: an unknown operation, a second registration, or a malformed
        output_differentiability. When it is used: StructureError, ShapeError, DTypeError for a dict
        that does not fit; MissingRuleError if impl_save_for_backward is missing.

    Cost: called once per reverse sweep, mapped over its rows (`impl_vmap` of what it calls, else a
    loop with a warning). Forward mode without impl_jvp transposes it.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> @gj.custom_op("demo::product")
        ... def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        ...     '''x times y.'''
        >>> f = gj.impl("demo::product", func=lambda x, y: x * y)
        >>> f = gj.impl_save_for_backward("demo::product", lambda inputs, output: inputs)
        >>> f = gj.impl_backward("demo::product", lambda ctx, s, grad: {"x": grad * s.y, "y": grad * s.x})
        >>> gj.vjp(product, np.array([3.0]), np.array([4.0]))[1](np.ones(1))
        (array([4.]), array([3.]))
    """
    op = find(qualname)
    declared = output_differentiability
    if declared is not None:
        fits = isinstance(declared, (list, tuple)) and all([isinstance(d, bool) for d in declared])
        if not fits or len(declared) != op.schema.outputs:
            raise RegistrationError(
                f"impl_backward: output_differentiability={declared!r} of {op.qualname} must be a list of "
                f"{op.schema.outputs} bools, one per output"
            )

    return _registered("impl_backward", op, ("backward",), func, declared)


def impl_jvp(qualname: Any, func: Callable | None = None) -> Any:
    """Registers the tangent rule of an operation.

    Args:
        qualname: "namespace::name", or the operation.
        func: `func(inputs, output, tangents)` returns the tangent of the output (a tuple of them for
            several, None for a zero); `inputs` and `tangents` are named tuples of the arguments,
            tangents zeros where nothing is differentiated and None for what is no floating array.
            It is linear in the tangents.

    Returns:
        The function (a decorator without `func`).

    Raises:
        RegistrationError: an unknown operation, or a second registration.

    Cost: called once in forward mode; without impl_backward, reverse mode records and transposes it.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> @gj.custom_op("demo::sine")
        ... def sine(x: np.ndarray) -> np.ndarray:
        ...     '''The sine.'''
        >>> f = gj.impl("demo::sine", func=lambda x: np.sin(x))
        >>> f = gj.impl_jvp("demo::sine", lambda inputs, output, tangents: np.cos(inputs.x) * tangents.x)
        >>> gj.jacfwd(sine)(np.zeros(1)), gj.jacrev(sine)(np.zeros(1))
        (array([[1.]]), array([[1.]]))
    """
    return _registered("impl_jvp", qualname, ("jvp",), func)


def impl_vmap(qualname: Any, func: Callable | None = None) -> Any:
    """Registers how an operation acts on all lanes of vmap at once.

    Args:
        qualname: "namespace::name", or the operation.
        func: `func(info, in_dims, *args)` returns `(output, out_dims)`; `info` has batch_size and
            randomness, `in_dims` has an int (from the front) or None per argument, a list for a list.

    Returns:
        The function (a decorator without `func`).

    Raises:
        RegistrationError: an unknown operation, or a second registration.

    Cost: one call for all lanes; without it the operation runs once per lane, with a warning.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> @gj.custom_op("demo::total")
        ... def total(x: np.ndarray) -> np.ndarray:
        ...     '''The sum of a vector.'''
        >>> f = gj.impl("demo::total", func=lambda x: x.sum())
        >>> @gj.impl_vmap("demo::total")
        ... def rule(info, in_dims, x):
        ...     return np.sum(x, axis=1 - in_dims[0]), 0
        >>> gj.vmap(total)(np.ones((2, 3)))
        array([3., 3.])
    """
    return _registered("impl_vmap", qualname, ("vmap",), func)


def _registered(what: str, qualname: Any, kinds: Sequence[str], func: Callable | None,
                differentiable: Iterable[bool] | None = None) -> Any:  # fmt: skip
    """Registers `func` under each kind, and which outputs it differentiates; a decorator where there is none yet."""
    op = find(qualname)
    if func is None:
        return lambda f: _registered(what, op, kinds, f, differentiable)
    if not callable(func):
        raise ArgumentTypeError(f"{what} {op.qualname}: expected a function, found {func!r}")
    part = Part(func, source_of(func))
    with LOCK:
        op.add(kinds, what, part)
        if differentiable is not None:
            op.differentiable = tuple(differentiable)
    return func


def _devices(device_types: Any) -> tuple[str, ...]:
    if not isinstance(device_types, Iterable):
        raise ArgumentTypeError(
            f"impl: device_types={device_types!r} must be a text or texts out of {', '.join(map(repr, DEVICES))}"
        )
    wanted = (device_types,) if isinstance(device_types, str) else tuple(device_types)
    for device in wanted:
        if device not in DEVICES:
            raise RegistrationError(
                f"impl: device type {device!r} is not supported; choose from {', '.join(map(repr, DEVICES))}"
            )
    if not wanted:
        raise RegistrationError("impl: device_types is empty; name at least one device type")
    return tuple(dict.fromkeys(wanted))
