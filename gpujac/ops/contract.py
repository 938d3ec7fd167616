"""Sums of products of two arrays: matmul, dot, vecdot, outer, tensordot and pairwise einsum.

One op, `Contract(left, right, out)`, with axes named by letters. It is linear in each operand and
closes under transposition: the cotangent of the left operand is Contract(out, right, left). It is
evaluated as one matrix product of permuted operands, and the plan for that is made once per spec.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, final

import numpy as np
from numpy import ndarray

from gpujac.backends.choose import common_backend
from gpujac.backends.host import HOST
from gpujac.core.aval import Aval, Shape, kind
from gpujac.core.op import General, Sample, catalogued, with_shapes
from gpujac.core.trace import Tracer
from gpujac.ops.batching import move_axis
from gpujac.ops.structure import CONJ, sum_over

_CACHE = 1 << 14


class Plan(NamedTuple):
    """How a contraction becomes a matrix product: axis groups by letter."""

    batch: str  # in both operands and in the result
    summed: str  # in both operands, not in the result
    rows: str  # left only
    columns: str  # right only


@lru_cache(_CACHE)
def _plan(left: str, right: str, out: str) -> Plan:
    shared = [c for c in left if c in right]
    return Plan(
        "".join(c for c in shared if c in out),
        "".join(c for c in shared if c not in out),
        "".join(c for c in left if c not in right),
        "".join(c for c in right if c not in left),
    )


def _matmul(be: Any, a: Any, b: Any) -> Any:
    return be.matmul(a, b)


def _swapped(be: Any, a: Any, b: Any) -> Any:
    return be.matmul(b, a)


def _rows_by_transpose(be: Any, a: Any, b: Any) -> Any:
    return be.matmul_transposed(b, a)


def _right_transposed(be: Any, a: Any, b: Any) -> Any:
    return be.matmul_transposed(a, b)


def _left_transposed(be: Any, a: Any, b: Any) -> Any:
    return be.matmul(be.swap_last(a), b)


def _direct(left: str, right: str, out: str, lead_left: int, lead_right: int) -> Any:
    """The matrix product that needs no permutation for this spec and these leading axes, or None."""
    plan = _plan(left, right, out)
    if plan.batch or len(plan.summed) != 1:
        return None
    c = plan.summed
    shapes = (len(left), len(right))
    if shapes == (1, 1):
        return None if lead_left or lead_right else _matmul
    if shapes == (2, 1) and not lead_left:
        if left[0] == c:  # (c, m) with (..., c)
            return _swapped
        return _rows_by_transpose if lead_right else _matmul
    if shapes == (1, 2) and not lead_right:
        return _matmul if right[0] == c else _right_transposed
    if shapes != (2, 2) or lead_right:
        return None
    if left[1] == c and out == left[0] + right[1 - right.index(c)]:
        return _matmul if right[0] == c else _right_transposed
    first = left[0] == c and right[0] == c and not lead_left
    return _left_transposed if first and out == left[1] + right[1] else None


_MATRICES: Any = {  # the two factors that each of them multiplies
    _matmul: lambda a, b: (a, b),
    _swapped: lambda a, b: (b, a),
    _rows_by_transpose: lambda a, b: (b, a.swapaxes(-1, -2)),
    _right_transposed: lambda a, b: (a, b.swapaxes(-1, -2)),
    _left_transposed: lambda a, b: (a.swapaxes(-1, -2), b),
}


@final
@catalogued
@dataclass(frozen=True)
class Contract(General):
    """Sum over the letters of `left` and `right` that `out` lacks."""

    name = "contract"
    linear_in = (0, 1)
    left: str
    right: str
    out: str

    def __call__(self, *operands: Any) -> Any:
        a, b = operands
        if a.__class__ is ndarray and b.__class__ is ndarray:  # the sweeps: no trace to ask
            return self.evaluate(HOST, a, b)
        a, b = operands = with_shapes(operands)
        top = a.owner if isinstance(a, Tracer) else None
        if isinstance(b, Tracer) and (top is None or b.owner.level > top.level):
            top = b.owner
        if top is None:
            return self.evaluate(common_backend(operands), a, b)
        # a trace must know every axis: leading ones get letters of their own
        lead_a, lead_b = len(a.shape) - len(self.left), len(b.shape) - len(self.right)
        if lead_a or lead_b:
            return _spelled(self.left, self.right, self.out, lead_a, lead_b)(a, b)
        return top.general(self, operands)

    def evaluate(self, be: Any, *operands: Any) -> Any:
        a, b = operands
        lead_a, lead_b = len(a.shape) - len(self.left), len(b.shape) - len(self.right)
        direct = self._shortcut(lead_a, lead_b)
        if direct is not None:
            return direct(be, a, b)
        return self._general(be, a, b, lead_a, lead_b)

    def write(self, be: Any, out: Any, *operands: Any) -> None:
        a, b = operands
        direct = self._shortcut(len(a.shape) - len(self.left), len(b.shape) - len(self.right))
        if direct is None:
            out[...] = self.evaluate(be, a, b)
            return
        x, y = _MATRICES[direct](a, b)
        np.matmul(x, y, out=out)

    def _shortcut(self, lead_a: int, lead_b: int) -> Any:
        direct = self.shortcuts.get((lead_a, lead_b), _direct)
        if direct is _direct:  # not asked yet
            direct = _direct(self.left, self.right, self.out, lead_a, lead_b)
            self.shortcuts[lead_a, lead_b] = direct
        return direct

    @cached_property
    def shortcuts(self) -> dict[tuple[int, int], Any]:
        """Numbers of leading axes -> the direct product, or None where there is none."""
        return {}

    def _general(self, be: Any, a: Any, b: Any, lead_a: int, lead_b: int) -> Any:
        """Permute both to (lead, batch, rows, summed) and (lead, batch, summed, columns)."""
        plan = _plan(self.left, self.right, self.out)
        both = lead_a > 0 and lead_b > 0
        if both and lead_a != lead_b:  # ranks of the leading axes agree after padding with ones
            rank = max(lead_a, lead_b)
            a = be.reshape(a, (1,) * (rank - lead_a) + a.shape)
            b = be.reshape(b, (1,) * (rank - lead_b) + b.shape)
            lead_a = lead_b = rank
        sizes = dict(zip(self.left, a.shape[lead_a:], strict=True))
        sizes |= dict(zip(self.right, b.shape[lead_b:], strict=True))
        width = {g: math.prod(sizes[c] for c in g) for g in plan}
        shared = 0 if not both else lead_a
        a2, rows_lead = _matrix(be, a, self.left, lead_a, shared, plan.batch, plan.rows, plan.summed, width)
        b2, columns_lead = _matrix(
            be, b, self.right, lead_b, shared, plan.batch, plan.columns, plan.summed, width
        )
        product = be.matmul(a2, be.swap_last(b2))
        lead = tuple(product.shape[:shared])
        shape = lead + tuple(sizes[c] for c in plan.batch)
        shape += rows_lead + tuple(sizes[c] for c in plan.rows)
        shape += columns_lead + tuple(sizes[c] for c in plan.columns)
        product = be.reshape(product, shape)
        return self._order(be, product, plan, shared, len(rows_lead), len(columns_lead))

    def _order(self, be: Any, x: Any, plan: Plan, shared: int, rows: int, columns: int) -> Any:
        """Axes (shared, batch, rows lead, rows, columns lead, columns) to (leads, out)."""
        at = shared
        where: dict[str, int] = {}
        for group, extra in ((plan.batch, 0), (plan.rows, rows), (plan.columns, columns)):
            at += extra
            for c in group:
                where[c] = at
                at += 1
        first_rows = shared + len(plan.batch)
        first_columns = first_rows + rows + len(plan.rows)
        order = (
            *range(shared),
            *range(first_rows, first_rows + rows),
            *range(first_columns, first_columns + columns),
            *(where[c] for c in self.out),
        )
        return x if order == tuple(range(len(order))) else be.permute(x, order)

    def flops(self, shapes: tuple[Shape, ...], result: Shape) -> int:
        sizes = dict(zip(self.left, shapes[0][len(shapes[0]) - len(self.left) :], strict=True))
        sizes |= dict(zip(self.right, shapes[1][len(shapes[1]) - len(self.right) :], strict=True))
        return 2 * math.prod(result) * math.prod([n for c, n in sizes.items() if c not in self.out])

    def infer(self, *avals: Aval) -> Aval:
        a, b = avals
        lead_a = a.shape[: len(a.shape) - len(self.left)]
        lead_b = b.shape[: len(b.shape) - len(self.right)]
        sizes = dict(zip(self.left, a.shape[len(lead_a) :], strict=True))
        sizes |= dict(zip(self.right, b.shape[len(lead_b) :], strict=True))
        lead = lead_a if len(lead_a) >= len(lead_b) else lead_b
        return Aval(lead + tuple(sizes[c] for c in self.out), a.dtype)

    def transpose(self, position: int, ct: Any, operands: tuple, shape: Shape) -> Any:
        # <ct, a . b> as a function of a is <ct . conj(b), a>
        other = operands[1 - position]
        other = CONJ(other) if kind(other.dtype) == "c" else other
        part = self.parts[position]
        return part(ct, other) if position == 0 else part(other, ct)

    @cached_property
    def parts(self) -> tuple["Contract", "Contract"]:
        """The contractions that give the cotangents of the left and of the right operand."""
        for mine, theirs in ((self.left, self.right), (self.right, self.left)):
            if any(c not in self.out and c not in theirs for c in mine):
                raise self.missing("transpose")  # einsum_pair sums such letters before
        return _interned(self.out, self.right, self.left), _interned(self.left, self.out, self.right)

    def batch(self, size: int, xs: tuple, axes: tuple) -> tuple[Any, int]:
        letter = next(c for c in _LETTERS if c not in self.left + self.right)
        a, left = _named(xs[0], self.left, axes[0], letter)
        b, right = _named(xs[1], self.right, axes[1], letter)
        return _interned(left, right, letter + self.out)(a, b), -len(self.out) - 1

    @classmethod
    def samples(cls) -> list[Sample]:
        return [
            Sample(contract("ij", "j", "i"), (2, 3), (3,), complex_ok=True),
            Sample(contract("ij", "jk", "ik"), (2, 3), (3, 2), complex_ok=True),
            Sample(contract("i", "i", ""), (3,), (3,)),
            Sample(contract("i", "j", "ij"), (2,), (3,)),
            Sample(contract("bij", "bjk", "bik"), (2, 2, 3), (2, 3, 2)),
            Sample(contract("ijk", "kj", "ik"), (2, 3, 2), (2, 3)),
            Sample(contract("j", "ij", "i"), (3,), (2, 3)),
        ]


def _named(x: Any, letters: str, axis: int | None, letter: str) -> tuple[Any, str]:
    """An operand whose mapped axis has a name; behind other leading axes it is moved to the letters."""
    if axis is None:
        return x, letters
    near = max(axis, -len(letters) - 1)
    at = len(letters) + 1 + near
    return move_axis(x, axis, near), letters[:at] + letter + letters[at:]


def _matrix(be: Any, x: Any, letters: str, lead: int, shared: int, batch: str, own: str,
            summed: str, width: dict[str, int]) -> tuple[Any, Shape]:  # fmt: skip
    """`x` as (shared lead, batch, private lead x own, summed), and the private lead's shape."""
    at = {c: lead + i for i, c in enumerate(letters)}
    order = (
        *range(shared),
        *(at[c] for c in batch),
        *range(shared, lead),
        *(at[c] for c in own),
        *(at[c] for c in summed),
    )
    if order != tuple(range(len(order))):
        x = be.permute(x, order)
    private = tuple(x.shape[shared + len(batch) : shared + len(batch) + lead - shared])
    shape = tuple(x.shape[: shared + len(batch)]) + (math.prod(private) * width[own], width[summed])
    return be.reshape(x, shape), private


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@lru_cache(_CACHE)
def _interned(left: str, right: str, out: str) -> Contract:
    return Contract(left, right, out)


@lru_cache(_CACHE)
def _spelled(left: str, right: str, out: str, lead_left: int, lead_right: int) -> Contract:
    """The contraction with letters for leading axes: shared from the right where both have some."""
    width = max(lead_left, lead_right)
    names = "".join([c for c in _LETTERS if c not in left + right][:width])
    return _interned(names[width - lead_left :] + left, names[width - lead_right :] + right, names + out)


contract = _interned


def einsum_pair(left: str, right: str, out: str, a: Any, b: Any) -> Any:
    """The contraction of two operands, letters of one operand alone summed first."""
    a, left = _sum_lonely(a, left, right, out)
    b, right = _sum_lonely(b, right, left, out)
    return _interned(left, right, out)(a, b)


def _sum_lonely(x: Any, own: str, other: str, out: str) -> tuple[Any, str]:
    lonely = [i - len(own) for i, c in enumerate(own) if c not in other and c not in out]
    if not lonely:
        return x, own
    kept = "".join(c for c in own if c in other or c in out)
    return sum_over(tuple(x.shape), tuple(lonely))(x), kept
