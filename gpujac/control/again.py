"""The op behind `checkpoint`: a function whose derivative keeps its operands and does the rest again.

What is kept, what is done again and what is differentiated are operands of ops of this kind at every
level, so that a derivative of the sweep keeps as little as the sweep did.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from gpujac import ranges
from gpujac.array.reduce import sum as sum_of
from gpujac.array.traced import TracedArray
from gpujac.control.masks import follow
from gpujac.core.aval import aval_of, shape_of
from gpujac.core.call import Call
from gpujac.core.op_ranges import watched
from gpujac.core.taking import TAKING, among, put_back
from gpujac.core.trace import Tracer
from gpujac.ops.batching import move_axis, stretch
from gpujac.program.ir import Program
from gpujac.transforms import flatten as fl
from gpujac.transforms.batch import VmapTrace
from gpujac.transforms.held import HeldMap
from gpujac.transforms.jvp import JvpTrace
from gpujac.transforms.linearize import LinearizeTrace
from gpujac.transforms.plans import fuses, gains, pays_for_one_sweep, planned
from gpujac.transforms.sweep import pull, push
from gpujac.transforms.tape import HandOutTrace

Play = Callable[..., list]  # (operands, saved results or None, the trace that hands them out) -> results


class Again:
    """A function of flat operands that can be done again, and its derivative by doing it again.

    The last `saved` of its results are there to be handed out the next time.
    """

    __slots__ = ("name", "run", "saved")

    def __init__(self, name: str, run: Play, saved: int = 0) -> None:
        self.name = name
        self.run = run
        self.saved = saved

    def pull(self, operands: list, saved: list, present: tuple, which: tuple, cts: list) -> list:
        """Cotangents of the operands at `present` from those of the results at `which`."""
        token = ranges.push("checkpoint", ranges.REPLAY)
        hand = HandOutTrace(self.name) if saved else None
        try:
            program = self._linearized(operands, saved, present, hand)
            leaves = [operands[p] for p in present]
            outputs = [program.outputs[k] for k in which]
            if hand is None and _pays(program, leaves):
                fused = planned(Program(program.entries, program.inputs, outputs), False)
                found = push(fused, cts)
            else:
                pairs = zip(outputs, cts, strict=True)
                found = pull(program, [(v, ct) for v, ct in pairs if v is not None], once=True)
            opened = found if hand is None else [hand.opened(r) for r in found]
            return [fl.zeros_of(x) if r is None else r for r, x in zip(opened, leaves, strict=True)]
        finally:
            if hand is not None:
                hand.close()
            ranges.pop(token)

    def _linearized(self, operands: list, saved: list, present: tuple, hand: Any) -> Program:
        """The function at this point as a linear program."""
        trace = watched(LinearizeTrace)(self.name, "checkpoint")
        try:
            xs = list(operands)
            for p in present:
                xs[p] = trace.input(xs[p])
            ys = self.run(xs, saved, hand)
            return Program(trace.entries, len(present), [_mine(y, trace, "aux") for y in ys])
        finally:
            trace.close()

    def push(self, operands: list, saved: list, present: tuple, ts: list) -> list:
        """Tangents of the results from those of the operands at `present`."""
        token = ranges.push("checkpoint", ranges.REPLAY)
        hand = HandOutTrace(self.name) if saved else None
        trace: Any = None
        try:
            trace = watched(JvpTrace)(self.name)
            xs = list(operands)
            for p, t in zip(present, ts, strict=True):
                xs[p] = TracedArray(trace, xs[p], t, *aval_of(xs[p]))
            ys = self.run(xs, saved, hand)
            dys = [_mine(y, trace, "aux") for y in ys]
            return [
                fl.zeros_of(y) if dy is None else dy if hand is None else hand.opened(dy)
                for y, dy in zip(ys, dys, strict=True)
            ]
        finally:
            if trace is not None:
                trace.close()
            if hand is not None:
                hand.close()
            ranges.pop(token)


def _mine(y: Any, trace: Any, slot: str) -> Any:
    """The tangent that a result has in a trace."""
    return y.aux if isinstance(y, TracedArray) and y.owner is trace else None


def _pays(program: Program, leaves: list) -> bool:
    return fuses(leaves) and gains(program) and pays_for_one_sweep(program, leaves)


class Mapped:
    """The same for many lanes at once: operands that are mapped, and all results, have them in front.

    Differentiation is inside of the lanes, so that saved results are handed out lane by lane.
    """

    __slots__ = ("inner", "replaced", "size", "mapped", "name", "saved")

    def __init__(self, inner: Any, replaced: VmapTrace, mapped: list[bool]) -> None:
        self.inner = inner
        self.replaced = replaced  # whose masks of lanes that take part are those of a call
        self.size = replaced.size
        self.mapped = mapped
        self.name: str = inner.name
        self.saved: int = inner.saved

    def run(self, operands: list, saved: Any = None, hand: Any = None) -> list:
        """The results, with the lanes in front."""
        return self._over(lambda xs, _: self.inner.run(xs, None, None), operands, [])

    def pull(self, operands: list, saved: list, present: tuple, which: tuple, cts: list) -> list:
        """Cotangents; what all lanes share gets the sum of theirs."""

        def lane(xs: list, rest: list) -> list:
            return self.inner.pull(xs, rest[: len(saved)], present, which, rest[len(saved) :])

        found = self._over(lane, operands, [*saved, *cts])
        return [r if self.mapped[p] else sum_of(r, 0) for p, r in zip(present, found, strict=True)]

    def push(self, operands: list, saved: list, present: tuple, ts: list) -> list:
        """Tangents of the results."""
        mapped = [self.mapped[p] for p in present]

        def lane(xs: list, rest: list) -> list:
            k = len(present)
            return self.inner.push(xs[k:], rest, present, xs[:k])

        return self._over(lane, [*ts, *operands], saved, [*mapped, *self.mapped])

    def _over(self, f: Callable, some: list, wide: list, mapped: list[bool] | None = None) -> list:
        """`f` of operands, some of them with lanes, and of arrays that all have them."""
        trace = VmapTrace(self.name, self.size)
        aside = follow(self.replaced, trace)
        try:
            xs = [
                trace.tracer(x, -len(shape_of(x))) if m else x
                for x, m in zip(some, self.mapped if mapped is None else mapped, strict=True)
            ]
            ys = f(xs, [trace.tracer(x, -len(shape_of(x))) for x in wide])
            return [_in_front(y, trace, self.size) for y in ys]
        finally:
            put_back(aside)
            trace.close()


def _in_front(y: Any, trace: Any, size: int) -> Any:
    """A result with its lanes in front, repeated where all are the same."""
    mine = isinstance(y, TracedArray) and y.owner is trace
    value, axis = (y.value, y.aux) if mine else (y, None)
    return stretch(fl.array_of(value, []), axis, size)


class Repeated(Call):
    """The call of a function that can be done again.

    `first`: the results of the first time, where they are known, without the levels that
    differentiate; `lanes`: the vmaps around them, the innermost first.
    """

    reverse = True

    def __init__(self, again: Any, first: list | None = None, lanes: tuple = ()) -> None:
        super().__init__("checkpoint")
        self.again = again
        self.first = first
        self.lanes = lanes

    def run(self, *operands: Any) -> tuple:
        first, self.first = self.first, None
        return tuple(self.again.run(list(operands), None, None) if first is None else first)

    def record(self, trace: Any, operands: tuple) -> tuple:
        return tuple(self.again.run(list(operands), None, None))  # its operations say whether they are linear

    def linearize(self, primals: tuple, present: tuple[int, ...]) -> tuple[tuple, Any]:
        ys = self(*primals)
        kept = Kept(self.again, primals, ys[len(ys) - self.again.saved :], present)
        src = tuple([aval_of(primals[p]) for p in present])
        return ys, HeldMap("checkpoint", kept.forward, kept.backward, src, tuple([aval_of(y) for y in ys]))

    def jvp(self, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
        present = tuple([p for p, t in enumerate(tangents) if t is not None])
        ys, held = self.linearize(primals, present)
        return ys, tuple(held.forward([tangents[p] for p in present]))

    def batch_in(self, trace: Any, xs: tuple, axes: tuple) -> tuple[tuple, tuple]:
        front = [x if a is None else move_axis(x, a, -len(x.shape)) for x, a in zip(xs, axes, strict=True)]
        first, self.first = self.first, None
        if first is not None:
            first = [_in_front(y, self.lanes[0], trace.size) for y in first]
        op = Repeated(Mapped(self.again, trace, [a is not None for a in axes]), first, self.lanes[1:])
        ys = op(*front)
        return ys, tuple([-len(y.shape) for y in ys])


class Kept:
    """What the derivative of a call keeps: its operands and the saved results."""

    __slots__ = ("again", "primals", "saved", "present", "taking")

    def __init__(self, again: Any, primals: tuple, saved: tuple, present: tuple[int, ...]) -> None:
        self.again = again
        self.primals = primals
        self.saved = saved
        self.present = present
        self.taking = list(TAKING.masks)  # of the branches around the call, which is done again after them

    def forward(self, ts: list) -> list:
        """Tangents of the results."""
        which = tuple([k for k, t in enumerate(ts) if t is not None])
        present = tuple([self.present[k] for k in which])
        return self._call(self._push, (present,), [ts[k] for k in which])

    def backward(self, cts: list) -> list:
        """Cotangents of the operands."""
        which = tuple([k for k, ct in enumerate(cts) if ct is not None])
        if not which:
            return [None] * len(self.present)
        return self._call(self._pull, (self.present, which), [cts[k] for k in which])

    def _call(self, f: Callable, fixed: tuple, ts: list) -> list:
        """The derivative as a call that can be done again itself, of all that it reads."""
        counts = len(self.primals), len(self.saved)
        run = partial(f, self.again, counts, *fixed)
        return list(among(self.taking, Repeated(Again("checkpoint", run)), *self.primals, *self.saved, *ts))

    @staticmethod
    def _push(again: Any, counts: tuple, present: tuple, operands: list, *_: Any) -> list:
        xs, saved, ts = _split(operands, counts)
        return again.push(xs, saved, present, ts)

    @staticmethod
    def _pull(again: Any, counts: tuple, present: tuple, which: tuple, operands: list, *_: Any) -> list:
        xs, saved, cts = _split(operands, counts)
        return again.pull(xs, saved, present, which, cts)


def _split(operands: list, counts: tuple[int, int]) -> tuple[list, list, list]:
    first, second = counts[0], sum(counts)
    return operands[:first], operands[first:second], operands[second:]


def mapped_levels(operands: list) -> tuple[Any, ...]:
    """The vmaps that map some of these arrays, the innermost first."""
    found: dict[int, Any] = {}
    for x in operands:
        while isinstance(x, Tracer):
            if x.owner.batches and x.aux is not None:
                found[x.owner.level] = x.owner
            x = x.value
    return tuple([found[level] for level in sorted(found, reverse=True)])
