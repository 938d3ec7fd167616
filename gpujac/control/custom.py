"""Functions with derivatives and batching rules of their own: custom_jvp and custom_vjp."""

import inspect
import sys
import types
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

import numpy as np

from gpujac import trees
from gpujac.control.custom_layout import ARRAYS, Layout
from gpujac.control.custom_trees import Rules, TreeCall
from gpujac.control.registered import source_of
from gpujac.core.taking import TAKING
from gpujac.core.trace import Tracer, top_trace
from gpujac.errors import ArgnumsRangeError, ArgumentError, ArgumentTypeError, RegistrationError

__all__ = ["CustomFunction", "custom_jvp", "custom_vjp", "once_differentiable"]

_FLOATS = frozenset((float, complex, np.float64, np.float32, np.complex128, np.complex64))
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class CustomFunction:
    """A function that carries rules of its own; call it like the function.

    One object may have a jvp rule, a vjp rule and a batching rule. With both derivative rules,
    forward sweeps use the first and reverse sweeps the second. It is made by `custom_jvp` or
    `custom_vjp`, which differ in nothing but the name in messages.
    """

    _what = "custom function"

    def __init__(self, f: Callable, nondiff_argnums: int | Sequence[int] = ()) -> None:
        if not callable(f):
            raise ArgumentTypeError(f"{self._what}: the first argument must be a function, not {type(f).__name__}")
        update_wrapper(self, f, updated=())
        name = getattr(f, "__name__", type(f).__name__)
        self._signature = _signature(f)
        names = _positional_names(self._signature)
        self._count = len(names) if _is_fixed(self._signature) else None
        self._rules = Rules(f, name, self._what, names)
        self._nondiff = _checked_argnums(self._what, name, nondiff_argnums, self._count)
        self._places: dict[str, str] = {}

    def defjvp(self, rule: Callable, symbolic_zeros: bool = False) -> Callable:
        """Give the function its tangent rule; returns the rule, so this is a decorator too.

        Args:
            rule: `rule(*nondiff, primals, tangents) -> (y, dy)`: `primals` and `tangents` are tuples
                with one entry for each argument that `nondiff_argnums` does not name. `dy` has the
                structure, shapes and (after a cast) dtypes of `y`, and is linear in the tangents;
                None is a zero. Tangents of integers and of what is no array are None.
            symbolic_zeros: pass None for the tangents that are zero because nothing is
                differentiated there; otherwise the rule gets arrays of zeros.

        Raises:
            RegistrationError: the function has a jvp rule already.

        Cost: forward mode calls the rule once; reverse mode writes it into the linear program.

        Example:
            >>> import numpy as np
            >>> import gpujac as gj
            >>> @gj.custom_jvp
            ... def softplus(x):
            ...     return np.log1p(np.exp(x))
            >>> @softplus.defjvp
            ... def rule(primals, tangents):
            ...     (x,), (t,) = primals, tangents
            ...     return softplus(x), t / (1 + np.exp(-x))
            >>> float(gj.grad(softplus)(0.0)), float(gj.grad(gj.grad(softplus))(0.0))
            (0.5, 0.25)
        """
        self._set("jvp", rule)
        self._rules.jvp = rule
        self._rules.none_tangents = bool(symbolic_zeros)
        return rule

    def defvjp(self, fwd: Callable, bwd: Callable, symbolic_zeros: bool = False,
               needs_input_grad: bool = False) -> None:  # fmt: skip
        """Give the function its cotangent rule.

        Args:
            fwd: `fwd(*args) -> (y, residuals)`, called in the place of the function: `y` has the
                structure, shapes and dtypes of what the function returns (no call runs both, so nothing
                checks that). `residuals` is any pytree; functions and objects may be among it.
            bwd: `bwd(*nondiff, residuals, ct) -> tuple` with one cotangent (a pytree like the
                argument) for each argument that `nondiff_argnums` does not name; None is a zero, as
                a whole or in a place. It is linear in `ct`, which has the structure of `y` and None
                in the place of integer results, and the transpose of the derivative J under
                Re⟨ct, J t⟩: for an analytic function of complex numbers `ct` times the conjugate slope.
            symbolic_zeros: pass None for the cotangents of results that nobody used; otherwise
                the rule gets arrays of zeros.
            needs_input_grad: call `bwd(*nondiff, residuals, ct, needed)`: `needed` is a tuple with
                a tree of True and False per argument; what is not needed may be None.

        Raises:
            RegistrationError: the function has a vjp rule already.

        Cost: `fwd` runs once; each reverse sweep calls `bwd` once, over all its rows. Without a
        jvp rule, forward mode transposes `bwd`, recorded once per point.

        Example:
            >>> import numpy as np
            >>> import gpujac as gj
            >>> @gj.custom_vjp
            ... def clipped(x):
            ...     return x
            >>> clipped.defvjp(lambda x: (x, None), lambda _, ct: (np.clip(ct, -1, 1),))
            >>> gj.vjp(clipped, np.zeros(2))[1](np.array([0.5, 7.0]))[0]
            array([0.5, 1. ])
        """
        self._set("vjp", fwd, bwd)
        self._rules.fwd, self._rules.bwd = fwd, bwd
        self._rules.none_cotangents = bool(symbolic_zeros)
        self._rules.asks_needed = bool(needs_input_grad)

    def defvmap(self, rule: Callable) -> Callable:
        """Give the function its batching rule; without one, function and rules are batched themselves.

        Args:
            rule: `rule(info, in_dims, *args) -> (y, out_dims)`, as in torch.func. `info` has
                `batch_size` and `randomness`; `in_dims` is a tuple with one entry per argument, an int
                (from the front) or None, or a tree of them like the argument; `out_dims` is such a
                tree or prefix for the output, None where all lanes have the same result. It is
                called only where something is mapped.

        Returns:
            The rule.

        Raises:
            RegistrationError: the function has a batching rule already. When it is used:
            StructureError, AxisError, ShapeError for out_dims that do not fit the output.

        Cost: one call of the rule for all lanes.

        Example:
            >>> import numpy as np
            >>> import gpujac as gj
            >>> @gj.custom_vjp
            ... def total(x):
            ...     return np.sum(x)
            >>> @total.defvmap
            ... def rule(info, in_dims, x):
            ...     return np.sum(x, axis=1 - in_dims[0]), 0
            >>> gj.vmap(total)(np.ones((2, 3)))
            array([3., 3.])
        """
        self._set("vmap", rule)
        self._rules.vmap = rule
        return rule

    def _set(self, kind: str, *rules: Any) -> None:
        """Note where a rule comes from; a second one of a kind is refused."""
        for rule in rules:
            if not callable(rule):
                raise ArgumentTypeError(
                    f"{self._what} {self._rules.name}: a {kind} rule must be a function, not {type(rule).__name__}"
                )
        if kind in self._places:
            raise RegistrationError(
                f"{self._what} {self._rules.name} has a {kind} rule already, from {self._places[kind]}"
            )
        self._places[kind] = source_of(rules[0])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != self._count:
            args = self._bound(args, kwargs)
        static: dict[int, Any] = {}
        operands: Any = args
        if self._nondiff:
            static = self._statics(args)
            operands = tuple([x for i, x in enumerate(args) if i not in static])
        layout = None
        for x in operands:
            if x.__class__ not in ARRAYS and x.__class__ not in _FLOATS:
                flat: list = []
                layout, operands = Layout(operands, flat), flat
                break
        operands = tuple(operands)
        top = top_trace(operands)
        if top is None:
            return self._rules.f(*args)
        call = TreeCall(self._rules, layout, static)
        ys = call.in_branch(top, operands) if TAKING.masks else top.call(call, operands)
        return ys[0] if call.out is trees.LEAF else trees.unflatten(call.out, ys)

    def _bound(self, args: tuple, kwargs: dict) -> tuple:
        """All arguments by position, defaults included."""
        if self._signature is None:
            if kwargs:
                raise ArgumentTypeError(
                    f"{self._rules.name} has no signature that Python can read; pass its arguments by position"
                )
            return args
        bound = self._signature.bind(*args, **kwargs)  # a wrong call is Python's own TypeError
        if bound.kwargs:
            raise ArgumentError(
                f"{self._rules.name}: rules take positional arguments, but {', '.join(bound.kwargs)} can be given by "
                "keyword only; make it a positional parameter"
            )
        bound.apply_defaults()
        return bound.args

    def _statics(self, args: tuple) -> dict[int, Any]:
        """The arguments that nondiff_argnums names."""
        static = {i: args[i] for i in self._nondiff if i < len(args)}
        for i, value in static.items():
            if any([isinstance(x, Tracer) for x in trees.flatten(value)[0]]):
                raise ArgumentTypeError(
                    f"{self._rules.name}: argument {i} is named by nondiff_argnums, but holds a traced array; "
                    "make it an ordinary argument and return None for its cotangent"
                )
        return static

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> Any:
        name = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(self.__module__)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:
            return name  # by reference, as functions are
        return _rebuilt, (type(self), self._rules.f, self._nondiff, _given(self._rules))

    def __repr__(self) -> str:
        return f"<{self._what} {self._rules.name}>"


class custom_jvp(CustomFunction):  # noqa: N801 (spelled as in JAX)
    """A function with a derivative rule of its own, to be given by `.defjvp` (and `.defvjp`, `.defvmap`).

    Args:
        f: callable of pytrees; also as a decorator, of methods too. Arrays and floating numbers among
            the leaves are differentiated; Python integers, texts and other objects pass through.
            Keyword arguments are bound to positions by the signature.
        nondiff_argnums: positions of arguments that rules get first and as they are (functions,
            options); they may hold no traced arrays.

    Returns:
        An object to call like `f`. f's own code runs where no derivative is asked. Under a transform it
        and the rules get NumPy arrays read-only and traced ones by a name of their own, so a write raises
        or stays private; a plain call passes the arrays themselves, as calling `f` would.

    Raises:
        MissingRuleError: when it is differentiated without a rule, or when `f` or a rule reads a
        traced value that is no argument.

    Cost: forward mode calls the rule in the place of `f`. Reverse mode calls it once, with
    tangents that are recorded, and transposes what it did with them.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> @gj.custom_jvp
        ... def log1pexp(x):
        ...     return np.logaddexp(0.0, x)
        >>> @log1pexp.defjvp
        ... def rule(primals, tangents):
        ...     (x,), (t,) = primals, tangents
        ...     return log1pexp(x), t / (1 + np.exp(-x))
        >>> float(gj.jacfwd(log1pexp)(0.0)), gj.vmap(gj.grad(log1pexp))(np.zeros(2))
        (0.5, array([0.5, 0.5]))
    """

    _what = "custom_jvp"


class custom_vjp(CustomFunction):  # noqa: N801 (spelled as in JAX)
    """A function with a cotangent rule of its own, to be given by `.defvjp` (and `.defjvp`, `.defvmap`).

    Args:
        f: callable of pytrees; also as a decorator, of methods too. Arrays and floating numbers among
            the leaves are differentiated; Python integers, texts and other objects pass through.
            Keyword arguments are bound to positions by the signature.
        nondiff_argnums: positions of arguments that `bwd` gets first and as they are; `fwd` gets
            all arguments in their order. They may hold no traced arrays.

    Returns:
        An object to call like `f`. f's own code runs where no derivative is asked. Under a transform it
        and the rules get NumPy arrays read-only and traced ones by a name of their own, so a write raises
        or stays private; a plain call passes the arrays themselves, as calling `f` would.

    Raises:
        MissingRuleError: when it is differentiated without a rule, or when `f` or a rule reads a
        traced value that is no argument.

    Cost: one call of `fwd`, and one of `bwd` per reverse sweep, whatever its rows. Forward mode
    without a jvp rule transposes `bwd`, recorded once per point.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> @gj.custom_vjp
        ... def f(x, y):
        ...     return np.sin(x) * y
        >>> f.defvjp(
        ...     lambda x, y: (f(x, y), (np.cos(x), np.sin(x), y)),
        ...     lambda kept, ct: (kept[0] * ct * kept[2], kept[1] * ct),
        ... )
        >>> x, y = np.zeros(2), np.array([2.0, 3.0])
        >>> gj.vjp(f, x, y)[1](np.ones(2)), gj.jvp(f, (x, y), (np.ones(2), y))[1]
        ((array([2., 3.]), array([0., 0.])), array([2., 3.]))
    """

    _what = "custom_vjp"


class _Once(CustomFunction):
    _what = "once_differentiable"


def once_differentiable(rule: Callable) -> Callable:
    """A `bwd` or jvp rule that may run code without a derivative: differentiating it again raises.

    Args:
        rule: a rule for `defvjp` or `defjvp`, or for `impl_backward`.

    Returns:
        The rule, to be registered in its place. A second derivative is a MissingRuleError that names
        it, never a zero.

    Raises:
        ArgumentTypeError: `rule` is no function.

    Cost: as the rule.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> from gpujac.control import once_differentiable
        >>> f = gj.custom_vjp(lambda x: x**2)
        >>> f.defvjp(lambda x: (x**2, x), once_differentiable(lambda x, ct: (2 * x * ct,)))
        >>> gj.grad(f)(3.0)
        6.0
        >>> gj.grad(gj.grad(f))(3.0)
        Traceback (most recent call last):
        gpujac.errors.MissingRuleError: <lambda> is marked once_differentiable: ...
    """
    return _Once(rule)


def _signature(f: Callable) -> inspect.Signature | None:
    if isinstance(f, np.ufunc):  # its options are no arguments of a rule, and depend on NumPy's version
        return None
    try:
        return inspect.signature(f)
    except (TypeError, ValueError):  # compiled code
        return None


def _positional_names(signature: inspect.Signature | None) -> list[str]:
    parameters = () if signature is None else signature.parameters.values()
    return [p.name for p in parameters if p.kind in _POSITIONAL]


def _is_fixed(signature: inspect.Signature | None) -> bool:
    """Whether every call has the same number of positional arguments once defaults are filled in."""
    kinds = [p.kind for p in signature.parameters.values()] if signature else [inspect.Parameter.VAR_POSITIONAL]
    return inspect.Parameter.VAR_POSITIONAL not in kinds


def _checked_argnums(what: str, name: str, argnums: Any, count: int | None) -> tuple[int, ...]:
    wanted = (argnums,) if isinstance(argnums, (int, np.integer)) and not isinstance(argnums, bool) else argnums
    if not isinstance(wanted, (tuple, list)) or not all(
        [isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in wanted]
    ):
        raise ArgumentTypeError(f"{what} {name}: nondiff_argnums={argnums!r} must be an int or a tuple of ints")
    for i in wanted:
        if i < 0 or (count is not None and i >= count):
            raise ArgnumsRangeError(
                f"{what} {name}: nondiff_argnums={argnums!r}, but positional parameters count from 0"
                + ("" if count is None else f" to {count - 1}")
            )
    return tuple(sorted({int(i) for i in wanted}))


def _given(rules: Rules) -> dict[str, Any]:
    return {name: getattr(rules, name) for name in Rules.__slots__ if name not in ("f", "name", "what", "names")}


def _rebuilt(kind: type, f: Callable, nondiff: tuple, given: dict[str, Any]) -> CustomFunction:
    """What unpickling gives for an object that no module holds under its name."""
    made: CustomFunction = kind(f, nondiff)
    for name, value in given.items():
        setattr(made._rules, name, value)
    rules = {"jvp": made._rules.jvp, "vjp": made._rules.fwd, "vmap": made._rules.vmap}
    made._places = {name: source_of(rule) for name, rule in rules.items() if rule is not None}
    return made
