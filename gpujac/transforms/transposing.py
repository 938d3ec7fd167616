"""The transposed program written down entry by entry, for sweeps that are planned on the CPU.

What `pull` would do is done to variables instead of arrays: a variable's cotangent is a list of
(variable of the new program, coefficient) until the walk comes to its entry, when it becomes one entry, so
that additions cost no entries of their own. Rules of ops that bind other ops run on tracers without values.
"""

from typing import Any

from gpujac.ops.agree import conjugated
from gpujac.ops.contract import Contract
from gpujac.program.ir import Apply, Gather, Input, Partial, Program, Scale
from gpujac.transforms.pieces import Pieces, collect
from gpujac.transforms.record import RecordTrace

Term = tuple[int, Any]  # a variable of the new program and what it is multiplied with (None: one)


def transposed(program: Program) -> Program:
    """The program whose forward sweep is the reverse sweep of `program`.

    Args:
        program: a linear program without functions that it holds, its coefficients computed.

    Returns:
        A program with one input per output of `program`, in order (unused where that is a zero), and one
        output per input, None where it has no cotangent.

    Cost: a walk over the entries, about 3 us each.
    """
    return _Transposing(program).program()


class _Transposing:
    def __init__(self, program: Program) -> None:
        self.old = program
        self.entries: list = []
        self.cts: dict[int, list[Term]] = {}  # old variable -> its cotangent
        self.pieces: dict[int, Pieces] = {}
        self.trace = RecordTrace("transpose", self.entries)

    def program(self) -> Program:
        old = self.old
        for k, v in enumerate(old.outputs):
            about = old.entries[0] if v is None and old.entries else Input((), None) if v is None else old.entries[v]
            self.entries.append(Input(about.shape, about.dtype))
            if v is not None:
                self.cts.setdefault(v, []).append((k, None))
        try:
            for i in range(len(old.entries) - 1, old.inputs - 1, -1):
                ct = self._cotangent(i)
                if ct is not None:
                    self._pull(old.entries[i], ct)
            outputs = [self._cotangent(i) for i in range(old.inputs)]
        finally:
            self.trace.close()
        return Program(self.entries, len(old.outputs), outputs)

    def _emit(self, entry: Any) -> int:
        self.entries.append(entry)
        return len(self.entries) - 1

    def _add(self, v: int, term: Term) -> None:
        self.cts.setdefault(v, []).append(term)

    def _cotangent(self, i: int) -> int | None:
        """The new variable that is the cotangent of an old one; None where it is zero."""
        about = self.old.entries[i]
        found = self.pieces.pop(i, None)
        if found is not None:
            self._add(i, (found.placed(about.shape, None).aux, None))
        terms = self.cts.pop(i, None)
        if terms is None:
            return None
        if len(terms) == 1 and terms[0][1] is None:
            return terms[0][0]
        reads = tuple([v for v, _ in terms])
        coefs = tuple([c for _, c in terms])
        return self._emit(Scale(None, tuple(range(len(terms))), reads, None, None, coefs, about.shape, about.dtype))

    def _pull(self, entry: Any, ct: int) -> None:
        kind = entry.__class__
        if kind is Scale:
            coefs = entry.coefs if entry.coefs is not None else entry.resolve()
            for v, c in zip(entry.reads, coefs, strict=True):
                self._add(v, (ct, conjugated(c) if self.old.complex else c))
        elif kind is Gather:
            for v, op in zip(entry.reads, entry.op.parts, strict=True):
                self._applied(v, op, ct)
        elif collect(self.pieces, entry, self.trace.tracer(ct)):
            return
        elif kind is Apply:
            self._applied(entry.reads[0], entry.op.transposed, ct)
        else:
            assert kind is Partial
            self._partial(entry, ct)

    def _applied(self, v: int, op: Any, ct: int) -> None:
        about = self.old.entries[v]
        self._add(v, (self._emit(Apply(op, (ct,), about.shape, about.dtype)), None))

    def _partial(self, entry: Any, ct: int) -> None:
        (v,) = entry.reads
        about = self.old.entries[v]
        if type(entry.op) is Contract and not self.old.complex:  # most of them: its rule binds one op, itself
            other = entry.operands[1 - entry.position]
            operands = (None, other) if entry.position == 0 else (other, None)
            part = entry.op.parts[entry.position]
            self._add(v, (self._emit(Partial(part, entry.position, (ct,), operands, about.shape, about.dtype)), None))
            return
        found = entry.op.transpose(entry.position, self.trace.tracer(ct), entry.operands, about.shape)
        self._add(v, (found.aux, None))
