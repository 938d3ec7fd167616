"""Reads of parts of one variable, collected during a transposed sweep and written back at once.

n reads of `x[i]` cost O(n) in all: their cotangents are kept as pieces and placed into one array
when the sweep comes to the variable, instead of n arrays of zeros that are added up.
"""

import math
from typing import Any

from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.backends.host import HOST
from gpujac.core.aval import Shape, shape_of
from gpujac.core.trace import Tracer
from gpujac.ops import join
from gpujac.ops.agree import plus
from gpujac.ops.indexing import Slice, Take, place, scatter_add
from gpujac.ops.structure import reshape
from gpujac.program.ir import Apply, Partial

_MANY = 16  # entries of a vector from which one addition of all is cheaper than one for each


class Pieces:
    """The cotangents of all slices and takes of one variable."""

    __slots__ = ("slices", "takes")

    def __init__(self) -> None:
        self.slices: list[tuple[tuple, Any]] = []  # (basic key, cotangent)
        self.takes: dict[tuple[int, int], list[tuple[Any, Any]]] = {}  # (size, rest) -> (index, ct)

    def placed(self, shape: Shape, ct: Any) -> Any:
        """Everything collected, in the shape of the variable, added to `ct`."""
        if self.slices:
            ct = _plus(ct, self._place_slices(shape))
        for (size, rest), parts in self.takes.items():
            ct = _plus(ct, _scatter(size, rest, parts))
        return ct

    def _place_slices(self, shape: Shape) -> Any:
        if len(shape) == 1 and len(self.slices) >= _MANY:
            whole = _added_entries(shape[0], self.slices)
            if whole is not None:
                return whole
        reach = max(len(key) for key, _ in self.slices)
        trailing = shape[len(shape) - reach :]
        keys = tuple([_widened(key, trailing) for key, _ in self.slices])
        return place(trailing, keys)(*[piece for _, piece in self.slices])


def _added_entries(size: int, slices: list[tuple[tuple, Any]]) -> Any:
    """Many single entries of a vector added up at once, on the CPU; None where they are something else."""
    first = slices[0][1]
    kind, lead = first.__class__, shape_of(first)
    if kind not in HOST_TYPES:
        return None
    for key, ct in slices:
        if ct.__class__ is not kind or len(key) != 1 or key[0].__class__ is not int or shape_of(ct) != lead:
            return None
    values = HOST.stack(tuple([ct for _, ct in slices]), -1)
    buffer = HOST.zeros((*lead, size), values.dtype, values)
    HOST.add_at(buffer, [key[0] for key, _ in slices], values, 0)
    return buffer


def is_read(entry: Any) -> bool:
    """Whether the entry reads a part of one variable."""
    kind, op = entry.__class__, entry.op
    return (kind is Apply and op.__class__ is Slice) or (kind is Partial and op.__class__ is Take)


def collect(pieces: dict[int, Pieces], entry: Any, ct: Any) -> bool:
    """Keep the cotangent of a slice or take for later; False for any other entry."""
    kind = entry.__class__
    op = entry.op
    if kind is Apply and op.__class__ is Slice:
        _of(pieces, entry.reads[0]).slices.append((op.key, ct))
        return True
    if kind is Partial and op.__class__ is Take:
        takes = _of(pieces, entry.reads[0]).takes
        takes.setdefault((op.size, op.rest), []).append((entry.operands[1], ct))
        return True
    return False


def _of(pieces: dict[int, Pieces], var: int) -> Pieces:
    found = pieces.get(var)
    if found is None:
        pieces[var] = found = Pieces()
    return found


def _scatter(size: int, rest: int, parts: list[tuple[Any, Any]]) -> Any:
    """One scatter-add for all takes along one axis."""
    if len(parts) == 1:
        ((index, ct),) = parts
        return scatter_add(size, rest, len(index.shape))(ct, index)
    if _on_a_device(parts):
        return _added_in_place(size, rest, parts)
    flat = [_flattened(index, ct, rest) for index, ct in parts]
    cts = [ct for _, ct in flat]
    shapes = tuple([tuple(ct.shape) for ct in cts])
    indices = [index for index, _ in flat]
    index = join.concat(tuple([tuple(i.shape) for i in indices]), -1)(*indices)
    return scatter_add(size, rest, 1)(join.concat(shapes, -1 - rest)(*cts), index)


def _on_a_device(parts: list[tuple[Any, Any]]) -> bool:
    """Whether no part is traced and all lie where joining them would be launches and traffic of its own."""
    if any([isinstance(x, Tracer) for part in parts for x in part]):
        return False
    return backend_of(parts[0][1]).saturation_bytes is not None


def _added_in_place(size: int, rest: int, parts: list[tuple[Any, Any]]) -> Any:
    """The parts added into one array of zeros, one after the other."""
    index, ct = parts[0]
    end = len(ct.shape) - rest
    lead = tuple(ct.shape[: end - len(index.shape)])
    be = backend_of(ct)
    buffer = be.zeros((*lead, size, *ct.shape[end:]), ct.dtype, ct)
    for index, ct in parts:
        be.add_at(buffer, index, ct, rest)
    return buffer


def _flattened(index: Any, ct: Any, rest: int) -> tuple[Any, Any]:
    """The index as one axis, and the cotangent to match."""
    width, rank = len(index.shape), len(ct.shape)
    if width == 1:
        return index, ct
    src = tuple(ct.shape[rank - width - rest :])
    count = math.prod(index.shape)
    index = reshape(tuple(index.shape), (count,))(index)
    return index, reshape(src, (count, *src[width:]))(ct)


def _plus(a: Any, b: Any) -> Any:
    return b if a is None else plus(a, b)


def _widened(key: tuple, trailing: Shape) -> tuple:
    extra = len(trailing) - len(key)
    return (*((0, n, 1) for n in trailing[:extra]), *key)
