"""Reverse mode: vjp, grad and their variants, and linearize."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from gpujac import ranges, trees
from gpujac.array.traced import TracedArray
from gpujac.core.aval import dtype_of, is_differentiable, kind, shape_of
from gpujac.core.op_ranges import watched
from gpujac.errors import DTypeError, ShapeError, StructureError
from gpujac.program.ir import Program
from gpujac.settings import get as setting
from gpujac.transforms import flatten as fl
from gpujac.transforms.constants import check_unwritten, watch
from gpujac.transforms.halving import note
from gpujac.transforms.holomorphic import check_complex
from gpujac.transforms.linearize import LinearizeTrace
from gpujac.transforms.plans import fuses, gains, pays_for_one_sweep, planned
from gpujac.transforms.sweep import pull, push
from gpujac.transforms.tangent import WRITABLE


class Linearized:
    """A function at a point: primal outputs (a flat list) and the linear program behind them."""

    __slots__ = ("point", "outputs", "values", "program", "what", "watched", "reusable", "_plans")

    def __init__(self, what: str, f: Any, args: tuple, kwargs: dict, argnums: Any, has_aux: bool,
                 check: bool, keep: bool = False, lines: bool = False) -> None:  # fmt: skip
        """`keep`: the sweep may come later; `lines`: record the user's line of each entry."""
        self.what = what
        self.point = point = fl.Point(what, args, argnums)
        if keep:  # the sweep may come after the caller has written into its arrays
            point.leaves = [fl.private(x) for x in point.leaves]
        name, code = fl.name_of(f), getattr(f, "__code__", None)
        token = ranges.push("linearize", ranges.TRACE)
        trace = watched(LinearizeTrace, lines)(name, what)  # nothing may raise before the `try`
        try:
            trace.code = trace.source = code
            if not keep:  # f itself could write into an array that it is called with
                point.leaves = [trace.kept(x) if x.__class__ in WRITABLE else x for x in point.leaves]
            tracers = [trace.input(x) for x in point.leaves]
            result = fl.call(f, point.args(tracers, lambda x: trace.boxed(trace.kept(x))), kwargs)
            own = fl.private if keep else partial(fl.owned, others=point.leaves)
            self.outputs = outputs = fl.Outputs(what, result, has_aux, trace, own)
            if check:
                outputs.check_differentiable(what)
            self.values: list = []
            reads: list = []
            for y in outputs.leaves:
                mine = y.__class__ is TracedArray and y.owner is trace
                reads.append(y.aux if mine else None)
                if not mine:
                    y = fl.owned(y, [], False)
                elif y.aux is None:  # a constant: perhaps the very array of the caller's
                    y = fl.owned(y.value, [], False)
                else:
                    y = y.value
                self.values.append(y)
            self.program = Program(trace.entries, len(point.leaves), reads)
            self.program.spots = trace.spots
            self.reusable = keep
            self._plans: dict[bool, Program | None] = {}
            self.watched = watch(trace.frozen) if keep else []
        finally:
            trace.close()
            ranges.pop(token)

    def owned_values(self) -> list:
        """The primal outputs, sharing no memory with the inputs."""
        return fl.owned_all(self.values, self.point.leaves)

    def private_values(self) -> list:
        """The primal outputs as copies: writes of the user's do not reach the residuals."""
        return [fl.private(y) for y in self.values]

    def check_constants(self) -> None:
        """Raise if a large array that the function read has been written into since."""
        cure = "its derivative at that point is gone; call the pullback first, or give the function a copy"
        check_unwritten(self.what, self.watched, cure)

    def plan(self, forward: bool) -> Program | None:
        """The fused program of one direction, made at its first use; None where none is to be had."""
        if setting("debug_nans"):  # a fused kernel would not say which operation it was
            return None
        if forward not in self._plans:
            fused = fuses(self.point.leaves + self.values) and gains(self.program)
            self._plans[forward] = planned(self.program, forward) if fused else None
        return self._plans[forward]

    def pulled(self, cts: list) -> list:
        """Cotangents of the inputs as new arrays."""
        self.check_constants()
        pays = self.reusable or pays_for_one_sweep(self.program, self.point.leaves)
        program = self.plan(False) if pays else None
        token = ranges.push("sweep", ranges.REPLAY)
        try:
            if program is None:
                pairs = zip(self.program.outputs, cts, strict=True)
                seeds = [(v, ct) for v, ct in pairs if v is not None]
                results = pull(self.program, seeds, once=not self.reusable)
            else:
                if not self.reusable:
                    self.program.entries.clear()  # the plan has all it needs
                results = push(program, cts, once=not self.reusable)
        except MemoryError as error:
            note(error, f"out of memory in the sweep of {self.what}; gpujac.checkpoint makes the function keep less")
            raise
        finally:
            ranges.pop(token)
        leaves = self.point.leaves
        return fl.owned_all([fl.zeros_of(x) if r is None else r for r, x in zip(results, leaves)], cts)


class Pullback:
    """The transpose of a function's derivative at one point; reusable. Call it with a cotangent."""

    __slots__ = ("_linear",)

    def __init__(self, linear: Linearized) -> None:
        self._linear = linear

    def __call__(self, cotangent: Any, /) -> tuple:
        """Cotangents of the primals (a tuple) from one with the structure of the output."""
        linear = self._linear
        flat = trees.match(linear.outputs.spec, cotangent, "vjp: cotangent")
        names = ("cotangent", "output")
        cts = fl.matched("vjp", names, linear.outputs.spec, flat, linear.values)
        return linear.point.result(linear.pulled(cts))


def vjp(f: Callable, *primals: Any, has_aux: bool = False) -> tuple:
    """Value of `f` and its pullback, the function ct -> Jᵀ ct (reverse mode).

    Args:
        f: callable of positional pytrees of arrays.
        *primals: pytrees of floating or complex arrays (any shapes): the point.
        has_aux: `f` returns `(output, aux)`; aux is handed through.

    Returns:
        `(y, pullback)` or `(y, pullback, aux)`. `pullback(ct)` takes a pytree like `y` and returns
        a tuple with one pytree per primal; it may be called again. For complex numbers it is the
        adjoint under Re⟨a, b⟩, as in torch.

    Raises:
        DTypeError: an integer primal or output. StructureError, ShapeError: a cotangent that
        does not match the output.

    Cost: one evaluation of `f`; each call of the pullback costs about as much again. Residuals
    (one coefficient per operand of each elementwise op) live until the pullback is dropped. The
    primals are copied; arrays that `f` captured are kept by reference, so leave them unchanged.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> y, pullback = gj.vjp(lambda x: np.sin(x) * x, np.array([0.0, 1.0]))
        >>> pullback(np.ones(2))[0].round(4)
        array([0.    , 1.3818])
    """
    fl.check_callable("vjp", f)
    token = ranges.push("vjp", ranges.TRANSFORM)
    try:
        linear = Linearized("vjp", f, primals, {}, None, has_aux, check=True, keep=True)
        (y,) = linear.outputs.rebuilt(linear.private_values())[:1]
        rest = (linear.outputs.aux,) if has_aux else ()
        return (y, Pullback(linear), *rest)
    finally:
        ranges.pop(token)


class LinearMap:
    """The derivative of a function at one point; reusable. Call it with tangents."""

    __slots__ = ("_linear",)

    def __init__(self, linear: Linearized) -> None:
        self._linear = linear

    def __call__(self, *tangents: Any) -> Any:
        """The tangent of the output from one tangent per primal."""
        linear = self._linear
        ts = fl.lifted(linear.point.tangents("linearize", tangents), linear.values)
        linear.check_constants()
        token = ranges.push("sweep", ranges.REPLAY)
        try:
            dys = push(linear.plan(True) or linear.program, ts)
        finally:
            ranges.pop(token)
        flat = [fl.zeros_of(y) if d is None else d for d, y in zip(dys, linear.values, strict=True)]
        return trees.unflatten(linear.outputs.spec, fl.owned_all(flat, ts))


def linearize(f: Callable, *primals: Any, has_aux: bool = False) -> tuple:
    """Value of `f` and its derivative at the point as a reusable linear function.

    Args:
        f: callable of positional pytrees of arrays; it runs once, Python control flow included.
        *primals: pytrees of floating or complex arrays: the point.
        has_aux: `f` returns `(output, aux)`; aux is handed through.

    Returns:
        `(y, lin)` or `(y, lin, aux)`; `lin(*tangents)` is J·tangents, without running `f` again.

    Raises:
        StructureError, ShapeError, DTypeError: arguments of `lin` that do not match the primals.

    Cost: one evaluation of `f`; a call of `lin` runs its linear half only, forward. Many
    directions at one point are cheaper this way than by `jvp`; memory and ownership as in `vjp`.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> y, lin = gj.linearize(lambda x: x**3, np.array([1.0, 2.0]))
        >>> lin(np.array([1.0, 1.0]))
        array([ 3., 12.])
    """
    fl.check_callable("linearize", f)
    token = ranges.push("linearize", ranges.TRANSFORM)
    try:
        linear = Linearized("linearize", f, primals, {}, None, has_aux, check=False, keep=True)
        (y,) = linear.outputs.rebuilt(linear.private_values())[:1]
        rest = (linear.outputs.aux,) if has_aux else ()
        return (y, LinearMap(linear), *rest)
    finally:
        ranges.pop(token)


def _gradient(what: str, f: Callable, argnums: Any, has_aux: bool, args: tuple, kwargs: dict,
              holomorphic: bool = False) -> tuple[Any, Any, Any]:  # fmt: skip
    """(gradient, value, aux) of a scalar function."""
    token = ranges.push(what, ranges.TRANSFORM)
    try:
        linear = Linearized(what, f, args, kwargs, argnums, has_aux, check=False)
        y = _scalar(what, linear)
        if holomorphic:
            check_complex(what, (linear.point, linear.point.leaves), (linear.outputs, linear.values))
        elif kind(dtype_of(y)) == "c":
            option = "set holomorphic=True" if what == "grad" else "use grad with holomorphic=True"
            raise DTypeError(
                f"{what}: the output is {dtype_of(y)}; a gradient needs a real scalar. Return its real part or "
                f"abs, or {option} for a holomorphic function"
            )
        gradient = linear.pulled([fl.ones_of(y, linear.point.leaves)])
        if holomorphic:  # the adjoint is conj(f'): conjugate back
            gradient = [g.conj() if kind(dtype_of(g)) == "c" else g for g in gradient]
        return linear.point.result(gradient), y, linear.outputs.aux
    finally:
        ranges.pop(token)


def _scalar(what: str, linear: Linearized) -> Any:
    leaves = linear.values
    if len(leaves) != 1 or not trees.is_leaf(linear.outputs.spec):
        raise StructureError(
            f"{what}: the function must return one scalar, not {trees.describe(linear.outputs.spec)}; "
            "use has_aux=True for extra results, or vjp or jacrev"
        )
    (y,) = leaves
    if shape_of(y) != ():
        raise ShapeError(
            f"{what}: the function must return a scalar of shape (), not {tuple(shape_of(y))}; reduce it "
            "with .sum(), or use vjp or jacrev"
        )
    if not is_differentiable(dtype_of(y)):
        raise DTypeError(f"{what}: the output has dtype {dtype_of(y)}, which has no derivative")
    return linear.owned_values()[0]


def grad(f: Callable, argnums: Any = 0, has_aux: bool = False, *, holomorphic: bool = False) -> Callable:
    """The gradient of a scalar function, as a function.

    Args:
        f: callable of pytrees of arrays that returns one real scalar (shape `()`).
        argnums: which positional arguments to differentiate: an int, or a tuple of ints.
        has_aux: `f` returns `(output, aux)`; aux is handed through, without a derivative.
        holomorphic: all inputs and the output are complex; the result is then f'(z).

    Returns:
        A function of the same arguments (keyword arguments pass through) that returns the
        gradient, shaped like the selected argument(s), or `(gradient, aux)`.

    Raises:
        ShapeError, StructureError: the output is not one scalar. DTypeError: it or a selected
        argument is integer; it is complex, or with holomorphic one of them is not.

    Cost: one evaluation of `f` and one sweep of about the same cost, whatever the number of inputs.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.grad(lambda x: (x**2).sum())(np.array([1.0, -3.0]))
        array([ 2., -6.])
    """
    fl.check_callable("grad", f)
    fl.check_argnums("grad", argnums)

    @_named(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        g, _, aux = _gradient("grad", f, argnums, has_aux, args, kwargs, holomorphic)
        return (g, aux) if has_aux else g

    return gradient


def grad_and_value(f: Callable, argnums: Any = 0, has_aux: bool = False) -> Callable:
    """The gradient and the value of a scalar function, in one pass; the gradient comes first.

    Args:
        f, argnums, has_aux: as in `grad`.

    Returns:
        A function of the arguments of `f` that returns `(g, y)`, or `(g, (y, aux))`.

    Raises:
        ShapeError, DTypeError: as `grad`.

    Cost: that of `grad`.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> g, y = gj.grad_and_value(lambda x: x * x)(3.0)
        >>> float(g), float(y)
        (6.0, 9.0)
    """
    fl.check_callable("grad_and_value", f)
    fl.check_argnums("grad_and_value", argnums)

    @_named(f)
    def both(*args: Any, **kwargs: Any) -> Any:
        g, y, aux = _gradient("grad_and_value", f, argnums, has_aux, args, kwargs)
        return g, ((y, aux) if has_aux else y)

    return both


def value_and_grad(f: Callable, argnums: Any = 0, has_aux: bool = False) -> Callable:
    """The value and the gradient of a scalar function, in one pass; the value comes first.

    Args:
        f, argnums, has_aux: as in `grad`.

    Returns:
        A function of the arguments of `f` that returns `(y, g)`, or `((y, aux), g)`.

    Raises:
        ShapeError, DTypeError: as `grad`.

    Cost: that of `grad`.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> y, g = gj.value_and_grad(lambda x: x * x)(3.0)
        >>> float(y), float(g)
        (9.0, 6.0)
    """
    fl.check_callable("value_and_grad", f)
    fl.check_argnums("value_and_grad", argnums)

    @_named(f)
    def both(*args: Any, **kwargs: Any) -> Any:
        g, y, aux = _gradient("value_and_grad", f, argnums, has_aux, args, kwargs)
        return ((y, aux) if has_aux else y), g

    return both


def _named(f: Callable) -> Callable:
    """wraps, for any callable."""
    return wraps(f, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())


