"""Running a linear program: forward (push) and transposed (pull), any leading axes in front.

A tangent or cotangent is an array with the variable's shape behind any leading axes, or structured: a
`Hot` (rows of a diagonal) or `Terms` (a sum of such). No user code and no derivative rule runs here.
"""

from typing import Any

from gpujac.ops.agree import SPECIAL, conjugated, plus, scale
from gpujac.ops.indexing import Slice
from gpujac.ops.structure import Reshape
from gpujac.program.ir import Apply, Chained, Gather, Held, Input, Pick, Program, Scale
from gpujac.settings import get as setting
from gpujac.transforms.chained import push_chained
from gpujac.transforms.checked import checked_pull, checked_push
from gpujac.transforms.held import apply_held, pull_held
from gpujac.transforms.hot import Hot, raveled_range, rows_of
from gpujac.transforms.pieces import Pieces, collect, is_read
from gpujac.transforms.terms import STRUCTURED, Terms, added, as_terms, rows_of_terms, through, through_partial
from gpujac.transforms.tracebacks import shorten

_SMALL = 256  # entries of a diagonal up to which its parts are cheaper written out


def pull(program: Program, seeds: list[tuple[int, Any]], once: bool = False) -> list[Any]:
    """The cotangents of the inputs from those of some variables; None is a zero.

    `once`: the program is not needed again, so what an entry kept is let go as the sweep passes it.
    """
    try:
        return checked_pull(_pull, program, seeds) if setting("debug_nans") else _pull(program, seeds, once)
    except Exception as error:  # of a rule that the user wrote
        shorten(error)
        raise


def _pull(program: Program, seeds: list[tuple[int, Any]], once: bool = False) -> list[Any]:
    entries = program.entries
    cts: list[Any] = [None] * len(entries)
    hots: dict[int, Any] = {}
    pieces: dict[int, Pieces] = {}
    for var, ct in seeds:
        if type(ct) in STRUCTURED:
            _add_hot(cts, hots, var, ct)
        else:
            cts[var] = ct if cts[var] is None else plus(cts[var], ct)
    conjugate = program.complex
    for i in range(len(entries) - 1, program.inputs - 1, -1):
        ct, entry = cts[i], entries[i]
        if once:
            entries[i] = None
        if pieces and i in pieces:
            ct = pieces.pop(i).placed(entry.shape, ct)
        if hots and i in hots:
            hot = hots.pop(i)
            if type(hot) is Terms:
                hot = hot.settled()
            if type(hot) not in STRUCTURED:
                ct = hot if ct is None else plus(ct, hot)
            elif ct is None:
                _pull_hot(entry, hot, cts, hots, pieces, conjugate, entries)
                continue
            else:
                ct = plus(ct, hot.dense())
        if ct is None:
            continue
        cts[i] = None  # frees it
        if entry.__class__ is not Scale:
            _pull_other(entry, ct, cts, pieces, entries)
            continue
        coefs = entry.coefs
        if coefs is None:
            coefs = entry.resolve()
        if conjugate:
            coefs = tuple([conjugated(c) for c in coefs])
        reads = entry.reads
        if len(reads) == 1:  # most entries: spelled out, for a loop costs as much as the product
            (var,), (c,) = reads, coefs
            try:
                part = ct * c if c.__class__ not in SPECIAL else scale(ct, c)
            except TypeError:
                part = scale(ct, c)
            cts[var] = part if cts[var] is None else plus(cts[var], part)
            continue
        for var, c in zip(reads, coefs, strict=True):
            part = scale(ct, c)
            cts[var] = part if cts[var] is None else plus(cts[var], part)
    return [_total(entries[i], i, cts, hots, pieces) for i in range(program.inputs)]


def _pull_other(entry: Any, ct: Any, cts: list, pieces: dict, entries: list) -> None:
    """An entry that is not elementwise, read through the dense channel."""
    kind = entry.__class__
    if kind is Pick:  # cotangents of all results of a held map wait in one list
        (var,) = entry.reads
        if cts[var] is None:
            cts[var] = [None] * len(entries[var].map.dst)
        cts[var][entry.which] = ct
        return
    if kind is Held:
        for var, part in zip(entry.reads, pull_held(entry.map, ct if entry.picks else [ct])):
            if part is not None:
                cts[var] = part if cts[var] is None else plus(cts[var], part)
        return
    if collect(pieces, entry, ct):
        return
    if kind is Gather:
        _pull_gather(entry, ct, cts)
        return
    (var,) = entry.reads
    if kind is Apply:
        part = entry.op.transposed(ct)
    else:
        part = entry.op.transpose(entry.position, ct, entry.operands, entries[var].shape)
    cts[var] = part if cts[var] is None else plus(cts[var], part)


def _pull_gather(entry: Any, ct: Any, cts: list) -> None:
    for var, part in zip(entry.reads, entry.op.parts, strict=True):
        value = part(ct)
        cts[var] = value if cts[var] is None else plus(cts[var], value)


def _pull_hot(entry: Any, hot: Any, cts: list, hots: dict, pieces: dict, conjugate: bool,
              entries: list) -> None:  # fmt: skip
    """One entry read through the structured channel."""
    kind = entry.__class__
    if kind is Scale:
        coefs = entry.coefs if entry.coefs is not None else entry.resolve()
        for var, c in zip(entry.reads, coefs, strict=True):
            _add(cts, hots, var, hot.scaled(conjugated(c) if conjugate else c))
        return
    if kind is Pick or kind is Held:
        _pull_other(entry, hot.dense(), cts, pieces, entries)
        return
    if kind is Gather:
        if type(hot) is Hot and hot.rows * hot.count <= _SMALL and not hot.most:
            _pull_gather(entry, hot.dense(), cts)
            return
        for var, op in zip(entry.reads, entry.op.parts, strict=True):
            _add(cts, hots, var, _moved(op, hot))
        return
    if kind is Apply and not is_read(entry):
        _add(cts, hots, entry.reads[0], _moved(entry.op.transposed, hot))
        return
    (var,) = entry.reads
    part = _moved_partial(entry, hot, entries[var].shape, True)
    if part is None and is_read(entry):
        collect(pieces, entry, hot.dense())
    elif part is None:
        part = _rows(hot, entry, True)
        if part is None:
            part = entry.op.transpose(entry.position, hot.dense(), entry.operands, ())
    _add(cts, hots, var, part)


def _moved(op: Any, hot: Any) -> Any:
    """What a structural op makes of a diagonal or of terms: structured again where it moves entries alone."""
    if type(hot) is Hot:
        if not op.src and not op.dst:  # entry by entry, as a cast
            values = op(hot.vector())
            return hot.changed(values, hot.shape, values.dtype)
        if len(op.src) == len(hot.shape):
            if op.__class__ is Reshape:
                return hot.changed(hot.values, op.dst, hot.dtype)
            bounds = raveled_range(op.src, op.key) if op.__class__ is Slice else None
            if bounds is not None:
                return hot.window(*bounds, op.dst)
    terms = as_terms(hot)
    found = None if terms is None else through(terms, op)
    return op(hot.dense()) if found is None else found


def _rows(hot: Any, entry: Any, transpose: bool) -> Any:
    """What the first contraction with a constant makes of structured rows; None where they have to be written out."""
    return rows_of(hot, entry, transpose) if type(hot) is Hot else rows_of_terms(hot, entry, transpose)


def _moved_partial(entry: Any, hot: Any, shape: Any, transpose: bool) -> Any:
    """What a read of parts or a scatter makes of a diagonal or of terms; None where it has to be written out."""
    op = entry.op
    if not (op.copies or op.folds):
        return None
    terms = as_terms(hot)
    if terms is None:
        return None
    if entry.__class__ is Apply:
        return through(terms, op.transposed if transpose else op)
    return through_partial(terms, entry, shape, transpose)


def _add(cts: list, hots: dict, var: int, part: Any) -> None:
    """Add a cotangent of either channel; None is a zero."""
    if type(part) in STRUCTURED:
        _add_hot(cts, hots, var, part)
    elif part is not None:
        cts[var] = part if cts[var] is None else plus(cts[var], part)


def _add_hot(cts: list, hots: dict, var: int, hot: Any) -> None:
    old = hots.get(var)
    both = hot if old is None else added(old, hot)
    if both is None:
        both = plus(hots.pop(var).dense(), hot.dense())
        cts[var] = both if cts[var] is None else plus(cts[var], both)
    else:
        hots[var] = both


def _total(entry: Any, i: int, cts: list, hots: dict, pieces: dict) -> Any:
    ct = cts[i]
    if i in pieces:
        ct = pieces[i].placed(entry.shape, ct)
    if i not in hots:
        return ct
    hot = hots[i].settled() if type(hots[i]) is Terms else hots[i]
    return hot if ct is None else plus(ct, _dense(hot))


def push(program: Program, tangents: list[Any], once: bool = False) -> list[Any]:
    """The tangents of the outputs from those of the inputs; None is a zero. `once`: as in `pull`."""
    try:
        return checked_push(_push, program, tangents) if setting("debug_nans") else _push(program, tangents, once)
    except Exception as error:  # of a rule that the user wrote
        shorten(error)
        raise


def _push(program: Program, tangents: list[Any], once: bool = False) -> list[Any]:
    entries, live, last = program.entries, program.live(), program.last_reads()
    ts: list[Any] = [None] * len(entries)
    ts[: program.inputs] = tangents
    for i in range(program.inputs, len(entries)):
        if not live[i]:
            continue
        entry = entries[i]
        if once:
            entries[i] = None
        if all(ts[v] is None for v in entry.reads):
            continue
        t = push_entry(entry, ts)
        ts[i] = t.settled() if type(t) is Terms else t
        for v in last[i]:
            ts[v] = None
    return [None if v is None else ts[v] for v in program.outputs]


def push_entry(entry: Any, ts: list) -> Any:
    """The tangent of an entry from those that it reads; None where it is zero."""
    kind = entry.__class__
    if kind is Scale:
        coefs = entry.coefs if entry.coefs is not None else entry.resolve()
        return _push_scale(entry.reads, coefs, ts)
    if kind is Apply:
        t = ts[entry.reads[0]]
        return _moved(entry.op, t) if type(t) in STRUCTURED else entry.op(t)
    if kind is Gather:
        present = [p for p, v in enumerate(entry.reads) if ts[v] is not None]
        total = _push_gather(entry, ts, present)
        if total is not None:
            return total
        values = [_dense(ts[entry.reads[p]]) for p in present]
        if len(present) == len(entry.reads):
            return entry.op(*values)
        return entry.op.restricted(tuple(present))(*values)
    if kind is Chained:
        return push_chained(entry, ts)
    if kind is Pick:
        return ts[entry.reads[0]][entry.which]
    if kind is Held:
        found = apply_held(entry.map, [None if ts[v] is None else _dense(ts[v]) for v in entry.reads])
        return found if entry.picks else found[0]
    assert kind is not Input
    t = ts[entry.reads[0]]
    if type(t) in STRUCTURED:
        found = _moved_partial(entry, t, entry.shape, False)
        if found is None:
            found = _rows(t, entry, False)
        if found is not None:
            return found
    t = _dense(t)
    return entry.op(*(t if p == entry.position else x for p, x in enumerate(entry.operands)))


def _push_scale(reads: tuple, coefs: tuple, ts: list) -> Any:
    total: Any = None
    for v, c in zip(reads, coefs, strict=True):
        t = ts[v]
        if t is None:
            continue
        part = t.scaled(c) if type(t) in STRUCTURED else scale(t, c)
        total = part if total is None else _sum(total, part)
    return total


def _push_gather(entry: Any, ts: list, present: list[int]) -> Any:
    """The tangents of joined arrays as terms; None where one of them is written out, or had better be."""
    given = [ts[entry.reads[p]] for p in present]
    if not all([type(t) in STRUCTURED and as_terms(t) is not None for t in given]):
        return None
    total: Any = None
    for p, t in zip(present, given, strict=True):
        part = _moved(entry.op.restricted((p,)), t)
        total = part if total is None else _sum(total, part)
    return total


def _sum(a: Any, b: Any) -> Any:
    """The sum of two tangents of either channel."""
    both = added(a, b) if type(a) in STRUCTURED and type(b) in STRUCTURED else None
    return plus(_dense(a), _dense(b)) if both is None else both


def _dense(t: Any) -> Any:
    return t.dense() if type(t) in STRUCTURED else t
