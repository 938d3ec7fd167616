"""The spec of well-formed linear programs (docs/linear_programs.md), as a check that any test can ask for."""

from typing import Any

from gpujac.core.aval import Aval, kind, shape_of
from gpujac.core.op import Linear, Mask
from gpujac.ops.agree import Guarded
from gpujac.program.ir import Apply, Chained, Gather, Held, Input, Partial, Pick, Program, Scale

KINDS = (Input, Scale, Apply, Gather, Partial, Held, Pick, Chained)


def check(program: Program) -> None:
    """Raise an AssertionError that names the entry and the rule where a program is not well formed."""
    entries = program.entries
    assert program.inputs <= len(entries), "inputs are entries"
    for i, entry in enumerate(entries):
        where = f"v{i} ({entry.__class__.__name__})"
        assert entry.__class__ in KINDS, f"{where}: an entry is one of the eight kinds"
        assert (entry.__class__ is Input) == (i < program.inputs), f"{where}: inputs come first, and nowhere else"
        assert all(0 <= v < i for v in entry.reads), f"{where}: reads {entry.reads}, entries before it only"
        assert type(entry.shape) is tuple, f"{where}: the shape {entry.shape!r} is a tuple"
        assert kind(entry.dtype) in "fc", f"{where}: a tangent is floating or complex, not {entry.dtype}"
        _RULES[entry.__class__](program, i, entry, where)
    for v in program.outputs:
        assert v is None or 0 <= v < len(entries), f"output {v} is a variable or None"
    if program.spots is not None:
        assert len(program.spots) == len(entries), "one place in the user's code per entry"


def _input(program: Program, i: int, entry: Any, where: str) -> None:
    assert entry.reads == (), f"{where}: an input reads nothing"


def _scale(program: Program, i: int, entry: Any, where: str) -> None:
    coefs = entry.coefs if entry.coefs is not None else entry.resolve()
    assert len(entry.reads) == len(coefs) == len(entry.positions) > 0, f"{where}: one coefficient per operand"
    for v, c in zip(entry.reads, coefs, strict=True):
        source = program.entries[v]
        assert tuple(source.shape) == entry.shape, f"{where}: v{v} has shape {source.shape}, not {entry.shape}"
        assert source.dtype == entry.dtype, f"{where}: v{v} is {source.dtype}, not {entry.dtype}"
        for part in _parts(c):
            shape = tuple(shape_of(part))
            fits = len(shape) <= len(entry.shape) and all(
                n in (1, m) for n, m in zip(reversed(shape), reversed(entry.shape), strict=False)
            )
            assert fits, f"{where}: a coefficient of shape {shape} does not broadcast to {entry.shape}"


def _parts(c: Any) -> list:
    if c is None:
        return []
    if isinstance(c, Mask):
        return [c.keep, *_parts(c.factor)]
    return [c.value] if isinstance(c, Guarded) else [c]


def _apply(program: Program, i: int, entry: Any, where: str) -> None:
    assert len(entry.reads) == 1, f"{where}: one operand"
    assert isinstance(entry.op, Linear), f"{where}: {entry.op} is no structural op"
    source = program.entries[entry.reads[0]]
    rank = len(entry.op.src)
    assert tuple(source.shape[len(source.shape) - rank :]) == tuple(entry.op.src), (
        f"{where}: {entry.op.name} acts on trailing axes {entry.op.src}, v{entry.reads[0]} has shape {source.shape}"
    )
    _infers(entry, [Aval(tuple(source.shape), source.dtype)], where)


def _gather(program: Program, i: int, entry: Any, where: str) -> None:
    assert len(entry.reads) == len(entry.op.parts) > 0, f"{where}: one part per operand"
    sources = [program.entries[v] for v in entry.reads]
    _infers(entry, [Aval(tuple(s.shape), s.dtype) for s in sources], where)


def _partial(program: Program, i: int, entry: Any, where: str) -> None:
    assert len(entry.reads) == 1, f"{where}: one tangent"
    assert [x is None for x in entry.operands] == [p == entry.position for p in range(len(entry.operands))], (
        f"{where}: constants everywhere but at position {entry.position}"
    )


def _held(program: Program, i: int, entry: Any, where: str) -> None:
    assert len(entry.reads) == len(entry.map.src), f"{where}: one operand per source of the map"
    for v, aval in zip(entry.reads, entry.map.src, strict=True):
        assert tuple(program.entries[v].shape) == tuple(aval.shape), f"{where}: v{v} does not fit the map"
    if len(entry.map.dst) == 1:
        assert entry.shape == tuple(entry.map.dst[0].shape), f"{where}: the only result is the variable"


def _pick(program: Program, i: int, entry: Any, where: str) -> None:
    (v,) = entry.reads
    source = program.entries[v]
    assert isinstance(source, (Held, Chained)), f"{where}: v{v} has one result only"
    if isinstance(source, Held):
        assert 0 <= entry.which < len(source.map.dst), f"{where}: v{v} has no result {entry.which}"
        assert entry.shape == tuple(source.map.dst[entry.which].shape), f"{where}: shape of result {entry.which}"
    else:
        assert 0 <= entry.which < len(source.op.chain.outputs), f"{where}: v{v} has no result {entry.which}"


def _chained(program: Program, i: int, entry: Any, where: str) -> None:
    assert len(entry.reads) == len(entry.views), f"{where}: views for each tangent"
    assert len(entry.op.chain.inputs) == len(entry.reads) + len(entry.coefs), f"{where}: tangents, then coefficients"


def _infers(entry: Any, avals: list[Aval], where: str) -> None:
    found = entry.op.infer(*avals)
    assert tuple(found.shape) == entry.shape, f"{where}: {entry.op.name} gives shape {found.shape}, not {entry.shape}"
    assert found.dtype == entry.dtype, f"{where}: {entry.op.name} gives {found.dtype}, not {entry.dtype}"


_RULES = {
    Input: _input, Scale: _scale, Apply: _apply, Gather: _gather, Partial: _partial, Held: _held, Pick: _pick,
    Chained: _chained,
}  # fmt: skip
