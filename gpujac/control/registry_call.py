"""One call of a custom operation: how transforms use its parts."""

from collections.abc import Sequence
from typing import Any

from numpy import ndarray

from gpujac import trees
from gpujac.control.custom_call import BatchInfo, CustomCall, filled, fits, fitted, zeros
from gpujac.control.custom_guard import guard, guarded, guarded_tree
from gpujac.control.custom_trees import batched_axes
from gpujac.control.registry_schema import Schema
from gpujac.core import decompose, taking
from gpujac.core.aval import Aval, aval_of, is_differentiable, shape_of
from gpujac.errors import LeakedTracerError, MissingRuleError, StructureError
from gpujac.transforms.held import HeldMap

_ABSENT = object()  # no entry in a dict
_tuple = tuple.__new__  # a named tuple of as many values as it has fields
PAIR = ("save_for_backward", "backward")


class Arrangement:
    """The arguments of one call: for each parameter how many operands it took, or its static value."""

    __slots__ = ("schema", "entries")

    def __init__(self, schema: Schema, entries: Sequence[Any]) -> None:
        self.schema = schema
        self.entries = entries  # an int for arrays, -1 for an absent one, (value,) for a static one

    def args(self, xs: Sequence[Any], blank: bool = False) -> list:
        """All arguments with `xs` as their arrays; `blank`: and None in the place of static values."""
        found: list = []
        at = 0
        for parameter, entry in zip(self.schema.parameters, self.entries, strict=True):
            if entry.__class__ is tuple:
                found.append(None if blank else entry[0])
            elif parameter.kind == "list":
                found.append(list(xs[at : at + entry]))
                at += entry
            elif entry < 0:
                found.append(None)
            else:
                found.append(xs[at])
                at += 1
        return found

    def names(self) -> list[str]:
        """What messages call each operand."""
        found: list[str] = []
        for parameter, entry in zip(self.schema.parameters, self.entries, strict=True):
            if parameter.kind == "list":
                found += [f"{parameter.name}[{i}]" for i in range(entry)]
            elif entry.__class__ is not tuple and entry > 0:
                found.append(parameter.name)
        return found


class Context:
    """What a backward rule is told beside what was saved.

    Attributes:
        name: the operation, "ns::name".
        needs_input_grad: for each array argument by name whether its gradient is used (a list of
            such for a list of arrays); what is not used may be None.
    """

    __slots__ = ("name", "present", "_arrangement", "_count")

    def __init__(self, name: str, arrangement: Arrangement, present: Sequence[int], count: int) -> None:
        self.name = name
        self.present = present
        self._arrangement = arrangement
        self._count = count

    @property
    def needs_input_grad(self) -> dict[str, Any]:
        """What of the gradients is used."""
        asked = [p in self.present for p in range(self._count)]
        pairs = zip(self._arrangement.schema.parameters, self._arrangement.args(asked, blank=True), strict=True)
        return {p.name: value for p, value in pairs if p.kind != "static"}


class OpCall(CustomCall):
    """A custom operation at one call; one object serves all calls whose arguments are bare arrays."""

    def __init__(self, op: Any, arrangement: Arrangement) -> None:
        super().__init__(op.qualname)
        self.op = op
        self.arrangement = arrangement
        self.refresh()

    def refresh(self) -> None:
        """Look again which rules there are. Half of a backward rule counts: it is an error when it is used."""
        parts = self.op.parts
        self.reverse = "backward" in parts or "save_for_backward" in parts
        self.paired = "backward" in parts and "save_for_backward" in parts
        self.save: Any = parts["save_for_backward"].function if self.paired else None
        self.pull: Any = parts["backward"].function if self.paired else None
        self.host = parts.get("cpu")
        self.usual = self.op.bare and self.op.single
        self.only = self.op.names[0] if self.op.bare and len(self.op.names) == 1 else None  # the one argument
        self.context: Context | None = None  # of the latest backward
        self.pushes = "jvp" in parts
        self.composite = not self.reverse and not self.pushes  # derivatives are left to its decomposition

    def run(self, *xs: Any) -> tuple:
        return self.op.computed(self.arrangement, xs)

    def decomposed(self, operands: tuple) -> Any:
        found = decompose.find(self.name)
        if found is None:
            return NotImplemented
        ys = found(*self.arrangement.args(operands))
        return (ys,) if self.op.schema.outputs == 1 else tuple(ys)

    def inputs(self, xs: Sequence[Any], blank: bool = False) -> Any:
        """The arguments by name, as rules get them."""
        return self.op.schema.inputs(*self.arrangement.args(xs, blank))

    def lacks(self, mode: str) -> MissingRuleError:
        parts, name = self.op.parts, self.name
        found = [kind for kind in PAIR if kind in parts]
        if len(found) == 1:
            (other,) = [kind for kind in PAIR if kind not in parts]
            return MissingRuleError(
                f"{name} has {found[0]} (registered at {parts[found[0]].place}) but no {other}, and a derivative needs "
                f"both: register impl_{other}({name!r})"
            )
        return MissingRuleError(
            f"{name} has no derivative: no rule is registered. Register impl_save_for_backward and impl_backward "
            f"({name!r}), or impl_jvp"
        )

    def missing(self, rule: str) -> MissingRuleError:
        if rule != "batch":
            return super().missing(rule)
        return MissingRuleError(f"{self.name} has no batch rule: register impl_vmap({self.name!r})")

    # ---------------------------------------------------------------- derivatives

    def forward(self, xs: tuple) -> tuple[tuple, Any]:
        if not self.paired:
            if self.pushes:  # forward sweeps need no more than the tangent rule
                return self(*xs), None
            raise self.lacks("reverse")
        op = self.op
        given = []
        for x in xs:
            if x.__class__ is not ndarray:
                ys = self(*xs)
                return ys, self.saved(guarded(xs), ys)
            view: Any = x.view()
            view.setflags(False)
            given.append(view)
        kernel = self.host
        ys = op.computed(self.arrangement, xs) if kernel is None else op.ran(kernel, self.arrangement, xs)
        y: Any = ys[0]
        if not self.usual or y.__class__ is not ndarray:
            return ys, self.saved(given, ys)
        view = y.view()
        view.setflags(False)
        return ys, self.save(_tuple(op.schema.inputs, given), view)

    def saved(self, xs: Sequence[Any], ys: tuple) -> Any:
        """What the backward rule keeps of a call; `xs` are guarded."""
        output = guard(ys[0]) if len(ys) == 1 else tuple(guarded(ys))
        return self.op.parts["save_for_backward"].function(self.inputs(xs), output)

    def backward(self, residuals: Any, cts: list, src: Sequence[Aval], dst: Sequence[Aval],
                 present: Sequence[int]) -> list:  # fmt: skip
        rule = self.pull
        if rule is None:
            raise self.lacks("reverse")
        op, like = self.op, cts[0]
        if len(cts) > 1 or not op.differentiable[0]:
            like, cts = self._declared(cts, dst)
            if like is None:
                return [None] * len(src)
        context = self.context
        if context is None or context.present is not present:
            context = self.context = Context(self.name, self.arrangement, present, len(src))
        result = rule(context, residuals, *cts)
        if self.only is not None and result.__class__ is dict and len(result) == 1:
            t, (a,) = result.get(self.only), src
            if t.__class__ is ndarray and t.dtype is a.dtype and t.shape == a.shape:
                return [t]
        names = op.names
        if op.bare and result.__class__ is dict and len(result) == len(names):
            found = [result.get(name, _ABSENT) for name in names]
            for t, a in zip(found, src, strict=True):
                if t is not None and (t is _ABSENT or not fits(t, a)):
                    break
            else:
                return found
        place = op.parts["backward"].place
        found = self._gradients(result, place)
        where = f"{self.name}: backward at {place}"
        rows = zip(self.arrangement.names(), found, src, strict=True)
        return [self._gradient(name, t, a, where, like) for name, t, a in rows]

    def _declared(self, cts: list, dst: Sequence[Aval]) -> tuple[Any, list]:
        """One of the gradients that are there, and all: zeros for absent ones, None for those without any."""
        declared = self.op.differentiable
        given = [t if d else None for t, d in zip(cts, declared, strict=True)]
        like = next((t for t in given if t is not None), None)
        if like is None:
            return None, given
        return like, [t if d else None for t, d in zip(filled(given, dst), declared, strict=True)]

    def _gradients(self, found: Any, place: str) -> list:
        """What a backward rule returned, flat, in the order of the operands."""
        where = f"{self.name}: backward at {place}"
        names = self.op.names
        if not isinstance(found, dict):
            raise StructureError(
                f"{where} must return a dict with a gradient (or None) for each of {_quoted(names)}, not a "
                f"{type(found).__name__}"
            )
        if found.keys() != set(names):
            raise StructureError(
                f"{where} returned gradients for {_quoted(found)}; its keys must be exactly the arguments that take "
                f"arrays: {_quoted(names)} (None where there is no gradient)"
            )
        flat: list = []
        for p, entry in zip(self.op.schema.parameters, self.arrangement.entries, strict=True):
            if p.kind == "list":
                flat += _listed(where, p.name, found[p.name], entry)
            elif p.kind != "static" and entry > 0:
                flat.append(found[p.name])
            elif p.kind != "static" and found[p.name] is not None:
                raise StructureError(f"{where} returned a gradient for {p.name!r}, which was None in this call")
        return flat

    def _gradient(self, name: str, t: Any, aval: Aval, where: str, like: Any) -> Any:
        if t is None or fits(t, aval):
            return t
        if not is_differentiable(aval.dtype):
            raise StructureError(f"{where}: the gradient of {name!r} must be None: it is {aval.dtype}")
        return fitted(t, aval, f"{where}: the gradient of {name!r}", name, like)

    def tangents(self, xs: tuple, ts: tuple) -> tuple[tuple, tuple]:
        ys = self(*xs)
        part = self.op.parts["jvp"]
        given = [
            zeros(aval_of(x), x) if t is None and is_differentiable(aval_of(x).dtype) else t
            for t, x in zip(ts, xs, strict=True)
        ]
        output = guard(ys[0]) if len(ys) == 1 else tuple(guarded(ys))
        found = part.function(self.inputs(guarded(xs)), output, self.inputs(guarded(given), blank=True))
        dys = (found,) if len(ys) == 1 else found
        if not isinstance(dys, tuple) or len(dys) != len(ys):
            raise StructureError(
                f"{self.name}: the jvp rule at {part.place} must return a tuple with a tangent (or None) for each of "
                f"its {len(ys)} outputs, not a {type(found).__name__}"
            )
        where = f"that the jvp rule at {part.place} returned"
        return ys, tuple([
            fitted(t, aval_of(y), f"{self.name}: the tangent of output {k} {where}", f"output {k}", y)
            if declared and is_differentiable(aval_of(y).dtype)
            else None
            for k, (t, y, declared) in enumerate(zip(dys, ys, self.op.differentiable, strict=True))
        ])  # fmt: skip

    # ---------------------------------------------------------------- batching, recording

    def batch_in(self, trace: Any, xs: tuple, axes: tuple) -> Any:
        part = self.op.parts.get("vmap")
        if part is None:
            known = trace.size or decompose.find(self.name) is not None
            return NotImplemented if known else self._no_lanes(xs, axes)
        info = BatchInfo(trace.size, "error" if trace.lanes is None else trace.lanes.randomness)
        dims = [None if a is None else a + len(shape_of(x)) for x, a in zip(xs, axes, strict=True)]
        args = self.arrangement.args(guarded(xs))
        aside = taking.put_aside(trace.level)
        try:
            found = part.function(info, tuple(self.arrangement.args(dims, blank=True)), *args)
        finally:
            taking.put_back(aside)
        where = f"{self.name}: the vmap rule at {part.place}"
        if not isinstance(found, tuple) or len(found) != 2:
            raise StructureError(f"{where} must have two returns (output, out_dims), not a {type(found).__name__}")
        ys = (found[0],) if self.op.schema.outputs == 1 else found[0]
        if not isinstance(ys, tuple) or len(ys) != self.op.schema.outputs:
            raise StructureError(f"{where} must return {self.op.schema.outputs} outputs, as the prototype says")
        return ys, batched_axes(self.name, ys, trees.flatten(found[0])[1], found[1], trace.size)

    def _no_lanes(self, xs: Sequence[Any], axes: Sequence[int | None]) -> tuple[tuple, tuple]:
        """Results without a lane, whose shapes only the abstract implementation can tell."""
        avals = [
            Aval(tuple([n for i, n in enumerate(shape_of(x)) if a is None or i != len(shape_of(x)) + a]), x.dtype)
            for x, a in zip(xs, axes, strict=True)
        ]
        made = self.op.inferred(self.arrangement, avals)
        ys = tuple([zeros(Aval((0, *a.shape), a.dtype), xs[0]) for a in made])
        return ys, tuple([-len(y.shape) for y in ys])

    def record(self, trace: Any, operands: tuple) -> tuple:
        """The operation as one entry of a linear program: linear in the operands without values.

        Its transpose is the backward rule, which therefore cannot use the values of those operands.
        """
        free = [p for p, x in enumerate(operands) if trace.is_variable(x)]
        if any([kind not in self.op.parts for kind in (*PAIR, "abstract")]):
            missing = [f"impl_{kind}" for kind in (*PAIR, "abstract") if kind not in self.op.parts]
            raise MissingRuleError(
                f"{trace.transform} of {trace.origin}: {self.name} is recorded without values, as a linear operation, "
                f"for which it needs {', '.join(missing)}"
            )
        src = [aval_of(x) for x in operands]
        dst = self.op.inferred(self.arrangement, src)
        kept: list = []

        def forward(ts: list) -> list:
            given = dict(zip(free, ts, strict=True))
            like = next(t for t in ts if t is not None)
            xs = [given.get(p, x) for p, x in enumerate(operands)]
            return list(self(*[zeros(src[p], like) if x is None else x for p, x in enumerate(xs)]))

        def backward(cts: list) -> list:
            try:
                found = self.backward(guarded_tree(kept[0])[0], guarded(cts), src, dst, free)
            except LeakedTracerError as error:
                raise self._not_linear([self.arrangement.names()[p] for p in free]) from error
            return [found[p] for p in free]

        map = HeldMap(self.name, forward, backward, tuple([src[p] for p in free]), dst)
        ys = tuple(trace.held(map, [operands[p] for p in free]))
        kept.append(self.saved(guarded(operands), ys))
        return ys

    def _not_linear(self, names: list[str]) -> MissingRuleError:
        place = self.op.parts["backward"].place
        return MissingRuleError(
            f"{self.name} was recorded without values, as a linear operation of {_quoted(names)}, but its backward "
            f"rule at {place} uses the value of one of them. Compute only the gradients that ctx.needs_input_grad "
            "asks for; if it is not linear there, register impl_jvp for what calls it"
        )


def _listed(where: str, name: str, found: Any, count: int) -> list:
    if found is None:
        return [None] * count
    if not isinstance(found, (list, tuple)):
        raise StructureError(
            f"{where}: the gradient of {name!r}, a list of {count} arrays, must be a list, not a {type(found).__name__}"
        )
    if len(found) != count:
        raise StructureError(f"{where}: {name!r} is a list of {count} arrays, but its gradient is one of {len(found)}")
    return list(found)


def _quoted(names: Any) -> str:
    return ", ".join([repr(n) for n in names]) or "nothing"
