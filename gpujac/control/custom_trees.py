"""One call of a `custom_jvp` or `custom_vjp` function on pytrees, as an op of flat operands."""

from collections.abc import Callable, Sequence
from typing import Any

from numpy import ndarray

from gpujac import trees
from gpujac.backends.choose import is_array
from gpujac.control.custom_call import (
    BatchInfo,
    CustomCall,
    beside,
    filled,
    fits,
    fitted,
    is_foreign,
    opened,
    zeros,
)
from gpujac.control.custom_guard import guarded
from gpujac.control.custom_lanes import generated
from gpujac.control.custom_layout import ARRAYS, Layout
from gpujac.core import taking
from gpujac.core.aval import Aval, aval_of, is_differentiable, shape_of
from gpujac.core.trace import Tracer
from gpujac.errors import ArgumentTypeError, AxisError, MissingRuleError, ShapeError, StructureError
from gpujac.transforms.batch import out_axis


class Rules:
    """What the user has given for one function: the function and its rules (None: not given)."""

    __slots__ = (
        "f", "name", "what", "names", "jvp", "fwd", "bwd", "vmap", "none_tangents", "none_cotangents", "asks_needed",
    )  # fmt: skip

    def __init__(self, f: Callable, name: str, what: str, names: list[str]) -> None:
        self.f = f
        self.name = name
        self.what = what  # custom_jvp, custom_vjp
        self.names = names  # of the positional parameters, for messages
        self.jvp: Callable | None = None
        self.fwd: Callable | None = None
        self.bwd: Callable | None = None
        self.vmap: Callable | None = None
        self.none_tangents = self.none_cotangents = self.asks_needed = False


class TreeCall(CustomCall):
    """A function of pytrees with its rules, at one call.

    `layout` is None where every argument is a bare array. `static` holds the arguments that
    nondiff_argnums names, by position. `out` is the structure of the result, known after a call.
    """

    out: trees.Spec = trees.LEAF
    foreign = False  # arrays of a library whose operators refuse traced ones beside them

    def __init__(self, rules: Rules, layout: Layout | None, static: dict[int, Any]) -> None:
        self.name = rules.name
        self.rules = rules
        self.layout = layout
        self.static = static
        self.pushes = rules.jvp is not None
        self.reverse = rules.bwd is not None
        self.body = rules.vmap is None

    # ---------------------------------------------------------------- the arguments

    def args(self, xs: Sequence[Any], blank: bool = False) -> tuple:
        """The differentiable arguments with `xs` as their arrays."""
        return tuple(xs) if self.layout is None else self.layout.filled(xs, blank)

    def whole(self, xs: Sequence[Any]) -> tuple:
        """All arguments, as the function takes them; no write into them reaches their owner."""
        if self.layout is None and not self.static:
            return tuple(guarded(xs))
        args = self.args(guarded(xs))
        if not self.static:
            return args
        rest = iter(args)
        count = len(args) + len(self.static)
        return tuple([self.static[i] if i in self.static else next(rest) for i in range(count)])

    def operand_names(self, src: Sequence[Aval]) -> list[str]:
        """What messages call the operands: `x`, `params['w']`."""
        count = len(src) if self.layout is None else len(self.layout.specs)
        positions = [i for i in range(count + len(self.static)) if i not in self.static]
        names = [self.argument(i) for i in positions]
        return names if self.layout is None else self.layout.names(names)

    def argument(self, position: int) -> str:
        """What messages call an argument."""
        names = self.rules.names
        return f"argument {names[position]!r}" if position < len(names) else f"argument {position}"

    # ---------------------------------------------------------------- the function and its rules

    def results(self, y: Any, of: str = "the function") -> tuple:
        """The arrays of an output; its structure is remembered."""
        if y.__class__ in ARRAYS:
            self.out = trees.LEAF
            return (y,)
        leaves, self.out = trees.flatten(y)
        for i, leaf in enumerate(leaves):
            if not isinstance(leaf, Tracer) and not is_array(leaf):
                raise ArgumentTypeError(
                    f"{self.name}: output{trees.spec_paths(self.out)[i]} of {of} is a {type(leaf).__name__}, not an "
                    "array or a number"
                )
        return tuple(leaves)

    def run(self, *xs: Any) -> tuple:
        return self.results(self.rules.f(*self.whole(xs)))

    def record(self, trace: Any, operands: tuple) -> tuple:
        self.refuse_twice(trace, operands)
        return self.run(*operands)  # its own code says whether it is linear

    def refuse_twice(self, trace: Any, operands: tuple) -> None:
        if self.rules.what == "once_differentiable" and any([_is_differentiated(x, trace) for x in operands]):
            raise self.lacks("forward")

    def forward(self, xs: tuple) -> tuple[tuple, Any]:
        if self.rules.fwd is None:
            raise self.lacks("reverse")
        if is_foreign(xs):
            self.foreign = True
            xs = beside(xs, xs)
        result = self.rules.fwd(*self.whole(xs))
        if not isinstance(result, tuple) or len(result) != 2:
            raise StructureError(f"{self.name}: fwd must return a pair (output, residuals), not {_told(result)}")
        return self.results(result[0], "fwd"), result[1]

    def backward(self, residuals: Any, cts: list, src: Sequence[Aval], dst: Sequence[Aval],
                 present: Sequence[int]) -> list:  # fmt: skip
        rules = self.rules
        assert rules.bwd is not None
        given = cts if rules.none_cotangents or len(cts) == 1 else filled(cts, dst)
        if self.foreign:
            leaves, spec = trees.flatten(residuals)
            residuals = trees.unflatten(spec, beside(leaves, (*leaves, *cts)))
        asked = (self.args([p in present for p in range(len(src))], blank=True),) if rules.asks_needed else ()
        ct = given[0] if self.out is trees.LEAF else trees.unflatten(self.out, given)
        found = rules.bwd(*self.static.values(), residuals, ct, *asked)
        count = len(src) if self.layout is None else len(self.layout.specs)
        if not isinstance(found, tuple) or len(found) != count:
            raise StructureError(
                f"{self.name}: bwd must return a tuple with one cotangent for each of the {count} arguments "
                f"(None for a zero), not {_told(found)}"
            )
        flat = found if self.layout is None else self.layout.matched(
            found, lambda i: f"{self.name}: cotangent {i} of bwd", "that part of the argument is no array"
        )  # fmt: skip
        if len(src) == 1:
            (t,), (a,) = flat, src
            if t.__class__ is ndarray and t.dtype is a.dtype and t.shape == a.shape:  # of what carries a derivative
                return [t]
        like = next(t for t in cts if t is not None)
        if all([t is None or fits(t, a) for t, a in zip(flat, src, strict=True)]):
            return list(flat)
        return [self._cotangent(*row, like) for row in zip(self.operand_names(src), flat, src, strict=True)]

    def _cotangent(self, of: str, t: Any, aval: Aval, like: Any) -> Any:
        """The cotangent of one operand, checked and cast."""
        if t is None:
            return None
        what = f"{self.name}: the cotangent of {of} that bwd returned"
        if not is_differentiable(aval.dtype):
            raise StructureError(f"{what} must be None: {of} is {aval.dtype}, which carries no derivative")
        return fitted(t, aval, what, of, like)

    def tangents(self, xs: tuple, ts: tuple) -> tuple[tuple, tuple]:
        rules = self.rules
        assert rules.jvp is not None
        if not rules.none_tangents and any([t is None for t in ts]):
            ts = tuple([
                zeros(aval_of(x), x) if t is None and is_differentiable(aval_of(x).dtype) else t
                for t, x in zip(ts, xs, strict=True)
            ])  # fmt: skip
        foreign = is_foreign(xs)
        if foreign:
            xs = beside(xs, (*xs, *ts))
        result = rules.jvp(*self.static.values(), self.args(guarded(xs)), self.args(guarded(ts), blank=True))
        if not isinstance(result, tuple) or len(result) != 2:
            raise StructureError(
                f"{self.name}: the jvp rule must return a pair (output, tangent), not {_told(result)}"
            )
        ys = self.results(result[0], "the jvp rule")
        if foreign:
            ys = tuple([opened(y, ts) for y in ys])
        dys = self._tangent_leaves(result[1], len(ys))
        avals = [aval_of(y) for y in ys]
        dys = [t if is_differentiable(a.dtype) else None for t, a in zip(dys, avals, strict=True)]
        if all([t is None or fits(t, a) for t, a in zip(dys, avals, strict=True)]):
            return ys, tuple(dys)
        return ys, self._fitted_tangents(dys, ys)

    def _tangent_leaves(self, dy: Any, count: int) -> list:
        """The tangents of the results; None, as a leaf or as the whole, is a zero."""
        if dy is None:
            return [None] * count
        if self.out is trees.LEAF:
            if dy.__class__ in ARRAYS:
                return [dy]
            return [trees.match(self.out, dy, f"{self.name}: the tangent that the jvp rule returned")[0]]
        try:
            return list(self.out.flatten_up_to(dy))
        except (ValueError, TypeError):
            return trees.match(self.out, dy, f"{self.name}: the tangent that the jvp rule returned")

    def _fitted_tangents(self, dys: list, ys: tuple) -> tuple:
        """The tangents of the results, checked and cast."""
        names = [f"output{path}" for path in trees.spec_paths(self.out)]
        what = [f"{self.name}: the tangent of {name} that the jvp rule returned" for name in names]
        rows = zip(dys, ys, what, names, strict=True)
        return tuple([fitted(t, aval_of(y), told, of, y) for t, y, told, of in rows])

    def lacks(self, mode: str) -> MissingRuleError:
        rules = self.rules
        if rules.what == "once_differentiable":
            return MissingRuleError(
                f"{rules.name} is marked once_differentiable: it has no derivative itself, so what it belongs to "
                "can be differentiated once only"
            )
        return MissingRuleError(
            f"{rules.name} is a {rules.what} function without a rule, so it has no derivative: give it "
            ".defvjp(fwd, bwd), .defjvp(rule) or both"
        )

    # ---------------------------------------------------------------- batching

    def batch_in(self, trace: Any, xs: tuple, axes: tuple) -> tuple[tuple, tuple]:
        rule = self.rules.vmap
        if rule is None:
            return generated(self, trace, xs, axes)
        info = BatchInfo(trace.size, "error" if trace.lanes is None else trace.lanes.randomness)
        dims = [None if a is None else a + len(shape_of(x)) for x, a in zip(xs, axes, strict=True)]
        aside = taking.put_aside(trace.level)
        try:
            found = rule(info, self._with_static(self.args(dims, blank=True)), *self.whole(xs))
        finally:
            taking.put_back(aside)
        if not isinstance(found, tuple) or len(found) != 2:
            raise StructureError(
                f"{self.name}: the vmap rule must have two returns (output, out_dims), not {_told(found)}"
            )
        ys = self.results(found[0], "the vmap rule")
        return ys, batched_axes(self.name, ys, self.out, found[1], trace.size)

    def _with_static(self, dims: tuple) -> tuple:
        """The mapped axes of all arguments: those of nondiff_argnums have none."""
        rest = iter(dims)
        count = len(dims) + len(self.static)
        return tuple([None if i in self.static else next(rest) for i in range(count)])


def batched_axes(name: str, ys: Sequence[Any], spec: trees.Spec, out_dims: Any, size: int) -> tuple:
    """The mapped axes, from the end, that a rule's out_dims says, checked against what it returned."""
    try:
        dims = trees.broadcast_prefix(out_dims, spec, "out_dims")
    except (StructureError, ArgumentTypeError) as error:
        raise StructureError(f"{name}: the vmap rule returned an incompatible out_dims={out_dims!r}: {error}") from None
    axes: list[int | None] = []
    for y, d, path in zip(ys, dims, trees.spec_paths(spec), strict=True):
        shape = tuple(shape_of(y))
        try:
            axes.append(None if d is None else out_axis(d, len(shape), path) - len(shape))
        except AxisError:
            raise AxisError(
                f"{name}: the vmap rule returned out_dims={d} for output{path}, which has shape {shape}"
            ) from None
        if d is not None and shape[d] != size:
            raise ShapeError(
                f"{name}: the vmap rule says that axis {d} of output{path} holds the {size} lanes, but its "
                f"shape is {shape}"
            )
    return tuple(axes)


def _is_differentiated(x: Any, but: Any) -> bool:
    """Whether a transform that differentiates watches `x`, other than the trace `but`."""
    while isinstance(x, Tracer):
        if not x.owner.batches and x.owner is not but:
            return True
        x = x.value
    return False


def _told(result: Any) -> str:
    return f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
