"""One call of a function with rules of its own, as an op: how transforms use the rules.

A subclass says what the function and its rules are, on flat operands. From a cotangent rule alone
a tangent rule is made (the transpose of the transpose); from a tangent rule alone the linear program
gets its cotangents, as for every other op.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy import ndarray

from gpujac.array import common as c
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES, backend_of, is_array
from gpujac.backends.host import SCALARS
from gpujac.control.custom_guard import guarded, guarded_tree
from gpujac.core.aval import Aval, aval_of, dtype_of, is_differentiable, kind, shape_of
from gpujac.core.call import Call
from gpujac.core.taking import TAKING, among
from gpujac.core.trace import Tracer, payload, top_trace
from gpujac.errors import ArgumentTypeError, DTypeError, LeakedTracerError, MissingRuleError, ShapeError
from gpujac.program.ir import Input, Program
from gpujac.transforms import flatten as fl
from gpujac.transforms.constants import Constants
from gpujac.transforms.held import HeldMap
from gpujac.transforms.record import RuleTrace
from gpujac.transforms.sweep import pull
from gpujac.transforms.tangent import WRITABLE


class BatchInfo(NamedTuple):
    """What a batching rule is told about the vmap that calls it.

    Attributes:
        batch_size: how many lanes there are.
        randomness: the option of that vmap: "error", "same" or "different".
    """

    batch_size: int
    randomness: str


class CustomCall(Call):
    """A function with rules, applied to flat operands. `pushes`: there is a tangent rule."""

    pushes = False

    def forward(self, xs: tuple) -> tuple[tuple, Any]:
        """Results, and what the cotangent rule keeps."""
        raise self.lacks("reverse")

    def backward(self, residuals: Any, cts: list, src: Sequence[Aval], dst: Sequence[Aval],
                 present: Sequence[int]) -> list:  # fmt: skip
        """Cotangents of the operands (those at `present` are used) from those of the results; None is a zero."""
        raise self.lacks("reverse")

    def tangents(self, xs: tuple, ts: tuple) -> tuple[tuple, tuple]:
        """Results and their tangents; None is a zero on both sides."""
        raise self.lacks("forward")

    def refuse_twice(self, trace: Any, operands: tuple) -> None:
        """Raise where a rule with no derivative itself is differentiated while `trace` records it."""

    def lacks(self, mode: str) -> MissingRuleError:
        """The error for a function that has no rule for a mode."""
        raise NotImplementedError

    def jvp(self, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
        if self.pushes:
            return self.tangents(primals, tangents)
        if not self.reverse:
            raise self.lacks("forward")
        ys, residuals = self.forward(primals)
        present = tuple([p for p, t in enumerate(tangents) if t is not None])
        return ys, tuple(RuleMap(self, primals, ys, residuals, present).forward(list(tangents)))

    def linearize(self, primals: tuple, present: tuple[int, ...]) -> tuple[tuple, HeldMap]:
        ys, residuals = self.forward(primals)
        map = RuleMap(self, primals, ys, residuals, present)
        return ys, map if len(present) == len(primals) else map.restricted(present)


class RuleMap(HeldMap):
    """The derivative at a point by the rules of a call: a map that sweeps apply in both directions."""

    __slots__ = ("call", "primals", "residuals", "anew", "present", "program", "taking")

    def __init__(self, call: CustomCall, primals: tuple, ys: tuple, residuals: Any, present: tuple) -> None:
        self.name = call.name
        if len(primals) == 1 and len(ys) == 1:  # most calls, and most of them keep shape and dtype
            (y,) = ys
            a = aval_of(primals[0])
            self.src = self.dst = (a,)
            if y.__class__ is not ndarray or y.dtype is not a.dtype or y.shape != a.shape:
                self.dst = (aval_of(y),)
        else:
            self.src, self.dst = tuple(map(aval_of, primals)), tuple(map(aval_of, ys))
        self.call = call
        self.primals = primals if call.pushes else ()
        self.anew = False
        if residuals.__class__ is ndarray:  # the usual case, spelled out
            residuals = residuals.view()
            residuals.setflags(False)
        elif residuals is not None:
            residuals, self.anew = guarded_tree(residuals)
        self.residuals = residuals
        self.present = present
        self.program: Program | None = None  # the transposed rule, recorded at its first use
        masks = TAKING.masks  # of the branches around the call: a rule may loop, and lanes that watch for ever
        self.taking = list(masks) if masks else None

    def forward(self, ts: list) -> list:
        if self.taking is None:
            return self._forward(ts)
        return among(self.taking, self._forward, ts)

    def _forward(self, ts: list) -> list:
        call = self.call
        if call.pushes:
            return list(call.tangents(self.primals, tuple(ts))[1])
        if not any([is_differentiable(a.dtype) for a in self.dst]):
            return [None] * len(self.dst)  # no cotangent that the rule could be asked with
        if self.program is None:
            try:
                self.program = transposable(call, self.kept(), self.src, self.dst, self.present)
            except LeakedTracerError as error:
                raise call.captured() from error
        return _pulled(self.program, ts, self.dst)

    def backward(self, cts: list) -> list:
        kept = self.kept() if self.anew else self.residuals
        ct = cts[0]
        if len(cts) == 1 and ct.__class__ is ndarray:  # the usual case, spelled out
            view: Any = ct.view()
            view.setflags(False)
            cts = [view]
        else:
            cts = guarded(cts)
        try:
            if self.taking is None:
                return self.call.backward(kept, cts, self.src, self.dst, self.present)
            return among(self.taking, self.call.backward, kept, cts, self.src, self.dst, self.present)
        except LeakedTracerError as error:
            raise self.call.captured() from error

    def kept(self) -> Any:
        """The residuals for one call of the cotangent rule."""
        return guarded_tree(self.residuals)[0] if self.anew else self.residuals


def transposable(call: CustomCall, residuals: Any, src: Sequence[Aval], dst: Sequence[Aval],
                 present: Sequence[int]) -> Program:  # fmt: skip
    """The cotangent rule as a linear program: cotangents of the results in, of the operands out."""
    carrying = [k for k, a in enumerate(dst) if is_differentiable(a.dtype)]
    entries: list = [Input(*dst[k]) for k in carrying]
    constants = Constants()  # the rule may use a work array again
    trace = RuleTrace(call.name, entries, "cotangents", constants.kept)
    try:
        cts: list = [None] * len(dst)
        for var, k in enumerate(carrying):
            cts[k] = trace.tracer(var)
        found = call.backward(residuals, cts, src, dst, present)
        trace.check_zeros(found)
        outputs = [t.aux if t.__class__ is TracedArray and t.owner is trace else None for t in found]
        return Program(entries, len(carrying), outputs)
    finally:
        trace.close()
        constants.close()


def _pulled(program: Program, ts: list, dst: Sequence[Aval]) -> list:
    """The tangents of the results: the transpose of the recorded cotangent rule, applied."""
    pairs = zip(program.outputs, ts, strict=True)
    found = iter(pull(program, [(v, t) for v, t in pairs if v is not None and t is not None]))
    return [next(found) if is_differentiable(a.dtype) else None for a in dst]


# ---------------------------------------------------------------- what rules get, and what they return


def is_foreign(xs: Sequence[Any]) -> bool:
    """Whether there are arrays of a library whose operators may refuse a traced array beside them."""
    for x in xs:  # noqa: SIM110 (a generator costs as much as all the rest of a call's checks)
        if x.__class__ is not ndarray and _is_foreign(payload(x)):
            return True
    return False


def _is_foreign(x: Any) -> bool:
    cls: Any = x.__class__
    return cls not in WRITABLE and cls not in SCALARS and x is not None and is_array(x)


def beside(xs: Sequence[Any], others: Sequence[Any]) -> tuple:
    """Foreign arrays as constants of the highest trace of `others`, so that operators of both meet."""
    top = top_trace(tuple(others))
    if top is None:
        return tuple(xs)
    return tuple([top.boxed(x) if not isinstance(x, Tracer) and _is_foreign(x) else x for x in xs])


def opened(y: Any, moving: Sequence[Any]) -> Any:
    """What a rule made of constants that `beside` gave it, as the array that it is."""
    return y.value if y.__class__ is TracedArray and y.aux is None and y.owner is top_trace(tuple(moving)) else y


def zeros(aval: Aval, like: Any) -> Any:
    """Zeros of this shape and dtype, in the library and on the device of `like`."""
    target = fl.like_of(like)
    made = backend_of(target).zeros(tuple(aval.shape), aval.dtype, target)
    return made[()] if not aval.shape and target.__class__ in HOST_TYPES else made


def filled(cts: list, dst: Sequence[Aval]) -> list:
    """The cotangents with zeros in the place of absent ones; integer results keep None."""
    if not any([t is None for t in cts]):
        return cts
    like = fl.like_among([t for t in cts if t is not None])
    return [
        zeros(a, like) if t is None and is_differentiable(a.dtype) else t
        for t, a in zip(cts, dst, strict=True)
    ]


def fits(t: Any, aval: Aval) -> bool:
    """Whether an array needs no further look: it has this shape and this very (floating) dtype."""
    known: Any = t.__class__
    return known in WRITABLE and t.dtype is aval.dtype and t.shape == aval.shape and kind(t.dtype) in "fc"


def fitted(t: Any, aval: Aval, what: str, of: str, like: Any) -> Any:
    """A tangent or cotangent that a rule returned, called `what`, in the dtype of what it belongs to."""
    if t is None:
        return None
    if t.__class__ is TracedArray or t.__class__ in HOST_TYPES or isinstance(t, Tracer) or is_array(t):
        if tuple(shape_of(t)) == tuple(aval.shape) and dtype_of(t) == aval.dtype:
            return t
    else:
        raise ArgumentTypeError(f"{what} is a {type(t).__name__}, not an array or a number; use None for a zero")
    if tuple(shape_of(t)) != tuple(aval.shape):
        raise ShapeError(
            f"{what} has shape {tuple(shape_of(t))}, but {of} has shape {tuple(aval.shape)}; shapes must match exactly"
        )
    if kind(dtype_of(t)) == "c" and kind(aval.dtype) != "c":
        raise DTypeError(f"{what} is {dtype_of(t)}, but {of} is {aval.dtype}; take its real part")
    return c.astype(fl.array_of(t, [like]) if t.__class__ in SCALARS else t, aval.dtype)
